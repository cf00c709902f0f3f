import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator as TorchvisionAnchors
from torchvision.models.detection.image_list import ImageList

from detector.anchors import AnchorGenerator


def feature_sizes(height: int, width: int) -> list[tuple[int, int]]:
    return [(-(-height // s), -(-width // s)) for s in AnchorGenerator.strides]


def test_anchors_by_hand() -> None:
    generator = AnchorGenerator(sizes=[32, 64, 128, 256, 512], ratios=[1.0, 4.0], scales=1)
    anchors = generator((16, 24), feature_sizes(16, 24))
    # P3: 2 x 3 cells of 8 px, ratio 1: 32 x 32; ratio 4: 32 / 2 wide, 32 * 2 high
    assert anchors[:4].tolist() == [
        [-16, -16, 16, 16],
        [-8, -32, 8, 32],
        [8 - 16, -16, 8 + 16, 16],
        [8 - 8, -32, 8 + 8, 32],
    ]
    assert anchors[3 * 2].tolist() == [-16, 8 - 16, 16, 8 + 16]  # second row of cells
    assert len(anchors) == 2 * (2 * 3 + 1 * 2 + 1 + 1 + 1)


def test_scales_share_an_octave() -> None:
    anchors = AnchorGenerator(ratios=[1.0], scales=3)((8, 8), feature_sizes(8, 8))[:3]
    sides = anchors[:, 2] - anchors[:, 0]
    torch.testing.assert_close(sides, 32 * 2 ** torch.tensor([0, 1 / 3, 2 / 3]))


def test_torchvision_rounding_equals_torchvision() -> None:
    height, width = 800, 1344
    sizes = feature_sizes(height, width)
    sides = tuple(
        (x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (32, 64, 128, 256, 512)
    )
    reference = TorchvisionAnchors(sides, ((0.5, 1.0, 2.0),) * 5)
    images = ImageList(torch.zeros(1, 3, height, width), [(height, width)])
    expected = reference(images, [torch.zeros(1, 1, *size) for size in sizes])[0]
    assert torch.equal(AnchorGenerator(rounding="torchvision")((height, width), sizes), expected)


def test_exact_strides_do_not_follow_the_image() -> None:
    anchors = AnchorGenerator(ratios=[1.0], scales=1)((800, 800), feature_sizes(800, 800))
    last = anchors[-7 * 7 :]  # P7 has 7 x 7 cells
    assert last[1, 0] - last[0, 0] == 128  # torchvision: 800 // 7 = 114


def test_half_precision_modules_keep_their_anchors() -> None:
    generator = AnchorGenerator()
    expected = generator((64, 64), feature_sizes(64, 64))
    assert expected.dtype == torch.float32
    for cast in (generator.bfloat16(), torch.nn.Sequential(generator).half()[0], generator.float()):
        assert torch.equal(cast((64, 64), feature_sizes(64, 64)), expected)
    assert generator.to("meta").cell0.is_meta
