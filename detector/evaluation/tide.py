"""Why average precision is missing: kinds of errors.

Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from detector.evaluation.calibration import Calibration, calibration
from detector.evaluation.coco import BEST
from detector.evaluation.matches import Matches, match_all, mean_precision
from detector.evaluation.operating_points import OperatingPoints, find_operating_points
from detector.evaluation.table import Table
from detector.evaluation.voc import box_iou

FOREGROUND, BACKGROUND = 0.5, 0.1  # IoUs; TIDE, section 2.2
KINDS = ("class", "location", "both", "duplicate", "background", "missed")


class Errors(NamedTuple):
    """`ap50`: the mean over classes now. `gained`: kind -> AP50 that fixing all errors of that kind
    alone would add. `counts`: kind -> how many detections (missed: objects) there are."""

    ap50: float
    gained: dict[str, float]
    counts: dict[str, int]


class Mistake(NamedTuple):
    """A wrong detection, or an object that is missed. `kind`: of `KINDS` · `bbox`: x, y, width,
    height · `score`: None for an object · `detected`: class of the detection, "" for an object ·
    `truth`: class of the object that it is about, "" for none."""

    kind: str
    image_id: int
    bbox: list[float]
    score: float | None
    detected: str
    truth: str


class Explanation(NamedTuple):
    """All that is read from the matches at IoU 0.5."""

    errors: Errors
    calibration: Calibration
    points: OperatingPoints
    mistakes: list[Mistake]


Object = tuple[int, int]  # category id, index among the objects


class Detection(NamedTuple):
    """`row`: its place in the results, -1 for one that was made up. `kind`: of its error, "" for
    none. `target`: what a location or class error is about."""

    row: int
    category: int
    score: float
    correct: bool
    kind: str = ""
    target: Object | None = None


def explain(
    ground_truth: Mapping[str, Any],
    results: Sequence[dict[str, Any]],
    image_ids: Iterable[int] | None = None,
    max_detections: int = BEST,
) -> Explanation:
    """Of the detections in `image_ids` (None: all), matched once: the 100 best of an image and
    class, or the `max_detections` best where more were asked for, since all of them are shown.

    Every wrong detection has one kind of error, by its best IoU with objects of its own class and
    of others:

    location: own class, IoU 0.1 to 0.5 · class: another, 0.5 or more · duplicate: own, 0.5 or more,
    but a better detection has the object · background: below 0.1 with all · both: all else. An
    object is missed if no detection has it and no location or class error is about it. Fixing
    location or class errors makes the best-scored one about an object correct and takes the others
    away; fixing duplicates, background or both takes them away; fixing the missed takes them off
    the objects to find. A detection that matches a crowd is no error.
    """
    chosen = {image["id"] for image in ground_truth["images"]}
    if image_ids is not None:
        chosen &= {int(image_id) for image_id in image_ids}
    objects = [row for row in ground_truth["annotations"] if row["image_id"] in chosen]
    results = [row for row in results if row["image_id"] in chosen]
    most = max(BEST, max_detections)
    matches = match_all(ground_truth, results, chosen, thresholds=[FOREGROUND], most=most)
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    detections, unmatched = classify(objects, results, matches), list_unmatched(objects, matches)
    targets = {detection.target for detection in detections}
    missed = [target for target in unmatched if target not in targets]
    return Explanation(
        find_errors(detections, unmatched, missed, matches),
        calibration(matches),
        find_operating_points(objects, results, matches, names),
        list_mistakes(objects, results, detections, missed, names),
    )


def list_mistakes(
    objects: Sequence[Mapping[str, Any]],
    results: Sequence[Mapping[str, Any]],
    detections: Sequence[Detection],
    missed: Sequence[Object],
    names: Mapping[int, str],
) -> list[Mistake]:
    """Wrong detections by falling score, then missed objects, the largest first."""
    mistakes = []
    for detection in sorted(detections, key=lambda detection: -detection.score):
        if not detection.correct:
            row, kind, target = results[detection.row], detection.kind, detection.target
            truth = names[target[0]] if target else ""
            found = row["image_id"], list(row["bbox"]), detection.score, names[detection.category]
            mistakes.append(Mistake(kind, *found, truth))
    rows = [objects[index] for _, index in missed]
    for row in sorted(rows, key=lambda row: -row["bbox"][2] * row["bbox"][3]):
        name = names[row["category_id"]]
        mistakes.append(Mistake("missed", row["image_id"], list(row["bbox"]), None, "", name))
    return mistakes


def find_errors(
    detections: Sequence[Detection],
    unmatched: Sequence[Object],
    missed: Sequence[Object],
    matches: Mapping[int, Matches],
) -> Errors:
    """`unmatched`: the objects without a detection, and `missed`: those that no error is about."""
    totals = {category: int(m.objects.sum()) for category, m in matches.items()}
    ap50 = compute_ap50(detections, totals)
    gained = {
        kind: compute_ap50(fix(detections, kind, set(unmatched)), totals) - ap50
        for kind in KINDS[:-1]
    }
    fewer = {category: n - sum(c == category for c, _ in missed) for category, n in totals.items()}
    gained["missed"] = compute_ap50(detections, fewer) - ap50
    counts = Counter(detection.kind for detection in detections)
    numbers = {kind: counts[kind] for kind in KINDS[:-1]}
    return Errors(ap50, gained, {**numbers, "missed": len(missed)})


def list_unmatched(
    objects: Sequence[Mapping[str, Any]], matches: Mapping[int, Matches]
) -> list[Object]:
    """The objects without a detection; crowds do not count."""
    matched = {n - 1 for m in matches.values() for n in m.partners[0][m.correct[0]].tolist()}
    return [
        (row["category_id"], index)
        for index, row in enumerate(objects)
        if not row.get("iscrowd") and index not in matched
    ]


def classify(
    objects: Sequence[Mapping[str, Any]],
    results: Sequence[dict[str, Any]],
    matches: Mapping[int, Matches],
) -> list[Detection]:
    """The detections that count, each with its error, image by image."""
    objects_of: defaultdict[int, list[int]] = defaultdict(list)
    for index, row in enumerate(objects):
        if not row.get("iscrowd"):
            objects_of[row["image_id"]].append(index)
    correct: dict[int, bool] = {}  # index of a result -> whether it matches an object
    for m in matches.values():
        counts = ~m.ignored[0]
        correct |= zip(m.ids[counts].tolist(), m.correct[0][counts].tolist(), strict=True)
    results_of: defaultdict[int, list[int]] = defaultdict(list)
    for index in sorted(correct):
        results_of[results[index]["image_id"]].append(index)
    detections: list[Detection] = []
    for image_id, indices in sorted(results_of.items()):  # in COCO's order: equal scores keep it
        rows = [(index, results[index], correct[index]) for index in indices]
        detections += _classify_image(rows, objects, objects_of[image_id])
    return detections


def _classify_image(
    rows: Sequence[tuple[int, Mapping[str, Any], bool]],
    objects: Sequence[Mapping[str, Any]],
    indices: Sequence[int],
) -> Iterator[Detection]:
    """`rows`: places of detections, these, and whether each is correct; `indices`: of the image's
    objects."""
    categories = np.array([objects[index]["category_id"] for index in indices], int)
    boxes = [objects[index]["bbox"] for index in indices]
    overlaps = box_iou([row["bbox"] for _, row, _ in rows], boxes)
    for (index, row, correct), overlap in zip(rows, overlaps, strict=True):
        detection = Detection(index, row["category_id"], float(row["score"]), correct)
        if not correct:
            kind, place = find_kind(overlap, categories == row["category_id"])
            target = None if place is None else (int(categories[place]), indices[place])
            detection = detection._replace(kind=kind, target=target)
        yield detection


def find_kind(overlap: np.ndarray, same: np.ndarray) -> tuple[str, int | None]:
    """Kind of error of a wrong detection, and the place of the object that it is about (location
    and class only). `overlap`: its IoU with every object; `same`: whether that is of its class."""
    if not overlap.size or overlap.max() < BACKGROUND:
        return "background", None
    of_class, of_others = np.where(same, overlap, 0.0), np.where(same, 0.0, overlap)
    if BACKGROUND <= of_class.max() < FOREGROUND:
        return "location", int(of_class.argmax())
    if of_others.max() >= FOREGROUND:
        return "class", int(of_others.argmax())
    return ("duplicate" if of_class.max() >= FOREGROUND else "both"), None


def fix(detections: Sequence[Detection], kind: str, unmatched: set[Object]) -> list[Detection]:
    """The detections without errors of that kind; those that can be are made correct."""
    best: dict[Object, Detection] = {}
    for detection in detections:
        target = detection.target
        if detection.kind != kind or target is None or target not in unmatched:
            continue
        if target not in best or best[target].score < detection.score:
            best[target] = detection
    fixed = [Detection(-1, category, best[category, k].score, True) for category, k in best]
    return [detection for detection in detections if detection.kind != kind] + fixed


def compute_ap50(detections: Sequence[Detection], totals: Mapping[int, int]) -> float:
    """The mean over classes; `totals`: category -> objects to find, without which it does not
    count. nan where there are none at all."""
    groups: dict[int, list[Detection]] = {category: [] for category in totals}
    for detection in detections:
        groups[detection.category].append(detection)
    matches = {category: _as_matches(groups[category], total) for category, total in totals.items()}
    return float(mean_precision(matches)[0][0])


def _as_matches(detections: Sequence[Detection], total: int) -> Matches:
    """Of one class at one threshold, as if all were in one image."""
    detections = sorted(detections, key=lambda detection: -detection.score)
    count = len(detections)
    return Matches(
        images=np.zeros(count, int),
        scores=np.array([detection.score for detection in detections], float),
        correct=np.array([[detection.correct for detection in detections]], bool),
        ignored=np.zeros((1, count), bool),
        objects=np.array([total]),
        ids=np.arange(count),
        partners=np.zeros((1, count), int),
    )


def format_errors(errors: Errors, calibrated: Calibration) -> str:
    """A row per kind of error, and the calibration in a line."""
    rows = [(kind, errors.counts[kind], errors.gained[kind]) for kind in KINDS]
    table = Table(["error", "count", "AP50 if fixed"], rows, ["", "d", "+.3f"])
    note = f"calibration error {calibrated.error:.3f} (confidence against precision)"
    return f"{table.render()}\n\n{note}"
