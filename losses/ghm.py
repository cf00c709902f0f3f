"""GHM: examples count the less, the more examples have a gradient like theirs.

Li et al., "Gradient Harmonized Single-stage Detector", AAAI 2019. The many easy examples share one
bin of gradient norms, the few outliers another, and each bin gets the same say.
"""

from typing import ClassVar, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from losses.base import BoxLoss, full_precision
from losses.sigmoid import SigmoidLoss

FIXED_POINT = 2**16  # 1 in the running counts
PAPER_ADVICE = (
    "GHMC in the paper's form was made with weights of ImageNet and the data of COCO: with few "
    "images anchors that look alike end at a score of 0.5, however few are objects. From scratch: "
    "--model.class_loss.floor 3 (docs/losses.md)"
)


class GradientDensity(nn.Module):
    """How many examples have a gradient like theirs, and the weights of examples that follow.

    The norms of gradients, [0, 1], are cut into M bins. Examples are counted over the whole batch
    of all ranks, and the count of a bin is a running mean over batches. Counts are int64, exact
    beyond 2^24 examples, and so are the running counts, with 16 fractional bits: neither a cast of
    the module to half precision nor an averaging of weights touches them. They are corrected for
    their start at 0, so that the first steps are not several times too large. In evaluation they
    are used but not changed; a batch without valid anchors does not change them.

    Args:
        bins: M; a norm of exactly 1 is in the last.
        momentum: share of the old counts in the running mean; 0 for the batch's own counts.
        density: what `harmonize` divides by: "valid_bins", the number n of bins that are not empty
            (the authors' code: examples with equal norms keep weight 1), or "paper", M (eq. 10 and
            11), which makes the loss M / n times smaller.
        sync: add up the counts of all ranks. Otherwise every rank counts its own examples, and the
            loss depends on how many ranks there are; the running mean that they start from is rank
            0's, as DistributedDataParallel gives all ranks its buffers before every step.
    """

    running: Tensor
    updates: Tensor

    def __init__(
        self,
        bins: int,
        momentum: float,
        density: Literal["valid_bins", "paper"] = "valid_bins",
        sync: bool = True,
    ) -> None:
        super().__init__()
        if bins < 1 or not 0 <= momentum < 1:
            raise ValueError(f"bins {bins}, momentum {momentum}: give 1 or more, and [0, 1)")
        self.bins, self.momentum, self.density, self.sync = bins, momentum, density, sync
        self.register_buffer("running", torch.zeros(bins, dtype=torch.int64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @property
    def ranks(self) -> int:
        """Processes whose examples are counted together."""
        together = self.sync and dist.is_available() and dist.is_initialized()
        return dist.get_world_size() if together else 1

    @torch.no_grad()
    def harmonize(self, norms: Tensor, valid: Tensor) -> Tensor:
        """Weights of examples with gradient norms (N, R, C), of which those of the anchors `valid`
        (N, R) count: 1 / (count of the example's bin * number of bins), times the number of ranks.

        So every bin that is not empty has the same sum of weights, and the mean over ranks of their
        weighted sums, which DistributedDataParallel takes, is that of one process.
        """
        index = self.bin_of(norms)
        weights = self.ranks * self.bin_weights(*self.observe(index, valid))
        return weights[index].to(norms.dtype)

    @torch.no_grad()
    def damp(self, norms: Tensor, valid: Tensor, most: Tensor) -> Tensor:
        """Weights of the same examples: 1 in bins of up to `most` examples per rank, and `most` /
        count in fuller bins, which so count as `most` examples."""
        index = self.bin_of(norms)
        _, mean = self.observe(index, valid)
        weights = (self.ranks * most / mean.clamp(min=1e-12)).clamp(max=1.0)
        return weights[index].to(norms.dtype)

    def bin_weights(self, counts: Tensor, mean: Tensor) -> Tensor:
        """Of an example in each bin (M,), from the bins' counts in a batch and their mean."""
        filled = counts > 0
        regions = filled.sum() if self.density == "valid_bins" else self.bins
        return torch.where(filled, 1 / (mean * regions).clamp(min=1e-12), 0.0)

    def bin_of(self, norms: Tensor) -> Tensor:
        return (norms * self.bins).long().clamp(0, self.bins - 1)

    def observe(self, index: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Counts (M,) of this batch on all ranks, and the running mean that they are part of."""
        counts = self.count(index, valid)
        if self.ranks > 1:
            dist.all_reduce(counts)
        some = counts.sum() > 0
        new = (1 - self.momentum) * FIXED_POINT * counts.float()
        new = self.momentum * self.running.float() + new
        updates = self.updates + some
        if self.training:
            self.running.copy_(torch.where(some, new.round().long(), self.running))
            self.updates.copy_(updates)
        return counts, new / FIXED_POINT / (1 - self.momentum ** updates.clamp(min=1))

    def count(self, index: Tensor, valid: Tensor) -> Tensor:
        """Valid examples in every bin, (M,) int64. Counted for each anchor first: nearly all
        examples are in one bin, where they would queue."""
        table = torch.zeros(*index.shape[:-1], self.bins, dtype=torch.int32, device=index.device)
        one = torch.ones((), dtype=torch.int32, device=index.device)
        table = table.scatter_add_(-1, index, one.expand(index.shape))
        return torch.where(valid[..., None], table, 0).flatten(0, -2).sum(0, dtype=torch.int64)


class GHMC(SigmoidLoss):
    """Cross-entropy of one sigmoid per class, divided by the number of examples that are as wrong.

    sum of CE / GD(g), where g = |p - t| = 1 - p_t is the gradient's norm and GD its density, seen
    as a constant; examples are pairs of a valid anchor and a class. Its size depends neither on
    their number nor on `num_foreground`, by which it is not divided. GHM paper, eq. 9 to 13.

    In this form all bins have the same total weight. So anchors that look alike end at p = 0.5
    whatever share of them is positive (docs/losses.md), and the ranking of scores is lost where
    many do. With `floor`, which is not the paper's, the loss is the sum of w CE / `num_foreground`:
    cross-entropy, in which a bin of more than floor * num_foreground examples counts as so many,

        w = min(1, floor * num_foreground / count of the example's bin).

    Only the crowd of easy examples fills a bin so much. With infinity it is SigmoidCrossEntropy, to
    the rounding of the gradient.

    Differs from the authors' code: one histogram for all levels and ranks instead of one for each
    level (with a running mean shared by them), norms of 1 are counted in any precision, the running
    mean is corrected for its start, empty bins fade, and the device is never waited for.

    Args:
        bins, momentum, density, sync: see `GradientDensity`; 30 and 0.75 are the authors'.
        floor: null for the form of the paper, and so is 0; 3 trains from scratch. `density` plays
            no part with it.
        weight: factor of this loss in the total.
    """

    def __init__(
        self,
        bins: int = 30,
        momentum: float = 0.75,
        density: Literal["valid_bins", "paper"] = "valid_bins",
        sync: bool = True,
        floor: float | None = None,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        if floor is not None and not floor >= 0:
            raise ValueError(f"floor {floor}: give a number above 0, or null")
        self.floor = floor
        self.advice = "" if floor else PAPER_ADVICE
        self.density = GradientDensity(bins, momentum, density, sync)

    def per_example(self, x_t: Tensor) -> Tensor:
        return F.softplus(-x_t)

    def loss_and_gradient(self, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """By hand: a compiler then keeps no further tensors of this size between its passes over
        memory (0.21 s instead of 0.31 s for 8 x 19,000 anchors and 80 classes on one core; not
        compiled, 0.73 s instead of 0.82 s)."""
        negated = -x_t
        return F.softplus(negated), negated.sigmoid_().neg_()

    def forward(self, logits: Tensor, labels: Tensor, num_foreground: Tensor) -> Tensor:
        def weights(x_t: Tensor, valid: Tensor) -> Tensor:
            norms = (-x_t).sigmoid_()  # 1 - p_t
            if not self.floor:
                return self.density.harmonize(norms, valid)
            return self.density.damp(norms, valid, self.floor * num_foreground)

        total = self.total(logits, labels, weights)
        return total / num_foreground if self.floor else total


class GHMR(BoxLoss):
    """A smooth L1 loss of deltas, divided by the number of deltas that are as wrong.

    sum of ASL1 / GD(g) with ASL1 = sqrt(d^2 + mu^2) - mu and its gradient's norm g = |d| / sqrt(d^2
    + mu^2); examples are the four deltas of foreground anchors. Not divided by `num_foreground`.
    GHM paper, eq. 14 to 17.

    Args:
        mu: where quadratic turns linear, in units of deltas.
        bins, momentum, density, sync: see `GradientDensity`; 10 and 0.7 are the authors'.
        weight: factor of this loss in the total; the authors' 10, as it is a mean and not a sum.
    """

    compares: ClassVar[Literal["deltas", "boxes"]] = "deltas"

    def __init__(
        self,
        mu: float = 0.02,
        bins: int = 10,
        momentum: float = 0.7,
        density: Literal["valid_bins", "paper"] = "valid_bins",
        sync: bool = True,
        weight: float = 10.0,
    ) -> None:
        super().__init__(weight)
        self.mu = mu
        self.density = GradientDensity(bins, momentum, density, sync)

    def forward(
        self, predicted: Tensor, target: Tensor, foreground: Tensor, num_foreground: Tensor
    ) -> Tensor:
        target = full_precision(target)
        predicted = torch.where(foreground[..., None], full_precision(predicted), target)
        error = predicted - target
        root = (error.square() + self.mu**2).sqrt()
        weights = self.density.harmonize(error.detach().abs() / root.detach(), foreground)
        loss = (weights * (root - self.mu)).sum(-1)
        return torch.where(foreground, loss, 0.0).sum()
