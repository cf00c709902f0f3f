"""Does a detection of confidence 0.9 have a chance of 0.9 to be right?"""

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
    """How often detections of each confidence are right, all classes together, at the first
    threshold of `matches`; detections of crowds do not count."""
    scores = np.concatenate([m.scores[~m.ignored[0]] for m in matches.values()])
    correct = np.concatenate([m.correct[0][~m.ignored[0]] for m in matches.values()])
    places = np.minimum((scores * bins).astype(int), bins - 1)
    counts = np.bincount(places, minlength=bins)
    divisors = np.where(counts, counts, np.nan)
    confidence = np.bincount(places, scores, bins) / divisors
    precision = np.bincount(places, correct, bins) / divisors
    gaps = np.nan_to_num(np.abs(confidence - precision))
    error = float((gaps * counts).sum() / max(1, counts.sum()))
    return Calibration(counts.tolist(), confidence.tolist(), precision.tolist(), error)
