"""Classifiers of identities, and the baseline among them: cross-entropy over as many classes as
there are identities. The classifier is needed in training only; embeddings are compared by their
cosine.
"""

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses.base import check_smoothing, full_precision
from losses.embedding import EmbeddingLoss, joint_mean, normalize


class ClassifierLoss(EmbeddingLoss):
    """-log softmax(z)_y, the mean over all embeddings with an identity; `training_logits` says what
    z is.

    Args:
        label_smoothing: e; the targets are 1 - e + e / C for the identity, e / C for all others.
        bias: whether the classifier has one.
        weight: factor of this loss in the total.
    """

    classifier: nn.Linear

    def __init__(self, label_smoothing: float = 0.0, bias: bool = False, weight: float = 1.0):
        super().__init__(weight)
        self.label_smoothing, self.bias = check_smoothing(label_smoothing), bias
        self.num_identities = 0

    def setup(self, num_identities: int, dim: int) -> None:
        self.num_identities = num_identities
        with torch.random.fork_rng(devices=[]):
            self.classifier = nn.Linear(dim, num_identities, self.bias)

    @property
    def chance_level(self) -> float:
        """ln C, the loss of a guess among all identities."""
        return math.log(max(1, self.num_identities))

    def figures(self) -> dict[str, Tensor]:
        return {"chance_level": self.classifier.weight.new_full((), self.chance_level)}

    @abstractmethod
    def training_logits(self, embeddings: Tensor, identities: Tensor) -> Tensor:
        """Logits (B, C) of embeddings (B, D), with the margin at their `identities` (B, 1), which
        are >= 0."""

    def compare(self, embeddings: Tensor, identities: Tensor, valid: Tensor) -> Tensor:
        target = identities.clamp(min=0)
        logits = self.training_logits(embeddings, target[:, None])
        nll = F.cross_entropy(
            logits, target, label_smoothing=self.label_smoothing, reduction="none"
        )
        return joint_mean(nll, valid)

    def cosines(self, embeddings: Tensor) -> Tensor:
        """Cosines (B, C) between embeddings and class vectors; 0 for an embedding of length 0."""
        class_vectors = normalize(full_precision(self.classifier.weight))
        return F.linear(normalize(embeddings), class_vectors)


class IdentityCrossEntropy(ClassifierLoss):
    """The baseline: a linear classifier on the embedding, z_j = W_j x + b_j.

    Neither x nor W is normalized. Smoothing as in Szegedy et al., "Rethinking the Inception
    Architecture", CVPR 2016, section 7; 0.1 is usual in re-identification.

    Args:
        label_smoothing: e.
        weight: factor of this loss in the total.
    """

    def __init__(self, label_smoothing: float = 0.1, weight: float = 1.0) -> None:
        super().__init__(label_smoothing, bias=True, weight=weight)

    def training_logits(self, embeddings: Tensor, identities: Tensor) -> Tensor:
        weight, bias = self.classifier.weight, self.classifier.bias
        return F.linear(embeddings, full_precision(weight), full_precision(bias))
