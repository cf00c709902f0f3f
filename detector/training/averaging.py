"""Averaged weights: what is validated and kept in place of those of the last step."""

import itertools

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class RampedAverage(AveragedModel):
    """The average of a module's weights and statistics, which never makes the host wait.

    torch's own asks the device for the number of updates, and sends it back, at every update: a GPU
    then idles while the next step is prepared. Here that number stays on the CPU.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__(module, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Moves the average towards the module of now, in place; the first time to it."""
        updates = int(self.n_averaged)
        keep = min(self.decay, (1 + updates) / (10 + updates)) if updates else 0.0
        old: list[Tensor] = [*self.module.parameters(), *self.module.buffers()]
        new: list[Tensor] = [*model.parameters(), *model.buffers()]
        floats = [tensor.is_floating_point() for tensor in old]
        counts = [not is_float for is_float in floats]
        moved, target = (list(itertools.compress(part, floats)) for part in (old, new))
        torch._foreach_lerp_(moved, target, 1 - keep)
        copied, source = (list(itertools.compress(part, counts)) for part in (old, new))
        if copied:
            torch._foreach_copy_(copied, source)
        self.n_averaged += 1


class RampedEMA(WeightAveraging):
    """Exponential moving average of weights and statistics, used for validation and kept as the
    checkpoint's `state_dict`.

    After n updates the decay is min(decay, (1 + n) / (10 + n)): with a constant decay a short run
    would validate little but its initial weights. Integers (counts) are copied.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._average_model = RampedAverage(pl_module, self.decay)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The average was made on the CPU: only now are weights where they are trained."""
        super().on_fit_start(trainer, pl_module)
        if self._average_model is not None:
            self._average_model.module.to(pl_module.device)
