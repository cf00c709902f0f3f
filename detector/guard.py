"""Guard: clips gradients, and skips on the device every update that is not finite, and what its
batch has left in the statistics of BatchNorm."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Guard(nn.Module):
    """What is known of the updates since `bad` was last set to 0, on the device, without waiting.

    norm: of all gradients at the last update, before clipping · bad: how many updates were not
    finite since then · consecutive: how many of them came one after the other, up to the last
    update · images: ids of the images whose loss was not finite last, -1 for none; every rank has
    its own.
    """

    norm: Tensor
    bad: Tensor
    consecutive: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("norm", "bad", "consecutive"):
            self.register_buffer(name, torch.zeros(()), persistent=False)
        self.images: Tensor | None = None  # no buffer, which DistributedDataParallel would share
        self.statistics: list[Tensor] = []
        self.before: Tensor | None = None

    def keep_statistics(self, net: nn.Module) -> None:
        """Keep what BatchNorm has gathered, before a batch adds to it."""
        norms = (m for m in net.modules() if isinstance(m, (nn.BatchNorm2d, nn.SyncBatchNorm)))
        buffers = [buffer for m in norms if m.training for buffer in m.buffers()]
        self.statistics = [buffer for buffer in buffers if buffer.is_floating_point()]
        self.before = torch.cat(self.statistics) if self.statistics else None

    def check_loss(self, loss: Tensor, images: Tensor) -> None:
        """After the backward pass of a batch: where its loss is not finite, keep its images' ids
        and give BatchNorm back what it had before. An update may take several batches."""
        finite = loss.isfinite()
        kept = images.new_full((0,), -1) if self.images is None else self.images
        size = max(len(kept), len(images))
        images, kept = (F.pad(ids, (0, size - len(ids)), value=-1) for ids in (images, kept))
        self.images = torch.where(finite, kept, images)
        if self.before is not None:
            chosen = torch.where(finite, torch.cat(self.statistics), self.before)
            sizes = [buffer.numel() for buffer in self.statistics]
            torch._foreach_copy_(self.statistics, chosen.split(sizes))

    def clip(
        self,
        parameters: list[nn.Parameter],
        optimizer: Any,
        limit: float | None,
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
        inner = getattr(optimizer, "optimizer", optimizer)
        if inner.defaults.get("fused"):
            inner.found_inf = bad
