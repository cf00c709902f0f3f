"""Early stopping: a run ends where its validation AP has not risen for long."""

import math
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping


class StopEarly(EarlyStopping):
    """Ends the run after `patience` validations in a row without a higher val/AP, and says so. One
    without an object, of which AP is nan, does not count.

    After a resume the patience is the one given now, not the one that the checkpoint remembers.
    """

    def __init__(self, patience: int) -> None:
        super().__init__("val/AP", mode="max", patience=patience, check_on_train_epoch_end=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if math.isnan(trainer.callback_metrics["val/AP"]):
            return
        super().on_validation_end(trainer, pl_module)
        if self.wait_count >= self.patience and trainer.is_global_zero:
            print(
                f"stopping: in {self.wait_count} validations AP was not above "
                f"{float(self.best_score):.3f} (early_stopping.patience)"
            )
