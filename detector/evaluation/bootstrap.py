"""Is a difference of average precision between two runs real? Paired bootstrap over images. (That
between methods, of several seeds each: `detector.ablation.effects`.)"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from detector.evaluation.matches import Matches, mean_precision

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


def resampled(run: Run, weights: np.ndarray) -> np.ndarray:
    """AP and AP50 (2, B) of a run for every draw of images."""
    return np.array(mean_precision(run, weights))


def whole(run: Run) -> np.ndarray:
    """AP and AP50 (2,) of a run on all images."""
    return np.array(mean_precision(run))[:, 0]


def interval(difference: float, draws: np.ndarray) -> Interval:
    """Of the difference on all images and its draws (B,)."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(float(difference), float(low), float(high))
