"""Anchors: the boxes that the box head corrects, the same few at every cell of a level."""

from collections.abc import Callable, Sequence
from typing import Literal, Self

import torch
from torch import Tensor, nn


class AnchorGenerator(nn.Module):
    """Anchors of five levels P3..P7 with strides 8, 16, 32, 64, 128 (focal loss paper, section 4).

    An anchor of size s and ratio r (height / width) measures s / sqrt(r) by s * sqrt(r) and sits on
    the top left corner of its cell, where a ResNet's receptive field has its center. Of one cell,
    ratios change slowest and scales fastest.

    Args:
        sizes: sides in pixels of the smallest square anchor of each level.
        ratios: heights over widths.
        scales: how many sizes per octave: 3 gives s, s 2^(1/3), s 2^(2/3).
        rounding: "exact", or "torchvision", which its published weights need: sides are cut to
            whole pixels, corners rounded, and a stride is image size // feature size, which gives
            61 and 114 instead of 64 and 128 at 800 px.
    """

    strides = (8, 16, 32, 64, 128)

    def __init__(
        self,
        sizes: Sequence[float] = (32, 64, 128, 256, 512),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        scales: int = 3,
        rounding: Literal["exact", "torchvision"] = "exact",
    ) -> None:
        super().__init__()
        self.rounding = rounding
        self.per_cell = len(ratios) * scales
        for level, size in enumerate(sizes):
            sides = torch.tensor([size * 2 ** (k / scales) for k in range(scales)])
            if rounding == "torchvision":
                sides = sides.floor()
            root = torch.tensor(ratios).sqrt()
            widths, heights = (sides / root[:, None]).flatten(), (sides * root[:, None]).flatten()
            cell = torch.stack([-widths, -heights, widths, heights], dim=1) / 2
            cell = cell.round() if rounding == "torchvision" else cell
            self.register_buffer(f"cell{level}", cell, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves to a device, but never to half precision, which would round the anchors."""
        cells = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, cell in cells.items():
            setattr(self, name, cell.to(self.get_buffer(name).device))
        return self

    def forward(self, image_size: Sequence[int], feature_sizes: Sequence[Sequence[int]]) -> Tensor:
        """Anchors (R, 4) in float32 for images and feature maps of these sizes (height, width)."""
        anchors = []
        for level, (rows, columns) in enumerate(feature_sizes):
            cell = self.get_buffer(f"cell{level}")
            stride_y = stride_x = self.strides[level]
            if self.rounding == "torchvision":
                stride_y, stride_x = image_size[0] // rows, image_size[1] // columns
            y = torch.arange(rows, dtype=torch.float32, device=cell.device) * stride_y
            x = torch.arange(columns, dtype=torch.float32, device=cell.device) * stride_x
            x, y = x[None, :].expand(rows, columns), y[:, None].expand(rows, columns)
            corners = torch.stack([x, y, x, y], dim=-1)[:, :, None]
            anchors.append((corners + cell).flatten(0, 2))
        return torch.cat(anchors)
