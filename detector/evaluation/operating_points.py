"""At which score to use a detector: precision, recall and F1 against the score threshold, the best
threshold, and which class is taken for which there. All at IoU 0.5."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from detector.evaluation.matches import Matches
from detector.evaluation.table import Table
from detector.evaluation.voc import box_iou

IOU = 0.5
BACKGROUND = "background"
GRID = [k / 100 for k in range(101)]  # scores of the curves in a file
Boxes = Sequence[Sequence[float]]  # x, y, width, height


class OperatingPoint(NamedTuple):
    """What the detections with a score of `threshold` or more are worth.

    precision: share of them that are correct · recall: share of the objects that they are correct
    about · f1: harmonic mean of the two. A figure over nothing is nan.
    """

    threshold: float
    precision: float
    recall: float
    f1: float


class Curve(NamedTuple):
    """Operating points (D,) of every score that occurs, falling; equal scores are one point."""

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    def best(self) -> OperatingPoint:
        """The point of the highest F1; of equals that of the highest score. Its threshold lies
        halfway to the next lower score (to 0 without one), so that a rounded score is no other
        side. nan where nothing is detected or there is no object."""
        if not len(self.f1) or np.isnan(self.f1).all():
            return OperatingPoint(*[float("nan")] * 4)
        place = int(np.nanargmax(self.f1))
        lower = self.thresholds[place + 1] if place + 1 < len(self.thresholds) else 0.0
        threshold = (self.thresholds[place] + lower) / 2
        rest = self.precision[place], self.recall[place], self.f1[place]
        return OperatingPoint(float(threshold), *map(float, rest))

    def sample(self, thresholds: Sequence[float] = GRID) -> dict[str, list[float]]:
        """The points of these thresholds, as lists for a file; nan where no score is as high."""
        places = np.searchsorted(-self.thresholds, -np.asarray(thresholds), side="right") - 1
        values = {
            name: np.where(places < 0, np.nan, np.append(getattr(self, name), np.nan)[places])
            for name in ("precision", "recall", "f1")
        }
        return {"score": list(thresholds)} | {k: v.round(4).tolist() for k, v in values.items()}


class Confusion(NamedTuple):
    """`counts` (K + 1, K + 1): objects of a row's class that were detected as a column's, at that
    score `threshold`. The last row are detections of no object, the last column objects that were
    not detected. `names`: of rows and columns."""

    threshold: float
    names: list[str]
    counts: list[list[int]]


class OperatingPoints(NamedTuple):
    """`best` and `curve`: of all classes together, every object and detection counts once ·
    `per_class` and `curves`: class name -> its own · `confusion`: at the threshold of `best`, None
    where there is none."""

    best: OperatingPoint
    per_class: dict[str, OperatingPoint]
    curve: Curve
    curves: dict[str, Curve]
    confusion: Confusion | None


def find_operating_points(
    objects: Sequence[Mapping[str, Any]],
    results: Sequence[Mapping[str, Any]],
    matches: Mapping[int, Matches],
    names: Mapping[int, str],
) -> OperatingPoints:
    """`objects`: annotations, and `results`: detections, that were matched at IoU 0.5; `names`:
    category id -> class name."""
    curves = {names[category]: draw_curve([m]) for category, m in matches.items()}
    per_class = {name: curve.best() for name, curve in curves.items()}
    curve = draw_curve(list(matches.values()))
    best, confusion = curve.best(), None
    if not np.isnan(best.threshold):
        counts = confuse(objects, results, matches, best.threshold)
        known = [names[category] for category in matches]
        confusion = Confusion(best.threshold, [*known, BACKGROUND], counts.tolist())
    return OperatingPoints(best, per_class, curve, curves, confusion)


def draw_curve(matches: Sequence[Matches]) -> Curve:
    """Of the detections and objects of these classes together; those of crowds do not count."""
    scores = np.concatenate([m.scores[~m.ignored[0]] for m in matches])
    correct = np.concatenate([m.correct[0][~m.ignored[0]] for m in matches])
    total = sum(m.objects.sum() for m in matches)
    thresholds, inverse = np.unique(-scores, return_inverse=True)
    positives = np.cumsum(np.bincount(inverse, minlength=len(thresholds)))
    true = np.cumsum(np.bincount(inverse, correct, minlength=len(thresholds)))
    missing = np.full(len(thresholds), np.nan)
    recall = true / total if total else missing
    f1 = 2 * true / (positives + total) if total else missing
    return Curve(-thresholds, true / np.maximum(positives, 1), recall, f1)


def confuse(
    objects: Sequence[Mapping[str, Any]],
    results: Sequence[Mapping[str, Any]],
    matches: Mapping[int, Matches],
    threshold: float,
) -> np.ndarray:
    """`Confusion.counts` in the order of `matches`.

    The diagonal are the correct detections, by COCO's rules. What is then left of detections and
    objects of an image is paired by falling IoU, from 0.5 on, each once: an object that is taken
    for another class; of equal boxes (an anchor has one for all classes) as the most confident
    says. All else is background.
    """
    order = {category: k for k, category in enumerate(matches)}
    counts = np.zeros((len(order) + 1, len(order) + 1), int)
    taken: set[int] = set()
    wrong: defaultdict[int, list[int]] = defaultdict(list)  # image id -> indices of results
    for category, m in matches.items():
        kept = (m.scores >= threshold) & ~m.ignored[0]
        correct = kept & m.correct[0]
        counts[order[category], order[category]] = correct.sum()
        taken |= {number - 1 for number in m.partners[0][correct].tolist()}
        for index in m.ids[kept & ~correct].tolist():
            wrong[results[index]["image_id"]].append(index)
    left: defaultdict[int, list[int]] = defaultdict(list)  # image id -> indices of objects
    for index, row in enumerate(objects):
        if not row.get("iscrowd") and index not in taken:
            left[row["image_id"]].append(index)
    for image in wrong.keys() | left.keys():
        wrong[image].sort(key=lambda index: -results[index]["score"])
        boxes = [objects[index]["bbox"] for index in left[image]]
        found = [results[index]["bbox"] for index in wrong[image]]
        true = [order[objects[index]["category_id"]] for index in left[image]]
        said = [order[results[index]["category_id"]] for index in wrong[image]]
        pairs = pair(boxes, found)
        for place, other in pairs.items():
            counts[true[place], said[other]] += 1
        for place in set(range(len(true))) - set(pairs):
            counts[true[place], -1] += 1
        for other in set(range(len(said))) - set(pairs.values()):
            counts[-1, said[other]] += 1
    return counts


def pair(
    objects: Sequence[Sequence[float]], detections: Sequence[Sequence[float]]
) -> dict[int, int]:
    """Place of an object -> place of its detection (xywh): pairs by falling IoU, from 0.5 on."""
    overlap, pairs = box_iou(objects, detections), dict[int, int]()
    for place in np.argsort(-overlap, axis=None, kind="stable"):
        row, column = divmod(int(place), overlap.shape[1])
        if overlap[row, column] < IOU:
            break
        if row not in pairs and column not in pairs.values():
            pairs[row] = column
    return pairs


def format_operating_points(points: OperatingPoints) -> str:
    """The best threshold of all classes together and of each, as a table."""
    rows = [("all, together", *points.best)]
    rows += [(name, *point) for name, point in points.per_class.items()]
    heads = ["class", "best score", "precision", "recall", "F1"]
    note = "best score: the threshold with the highest F1 on these images, at IoU 0.5"
    return f"{Table(heads, rows, ['', *['.3f'] * 4]).render()}\n\n{note}"
