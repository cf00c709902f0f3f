"""Is a difference of average precision real? One interval, one correction and one verdict for all
that is compared: methods trained with several seeds, and fixed detections of the same images.

A difference has two sources of variance, and a standard error from each:

* training: another seed (initial weights, order, augmentation) gives another AP. Estimated from the
  few differences between seeds, so its error follows Student's t.
* images: other validation images give another AP. Estimated by a bootstrap, from the spread of the
  difference over many samples of the images with replacement. Of few images the spread of samples
  is too small and itself uncertain: for a mean, Student's t with one degree of freedom less than
  there are images is exact. Where a few images make the difference, far tails remain too short.

`margin_of_error` combines the two. Two sets of detections of one net do not vary with
training: that standard error is 0. With one seed of each method it is unknown (nan), and there is
no verdict.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtrit  # quantiles of Student's t

from detector.config.errors import UserError
from detector.evaluation.matches import Matches, mean_precision

LEVEL = 0.05
LEAST = 1e-200  # of tails; of smaller ones scipy's quantiles of t are infinite, with a wrong sign


class Comparison(NamedTuple):
    """A difference, its 95 % interval [low, high] and the p-value of "there is none".

    `adjusted`: p after `holm`, `p` itself before · `training`, `images`: standard errors of the
    difference, `training` nan where it is unknown · `seeds`: pairs of trainings behind it, 1 for
    fixed detections · `sample_size`: images behind it. Where the error over images is not known
    (nan) the interval has no end, and p is 1.
    """

    difference: float
    low: float
    high: float
    p: float
    adjusted: float
    training: float
    images: float
    seeds: int
    sample_size: int

    @property
    def verdict(self) -> str:
        """What the adjusted p-value allows to say."""
        if math.isnan(self.training):
            return "one seed: no verdict"
        if not self.adjusted < LEVEL:
            return "no difference shown"
        return "higher" if self.difference > 0 else "lower"

    def interval(self, digits: int = 3) -> str:
        bounds = f"{self.low:+.{digits}f} to {self.high:+.{digits}f}"
        return f"{self.difference:+.{digits}f} ({bounds})"


def image_weights(images: int, draws: int, seed: int = 0) -> np.ndarray:
    """(draws, images): how often each image is in a sample of as many images, with replacement.
    Raises UserError for fewer than 2 draws, which have no spread."""
    if draws < 2:
        raise UserError(f"--draws: intervals need 2 draws of the images or more, not {draws}")
    random = np.random.default_rng(seed)
    return random.multinomial(images, np.full(images, 1 / images), size=draws)


def full_ap(matches: Mapping[int, Matches]) -> np.ndarray:
    """AP and AP50 (2,) on all images."""
    return np.array(mean_precision(matches))[:, 0]


def bootstrap_ap(matches: Mapping[int, Matches], weights: np.ndarray) -> np.ndarray:
    """AP and AP50 (2, B) on each of B samples of the images (B, I)."""
    return np.array(mean_precision(matches, weights))


def standard_error(draws: np.ndarray, count: int) -> float:
    """Of a figure of `count` images whose values on samples of them are `draws` (B,); nan, a sample
    without any object, is left out, and is the result of fewer than two others or two images."""
    known = draws[~np.isnan(draws)]
    if len(known) < 2 or count < 2:
        return math.nan
    # the spread within a sample of n is 1 - 1 / n of that between samples
    return float(known.std(ddof=1)) * math.sqrt(count / (count - 1))


def margin_of_error(tail: float, training: float, images: float, seeds: int, count: int) -> float:
    """How far a difference lies above its true value, or below it, in at most a share `tail` of all
    repetitions of the experiment.

    Each source of variance has its own margin, a quantile of Student's t times the standard error:
    with `seeds` - 1 degrees of freedom for training, `count` - 1 for images. The two are added in
    squares, as MOVER does (Zou and Donner, "Construction of confidence limits about effect
    measures", Statistics in Medicine, 2008): this holds its level with 2 seeds, where the degrees
    of freedom of Satterthwaite do not. An unknown `training` (nan) is left out.
    """
    of_images = float(stdtrit(max(1, count - 1), tail)) * images
    if seeds < 2:
        return abs(of_images)
    return math.hypot(float(stdtrit(seeds - 1, tail)) * training, of_images)


def compare(
    difference: float, training: float, images: float, seeds: int, count: int
) -> Comparison:
    """A difference and its standard errors -> interval and two-sided p, not yet corrected.

    p is twice the tail whose margin of error is the difference, so that p < 0.05 exactly where the
    interval excludes 0. Without any variance (the very same detections) p is 1.
    """
    errors = training, images, seeds, count
    if math.isnan(images):
        return Comparison(difference, -math.inf, math.inf, 1.0, 1.0, *errors)
    if not np.nanmax([training, images]) >= 1e-12:
        return Comparison(difference, difference, difference, 1.0, 1.0, *errors)

    def excess(tail: float) -> float:
        return margin_of_error(tail, *errors) - abs(difference)

    p = 1.0
    if difference:
        p = 2 * float(brentq(excess, LEAST, 0.5, xtol=1e-15)) if excess(LEAST) > 0 else 0.0
    margin = margin_of_error(LEVEL / 2, *errors)
    return Comparison(difference, difference - margin, difference + margin, p, p, *errors)


def compare_fixed(difference: float, draws: np.ndarray, count: int) -> Comparison:
    """Two sets of detections of the same `count` images, of which only the images vary. `draws`
    (B,): the difference on each sample of the images."""
    return compare(float(difference), 0.0, standard_error(draws, count), 1, count)


def holm(comparisons: Sequence[Comparison | None]) -> list[Comparison | None]:
    """The same with `adjusted`, corrected for the number of those that are shown together.

    All whose adjusted p is below 0.05 may be called different with a probability of at most 0.05
    that any of them is not (Holm, "A simple sequentially rejective multiple test procedure", 1979).
    None (nothing to compare) stays and does not count.
    """
    order = sorted((c.p, place) for place, c in enumerate(comparisons) if c is not None)
    corrected = list(comparisons)
    highest = 0.0
    for rank, (p, place) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        comparison = comparisons[place]
        assert comparison is not None
        corrected[place] = comparison._replace(adjusted=highest)
    return corrected


def comparison_cells(
    comparison: Comparison | None, digits: int = 3, is_baseline: bool = True
) -> list[str | None]:
    """Cells of a table: the difference with its interval, adjusted p, verdict. None is the row that
    all others are compared with, or else one that has no seed in common with it."""
    if comparison is None:
        return ["the baseline" if is_baseline else "no seed in common", "", ""]
    p = f"{comparison.adjusted:.3f}" if comparison.adjusted >= 0.001 else "< 0.001"
    unknown = math.isnan(comparison.training)
    return [comparison.interval(digits), None if unknown else p, comparison.verdict]
