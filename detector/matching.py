"""Matching: which object, if any, every anchor is trained for."""

from typing import Literal

import torch
from torch import Tensor

from losses.base import IGNORED
from losses.overlaps import EPSILON, area, ciou, diou, giou, pairwise_intersection

Metric = Literal["iou", "giou", "diou", "ciou"]
Force = Literal["object", "torchvision", "none"]
IGNORED_COVER = 0.5  # background anchors of which an ignore region covers more are ignored
# Foreground from, background below. The other metrics are at most the IoU; with these thresholds
# they make as many foreground and background anchors as IoU does with 0.5 and 0.4.
THRESHOLDS: dict[str, tuple[float, float]] = {
    "iou": (0.5, 0.4),
    "giou": (0.463, 0.350),
    "diou": (0.483, 0.373),
    "ciou": (0.482, 0.369),
}
OVERLAPS = {"giou": giou, "diou": diou, "ciou": ciou}
NEVER = -2.0  # below every overlap
FORCED = 4.0  # added to an overlap, lifts it above all that are not forced
PAIRS = 2**24  # pairs of objects and anchors that are compared at once: 64 MiB a temporary


@torch.no_grad()
def match(
    anchors: Tensor,
    batch: dict[str, Tensor],
    num_classes: int,
    metric: Metric = "iou",
    foreground: float | None = None,
    background: float | None = None,
    force: Force = "object",
) -> tuple[Tensor, Tensor, Tensor]:
    """The label and the box that every anchor is trained for (focal loss paper, section 4).

    An anchor is compared with the object that it overlaps most. If their overlap reaches
    `foreground`, the anchor is foreground: it gets that object's label and box. If it is below
    `background`, the anchor is background. Otherwise the anchor is ignored, as is background of
    which an `ignore` row covers more than half. Rows that are `ignore`, not `valid` or without area
    make no anchor foreground.

    An object may overlap no anchor enough. `force` decides what becomes of it:

    force          the anchor it overlaps most   what can go wrong
    "object"       becomes foreground, for this  If two objects overlap the same anchor most, the
                   object                        one that overlaps it less gets no anchor by force.
    "torchvision"  becomes foreground, for the   An object beside a better placed one gets no anchor
                   object that the anchor        at all, and is never learned. (Also detectron2's.)
                   overlaps most
    "none"         stays as it is (the paper)    Small and oddly shaped objects are never learned.

    With "iou" all anchors that share the highest overlap are forced, but none if it is 0. With the
    other metrics the first of them is, even if it does not touch the object.

    Args:
        anchors: (R, 4).
        batch: `boxes` (N, G, 4), `labels`, `ignore` and `valid` (N, G).
        num_classes: K, the label of background.
        metric: the overlap, a function of `losses.overlaps`.
        foreground, background: the two thresholds; null for the metric's own, see `THRESHOLDS`.

    Returns labels (N, R): 0..K-1, K for background, -1 for ignored; boxes (N, R, 4): the object's
    for foreground, the anchor itself for all others; and rows (N, R): the object's place in the
    batch, of which only those of foreground mean anything.
    """
    boxes, labels = batch["boxes"].float(), batch["labels"]
    objects = batch["valid"] & ~batch["ignore"] & (area(boxes) > 0)  # (N, G)
    regions = batch["valid"] & batch["ignore"]
    high = THRESHOLDS[metric][0] if foreground is None else foreground
    low = THRESHOLDS[metric][1] if background is None else background

    best = anchors.new_full((len(boxes), len(anchors)), NEVER)  # overlap of each anchor's object
    winner = torch.zeros_like(best, dtype=torch.int64)  # that object's row
    forced = torch.zeros_like(best, dtype=torch.bool)
    covered = torch.zeros_like(best)  # area that the largest ignore region shares with the anchor
    group = max(1, PAIRS // best.numel())  # of objects, so that memory does not grow with them
    for start in range(0, boxes.shape[1], group):
        rows = slice(start, start + group)
        shared = pairwise_intersection(boxes[:, rows], anchors)  # (N, group, R)
        covered = torch.maximum(covered, _masked(shared, regions[:, rows], 0.0).amax(dim=1))
        overlap = _overlap(metric, boxes[:, rows], anchors, shared)
        overlap = _masked(overlap, objects[:, rows], NEVER)
        if force != "none":
            most = _overlapped_most(overlap, ties=metric == "iou")
            if force == "object":
                overlap.add_(most, alpha=FORCED)
            else:
                forced |= most.any(dim=1)
        value, index = overlap.max(dim=1)  # (N, R)
        winner = torch.where(value > best, index + start, winner)
        best = torch.maximum(best, value)

    is_foreground = (best >= high) | forced
    background_label = torch.where(covered / area(anchors) > IGNORED_COVER, IGNORED, num_classes)
    other_label = torch.where(best < low, background_label, IGNORED)
    matched_labels = torch.where(is_foreground, labels.gather(1, winner), other_label)
    matched_boxes = boxes.gather(1, winner[..., None].expand(-1, -1, 4))
    matched_boxes = torch.where(is_foreground[..., None], matched_boxes, anchors)
    return matched_labels, matched_boxes, winner


def _masked(pairs: Tensor, rows: Tensor, otherwise: float) -> Tensor:
    """(N, group, R) with `otherwise` in the rows that do not count."""
    return torch.where(rows[..., None], pairs, otherwise)


def _overlap(metric: Metric, boxes: Tensor, anchors: Tensor, shared: Tensor) -> Tensor:
    """(N, group, R); with "iou" it overwrites the intersections `shared`, which saves a tensor."""
    if metric != "iou":
        return OVERLAPS[metric](boxes[:, :, None], anchors)
    union = (area(boxes[:, :, None]) + area(anchors)).sub_(shared)
    return shared.div_(union.clamp_(min=EPSILON))


def _overlapped_most(overlap: Tensor, ties: bool) -> Tensor:
    """Mask (N, group, R) of the anchor that every object overlaps most; with `ties` of all such
    anchors, but of none where the overlap is 0."""
    most = overlap.amax(dim=2, keepdim=True)
    if ties:
        return overlap == torch.where(most > 0, most, torch.inf)
    first = overlap.argmax(dim=2, keepdim=True)
    return torch.zeros_like(overlap, dtype=torch.bool).scatter_(2, first, most > NEVER)
