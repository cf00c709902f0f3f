"""Box losses that are one minus an overlap; boxes are xyxy in pixels."""

from typing import Literal

from torch import Tensor

from losses.base import PerBoxLoss
from losses.overlaps import ciou, diou, eiou, giou, iou


class IoULoss(PerBoxLoss):
    """1 - IoU, or -log(IoU); summed over foreground anchors, divided by `num_foreground`.

    The log form is Yu et al., "UnitBox", ACM MM 2016, eq. 1, with IoU bounded by 1e-6 from below.
    Neither form moves a box that does not touch its object.

    Args:
        form: "linear" or "log".
        weight: factor of this loss in the total.
    """

    def __init__(self, form: Literal["linear", "log"] = "linear", weight: float = 1.0) -> None:
        super().__init__(weight)
        self.form = form

    def per_box(self, predicted: Tensor, target: Tensor) -> Tensor:
        overlap = iou(predicted, target)
        return 1 - overlap if self.form == "linear" else -overlap.clamp(min=1e-6).log()


class GIoULoss(PerBoxLoss):
    """1 - GIoU, in [0, 2): overlap, and a pull that disjoint boxes feel too; summed over foreground
    anchors, divided by `num_foreground`. See `giou`."""

    def per_box(self, predicted: Tensor, target: Tensor) -> Tensor:
        return 1 - giou(predicted, target)


class DIoULoss(PerBoxLoss):
    """1 - DIoU, in [0, 2): overlap and distance of the centers; summed over foreground anchors,
    divided by `num_foreground`. See `diou`."""

    def per_box(self, predicted: Tensor, target: Tensor) -> Tensor:
        return 1 - diou(predicted, target)


class CIoULoss(PerBoxLoss):
    """1 - CIoU, in [0, 2.5): overlap, distance of the centers and aspect; summed over foreground
    anchors, divided by `num_foreground`. See `ciou`.

    Differs from the authors' first PyTorch code, whose sign of the aspect's gradient trained it
    away from the target, and from code that clamps the value to [-1, 1], which stops the gradient.

    Args:
        alpha_gate: aspect counts only from this IoU on; null for always, as in the paper.
        weight: factor of this loss in the total.
    """

    def __init__(self, alpha_gate: float | None = None, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.alpha_gate = alpha_gate

    def per_box(self, predicted: Tensor, target: Tensor) -> Tensor:
        return 1 - ciou(predicted, target, self.alpha_gate)


class EIoULoss(PerBoxLoss):
    """1 - EIoU, in [0, 3.25): overlap, distance of the centers, differences of width and height;
    summed over foreground anchors, divided by `num_foreground`. See `eiou`."""

    def per_box(self, predicted: Tensor, target: Tensor) -> Tensor:
        return 1 - eiou(predicted, target)
