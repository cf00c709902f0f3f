"""Does confidence mean what it says?"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from detector.evaluation.matches import Matches


class Calibration(NamedTuple):
    """`counts`, mean `confidence` and `precision` (IoU 0.5) of the detections in each of ten equal
    bins of confidence; nan in empty bins. `error`: the mean of |confidence - precision|, weighted
    by the counts (expected calibration error)."""

    counts: list[int]
    confidence: list[float]
    precision: list[float]
    error: float


def calibration(matches: Mapping[int, Matches], bins: int = 10) -> Calibration:
    """How often detections of each confidence are right: of all classes, at the first threshold."""
    scores = np.concatenate([one.scores[~one.ignored[0]] for one in matches.values()])
    right = np.concatenate([one.correct[0][~one.ignored[0]] for one in matches.values()])
    place = np.minimum((scores * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    some = np.maximum(count, 1)
    confidence = np.where(count, np.bincount(place, scores, bins) / some, np.nan)
    precision = np.where(count, np.bincount(place, right, bins) / some, np.nan)
    gaps = np.nan_to_num(np.abs(confidence - precision))
    error = float((gaps * count).sum() / max(1, count.sum()))
    return Calibration(count.tolist(), confidence.tolist(), precision.tolist(), error)
