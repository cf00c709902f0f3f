"""GHM-C as its authors' running code computes it (mmdetection's form), to train with and compare.

    python train.py --config configs/shapes.yaml --trainer.max_epochs 10 \\
        --model.class_loss tests.authors_ghm.AuthorsGHMC \\
        --model.class_loss.levels '[1200, 300, 75, 27, 12]'
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from losses import SigmoidLoss


class AuthorsGHMC(SigmoidLoss):
    """sum over pyramid levels of (1 / n) sum of CE / S[bin of the example].

    The levels come one after the other, from the finest on. Each counts its own examples, updates
    the running counts S, which all levels share and which start at 0, but only of the n bins that
    it fills (S = momentum S + (1 - momentum) count), and takes its weights from them. Every process
    counts for itself. Not divided by `num_foreground`.

    Args:
        levels: anchors of an image in every level; their sum is R.
        bins, momentum: 30 and 0.75 are the authors'.
        weight: factor of this loss in the total.
    """

    running: Tensor

    def __init__(
        self,
        levels: Sequence[int],
        bins: int = 30,
        momentum: float = 0.75,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        self.levels, self.bins, self.momentum = list(levels), bins, momentum
        self.register_buffer("running", torch.zeros(bins))

    def per_example(self, x_t: Tensor) -> Tensor:
        return F.softplus(-x_t)

    def forward(self, logits: Tensor, labels: Tensor, num_foreground: Tensor) -> Tensor:
        return self.total(logits, labels, self.example_weights)

    def example_weights(self, x_t: Tensor, valid: Tensor) -> Tensor:
        parts = zip(x_t.split(self.levels, 1), valid.split(self.levels, 1), strict=True)
        return torch.cat([self.level_weights(*part) for part in parts], 1)

    def level_weights(self, x_t: Tensor, valid: Tensor) -> Tensor:
        index = ((-x_t).sigmoid() * self.bins).long().clamp(max=self.bins - 1)
        ones = valid[..., None].expand_as(index).to(self.running.dtype)
        counts = torch.zeros_like(self.running).index_add_(0, index.flatten(), ones.flatten())
        filled = counts > 0
        updated = self.momentum * self.running + (1 - self.momentum) * counts
        running = torch.where(filled, updated, self.running)
        if self.training:
            self.running.copy_(running)
        weights = torch.where(filled, 1 / running / filled.sum(), 0.0)
        return weights[index].to(x_t.dtype)
