"""The TensorBoard logger of a run."""

from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger


class RunLogger(TensorBoardLogger):
    """Puts AP where it is seen first: TensorBoard sorts groups by name, so val/AP is AP/AP there,
    and Lightning's `epoch`, a group of its own before all others, is left out."""

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        kept = {name: value for name, value in metrics.items() if name != "epoch"}
        renamed = {
            f"AP/{name.removeprefix('val/')}" if name.startswith("val/AP") else name: value
            for name, value in kept.items()
        }
        if renamed:
            super().log_metrics(renamed, step)
