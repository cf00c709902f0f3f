"""Tiles: an image much larger than the net's input is detected in piece by piece."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from detector.nms import Suppression

TOUCHES = 2.0  # pixels from a tile's border within which a box may be cut off by it


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
    for start in range(0, len(tiles), batch):
        crops = [image[t.top : t.bottom, t.left : t.right] for t in tiles[start : start + batch]]
        for marks in detect(crops):
            arrays = (marks.boxes, marks.scores, marks.labels)
            boxes, scores, labels = (torch.from_numpy(np.asarray(array)) for array in arrays)
            found.append((boxes, scores, labels))
    boxes, scores, labels = join(tiles, found, image.shape[:2], overlap, suppression)
    return boxes.numpy(), scores.numpy(), labels.numpy()


def join(
    tiles: Sequence[Tile],
    detections: Sequence[tuple[Tensor, Tensor, Tensor]],
    size: Sequence[int],
    overlap: float,
    suppression: Suppression,
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (D, 4), scores (D,) and labels (D,) of the whole image, by falling score.

    A box that a border inside of the image cuts off, of an object small enough for the overlap, is
    left out: the neighboring tile has it whole. What several tiles see is then suppressed as the
    duplicates within one are, and all that stays is kept.

    Args:
        tiles: of the image, whose (height, width) is `size`.
        detections: boxes (xyxy in pixels of the tile), scores and labels of each tile.
        overlap: what `cut` was given.
        suppression: of the run.
    """
    boxes, scores, labels = [], [], []
    for tile, (b, s, k) in zip(tiles, detections, strict=True):
        whole = ~_cut_off(b, tile, size, overlap)
        shift = torch.tensor([tile.left, tile.top] * 2, dtype=b.dtype, device=b.device)
        boxes.append(b[whole] + shift)
        scores.append(s[whole])
        labels.append(k[whole])
    every = torch.cat(boxes), torch.cat(scores), torch.cat(labels)
    count = max(1, len(every[1]))
    places, kept = replace(suppression, max_detections=count)(*(part[None] for part in every))
    places = places[0][kept[0] > 0]
    return every[0][places], kept[0][kept[0] > 0], every[2][places]


def _cut_off(boxes: Tensor, tile: Tile, size: Sequence[int], overlap: float) -> Tensor:
    """Mask (D,) of boxes that touch a border of the tile which is none of the image, and are
    smaller than what it shares with its neighbor there."""
    height, width = tile.bottom - tile.top, tile.right - tile.left
    left, top, right, bottom = boxes.unbind(1)
    narrow, low = right - left < overlap * width, bottom - top < overlap * height
    return (
        (narrow & (left < TOUCHES) & (tile.left > 0))
        | (narrow & (right > width - TOUCHES) & (tile.right < size[1]))
        | (low & (top < TOUCHES) & (tile.top > 0))
        | (low & (bottom > height - TOUCHES) & (tile.bottom < size[0]))
    )
