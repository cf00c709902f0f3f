"""Is a difference of average precision real? Paired bootstrap over images, and over seeds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from detector.matches import Matches, mean_precision

Run = Mapping[int, Matches]  # category id -> matches; all runs over the same images


class Interval(NamedTuple):
    """A difference and the bounds between which 95 % of the draws lie."""

    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        if self.low <= 0 <= self.high:
            return "no difference shown"
        return "higher" if self.difference > 0 else "lower"


def image_weights(images: int, draws: int, seed: int = 0) -> np.ndarray:
    """(draws, images): how often each image is in a sample of as many images, with replacement."""
    random = np.random.default_rng(seed)
    return random.multinomial(images, np.full(images, 1 / images), size=draws)


def resampled(runs: Sequence[Run], weights: np.ndarray, seed: int = 0) -> np.ndarray:
    """AP and AP50 (2, B) of the mean of some runs (the seeds of one method) for every draw of
    images. Several seeds are drawn anew, too; with the same `seed` the draws of another method with
    as many seeds are paired with these."""
    each = np.array([mean_precision(run, weights) for run in runs])  # (S, 2, B)
    if len(runs) == 1:
        return each[0]
    random = np.random.default_rng([seed, 1])
    chosen = random.integers(len(runs), size=(len(runs), weights.shape[0]))  # (S, B)
    return np.take_along_axis(each, chosen[:, None], axis=0).mean(axis=0)


def whole(runs: Sequence[Run]) -> np.ndarray:
    """AP and AP50 (2,) of the mean of some runs on all images."""
    return np.mean([np.array(mean_precision(run))[:, 0] for run in runs], axis=0)


def interval(difference: float, draws: np.ndarray) -> Interval:
    """Of the difference on all images and its draws (B,)."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(float(difference), float(low), float(high))
