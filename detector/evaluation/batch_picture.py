"""What a run is trained on: its first batch as the net sees it, with the anchors that match."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as pl
from torch import Tensor

from detector.anchors import AnchorGenerator
from detector.config.files import write
from detector.evaluation.drawing import COLORS, Marks, add_title, contact_sheet, draw
from detector.matching import match

MOST, SIDE = 12, 320  # images of a picture, pixels of each


class BatchPicture(pl.Callback):
    """Draws the first batch of a run, augmented, with its objects and the anchors that are
    foreground for them: train/batch in TensorBoard, and train_batch.png in the run's folder."""

    def __init__(self, run: Path, classes: Sequence[str]) -> None:
        self.path, self.classes = run / "train_batch.png", classes

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Mapping[str, Tensor], batch_idx: int
    ) -> None:
        if trainer.global_step or batch_idx or not trainer.is_global_zero:
            return
        anchors, criterion = pl_module.net.anchors, pl_module.criterion
        picture = draw_batch(batch, anchors, criterion.matching, self.classes)
        write(self.path, cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
        if trainer.logger:
            trainer.logger.experiment.add_image("train/batch", picture, 0, dataformats="HWC")  # type: ignore[attr-defined]


def draw_batch(
    batch: Mapping[str, Tensor],
    generator: AnchorGenerator,
    matching: Mapping[str, Any],
    classes: Sequence[str],
) -> np.ndarray:
    """Up to 12 images as one picture, RGB (H, W, 3): objects as thick boxes, matched anchors as
    thin ones of the same color. `matching`: options of `match`."""
    extent = batch["images"].shape[-2:]
    cells = [[-(-side // stride) for side in extent] for stride in generator.strides]
    anchors = generator(extent, cells)
    few = {name: value[:MOST] for name, value in batch.items()}
    labels, _, rows = match(anchors, few, len(classes), **matching)
    few = {name: value.cpu() for name, value in few.items()}
    pictures = []
    for k, (height, width) in enumerate(few["sizes"].tolist()):
        foreground = ((labels[k] >= 0) & (labels[k] < len(classes))).cpu()
        boxes = anchors.cpu()[foreground].numpy()
        valid = few["valid"][k]
        marks = Marks(*(few[name][k][valid].numpy() for name in ("boxes", "labels")))
        marks = marks._replace(ignore=few["ignore"][k][valid].numpy())
        image = few["images"][k, :, :height, :width].permute(1, 2, 0).numpy()
        picture = _draw_image(image, marks, boxes, labels[k].cpu()[foreground].numpy(), classes)
        matched = len(set(rows[k].cpu()[foreground].tolist()))
        wanted = int((~marks.ignore).sum())  # type: ignore[operator]
        text = f"{matched} of {wanted} objects have {len(boxes)} anchors"
        pictures.append(add_title(picture, text))
    return contact_sheet(pictures, columns=4)


def _draw_image(
    image: np.ndarray,
    marks: Marks,
    anchors: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
) -> np.ndarray:
    factor = SIDE / max(image.shape[:2])
    canvas = draw(image, marks, classes, SIDE)
    limit = np.tile(canvas.shape[1::-1], 2) - 1
    for box, label in zip(anchors, labels.tolist(), strict=True):
        left, top, right, bottom = (box * factor).clip(0, limit).round().astype(int).tolist()
        cv2.rectangle(canvas, (left, top), (right, bottom), COLORS[label % len(COLORS)], 1)
    return canvas
