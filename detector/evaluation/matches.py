"""What became of every detection, by COCO's rules, and the average precision of any weighting of
images: the start of error tables, calibration and significance."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from detector.config.errors import UserError
from detector.evaluation.coco import BEST, evaluate

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
    most: int = BEST,
) -> dict[int, Matches]:
    """Category id -> matches, images in the order of their ids.

    By COCO's rules: by falling score each of the `most` best detections of an image and class takes
    the object of its class that it overlaps most and that is not taken. `thresholds`: IoUs; None
    for COCO's ten, 0.5 to 0.95.
    """
    options: dict[str, Any] = {"thresholds": thresholds, "most": most}
    evaluation = evaluate(ground_truth, results, image_ids, full=False, **options)
    images, steps = len(evaluation.params.imgIds), len(evaluation.params.iouThrs)
    return {
        category: _join(evaluation.evalImgs[k * images : (k + 1) * images], steps)
        for k, category in enumerate(evaluation.params.catIds)
    }


def _join(cells: Sequence[dict[str, Any] | None], steps: int) -> Matches:
    """`cells`: pycocotools' matches of one class in each image; None in an image that has neither
    objects nor detections of it. `steps`: T."""
    objects = np.zeros(len(cells))
    columns: list[tuple[np.ndarray, ...]] = []
    for index, cell in enumerate(cells):
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
    return Matches(images[order], scores[order], correct, ignored, objects, ids[order], partners)


def average_precision(matches: Matches, weights: np.ndarray | None = None) -> np.ndarray:
    """COCO's AP (B, T) of one class for B weightings (B, I) of the images; nan without objects.

    A weight says how often an image counts; None: every image once. AP is the mean over 101 recalls
    of the best precision at that recall or more, 0 above the highest recall.
    """
    if weights is None:
        weights = np.ones((1, len(matches.objects)))
    totals = weights @ matches.objects  # (B,)
    counts = weights[:, matches.images]  # (B, D)
    figures = np.full((len(weights), len(matches.correct)), np.nan)
    for t, (correct, ignored) in enumerate(zip(matches.correct, matches.ignored, strict=True)):
        kept = np.flatnonzero(~ignored)
        true_positives = np.cumsum(counts[:, kept] * correct[kept], axis=1)
        positives = np.cumsum(counts[:, kept], axis=1)
        precision = true_positives / np.maximum(positives, np.spacing(1))
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        for row in np.flatnonzero(totals > 0):
            place = np.searchsorted(true_positives[row] / totals[row], RECALLS, side="left")
            figures[row, t] = np.append(best[row], 0.0)[place].mean()
    return figures


def mean_precision(
    matches: Mapping[int, Matches], weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """AP and AP50, each (B,), the mean over the classes that have objects; nan where none has."""
    cells = np.stack([average_precision(m, weights) for m in matches.values()])  # (K, B, T)
    known = ~np.isnan(cells[:, :, 0])
    count = np.where(known.any(axis=0), known.sum(axis=0), np.nan)
    cells = np.where(known[..., None], cells, 0.0)
    return cells.mean(axis=2).sum(axis=0) / count, cells[:, :, 0].sum(axis=0) / count
