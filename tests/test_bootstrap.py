"""Intervals on made-up runs whose difference is known."""

import numpy as np
import pytest

from detector.evaluation.bootstrap import Interval, image_weights, interval, resampled, whole
from detector.evaluation.coco import coco_figures
from detector.evaluation.matches import Matches, match_all
from tests.test_evaluation import random_set


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
        found = interval(whole(run)[0], resampled(run, weights)[0])
        covered += found.low <= truth + 0.005 and found.high >= truth - 0.005
    assert 88 <= covered <= 100


def test_pairing_narrows_the_interval() -> None:
    """The second run finds what the first finds, and one object in twenty more."""
    random = np.random.default_rng(1)
    images = 200
    first = made_up(random, images, 0.5)
    right = np.isin(np.arange(images), first[1].images[first[1].correct[0]])
    more = right | (random.random(images) < 0.05)
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
    difference = whole(second)[0] - whole(first)[0]
    one, two = resampled(first, weights)[0], resampled(second, weights)[0]
    paired = interval(difference, two - one)
    unpaired = interval(difference, two - np.random.default_rng(2).permutation(one))
    assert paired.verdict == "higher"
    assert paired.high - paired.low < 0.6 * (unpaired.high - unpaired.low)


def test_equal_runs_differ_by_nothing() -> None:
    ground_truth, results = random_set(3)
    run = match_all(ground_truth, results)
    weights = image_weights(len(ground_truth["images"]), 50)
    draws = resampled(run, weights) - resampled(run, weights)
    assert interval(0.0, draws[0]) == Interval(0.0, 0.0, 0.0)
    assert interval(0.0, draws[0]).verdict == "no difference shown"
    summary = coco_figures(ground_truth, results, full=False).summary
    assert whole(run).tolist() == pytest.approx([summary["AP"], summary["AP50"]])


def test_verdicts() -> None:
    assert Interval(0.1, 0.05, 0.2).verdict == "higher"
    assert Interval(-0.1, -0.2, -0.05).verdict == "lower"
    assert Interval(0.1, -0.01, 0.2).verdict == "no difference shown"
