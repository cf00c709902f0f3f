"""Differences between methods that were trained with the same seeds: estimates and standard errors.

A method has one AP for each seed, and for each seed one AP on every sample of the validation
images. Methods are compared by their differences within a seed and within a sample: what a seed or
an image does to both of them cancels. From these paired differences come the two standard errors of
`detector.evaluation.bootstrap`, which combines them to interval, p and verdict (Student's t for
each, MOVER for both).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from detector.evaluation.bootstrap import (
    LEVEL,
    Comparison,
    compare,
    margin_of_error,
    standard_error,
)

POWER, REPETITIONS = 0.8, 5000


class Sample(NamedTuple):
    """AP of one method: `figures` (S,) of its seeds, `draws` (S, B) of each seed on B samples of
    the validation images, the same samples for all methods; nan in the place of a missing seed."""

    figures: np.ndarray
    draws: np.ndarray


def effect(terms: Sequence[tuple[int, Sample]], count: int) -> Comparison | None:
    """A sum of samples with coefficients, paired by seed and image, of which there are `count`.

    [(1, a), (-1, b)] is a - b; with two conditions [(1, a2), (-1, a1), (-1, b2), (1, b1)] is how
    much more a changes than b. None without a seed that all of them have. The error of training is
    unknown (nan) with one seed. What an image and a seed do together is in both errors: the
    interval is rather too wide than too narrow.
    """
    per_seed = np.sum([k * sample.figures for k, sample in terms], axis=0)  # (S,)
    draws = np.sum([k * sample.draws for k, sample in terms], axis=0)  # (S, B)
    present = ~np.isnan(per_seed)
    seeds = int(present.sum())
    if not seeds:
        return None
    training = per_seed[present].std(ddof=1) / math.sqrt(seeds) if seeds > 1 else math.nan
    images = standard_error(draws[present].mean(axis=0), count)
    return compare(float(per_seed[present].mean()), float(training), images, seeds, count)


def minimal_detectable_difference(
    comparisons: Sequence[Comparison | None],
) -> tuple[float, int]:
    """The true difference that an ablation like this one shows in 4 of 5 repetitions, after
    correction for the number of comparisons, and for how many seeds that is: the fewest that a
    comparison has. nan without one of several seeds.

    Methods are taken to vary as those of the comparisons do on average (in squares). A repetition
    estimates the error of training anew, from as few seeds, and is off by noise: it shows a
    difference where its margin of error is less than what it finds. POWER of many drawn ones do.
    """
    known = [c for c in comparisons if c is not None and np.nanmax([c.training, c.images]) > 0]
    repeated = [c for c in known if c.seeds > 1 and not math.isnan(c.images)]
    if not repeated:
        return math.nan, 0
    tail, seeds, count = LEVEL / (2 * len(known)), *min((c.seeds, c.sample_size) for c in repeated)
    training, images = np.sqrt(np.square([(c.training, c.images) for c in repeated]).mean(axis=0))
    random = np.random.default_rng(0)
    estimates = training * np.sqrt(random.chisquare(seeds - 1, REPETITIONS) / (seeds - 1))
    margins = [margin_of_error(tail, e, images, seeds, count) for e in estimates]
    noise = random.normal(0, math.hypot(training, images), REPETITIONS)
    return float(np.quantile(margins - noise, POWER)), seeds
