"""The ScoreMeter: a Lightning callback that says what a loss does to scores, and its cost."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from detector.evaluation.results import gather


class ScoreMeter(pl.Callback):
    """How many scores are high enough to be candidates, and the time that suppressing them takes.

    It reads the "predictions" and "candidates" that `Detector.validation_step` returns. Suppression
    is timed by itself, on a batch that it has already seen once, so that nothing is compiled or
    allocated meanwhile.

    After a validation rank 0 has `figures`, means over the images: pairs_above, the share of
    (anchor, class) pairs whose score exceeds the score threshold; suppression_ms, milliseconds an
    image. They are empty on other ranks.
    """

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self._images: dict[int, tuple[float, float]] = {}

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.figures, self._images = {}, {}

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        postprocess, ids = pl_module.postprocess, batch["image_ids"].tolist()
        scores = postprocess.scores(outputs["predictions"].logits.float())
        shares = (scores > postprocess.score_threshold).flatten(1).float().mean(1).tolist()
        started = _now(scores.device)
        postprocess.suppression(*outputs["candidates"][:3])
        milliseconds = 1000 * (_now(scores.device) - started) / len(ids)
        self._images |= {key: (share, milliseconds) for key, share in zip(ids, shares, strict=True)}

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        images = gather(self._images)
        if images and not trainer.sanity_checking:
            means = np.mean(list(images.values()), axis=0).tolist()
            self.figures = dict(zip(("pairs_above", "suppression_ms"), means, strict=True))


def _now(device: torch.device) -> float:
    """Seconds, when the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def format_scores(figures: Mapping[str, float], threshold: float) -> str:
    """`ScoreMeter.figures` in a line."""
    return (
        f"scores: {figures['pairs_above']:.2%} of the (anchor, class) pairs above {threshold:g}; "
        f"suppression takes {figures['suppression_ms']:.2f} ms an image"
    )
