"""PASCAL VOC's average precision, by the rules of its devkit, for any data."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from pycocotools import mask

FOREGROUND = 0.5  # IoU from which a detection can be right


class VocFigures(NamedTuple):
    """Of each class by name: `eleven` is the AP of VOC2007 (the mean precision at 11 recalls),
    `area` that of VOC2010 and later (the area under the curve). nan where there are no objects; the
    means are over the other classes."""

    eleven: dict[str, float]
    area: dict[str, float]
    mean_eleven: float
    mean_area: float


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
    objects = _group(ground_truth["annotations"], "category_id")
    detections = _group(results, "category_id")
    eleven, area = {}, {}
    for category in ground_truth["categories"]:
        key, name = category["id"], category["name"]
        recall, precision = _curve(objects[key], detections[key])
        eleven[name] = eleven_points(recall, precision)
        area[name] = area_under_curve(recall, precision)
    return VocFigures(eleven, area, _mean(eleven), _mean(area))


def _group(
    rows: Sequence[Mapping[str, Any]], field: str
) -> defaultdict[int, list[Mapping[str, Any]]]:
    groups: defaultdict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row[field]].append(row)
    return groups


def _mean(figures: Mapping[str, float]) -> float:
    known = [figure for figure in figures.values() if not math.isnan(figure)]
    return sum(known) / len(known) if known else math.nan


def _curve(
    objects: Sequence[Mapping[str, Any]], detections: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision of one class after each detection, by falling score; recall is nan where
    there is nothing to find."""
    total = sum(not row.get("iscrowd") for row in objects)
    if not total:
        return np.array([np.nan]), np.array([0.0])
    order = np.argsort([-row["score"] for row in detections], kind="stable")
    correct, wrong = np.zeros(len(order)), np.ones(len(order))
    objects_of = _group(objects, "image_id")
    ranks_of: defaultdict[int, list[int]] = defaultdict(list)
    for rank, place in enumerate(order):
        ranks_of[detections[place]["image_id"]].append(rank)
    for image_id, ranks in ranks_of.items():
        if image_id not in objects_of:
            continue
        boxes = [detections[order[rank]]["bbox"] for rank in ranks]
        matched, counted = _match(boxes, objects_of[image_id])
        correct[ranks], wrong[ranks] = matched, counted & ~matched
    hits, misses = np.cumsum(correct), np.cumsum(wrong)
    return hits / total, hits / np.maximum(hits + misses, 1e-12)


def _match(
    boxes: Sequence[Sequence[float]], objects: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """Of the detections of one image and class, by falling score: which are right, and which count
    at all (all but those of a difficult object), bool (D,) each."""
    overlap = box_iou(boxes, [row["bbox"] for row in objects])
    nearest, near = overlap.argmax(axis=1), overlap.max(axis=1) >= FOREGROUND
    difficult = np.array([bool(row.get("iscrowd")) for row in objects])[nearest]
    claims = np.flatnonzero(near & ~difficult)
    _, first = np.unique(nearest[claims], return_index=True)  # the best score comes first
    matched = np.zeros(len(overlap), bool)
    matched[claims[first]] = True
    return matched, ~(near & difficult)


def box_iou(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """pycocotools' IoU (A, B) of boxes (A, 4) and (B, 4), x, y, width, height; 0 / 0 counts as
    0."""
    left, right = (np.reshape(np.asarray(boxes, float), (-1, 4)) for boxes in (a, b))
    crowds = np.zeros(len(right), np.uint8)
    return np.reshape(mask.iou(left, right, crowds), (len(left), len(right)))


def eleven_points(recall: np.ndarray, precision: np.ndarray) -> float:
    """The mean over recalls 0, 0.1 .. 1 of the best precision at that recall or more."""
    if np.isnan(recall).any():
        return math.nan
    best = [precision[recall >= tenth / 10].max(initial=0) for tenth in range(11)]
    return float(np.mean(best))


def area_under_curve(recall: np.ndarray, precision: np.ndarray) -> float:
    """The area under the best precision at that recall or more."""
    if np.isnan(recall).any():
        return math.nan
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0) * best).sum())
