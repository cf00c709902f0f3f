from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from detector import matching
from detector.matching import FORCED, NEVER, THRESHOLDS, match
from losses.overlaps import ciou, diou, giou, iou

K = 3


def batch_of(
    boxes: list[list[float]], labels: list[int], ignore: list[bool] | None = None
) -> dict[str, Tensor]:
    """One image whose objects are followed by two rows of padding."""
    rows = len(boxes) + 2
    batch = {
        "boxes": torch.zeros(1, rows, 4),
        "labels": torch.zeros(1, rows, dtype=torch.int64),
        "ignore": torch.zeros(1, rows, dtype=torch.bool),
        "valid": torch.zeros(1, rows, dtype=torch.bool),
    }
    for k, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        batch["boxes"][0, k] = torch.tensor(box)
        batch["labels"][0, k] = label
        batch["valid"][0, k] = True
        batch["ignore"][0, k] = bool(ignore and ignore[k])
    return batch


# next to the object (0, 0, 10, 10) these have IoU 1, 0.5, 0.45, 0.3 and 0
ANCHORS = torch.tensor(
    [[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4.5], [0, 0, 10, 3], [50, 50, 60, 60]],
    dtype=torch.float32,
)
OBJECT = [0.0, 0.0, 10.0, 10.0]


def test_thresholds_make_foreground_ignored_and_background() -> None:
    labels, boxes, _ = match(ANCHORS, batch_of([OBJECT], [2]), K)
    assert labels.tolist() == [[2, 2, -1, K, K]]
    assert boxes[0, :2].tolist() == [OBJECT, OBJECT]
    assert torch.equal(boxes[0, 2:], ANCHORS[2:])  # the anchor itself: harmless to encode


def test_force_takes_the_best_anchors_with_ties() -> None:
    small = [0.0, 0.0, 10.0, 2.0]  # IoU 0.2, 0.4, 2 / 4.5, 2 / 3, 0
    twins = torch.cat([ANCHORS[:1], ANCHORS[:1], ANCHORS[4:]])
    labels, *_ = match(twins, batch_of([small], [1]), K)
    assert labels.tolist() == [[1, 1, K]]
    assert match(twins, batch_of([small], [1]), K, force="none")[0].tolist() == [[K, K, K]]


def test_an_object_beside_a_better_placed_one_keeps_its_best_anchor() -> None:
    anchors = torch.tensor([[10.0, 0.0, 20.0, 10.0], [8.0, 0.0, 20.0, 10.0]])
    batch = batch_of([[8.0, 0.0, 20.0, 10.0], [10.0, 0.0, 14.0, 10.0]], [0, 1])
    labels, boxes, _ = match(anchors, batch, K)  # IoU 0.83, 1 with the first, 0.4, 0.33 the second
    assert labels.tolist() == [[1, 0]]
    assert torch.equal(boxes[0], batch["boxes"][0, [1, 0]])
    assert match(anchors, batch, K, force="torchvision")[0].tolist() == [[0, 0]]


def test_one_anchor_cannot_serve_two_objects() -> None:
    small = [0.0, 0.0, 4.0, 4.0]
    labels, *_ = match(ANCHORS[:1], batch_of([small, OBJECT, small], [0, 1, 2]), K)
    assert labels.tolist() == [[1]]


@pytest.mark.parametrize("force", ["object", "torchvision"])
def test_an_object_that_touches_no_anchor_forces_none(force: Any) -> None:
    batch = batch_of([[100.0, 100.0, 110.0, 110.0]], [0])
    assert match(ANCHORS, batch, K, force=force)[0].tolist() == [[K] * 5]


def test_zero_area_objects_match_nothing() -> None:
    labels, boxes, _ = match(ANCHORS, batch_of([[5.0, 5.0, 5.0, 5.0]], [0]), K)
    assert labels.tolist() == [[K] * 5]
    assert torch.equal(boxes[0], ANCHORS)


def test_padding_rows_do_nothing_even_with_boxes_in_them() -> None:
    batch = batch_of([OBJECT], [2])
    batch["boxes"][0, 1] = torch.tensor([50.0, 50.0, 60.0, 60.0])
    assert match(ANCHORS, batch, K)[0].tolist() == [[2, 2, -1, K, K]]


def test_background_mostly_inside_an_ignore_region_is_ignored_but_foreground_never() -> None:
    region = [[-5.0, -5.0, 70.0, 70.0]]
    labels, *_ = match(ANCHORS, batch_of([OBJECT, *region], [2, 0], [False, True]), K)
    assert labels.tolist() == [[2, 2, -1, -1, -1]]
    half = [[50.0, 50.0, 55.0, 60.0]]  # covers exactly half of the last anchor: not more than half
    labels, *_ = match(ANCHORS, batch_of([OBJECT, *half], [2, 0], [False, True]), K)
    assert labels.tolist() == [[2, 2, -1, K, K]]


def test_an_ignore_region_wins_and_forces_no_anchor() -> None:
    labels, *_ = match(ANCHORS, batch_of([[50.0, 50.0, 60.0, 60.0]], [1], [True]), K)
    assert labels.tolist() == [[K, K, K, K, -1]]


def test_no_objects_at_all() -> None:
    labels, boxes, _ = match(ANCHORS, batch_of([], []), K)
    assert labels.tolist() == [[K] * 5]
    assert torch.equal(boxes[0], ANCHORS)


def test_against_torchvision_on_random_boxes() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        corner = torch.rand(200, 2, generator=generator) * 60
        anchors = torch.cat([corner, corner + 4 + 40 * torch.rand(200, 2, generator=generator)], 1)
        corner = torch.rand(9, 2, generator=generator) * 60
        objects = torch.cat([corner, corner + 4 + 40 * torch.rand(9, 2, generator=generator)], 1)
        names = torch.randint(0, K, (9,), generator=generator)
        index = Matcher(0.5, 0.4, allow_low_quality_matches=True)(box_iou(objects, anchors))
        expected = torch.where(
            index >= 0, names[index.clamp(min=0)], torch.where(index == -1, K, -1)
        )
        labels, boxes, _ = match(
            anchors, batch_of(objects.tolist(), names.tolist()), K, force="torchvision"
        )
        assert torch.equal(labels[0], expected)
        own = torch.where((index >= 0)[:, None], objects[index.clamp(min=0)], anchors)
        torch.testing.assert_close(boxes[0], own)


def random_scene(seed: int, count: int = 9) -> tuple[torch.Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(200, 2, generator=generator) * 60
    anchors = torch.cat([corner, corner + 4 + 40 * torch.rand(200, 2, generator=generator)], 1)
    corner = torch.rand(count, 2, generator=generator) * 60
    objects = torch.cat([corner, corner + 4 + 40 * torch.rand(count, 2, generator=generator)], 1)
    names = torch.randint(0, K, (count,), generator=generator).tolist()
    return anchors, batch_of(objects.tolist(), names, [k % 4 == 3 for k in range(count)])


@pytest.mark.parametrize("metric", ["iou", "giou", "diou", "ciou"])
def test_every_metric_against_a_slow_loop(metric: Any) -> None:
    overlap = {"iou": iou, "giou": giou, "diou": diou, "ciou": ciou}[metric]
    high, low = THRESHOLDS[metric]
    for seed in range(5):
        anchors, batch = random_scene(seed)
        boxes, names = batch["boxes"][0], batch["labels"][0].tolist()
        chosen = [k for k in range(9) if k % 4 != 3]
        table = [[overlap(boxes[k], anchor).item() for anchor in anchors] for k in chosen]
        expected = []
        favorite = [row.index(max(row)) for row in table]  # no ties in random boxes
        for r in range(len(anchors)):
            column = [row[r] for row in table]
            forcing = [k for k, anchor in enumerate(favorite) if anchor == r]
            best = max(forcing or range(len(table)), key=lambda k: column[k])
            inside = max(
                shared_area(boxes[k].tolist(), anchors[r].tolist()) for k in range(9) if k % 4 == 3
            )
            if forcing or column[best] >= high:
                expected.append(names[chosen[best]])
            elif column[best] >= low or inside > 0.5:
                expected.append(-1)
            else:
                expected.append(K)
        assert match(anchors, batch, K, metric)[0][0].tolist() == expected
        assert expected.count(-1) > 3
        assert len(set(expected)) >= 4


def shared_area(region: list[float], anchor: list[float]) -> float:
    """Share of the anchor."""
    width = min(region[2], anchor[2]) - max(region[0], anchor[0])
    height = min(region[3], anchor[3]) - max(region[1], anchor[1])
    size = (anchor[2] - anchor[0]) * (anchor[3] - anchor[1])
    return max(0.0, width) * max(0.0, height) / size


@pytest.mark.parametrize("metric", ["giou", "diou", "ciou"])
def test_with_other_metrics_one_anchor_is_forced_even_if_none_touches(metric: Any) -> None:
    far = [100.0, 100.0, 110.0, 110.0]
    labels, boxes, _ = match(ANCHORS, batch_of([far], [1]), K, metric)
    assert labels.tolist() == [[K, K, K, K, 1]]  # the nearest, not every anchor
    assert boxes[0, 4].tolist() == far
    point = batch_of([[5.0, 5.0, 5.0, 5.0]], [1])
    assert match(ANCHORS, point, K, metric)[0].tolist() == [[K] * 5]
    assert match(ANCHORS, batch_of([], []), K, metric)[0].tolist() == [[K] * 5]


@pytest.mark.parametrize("force", ["object", "torchvision", "none"])
def test_looking_at_few_objects_at_a_time_changes_nothing(
    force: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, metric in enumerate(THRESHOLDS):
        anchors, batch = random_scene(seed, 30)
        whole = match(anchors, batch, K, metric, force=force)  # type: ignore[arg-type]
        monkeypatch.setattr(matching, "PAIRS", 3 * len(anchors))
        parts = match(anchors, batch, K, metric, force=force)  # type: ignore[arg-type]
        monkeypatch.undo()
        assert torch.equal(whole[0], parts[0])
        assert torch.equal(whole[1], parts[1])


def test_memory_does_not_grow_with_the_number_of_objects() -> None:
    corner = torch.rand(20_000, 2) * 600
    anchors = torch.cat([corner, corner + 30], dim=1)
    corner = torch.rand(1, 512, 2) * 600
    batch = {
        "boxes": torch.cat([corner, corner + 25], dim=2).expand(4, -1, -1),
        "labels": torch.zeros(4, 512, dtype=torch.int64),
        "ignore": torch.zeros(4, 512, dtype=torch.bool),
        "valid": torch.ones(4, 512, dtype=torch.bool),
    }
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        match(anchors, batch, K)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert 2**20 < largest <= 2**26  # all pairs at once are above 2^27 bytes


def test_forced_overlaps_beat_all_others() -> None:
    assert NEVER < -1.5  # the lowest CIoU
    assert FORCED - 1.5 > 1
