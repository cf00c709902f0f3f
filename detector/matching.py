"""Matching: which object, if any, every anchor stands for."""

from typing import Literal

import torch
from torch import Tensor

from losses.base import IGNORED
from losses.overlaps import EPSILON, area, ciou, diou, giou, pairwise_intersection

Metric = Literal["iou", "giou", "diou", "ciou"]
IGNORED_COVER = 0.5  # a background anchor more than half inside of an ignore region is not judged
# Foreground from, background below: those of the other metrics, which are at most the IoU, make as
# many foreground and background anchors as 0.5 and 0.4 do with IoU.
THRESHOLDS: dict[str, tuple[float, float]] = {
    "iou": (0.5, 0.4),
    "giou": (0.463, 0.350),
    "diou": (0.483, 0.373),
    "ciou": (0.482, 0.369),
}
OVERLAPS = {"giou": giou, "diou": diou, "ciou": ciou}
NEVER = -2.0  # below every overlap
FORCED = 4.0  # lifts an overlap above all that are not forced
PAIRS = 2**24  # pairs of objects and anchors that are looked at together: 64 MiB a temporary


@torch.no_grad()
def match(
    anchors: Tensor,
    batch: dict[str, Tensor],
    num_classes: int,
    metric: Metric = "iou",
    foreground: float | None = None,
    background: float | None = None,
    force: Literal["object", "torchvision", "none"] = "object",
) -> tuple[Tensor, Tensor]:
    """A label and a box for every anchor of every image (focal loss paper, section 4).

    An anchor takes the object that it overlaps most; from `foreground` up it is that object's,
    below `background` it is background, between the two it is ignored. Rows that are `ignore`, not
    `valid` or without area win no anchor and force none; background mostly inside of an `ignore`
    row is ignored. Objects are looked at in groups, so that memory does not grow with their number.

    Args:
        anchors: (R, 4).
        batch: `boxes` (N, G, 4), `labels`, `ignore` and `valid` (N, G).
        num_classes: K, the label of background.
        metric: what overlap is; see `losses.iou`.
        foreground, background: the two thresholds; null for the metric's own, see `THRESHOLDS`.
        force: the anchor that overlaps an object most is foreground even below the threshold. With
            "iou" all such anchors are, ties included, unless none touches the object. "object":
            they are that object's, so that no object goes without (of two objects with the same
            best anchor the one that it overlaps more wins). "torchvision", and detectron2: they are
            the object's that they themselves overlap most, and an object beside a better placed one
            is never learned. "none", the paper: nothing is forced.

    Returns labels (N, R), 0..K-1, K or -1, and boxes (N, R, 4): the object's for foreground, the
    anchor itself for all others.
    """
    boxes, labels = batch["boxes"].float(), batch["labels"]
    objects = batch["valid"] & ~batch["ignore"] & (area(boxes) > 0)  # (N, G)
    regions = batch["valid"] & batch["ignore"]
    from_ = THRESHOLDS[metric][0] if foreground is None else foreground
    below = THRESHOLDS[metric][1] if background is None else background

    best = anchors.new_full((len(boxes), len(anchors)), NEVER)
    winner = torch.zeros_like(best, dtype=torch.int64)
    forced = torch.zeros_like(best, dtype=torch.bool)
    covered = torch.zeros_like(best)
    group = max(1, PAIRS // best.numel())
    for start in range(0, boxes.shape[1], group):
        part = slice(start, start + group)
        shared = pairwise_intersection(boxes[:, part], anchors)  # (N, group, R)
        covered = torch.maximum(covered, _masked(shared, regions[:, part], 0.0).amax(dim=1))
        if metric == "iou":
            union = (area(boxes[:, part, None]) + area(anchors)).sub_(shared)
            overlap = shared.div_(union.clamp_(min=EPSILON))
        else:
            overlap = OVERLAPS[metric](boxes[:, part, None], anchors)
        overlap = _masked(overlap, objects[:, part], NEVER)
        if force != "none":
            most = overlap.amax(dim=2, keepdim=True)  # (N, group, 1)
            if metric == "iou":
                first = overlap == torch.where(most > 0, most, torch.inf)
            else:
                first = torch.zeros_like(overlap, dtype=torch.bool)
                first.scatter_(2, overlap.argmax(dim=2, keepdim=True), most > NEVER)
            if force == "object":
                overlap.add_(first, alpha=FORCED)
            else:
                forced |= first.any(dim=1)
        value, index = overlap.max(dim=1)  # (N, R)
        winner = torch.where(value > best, index + start, winner)
        best = torch.maximum(best, value)

    is_foreground = (best >= from_) | forced
    outside = torch.where(covered / area(anchors) > IGNORED_COVER, IGNORED, num_classes)
    other = torch.where(best < below, outside, IGNORED)
    matched = torch.where(is_foreground, labels.gather(1, winner), other)
    own = boxes.gather(1, winner[..., None].expand(-1, -1, 4))
    return matched, torch.where(is_foreground[..., None], own, anchors)


def _masked(pairs: Tensor, rows: Tensor, otherwise: float) -> Tensor:
    """(N, group, R) with `otherwise` in the rows that do not count."""
    return torch.where(rows[..., None], pairs, otherwise)
