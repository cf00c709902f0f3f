import pytest
import torch
from torch import Tensor

from detector.anchors import AnchorGenerator
from detector.backbone import Backbone
from detector.retinanet import MEAN, STD, Head, RetinaNet

K = 3


def net(bias: Tensor | None = None, num_classes: int | None = None) -> RetinaNet:
    torch.manual_seed(0)
    bias = torch.full((K,), -4.0) if bias is None else bias
    backbone = Backbone(10, width=8, norm="group", channels=16)
    return RetinaNet(backbone, AnchorGenerator(scales=1), bias, convs=1, num_classes=num_classes)


def test_shapes_and_the_order_of_levels() -> None:
    predictions = net()(
        torch.zeros(2, 3, 128, 256, dtype=torch.uint8), torch.tensor([[128, 256]] * 2)
    )
    cells = [16 * 32, 8 * 16, 4 * 8, 2 * 4, 1 * 2]  # of strides 8 .. 128
    assert predictions.level_sizes == [3 * count for count in cells]
    assert predictions.logits.shape == (2, 3 * sum(cells), K)
    assert predictions.deltas.shape == (2, 3 * sum(cells), 4)
    assert predictions.anchors.shape == (3 * sum(cells), 4)
    # the second level begins where the first one ends, with anchors twice as large
    first = predictions.anchors[[0, predictions.level_sizes[0]]]
    torch.testing.assert_close(first[1], 2 * first[0])


def test_an_anchors_outputs_lie_side_by_side() -> None:
    head = Head(channels=4, convs=0, per_cell=2, outputs=3)
    x = torch.randn(1, 4, 2, 5)
    maps = head.output(x)  # (1, 2 * 3, 2, 5)
    found = head(x)
    assert found.shape == (1, 2 * 5 * 2, 3)
    for row, column, anchor in ((0, 0, 0), (0, 1, 1), (1, 4, 1)):
        expected = maps[0, 3 * anchor : 3 * anchor + 3, row, column]
        assert torch.equal(found[0, (row * 5 + column) * 2 + anchor], expected)


def test_logits_start_near_their_bias() -> None:
    bias = torch.tensor([-4.0, -3.0, -2.0])
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    predictions = net(bias)(images, torch.tensor([[64, 64]]))
    torch.testing.assert_close(predictions.logits.mean(1)[0], bias, atol=0.1, rtol=0)


def test_pixels_are_normalized_and_padding_is_zero() -> None:
    images = torch.full((1, 3, 4, 6), 255, dtype=torch.uint8)
    x = net().normalize(images, torch.tensor([[3, 5]]))
    for channel in range(3):
        white = (1 - MEAN[channel]) / STD[channel]
        torch.testing.assert_close(x[0, channel, :3, :5], torch.full((3, 5), white))
    assert (x[:, :, 3:] == 0).all()
    assert (x[:, :, :, 5:] == 0).all()


def test_a_background_logit_changes_no_other_initial_weight() -> None:
    plain, wider = net(), net(torch.full((K + 1,), -4.0), num_classes=K)
    after = torch.rand(())  # neither what is drawn afterwards
    torch.manual_seed(0)
    net()
    assert torch.rand(()) == after
    for name, value in plain.state_dict().items():
        other = wider.state_dict()[name]
        if name.startswith("class_head.output."):
            other = other.unflatten(0, (3, K + 1))[:, :K].flatten(0, 1)
        assert torch.equal(other, value), name


@pytest.mark.parametrize("norm", ["none", "group"])
def test_group_norm_in_the_heads(norm: str) -> None:
    kinds = {type(module) for module in Head(16, 2, 3, 4, norm).modules()}
    assert (torch.nn.GroupNorm in kinds) == (norm == "group")
