import pytest
import torch
from torch import nn
from torchvision.models import ResNet, resnet18, resnet50
from torchvision.models.resnet import BasicBlock

from detector.backbone import Backbone, ResNetBody, group_norm


def resnet10() -> nn.Module:
    return ResNet(BasicBlock, [1, 1, 1, 1])


@pytest.mark.parametrize(("depth", "reference"), [(10, resnet10), (18, resnet18), (50, resnet50)])
def test_body_has_the_names_and_shapes_of_torchvisions_resnet(depth: int, reference) -> None:  # type: ignore[no-untyped-def]
    expected = {k: v.shape for k, v in reference().state_dict().items() if not k.startswith("fc.")}
    body = ResNetBody(depth, 64, "batch")
    assert {k: v.shape for k, v in body.state_dict().items()} == expected


def test_body_computes_what_torchvisions_resnet_computes() -> None:
    torch.manual_seed(0)
    reference, body = resnet18().eval(), ResNetBody(18, 64, "batch").eval()
    body.load_state_dict({k: v for k, v in reference.state_dict().items() if k[:3] != "fc."})
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        pooled = body(x)[-1].mean((2, 3))
        torch.testing.assert_close(reference.fc(pooled), reference(x))


@pytest.mark.parametrize("p6", ["p5", "c5"])
@pytest.mark.parametrize("norm", ["frozen", "batch", "group"])
def test_five_levels_with_halving_sizes(norm: str, p6: str) -> None:
    backbone = Backbone(18, width=16, norm=norm, channels=32, p6=p6)  # type: ignore[arg-type]
    sizes = [tuple(level.shape) for level in backbone(torch.rand(2, 3, 160, 96))]
    # 160 x 96 over 8, 16, 32, 64, 128, rounded up
    assert sizes == [(2, 32, h, w) for h, w in [(20, 12), (10, 6), (5, 3), (3, 2), (2, 1)]]


def test_p6_comes_from_c5_even_when_channels_are_equal() -> None:
    backbone = Backbone(18, width=8, norm="batch", channels=64, p6="c5").eval()  # C5 has 64, too
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        c5 = backbone.body(x)[-1]
        torch.testing.assert_close(backbone(x)[3], backbone.fpn.extra_blocks.p6(c5))


def test_freeze_stops_the_first_stages_only() -> None:
    body = Backbone(18, width=8, norm="batch", channels=8, freeze=2).body
    trained = {name.split(".")[0] for name, p in body.named_parameters() if p.requires_grad}
    assert trained == {"layer2", "layer3", "layer4"}


def test_frozen_stages_stay_as_they_are() -> None:
    """Statistics of BatchNorm, too; those of the other stages move."""
    body = Backbone(10, width=8, norm="batch", channels=8, freeze=2).body
    before = {name: value.clone() for name, value in body.named_buffers()}
    body(torch.rand(2, 3, 64, 64))
    moved = {n.split(".")[0] for n, value in body.named_buffers() if not value.equal(before[n])}
    assert moved == {"layer2", "layer3", "layer4"}


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (64, 16), (96, 8), (32, 8), (16, 4)])
def test_group_norm_divides_channels(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups
