"""Cross-entropy losses: every example counts by its surprise alone."""

import torch
import torch.nn.functional as F
from torch import Tensor

from losses.base import ClassificationLoss, one_vs_all


class SigmoidCrossEntropy(ClassificationLoss):
    """Binary cross-entropy of one sigmoid per class, the focal paper's baseline (gamma = 0, no
    alpha).

    CE = -log(p_t), summed over valid anchors and classes, divided by `num_foreground`. It trains
    only with the prior of `initial_bias` and a warm-up: with 300,000 anchors and 80 classes its
    first value is about 2,000.

    Args:
        label_smoothing: e moves the targets 1 and 0 to 1 - e / 2 and e / 2.
        weight: factor of this loss in the total.
    """

    def __init__(self, label_smoothing: float = 0.0, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor, num_foreground: Tensor) -> Tensor:
        logits, targets, valid = one_vs_all(logits, labels)
        soft = targets.to(logits.dtype) * (1 - self.label_smoothing) + self.label_smoothing / 2
        loss = F.binary_cross_entropy_with_logits(logits, soft, reduction="none")
        return torch.where(valid, loss, 0.0).sum() / num_foreground
