"""Boxes and deltas.

A box is xyxy in pixels. Deltas (dx, dy, dw, dh) describe a box relative to an anchor: the shift of
the center in anchor sizes, and the log of the ratio of sizes (R-CNN, appendix C), not scaled any
further.
"""

import math

import torch
from torch import Tensor

# a 16 px anchor may grow to 1000 px; keeps exp() finite early in training
MAX_LOG_SCALE = math.log(1000 / 16)


def center_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centers (..., 2) and sizes (..., 2), width first, of boxes (..., 4)."""
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * size, size


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Deltas (..., 4) from anchors to boxes, both (..., 4), of positive width and height."""
    center, size = center_size(boxes)
    anchor_center, anchor_size = center_size(anchors)
    shift = (center - anchor_center) / anchor_size
    return torch.cat([shift, torch.log(size / anchor_size)], dim=-1)


def decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Boxes (..., 4) of deltas (..., 4) and anchors (..., 4); undoes `encode`.

    Always in float32 or better: in bfloat16 coordinates are off by up to 15 px.
    """
    deltas = deltas.to(torch.promote_types(deltas.dtype, torch.float32))
    anchor_center, anchor_size = center_size(anchors)
    center = deltas[..., :2] * anchor_size + anchor_center
    half = 0.5 * deltas[..., 2:].clamp(max=MAX_LOG_SCALE).exp() * anchor_size
    return torch.cat([center - half, center + half], dim=-1)


def clip(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes (N, D, 4) cut to images of `sizes` (N, 2), height first."""
    limit = sizes.flip(-1).repeat(1, 2)[:, None].to(boxes.dtype)
    return torch.minimum(boxes.clamp(min=0), limit)
