"""Retrieval by hand, and against plain loops."""

import math
from typing import Any

import numpy as np
import pytest

from detector.evaluation import retrieval
from detector.evaluation.retrieval import (
    Objects,
    Ranking,
    identity_figures,
    overlap_needed,
    rank_detections,
    rank_truth,
    sample_tpr,
    tpr_at_far,
)


def objects(
    angles: list[float], identities: list[int], image_ids: list[int], boxes: Any = None
) -> Objects:
    """Vectors on the unit circle at these degrees, of any length."""
    radians = np.radians(angles)
    lengths = 1 + np.arange(len(angles)) % 3
    vectors = np.stack([np.cos(radians), np.sin(radians)], 1) * lengths[:, None]
    if boxes is None:
        boxes = [[50 * k, 0, 40, 40] for k in range(len(angles))]
    return Objects(vectors, np.array(identities), np.array(image_ids), np.array(boxes, float))


def random_objects(seed: int, count: int = 60, images: int = 12) -> Objects:
    random = np.random.default_rng(seed)
    identities = random.integers(-1, 8, count)
    vectors = random.normal(size=(count, 4)) + 2 * np.eye(8, 4)[identities]
    boxes = np.concatenate(
        [random.uniform(0, 200, (count, 2)), random.uniform(10, 60, (count, 2))], 1
    )
    return Objects(vectors, identities, random.integers(0, images, count), boxes)


def detections_of(truth: Objects, seed: int) -> Objects:
    """Most objects twice, a little off, with vectors much like theirs; and some more anywhere."""
    random = np.random.default_rng(seed)
    rows = np.repeat(random.permutation(len(truth.boxes))[: len(truth.boxes) * 4 // 5], 2)
    other = random_objects(seed + 100, 30)
    boxes = truth.boxes[rows] + random.normal(0, 3, (len(rows), 4))
    vectors = truth.vectors[rows] + random.normal(0, 0.5, (len(rows), 4))
    return Objects(
        np.concatenate([vectors, other.vectors]),
        np.full(len(rows) + 30, -1),
        np.concatenate([truth.image_ids[rows], other.image_ids]),
        np.concatenate([boxes.clip(1), other.boxes]),
    )


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def iou(a: list[float], b: list[float]) -> float:
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(0.0, w) * max(0.0, h)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def slow_ranking(truth: Objects, gallery: Objects | None) -> dict[int, tuple[float, ...]]:
    """Row of the query -> rank-1, rank-5, AP, AP x recall; `gallery` None: the truth itself."""
    result = {}
    against = truth if gallery is None else gallery
    for q, identity in enumerate(truth.identities):
        wanted = [
            k
            for k, other in enumerate(truth.identities)
            if other == identity >= 0 and truth.image_ids[k] != truth.image_ids[q]
        ]
        if not wanted:
            continue
        similarity = [cosine(truth.vectors[q], v) for v in against.vectors]
        right: set[int] = set()
        for k in wanted:
            if gallery is None:
                right.add(k)
                continue
            box = truth.boxes[k].tolist()
            needed = min(0.5, box[2] * box[3] / (box[2] + 10) / (box[3] + 10))
            free = [
                (similarity[d], d)
                for d in range(len(gallery.boxes))
                if gallery.image_ids[d] == truth.image_ids[k]
                and iou(box, gallery.boxes[d].tolist()) >= needed
                and d not in right
            ]
            if free:
                right.add(max(free)[1])
        order = sorted(
            (d for d in range(len(similarity)) if against.image_ids[d] != truth.image_ids[q]),
            key=lambda d: -similarity[d],
        )
        places = [place for place, d in enumerate(order, 1) if d in right]
        precision = [number / place for number, place in enumerate(places, 1)]
        result[q] = (
            float(1 in places),
            float(any(place <= 5 for place in places)),
            sum(precision) / max(1, len(places)),
            sum(precision) / len(wanted),
        )
    return result


def same(ranking: Ranking, slow: dict[int, tuple[float, ...]]) -> None:
    assert ranking.rows.tolist() == list(slow)
    np.testing.assert_allclose(np.stack(ranking[1:], 1), list(slow.values()), rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_ranking_against_plain_loops(seed: int) -> None:
    truth = random_objects(seed)
    ranking = rank_truth(truth)
    same(ranking, slow_ranking(truth, None))
    assert 0.1 < ranking.ap.mean() < 0.95
    assert (ranking.ap == ranking.ap_recall).all()  # every object is in the gallery
    detections = detections_of(truth, seed)
    ranking = rank_detections(truth, detections)
    same(ranking, slow_ranking(truth, detections))
    assert (ranking.ap_recall < ranking.ap).any()  # some were not detected


def test_ranking_by_hand() -> None:
    # identity 7 at 0 degrees in image 1, 10 in image 2, 50 in image 3; between them others
    truth = objects([0, 10, 50, 5, 21, 1], [7, 7, 7, 3, -1, 7], [1, 2, 3, 2, 3, 1])
    ranking = rank_truth(truth)
    assert ranking.rows.tolist() == [0, 1, 2, 5]  # 3 is in no other image
    # from 0: 5 (wrong), 10, 21 (wrong, without identity), 50; its own image is left out
    assert ranking.rank1.tolist() == [0, 1, 1, 0]
    assert ranking.rank5.tolist() == [1, 1, 1, 1]
    assert ranking.ap[0] == pytest.approx((1 / 2 + 2 / 4) / 2)
    # from 10: 1, 0, 21 (wrong), 50
    assert ranking.ap[1] == pytest.approx((1 / 1 + 2 / 2 + 3 / 4) / 3)


def test_search_by_hand() -> None:
    truth = objects([0, 0, 0], [7, 7, 7], [1, 2, 3], boxes=[[0, 0, 40, 40]] * 3)
    # image 2: two detections on the object, of which the one at 3 degrees is the right one; image
    # 3: none that overlaps enough
    boxes = [[1, 1, 40, 40], [0, 0, 40, 40], [30, 30, 40, 40], [0, 0, 40, 40]]
    detections = objects([3, 6, 1, 0], [-1] * 4, [2, 2, 3, 1], boxes)
    ranking = rank_detections(truth, detections)
    assert ranking.rows.tolist() == [0, 1, 2]
    # from image 1: 1 degree (wrong place), 3 (right), 6 (the same object again: wrong)
    assert (ranking.rank1[0], ranking.rank5[0]) == (0, 1)
    assert ranking.ap[0] == pytest.approx(1 / 2)
    assert ranking.ap_recall[0] == pytest.approx(1 / 2 / 2)  # one of two objects was detected
    nothing = Objects(*(part[:0] for part in detections))
    ranking = rank_detections(truth, nothing)
    assert ranking.ap.tolist() == ranking.ap_recall.tolist() == ranking.rank5.tolist() == [0] * 3


def test_a_detection_shows_one_object() -> None:
    """Two objects of the identity in an image, found by one detection, by two, by three."""
    boxes = [[0, 0, 40, 40], [0, 0, 40, 40], [2, 0, 40, 40]]
    truth = objects([0, 0, 0], [7, 7, 7], [1, 2, 2], boxes)
    for count, ap, ap_recall in ((1, 1, 1 / 2), (2, 1, 1), (3, 1, 1)):
        near = [[1, 0, 40, 40]] * count
        detections = objects([5, 8, 11][:count], [-1] * count, [2] * count, near)
        ranking = rank_detections(truth, detections)
        assert (ranking.ap[0], ranking.ap_recall[0]) == (ap, ap_recall)


def test_small_objects_need_less_overlap() -> None:
    # 10 x 10: 100 / 400; from 24.1 x 24.1 on a half: 24.1^2 / 34.1^2 = 0.4995
    needed = overlap_needed(np.array([[0, 0, 10, 10], [5, 5, 24.1, 24.1], [0, 0, 100, 50]], float))
    assert needed == pytest.approx([0.25, 0.4995, 0.5], abs=1e-4)


def test_nobody_to_be_found_again() -> None:
    truth = objects([0, 1, 2], [0, 1, -1], [1, 2, 3])
    figures = identity_figures(truth, truth, draws=10)
    assert figures.queries == 0
    assert np.isnan(list(figures.values.values())).all()
    assert figures.margins == {}


@pytest.mark.parametrize("draws", [0, 10])
@pytest.mark.parametrize(
    ("identities", "image_ids", "known"),
    [
        ([], [], set()),
        ([-1, -1], [1, 2], set()),
        ([0, 1], [1, 1], set()),  # in the same image
        ([0, 0, -1], [1, 2, 3], {"rank1", "rank5", "mAP"}),
    ],
)
def test_without_a_pair_of_two_identities_there_is_no_rate(
    identities: list[int], image_ids: list[int], known: set[str], draws: int
) -> None:
    boxes = [[0, 0, 40, 40]] * len(identities)
    truth = objects([0.0] * len(identities), identities, image_ids, np.reshape(boxes, (-1, 4)))
    figures = identity_figures(truth, draws=draws)
    assert {name for name, value in figures.values.items() if not np.isnan(value)} == known
    assert figures.margins.keys() <= known


def slow_tpr(truth: Objects, weights: list[float], rate: float) -> float:
    """The lowest threshold that at most a share `rate` of the impostors exceeds."""
    right, wrong = [], []
    for a in range(len(truth.identities)):
        for b in range(len(truth.identities)):
            if truth.image_ids[a] == truth.image_ids[b] or -1 in truth.identities[[a, b]]:
                continue
            pairs = right if truth.identities[a] == truth.identities[b] else wrong
            pairs.append((cosine(truth.vectors[a], truth.vectors[b]), weights[a]))
    total = sum(weight for _, weight in wrong)
    if rate * total < 1:
        return math.nan
    thresholds = [score for score, _ in wrong] + [-2.0]
    allowed = [
        t for t in thresholds if sum(w for score, w in wrong if score > t + 1e-6) <= rate * total
    ]
    passed = sum(weight for score, weight in right if score > min(allowed) + 1e-6)
    return passed / sum(weight for _, weight in right)


@pytest.mark.parametrize("seed", range(2))
def test_tpr_at_far_against_plain_loops(seed: int) -> None:
    truth = random_objects(seed, count=30)
    rates = (0.5, 0.1, 0.01, 1e-4)
    values = tpr_at_far(truth, rates)
    for rate, value in zip(rates, values, strict=True):
        assert value == pytest.approx(slow_tpr(truth, [1.0] * 30, rate), nan_ok=True)
    assert np.isnan(values).tolist() == [False, False, False, True]
    random = np.random.default_rng(seed)
    weights = random.multinomial(30, np.full(30, 1 / 30), size=3)
    samples = sample_tpr(truth, weights, rates)
    for sample, row in zip(samples, weights.tolist(), strict=True):
        expected = [slow_tpr(truth, row, rate) for rate in rates]
        assert sample == pytest.approx(expected, nan_ok=True, abs=0.02)  # thresholds of a grid


def test_tpr_at_far_by_hand() -> None:
    # pairs of one identity: 0 and 10, 90 and 120 degrees; of two: 80 to 120 apart, 4 pairs twice
    truth = objects([0, 10, 90, 120], [0, 0, 1, 1], [1, 2, 3, 4])
    assert tpr_at_far(truth, (0.5, 0.25)).tolist() == [1, 1]
    # 85 and 90 are 5 apart, nearer than both pairs of one identity
    truth = objects([0, 10, 90, 85], [0, 0, 1, 2], [1, 2, 3, 4])
    assert tpr_at_far(truth, (0.1, 0.2, 0.5)).tolist() == [0, 1, 1]  # of 10 pairs, in both orders


def test_blocks_of_pairs_give_the_same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates low enough that most of the pairs are let go on the way."""
    truth, rates = random_objects(0, count=90), (0.05, 0.01, 1e-3)
    weights = np.random.default_rng(0).integers(0, 3, (5, 90))
    whole = tpr_at_far(truth, rates), sample_tpr(truth, weights, rates)
    monkeypatch.setattr(retrieval, "BLOCK", 7)
    sizes = {cosines.shape for cosines, *_ in retrieval._pairs(truth)}
    assert sizes == {(7, 90), (90 % 7, 90)}
    np.testing.assert_array_equal(tpr_at_far(truth, rates), whole[0])
    np.testing.assert_array_equal(sample_tpr(truth, weights, rates), whole[1])


@pytest.mark.parametrize("seed", range(2))
def test_margins_are_those_of_the_bootstrap(seed: int) -> None:
    truth = random_objects(seed, count=80, images=20)
    detections = detections_of(truth, seed)
    figures = identity_figures(truth, detections, draws=400)
    assert figures.margins.keys() == figures.values.keys() - {"TPR@FAR1e-4"}
    assert figures.queries == len(rank_truth(truth).rows)
    ranking = rank_truth(truth)
    assert figures.values["mAP"] == ranking.ap.mean()
    assert (
        figures.values["search_mAP_recall"] == rank_detections(truth, detections).ap_recall.mean()
    )
    # by hand: images drawn with replacement, with all queries in them
    random = np.random.default_rng(5)
    images = truth.image_ids[ranking.rows]
    known = np.unique(truth.image_ids)
    draws = []
    for _ in range(400):
        drawn = random.choice(known, len(known))
        rows = np.concatenate([np.flatnonzero(images == image) for image in drawn])
        draws.append(ranking.ap[rows].mean())
    expected = 2.09 * np.std(draws, ddof=1)  # t with 19 degrees of freedom
    assert figures.margins["mAP"] == pytest.approx(expected, rel=0.15)
    assert identity_figures(truth, draws=0).margins == {}


def test_the_margin_of_pairs_is_that_of_other_images() -> None:
    """Both objects of a pair are of images that could have been others. Samples draw the first of
    a pair alone: their spread is half of what it is among fresh sets of images."""
    means = np.random.default_rng(1).normal(size=(12, 8))

    def fresh(seed: int) -> Objects:
        random = np.random.default_rng(seed)
        identities = np.concatenate([random.choice(12, 3, replace=False) for _ in range(40)])
        images = np.repeat(np.arange(40), 3)
        light = random.normal(0, 0.5, (40, 8))[images]
        vectors = means[identities] + random.normal(0, 0.8, (120, 8)) + light
        return Objects(vectors, identities, images, np.tile([0.0, 0.0, 40.0, 40.0], (120, 1)))

    true = 2.02 * np.std([tpr_at_far(fresh(seed), [0.1]) for seed in range(60)], ddof=1)
    told = [identity_figures(fresh(k), draws=100).margins["TPR@FAR1e-1"] for k in range(60, 66)]
    assert 0.7 < np.mean(told) / true < 1.5


def test_a_figure_that_no_sample_moves_has_no_margin() -> None:
    """Ten queries that are all right do not make a share of 1 sure to the last digit."""
    identities, images = np.tile([0, 1], 5), np.repeat(np.arange(5), 2)
    boxes = np.tile([0.0, 0.0, 40.0, 40.0], (10, 1))
    figures = identity_figures(Objects(np.eye(2)[identities], identities, images, boxes))
    assert figures.values["rank1"] == 1
    assert "rank1" not in figures.margins
