"""The share of pairs above the threshold, and the time of suppression."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from detector.evaluation.scores import ScoreMeter, format_scores
from detector.postprocess import Candidates
from detector.retinanet import Predictions
from tests.test_evaluator import IMAGES, Told, trainer


class Scored(Told):
    """Image k of 10 has the score 0.05 in its 20 pairs, but 0.06 in k of them; suppression of a
    batch of two takes 10 ms, and did so already once."""

    def __init__(self) -> None:
        super().__init__(0)
        self.calls = 0
        self.postprocess = SimpleNamespace(
            scores=torch.sigmoid, score_threshold=0.05, suppression=self.suppress
        )

    def suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> None:
        assert len(boxes) == len(scores) == len(labels) == 2
        self.calls += 1
        time.sleep(0.01)

    def validation_step(self, batch: dict[str, Tensor], index: int) -> dict[str, Any]:
        above = torch.arange(20) < batch["image_ids"][:, None]
        logits = torch.where(above, 0.06, 0.05).logit().view(2, 5, 4)
        predictions = Predictions(logits, torch.zeros(2, 5, 4), torch.zeros(5, 4), [5])
        candidates = Candidates(*(torch.zeros(2, 3, *size) for size in ((4,), (), ())))
        outputs = super().validation_step(batch, index)
        return outputs | {"predictions": predictions, "candidates": candidates}


def test_figures_are_means_over_the_images(tmp_path: Any) -> None:
    meter, module = ScoreMeter(), Scored()
    trainer(tmp_path, [meter]).validate(module, verbose=False)
    assert module.calls == IMAGES / 2
    assert meter.figures["pairs_above"] == pytest.approx(sum(range(IMAGES)) / IMAGES / 20)
    assert 5 <= meter.figures["suppression_ms"] < 500
    line = format_scores(meter.figures, 0.05)
    assert line.startswith("scores: 22.50% of the (anchor, class) pairs above 0.05; suppression")


def test_the_sanity_check_is_not_measured() -> None:
    meter = ScoreMeter()
    meter._images = {1: (0.5, 1.0)}
    meter.on_validation_epoch_end(SimpleNamespace(sanity_checking=True), pl.LightningModule())  # type: ignore[arg-type]
    assert meter.figures == {}
