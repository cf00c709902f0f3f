"""What became of every detection, by COCO's rules, and the average precision of any weighting of
images: the start of error tables, calibration and significance."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from detector.config.errors import UserError
from detector.evaluation.coco import evaluated

RECALLS = np.linspace(0, 1, 101)


class Matches(NamedTuple):
    """The detections of one class, D of them by falling score, at T IoU thresholds.

    images (D,): index of the image · scores (D,) · correct (T, D) bool · ignored (T, D) bool,
    matched to a crowd · objects (I,): how many each image has, without crowds · ids (D,): number of
    the row in the results · partners (T, D): id of the object matched, 0 for none.
    """

    images: np.ndarray
    scores: np.ndarray
    correct: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray
    ids: np.ndarray
    partners: np.ndarray


def check_objects(ground_truth: Mapping[str, Any]) -> None:
    """Raises UserError if there is nothing to find: then there is no AP to compare."""
    if all(row.get("iscrowd") for row in ground_truth["annotations"]):
        raise UserError(
            "the validation data has no object (crowds do not count), so there is no average "
            "precision to compare: check data.val and data.annotations"
        )


def match_all(
    ground_truth: Mapping[str, Any],
    results: Sequence[dict[str, Any]],
    image_ids: Iterable[int] | None = None,
    thresholds: Sequence[float] | None = None,
) -> dict[int, Matches]:
    """Category id -> matches, images in the order of their ids.

    By COCO's rules: by falling score each of the 100 best detections of an image and class takes
    the object of its class that it overlaps most and that is not taken. `thresholds`: IoUs; None
    for COCO's ten, 0.5 to 0.95.
    """
    evaluation = evaluated(ground_truth, results, image_ids, full=False, thresholds=thresholds)
    limits, cells = evaluation.params, evaluation.evalImgs
    count, steps = len(limits.imgIds), len(limits.iouThrs)
    found = {}
    for k, category in enumerate(limits.catIds):
        objects = np.zeros(count)
        columns: list[tuple[np.ndarray, ...]] = []
        for index, cell in enumerate(cells[k * count : (k + 1) * count]):
            if cell is None:
                continue
            objects[index] = np.count_nonzero(np.asarray(cell["gtIgnore"]) == 0)
            size = len(cell["dtScores"])
            columns.append(
                (
                    np.full(size, index),
                    np.asarray(cell["dtScores"], float),
                    np.asarray(cell["dtMatches"]).reshape(steps, size),
                    np.asarray(cell["dtIgnore"], bool).reshape(steps, size),
                    np.asarray(cell["dtIds"], np.int64) - 1,
                )
            )
        empty = np.zeros(0)
        columns.append((empty.astype(int), empty, *[np.zeros((steps, 0))] * 2, empty.astype(int)))
        images, scores, partners, ignored, ids = (
            np.concatenate(part, axis=-1) for part in zip(*columns, strict=True)
        )
        order = np.argsort(-scores, kind="stable")
        partners, ignored = partners[:, order].astype(np.int64), ignored[:, order].astype(bool)
        correct = (partners > 0) & ~ignored
        found[category] = Matches(
            images[order], scores[order], correct, ignored, objects, ids[order], partners
        )
    return found


def average_precision(matches: Matches, weights: np.ndarray | None = None) -> np.ndarray:
    """COCO's AP (B, T) of one class for B weightings (B, I) of the images, a weight counting how
    often an image is there; nan where there are no objects. None: every image once."""
    if weights is None:
        weights = np.ones((1, len(matches.objects)))
    total = weights @ matches.objects  # (B,)
    each = weights[:, matches.images]  # (B, D)
    found = np.full((len(weights), len(matches.correct)), np.nan)
    for t, (correct, ignored) in enumerate(zip(matches.correct, matches.ignored, strict=True)):
        counted = np.flatnonzero(~ignored)
        every = each[:, counted]
        right = np.cumsum(every * correct[counted], axis=1)
        seen = np.cumsum(every, axis=1)
        precision = right / np.maximum(seen, np.spacing(1))
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        for row in np.flatnonzero(total > 0):
            place = np.searchsorted(right[row] / total[row], RECALLS, side="left")
            padded = np.append(best[row], 0.0)
            found[row, t] = padded[place].mean()
    return found


def mean_precision(
    matches: Mapping[int, Matches], weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """AP and AP50, each (B,), the mean over the classes that have objects; nan where none has."""
    cells = np.stack([average_precision(m, weights) for m in matches.values()])  # (K, B, T)
    known = ~np.isnan(cells[:, :, 0])
    count = np.where(known.any(axis=0), known.sum(axis=0), np.nan)
    cells = np.where(known[..., None], cells, 0.0)
    return cells.mean(axis=2).sum(axis=0) / count, cells[:, :, 0].sum(axis=0) / count
