"""Suppression against plain greedy loops, and torchvision's."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from detector import diou_nms as module
from detector.nms import Kept, Suppression

MOST = 400
Case = tuple[Tensor, Tensor, Tensor]  # boxes (D, 4), scores (D,), labels (D,) of one image


def nms(boxes: Tensor, scores: Tensor, labels: Tensor, **options: Any) -> Kept:
    return Suppression(**{"score_threshold": 0.0, **options})(boxes, scores, labels)


def on_a_gpu(*arguments: Any) -> Kept:
    """What a GPU would compute; of a beta of None hard NMS."""
    return Kept(*module.suppress_batch(*arguments))


def similarity(boxes: np.ndarray, beta: float | None) -> np.ndarray:
    """IoU, or with beta DIoU, of all pairs in float32; 0 / 0 counts as 0."""
    tiny = np.float32(1e-7)
    x1, y1, x2, y2 = (boxes[:, k] for k in range(4))
    low_x, low_y = np.maximum(x1[:, None], x1), np.maximum(y1[:, None], y1)
    high_x, high_y = np.minimum(x2[:, None], x2), np.minimum(y2[:, None], y2)
    shared = (high_x - low_x).clip(0) * (high_y - low_y).clip(0)
    area = (x2 - x1) * (y2 - y1)
    iou = shared / np.maximum(area[:, None] + area - shared, tiny)
    if beta is None:
        return iou
    hull_x = np.maximum(x2[:, None], x2) - np.minimum(x1[:, None], x1)
    hull_y = np.maximum(y2[:, None], y2) - np.minimum(y1[:, None], y1)
    x, y = (x1 + x2)[:, None] - x1 - x2, (y1 + y2)[:, None] - y1 - y2
    distance = (x * x + y * y) / 4 / np.maximum(hull_x * hull_x + hull_y * hull_y, tiny)
    return iou - (distance if beta == 1 else distance ** np.float32(beta))


def greedy(case: Case, threshold: float, beta: float | None) -> list[int]:
    boxes, scores, labels = (part.numpy() for part in case)
    similar = similarity(boxes, beta) > np.float32(threshold)
    similar &= labels[:, None] == labels
    order = sorted(range(len(boxes)), key=lambda k: (-scores[k], k))
    kept: list[int] = []
    for k in order:
        if not any(similar[other, k] for other in kept):
            kept.append(k)
    return kept


def greedy_soft(
    case: Case, threshold: float, sigma: float | None, least: float
) -> tuple[list[int], list[float]]:
    boxes, scores, labels = (part.numpy() for part in case)
    overlap, left = similarity(boxes, None).astype(float), scores.astype(float)
    kept: list[tuple[int, float]] = []
    while len(left) and left.max() > 0:
        k = int(left.argmax())
        kept.append((k, left[k]))
        for other in np.flatnonzero(labels == labels[k]):
            value = overlap[k, other]
            if sigma is not None:
                left[other] *= np.exp(-(value**2) / sigma)
            elif value > threshold:
                left[other] *= 1 - value
        left[k] = 0
        left[left <= least] = 0
    return [k for k, _ in kept], [score for _, score in kept]


def found(case: Case, **options: Any) -> list[int]:
    index, scores = nms(*(part[None] for part in case), max_detections=MOST, **options)
    assert index.shape == scores.shape == (1, MOST)
    kept = index[0][scores[0] > 0]
    assert torch.equal(scores[0, : len(kept)], case[1][kept]) or options["kind"] == "soft"
    return kept.tolist()


def cases(count: int, seed: int) -> Iterator[Case]:
    """Piles, chains, grids with ties, duplicates, points and lines, equal scores, nothing."""
    random = np.random.default_rng(seed)
    for number in range(count):
        size = int(random.integers(0, 40))
        center, side = random.uniform(0, 60, (size, 2)), random.uniform(0, 30, (size, 2))
        if number % 5 == 0:  # piles
            pile = random.integers(0, 3, size)
            center = 20.0 * pile[:, None] + random.normal(0, 2, (size, 2))
            side = 10 * np.exp(random.normal(0, 0.2, (size, 2)))
        elif number % 5 == 1:  # a chain: each overlaps the next
            center = np.stack([3.0 * np.arange(size), np.zeros(size)], 1)
            side = np.full((size, 2), 10.0)
        elif number % 5 == 2:  # whole pixels: many equal overlaps
            center, side = center.round(), 2 * (side / 4).round()
        if number % 3 == 0 and size:  # duplicates
            again = random.integers(0, size, size)
            center, side = center[again], side[again]
        if number % 7 == 0:  # points and lines
            side *= random.random((size, 2)) < 0.7
        scores = random.uniform(0.01, 1, size)
        if number % 4 == 0:  # equal scores
            scores = scores.round(1) + 0.05
        labels = random.integers(0, 3 if number % 2 else 1, size)
        boxes = np.concatenate([center - side / 2, center + side / 2], 1).astype(np.float32)
        yield (
            torch.from_numpy(boxes).reshape(-1, 4),
            torch.from_numpy(scores.astype(np.float32)),
            torch.from_numpy(labels),
        )


def compare(count: int, seed: int) -> None:
    """Both forms of DIoU-NMS, and the hard one, against the loop."""
    random = np.random.default_rng([seed, 1])
    for number, case in enumerate(cases(count, seed)):
        beta = float(random.choice([0.6, 0.9, 1.0, 2.0]))
        threshold = float(random.choice(np.linspace(0, 0.95, 20)))
        options = {"iou_threshold": threshold}
        expected = greedy(case, threshold, beta)
        assert found(case, kind="diou", beta=beta, **options) == expected
        batch = (part[None] for part in case)
        index, scores = on_a_gpu(*batch, threshold, beta, MOST)
        assert index[0][scores[0] > 0].tolist() == expected
        # torchvision's on a CPU compares in float64, so IoUs equal to the threshold differ in it
        kept = found(case, kind="hard", **options)
        assert sorted(kept) == sorted(batched_nms(*case, threshold).tolist())
        assert kept == sorted(kept, key=lambda k: (-case[1][k], k))
        if number % 4 == 0:
            index, scores = on_a_gpu(*(part[None] for part in case), threshold, None, MOST)
            assert index[0][scores[0] > 0].tolist() == greedy(case, threshold, None)


def test_diou_is_the_greedy_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    compare(600, seed=0)
    monkeypatch.setattr(module, "SPARSE", -1)  # pairs are found block by block
    monkeypatch.setattr(module, "BLOCK", 7)
    compare(400, seed=1)


@pytest.mark.slow
def test_diou_is_the_greedy_loop_in_ten_thousand_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    compare(5000, seed=2)
    monkeypatch.setattr(module, "SPARSE", -1)
    monkeypatch.setattr(module, "BLOCK", 7)
    compare(5000, seed=3)


def test_a_chain_of_300_keeps_every_other_box() -> None:
    left = 4.0 * torch.arange(300)
    boxes = torch.stack([left, torch.zeros(300), left + 10, torch.full((300,), 10.0)], 1)
    case = boxes, torch.linspace(1, 0.1, 300), torch.zeros(300, dtype=torch.int64)
    # neighbors overlap by 6 / 14, others by at most 2 / 18
    for kind in ("hard", "diou"):
        assert found(case, kind=kind, iou_threshold=0.3) == list(range(0, 300, 2))
    index, scores = on_a_gpu(*(part[None] for part in case), 0.3, 1.0, MOST)
    assert index[0][scores[0] > 0].tolist() == list(range(0, 300, 2))


def test_diou_by_hand() -> None:
    """Two boxes 10 x 10, shifted by 2: IoU 8 / 12, centers 2 apart, hull 12 x 10."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10]])
    case = boxes, torch.tensor([0.5, 0.9]), torch.zeros(2, dtype=torch.int64)
    value = 8 / 12 - 4 / 244
    assert found(case, kind="diou", iou_threshold=value - 1e-4) == [1]
    assert found(case, kind="diou", iou_threshold=value + 1e-4) == [1, 0]
    assert found(case, kind="hard", iou_threshold=value + 1e-4) == [1]
    halved = 8 / 12 - (4 / 244) ** 0.5
    assert found(case, kind="diou", beta=0.5, iou_threshold=halved + 1e-4) == [1, 0]


def test_the_threshold_itself_does_not_suppress() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])  # IoU 0.5 exactly
    case = boxes, torch.tensor([0.9, 0.5]), torch.zeros(2, dtype=torch.int64)
    assert found(case, kind="hard", iou_threshold=0.5) == [0, 1]
    nested = torch.tensor([[0.0, 0, 10, 10], [2.5, 0, 7.5, 10]])  # the same centers: DIoU 0.5
    for kind in ("hard", "diou"):
        assert found((nested, *case[1:]), kind=kind, iou_threshold=0.5) == [0, 1]


@pytest.mark.parametrize("sigma", [None, 0.5])
def test_soft_is_the_greedy_loop(sigma: float | None) -> None:
    for number, case in enumerate(cases(300, seed=4)):
        threshold, least = 0.013 + 0.1 * (number % 9), 0.0531 * (number % 3)
        options = {"iou_threshold": threshold, "sigma": sigma, "score_threshold": least}
        batch = [part[None] for part in case]
        index, scores = nms(*batch, kind="soft", max_detections=MOST, **options)
        expected, values = greedy_soft(case, threshold, sigma, least)
        # rounding may swap two that fade to the same, or drop one at the very threshold
        np.testing.assert_allclose(scores[0, : len(values)], values, atol=1e-5)
        clear = len(set(np.round(values, 4))) == len(values)
        assert not clear or index[0, : len(values)].tolist() == expected


def test_soft_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10], [50, 50, 60, 60]])
    case = boxes[None], torch.tensor([[0.5, 0.9, 0.4]]), torch.zeros(1, 3, dtype=torch.int64)
    index, scores = nms(*case, kind="soft", max_detections=3)
    assert index.tolist() == [[1, 2, 0]]
    torch.testing.assert_close(scores, torch.tensor([[0.9, 0.4, 0.5 * (1 - 8 / 12)]]))
    _, scores = nms(*case, kind="soft", sigma=0.5, max_detections=3)
    fade = np.exp(-((8 / 12) ** 2) / 0.5)
    torch.testing.assert_close(scores, torch.tensor([[0.9, 0.4, 0.5 * fade]]), check_dtype=False)
    _, scores = nms(*case, kind="soft", score_threshold=0.3, max_detections=3)
    assert (scores > 0).sum() == 2


KINDS: list[dict[str, Any]] = [
    {"kind": "hard"},
    {"kind": "diou"},
    {"kind": "soft"},
    {"kind": "soft", "sigma": 0.5},
]


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_an_early_end_is_the_beginning_of_the_whole(options: dict[str, Any]) -> None:
    for case in cases(30, seed=5):
        batch = [part[None] for part in case]
        whole = nms(*batch, max_detections=MOST, **options)
        few = nms(*batch, max_detections=5, **options)
        assert torch.equal(few.places, whole.places[:, :5])
        assert torch.equal(few.scores, whole.scores[:, :5])
        if options["kind"] == "diou":
            for part, expected in zip(on_a_gpu(*batch, 0.5, 1.0, 5), few, strict=True):
                assert torch.equal(part, expected)


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_images_of_a_batch_and_rows_without_a_box_change_nothing(options: dict[str, Any]) -> None:
    images = [case for case in cases(12, seed=6)]
    most = max(len(case[0]) for case in images) + 3
    batch = (
        torch.zeros(len(images), most, 4),
        torch.zeros(len(images), most),
        torch.zeros(len(images), most, dtype=torch.int64),
    )
    for row, case in enumerate(images):
        for part, values in zip(batch, case, strict=True):
            part[row, : len(values)] = values
    joint = [nms(*batch, max_detections=MOST, **options)]
    if options["kind"] == "diou":
        joint.append(on_a_gpu(*batch, 0.5, 1.0, MOST))
    for row, case in enumerate(images):
        alone = nms(*(part[None] for part in case), max_detections=MOST, **options)
        for together in joint:
            torch.testing.assert_close(together.places[row], alone.places[0])
            torch.testing.assert_close(together.scores[row], alone.scores[0])


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_classes_count_unless_told_otherwise(options: dict[str, Any]) -> None:
    for boxes, scores, _ in cases(20, seed=7):
        labels = torch.arange(len(boxes)) % 2
        whole = (boxes[None], scores[None], torch.zeros(1, len(boxes), dtype=torch.int64))
        expected = nms(*whole, max_detections=MOST, **options)
        agnostic = nms(
            *whole[:2], labels[None], class_agnostic=True, max_detections=MOST, **options
        )
        assert torch.equal(agnostic.places, expected.places)


def test_half_precision_is_judged_in_float32() -> None:
    for case in cases(20, seed=8):
        half = case[0].half(), case[1].half(), case[2]
        full = half[0].float(), half[1].float(), half[2]
        assert found(half, kind="diou") == found(full, kind="diou")


def test_an_unknown_kind_is_named() -> None:
    empty = torch.zeros(1, 0, 4), torch.zeros(1, 0), torch.zeros(1, 0, dtype=torch.int64)
    with pytest.raises(ValueError, match="there are: hard, diou, soft"):
        nms(*empty, kind="none")
    for options in KINDS:
        assert not nms(*empty, **options).scores.any()
