"""Box losses on the four deltas (dx, dy, dw, dh) between a box and its anchor."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from losses.base import BoxLoss, full_precision


class SmoothL1Loss(BoxLoss):
    """Quadratic for small errors, linear beyond `beta`, so that far-off boxes do not dominate.

    0.5 d^2 / beta where |d| < beta, else |d| - 0.5 beta; summed over the four deltas, divided by
    `num_foreground`. Girshick, "Fast R-CNN", ICCV 2015, eq. 3, there with beta = 1. RetinaNet's
    deltas are smaller (no division by their spread), hence Detectron's 0.11; torchvision's
    RetinaNet uses beta = 0, which is L1.

    Args:
        beta: where quadratic turns linear, in units of deltas; 0 gives L1.
        weight: factor of this loss in the total.
    """

    compares: ClassVar[Literal["deltas", "boxes"]] = "deltas"

    def __init__(self, beta: float = 1 / 9, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.beta = beta

    def forward(
        self, predicted: Tensor, target: Tensor, foreground: Tensor, num_foreground: Tensor
    ) -> Tensor:
        target = full_precision(target)
        predicted = torch.where(foreground[..., None], full_precision(predicted), target)
        error = (predicted - target).abs()
        if self.beta > 0:  # 0.5 d^2 / 0 would give NaN gradients through `where`
            small = 0.5 * error.square() / self.beta
            error = torch.where(error < self.beta, small, error - 0.5 * self.beta)
        return error.sum() / num_foreground
