"""Box losses on the four deltas (dx, dy, dw, dh) between a box and its anchor."""

from typing import ClassVar, Literal

from torch import Tensor

from losses.base import PerBoxLoss


class L1Loss(PerBoxLoss):
    """|d|, summed over the four deltas and foreground anchors, divided by `num_foreground`.

    What torchvision's RetinaNet uses. Every error pulls equally, however small.
    """

    compares: ClassVar[Literal["deltas", "boxes"]] = "deltas"

    def per_box(self, predicted: Tensor, target: Tensor) -> Tensor:
        return (predicted - target).abs().sum(-1)


class L2Loss(PerBoxLoss):
    """d^2, summed over the four deltas and foreground anchors, divided by `num_foreground`.

    Without the factor 1/2, as torch's `mse_loss`. Far-off boxes dominate.
    """

    compares: ClassVar[Literal["deltas", "boxes"]] = "deltas"

    def per_box(self, predicted: Tensor, target: Tensor) -> Tensor:
        return (predicted - target).square().sum(-1)


class SmoothL1Loss(PerBoxLoss):
    """Quadratic for small errors, linear beyond `beta`, so that far-off boxes do not dominate.

    0.5 d^2 / beta where |d| < beta, else |d| - 0.5 beta; summed over the four deltas and foreground
    anchors, divided by `num_foreground`. Girshick, "Fast R-CNN", ICCV 2015, eq. 3, there with beta
    = 1. RetinaNet's deltas are smaller (no division by their spread), hence Detectron's 0.11;
    torchvision's RetinaNet uses beta = 0, which is L1.

    Args:
        beta: where quadratic turns linear, in units of deltas; 0 gives L1.
        weight: factor of this loss in the total.
    """

    compares: ClassVar[Literal["deltas", "boxes"]] = "deltas"

    def __init__(self, beta: float = 1 / 9, weight: float = 1.0) -> None:
        super().__init__(weight)
        if beta < 0:
            raise ValueError(f"beta {beta}: give 0 or more")
        self.beta = beta

    def per_box(self, predicted: Tensor, target: Tensor) -> Tensor:
        error = (predicted - target).abs()
        if self.beta > 0:  # 0.5 d^2 / 0 would give NaN gradients
            short = (self.beta - error).clamp(min=0)
            error = error - 0.5 * self.beta + 0.5 * short.square() / self.beta
        return error.sum(-1)
