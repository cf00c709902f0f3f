"""Tiles: an image much larger than the net's input is detected in piece by piece."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from detector.nms import Suppression
from losses.overlaps import area, pairwise_intersection

TOUCHES = 2.0  # pixels from a tile's border within which a box may be cut off by it
HALF = 0.5
Found = tuple[Tensor, Tensor, Tensor]  # boxes (D, 4), scores (D,), labels (D,)


class Tile(NamedTuple):
    """A piece of an image, in its pixels; bottom and right are the first beyond it."""

    top: int
    left: int
    bottom: int
    right: int


def cut(size: Sequence[int], tile: Sequence[int], overlap: float) -> list[Tile]:
    """Tiles of (height, width) `tile` that cover an image of `size`, row by row, evenly spaced;
    neighbors share at least `overlap` of a side. An image no larger than a tile is one."""
    rows, columns = (
        _starts(extent, side, overlap) for extent, side in zip(size, tile, strict=True)
    )
    height, width = (min(extent, side) for extent, side in zip(size, tile, strict=True))
    return [Tile(y, x, y + height, x + width) for y in rows for x in columns]


def _starts(extent: int, side: int, overlap: float) -> list[int]:
    if extent <= side:
        return [0]
    step = max(1.0, side * (1 - overlap))
    count = 1 + -(-(extent - side) // int(step))
    return [round(k * (extent - side) / (count - 1)) for k in range(count)]


def detect_tiles(
    image: np.ndarray,
    tiles: Sequence[Tile],
    batch: int,
    overlap: float,
    suppression: Suppression,
    detect: Callable[[list[np.ndarray]], Sequence[Any]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (D, 4), scores (D,) and labels (D,) of an image (H, W, 3) that `cut` cut into `tiles`.

    `detect` gets up to `batch` of them and gives for each something with `boxes`, `scores` and
    `labels`, arrays in pixels of the tile. The rest is as in `join`.
    """
    found = []
    starts = range(0, len(tiles), batch)
    for start in tqdm(starts, unit="batch of tiles", leave=False, disable=None):
        crops = [image[t.top : t.bottom, t.left : t.right] for t in tiles[start : start + batch]]
        for marks in detect(crops):
            arrays = (marks.boxes, marks.scores, marks.labels)
            boxes, scores, labels = (torch.from_numpy(np.asarray(array)) for array in arrays)
            found.append((boxes, scores, labels))
    boxes, scores, labels = join(tiles, found, image.shape[:2], overlap, suppression)
    return boxes.numpy(), scores.numpy(), labels.numpy()


def join(
    tiles: Sequence[Tile],
    detections: Sequence[Found],
    size: Sequence[int],
    overlap: float,
    suppression: Suppression,
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (D, 4), scores (D,) and labels (D,) of the whole image, by falling score.

    A box that a border inside of the image cuts off, of an object small enough for the overlap, is
    left out: the neighboring tile has it whole. Of a larger object, of which no tile may see all, a
    piece that lies mostly in a larger box of its class from another tile is left out. What several
    tiles see is then suppressed as the duplicates within one are, and all that stays is kept.

    Args:
        tiles: of the image, whose (height, width) is `size`.
        detections: boxes (xyxy in pixels of the tile), scores and labels of each tile.
        overlap: what `cut` was given.
        suppression: of the run.
    """
    found, cut_off = [], []
    for tile, (boxes, scores, labels) in zip(tiles, detections, strict=True):
        touching, small = _cut_off(boxes, tile, size, overlap)
        shift = torch.tensor([tile.left, tile.top] * 2, dtype=boxes.dtype, device=boxes.device)
        found.append((boxes[~small] + shift, scores[~small], labels[~small]))
        cut_off.append(touching[~small])
    kept = []
    for number, (tile, pieces) in enumerate(zip(tiles, cut_off, strict=True)):
        others = [found[k] for k, other in enumerate(tiles) if k != number and _meet(tile, other)]
        kept.append(~(pieces & _lies_in_larger(found[number], others)))
    every = [
        torch.cat([part[mask] for part, mask in zip(parts, kept, strict=True)])
        for parts in zip(*found, strict=True)
    ]
    count = max(1, len(every[1]))
    places, left = replace(suppression, max_detections=count)(*(part[None] for part in every))
    places = places[0][left[0] > 0]
    return every[0][places], left[0][left[0] > 0], every[2][places]


def _cut_off(
    boxes: Tensor, tile: Tile, size: Sequence[int], overlap: float
) -> tuple[Tensor, Tensor]:
    """Masks (D,) of boxes that touch a border of the tile which is none of the image, and of those
    that are smaller than what it shares with its neighbor there."""
    height, width = tile.bottom - tile.top, tile.right - tile.left
    left, top, right, bottom = boxes.unbind(1)
    across = (left < TOUCHES) & (tile.left > 0)
    across |= (right > width - TOUCHES) & (tile.right < size[1])
    along = (top < TOUCHES) & (tile.top > 0)
    along |= (bottom > height - TOUCHES) & (tile.bottom < size[0])
    narrow, low = right - left < overlap * width, bottom - top < overlap * height
    return across | along, (across & narrow) | (along & low)


def _meet(one: Tile, other: Tile) -> bool:
    return (
        one.top < other.bottom
        and other.top < one.bottom
        and one.left < other.right
        and other.left < one.right
    )


def _lies_in_larger(found: Found, others: Sequence[Found]) -> Tensor:
    """Mask (D,) of boxes of which more than half lies in a larger one of their class."""
    boxes, _, labels = found
    if not others:
        return torch.zeros_like(labels, dtype=torch.bool)
    larger, known = torch.cat([other[0] for other in others]), torch.cat([x[2] for x in others])
    sizes = area(boxes)[:, None]
    inside = pairwise_intersection(boxes, larger) > HALF * sizes
    return (inside & (area(larger) > sizes) & (known == labels[:, None])).any(1)
