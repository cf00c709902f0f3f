"""Intervals on made-up runs whose difference is known."""

import itertools
import math

import numpy as np
import pytest

from detector.config.errors import UserError
from detector.evaluation.bootstrap import (
    Comparison,
    bootstrap_ap,
    compare,
    compare_fixed,
    comparison_cells,
    full_ap,
    holm,
    image_weights,
    margin_of_error,
    standard_error,
)
from detector.evaluation.coco import coco_figures
from detector.evaluation.matches import Matches, match_all
from tests.test_coco_figures import random_set


def made_up(random: np.random.Generator, images: int, chance: float) -> dict[int, Matches]:
    """One class, one threshold; an object in every image, found with this chance, all scores
    above those of a wrong detection in every image: AP is about the share of objects found."""
    right = random.random(images) < chance
    scores = np.concatenate([np.linspace(1, 0.6, images)[right], np.linspace(0.5, 0.1, images)])
    places = np.concatenate([np.flatnonzero(right), np.arange(images)])
    correct = np.arange(len(scores)) < right.sum()
    one = Matches(
        places,
        scores,
        correct[None],
        np.zeros((1, len(scores)), bool),
        np.ones(images),
        np.arange(len(scores)),
        correct[None].astype(int),
    )
    return {1: one}


def test_weights_are_samples_with_replacement() -> None:
    weights = image_weights(50, 200)
    assert weights.shape == (200, 50)
    assert (weights.sum(axis=1) == 50).all()
    assert weights.mean() == 1
    assert np.array_equal(weights, image_weights(50, 200))
    assert not np.array_equal(weights, image_weights(50, 200, seed=1))


def test_intervals_cover_the_true_value_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    images, truth = 200, 0.4
    weights = image_weights(images, 300)
    covered = 0
    for _ in range(100):
        run = made_up(random, images, truth)
        found = compare_fixed(full_ap(run)[0], bootstrap_ap(run, weights)[0], images)
        covered += found.low <= truth + 0.005 and found.high >= truth - 0.005
    assert 88 <= covered <= 100


def test_pairing_narrows_the_interval() -> None:
    """The second run finds what the first finds, and one object in ten more."""
    random = np.random.default_rng(1)
    images = 200
    first = made_up(random, images, 0.5)
    right = np.isin(np.arange(images), first[1].images[first[1].correct[0]])
    more = right | (random.random(images) < 0.1)
    scores = np.concatenate([np.linspace(1, 0.6, images)[more], np.linspace(0.5, 0.1, images)])
    places = np.concatenate([np.flatnonzero(more), np.arange(images)])
    correct = (np.arange(len(scores)) < more.sum())[None]
    second = {
        1: first[1]._replace(
            images=places,
            scores=scores,
            correct=correct,
            ignored=np.zeros_like(correct),
            ids=np.arange(len(scores)),
            partners=correct.astype(int),
        )
    }
    weights = image_weights(images, 500)
    difference = full_ap(second)[0] - full_ap(first)[0]
    one, two = bootstrap_ap(first, weights)[0], bootstrap_ap(second, weights)[0]
    paired = compare_fixed(difference, two - one, images)
    unpaired = compare_fixed(difference, two - np.random.default_rng(2).permutation(one), images)
    assert paired.verdict == "higher"
    assert paired.high - paired.low < 0.6 * (unpaired.high - unpaired.low)


def test_the_same_detections_differ_by_nothing() -> None:
    ground_truth, results = random_set(3)
    run = match_all(ground_truth, results)
    images = len(ground_truth["images"])
    weights = image_weights(images, 50)
    same = compare_fixed(0.0, (bootstrap_ap(run, weights) - bootstrap_ap(run, weights))[0], images)
    assert same == Comparison(0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1, images)
    assert same.verdict == "no difference shown"
    summary = coco_figures(ground_truth, results, full=False).summary
    assert full_ap(run).tolist() == pytest.approx([summary["AP"], summary["AP50"]], abs=1e-12)


def test_margins_by_hand() -> None:
    """Quantiles of tables: t at 2.5 % is 12.706, 4.303, 2.093 and 1.960 with 1, 2, 19 and many
    degrees of freedom."""
    many = 10**6
    assert margin_of_error(0.025, 0.0, 0.01, 1, many) == pytest.approx(1.960 * 0.01, rel=1e-3)
    assert margin_of_error(0.025, 0.0, 0.01, 1, 20) == pytest.approx(2.093 * 0.01, rel=1e-3)
    assert margin_of_error(0.025, 0.01, 0.0, 3, 20) == pytest.approx(4.303 * 0.01, rel=1e-3)
    both = math.hypot(12.706 * 0.02, 1.960 * 0.01)  # squares are added
    assert margin_of_error(0.025, 0.02, 0.01, 2, many) == pytest.approx(both, rel=1e-3)
    unknown = margin_of_error(0.025, math.nan, 0.01, 1, many)
    assert unknown == pytest.approx(1.960 * 0.01, rel=1e-3)


def test_p_is_below_a_level_where_the_interval_excludes_zero() -> None:
    cases = itertools.product(((1, 0.0), (2, 0.003), (5, 0.02)), (0.01, 0.0), (2, 6, 12, 72, 5000))
    for (seeds, training), images, count in cases:
        if not training + images:
            continue
        errors = training, images, seeds, count
        margin = margin_of_error(0.025, *errors)
        at_the_edge = compare(margin, *errors)
        assert at_the_edge.p == pytest.approx(0.05, abs=1e-6)
        assert at_the_edge.low == pytest.approx(0, abs=1e-12)
        assert compare(1.01 * margin, *errors).p < 0.05
        assert compare(-0.99 * margin, *errors).p > 0.05
    assert compare(0.0, 0.01, 0.01, 3, 20).p == 1
    assert compare(1.0, 0.0, 1e-9, 1, 10**4).p == 0  # beyond what a float can hold


@pytest.mark.parametrize("images", [6, 12, 72])
def test_few_images_are_not_surer_than_many(images: int) -> None:
    """The mean of normal values: with quantiles of the normal distribution, and the plain spread of
    the samples, 12 images would be called different in 9 of 100 repetitions of nothing."""
    random = np.random.default_rng(images)
    weights = image_weights(images, 400) / images
    p = []
    for _ in range(2000):
        values = random.normal(0, 1, images)
        p.append(compare_fixed(values.mean(), weights @ values, images).p)
    assert 0.035 < np.mean(np.array(p) < 0.05) < 0.065
    assert np.mean(np.array(p) < 0.01) < 0.02


def test_without_two_samples_nothing_is_known() -> None:
    unknown = compare_fixed(0.5, np.array([0.4, np.nan, np.nan]), 20)
    assert (unknown.low, unknown.high, unknown.p) == (-math.inf, math.inf, 1)
    assert unknown.verdict == "no difference shown"
    assert compare_fixed(0.5, np.array([0.4, 0.6]), 1).p == 1  # a single image


def of(p: float, difference: float = 0.1, training: float = 0.1) -> Comparison:
    return Comparison(difference, 0.0, 0.2, p, p, training, 0.1, 3, 20)


def test_holm_by_hand() -> None:
    found = holm([of(0.01), None, of(0.04), of(0.03, -0.1), of(0.5), of(0.001, -0.1)])
    assert found[1] is None
    # sorted 0.001, 0.01, 0.03, 0.04, 0.5: times 5, 4, 3, 2, 1 and never falling
    adjusted = [comparison.adjusted for comparison in found if comparison is not None]
    assert adjusted == pytest.approx([0.04, 0.09, 0.09, 0.5, 0.005])
    verdicts = [comparison.verdict for comparison in found if comparison is not None]
    assert verdicts == ["higher", *["no difference shown"] * 3, "lower"]
    assert [comparison.p for comparison in found if comparison] == [0.01, 0.04, 0.03, 0.5, 0.001]


def test_an_unknown_error_of_training_gives_no_verdict() -> None:
    one_seed = compare(0.5, math.nan, 0.001, 1, 200)
    assert one_seed.p < 1e-6
    assert one_seed.verdict == "one seed: no verdict"
    assert comparison_cells(one_seed)[1:] == [None, "one seed: no verdict"]
    assert compare(0.5, 0.0, 0.001, 1, 200).verdict == "higher"  # fixed detections: there is none


def test_cells_of_a_table() -> None:
    comparison = Comparison(0.0123, -0.001, 0.0256, 0.03, 0.06, 0.0, 0.01, 1, 20)
    cells = comparison_cells(comparison)
    assert cells == ["+0.012 (-0.001 to +0.026)", "0.060", "no difference shown"]
    assert comparison_cells(comparison._replace(adjusted=0.0009), 4)[:2] == [
        "+0.0123 (-0.0010 to +0.0256)",
        "< 0.001",
    ]
    assert comparison_cells(None) == ["the baseline", "", ""]
    assert comparison_cells(None, is_baseline=False) == ["no seed in common", "", ""]


def test_samples_without_an_object_are_left_out() -> None:
    values = np.array([0.1, 0.2, np.nan, 0.6])
    expected = np.std([0.1, 0.2, 0.6], ddof=1) * math.sqrt(5 / 4)
    assert standard_error(values, 5) == pytest.approx(expected)


def test_one_draw_has_no_spread() -> None:
    with pytest.raises(UserError, match="--draws: intervals need 2 draws"):
        image_weights(10, 1)
