"""What the figures of several runs can say: differences with intervals, corrected for their number.

Two kinds of luck are in a difference of average precision: that of training (initial weights,
order, augmentation: another seed gives another figure) and that of the validation images (others
would give another figure, the same for all seeds). Both are measured: the first from the spread of
the paired differences over seeds, the second by a bootstrap over images.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm
from scipy.stats import t as student

LEVEL, POWER = 0.05, 0.8


class Sample(NamedTuple):
    """AP of one method: `figures` (S,) of its seeds, `draws` (S, B) of each for B draws of the
    validation images, the same draws for all methods; nan in the place of a missing seed."""

    figures: np.ndarray
    draws: np.ndarray


class Effect(NamedTuple):
    """A difference, its 95 % interval [low, high], p of "there is none", p after `holm`.

    `training`, `images`: its standard errors from the two kinds of luck · `seeds`: how many pairs
    it is of; with one pair the luck of training is unknown and not in the interval.
    """

    difference: float
    low: float
    high: float
    p: float
    adjusted: float
    training: float
    images: float
    seeds: int

    @property
    def verdict(self) -> str:
        """What may be said when all comparisons are looked at together; of one seed nothing."""
        if self.seeds == 1:
            return "one seed, not judged"
        if not self.adjusted < LEVEL:
            return "no difference shown"
        return "higher" if self.difference > 0 else "lower"


def reach(tail: float, training: float, images: float, seeds: int) -> float:
    """How far the estimate of a difference strays from the true one, to one side, in a share `tail`
    of all cases.

    Of training by Student's t, as its error is estimated from few seeds; of images by the normal
    distribution, as it is from many draws. Their squares add up (Zou & Donner's MOVER, 2008), which
    keeps its promise with 2 seeds, where Satterthwaite's degrees of freedom do not.
    """
    seen = student.isf(tail, seeds - 1) * training if seeds > 1 else 0.0
    return math.hypot(seen, norm.isf(tail) * images)


def effect(terms: Sequence[tuple[int, Sample]]) -> Effect | None:
    """The sum of samples with coefficients, paired by seed: [(1, a), (-1, b)] is a - b, and with
    two conditions [(1, a2), (-1, a1), (-1, b2), (1, b1)] how much more a loses than b. None without
    a seed that all have. What image and seed do together is counted in both errors: the interval
    is rather too wide than too narrow."""
    each = np.sum([k * sample.figures for k, sample in terms], axis=0)  # (S,)
    draws = np.sum([k * sample.draws for k, sample in terms], axis=0)  # (S, B)
    there = ~np.isnan(each)
    count = int(there.sum())
    if not count:
        return None
    difference = float(each[there].mean())
    training = float(each[there].std(ddof=1)) / math.sqrt(count) if count > 1 else 0.0
    images = float(draws[there].mean(axis=0).std(ddof=1))
    if max(training, images) < 1e-12:  # the very same detections
        return Effect(difference, difference, difference, 1.0, 1.0, 0.0, 0.0, count)
    luck = (training, images, count)
    low, high = difference - reach(LEVEL / 2, *luck), difference + reach(LEVEL / 2, *luck)

    def beyond(tail: float) -> float:
        return reach(tail, *luck) - abs(difference)

    p = 1.0
    if difference:
        p = 2 * brentq(beyond, 1e-300, 0.5, xtol=1e-15) if beyond(1e-300) > 0 else 0.0
    return Effect(difference, low, high, p, p, *luck)


def holm(effects: Sequence[Effect | None]) -> list[Effect | None]:
    """The same with `adjusted`: those below 0.05 may all be called real with a chance of 0.05 that
    any of them is not (Holm, "A simple sequentially rejective multiple test procedure", 1979)."""
    order = sorted((one.p, k) for k, one in enumerate(effects) if one is not None)
    found = list(effects)
    highest = 0.0
    for rank, (p, k) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        one = found[k]
        assert one is not None
        found[k] = one._replace(adjusted=highest)
    return found


def smallest(effects: Sequence[Effect | None]) -> float:
    """The difference that an ablation like this one finds in 4 of 5 cases, after correction for the
    number of comparisons: the median over them. nan without a comparison."""
    known = [one for one in effects if one is not None and max(one.training, one.images) > 0]
    if not known:
        return math.nan
    tails = LEVEL / (2 * len(known)), 1 - POWER
    luck = [(one.training, one.images, one.seeds) for one in known]
    return float(np.median([sum(reach(tail, *one) for tail in tails) for one in luck]))
