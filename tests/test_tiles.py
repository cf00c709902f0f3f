"""Tiles cover an image, and objects on their borders are found once and whole."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from detector.nms import Suppression
from detector.run.tiles import Tile, cut, join

HARD = Suppression(max_detections=5)


@pytest.mark.parametrize("size", [(100, 100), (100, 250), (317, 999), (640, 101), (30, 20)])
def test_tiles_cover_the_image_and_share_enough(size: tuple[int, int]) -> None:
    tiles = cut(size, (100, 100), 0.25)
    seen = torch.zeros(size)
    for tile in tiles:
        assert 0 <= tile.top < tile.bottom <= size[0]
        assert 0 <= tile.left < tile.right <= size[1]
        assert (tile.bottom - tile.top, tile.right - tile.left) == (
            min(100, size[0]),
            min(100, size[1]),
        )
        seen[tile.top : tile.bottom, tile.left : tile.right] += 1
    assert seen.min() == 1
    lefts = sorted({tile.left for tile in tiles})
    for before, after in pairwise(lefts):
        assert after - before <= 75


def test_an_image_of_the_size_of_a_tile_is_one() -> None:
    assert cut((100, 80), (100, 100), 0.2) == [Tile(0, 0, 100, 80)]


def detect(objects: list[list[float]], tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
    """What a perfect detector says of a tile: all that it sees of an object, where that is more
    than a fifth of it."""
    boxes, scores = [], []
    for k, (left, top, right, bottom) in enumerate(objects):
        x1, y1 = max(left, tile.left), max(top, tile.top)
        x2, y2 = min(right, tile.right), min(bottom, tile.bottom)
        seen = max(0, x2 - x1) * max(0, y2 - y1) / ((right - left) * (bottom - top))
        if seen > 0.2:
            boxes.append([x1 - tile.left, y1 - tile.top, x2 - tile.left, y2 - tile.top])
            scores.append(0.9 * seen - 0.0001 * k)
    return torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), torch.zeros(len(boxes)).long()


def test_every_object_is_found_once_and_whole() -> None:
    """2,500 objects of up to 18 pixels in tiles of 100 that share 20: far more than
    `max_detections`, and many on borders."""
    generator = torch.Generator().manual_seed(0)
    size, objects = (1000, 1000), []
    for k in range(2500):
        x, y = 20 * (k % 50), 20 * (k // 50)
        width, height = (4 + 14 * torch.rand(2, generator=generator)).tolist()
        objects.append([float(x), float(y), x + width, y + height])
    tiles = cut(size, (100, 100), 0.2)
    found = [detect(objects, tile) for tile in tiles]
    boxes, scores, labels = join(tiles, found, size, 0.2, HARD)
    assert len(boxes) == len(scores) == len(labels) == 2500
    order = sorted(map(tuple, boxes.tolist()))
    for left, right in zip(order, sorted(map(tuple, objects)), strict=True):
        assert left == pytest.approx(right, abs=1e-3)
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)


@pytest.mark.parametrize("side", [30, 50, 60, 80])
def test_an_object_larger_than_the_overlap_has_no_pieces_beside_it(side: int) -> None:
    """Where a tile sees all of it; otherwise it is found at least in pieces."""
    size = (340, 340)
    tiles, complete = cut(size, (100, 100), 0.2), 0
    for left in range(60, 140, 7):
        right, bottom = left + side, left + 3 + side
        objects = [[float(left), left + 3.0, float(right), float(bottom)]]
        boxes, _, _ = join(tiles, [detect(objects, tile) for tile in tiles], size, 0.2, HARD)
        assert len(boxes) >= 1
        rows = any(tile.top <= left + 3 and bottom <= tile.bottom for tile in tiles)
        if rows and any(tile.left <= left and right <= tile.right for tile in tiles):
            assert boxes.tolist() == [pytest.approx(objects[0])]
            complete += 1
    assert complete


def test_a_piece_stays_beside_a_larger_object_of_another_class() -> None:
    size = (100, 180)
    tiles = cut(size, (100, 100), 0.2)
    score = torch.tensor([0.9])
    piece = torch.tensor([[70.0, 10, 100, 60]]), score, torch.tensor([0])
    for label, count in ((0, 1), (1, 2)):
        larger = torch.tensor([[0.0, 0, 90, 90]]), score, torch.tensor([label])
        assert len(join(tiles, [piece, larger], size, 0.2, HARD)[0]) == count


def test_nothing_found_is_nothing() -> None:
    tiles = cut((300, 300), (100, 100), 0.2)
    nothing = [detect([], tile) for tile in tiles]
    boxes, scores, labels = join(tiles, nothing, (300, 300), 0.2, HARD)
    assert boxes.shape == (0, 4)
    assert not len(scores)
    assert not len(labels)
