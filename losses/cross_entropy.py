"""Cross-entropy: -log of the probability given to the truth."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from losses.base import IGNORED, ClassificationLoss, check_smoothing, full_precision
from losses.sigmoid import SigmoidLoss


class SigmoidCrossEntropy(SigmoidLoss):
    """Binary cross-entropy of one sigmoid per class, the focal paper's baseline (gamma = 0, no
    alpha).

    CE = -log(p_t), summed over valid anchors and classes, divided by `num_foreground`. It is made
    for the prior of `initial_bias` and a warm-up: with 300,000 anchors and 80 classes its first
    value is about 2,000.

    Args:
        label_smoothing: e moves the targets 1 and 0 to 1 - e / 2 and e / 2.
        class_weights: see `SigmoidLoss`; null for 1.
        weight: factor of this loss in the total.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        weight: float = 1.0,
    ) -> None:
        super().__init__(class_weights=class_weights, weight=weight)
        self.label_smoothing = check_smoothing(label_smoothing)

    def per_example(self, x_t: Tensor) -> Tensor:
        nll = F.softplus(-x_t)
        if self.label_smoothing:  # the target's part that moved: softplus(x_t) - softplus(-x_t)
            nll = nll + self.label_smoothing / 2 * x_t
        return nll


class BalancedCrossEntropy(SigmoidLoss):
    """Binary cross-entropy in which the object's own class counts alpha, all else 1 - alpha.

    -alpha_t log(p_t), summed over valid anchors and classes, divided by `num_foreground`.
    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, eq. 3 and table 1a, where 0.75
    is the best alpha. Differs from the `pos_weight` of torch's BCEWithLogitsLoss, which leaves the
    negatives at 1: it is (1 - alpha) times that with pos_weight = alpha / (1 - alpha).

    Args:
        alpha: weight of the object's class against all else.
        class_weights: see `SigmoidLoss`; null for 1.
        weight: factor of this loss in the total.
    """

    def __init__(
        self,
        alpha: float = 0.75,
        class_weights: Sequence[float] | None = None,
        weight: float = 1.0,
    ) -> None:
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha {alpha}: give 0 to 1")
        super().__init__(alpha, 1 - alpha, class_weights, weight)

    def per_example(self, x_t: Tensor) -> Tensor:
        return F.softplus(-x_t)


class SoftmaxCrossEntropy(ClassificationLoss):
    """Cross-entropy over K classes and the background, which compete for one probability.

    -log softmax(x)_y, summed over valid anchors, divided by `num_foreground`; the last of the K + 1
    logits is the background's. It starts so that all objects together have the score `prior`.
    Smoothed targets are 1 - e + e / (K + 1) for the truth and e / (K + 1) for all others (Szegedy
    et al., "Rethinking the Inception Architecture", CVPR 2016, section 7).

    Args:
        label_smoothing: e.
        class_weights: weights of the K classes for the anchors of their objects, the background's
            is 1; null for 1. With smoothing they weigh the whole loss of an anchor, where torch's
            `weight` weighs each smoothed target by its own class.
        weight: factor of this loss in the total.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        self.label_smoothing = check_smoothing(label_smoothing)
        self.register_class_weights(class_weights)

    def initial_bias(self, num_classes: int, prior: float) -> Tensor:
        bias = torch.zeros(num_classes + 1)
        bias[-1] = math.log(num_classes * (1 - prior) / prior)
        return bias

    def scores(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)[..., :-1]

    def forward(self, logits: Tensor, labels: Tensor, num_foreground: Tensor) -> Tensor:
        valid = labels != IGNORED
        x = torch.where(valid[..., None], full_precision(logits), 0.0)
        loss = F.cross_entropy(
            x.flatten(0, -2),
            labels.clamp(min=0).flatten(),
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        return (loss.view_as(labels) * self.anchor_weights(labels, x.dtype)).sum() / num_foreground
