"""The contract of losses that compare embeddings, and what several of them need."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from losses.base import IGNORED, Loss, full_precision


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

    def figures(self) -> dict[str, Tensor]:
        """Of the last batch, what a user should see beside the loss: scalars without a gradient."""
        return {}

    def explain(self, figures: Mapping[str, float]) -> str | None:
        """A line about the figures of a step, the loss by its name among them, where they tell of a
        failed training."""
        return None

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
