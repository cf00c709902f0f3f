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
import torch.distributed as dist
from torch import Tensor, nn

IGNORED = -1


class Loss(nn.Module, ABC):
    """What classification and box losses share: a weight, which Criterion applies, and `setup`.

    Args:
        weight: factor of this loss in the total.
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
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


class EmbeddingLoss(Loss):
    """Compares the embeddings of objects by their identities.

    Rows whose identity is -1 change neither value nor gradient; a batch without any identity gives
    exactly 0, attached to the graph. The mean over ranks of value and gradient is that of one
    process on the joint batch. Subclasses implement `compare`.
    """

    needs_positives: ClassVar[bool] = False  # is 0 unless an identity is several times in a batch

    def setup(self, num_identities: int, dim: int) -> None:
        """Called once, before optimizers are made, with the number C of identities and the length
        D of an embedding. What is drawn here changes no later draw."""

    def advance(self) -> None:
        """Called after every update of the weights in training, which may take the gradients of
        several batches."""

    def report(self) -> list[str]:
        """What a user should know about the settings, after `setup`: short lines, mostly none."""
        return []

    def forward(self, embeddings: Tensor, identities: Tensor) -> Tensor:
        """Scalar loss of embeddings (B, D), of any length, whose identities (B,) are 0 .. C - 1 or
        -1 for none."""
        valid = identities != IGNORED
        with torch.autocast(embeddings.device.type, enabled=False):
            x = torch.where(valid[:, None], full_precision(embeddings), 0.0)
            return self.compare(x, identities, valid)

    @abstractmethod
    def compare(self, embeddings: Tensor, identities: Tensor, valid: Tensor) -> Tensor:
        """The loss of embeddings (B, D) in full precision, which are 0 where not `valid` (B,)."""


def normalize(x: Tensor, shortest: float = 1e-6) -> Tensor:
    """Vectors (..., D) divided by their lengths; those below `shortest` are left as they are, since
    the gradient of a vector of length 0 would be divided by 0, or by whatever stands for it."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.where(length > shortest, length, 1.0)


def sum_over_ranks(x: Tensor) -> int:
    """Adds up `x` over all ranks, in place; the number of ranks."""
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    dist.all_reduce(x)
    return dist.get_world_size()


def joint_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of `values` where `mask`, 0 if there are none; on several ranks such that the mean
    over ranks is the mean over the values of all."""
    count = mask.sum().to(values.dtype)
    ranks = sum_over_ranks(count)
    return torch.where(mask, values, 0.0).sum() * ranks / count.clamp(min=1)
