"""Counts of gradient norms against plain loops, and what losses make of them against formulas."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from detector.boxes import encode
from detector.criterion import Criterion
from detector.retinanet import Predictions
from detector.training.gradient_density import (
    BINS,
    MAX_LOGIT,
    PER_DECADE,
    REGIONS,
    SMALLEST,
    GradientCounts,
    shares,
)
from losses import FocalLoss, SmoothL1Loss, SoftmaxCrossEntropy

K = 3


def scene(columns: int) -> tuple[Predictions, dict[str, Tensor]]:
    """Two images, 60 anchors, an object that some anchors match and an ignored one."""
    generator = torch.Generator().manual_seed(0)
    corner = 60 * torch.rand(60, 2, generator=generator)
    anchors = torch.cat([corner, corner + 20 + 20 * torch.rand(60, 2, generator=generator)], 1)
    predictions = Predictions(
        2 * torch.randn(2, 60, columns, generator=generator),
        0.3 * torch.randn(2, 60, 4, generator=generator),
        anchors,
        [60],
    )
    boxes = torch.stack([anchors[:2], anchors[2:4]]) + 2
    flags = torch.tensor([[False, True], [False, False]])
    labels = torch.tensor([[1, 0], [2, 0]])
    valid = torch.ones(2, 2, dtype=torch.bool)
    return predictions, {"boxes": boxes, "labels": labels, "ignore": flags, "valid": valid}


@pytest.mark.parametrize("loss", [FocalLoss(), SoftmaxCrossEntropy()])
def test_counts_are_those_of_a_loop(loss: Any) -> None:
    loss.setup(K, 8)
    criterion = Criterion(loss, SmoothL1Loss(), K)
    predictions, batch = scene(len(loss.initial_bias(K, 0.01)))
    counts = GradientCounts()
    _, targets = criterion(predictions, batch)
    labels, boxes = targets.labels, targets.boxes
    counts.add(loss, predictions, targets)
    counts.add(loss, predictions, targets)
    scores = loss.scores(predictions.logits)
    targets = encode(boxes, predictions.anchors)
    examples, errors = torch.zeros(2, BINS), torch.zeros(len(counts.errors))
    assert {-1, K} < set(labels.flatten().tolist())
    for image in range(2):
        for anchor in range(60):
            label = int(labels[image, anchor])
            if label < 0:
                continue
            for k in range(K):
                score = float(scores[image, anchor, k])
                g = min(max(1 - score if k == label else score, 1e-7), 1 - 1e-7)
                place = (math.log(g / (1 - g)) + MAX_LOGIT) / (2 * MAX_LOGIT) * BINS
                assert 1e-4 < place % 1 < 1 - 1e-4  # no matter of rounding
                examples[int(k == label), int(place)] += 2
            if label < K:
                for one, other in zip(
                    predictions.deltas[image, anchor], targets[image, anchor], strict=True
                ):
                    exponent = math.log10(abs(float(one - other)))
                    errors[int((exponent - SMALLEST) * PER_DECADE)] += 2
    assert torch.equal(counts.examples, examples.long())
    assert torch.equal(counts.errors, errors.long())
    counts.reset()
    assert not counts.examples.any()


def test_what_lies_beyond_the_scale_is_in_its_last_bins() -> None:
    criterion = Criterion(FocalLoss(), SmoothL1Loss(), K)
    predictions, batch = scene(K)
    predictions = predictions._replace(
        logits=torch.where(predictions.logits > 0, 50.0, -50.0), deltas=1e3 + predictions.deltas
    )
    counts = GradientCounts()
    _, targets = criterion(predictions, batch)
    counts.add(criterion.class_loss, predictions, targets)
    labels = targets.labels
    assert counts.examples.sum() == K * (labels >= 0).sum()
    assert counts.examples[:, [0, -1]].sum() == counts.examples.sum()
    assert counts.errors[-1] == counts.errors.sum() > 0


def test_shares_by_hand() -> None:
    """1,000 background examples with g near 0.01, and 10 objects with g near 0.5."""
    examples = torch.zeros(2, BINS, dtype=torch.int64)
    norms = (-MAX_LOGIT + 2 * MAX_LOGIT * (torch.arange(BINS) + 0.5) / BINS).sigmoid()
    easy, hard = (int((norms - g).abs().argmin()) for g in (0.01, 0.5))
    examples[0, easy], examples[1, hard] = 1000, 10
    errors = torch.zeros(240, dtype=torch.int64)
    small, large = 2 * PER_DECADE, 5 * PER_DECADE  # 1e-3 and 1, and half a bin
    errors[small], errors[large] = 30, 10
    results = shares(examples, errors)
    g, h = float(norms[easy]), float(norms[hard])

    def focal(g: float) -> float:
        return g**2 * (g - 2 * (1 - g) * math.log(1 - g))

    pairs = {
        "CE": (1000 * g, 10 * h),
        "balanced CE": (0.25 * 1000 * g, 0.75 * 10 * h),
        "focal": (0.75 * 1000 * focal(g), 0.25 * 10 * focal(h)),
        "GHM-C": (g, h),  # a bin of each
    }
    for name, (one, other) in pairs.items():
        assert float(results.classes[name][0, easy]) == pytest.approx(one / (one + other), rel=1e-4)
        regions = results.regions[name]
        assert list(regions) == list(REGIONS)
        assert sum(regions.values()) == pytest.approx(1)
        assert regions["easy background"] == pytest.approx(one / (one + other), rel=1e-4)
        assert regions["objects"] == pytest.approx(other / (one + other), rel=1e-4)
    d, far = (10 ** (SMALLEST + (place + 0.5) / PER_DECADE) for place in (small, large))
    assert float(results.boxes["L1"][small]) == pytest.approx(30 / 40)
    steep = 30 * d * 9  # smooth L1 of beta 1 / 9
    assert float(results.boxes["smooth L1"][small]) == pytest.approx(steep / (steep + 10), rel=1e-4)
    outside = d / math.hypot(d, 0.02)
    ghm = outside / (outside + far / math.hypot(far, 0.02))
    assert float(results.boxes["GHM-R"][small]) == pytest.approx(ghm, rel=1e-4)
    assert results.counts == dict(zip(REGIONS, (1000, 0, 10, 0), strict=True))
