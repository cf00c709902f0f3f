"""Guard: clips gradients, and skips on the device every update that is not finite."""

import math
from typing import Any

import torch
from torch import Tensor, nn


class Guard(nn.Module):
    """What is known of the updates since `bad` was last set to 0, on the device, without waiting.

    norm: of all gradients at the last update, before clipping · bad: how many updates were not
    finite since then · consecutive: how many of them came one after the other, up to the last
    update · images: ids of the images of the last one.
    """

    norm: Tensor
    bad: Tensor
    consecutive: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("norm", "bad", "consecutive"):
            self.register_buffer(name, torch.zeros(()), persistent=False)
        self.images: Tensor | None = None

    def clip(
        self,
        parameters: list[nn.Parameter],
        optimizer: Any,
        limit: float | None,
        images: Tensor,
        by_value: bool = False,
    ) -> None:
        """Clip by the norm of all gradients, or each gradient by its value; where the norm is not
        finite, the update is skipped.

        A fused optimizer leaves weights and state untouched where `found_inf` is 1: the protocol of
        torch's GradScaler, which asks nothing of the host and in 16-mixed does so itself.
        """
        most = math.inf if by_value or not limit else limit
        self.norm = nn.utils.clip_grad_norm_(parameters, most)
        if by_value and limit:
            nn.utils.clip_grad_value_(parameters, limit)
        bad = (~self.norm.isfinite()).float()
        self.bad, self.consecutive = self.bad + bad, (self.consecutive + 1) * bad
        if self.images is None or len(self.images) != len(images):
            self.images = torch.full_like(images, -1)
        self.images = torch.where(bad > 0, images, self.images)
        inner = getattr(optimizer, "optimizer", optimizer)
        if inner.defaults.get("fused"):
            inner.found_inf = bad
