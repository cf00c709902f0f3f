"""The statistics of ablations on made-up runs of which the truth is known."""

import math

import numpy as np
import pytest

from detector.ablation.effects import Sample, effect, minimal_detectable_difference
from detector.evaluation.bootstrap import Comparison, holm

IMAGES = 2000  # so many that their error is as good as known


def made_up(
    random: np.random.Generator,
    difference: float,
    seeds: int,
    images: float,
    training: float,
    shared: float = 0.05,
) -> tuple[Sample, Sample]:
    """Two methods whose seeds go up and down together by `shared`, and apart by `training`; other
    images would move their difference by `images`, which draws of them show."""
    together = 0.5 + random.normal(0, shared, seeds)
    apart = difference + random.normal(0, images) + random.normal(0, training, seeds)
    moved = random.normal(0, images, 200)
    one = Sample(together + apart, (together + apart)[:, None] + moved)
    return one, Sample(together, np.repeat(together[:, None], 200, 1))


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(("images", "training"), [(0.01, 0.01), (0.002, 0.02), (0.02, 0.002)])
def test_intervals_hold_the_truth_as_often_as_they_say(
    seeds: int, images: float, training: float
) -> None:
    random = np.random.default_rng(seeds)
    held = raised = 0
    for _ in range(500):
        one, other = made_up(random, 0.01, seeds, images, training)
        found = effect([(1, one), (-1, other)], IMAGES)
        assert found is not None
        held += found.low <= 0.01 <= found.high
        none = effect([(1, one._replace(figures=one.figures - 0.01)), (-1, other)], IMAGES)
        assert none is not None
        raised += none.verdict != "no difference shown"
    assert held / 500 > 0.93  # 0.95, less twice the standard error of 500 trials
    assert raised / 500 < 0.07


def test_intervals_are_not_wider_than_they_need_be() -> None:
    """With one source of variance alone it is the textbook's interval."""
    figures = np.array([0.50, 0.52, 0.57])
    zero = Sample(np.zeros(3), np.zeros((3, 200)))
    found = effect([(1, Sample(figures, np.repeat(figures[:, None], 200, 1))), (-1, zero)], IMAGES)
    assert found is not None
    error = figures.std(ddof=1) / math.sqrt(3)
    assert found.high - found.difference == pytest.approx(4.303 * error, rel=1e-3)  # t, 2 degrees
    moved = np.random.default_rng(0).normal(0, 0.01, 200)
    found = effect([(1, Sample(np.full(3, 0.5), np.full((3, 1), 0.5) + moved)), (-1, zero)], IMAGES)
    assert found is not None
    assert found.high - found.difference == pytest.approx(1.960 * moved.std(ddof=1), rel=1e-3)


def test_pairing_by_seed_takes_out_what_seeds_share() -> None:
    one, other = made_up(np.random.default_rng(2), 0.02, 5, 0.001, 0.002, shared=0.1)
    paired = effect([(1, one), (-1, other)], IMAGES)
    mixed = effect([(1, one), (-1, other._replace(figures=other.figures[::-1]))], IMAGES)
    assert paired is not None
    assert mixed is not None
    assert paired.verdict == "higher"
    assert mixed.verdict == "no difference shown"
    assert paired.high - paired.low < 0.1 * (mixed.high - mixed.low)


def test_only_seeds_that_all_have_count() -> None:
    one, other = made_up(np.random.default_rng(3), 0.02, 4, 0.001, 0.002)
    gap = one.figures.copy()
    gap[1] = np.nan
    found = effect([(1, one._replace(figures=gap)), (-1, other)], IMAGES)
    part = [0, 2, 3]
    expected = effect(
        [(k, Sample(s.figures[part], s.draws[part])) for k, s in ((1, one), (-1, other))], IMAGES
    )
    assert found == expected
    assert found is not None
    assert found.seeds == 3
    nothing = Sample(np.full(4, np.nan), one.draws)
    assert effect([(1, nothing), (-1, other)], IMAGES) is None


def test_of_one_seed_the_error_of_training_is_unknown() -> None:
    one, other = made_up(np.random.default_rng(4), 0.02, 1, 0.001, 0.5)
    found = effect([(1, one), (-1, other)], IMAGES)
    assert found is not None
    assert math.isnan(found.training)
    assert found.high - found.difference == pytest.approx(1.960 * found.images, rel=1e-3)
    assert found.verdict == "one seed: no verdict"


def test_the_same_detections_differ_by_nothing() -> None:
    one, _ = made_up(np.random.default_rng(5), 0.0, 3, 0.01, 0.01)
    found = effect([(1, one), (-1, one)], IMAGES)
    assert found is not None
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert found.verdict == "no difference shown"


def test_a_change_that_both_have_is_none() -> None:
    random = np.random.default_rng(6)
    a1, b1 = made_up(random, 0.02, 3, 0.001, 0.001)
    a2, b2 = (s._replace(figures=s.figures - 0.1) for s in (a1, b1))
    found = effect([(1, a2), (-1, a1), (-1, b2), (1, b1)], IMAGES)
    assert found is not None
    assert found.difference == pytest.approx(0, abs=1e-12)


def test_correction_keeps_false_alarms_rare() -> None:
    """Ten comparisons of nothing: uncorrected a third of such ablations raise an alarm."""
    random = np.random.default_rng(7)
    alarms = plain = 0
    for _ in range(200):
        pairs = [made_up(random, 0.0, 3, 0.002, 0.01) for _ in range(10)]
        found = holm([effect([(1, one), (-1, other)], IMAGES) for one, other in pairs])
        alarms += any(one is not None and one.verdict != "no difference shown" for one in found)
        plain += any(one is not None and one.p < 0.05 for one in found)
    assert plain / 200 > 0.25
    assert alarms / 200 < 0.09


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("images", [0.0, 0.01])
def test_the_smallest_difference_is_found_in_four_of_five(seeds: int, images: float) -> None:
    """Of three that are compared, where methods vary as they do on average. With few seeds an
    ablation that estimates a small error is lucky, and one that estimates a large one blind."""
    random = np.random.default_rng(8)

    def compared(difference: float, times: int) -> list[Comparison]:
        pairs = [made_up(random, difference, seeds, images, 0.01) for _ in range(times)]
        found = [effect([(1, a), (-1, b)], IMAGES) for a, b in pairs]
        return [one for one in found if one is not None]

    many = compared(0.0, 400)
    errors = np.sqrt(np.square([(one.training, one.images) for one in many]).mean(axis=0))
    typical = many[0]._replace(training=errors[0], images=errors[1])
    least = minimal_detectable_difference([None, typical, typical, typical])[0]
    shown = [3 * one.p < 0.05 for one in compared(least, 400)]  # the first step of Holm
    assert 0.73 < np.mean(shown) < 0.87


def test_without_seeds_no_smallest_difference_is_known() -> None:
    random = np.random.default_rng(9)
    one, other = made_up(random, 0.0, 1, 0.01, 0.01)
    found = effect([(1, one), (-1, other)], IMAGES)
    assert math.isnan(minimal_detectable_difference([None, found])[0])


def test_the_smallest_difference_is_of_the_average_method_and_the_fewest_seeds() -> None:
    """A comparison of one seed is corrected for as well, and knows nothing of training."""
    errors = ((0.01, 0.004, 3), (0.002, 0.01, 5), (math.nan, 0.5, 1))
    calm, wild, lone = (Comparison(0, 0, 0, 1, 1, *error, IMAGES) for error in errors)
    training, images = math.hypot(0.01, 0.002), math.hypot(0.004, 0.01)
    squares = (training / math.sqrt(2), images / math.sqrt(2), 3)
    average = Comparison(0, 0, 0, 1, 1, *squares, IMAGES)
    found = minimal_detectable_difference([calm, lone, wild])
    assert found == pytest.approx(minimal_detectable_difference([average] * 3))
    assert found[1] == 3


def test_the_error_over_images_is_of_the_mean_over_seeds_and_paired() -> None:
    """What an image does to one seed alone, it does less to their mean; what it does to both
    methods, it does not do to their difference."""
    random = np.random.default_rng(10)
    shared, apart = random.normal(0, 0.1, 200), random.normal(0, 0.01, (3, 200))
    one = Sample(np.full(3, 0.5), 0.5 + shared + apart)
    found = effect([(1, one), (-1, Sample(np.full(3, 0.4), np.full((3, 200), 0.4) + shared))], 20)
    assert found is not None
    expected = apart.mean(axis=0).std(ddof=1) * math.sqrt(20 / 19)
    assert found.images == pytest.approx(expected, rel=1e-6)
