"""Geometry of boxes (xyxy, pixels): area, intersection, and five measures of overlap.

Unless they say otherwise, functions take boxes (..., 4) that broadcast against each other and
return (...). 0 / 0 counts as 0: two equal points have IoU 0. Divisors are bounded from below;
adding a term instead, as torchvision does, would change the overlap of small boxes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

EPSILON = 1e-7
Box = Sequence[Tensor]  # x1, y1, x2, y2: taken apart once, as every slice costs its own gradient


def area(boxes: Tensor) -> Tensor:
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (x2 - x1) * (y2 - y1)


def pairwise_intersection(a: Tensor, b: Tensor) -> Tensor:
    """Areas (..., A, B) that boxes a (..., A, 4) share with boxes b (B, 4) or (..., B, 4)."""
    return _intersection(a[..., :, None, :].unbind(-1), b[..., None, :, :].unbind(-1))


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union, in [0, 1]."""
    return _iou_and_union(a.unbind(-1), b.unbind(-1))[0]


def giou(a: Tensor, b: Tensor) -> Tensor:
    """IoU - (C - U) / C of the hull's area C and the union's U, in (-1, 1].

    Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019, algorithm 1.
    """
    p, q = a.unbind(-1), b.unbind(-1)
    overlap, union = _iou_and_union(p, q)
    width, height = _hull(p, q)
    enclosing = width * height
    return overlap - (enclosing - union) / enclosing.clamp(min=EPSILON)


def diou(a: Tensor, b: Tensor, beta: float = 1.0) -> Tensor:
    """IoU - (rho^2 / c^2)^beta of the centers' distance rho and the hull's diagonal c, in (-1, 1].

    Zheng et al., "Distance-IoU Loss", AAAI 2020, eq. 6 and 7; `beta` is for suppression, in the
    authors' code.
    """
    distance = _distance(a.unbind(-1), b.unbind(-1))
    return iou(a, b) - (distance if beta == 1 else distance.pow(beta))


def ciou(a: Tensor, b: Tensor, alpha_gate: float | None = None) -> Tensor:
    """DIoU - alpha v with v = 4 / pi^2 (difference of aspect angles)^2 and alpha = v / (1 - IoU +
    v), constant for the gradient; in (-1.5, 1].

    Zheng et al., "Distance-IoU Loss", AAAI 2020, eq. 8 to 11. `alpha_gate`: alpha is 0 unless IoU
    is above it (0.5 in the authors' later code).
    """
    p, q = a.unbind(-1), b.unbind(-1)
    overlap, _ = _iou_and_union(p, q)
    v = 4 / math.pi**2 * (_angle(p) - _angle(q)).square()
    with torch.no_grad():
        alpha = v / (1 - overlap + v).clamp(min=EPSILON)
        if alpha_gate is not None:
            alpha = torch.where(overlap > alpha_gate, alpha, 0.0)
    return overlap - _distance(p, q) - alpha * v


def eiou(a: Tensor, b: Tensor) -> Tensor:
    """DIoU - (difference of widths)^2 / (hull's width)^2 - the same of heights, in (-2.25, 1].

    Zhang et al., "Focal and Efficient IOU Loss", Neurocomputing 2022, eq. 6.
    """
    p, q = a.unbind(-1), b.unbind(-1)
    value = _iou_and_union(p, q)[0] - _distance(p, q)
    for side, other, hull in zip(_sides(p), _sides(q), _hull(p, q), strict=True):
        value = value - (side - other).square() / hull.square().clamp(min=EPSILON)
    return value


def _sides(box: Box) -> tuple[Tensor, Tensor]:
    return box[2] - box[0], box[3] - box[1]


def _intersection(a: Box, b: Box) -> Tensor:
    width = torch.minimum(a[2], b[2]) - torch.maximum(a[0], b[0])
    height = torch.minimum(a[3], b[3]) - torch.maximum(a[1], b[1])
    return width.clamp(min=0) * height.clamp(min=0)


def _iou_and_union(a: Box, b: Box) -> tuple[Tensor, Tensor]:
    shared = _intersection(a, b)
    (a_width, a_height), (b_width, b_height) = _sides(a), _sides(b)
    union = a_width * a_height + b_width * b_height - shared
    return shared / union.clamp(min=EPSILON), union


def _hull(a: Box, b: Box) -> tuple[Tensor, Tensor]:
    """Width and height of the smallest box around both."""
    width = torch.maximum(a[2], b[2]) - torch.minimum(a[0], b[0])
    height = torch.maximum(a[3], b[3]) - torch.minimum(a[1], b[1])
    return width, height


def _distance(a: Box, b: Box) -> Tensor:
    """Of the centers, over the hull's diagonal, both squared."""
    width, height = _hull(a, b)
    x, y = a[0] + a[2] - b[0] - b[2], a[1] + a[3] - b[1] - b[3]
    diagonal = width.square() + height.square()
    return (x.square() + y.square()) / 4 / diagonal.clamp(min=EPSILON)


def _angle(box: Box) -> Tensor:
    """Of the diagonal; 0 for a point, where atan2's gradient is not finite."""
    width, height = _sides(box)
    return torch.atan2(width, height.clamp(min=EPSILON))
