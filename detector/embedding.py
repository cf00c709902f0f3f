"""Embeddings: vectors that tell objects apart, how they are trained and where they are read."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from detector.retinanet import Head, Predictions
from losses import EmbeddingLoss
from losses.base import IGNORED
from losses.embedding import normalize
from losses.overlaps import EPSILON, area, pairwise_intersection

GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, are spread evenly however many there are


class EmbeddingHead(Head):
    """One vector for all anchors of a cell: (N, C, H, W) -> (N, H * W, E).

    Vectors vary as much as what they are made of, instead of being near 0 (He et al., "Delving Deep
    into Rectifiers", ICCV 2015). What random numbers come next does not depend on this head.
    """

    def __init__(self, channels: int, convs: int, size: int, norm: str = "none") -> None:
        with torch.random.fork_rng(devices=[]):
            super().__init__(channels, convs, 1, size, norm)
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


class EmbeddingCriterion(nn.Module):
    """Vectors of foreground anchors and the identities of their objects -> loss.

    Of an image at most `samples` foreground anchors with an identity take part, so that shapes are
    static. They are spread evenly over all of them: an object with more foreground anchors has more
    samples, and those of anchors of one cell are the same vector. All others, and objects without
    an identity or with one that is not among the C of the training data, have -1.

    Args:
        losses: applied to the same vectors; their weighted sum is minimized.
        num_identities: C.
        samples: vectors of an image.
    """

    def __init__(self, losses: Sequence[EmbeddingLoss], num_identities: int, samples: int) -> None:
        super().__init__()
        self.losses = nn.ModuleList(losses)
        self.num_identities, self.samples = num_identities, samples

    def report(self) -> list[str]:
        """What a user should know before training, as short lines."""
        lines = [
            f"embedding: {self.num_identities} identities; a guess among them costs a classifier "
            f"{math.log(max(1, self.num_identities)):.2f}"
        ]
        return lines + [line for loss in self for line in loss.report()]

    def __iter__(self) -> Iterator[EmbeddingLoss]:
        return iter(self.losses)  # type: ignore[arg-type]

    def forward(
        self, predictions: Predictions, identities: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss, and figures without a gradient: every loss by its name and what it has
        to show, the mean cosine of pairs of one identity in two images, and of pairs of two
        identities (nan without such pairs).

        `identities` (N, R) are those of the anchors' objects, -1 for none and where an anchor is
        not foreground.
        """
        vectors, chosen = self.sample(predictions, identities)
        figures = _cosines(vectors.detach(), chosen)
        total = vectors.new_zeros((), dtype=torch.float32)
        for loss in self:
            value = loss(vectors.flatten(0, 1), chosen.flatten())
            total = total + loss.weight * value
            figures |= {type(loss).__name__: value.detach(), **loss.figures()}
        return total, figures

    def advance(self) -> None:
        """To be called after every update of the weights."""
        for loss in self:
            loss.advance()

    def explain(self, figures: Mapping[str, float]) -> list[str]:
        """Lines about figures that tell of a failed training."""
        lines = [loss.explain(figures) for loss in self]
        return [line for line in lines if line]

    def sample(self, predictions: Predictions, identities: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (N, S, E) and identities (N, S), -1 where there are fewer than S."""
        count = identities.shape[1]
        trained = (identities >= 0) & (identities < self.num_identities)
        order = torch.arange(count, device=identities.device, dtype=torch.float64) * GOLDEN % 1
        order = torch.where(trained, 1 + order.float(), 0.0)
        rank, index = order.topk(min(self.samples, count))
        chosen = torch.where(rank > 0, identities.gather(1, index), IGNORED)
        vectors = gather_vectors(predictions, index)
        assert vectors is not None  # there is an embedding head
        return vectors, chosen


def gather_vectors(predictions: Predictions, index: Tensor) -> Tensor | None:
    """Vectors (N, S, E) of anchors, which `index` (N, S) counts; all anchors of a cell have one.
    None without an embedding head."""
    if predictions.embeddings is None:
        return None
    cell = index // (len(predictions.anchors) // predictions.embeddings.shape[1])
    size = predictions.embeddings.shape[-1]
    return predictions.embeddings.gather(1, cell[..., None].expand(-1, -1, size))


@torch.no_grad()
def read_vectors(predictions: Predictions, boxes: Tensor) -> Tensor | None:
    """Vectors (N, G, E) of boxes (N, G, 4) in pixels of the net's input: of each the one of the
    anchor that overlaps it most."""
    index = []
    for rows in boxes.float():  # image by image: all pairs of a batch can be gigabytes
        shared = pairwise_intersection(rows, predictions.anchors)
        union = area(rows)[:, None] + area(predictions.anchors) - shared
        index.append((shared / union.clamp(min=EPSILON)).argmax(dim=1))
    return gather_vectors(predictions, torch.stack(index))


def _cosines(vectors: Tensor, identities: Tensor) -> dict[str, Tensor]:
    """Mean cosines of vectors (N, S, E): of pairs of one identity (N, S), and of two."""
    unit = normalize(vectors.float().flatten(0, 1))
    image = torch.arange(len(vectors), device=vectors.device).repeat_interleave(vectors.shape[1])
    identity = identities.flatten()
    known = (identity >= 0)[:, None] & (identity >= 0) & (image[:, None] != image)
    same = identity[:, None] == identity
    cosines = unit @ unit.T
    return {
        "cosine_same": _mean(cosines, known & same),
        "cosine_other": _mean(cosines, known & ~same),
    }


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum() / mask.sum()
