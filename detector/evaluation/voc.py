"""PASCAL VOC's average precision, by the rules of its devkit, for any data."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

FOREGROUND = 0.5  # IoU from which a detection can be right


class VocFigures(NamedTuple):
    """Of each class by name, the mean over classes under "mean": `eleven` is the AP of VOC2007 (the
    mean precision at 11 recalls), `area` that of VOC2010 and later (the area under the curve). nan
    where there are no objects."""

    eleven: dict[str, float]
    area: dict[str, float]


def voc_figures(
    ground_truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]
) -> VocFigures:
    """AP at IoU 0.5 of COCO result rows against the content of a COCO file, in which VOC's
    difficult objects are crowds (as scripts/voc2coco.py writes them).

    Differs from COCO's in the matching, too: a detection belongs to the object that it overlaps
    most, even if a better detection has that already (then it is wrong), and what belongs to a
    difficult object is neither right nor wrong. Of equal scores the first row comes first. IoUs are
    the devkit's: its boxes count whole pixels, (xmin, ymin, xmax, ymax) there is (xmin - 1, ymin -
    1, xmax, ymax) here.
    """
    objects, found = _by_class(ground_truth["annotations"]), _by_class(results)
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    eleven, area = {}, {}
    for key, name in names.items():
        recall, precision = _curve(objects[key], found[key])
        eleven[name], area[name] = eleven_points(recall, precision), whole_area(recall, precision)
    return VocFigures({"mean": _mean(eleven), **eleven}, {"mean": _mean(area), **area})


def _by_class(
    rows: Sequence[Mapping[str, Any]],
) -> defaultdict[int, list[Mapping[str, Any]]]:
    groups: defaultdict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["category_id"]].append(row)
    return groups


def _mean(figures: Mapping[str, float]) -> float:
    known = [figure for figure in figures.values() if not math.isnan(figure)]
    return sum(known) / len(known) if known else math.nan


def _curve(
    objects: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision of one class after each detection, by falling score; recall is nan where
    there is nothing to find."""
    total = sum(not row.get("iscrowd") for row in objects)
    if not total:
        return np.array([np.nan]), np.array([0.0])
    order = np.argsort([-row["score"] for row in found], kind="stable")
    boxes = np.array([found[k]["bbox"] for k in order], float).reshape(-1, 4)
    images = np.array([found[k]["image_id"] for k in order], dtype=np.int64)
    right, wrong = np.zeros(len(order)), np.ones(len(order))
    there: defaultdict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for row in objects:
        there[row["image_id"]].append(row)
    ranks = np.argsort(images, kind="stable")
    groups = np.split(ranks, np.flatnonzero(np.diff(images[ranks])) + 1) if len(ranks) else []
    for group in groups:
        truth = there.get(int(images[group[0]]), [])
        if not truth:
            continue
        overlap = box_iou(boxes[group], np.array([row["bbox"] for row in truth], float))
        own = overlap.argmax(axis=1)
        near = overlap.max(axis=1) >= FOREGROUND
        difficult = np.array([bool(row.get("iscrowd")) for row in truth])[own]
        wrong[group[near & difficult]] = 0
        claimed = group[near & ~difficult]
        _, first = np.unique(
            own[near & ~difficult], return_index=True
        )  # the best score comes first
        right[claimed[first]], wrong[claimed[first]] = 1, 0
    hits, misses = np.cumsum(right), np.cumsum(wrong)
    return hits / total, hits / np.maximum(hits + misses, 1e-12)


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(A, B) of boxes (A, 4) and (B, 4), x, y, width, height; 0 / 0 counts as 0."""
    low = np.maximum(a[:, None, :2], b[:, :2])
    high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[:, :2] + b[:, 2:])
    shared = (high - low).clip(0).prod(axis=-1)
    union = a[:, None, 2:].prod(axis=-1) + b[:, 2:].prod(axis=-1) - shared
    return shared / np.maximum(union, 1e-12)


def eleven_points(recall: np.ndarray, precision: np.ndarray) -> float:
    """The mean over recalls 0, 0.1 .. 1 of the best precision at that recall or more."""
    if np.isnan(recall).any():
        return math.nan
    best = [precision[recall >= tenth / 10].max(initial=0) for tenth in range(11)]
    return float(np.mean(best))


def whole_area(recall: np.ndarray, precision: np.ndarray) -> float:
    """The area under the best precision at that recall or more."""
    if np.isnan(recall).any():
        return math.nan
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0) * best).sum())
