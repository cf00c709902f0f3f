"""Where training can start from, and what is said when it cannot."""

import re
import urllib.error
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models import ResNet18_Weights, resnet18
from torchvision.models.detection import retinanet_resnet50_fpn

from detector.anchors import AnchorGenerator
from detector.backbone import Backbone
from detector.config.errors import UserError
from detector.retinanet import RetinaNet
from detector.run.weights import start_from
from losses import FocalLoss

State = dict[str, Tensor]
CLASSES, IDS = ["person", "zebra", "disk"], [1, 24, 3]  # 3 is a car in COCO


def small(num_classes: int = 3, **options: int) -> RetinaNet:
    bias = FocalLoss().initial_bias(num_classes, 0.01)
    body = Backbone(18, norm="frozen", channels=16)
    return RetinaNet(body, AnchorGenerator(), bias, **({"convs": 1} | options))


def large() -> RetinaNet:
    return RetinaNet(Backbone(50, norm="frozen"), AnchorGenerator(), torch.full((3,), -4.0))


@pytest.fixture(scope="module")
def published() -> State:
    """Of the form of torchvision's first RetinaNet file: frozen norms without counters, and the
    convolutions of the heads counted together with their activations."""
    torch.manual_seed(0)
    state = retinanet_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    state = {k: torch.rand_like(v) for k, v in state.items() if v.is_floating_point()}
    old = {}
    for key, value in state.items():
        key = re.sub(r"\.conv\.(\d)\.0\.", lambda found: f".conv.{2 * int(found[1])}.", key)
        old[key] = value
    assert "head.regression_head.conv.6.weight" in old
    return old


def test_torchvision_file(published: State, tmp_path: Path) -> None:
    path = tmp_path / "retinanet.pth"
    torch.save(published, path)
    net = large()
    before = net.class_head.output.weight.detach().clone().unflatten(0, (9, 3))
    said = start_from(net, str(path), 50, CLASSES, IDS)
    assert said == f"weights: {path}; 2 of 3 classes have an output there, the others are new"
    state = net.state_dict()
    for name, key in (
        ("backbone.body.conv1.weight", "backbone.body.conv1.weight"),
        ("backbone.fpn.extra_blocks.p7.bias", "backbone.fpn.extra_blocks.p7.bias"),
        ("class_head.conv.3.0.weight", "head.classification_head.conv.6.weight"),
        ("box_head.conv.1.0.bias", "head.regression_head.conv.2.bias"),
        ("box_head.output.weight", "head.regression_head.bbox_reg.weight"),
    ):
        assert torch.equal(state[name], published[key])
    theirs = published["head.classification_head.cls_logits.weight"].unflatten(0, (9, 91))
    ours = state["class_head.output.weight"].unflatten(0, (9, 3))
    assert torch.equal(ours[:, 0], theirs[:, 1])
    assert torch.equal(ours[:, 1], theirs[:, 24])
    assert torch.equal(ours[:, 2], before[:, 2])
    # those weights were trained without an epsilon, our norms add 1e-5
    found = state["backbone.body.bn1.running_var"] + net.backbone.body.bn1.eps
    torch.testing.assert_close(found, published["backbone.body.bn1.running_var"])


def test_imagenet_comes_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    source = resnet18(weights=None).state_dict()
    torch.save(source, tmp_path / "checkpoints" / Path(ResNet18_Weights.DEFAULT.url).name)
    net = small()
    said = start_from(net, "imagenet", 18, CLASSES, IDS)
    assert said == "weights: the ResNet of ImageNet; pyramid and heads are new"
    for name, value in net.backbone.body.state_dict().items():
        assert torch.equal(value, source[name])


def test_imagenet_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    with pytest.raises(UserError, match="no route to host") as caught:
        start_from(small(), "imagenet", 18, CLASSES, IDS)
    assert str(tmp_path / "checkpoints" / "resnet18-f37072fd.pth") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_a_resnet(tmp_path: Path) -> None:
    source = resnet18(weights=None).state_dict()
    torch.save(source, tmp_path / "body.pth")
    net = small()
    start_from(net, str(tmp_path / "body.pth"), 18, CLASSES, IDS)
    assert torch.equal(net.backbone.body.conv1.weight, source["conv1.weight"])
    with pytest.raises(UserError, match=r"does not fit this model.*model\.depth"):
        start_from(large(), str(tmp_path / "body.pth"), 50, CLASSES, IDS)


def test_our_own_file_with_more_classes(tmp_path: Path) -> None:
    old, net = small(5), small(3)
    fresh = net.class_head.output.weight.detach().clone()
    state = {f"net.{k}": v for k, v in old.state_dict().items()}
    torch.save({"state_dict": state | {"losses.class_loss.x": fresh}}, tmp_path / "old.ckpt")
    said = start_from(net, str(tmp_path / "old.ckpt"), 18, CLASSES, IDS)
    assert said.endswith("other classes, so the last layer of the class head is new")
    assert torch.equal(net.class_head.output.weight, fresh)
    found, expected = net.class_head.conv.state_dict(), old.class_head.conv.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with pytest.raises(UserError, match=r"weights differ, the first is .*head_norm"):
        start_from(small(3, convs=2), str(tmp_path / "old.ckpt"), 18, CLASSES, IDS)
    with pytest.raises(UserError, match=r"weights differ, the first is class_head\.conv\.0"):
        start_from(small(3, convs=0), str(tmp_path / "old.ckpt"), 18, CLASSES, IDS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is neither 'imagenet', nor a file, nor a run"),
        (b"not a checkpoint", "cannot be read as a checkpoint"),
        ({"weights": torch.zeros(1)}, "holds neither a ResNet, a RetinaNet of torchvision"),
    ],
)
def test_what_is_no_source(content: object, words: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        start_from(small(), str(path), 18, CLASSES, IDS)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
