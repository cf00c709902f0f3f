"""Focal loss: cross-entropy that fades out where the answer is already right."""

import torch
import torch.nn.functional as F
from torch import Tensor

from losses.base import ClassificationLoss, one_vs_all


class FocalLoss(ClassificationLoss):
    """Cross-entropy of one sigmoid per class, times (1 - p_t)^gamma, so that easy examples weigh
    little.

    FL = -alpha_t (1 - p_t)^gamma log(p_t), summed over valid anchors and classes, divided by
    `num_foreground`; p_t is the probability given to the truth, alpha_t is alpha for an object's
    class and 1 - alpha for all else.
    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, eq. 5 and section 4.1.

    Differs from torchvision's `sigmoid_focal_loss`: the factor is computed in log space, exp(gamma
    * log(1 - p_t)), which keeps it exact for confident logits and its gradient finite for gamma <
    1, where 1 - p_t rounds to 0 and the naive form gives NaN from |logit| = 17 on. The normalizer
    is of the batch, not of the image.

    Args:
        alpha: weight of the object's class against all else; null for no such weight.
        gamma: how fast easy examples fade; 0 is cross-entropy.
        weight: factor of this loss in the total.
    """

    def __init__(self, alpha: float | None = 0.25, gamma: float = 2.0, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.alpha = alpha
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor, num_foreground: Tensor) -> Tensor:
        logits, targets, valid = one_vs_all(logits, labels)
        wrongness = torch.where(targets, -logits, logits)  # sigmoid(wrongness) = 1 - p_t
        loss = -F.logsigmoid(-wrongness) * torch.exp(self.gamma * F.logsigmoid(wrongness))
        if self.alpha is not None:
            loss = loss * torch.where(targets, self.alpha, 1 - self.alpha)
        return torch.where(valid, loss, 0.0).sum() / num_foreground
