"""With torchvision's RetinaNet weights ours finds what torchvision's finds."""

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2

from detector.anchors import AnchorGenerator
from detector.backbone import Backbone
from detector.nms import Suppression
from detector.postprocess import Postprocess
from detector.retinanet import RetinaNet
from detector.run.weights import from_torchvision, load_net
from losses import FocalLoss

K = 91
SCENES = {  # height, width of two images, one landscape, one portrait; the padded batch; seeds
    "160": [(160, 120), (120, 160)],
    "320": [(320, 240), (240, 320)],
    "640": [(480, 640), (640, 480)],
    "800": [(800, 1333), (800, 1199)],
}


def ours(version: int) -> RetinaNet:
    backbone = {1: Backbone(50, norm="batch"), 2: Backbone(50, norm="batch", p6="c5")}[version]
    anchors = AnchorGenerator(rounding="torchvision")
    head_norm = {1: "none", 2: "group"}[version]
    bias = FocalLoss().initial_bias(K, 0.01)
    return RetinaNet(backbone, anchors, bias, head_norm=head_norm).eval()


def theirs(version: int, seed: int, sizes: list[tuple[int, int]]) -> torch.nn.Module:
    """Random weights, the class head so loud that there is much to suppress; images are not
    resized."""
    torch.manual_seed(seed)
    make = {1: retinanet_resnet50_fpn, 2: retinanet_resnet50_fpn_v2}[version]
    short, long = min(min(s) for s in sizes), max(max(s) for s in sizes)
    model = make(weights=None, weights_backbone=None, num_classes=K, min_size=short, max_size=long)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as after training: not the identity
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def stage(model: torch.nn.Module, images: list[Tensor]) -> None:
    """Scales the class head and lifts its bias until the scores of these images spread around 0.05
    and more."""
    head = model.head.classification_head.cls_logits
    with torch.no_grad():
        batch, _ = model.transform(images)
        features = list(model.backbone(batch.tensors).values())
        logits = model.head.classification_head(features)
        deltas = model.head.regression_head(features)
        scale = 1.5 / logits.std()
        head.weight *= scale
        head.bias.fill_(0)
        logits = model.head.classification_head(features)
        head.bias += -1.0 - torch.quantile(logits.flatten()[::97], 0.9995)
        model.head.regression_head.bbox_reg.weight *= 0.3 / deltas.std()


@pytest.mark.parametrize(
    ("version", "scene", "seed"),
    [(1, "160", 0), (2, "160", 1)]
    + [
        pytest.param(v, scene, seed, marks=pytest.mark.slow)
        for v in (1, 2)
        for scene, seeds in (
            ("320", (0, 1, 2, 3, 4)),
            ("640", (0, 1, 2, 3, 4)),
            ("800", (0, 1, 2, 3, 4)),
        )
        for seed in seeds
    ],
)
def test_detections_agree_with_torchvision(version: int, scene: str, seed: int) -> None:
    sizes = SCENES[scene]
    model, net = theirs(version, seed, sizes), ours(version)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]
    floats = [image / 255 for image in images]
    stage(model, floats)
    load_net(net, from_torchvision(dict(model.state_dict())), "torchvision")
    with torch.no_grad():
        expected = model(floats)

    height, width = model.transform(floats)[0].tensors.shape[-2:]
    batch = torch.zeros(2, 3, height, width, dtype=torch.uint8)
    for k, image in enumerate(images):
        batch[k, :, : image.shape[1], : image.shape[2]] = image
    content = torch.tensor(sizes)
    suppression = Suppression(max_detections=300)
    postprocess = Postprocess(FocalLoss().scores, suppression, score_threshold=0.05, top_k=1000)
    with torch.no_grad():
        found = postprocess(net(batch, content), content, content)
    for k, row in enumerate(expected):
        count = len(row["scores"])
        assert count >= 50
        assert (found.labels[k] >= 0).sum() == count
        pairs = partners(row, found.boxes[k, :count], found.labels[k, :count])
        assert len(set(pairs.tolist())) == count  # one to one
        torch.testing.assert_close(found.scores[k][pairs], row["scores"], atol=1e-4, rtol=0)
        # 1e-4 of a pixel is below one float32 step from 1,024 px on, so relative there
        torch.testing.assert_close(found.boxes[k][pairs], row["boxes"], atol=1e-4, rtol=1e-6)


def partners(row: dict[str, Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
    """For every detection of torchvision's the index of the nearest of ours of the same class.

    By order alone they cannot be paired: scores that differ by rounding change places.
    """
    distance = (row["boxes"][:, None] - boxes).abs().amax(dim=2)
    return torch.where(row["labels"][:, None] == labels, distance, torch.inf).argmin(dim=1)
