"""The Evaluator in a real Trainer, with a module that detects what it is told to."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.utils.data import DataLoader

from detector.evaluation.evaluator import Evaluator
from detector.postprocess import Candidates, Detections

SIDE, IMAGES = 64, 10
CLASSES, CATEGORY_IDS = ["red", "green"], [5, 9]
BBOX = [8.0, 16.0, 24.0, 32.0]  # of the only object of every image, x, y, width, height
TRUTH = {
    "images": [{"id": k} for k in range(IMAGES)],
    "categories": [
        {"id": key, "name": name} for key, name in zip(CATEGORY_IDS, CLASSES, strict=True)
    ],
    "annotations": [
        {"id": k + 1, "image_id": k, "category_id": CATEGORY_IDS[k % 2], "bbox": BBOX}
        for k in range(IMAGES)
    ],
}


def batch(start: int) -> dict[str, Tensor]:
    """Two images with their objects and a row of padding each, twice as large originally."""
    sizes = torch.full((2, 2), SIDE)
    x, y, width, height = BBOX
    box = torch.tensor([[x, y, x + width, y + height], [0, 0, 0, 0]]) / 2
    return {
        "images": torch.full((2, 3, SIDE, SIDE), 90, dtype=torch.uint8),
        "boxes": box.expand(2, 2, 4),
        "labels": torch.tensor([[0, 0], [1, 0]]),
        "ignore": torch.zeros(2, 2, dtype=torch.bool),
        "valid": torch.tensor([[True, False]] * 2),
        "sizes": sizes,
        "original_sizes": 2 * sizes,
        "image_ids": torch.tensor([start, start + 1]),
    }


class Told(pl.LightningModule):
    """Detects every object of images below `right` and nothing in the others."""

    def __init__(self, right: int) -> None:
        super().__init__()
        self.right, self.weight = right, torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        return self.weight.square()

    def validation_step(self, batch: dict[str, Tensor], _: int) -> dict[str, Any]:
        found = batch["valid"] & (batch["image_ids"] < self.right)[:, None]
        scores = torch.where(found, 0.9, 0.0)
        boxes = torch.where(found[..., None], batch["boxes"], 0.0)
        labels = torch.where(found, batch["labels"], -1)
        return {
            "candidates": Candidates(boxes, scores, labels),
            "detections": Detections(2 * boxes, scores, labels),
        }

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def train_dataloader(self) -> Any:
        return DataLoader([batch(k) for k in range(0, IMAGES, 2)], batch_size=None)

    val_dataloader = train_dataloader


def trainer(tmp_path: Path, callbacks: list[pl.Callback], **options: Any) -> pl.Trainer:
    defaults = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    defaults |= {"enable_progress_bar": False, "enable_model_summary": False, "max_epochs": 1}
    return pl.Trainer(**defaults | options, default_root_dir=tmp_path, callbacks=callbacks)


@pytest.mark.parametrize("right", [IMAGES, 6, 0])
def test_a_validation_leaves_figures_detections_and_candidates(right: int, tmp_path: Path) -> None:
    evaluator = Evaluator(TRUTH, CATEGORY_IDS, CLASSES, full=True, keep_candidates=True)
    loop = trainer(tmp_path, [evaluator])
    loop.validate(Told(right), verbose=False)
    assert evaluator.figures is not None
    # the first `right` of 10 objects, without a false detection: the recalls 0, 0.01 .. right / 10
    expected = (1 + 10 * right) / 101 if right else 0
    assert evaluator.figures.summary["AP"] == pytest.approx(expected)
    assert loop.callback_metrics["val/AP"].item() == pytest.approx(expected)
    assert {"val/AP50", "val/ARl"} <= set(loop.callback_metrics)
    assert evaluator.image_ids == list(range(IMAGES))
    rows = [(row["image_id"], row["category_id"]) for row in evaluator.results]
    assert rows == [(k, CATEGORY_IDS[k % 2]) for k in range(right)]
    assert all(row["bbox"] == BBOX for row in evaluator.results)
    assert list(evaluator.candidates) == list(range(IMAGES))
    candidates = evaluator.candidates[0]
    assert len(candidates.scores) == bool(right)  # without the padding
    assert candidates.size.tolist() == [SIDE, SIDE]
    assert candidates.original_size.tolist() == [2 * SIDE, 2 * SIDE]


def test_a_second_validation_starts_anew(tmp_path: Path) -> None:
    evaluator = Evaluator(TRUTH, CATEGORY_IDS, CLASSES)
    loop = trainer(tmp_path, [evaluator])
    for right in (IMAGES, 0):
        loop.validate(Told(right), verbose=False)
    assert evaluator.results == []
    assert evaluator.figures is not None
    assert evaluator.figures.summary == {"AP": 0, "AP50": 0, "AP75": 0}  # not `full`
    assert evaluator.candidates == {}


def test_in_training_the_best_checkpoint_and_a_picture_come_of_it(tmp_path: Path) -> None:
    evaluator = Evaluator(TRUTH, CATEGORY_IDS, CLASSES)
    saver = ModelCheckpoint(tmp_path, filename="best", monitor="val/AP", mode="max")
    logger = TensorBoardLogger(tmp_path, name="", version="")
    options = {"logger": logger, "enable_checkpointing": True, "log_every_n_steps": 1}
    loop = trainer(tmp_path, [evaluator, saver], num_sanity_val_steps=1, **options)
    loop.fit(Told(IMAGES))
    assert saver.best_model_score == pytest.approx(1)
    assert saver.best_model_path.endswith("best.ckpt")
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    events.Reload()
    (picture,) = events.Images("val/truth_and_detections")  # none of the sanity check
    assert picture.step == 5
    assert picture.height > 4 * 300  # eight of ten images, two in a row
    assert picture.height < 5 * 350


def test_the_sanity_check_is_not_scored(tmp_path: Path) -> None:
    evaluator = Evaluator(TRUTH, CATEGORY_IDS, CLASSES)
    loop = trainer(tmp_path, [evaluator], num_sanity_val_steps=1, check_val_every_n_epoch=2)
    loop.fit(Told(IMAGES))
    assert evaluator.figures is None


def test_on_other_ranks_the_figures_are_logged_but_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detector.evaluation.evaluator.gather", lambda rows: None)
    loop = trainer(tmp_path, [evaluator := Evaluator(TRUTH, CATEGORY_IDS, CLASSES)])
    summary = {"AP": 0.25}
    monkeypatch.setattr(loop.strategy, "broadcast", lambda own, src=0: own or summary)
    loop.validate(Told(IMAGES), verbose=False)
    assert loop.callback_metrics["val/AP"].item() == pytest.approx(0.25)
    assert evaluator.figures is None
    assert evaluator.candidates == {}
    assert evaluator.results == []
