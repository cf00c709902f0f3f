"""Why average precision is missing: kinds of errors.

Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from detector.evaluation.calibration import Calibration, calibration
from detector.evaluation.matches import RECALLS, Matches, match_all
from detector.evaluation.table import Table
from detector.evaluation.voc import box_iou

FOREGROUND, BACKGROUND = 0.5, 0.1  # IoUs; TIDE, section 2.2
KINDS = ("class", "location", "both", "duplicate", "background", "missed")


class Errors(NamedTuple):
    """`ap50`: the mean over classes now. `gained`: kind -> AP50 that mending all errors of that
    kind alone would add. `counts`: kind -> how many detections (missed: objects) there are."""

    ap50: float
    gained: dict[str, float]
    counts: dict[str, int]


class _Detection(NamedTuple):
    category: int
    score: float
    right: bool
    kind: str  # of error, "" for none
    mended: tuple[int, int] | None  # (category, object) that it would find if it were mended


def explain(
    ground_truth: Mapping[str, Any],
    results: Sequence[dict[str, Any]],
    image_ids: Iterable[int] | None = None,
) -> "tuple[Errors, Calibration]":
    """Errors and calibration of the detections in `image_ids` (None: all), matched once.

    Every wrong detection has one kind of error, with its best IoU to objects of its own class
    and of others:

    location: own class, IoU 0.1 to 0.5 · class: another, 0.5 or more · duplicate: own, 0.5 or more,
    but a better detection has the object · background: below 0.1 to all · both: all else. An object
    is missed if no detection has it and no location or class error is about it. Mending a location
    or class error makes the best-scored one about an object right and takes the others away;
    mending a duplicate, background or both takes it away; mending the missed takes them off the
    objects to find. Matching to a crowd is no error.
    """
    chosen = {image["id"] for image in ground_truth["images"]}
    if image_ids is not None:
        chosen &= {int(image_id) for image_id in image_ids}
    objects = [row for row in ground_truth["annotations"] if row["image_id"] in chosen]
    results = [row for row in results if row["image_id"] in chosen]
    matches = match_all(ground_truth, results, chosen, thresholds=[FOREGROUND])
    return _errors(objects, results, matches), calibration(matches)


def _errors(
    objects: Sequence[Mapping[str, Any]],
    results: Sequence[dict[str, Any]],
    matches: Mapping[int, Matches],
) -> Errors:
    found, unfound = _judge(objects, results, matches)
    totals = {category: int(one.objects.sum()) for category, one in matches.items()}
    before = _ap50(found, totals)
    about = {one.mended for one in found if one.mended is not None}
    missed = [(category, number) for category, number in unfound if (category, number) not in about]
    gained = {}
    for kind in KINDS[:-1]:
        gained[kind] = _ap50(_mend(found, kind, set(unfound)), totals) - before
    fewer = dict(totals)
    for category, _ in missed:
        fewer[category] -= 1
    gained["missed"] = _ap50(found, fewer) - before
    counts = {kind: sum(one.kind == kind for one in found) for kind in KINDS[:-1]}
    return Errors(before, gained, {**counts, "missed": len(missed)})


def _judge(
    objects: Sequence[Mapping[str, Any]],
    results: Sequence[dict[str, Any]],
    matches: Mapping[int, Matches],
) -> tuple[list[_Detection], list[tuple[int, int]]]:
    """All counted detections with their errors, and (category, number) of the objects without a
    detection."""
    real = [number for number, row in enumerate(objects) if not row.get("iscrowd")]
    there: defaultdict[int, list[int]] = defaultdict(list)
    for number in real:
        there[objects[number]["image_id"]].append(number)
    taken = {
        int(partner) - 1
        for one in matches.values()
        for partner in one.partners[0][one.correct[0]].tolist()
    }
    judged: defaultdict[int, list[tuple[int, float, bool]]] = defaultdict(list)
    for one in matches.values():
        counted = np.flatnonzero(~one.ignored[0])
        for k in counted.tolist():
            row = int(one.ids[k])
            judged[results[row]["image_id"]].append((row, one.scores[k], bool(one.correct[0, k])))
    found: list[_Detection] = []
    for image_id, rows in sorted(judged.items()):  # in COCO's order: equal scores keep it
        rows.sort()
        numbers = np.array(there.get(image_id, []), int)
        categories = np.array([objects[number]["category_id"] for number in numbers], int)
        boxes = np.array([objects[number]["bbox"] for number in numbers], float).reshape(-1, 4)
        mine = np.array([results[row]["bbox"] for row, _, _ in rows], float)
        for overlap, (row, score, right) in zip(box_iou(mine, boxes), rows, strict=True):
            category = results[row]["category_id"]
            kind, mended = "", None
            if not right:
                same = categories == category
                kind, place = _kind(overlap, same)
                if place is not None:
                    mended = (int(categories[place]), int(numbers[place]))
            found.append(_Detection(category, float(score), right, kind, mended))
    unfound = [(objects[k]["category_id"], k) for k in real if k not in taken]
    return found, unfound


def _kind(overlap: np.ndarray, same: np.ndarray) -> tuple[str, int | None]:
    """Kind of error, and the place of the object that it is about (location and class only)."""
    own, other = np.where(same, overlap, 0.0), np.where(same, 0.0, overlap)
    if own.size and BACKGROUND <= own.max() < FOREGROUND:
        return "location", int(own.argmax())
    if other.size and other.max() >= FOREGROUND:
        return "class", int(other.argmax())
    if own.size and own.max() >= FOREGROUND:
        return "duplicate", None
    if not overlap.size or overlap.max() < BACKGROUND:
        return "background", None
    return "both", None


def _mend(
    found: Sequence[_Detection], kind: str, unfound: set[tuple[int, int]]
) -> list[_Detection]:
    best: dict[tuple[int, int], _Detection] = {}
    for one in found:
        if one.kind == kind and one.mended in unfound:
            assert one.mended is not None
            if one.mended not in best or best[one.mended].score < one.score:
                best[one.mended] = one
    mended = [
        one._replace(category=one.mended[0], right=True, kind="")
        for one in best.values()
        if one.mended is not None
    ]
    return [one for one in found if one.kind != kind] + mended


def _ap50(found: Sequence[_Detection], totals: Mapping[int, int]) -> float:
    """COCO's AP at one IoU, the mean over the classes that have objects to find."""
    each: defaultdict[int, list[_Detection]] = defaultdict(list)
    for one in found:
        each[one.category].append(one)
    figures = []
    for category, total in totals.items():
        if total <= 0:
            continue
        right = np.array([one.right for one in each[category]], bool)
        order = np.argsort([-one.score for one in each[category]], kind="stable")
        hits = np.cumsum(right[order]) if len(right) else np.zeros(0)
        precision = hits / np.arange(1, len(hits) + 1)
        best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        figures.append(best[np.searchsorted(hits / total, RECALLS, side="left")].mean())
    return float(np.mean(figures)) if figures else math.nan


def format_errors(errors: Errors, calibrated: Calibration) -> str:
    """A row per kind of error, and the calibration in a line."""
    rows = [(kind, errors.counts[kind], errors.gained[kind]) for kind in KINDS]
    table = Table(["error", "count", "AP50 if fixed"], rows, ["", "d", "+.3f"])
    note = f"calibration error {calibrated.error:.3f} (confidence against precision)"
    return f"{table.render()}\n\n{note}"
