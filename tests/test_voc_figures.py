"""VOC's average precision against a naive restatement of the devkit's rules."""

import math
from typing import Any

import numpy as np
import pytest

from detector.evaluation.voc import area_under_curve, eleven_points, voc_figures

Row = dict[str, Any]


def row(image_id: int, bbox: list[float], category_id: int = 1, **more: float) -> Row:
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, **more}


def content(objects: list[Row], classes: tuple[int, ...] = (1,)) -> Row:
    categories = [{"id": key, "name": f"class {key}"} for key in classes]
    return {"annotations": objects, "categories": categories}


def devkit(objects: list[Row], found: list[Row], category: int) -> tuple[float, float]:
    """VOCevaldet.m and VOCap.m, line by line: inclusive whole pixels counted from 1, so that the
    width is xmax - xmin + 1; the overlap that counts is 0.5 or more."""

    def corners(bbox: list[float]) -> tuple[float, float, float, float]:
        return bbox[0] + 1, bbox[1] + 1, bbox[0] + bbox[2], bbox[1] + bbox[3]

    truth = [r for r in objects if r["category_id"] == category]
    positives = sum(1 for r in truth if not r["iscrowd"])
    if not positives:
        return math.nan, math.nan
    taken: set[int] = set()
    right: list[int] = []
    wrong: list[int] = []
    mine = [r for r in found if r["category_id"] == category]
    for detection in sorted(mine, key=lambda r: -r["score"]):
        a = corners(detection["bbox"])
        most, own = -math.inf, -1
        for j, candidate in enumerate(truth):
            if candidate["image_id"] != detection["image_id"]:
                continue
            b = corners(candidate["bbox"])
            width = min(a[2], b[2]) - max(a[0], b[0]) + 1
            height = min(a[3], b[3]) - max(a[1], b[1]) + 1
            if width <= 0 or height <= 0:
                continue
            union = (a[2] - a[0] + 1) * (a[3] - a[1] + 1)
            union += (b[2] - b[0] + 1) * (b[3] - b[1] + 1) - width * height
            if width * height / union > most:
                most, own = width * height / union, j
        is_right = is_wrong = 0
        if most >= 0.5:
            if not truth[own]["iscrowd"]:
                is_right, is_wrong = int(own not in taken), int(own in taken)
                taken.add(own)
        else:
            is_wrong = 1
        right.append(is_right)
        wrong.append(is_wrong)
    recall, precision, hits, misses = [], [], 0, 0
    for one, other in zip(right, wrong, strict=True):
        hits, misses = hits + one, misses + other
        recall.append(hits / positives)
        precision.append(hits / max(hits + misses, 1e-12))
    eleven = 0.0
    for tenth in range(11):
        better = [p for r, p in zip(recall, precision, strict=True) if r >= tenth / 10]
        eleven += max(better, default=0) / 11
    recalls, precisions = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for k in range(len(precisions) - 2, -1, -1):
        precisions[k] = max(precisions[k], precisions[k + 1])
    steps = range(1, len(recalls))
    area = sum((recalls[k] - recalls[k - 1]) * precisions[k] for k in steps)
    return eleven, area


@pytest.mark.parametrize("part", range(3))
def test_figures_are_the_devkits(part: int) -> None:
    for seed in range(100 * part, 100 * part + 100):
        random = np.random.default_rng(seed)
        objects, found = [], []
        for image_id in (7, 3, 900):
            for _ in range(random.integers(6)):
                bbox = [*random.integers(0, 60, 2).tolist(), *random.integers(1, 40, 2).tolist()]
                category = int(random.integers(1, 4))
                difficult = int(random.random() < 0.25)
                objects.append(row(image_id, bbox, category, iscrowd=difficult))
                for _ in range(random.integers(4)):
                    near = (np.array(bbox) + random.normal(0, 3, 4)).clip(1).tolist()
                    label = category if random.random() < 0.8 else int(random.integers(1, 4))
                    score = round(float(random.random()), 1 if seed % 2 else 6)
                    found.append(row(image_id, near, label, score=score))
        figures = voc_figures(content(objects, (1, 2, 3)), found)
        known = []
        for category in (1, 2, 3):
            expected = devkit(objects, found, category)
            name = f"class {category}"
            actual = figures.eleven[name], figures.area[name]
            assert actual == pytest.approx(expected, abs=1e-12, nan_ok=True)
            known += [expected] if not math.isnan(expected[0]) else []
        if known:
            assert figures.mean_eleven == pytest.approx(np.mean([e for e, _ in known]))
            assert figures.mean_area == pytest.approx(np.mean([a for _, a in known]))


def test_difficult_objects_are_neither_right_nor_wrong() -> None:
    objects = [row(0, [0, 0, 10, 10], iscrowd=0), row(0, [50, 50, 10, 10], iscrowd=1)]
    found = [row(0, [50, 50, 10, 10], score=0.9), row(0, [0, 0, 10, 10], score=0.8)]
    assert voc_figures(content(objects), found).mean_area == 1
    found.append(row(0, [50, 50, 10, 9], score=0.95))  # a second one there is not wrong either
    assert voc_figures(content(objects), found).mean_area == 1


def test_a_detection_belongs_to_what_it_overlaps_most_even_if_that_is_taken() -> None:
    # COCO would give the second detection the second object, which it overlaps by 60 %
    objects = [row(0, [0, 0, 10, 10], iscrowd=0), row(0, [0, 0, 10, 6], iscrowd=0)]
    found = [row(0, [0, 0, 10, 10], score=0.9), row(0, [0, 0, 10, 9], score=0.8)]
    figures = voc_figures(content(objects), found)
    assert figures.mean_area == 0.5  # recall 1/2 at precision 1, and no more
    assert figures.mean_eleven == pytest.approx(6 / 11)  # recalls 0, 0.1 .. 0.5


def test_an_overlap_of_one_half_counts() -> None:
    objects = [row(0, [0, 0, 10, 10], iscrowd=0)]
    assert voc_figures(content(objects), [row(0, [0, 0, 10, 5], score=0.9)]).mean_area == 1


def test_nothing_found_and_nothing_to_find() -> None:
    objects = [row(0, [0, 0, 10, 10], iscrowd=0)]
    assert voc_figures(content(objects), []).eleven == {"class 1": 0.0}
    figures = voc_figures(content([]), [row(0, [0, 0, 1, 1], score=0.5)])
    assert math.isnan(figures.mean_eleven)
    assert math.isnan(figures.area["class 1"])


def test_a_class_may_be_called_mean() -> None:
    objects = [row(0, [0, 0, 10, 10], k, iscrowd=0) for k in (1, 2)]
    truth = content(objects, (1, 2))
    truth["categories"][0]["name"] = "mean"
    figures = voc_figures(truth, [row(0, [0, 0, 10, 10], 1, score=0.9)])
    assert figures.eleven == figures.area == {"mean": 1.0, "class 2": 0.0}
    assert figures.mean_eleven == figures.mean_area == 0.5


def test_areas_by_hand() -> None:
    recall, precision = np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3])
    assert area_under_curve(recall, precision) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert eleven_points(recall, precision) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
