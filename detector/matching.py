"""Matching: which object, if any, every anchor stands for."""

from typing import Literal

import torch
from torch import Tensor

from detector.boxes import area, pairwise_intersection
from losses.base import IGNORED

IGNORED_COVER = 0.5  # a background anchor more than half inside of an ignore region is not judged


@torch.no_grad()
def match(
    anchors: Tensor,
    batch: dict[str, Tensor],
    num_classes: int,
    foreground: float = 0.5,
    background: float = 0.4,
    force: Literal["object", "torchvision", "none"] = "object",
) -> tuple[Tensor, Tensor]:
    """A label and a box for every anchor of every image, by IoU (focal loss paper, section 4).

    An anchor takes the object that it overlaps most; from `foreground` up it is that object's,
    below `background` it is background, between the two it is ignored. Rows that are `ignore` or
    not `valid` win no anchor and force none; background mostly inside of an `ignore` row is
    ignored.

    Args:
        anchors: (R, 4).
        batch: `boxes` (N, G, 4), `labels`, `ignore` and `valid` (N, G).
        num_classes: K, the label of background.
        foreground, background: the two thresholds.
        force: the anchors that overlap an object more than any others do (ties included) are
            foreground even below the threshold, unless none touches it. "object": they are that
            object's, so that no object goes without (of two objects with the same best anchor the
            one that it overlaps more wins). "torchvision", and detectron2: they are the object's
            that they themselves overlap most, and an object beside a better placed one is never
            learned. "none", the paper: nothing is forced.

    Returns labels (N, R), 0..K-1, K or -1, and boxes (N, R, 4): the object's for foreground, the
    anchor itself for all others.
    """
    boxes, labels = batch["boxes"].float(), batch["labels"]
    objects = batch["valid"] & ~batch["ignore"]  # (N, G)
    regions = batch["valid"] & batch["ignore"]
    shared = pairwise_intersection(boxes, anchors)  # (N, G, R)
    union = area(boxes)[..., None] + area(anchors) - shared
    iou = torch.where(objects[..., None], shared / union.clamp(min=1e-7), 0.0)
    if force != "none":
        most = iou.amax(dim=2, keepdim=True)  # (N, G, 1)
        forced = (iou == most) & (most > 0)
        if force == "object":
            iou = torch.where(forced, iou + 2, iou)  # beats whatever is not forced
    best, winner = iou.max(dim=1)  # (N, R)
    is_foreground = best >= foreground
    if force == "torchvision":
        is_foreground |= forced.any(dim=1)
    cover = torch.where(regions[..., None], shared, 0.0).amax(dim=1) / area(anchors)

    below = torch.where(cover > IGNORED_COVER, IGNORED, num_classes)
    other = torch.where(best < background, below, IGNORED)
    matched = torch.where(is_foreground, labels.gather(1, winner), other)
    own = boxes.gather(1, winner[..., None].expand(-1, -1, 4))
    return matched, torch.where(is_foreground[..., None], own, anchors)
