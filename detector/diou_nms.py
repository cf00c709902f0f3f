"""Exact DIoU-NMS: the greedy loop made fast for a CPU, and for a GPU a fixed-point iteration, which
does hard NMS as well."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from losses.overlaps import diou, iou

BLOCK = 256  # so many boxes act together: it bounds the memory, and an early end saves the rest
SPARSE = 16  # up to so many overlaps of a box with others, on average, listing them all pays
STEPS = 4  # of the iteration between two checks of whether it has ended


def suppress_image(
    boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, beta: float, most: int
) -> Tensor:
    """DIoU-NMS on the CPU, of one image: the greedy loop itself.

    It is fast because DIoU is computed only for pairs that overlap at all, and for many pairs at
    once; for each box that stays the loop looks up which later boxes it suppresses.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    sides, group = boxes.T.contiguous().numpy(), labels[order].numpy()
    pairs = _sparse_pairs(sides, group)
    alive = np.ones(len(order), bool)
    kept: list[int] = []
    start = 0
    while len(kept) < most and alive[start:].any():
        rest = start + np.flatnonzero(alive[start:])
        block = rest[:BLOCK] if pairs is None else rest
        earlier, later = _dense_pairs(sides, group, block, rest) if pairs is None else pairs
        first, second = torch.from_numpy(earlier), torch.from_numpy(later)
        suppressed = (diou(boxes[first], boxes[second], beta) > threshold).numpy()
        earlier, later = earlier[suppressed], later[suppressed]
        bounds = np.searchsorted(earlier, np.append(block, len(order))).tolist()
        for k, row in enumerate(block.tolist()):
            if alive[row]:
                kept.append(row)
                alive[later[bounds[k] : bounds[k + 1]]] = False
        start = int(block[-1]) + 1
    return order[torch.tensor(kept[:most], dtype=torch.int64)]


def _sparse_pairs(sides: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """All pairs of boxes of one class that overlap, the earlier one first and in order; None where
    there may be many, as in a crowd of one class.

    The boxes are swept from left to right, the classes laid side by side: of each box the partners
    are those that begin before it ends.
    """
    left, top, right, bottom = sides
    if not left.size:
        return None
    lane = group * (float(right.max()) - float(left.min()) + 1)
    begin, end = left + lane, right + lane
    by_left = begin.argsort()
    rank = np.arange(1, len(left) + 1)
    # a rounded coordinate may be equal to its neighbor, hence "right"; DIoU decides in the end
    count = (np.searchsorted(begin[by_left], end[by_left], "right") - rank).clip(0)
    if count.sum() > SPARSE * len(left):
        return None
    a = np.repeat(by_left, count)
    skipped = np.repeat(count.cumsum() - count - rank, count)
    b = by_left[np.arange(len(a)) - skipped]
    touch = (top[a] < bottom[b]) & (top[b] < bottom[a])
    a, b = a[touch], b[touch]
    earlier, later = np.minimum(a, b), np.maximum(a, b)
    by_score = earlier.argsort()
    return earlier[by_score], later[by_score]


def _dense_pairs(
    sides: np.ndarray, group: np.ndarray, block: np.ndarray, rest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """All such pairs of a box of a block with one of `rest`, which begins with the block."""
    left, top, right, bottom = sides
    touch = left[block, None] < right[rest]
    touch &= left[rest] < right[block, None]
    touch &= top[block, None] < bottom[rest]
    touch &= top[rest] < bottom[block, None]
    touch &= group[block, None] == group[rest]
    row, column = np.divmod(np.flatnonzero(touch), len(rest))
    later = column > row
    return block[row[later]], rest[column[later]]


def suppress_batch(
    boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, beta: float | None, most: int
) -> tuple[Tensor, Tensor]:
    """DIoU-NMS, or with a beta of None hard NMS, of all images at once, for a GPU; returns places
    and scores (N, most) as `Kept`.

    Boxes are sorted by falling score. Which of them stay is the only solution of stays[j] = not
    any(stays[i] and ends[i, j], i before j). Iterated from "all stay", its first t entries are
    right after t steps (Zheng et al., "Enhancing Geometric Factors", IEEE Trans. Cybernetics 2021,
    "Cluster-NMS", without its limit of steps). A few steps are enough for real detections, a chain
    of D boxes needs D.
    """
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    boxes = boxes.gather(1, order[..., None].expand_as(boxes))
    labels = labels.gather(1, order)
    stays = scores > 0
    count = scores.shape[1]
    for start in range(0, count, BLOCK):
        block, rest = slice(start, start + BLOCK), slice(start, count)
        pairs = boxes[:, block, None], boxes[:, None, rest]
        similar = iou(*pairs) if beta is None else diou(*pairs, beta)
        ends = (similar > threshold) & (labels[:, block, None] == labels[:, None, rest])
        ends = ends.triu(1)  # a box acts on later ones
        block_stays, size = stays[:, block], ends.shape[1]
        within, now = ends[:, :, :size], block_stays
        while True:
            for _ in range(STEPS):
                before, now = now, block_stays & ~(now[:, :, None] & within).any(1)
            if torch.equal(before, now):
                break
        stays[:, rest] &= ~(now[:, :, None] & ends).any(1)
        if bool((stays[:, : start + size].sum(1) >= most).all()):
            break
    return _first_that_stay(stays, order, scores, most)


def _first_that_stay(
    stays: Tensor, order: Tensor, scores: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """Of sorted boxes (N, D) the first `most` that stay: places in the original order, scores."""
    short = max(0, most - stays.shape[1])
    stays, order, scores = (F.pad(part, (0, short)) for part in (stays, order, scores))
    first = stays.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    kept = stays.gather(1, first)
    return (
        torch.where(kept, order.gather(1, first), 0),
        torch.where(kept, scores.gather(1, first), 0.0),
    )
