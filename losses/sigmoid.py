"""One sigmoid per class: what the losses of that kind share."""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from losses.base import IGNORED, ClassificationLoss, full_precision

ExampleWeights = Callable[[Tensor, Tensor], Tensor]


class _Attach(torch.autograd.Function):
    """A value that was computed outside of the graph, and its known gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        (gradient,) = ctx.saved_tensors
        return gradient * grad, None, None


class SigmoidLoss(ClassificationLoss):
    """A loss of yes-or-no examples: every pair of a valid anchor and a class is one.

    sum of l(x_t) over the examples, divided by `num_foreground`. x_t is the logit of an example's
    truth: the logit of the anchor's own class, and the negated logit of every other class. So
    p_t = sigmoid(x_t) is the probability that the net gives to the truth, cross-entropy is
    nll = -log(p_t) = softplus(-x_t), and 1 - p_t = sigmoid(-x_t). A subclass writes down
    l as `per_example`, and that is all it has to do.

    There are some 10^7 examples a step. So the graph is not recorded: value and derivative are
    computed together, without a mask or a target for each example, which gives the same in less
    than half of the time of plain autograd (cross-entropy of 8 x 19,000 anchors and 80 classes,
    forward and backward on one core: 0.33 s instead of 0.77 s). A compiler fuses masks into one
    pass over memory, so it gets a form with masks (0.11 s).

    Args:
        positive, negative: weights of examples of the anchor's own class, and of all other
            examples (alpha and 1 - alpha).
        class_weights: weights of the K classes, in their order, each for all examples of the
            anchors of its objects; the background's is 1; null for 1.
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

    def setup(self, num_classes: int, dim: int) -> None:
        super().setup(num_classes, dim)
        if any(parameter.requires_grad for parameter in self.parameters()):
            raise ValueError(
                f"{type(self).__name__} has parameters to learn, but a SigmoidLoss is "
                "differentiated by the logits alone: derive from ClassificationLoss"
            )

    @abstractmethod
    def per_example(self, x_t: Tensor) -> Tensor:
        """Losses (N, R, K) of the truths' logits (N, R, K). At ignored anchors these are 0, and the
        loss, which must be finite there, does not count."""

    def loss_and_gradient(self, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """`per_example` and its derivative by x_t, both (N, R, K), by autograd.

        Override it only where a derivative written by hand is measured to be faster. The caller
        writes into both results, so neither may share memory with x_t.
        """
        loss, gradient_of = torch.func.vjp(self.per_example, x_t)  # type: ignore[misc]
        (gradient,) = gradient_of(loss.new_ones(()).expand_as(loss))
        return loss, gradient.contiguous()

    def forward(self, logits: Tensor, labels: Tensor, num_foreground: Tensor) -> Tensor:
        return self.total(logits, labels) / num_foreground

    def total(
        self, logits: Tensor, labels: Tensor, example_weights: ExampleWeights | None = None
    ) -> Tensor:
        """The sum over all examples, attached to the graph of the logits.

        `example_weights` takes x_t and which anchors are valid, (N, R), and returns (N, R, K): by
        how much to multiply the loss of every example, a constant for the gradient.
        """
        x = full_precision(logits)
        total = self._with_masks if torch.compiler.is_compiling() else self._without_masks
        with torch.no_grad():
            value, gradient = total(x.detach(), labels, example_weights)
        return _Attach.apply(x, value, gradient)

    def _without_masks(
        self, x: Tensor, labels: Tensor, example_weights: ExampleWeights | None
    ) -> tuple[Tensor, Tensor]:
        """The sum, and its gradient by x."""
        num_classes = x.shape[-1]
        valid = labels != IGNORED
        foreground = valid & (labels < num_classes)
        own = labels.clamp(0, num_classes - 1)[..., None]  # (N, R, 1); some column of others
        sign = torch.where(foreground, 1.0, -1.0)[..., None]
        x_t = (-x).scatter_(-1, own, sign * x.gather(-1, own))
        x_t = x_t.masked_fill_(~valid[..., None], 0.0)
        weights = None if example_weights is None else example_weights(x_t, valid)
        loss, gradient = self.loss_and_gradient(x_t)
        if weights is not None:
            loss, gradient = loss.mul_(weights), gradient.mul_(weights)
        counts = self.anchor_weights(labels, x.dtype)
        more = torch.where(foreground, self.positive - self.negative, 0.0)
        rows = self.negative * loss.sum(-1) + more * loss.gather(-1, own)[..., 0]
        others = -self.negative * counts
        own_factor = torch.where(foreground, self.positive * counts, others)[..., None]
        own_gradient = own_factor * gradient.gather(-1, own)
        gradient = gradient.mul_(others[..., None]).scatter_(-1, own, own_gradient)
        return (counts * rows).sum(), gradient

    def _with_masks(
        self, x: Tensor, labels: Tensor, example_weights: ExampleWeights | None
    ) -> tuple[Tensor, Tensor]:
        """The same for a compiler, which fuses masks of full size instead of making them."""
        valid = (labels != IGNORED)[..., None]
        own = labels[..., None] == torch.arange(x.shape[-1], device=x.device)
        x_t = torch.where(valid, torch.where(own, x, -x), 0.0)
        loss, gradient = self.loss_and_gradient(x_t)
        weights = torch.where(own, self.positive, self.negative)
        weights = weights * self.anchor_weights(labels, x.dtype)[..., None]
        if example_weights is not None:
            weights = weights * example_weights(x_t, valid[..., 0])
        return (loss * weights).sum(), gradient * torch.where(own, weights, -weights)
