"""Classifiers of identities that ask for a margin: the own class must win by it.

Letters: x an embedding (D), W_j the class vector of identity j, t_j the angle between the two, y
the identity of x, C identities.
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from losses.embedding import joint_mean
from losses.identity import ClassifierLoss

OPPOSITE = -0.5  # mean cosine with the own class vector; one that is learned is above 0


class SphereFaceLoss(ClassifierLoss):
    """A margin in the angle that multiplies it: the own class must win even at m times the angle.

    z_j = |x| cos t_j and z_y = |x| (L cos t_y + psi(t_y)) / (1 + L), with psi(t) = (-1)^k cos(m t)
    - 2k for t in [k pi / m, (k + 1) pi / m], which falls from 1 to 1 - 2m where cos(m t) would rise
    again. L = max(lambda_min, base / (1 + gamma u)) after u updates: with psi alone from the start
    most trainings diverge. Class vectors are normalized, embeddings keep their length.
    Liu et al., "SphereFace: Deep Hypersphere Embedding for Face Recognition", CVPR 2017, eq. 5 to
    7; the schedule is that of the authors' training file.

    u is in the checkpoint and counts updates, not batches. cos(m t) is a polynomial of cos t, so
    that no gradient is infinite.

    Args:
        m: whole number, 1 or more; 1 is softmax with normalized class vectors.
        base, gamma, lambda_min: of the schedule.
        weight: factor of this loss in the total.
    """

    updates: Tensor

    def __init__(
        self,
        m: int = 4,
        base: float = 1000.0,
        gamma: float = 0.12,
        lambda_min: float = 5.0,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        if m < 1:
            raise ValueError(f"m {m}: give a whole number, 1 or more")
        if min(base, gamma, lambda_min) < 0:
            raise ValueError(
                f"base {base}, gamma {gamma}, lambda_min {lambda_min}: give 0 or more for each"
            )
        self.m, self.base, self.gamma, self.lambda_min = m, base, gamma, lambda_min
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def advance(self) -> None:
        self.updates += 1

    def annealing(self) -> Tensor:
        """L of this update."""
        return (self.base / (1 + self.gamma * self.updates)).clamp(min=self.lambda_min)

    def training_logits(self, embeddings: Tensor, identities: Tensor) -> Tensor:
        cosines, annealing = self.cosines(embeddings), self.annealing()
        own = cosines.gather(1, identities)
        own = (annealing * own + multiplied_angle(own, self.m)) / (1 + annealing)
        length = torch.linalg.vector_norm(embeddings, dim=-1, keepdim=True)
        return length * cosines.scatter(1, identities, own)


class CombinedMarginLoss(ClassifierLoss):
    """Three margins in one: z_j = s cos t_j and z_y = s (cos(m1 t_y + m2) - m3).

    Embeddings and class vectors are normalized. Deng et al., "ArcFace: Additive Angular Margin Loss
    for Deep Face Recognition", CVPR 2019, eq. 4, where (1, 0.3, 0.2) and (0.9, 0.4, 0.15) are the
    best combinations.

    Differs from insightface's code: its (1, 0.3, 0.2) leaves m2 out, its gradient takes the margin
    for a constant factor, and beyond m1 t + m2 = pi its logit rises again (`mode` "plain").

    Args:
        s: scale; null for `default_scale` of the number of identities.
        m1, m2, m3: margins that multiply the angle, add to it (radians) and lower the cosine.
        mode: of the target beyond the angle pi; see `margin_target`.
        weight: factor of this loss in the total.
    """

    def __init__(
        self,
        s: float | None = None,
        m1: float = 1.0,
        m2: float = 0.3,
        m3: float = 0.2,
        mode: Literal["monotonic", "plain", "easy"] = "monotonic",
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        if s is not None and s <= 0:
            raise ValueError(f"s {s}: give a number above 0, or null")
        if m1 <= 0 or m2 < 0 or m3 < 0:
            raise ValueError(
                f"margins m1 {m1}, m2 {m2}, m3 {m3}: give m1 above 0, the others 0 or more"
            )
        self.s, self.m1, self.m2, self.m3, self.mode = s, m1, m2, m3, mode
        self.scale = 1.0 if s is None else s
        self.own_cosine = torch.zeros(())  # mean of the last batch

    def setup(self, num_identities: int, dim: int) -> None:
        super().setup(num_identities, dim)
        if self.s is None:
            self.scale = default_scale(num_identities)

    def report(self) -> list[str]:
        best = attainable_probability(self.scale, self.num_identities)
        if best > 0.9 - 1e-6:
            return []
        enough = math.ceil(10 * smallest_scale(self.num_identities)) / 10
        return [
            f"{type(self).__name__}: with s {self.scale:g} even a perfect answer among "
            f"{self.num_identities} identities gets no more than probability {best:.2f}; "
            f"s {enough:g} or more lets it reach 0.9"
        ]

    def training_logits(self, embeddings: Tensor, identities: Tensor) -> Tensor:
        cosines = self.cosines(embeddings)
        own = cosines.gather(1, identities)
        self.own_cosine = joint_mean(own.detach(), own != 0)  # 0 without an identity
        own = margin_target(own, self.m1, self.m2, self.m3, self.mode)
        return self.scale * cosines.scatter(1, identities, own)

    def figures(self) -> dict[str, Tensor]:
        return {**super().figures(), f"{type(self).__name__}_cosine": self.own_cosine}

    def explain(self, figures: Mapping[str, float]) -> str | None:
        cosine = figures[f"{type(self).__name__}_cosine"]
        if not cosine <= OPPOSITE:  # nan is another failure
            return None
        return (
            f"{type(self).__name__}: the mean cosine with the own class vector is "
            f"{cosine:.2f}: the net has learned the opposite, which this margin "
            "made easier. A smaller margin, mode: easy, or a larger s may help"
        )


class CosFaceLoss(CombinedMarginLoss):
    """A margin in the cosine: z_j = s cos t_j and z_y = s (cos t_y - m).

    Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition", CVPR 2018, eq. 4.
    The pull is the same at every angle, and no angle is ever computed: the most robust of the
    margins.

    Args:
        s: scale; null for `default_scale` of the number of identities (the paper's is 64).
        m: margin of the cosine.
        weight: factor of this loss in the total.
    """

    def __init__(self, s: float | None = None, m: float = 0.35, weight: float = 1.0) -> None:
        super().__init__(s, 1.0, 0.0, m, weight=weight)


class ArcFaceLoss(CombinedMarginLoss):
    """A margin added to the angle: z_j = s cos t_j and z_y = s cos(t_y + m).

    Deng et al., CVPR 2019, eq. 3. Differs from insightface's code as `CombinedMarginLoss` does, and
    from pytorch-metric-learning's, which takes the margin in degrees.

    Args:
        s: scale; null for `default_scale` of the number of identities (the paper's is 64).
        m: margin of the angle, radians.
        mode: of the target beyond the angle pi; see `margin_target`.
        weight: factor of this loss in the total.
    """

    def __init__(
        self,
        s: float | None = None,
        m: float = 0.5,
        mode: Literal["monotonic", "plain", "easy"] = "monotonic",
        weight: float = 1.0,
    ) -> None:
        super().__init__(s, 1.0, m, 0.0, mode, weight)


def multiplied_angle(cosine: Tensor, m: int) -> Tensor:
    """psi(t) = (-1)^k cos(m t) - 2k, k = floor(m t / pi), of cos t: continuous and falling."""
    previous, multiple = torch.ones_like(cosine), cosine  # cos(0 t), cos(1 t)
    for _ in range(m - 1):
        previous, multiple = multiple, 2 * cosine * multiple - previous
    k = (m / math.pi * cosine.detach().clamp(-1, 1).acos()).floor().clamp(max=m - 1)
    return (1 - 2 * (k % 2)) * multiple - 2 * k


def margin_target(
    cosine: Tensor, m1: float, m2: float, m3: float, mode: Literal["monotonic", "plain", "easy"]
) -> Tensor:
    """cos(m1 t + m2) - m3 of cos t; value and gradient are finite at cos t = 1 and -1, too.

    `mode` says what holds where m1 t + m2 exceeds pi and the cosine rises again, so that the worst
    answers would be punished less: "monotonic" goes on falling, by cos t - m2 sin m2 - m3 for m1 =
    1 and by psi of SphereFace otherwise; "plain" rises; "easy" has no margin but m3 wherever cos t
    <= 0.
    """
    if m1 == 1 and m2 == 0:
        return cosine - m3
    square = (1 - cosine) * (1 + cosine)
    turned = square > 0  # the slope of the root at 0 is infinite
    sine = torch.where(turned, torch.where(turned, square, 1.0).sqrt(), 0.0)
    angle = m1 * torch.atan2(sine, cosine) + m2
    target = angle.cos()
    if mode == "easy":
        target = torch.where(cosine > 0, target, cosine)
    elif mode == "monotonic" and m1 == 1:
        target = torch.where(angle > math.pi, cosine - m2 * math.sin(m2), target)
    elif mode == "monotonic":
        k = (angle.detach() / math.pi).floor()
        target = (1 - 2 * (k % 2)) * target - 2 * k
    return target - m3


def attainable_probability(scale: float, num_identities: int) -> float:
    """Of a perfect answer, without a margin: cosine 1 with the own class vector, -1 / (C - 1) with
    all others, which is as far apart as C vectors can be."""
    others = num_identities - 1
    if others < 1:
        return 1.0
    return 1 / (1 + others * math.exp(-scale * num_identities / others))


def smallest_scale(num_identities: int, probability: float = 0.9) -> float:
    """With which a perfect answer reaches `probability` (CosFace paper, section 3.3)."""
    others = max(1, num_identities - 1)
    return others / (others + 1) * math.log(others * probability / (1 - probability))


def default_scale(num_identities: int) -> float:
    """sqrt(2) ln(C - 1) (Zhang et al., "AdaCos", CVPR 2019, section 3.2), but with fewer than some
    190 identities the larger scale that lets a perfect answer reach probability 0.9."""
    return max(math.sqrt(2) * math.log(max(1, num_identities - 1)), smallest_scale(num_identities))
