"""What a loss makes of given examples: values, gradients, and the scores at which training ends."""

import math
from typing import Any

import torch
from torch import Tensor

from losses import BoxLoss, ClassificationLoss

ONE = torch.tensor(1.0)


def slope(loss: ClassificationLoss, logits: Tensor, labels: Tensor) -> Tensor:
    """|d loss / d logit| of anchors of one class, (A,)."""
    x = logits.detach().clone().view(1, -1, 1).requires_grad_()
    loss(x, labels.view(1, -1), ONE).backward()
    assert x.grad is not None
    return x.grad.flatten().abs()


def one_by_one(loss: Any, *pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient norm of every row by itself."""
    first = pairs[0].detach().clone().requires_grad_()
    values = []
    for k in range(first.shape[1]):
        row = slice(k, k + 1)
        rest = [pair[:, row] for pair in pairs[1:]]
        if isinstance(loss, BoxLoss):
            rest.append(torch.ones(1, 1, dtype=torch.bool))
        values.append(loss(first[:, row], *rest, ONE))
    torch.stack(values).sum().backward()
    assert first.grad is not None
    return torch.stack(values).detach(), first.grad.flatten(0, 1).norm(dim=-1)


def a_batch(count: int = 200_000) -> tuple[Tensor, Tensor]:
    """Logits and labels like those of a detector that has learned a while: nearly all examples are
    easy background, few are objects, and a few are hopeless."""
    generator = torch.Generator().manual_seed(0)
    logits = -5 + 1.3 * torch.randn(count, generator=generator)
    labels = torch.ones(count, dtype=torch.int64)
    objects = count // 100
    logits[:objects] = 1 + 2 * torch.randn(objects, generator=generator)
    labels[:objects] = 0
    outliers = count // 500  # objects that look like background: annotated wrongly, or nearly so
    logits[:outliers] = -5 + torch.randn(outliers, generator=generator)
    return logits, labels


def fixed_point(loss: ClassificationLoss, share: float) -> float:
    """The score at which training leaves 100 anchors that look alike, of which `share` are objects:
    where the gradient of their common logit changes its sign, by bisection.

    The batch has 100 foreground anchors in all, those that look alike and easy ones, and 10,000
    anchors of easy background.
    """
    alike, objects = 100, round(100 * share)
    easy = torch.logit(torch.tensor(0.99))
    others = torch.cat([easy.expand(alike - objects), -easy.expand(100 * alike)])
    labels = torch.ones(1, alike + len(others), dtype=torch.int64)  # of one class: background is 1
    labels[0, :objects] = labels[0, alike : 2 * alike - objects] = 0
    low, high = -10.0, 10.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        x = torch.tensor(middle, requires_grad=True)
        logits = torch.cat([x.expand(alike), others]).view(1, -1, 1)
        (gradient,) = torch.autograd.grad(loss(logits, labels, torch.tensor(float(alike))), x)
        low, high = (low, middle) if gradient > 0 else (middle, high)
    return 1 / (1 + math.exp(-(low + high) / 2))
