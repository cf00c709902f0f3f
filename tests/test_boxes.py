import math

import torch
from torchvision.ops import box_iou

from detector.boxes import MAX_LOG_SCALE, clip, decode, encode
from losses.overlaps import area, pairwise_intersection


def random_boxes(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator) * 100
    return torch.cat([corner, corner + torch.rand(*shape, 2, generator=generator) * 80 + 1], -1)


def test_encode_by_hand() -> None:
    anchor = torch.tensor([0.0, 0.0, 10.0, 20.0])  # center 5, 10, size 10 x 20
    box = torch.tensor([5.0, 0.0, 25.0, 10.0])  # center 15, 5, size 20 x 10
    # dx = (15 - 5) / 10, dy = (5 - 10) / 20, dw = log(20 / 10), dh = log(10 / 20)
    expected = torch.tensor([1.0, -0.25, math.log(2), -math.log(2)])
    torch.testing.assert_close(encode(box, anchor), expected)


def test_decode_undoes_encode() -> None:
    boxes, anchors = random_boxes(3, 50), random_boxes(50, seed=1)
    torch.testing.assert_close(decode(encode(boxes, anchors), anchors), boxes, atol=1e-3, rtol=0)


def test_decode_bounds_growth_and_stays_finite() -> None:
    anchor = torch.tensor([0.0, 0.0, 16.0, 16.0])
    box = decode(torch.tensor([0.0, 0.0, 1e4, MAX_LOG_SCALE]), anchor)
    # 16 px times 1000 / 16 is 1000 px, half to each side of the center 8
    torch.testing.assert_close(box, torch.tensor([-492.0, -492.0, 508.0, 508.0]))


def test_decode_of_half_precision_is_float32() -> None:
    deltas, anchors = torch.randn(20, 4).bfloat16(), random_boxes(20)
    assert torch.equal(decode(deltas, anchors), decode(deltas.float(), anchors))


def test_pairwise_intersection_against_torchvision() -> None:
    a, b = random_boxes(2, 7), random_boxes(30, seed=1)
    shared = pairwise_intersection(a, b)
    for k in range(2):
        iou = shared[k] / (area(a[k])[:, None] + area(b) - shared[k])
        torch.testing.assert_close(iou, box_iou(a[k], b))


def test_clip_cuts_each_image_at_its_own_size() -> None:
    boxes = torch.tensor([-5.0, -5.0, 50.0, 50.0]).expand(2, 1, 4)
    clipped = clip(boxes, torch.tensor([[30, 40], [60, 20]]))  # height, width
    assert clipped[:, 0].tolist() == [[0, 0, 40, 30], [0, 0, 20, 50]]
