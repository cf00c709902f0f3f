"""Box losses on decoded boxes (xyxy, pixels): one minus an overlap."""

import torch
from torch import Tensor

from losses.base import BoxLoss, full_precision

EPSILON = (
    1e-7  # a bound for divisors, not a term: added, it would change the IoU of boxes in [0, 1]
)


def area(boxes: Tensor) -> Tensor:
    """Areas (...) of boxes (..., 4)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and union (...) of aligned boxes (..., 4). Two empty boxes have IoU 0."""
    top_left = torch.maximum(a[..., :2], b[..., :2])
    size = (torch.minimum(a[..., 2:], b[..., 2:]) - top_left).clamp(min=0)
    intersection = size[..., 0] * size[..., 1]
    union = area(a) + area(b) - intersection
    return intersection / union.clamp(min=EPSILON), union


def hull(a: Tensor, b: Tensor) -> Tensor:
    """The smallest boxes (..., 4) that enclose aligned boxes (..., 4)."""
    top_left = torch.minimum(a[..., :2], b[..., :2])
    return torch.cat([top_left, torch.maximum(a[..., 2:], b[..., 2:])], dim=-1)


class GIoULoss(BoxLoss):
    """1 - GIoU: overlap, and for what is left of the hull a pull that disjoint boxes feel too.

    1 - IoU + (C - U) / C with the union's area U and the enclosing box's area C; in [0, 2); summed
    over foreground anchors, divided by `num_foreground`.
    Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019, algorithm 1.

    Differs from torchvision's: divisors are bounded by 1e-7 from below, where torchvision adds 1e-7
    to them, and nothing is indexed by a mask, so that it neither waits for the device nor breaks a
    compiled graph.
    """

    def forward(
        self, predicted: Tensor, target: Tensor, foreground: Tensor, num_foreground: Tensor
    ) -> Tensor:
        target = full_precision(target)
        predicted = torch.where(foreground[..., None], full_precision(predicted), target)
        iou, union = overlap(predicted, target)
        enclosing = area(hull(predicted, target))
        loss = 1 - iou + (enclosing - union) / enclosing.clamp(min=EPSILON)
        return torch.where(foreground, loss, 0.0).sum() / num_foreground
