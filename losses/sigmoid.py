"""One sigmoid per class: what the losses of that kind share, and their common fast path."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from losses.base import IGNORED, ClassificationLoss, full_precision


class _Attach(torch.autograd.Function):
    """A value that was computed outside of the graph, and its known derivative."""

    @staticmethod
    def forward(ctx, x: Tensor, value: Tensor, slope: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(slope)
        return value.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        (slope,) = ctx.saved_tensors
        return slope * grad, None, None


class SigmoidLoss(ClassificationLoss):
    """Every pair of a valid anchor and a class is one example, judged by how wrong it is.

    The wrongness of an example is its logit, negated where the class is the anchor's own, so that
    sigmoid(wrongness) = 1 - p_t and a subclass needs but one formula: `judge`. Anchors and classes
    are some 10^7 examples a step, nearly all of them background, so no mask or target of that size
    is ever made, and value and derivative are computed together instead of through autograd, which
    would keep a dozen tensors of that size alive.

    Args:
        positive, negative: weights of the anchor's own class and of all others (alpha and 1 -
            alpha).
        class_weights: weights of the K classes, in their order; null for 1.
        weight: factor of this loss in the total.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        positive: float = 1.0,
        negative: float = 1.0,
        class_weights: Sequence[float] | None = None,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        self.positive, self.negative = positive, negative
        self.register_class_weights(class_weights)

    @abstractmethod
    def judge(self, wrongness: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and its derivative by wrongness, both (N, R, K), of wrongness (N, R, K).

        What is said of anchors that are not `valid` (N, R) is not heard. Neither may overwrite
        `wrongness`; the two are overwritten.
        """

    def total(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The sum over all examples, attached to the graph of the logits."""
        x = full_precision(logits)
        with torch.no_grad():
            value, slope = self._total(x.detach(), labels)
        return _Attach.apply(x, value, slope)

    def _total(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        num_classes = x.shape[-1]
        valid = labels != IGNORED
        if torch.compiler.is_compiling():
            return self._fused(x, labels, valid)
        foreground = valid & (labels < num_classes)
        own = labels.clamp(0, num_classes - 1)[..., None]  # (N, R, 1); some column of others
        sign = torch.where(foreground, -1.0, 1.0)[..., None]
        wrongness = x.scatter(-1, own, sign * x.gather(-1, own))
        loss, slope = self.judge(wrongness, valid)
        if self.class_weights is not None:
            loss, slope = loss * self.class_weights, slope * self.class_weights
        more = torch.where(foreground, (self.positive - self.negative), 0.0)
        rows = self.negative * loss.sum(-1) + more * loss.gather(-1, own)[..., 0]
        factor = torch.where(foreground, -self.positive, self.negative)[..., None]
        own_slope = factor * slope.gather(-1, own)
        if self.negative != 1:
            slope = slope.mul_(self.negative)
        slope = slope.scatter_(-1, own, own_slope).masked_fill_(~valid[..., None], 0.0)
        return torch.where(valid, rows, 0.0).sum(), slope

    def _fused(self, x: Tensor, labels: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """The same with masks of full size, which a compiler never makes: one pass over memory."""
        own = labels[..., None] == torch.arange(x.shape[-1], device=x.device)
        loss, slope = self.judge(torch.where(own, -x, x), valid)
        weights = torch.where(own, self.positive, self.negative)
        if self.class_weights is not None:
            weights = weights * self.class_weights
        weights = torch.where(valid[..., None], weights, 0.0)
        # a masked loss may be infinite or NaN, and would stay so times 0
        value = torch.where(valid[..., None], loss * weights, 0.0).sum()
        slope = torch.where(valid[..., None], slope * torch.where(own, -weights, weights), 0.0)
        return value, slope

    def forward(self, logits: Tensor, labels: Tensor, num_foreground: Tensor) -> Tensor:
        return self.total(logits, labels) / num_foreground
