"""Losses of distances: between embeddings (triplet), and from the center of an identity."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from losses.base import IGNORED
from losses.embedding import EmbeddingLoss, joint_mean, normalize, sum_over_ranks


class TripletLoss(EmbeddingLoss):
    """An object must be nearer to others of its identity than to any other identity, by a margin.

    max(0, d(a, p) - d(a, n) + margin) of an anchor a, a positive p of the same identity and a
    negative n of another one; d is the squared Euclidean distance of normalized embeddings. Schroff
    et al., "FaceNet", CVPR 2015, eq. 1 to 3; Hermans et al., "In Defense of the Triplet Loss",
    2017, for the mining. Triplets are made across all ranks.

    Batches must hold several objects of an identity. An embedding without a positive or without a
    negative makes no triplet; without any triplet the loss is 0.

    Args:
        margin: in units of d; two random unit vectors have a squared distance of about 2.
        mining: "hard" takes the farthest positive and the nearest negative of every anchor, "all"
            every triplet.
        squared: false for the distance itself, as Hermans et al. have it.
        reduction: "mean" over all triplets, or "nonzero" over those that are not 0, which does not
            fade as most become easy, but jumps.
        normalized: false compares embeddings as they are.
        weight: factor of this loss in the total.
    """

    needs_positives: ClassVar[bool] = True

    def __init__(
        self,
        margin: float = 0.2,
        mining: Literal["hard", "all"] = "hard",
        squared: bool = True,
        reduction: Literal["mean", "nonzero"] = "mean",
        normalized: bool = True,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        if margin < 0:
            raise ValueError(f"margin {margin}: give 0 or more")
        self.margin, self.mining, self.squared = margin, mining, squared
        self.reduction, self.normalized = reduction, normalized
        self.active_share = torch.zeros(())  # of the last batch's triplets, those that are not 0

    def compare(self, embeddings: Tensor, identities: Tensor, valid: Tensor) -> Tensor:
        x = normalize(embeddings) if self.normalized else embeddings
        x, identities, ranks = gather_ranks(x, identities)
        if not len(x):  # nothing has no maximum
            return x.sum()
        same = identities[:, None] == identities
        known = (identities != IGNORED)[:, None] & (identities != IGNORED)
        positive = same & known & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
        # without matrix products, whose rounding leaves a distance of 1e-3 between equals; the
        # gradient between equals is 0
        distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
        if self.squared:
            distances = distances.square()
        triplets_of = self.hard_triplets if self.mining == "hard" else self.all_triplets
        loss, triplets, active = triplets_of(distances, positive, known & ~same)
        self.active_share = (active / triplets.clamp(min=1)).detach()
        total = active if self.reduction == "nonzero" else triplets
        value = loss / total.clamp(min=1)
        # every rank has the whole loss, but of its gradient only what its own embeddings get; the
        # mean over ranks must be the sum of these parts
        return value + (ranks - 1) * (value - value.detach())

    def figures(self) -> dict[str, Tensor]:
        return {"active_triplets": self.active_share}

    def explain(self, figures: Mapping[str, float]) -> str | None:
        value = figures[type(self).__name__]
        if not abs(value - self.margin) < 1e-3 * self.margin:  # nor where both are 0
            return None
        return (
            f"TripletLoss is {value:.4g}, its margin: all embeddings are equal (collapsed). A "
            "lower learning rate, mining: all, or a classifier beside it may help"
        )

    def hard_triplets(
        self, distances: Tensor, positive: Tensor, negative: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sum of losses, triplets and active triplets, one for each anchor (row) that has both."""
        usable = positive.any(1) & negative.any(1)
        farthest = torch.where(positive, distances, 0.0).amax(1)
        nearest = torch.where(negative, distances, torch.inf).amin(1)
        nearest = torch.where(usable, nearest, 0.0)
        loss = torch.where(usable, (farthest - nearest + self.margin).clamp(min=0), 0.0)
        return loss.sum(), usable.sum(), (loss > 0).sum()

    def all_triplets(
        self, distances: Tensor, positive: Tensor, negative: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same of every triplet, without making B^3 of them: the negatives of an anchor in the
        order of their distances, a positive at distance d is wrong about those below d + margin,
        the first k, by k (d + margin) minus the sum of their distances."""
        near = torch.where(negative, distances, torch.inf).sort(1).values
        sums = torch.where(near.isfinite(), near, 0.0).cumsum(1)
        sums = F.pad(sums, (1, 0))
        limits = distances + self.margin
        count = torch.searchsorted(near.detach(), limits.detach())
        count = torch.where(positive, count, 0)
        loss = torch.where(positive, count * limits - sums.gather(1, count), 0.0)
        return loss.sum(), (positive.sum(1) * negative.sum(1)).sum(), count.sum()


class CenterLoss(EmbeddingLoss):
    """Pulls an embedding to the center of its identity: beside a classifier, which keeps identities
    apart, it makes each compact. Alone it is 0 where all embeddings are equal.

    1/2 |x - c_y|^2, the mean over all embeddings with an identity, which are not normalized. After
    the loss, in training, c_j moves by -alpha sum(c_j - x) / (1 + n_j) over the n_j embeddings of
    identity j in the batch of all ranks: with alpha 1 and one embedding, half the way. Wen et al.,
    "A Discriminative Feature Learning Approach for Deep Face Recognition", ECCV 2016, eq. 2 to 4.
    The paper adds up the batch in this loss and in cross-entropy, and here both are means, so the
    weight is the paper's.

    Differs from the many versions that let the optimizer move the centers, which ties them to
    learning rate, weight and decay. Centers start at 0, are float32 in a net of any precision, are
    part of the checkpoint and stay as they are in evaluation.

    Args:
        alpha: how fast centers move, in [0, 1].
        weight: factor of this loss in the total; the paper's lambda.
    """

    centers: Tensor

    def __init__(self, alpha: float = 0.5, weight: float = 0.003) -> None:
        super().__init__(weight)
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha {alpha}: give 0 to 1")
        self.alpha = alpha

    def setup(self, num_identities: int, dim: int) -> None:
        self.register_buffer("centers", torch.zeros(num_identities, dim))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves to a device, but never to half precision, where small steps would be lost."""
        centers: Any = getattr(self, "centers", None)
        super()._apply(fn, recurse)
        if centers is not None:
            self.centers = centers.to(self.centers.device)
        return self

    def compare(self, embeddings: Tensor, identities: Tensor, valid: Tensor) -> Tensor:
        nearest = self.centers[identities.clamp(min=0)]
        value = joint_mean((embeddings - nearest).square().sum(-1) / 2, valid)
        if self.training:
            self.move_centers(embeddings.detach(), identities, valid)
        return value

    @torch.no_grad()
    def move_centers(self, embeddings: Tensor, identities: Tensor, valid: Tensor) -> None:
        # a step with NaN is not taken by the weights, and must not stay here for ever
        valid = valid & embeddings.isfinite().all(-1)
        rows = torch.cat([embeddings, torch.ones_like(embeddings[:, :1])], 1).to(self.centers.dtype)
        rows = torch.where(valid[:, None], rows, 0.0)
        table = self.centers.new_zeros(len(self.centers), rows.shape[1])
        table.index_add_(0, identities.clamp(min=0), rows)  # adds up repeated identities
        sum_over_ranks(table)
        sums, counts = table[:, :-1], table[:, -1:]
        self.centers.sub_(self.alpha * (counts * self.centers - sums) / (1 + counts))


def gather_ranks(x: Tensor, identities: Tensor) -> tuple[Tensor, Tensor, int]:
    """Rows (B, D) and identities (B,) of all ranks, one after the other, and how many ranks there
    are; the rows of this rank are attached to the graph.

    B may be another on each rank, as where validation ends: the longest one decides, and identities
    of -1 fill up the others. Only on several ranks the host waits for the device, to know it.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x, identities, 1
    longest = torch.full((), len(x), device=x.device)
    dist.all_reduce(longest, dist.ReduceOp.MAX)
    missing = int(longest) - len(x)
    x, identities = F.pad(x, (0, 0, 0, missing)), F.pad(identities, (0, missing), value=IGNORED)
    gathered = []
    for rows in (x, identities):
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.detach().contiguous())
        parts[dist.get_rank()] = rows
        gathered.append(torch.cat(parts))
    return gathered[0], gathered[1], dist.get_world_size()
