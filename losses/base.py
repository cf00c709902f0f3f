"""The contract of a loss: an object that owns every fact about itself, so that no head, matcher or
config has to know it.

Letters: N images, R anchors, K classes. Labels of anchors are 0..K-1, K for background, -1 for
ignored. Ignored anchors change neither value nor gradient. Shapes are static: ignoring is a mask on
the input *and* on the output (`inf * 0` is NaN, and a NaN gradient flows through the masked branch
of a single `torch.where`).
With no foreground at all a loss is finite and still attached to the graph: DistributedDataParallel
waits for every gradient.

A classification loss that needs the quality of the predicted box (QFL, VFL), or further outputs of
the net (DFL), does not fit this contract. That is another Criterion, not a wider signature.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

IGNORED = -1


def check_smoothing(label_smoothing: float) -> float:
    """The value; ValueError where it is no share of a target."""
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing {label_smoothing}: give 0 or more, below 1")
    return label_smoothing


class Loss(nn.Module, ABC):
    """What classification and box losses share: a weight, which Criterion applies, and `setup`.

    `advice` is a line that training prints before it begins, if there is something to know.

    Args:
        weight: factor of this loss in the total.
    """

    advice: str = ""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"weight {weight}: a loss below 0 would be increased; give 0 or more")
        self.weight = weight

    def setup(self, num_classes: int, dim: int) -> None:
        """Is called once, before optimizers are made, with the number of classes and the channels
        of the heads, for a loss that must know them. Raises ValueError if they do not fit it."""


class ClassificationLoss(Loss):
    """A loss of the logits of all anchors against the anchors' labels.

    What a logit means is up to the loss. So the loss also tells how logits start (`initial_bias`)
    and how to turn them into probabilities (`scores`); the defaults are those of one sigmoid per
    class.
    """

    def register_class_weights(self, weights: Sequence[float] | None) -> None:
        """Keeps one weight per class, or None, in `class_weights`: a buffer that is in no
        checkpoint. `setup` checks that there are K."""
        value = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("class_weights", value, persistent=False)

    def anchor_weights(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        """By how much the loss of each anchor (N, R) counts: the weight of its class, or 1 without
        `class_weights`; as background 1, so that the weights leave it alone; ignored 0."""
        counted = (labels != IGNORED).to(dtype)
        weights = getattr(self, "class_weights", None)
        if weights is None:
            return counted
        weights = torch.cat([weights, weights.new_ones(1)]).to(dtype)
        return counted * weights[labels.clamp(min=0)]

    def setup(self, num_classes: int, dim: int) -> None:
        weights = getattr(self, "class_weights", None)
        if weights is not None and len(weights) != num_classes:
            raise ValueError(f"{len(weights)} class_weights for {num_classes} classes")

    def initial_bias(self, num_classes: int, prior: float) -> Tensor:
        """One entry per logit (K, or K + 1 with a background logit) such that every class starts at
        the score `prior`; where classes compete for one probability, all of them together.

        Focal loss paper, section 3.3: without it the first steps drown in the loss of the
        background.
        """
        return torch.full((num_classes,), math.log(prior / (1 - prior)))

    def scores(self, logits: Tensor) -> Tensor:
        """Probabilities (..., K) of logits (..., K) or (..., K + 1)."""
        return logits.sigmoid()

    @abstractmethod
    def forward(self, logits: Tensor, labels: Tensor, num_foreground: Tensor) -> Tensor:
        """Scalar loss of logits (N, R, K) or (N, R, K + 1) with labels (N, R)."""


class BoxLoss(Loss):
    """A loss of the boxes that foreground anchors predict.

    `compares` says what it is given: the four deltas as the net predicts them, or the xyxy boxes in
    pixels that they encode.
    """

    compares: ClassVar[Literal["deltas", "boxes"]] = "boxes"

    @abstractmethod
    def forward(
        self, predicted: Tensor, target: Tensor, foreground: Tensor, num_foreground: Tensor
    ) -> Tensor:
        """Scalar loss of two (N, R, 4) tensors where `foreground` (N, R) is true.

        Elsewhere `target` is some harmless value of the same kind (the anchor itself).
        """


class PerBoxLoss(BoxLoss):
    """A box loss in which every foreground anchor counts by itself: the sum of `per_box` over them,
    divided by `num_foreground`. A subclass writes down `per_box`."""

    @abstractmethod
    def per_box(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Losses (N, R) of two (N, R, 4) tensors. Where an anchor is not foreground the two are
        equal; the loss and its gradient must be finite there."""

    def forward(
        self, predicted: Tensor, target: Tensor, foreground: Tensor, num_foreground: Tensor
    ) -> Tensor:
        target = full_precision(target)
        predicted = torch.where(foreground[..., None], full_precision(predicted), target)
        loss = torch.where(foreground, self.per_box(predicted, target), 0.0)
        return loss.sum() / num_foreground


def full_precision(x: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 as they are (float64 is for gradcheck)."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
