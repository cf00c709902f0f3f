"""Best thresholds and confusions, against loops that know nothing of COCO's tools."""

import math
from typing import Any

import numpy as np
import pytest

from detector.evaluation.operating_points import format_operating_points
from detector.evaluation.tide import explain
from tests.test_coco_figures import box, random_set, truth_of

GOOD, NEAR, FAR = [0.0, 0, 10, 10], [1.0, 0, 10, 10], [100.0, 100, 10, 10]


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared) if shared else 0.0


def count(
    truth: Any, results: Any, threshold: float
) -> tuple[int, int, dict[tuple[Any, Any], int]]:
    """Correct detections, objects, and (class of object, class of detection) -> number, None for
    background: image by image, class by class, detection by detection."""
    confusion: dict[tuple[Any, Any], int] = {}
    right = 0
    for image in truth["images"]:
        objects = [o for o in truth["annotations"] if o["image_id"] == image["id"]]
        found = [r for r in results if r["image_id"] == image["id"] and r["score"] >= threshold]
        found.sort(key=lambda row: -row["score"])
        free, wrong = [o for o in objects if not o.get("iscrowd")], []
        for row in found:
            same = [o for o in free if o["category_id"] == row["category_id"]]
            near = [o for o in same if iou(o["bbox"], row["bbox"]) >= 0.5]
            if near:
                best = max(near, key=lambda o: iou(o["bbox"], row["bbox"]))
                free = [o for o in free if o is not best]
                right += 1
                key = (row["category_id"], row["category_id"])
                confusion[key] = confusion.get(key, 0) + 1
                continue
            crowds = [o for o in objects if o.get("iscrowd")]
            crowds = [o for o in crowds if o["category_id"] == row["category_id"]]
            if not any(share(row["bbox"], o["bbox"]) >= 0.5 for o in crowds):
                wrong.append(row)
        every = [(i, j) for i in range(len(free)) for j in range(len(wrong))]
        pairs = [(iou(free[i]["bbox"], wrong[j]["bbox"]), i, j) for i, j in every]
        pairs = sorted((p for p in pairs if p[0] >= 0.5), key=lambda p: -p[0])
        used_objects: set[int] = set()
        used_rows: set[int] = set()
        for _, i, j in pairs:
            if i not in used_objects and j not in used_rows:
                used_objects.add(i)
                used_rows.add(j)
                key = (free[i]["category_id"], wrong[j]["category_id"])
                confusion[key] = confusion.get(key, 0) + 1
        for i, o in enumerate(free):
            if i not in used_objects:
                confusion[o["category_id"], None] = confusion.get((o["category_id"], None), 0) + 1
        for j, r in enumerate(wrong):
            if j not in used_rows:
                confusion[None, r["category_id"]] = confusion.get((None, r["category_id"]), 0) + 1
    total = sum(not o.get("iscrowd") for o in truth["annotations"])
    return right, total, confusion


def share(a: list[float], crowd: list[float]) -> float:
    width = min(a[0] + a[2], crowd[0] + crowd[2]) - max(a[0], crowd[0])
    height = min(a[1] + a[3], crowd[1] + crowd[3]) - max(a[1], crowd[1])
    return max(0.0, width) * max(0.0, height) / (a[2] * a[3])


@pytest.mark.parametrize("seed", range(4))
def test_the_best_threshold_and_its_confusions_are_those_of_plain_loops(seed: int) -> None:
    truth, results = random_set(seed)
    points = explain(truth, results).points
    totals = {}
    for threshold in sorted({row["score"] for row in results}):
        right, objects, confusion = count(truth, results, threshold)
        detected = sum(n for (_, said), n in confusion.items() if said is not None)
        totals[threshold] = 2 * right / (detected + objects)
    assert points.best.f1 == pytest.approx(max(totals.values()))
    right, objects, confusion = count(truth, results, points.best.threshold)
    assert points.best.recall == pytest.approx(right / objects)
    assert points.confusion is not None
    order = [category["id"] for category in truth["categories"]]
    places = {**{key: k for k, key in enumerate(sorted(order))}, None: len(order)}
    expected = np.zeros((len(order) + 1, len(order) + 1), int)
    for (true, said), number in confusion.items():
        expected[places[true], places[said]] = number
    assert points.confusion.counts == expected.tolist()


def test_points_by_hand() -> None:
    """Two objects of class 1, one of class 2, which is taken for class 1."""
    truth = truth_of(
        [box(0, GOOD), box(1, GOOD), box(2, GOOD, category_id=2)],
        images=range(3),
        categories=(1, 2),
    )
    results = [box(0, GOOD, score=0.9), box(1, FAR, score=0.6), box(1, NEAR, score=0.5)]
    results += [box(2, NEAR, score=0.7), box(0, FAR, score=0.1)]
    points = explain(truth, results).points
    # from 0.5 on: 2 of 4 detections are correct, and 2 of 3 objects detected
    assert points.best == pytest.approx((0.3, 0.5, 2 / 3, 4 / 7))
    # from 0.9 on: 1 of 1, and 1 of 2; from 0.5 on: 2 of 4, and 2 of 2; of equal F1 the first
    assert points.per_class["class 1"] == pytest.approx((0.8, 1.0, 0.5, 2 / 3))
    assert points.per_class["class 2"].recall != points.per_class["class 2"].recall  # nan: none
    assert points.confusion is not None
    names = points.confusion.names
    assert names[:2] == ["class 1", "class 2"]
    assert names[-1] == "background"
    counts = np.array(points.confusion.counts)
    assert counts[0, 0] == 2
    assert counts[1, 0] == 1  # the object of class 2 was taken for class 1
    assert counts[-1, 0] == 1
    assert counts.sum() == 4
    text = format_operating_points(points)
    assert "all, together" in text
    assert "0.571" in text


def test_a_curve_in_a_file_has_the_points_of_every_hundredth() -> None:
    truth, results = random_set(0)
    curve = explain(truth, results).points.curve
    sampled = curve.sample([0.0, 0.25, 0.5, 0.75, 1.0])
    for k, threshold in enumerate(sampled["score"]):
        above = np.flatnonzero(curve.thresholds >= threshold)
        for name in ("precision", "recall", "f1"):
            expected = getattr(curve, name)[above[-1]] if len(above) else math.nan
            assert sampled[name][k] == pytest.approx(expected, abs=1e-4, nan_ok=True)
    assert {len(values) for values in curve.sample().values()} == {101}
    nothing = explain(truth, []).points.curve.sample()
    assert np.isnan(nothing["f1"]).all()


def test_equal_scores_are_one_point_and_the_lowest_threshold_is_half_of_it() -> None:
    truth = truth_of([box(0, GOOD), box(1, GOOD)])
    results = [box(0, GOOD, score=0.5), box(1, FAR, score=0.5)]
    curve = explain(truth, results).points.curve
    assert curve.thresholds.tolist() == [0.5]
    assert curve.best() == pytest.approx((0.25, 0.5, 0.5, 0.5))


def test_without_detections_or_objects_there_is_no_best_threshold() -> None:
    nothing_found = explain(truth_of([box(0, GOOD)]), []).points
    nothing_there = explain(truth_of([]), [box(0, GOOD, score=0.5)]).points
    for points in (nothing_found, nothing_there):
        assert math.isnan(points.best.threshold)
        assert points.confusion is None
        assert "-" in format_operating_points(points)


def test_of_a_crowd_all_detections_count_that_were_asked_for() -> None:
    """150 objects, each detected; COCO's figures stop at 100 detections of an image and class."""
    boxes = [[20.0 * (k % 15), 20.0 * (k // 15), 10.0, 10.0] for k in range(150)]
    truth = truth_of([box(0, bbox) for bbox in boxes])
    rows = [box(0, bbox, score=0.9 - k / 1000) for k, bbox in enumerate(boxes)]
    counted = explain(truth, rows, max_detections=300)
    assert counted.points.best.recall == 1
    assert counted.points.confusion is not None
    assert counted.points.confusion.counts == [[150, 0], [0, 0]]
    assert counted.errors.counts["missed"] == 0
    assert not counted.mistakes
    assert sum(counted.calibration.counts) == 150
    fewer = explain(truth, rows, max_detections=50)  # eval.py never gives so few
    assert fewer.points.best.recall == pytest.approx(100 / 150)


def test_of_equal_boxes_the_most_confident_class_is_the_one_taken_for() -> None:
    """An anchor has one box for all classes, so that its detections overlap an object equally."""
    objects = [box(0, GOOD, category_id=3), box(1, GOOD, category_id=3)]
    truth = truth_of(objects, categories=(1, 2, 3))
    results = [box(0, NEAR, score=0.6), box(0, NEAR, score=0.9, category_id=2)]
    results += [box(1, GOOD, score=0.5, category_id=3)]  # the best score is below all of them
    confusion = explain(truth, results).points.confusion
    assert confusion is not None
    assert confusion.counts == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0]]


def test_a_class_may_have_any_name() -> None:
    truth, results = random_set(0)
    expected = explain(truth, results).points
    truth["categories"][0]["name"] = "all"
    points = explain(truth, results).points
    assert points.best == expected.best
    assert points.curves["all"].best() == pytest.approx(expected.per_class["class 3"], nan_ok=True)
