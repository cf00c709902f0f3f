"""Suppression of duplicates, all kinds behind one signature.

All are greedy: boxes are taken by falling score (of equal scores the first one first), and a box
that stays acts on the later ones of its class that overlap it.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import batched_nms

from losses.iou import diou, iou

Kind = Literal["hard", "diou", "soft"]
BLOCK = 256  # so many boxes act together: it bounds the memory, and an early end saves the rest
SPARSE = 16  # overlaps of a box with others, on average: up to here listing them all pays
STEPS = 4  # of the fixed point between two looks at whether it is reached


class Kept(NamedTuple):
    """The M best boxes that stay, by falling score: `places` (N, M) among the boxes given, `scores`
    (N, M). Where there are fewer, place and score are 0."""

    places: Tensor
    scores: Tensor


@torch.no_grad()
def nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    kind: Kind = "hard",
    iou_threshold: float = 0.5,
    beta: float = 1.0,
    sigma: float | None = None,
    score_threshold: float = 0.0,
    class_agnostic: bool = False,
    max_detections: int = 100,
) -> Kept:
    """Suppress the duplicates of N images. ValueError for an unknown kind.

    Args:
        boxes: (N, D, 4) xyxy, finite · scores: (N, D), 0 where there is no box · labels: (N, D).
        kind: "hard": a later box goes if its IoU exceeds `iou_threshold`; torchvision's.
            "diou": if IoU - (rho^2 / c^2)^beta does, with the centers' distance rho and the hull's
            diagonal c, so that of two objects side by side both can stay (Zheng et al.,
            "Distance-IoU Loss", AAAI 2020, section 4.3; beta is of the authors' code). "soft": no
            box goes, but its score is multiplied by 1 - IoU where that exceeds `iou_threshold`, or
            with `sigma` by exp(-IoU^2 / sigma) everywhere (Bodla et al., "Soft-NMS", ICCV 2017,
            section 3).
        score_threshold: "soft" drops what falls to it.
        class_agnostic: boxes act on those of other classes too.
        max_detections: M; then it ends.
    """
    if kind not in (kinds := get_args(Kind)):
        raise ValueError(f"no suppression is called {kind!r}; there are: {', '.join(kinds)}")
    boxes, scores = boxes.float(), scores.float()
    if class_agnostic:
        labels = torch.zeros_like(labels)
    if kind == "soft":
        return _soft(boxes, scores, labels, iou_threshold, sigma, score_threshold, max_detections)
    if kind == "diou" and boxes.is_cuda:
        return _together(boxes, scores, labels, iou_threshold, beta, max_detections)
    index = torch.zeros(len(boxes), max_detections, dtype=torch.int64, device=boxes.device)
    found = scores.new_zeros(len(boxes), max_detections)
    for row, image in enumerate(zip(boxes, scores, labels, strict=True)):
        there = (image[1] > 0).nonzero()[:, 0]
        b, s, k = (part[there] for part in image)
        if kind == "hard":
            keep = batched_nms(b, s, k, iou_threshold)[:max_detections]
        else:
            keep = _one_by_one(b, s, k, iou_threshold, beta, max_detections)
        index[row, : len(keep)] = there[keep]
        found[row, : len(keep)] = s[keep]
    return Kept(index, found)


def _one_by_one(
    boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, beta: float, most: int
) -> Tensor:
    """DIoU-NMS on the CPU, of one image: the greedy loop itself.

    What makes it fast: DIoU is only computed for pairs that overlap at all, and for many boxes
    together; the loop looks up which boxes the next one that stays puts an end to.
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
        one, other = _dense_pairs(sides, group, block, rest) if pairs is None else pairs
        first, second = torch.from_numpy(one), torch.from_numpy(other)
        ends = (diou(boxes[first], boxes[second], beta) > threshold).numpy()
        one, other = one[ends], other[ends]
        bounds = np.searchsorted(one, np.append(block, len(order))).tolist()
        for k, row in enumerate(block.tolist()):
            if alive[row]:
                kept.append(row)
                alive[other[bounds[k] : bounds[k + 1]]] = False
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
    here = np.arange(1, len(left) + 1)
    # a rounded coordinate may be equal to its neighbor, hence "right"; DIoU decides in the end
    count = (np.searchsorted(begin[by_left], end[by_left], "right") - here).clip(0)
    if count.sum() > SPARSE * len(left):
        return None
    one = np.repeat(by_left, count)
    skipped = np.repeat(count.cumsum() - count - here, count)
    other = by_left[np.arange(len(one)) - skipped]
    touch = (top[one] < bottom[other]) & (top[other] < bottom[one])
    one, other = one[touch], other[touch]
    one, other = np.minimum(one, other), np.maximum(one, other)
    by_score = one.argsort()
    return one[by_score], other[by_score]


def _dense_pairs(
    sides: np.ndarray, group: np.ndarray, block: np.ndarray, rest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same of the boxes of a block with all the rest, of which the block is the beginning."""
    left, top, right, bottom = sides
    touch = left[block, None] < right[rest]
    touch &= left[rest] < right[block, None]
    touch &= top[block, None] < bottom[rest]
    touch &= top[rest] < bottom[block, None]
    touch &= group[block, None] == group[rest]
    one, other = np.divmod(np.flatnonzero(touch), len(rest))
    later = other > one
    return block[one[later]], rest[other[later]]


def _together(
    boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, beta: float, most: int
) -> Kept:
    """DIoU-NMS of all images at once, for a GPU.

    Who stays solves stays[j] = not any(stays[i] and ends[i, j], i before j), and only one vector
    does; iterated from "all stay", after t steps the first t entries are right (Zheng et al.,
    "Enhancing Geometric Factors", IEEE Trans. Cybernetics 2021, "Cluster-NMS", without its limit of
    steps). A few steps are enough for real detections, a chain of D boxes needs D.
    """
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    boxes = boxes.gather(1, order[..., None].expand_as(boxes))
    labels = labels.gather(1, order)
    stays = scores > 0
    count = scores.shape[1]
    for start in range(0, count, BLOCK):
        block, rest = slice(start, start + BLOCK), slice(start, count)
        similar = diou(boxes[:, block, None], boxes[:, None, rest], beta)
        ends = (similar > threshold) & (labels[:, block, None] == labels[:, None, rest])
        ends = ends.triu(1)  # a box acts on later ones
        own, size = stays[:, block], ends.shape[1]
        within, now = ends[:, :, :size], own
        while True:
            for _ in range(STEPS):
                before, now = now, own & ~(now[:, :, None] & within).any(1)
            if torch.equal(before, now):
                break
        stays[:, rest] &= ~(now[:, :, None] & ends).any(1)
        if bool((stays[:, : start + size].sum(1) >= most).all()):
            break
    return _first(stays, order, scores, most)


def _first(stays: Tensor, order: Tensor, scores: Tensor, most: int) -> Kept:
    """Of sorted boxes (N, D) the first M that stay."""
    short = max(0, most - stays.shape[1])
    stays, order, scores = (functional.pad(part, (0, short)) for part in (stays, order, scores))
    place = stays.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    there = stays.gather(1, place)
    return Kept(
        torch.where(there, order.gather(1, place), 0),
        torch.where(there, scores.gather(1, place), 0.0),
    )


def _soft(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    threshold: float,
    sigma: float | None,
    score_threshold: float,
    most: int,
) -> Kept:
    """Soft-NMS of all images at once: M times the best of each is taken, and the rest fades."""
    if not scores.shape[1]:
        scores, labels = scores.new_zeros(len(scores), 1), labels.new_zeros(len(scores), 1)
        boxes = boxes.new_zeros(len(scores), 1, 4)
    kept: list[tuple[Tensor, Tensor]] = []
    for _ in range(most):
        best, index = scores.max(dim=1, keepdim=True)  # the first of equals
        if not boxes.is_cuda and not best.any():
            break
        kept.append((index, best))
        box = boxes.gather(1, index[..., None].expand(-1, -1, 4))
        overlap = iou(box, boxes)
        if sigma is None:
            fade = torch.where(overlap > threshold, 1 - overlap, 1.0)
        else:
            fade = torch.exp(-overlap.square() / sigma)
        same = labels == labels.gather(1, index)
        scores = torch.where(same, scores * fade, scores).scatter(1, index, 0.0)
        scores = torch.where(scores > score_threshold, scores, 0.0)
    kept += [(torch.zeros_like(index), torch.zeros_like(best))] * (most - len(kept))
    index, found = (torch.cat(part, dim=1) for part in zip(*kept, strict=True))
    return Kept(torch.where(found > 0, index, 0), found)
