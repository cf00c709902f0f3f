"""The Evaluator: a Lightning callback that scores and draws what is detected in validation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl

from detector.evaluation.coco import Figures, coco_figures
from detector.evaluation.drawing import contact_sheet, truth_and_detections
from detector.evaluation.results import (
    ImageCandidates,
    Row,
    by_image,
    gather,
    split_candidates,
    to_results,
)

PICTURES = 8


class Evaluator(pl.Callback):
    """Average precision of the validation images, each counted once, logged on every rank as
    val/AP, val/AP50 and so on; a picture of the first eight images beside their truth.

    It reads the "candidates" and "detections" that `Detector.validation_step` returns.

    Args:
        truth: the validation split as the content of a COCO file.
        category_ids, classes: id in `truth` and name of every label.
        full: COCO's twelve figures, VOC's two and the curves; else AP, AP50 and AP75, which take a
            third of the time.
        max_detections: of an image; `full` has figures of more than COCO's 100 besides.
        keep_candidates: keep what suppression starts from, too.

    After a validation rank 0 has `figures`, `results` (all detections as COCO result rows),
    `image_ids` (of the images that were seen) and `candidates` (by image id); they are empty on
    other ranks.
    """

    def __init__(
        self,
        truth: Mapping[str, Any],
        category_ids: Sequence[int],
        classes: Sequence[str],
        *,
        full: bool = False,
        max_detections: int = 100,
        keep_candidates: bool = False,
    ) -> None:
        self.truth, self.category_ids, self.classes = truth, category_ids, classes
        self.full, self.keep_candidates = full, keep_candidates
        self.max_detections = max_detections
        self.figures: Figures | None = None
        self.results: list[Row] = []
        self.image_ids: list[int] = []
        self.candidates: dict[int, ImageCandidates] = {}
        self._rows: dict[int, list[Row]] = {}  # of this rank, by image id
        self._pictures: list[np.ndarray] = []

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._rows, self._pictures, self.candidates = {}, [], {}

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        detections = outputs["detections"]
        rows = to_results(detections, batch["image_ids"], self.category_ids)
        self._rows |= by_image(rows, batch["image_ids"].tolist())
        if self.keep_candidates:
            self.candidates |= split_candidates(outputs["candidates"], batch)
        if trainer.logger and trainer.is_global_zero and len(self._pictures) < PICTURES:
            self._pictures += truth_and_detections(batch, detections, self.classes)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        summary: dict[str, float] = {}
        rows = gather(self._rows)
        self.candidates = gather(self.candidates) or {}
        if rows is not None:
            self.image_ids = list(rows)
            self.results = [row for image in rows.values() for row in image]
            options: dict[str, Any] = {"full": self.full, "max_detections": self.max_detections}
            self.figures = coco_figures(self.truth, self.results, image_ids=rows, **options)
            summary = self.figures.summary
        for name, value in trainer.strategy.broadcast(summary).items():
            pl_module.log(f"val/{name}", value)
        if self._pictures and trainer.logger:
            sheet = contact_sheet(self._pictures[:PICTURES], columns=2)
            trainer.logger.experiment.add_image(  # type: ignore[attr-defined]
                "val/truth_and_detections", sheet, trainer.global_step, dataformats="HWC"
            )
        self._rows, self._pictures = {}, []
