"""When gradient norms are counted during training, and that they are drawn."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from detector.criterion import Criterion
from detector.retinanet import Predictions
from detector.training.gradient_density import BINS, GradientCounts
from detector.training.gradient_pictures import GradientPictures, draw_gradients
from losses import FocalLoss, SmoothL1Loss

K, STEPS_OF_A_RUN = 2, 7
ANCHORS = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 10, 30]])
BATCH = {
    "boxes": torch.tensor([[[1.0, 0, 11, 10]]]),
    "labels": torch.tensor([[1]]),
    "ignore": torch.tensor([[False]]),
    "valid": torch.tensor([[True]]),
}


class Tiny(pl.LightningModule):
    """Predicts its parameters for three anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(1, 3, K))
        self.deltas = torch.nn.Parameter(torch.zeros(1, 3, 4))
        self.criterion = Criterion(FocalLoss(), SmoothL1Loss(), K)

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        losses, _ = self.criterion(Predictions(self.logits, self.deltas, ANCHORS, [3]), batch)
        return losses["class"] + losses["box"]

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        self.training_step(batch, index)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def train_dataloader(self) -> Any:
        return DataLoader([BATCH] * STEPS_OF_A_RUN, batch_size=None)  # type: ignore[arg-type]

    val_dataloader = train_dataloader


def test_it_counts_at_every_logging_interval_of_training_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = GradientPictures(tmp_path)
    seen: list[int] = []

    def save(path: Path, counts: GradientCounts, title: str) -> np.ndarray:
        assert title == "Training with FocalLoss, to epoch 1"
        seen.append(int(counts.examples.sum()))
        return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr("detector.training.gradient_pictures.save_gradients", save)
    options = {"enable_checkpointing": False, "enable_model_summary": False, "logger": False}
    options |= {"enable_progress_bar": False, "accelerator": "cpu", "num_sanity_val_steps": 2}
    trainer = pl.Trainer(
        **options,
        max_epochs=1,
        log_every_n_steps=3,
        callbacks=[pictures],
        default_root_dir=tmp_path,
    )
    trainer.fit(module := Tiny())
    # after 0, 3 and 6 of 7 updates: 3 anchors x 2 classes each; none of the validation's
    assert seen == [3 * 6]
    assert not pictures.counts.examples.any()  # counted anew until the next validation
    assert not module.criterion._forward_hooks


@pytest.mark.parametrize("objects", [0, 3])
def test_a_picture_has_four_panels_even_without_objects(objects: int) -> None:
    pytest.importorskip("matplotlib")
    examples = torch.tensor([[3], [objects]]).expand(2, BINS)
    picture = draw_gradients(examples, torch.full((240,), objects), "title")
    assert picture.shape == (810, 1080, 3)
    assert picture.dtype == np.uint8
    panels = [picture[y : y + 405, x : x + 540] for y in (0, 405) for x in (0, 540)]
    assert all(len(np.unique(panel.reshape(-1, 3), axis=0)) > 20 for panel in panels)


def test_the_file_has_the_colors_of_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detector.training import gradient_pictures

    drawn = np.zeros((4, 4, 3), np.uint8)
    drawn[..., 0] = 200  # red
    monkeypatch.setattr(gradient_pictures, "draw_gradients", lambda *_: drawn)
    counts = GradientCounts()
    assert gradient_pictures.save_gradients(tmp_path / "x.png", counts, "") is drawn
    read = cv2.cvtColor(cv2.imread(str(tmp_path / "x.png")), cv2.COLOR_BGR2RGB)
    assert np.array_equal(read, drawn)
