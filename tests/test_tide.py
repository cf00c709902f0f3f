"""Kinds of errors, each in a scene made by hand."""

import math
from typing import Any

import pytest

from detector.evaluation.coco import coco_figures
from detector.evaluation.matches import match_all
from detector.evaluation.tide import KINDS, Errors, explain, format_errors
from tests.test_coco_figures import box, random_set, truth_of

GOOD = [0.0, 0, 10, 10]
FAR = [100.0, 100, 10, 10]


def find_errors(*arguments: Any, **options: Any) -> Errors:
    return explain(*arguments, **options)[0]


def counts(objects: list[Any], results: list[Any]) -> dict[str, int]:
    found = find_errors(truth_of(objects, categories=(1, 2)), results).counts
    return {kind: count for kind, count in found.items() if count}


def test_every_kind_by_hand() -> None:
    one = [box(0, GOOD)]
    right = box(0, GOOD, score=0.9)
    assert counts(one, [right]) == {}
    assert counts(one, []) == {"missed": 1}
    assert counts(one, [right, box(0, GOOD, score=0.8)]) == {"duplicate": 1}
    assert counts(one, [right, box(0, FAR, score=0.8)]) == {"background": 1}
    assert counts(one, [right, box(1, GOOD, score=0.8)]) == {"background": 1}  # an empty image
    # half of it shifted away: IoU 5 / 15; the object is about to be found, so it is not missed
    assert counts(one, [box(0, [5, 0, 10, 10], score=0.8)]) == {"location": 1}
    assert counts(one, [box(0, GOOD, 2, score=0.8)]) == {"class": 1}
    assert counts(one, [box(0, [5, 0, 10, 10], 2, score=0.8)]) == {"both": 1, "missed": 1}
    crowd = [box(0, GOOD), box(0, FAR, iscrowd=1)]
    assert counts(crowd, [right, box(0, FAR, score=0.8)]) == {}


def test_what_fixing_gains_by_hand() -> None:
    two = [box(0, GOOD), box(1, GOOD)]
    found = [box(0, GOOD, score=0.9), box(0, FAR, score=0.95)]
    errors = find_errors(truth_of(two), found)
    # precision 1/2 up to recall 1/2, of 101 recalls 51
    assert errors.ap50 == pytest.approx(51 * 0.5 / 101)
    assert errors.gained["background"] == pytest.approx(51 * 0.5 / 101)
    assert errors.gained["missed"] == pytest.approx(0.5 - 51 * 0.5 / 101)
    # two mislocated ones about one object: the better becomes right, the other goes
    shifted = [box(0, [5, 0, 10, 10], score=0.9), box(0, [6, 0, 10, 10], score=0.8)]
    errors = find_errors(truth_of([box(0, GOOD)]), shifted)
    assert (errors.ap50, errors.gained["location"]) == (0, 1)
    assert errors.counts["missed"] == 0
    # ... which shows where a wrong one has a score between the two: precision 1, not 1/2
    errors = find_errors(
        truth_of([box(0, GOOD)]),
        [shifted[0], {**shifted[1], "score": 0.5}, box(0, FAR, score=0.7)],
    )
    assert errors.gained["location"] == 1
    # the class that is fixed counts where it belongs
    confused = [box(0, GOOD, 2, score=0.9)]
    errors = find_errors(truth_of([box(0, GOOD)], categories=(1, 2)), confused)
    assert errors.gained["class"] == 1


def test_an_error_about_an_object_that_is_found_only_goes() -> None:
    found = [box(0, GOOD, score=0.5), box(0, [5, 0, 10, 10], score=0.9)]
    errors = find_errors(truth_of([box(0, GOOD)]), found)
    assert errors.ap50 == pytest.approx(0.5)
    assert errors.gained["location"] == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(5))
def test_ap50_is_cocos_and_all_detections_are_accounted_for(seed: int) -> None:
    ground_truth, results = random_set(seed)
    errors = find_errors(ground_truth, results)
    figures = coco_figures(ground_truth, results, full=False)
    assert errors.ap50 == pytest.approx(figures.summary["AP50"], abs=1e-12)
    matches = match_all(ground_truth, results, thresholds=[0.5]).values()
    wrong = sum(int((~one.correct & ~one.ignored).sum()) for one in matches)
    assert sum(errors.counts[kind] for kind in KINDS[:-1]) == wrong
    assert all(gain >= -1e-12 for kind, gain in errors.gained.items() if kind != "class")
    some = ground_truth["images"][3]["id"]
    part = find_errors(ground_truth, results, image_ids=[some])
    assert sum(part.counts.values()) < sum(errors.counts.values())


def test_the_text_has_a_row_for_each_kind() -> None:
    objects = [box(0, GOOD), box(1, GOOD)]
    results = [box(0, GOOD, score=0.95), box(1, GOOD, score=0.55)]
    results += [box(0, FAR, score=0.52), box(1, FAR, score=1.0)]
    lines = format_errors(*explain(truth_of(objects), results)[:2]).splitlines()
    assert [line.split()[0] for line in lines[1:7]] == list(KINDS)
    # precision 1/2 and 2/3 up to recalls 1/2 and 1 is 2/3 at all of them; without the two it is 1
    assert lines[5].split() == ["background", "2", "+0.333"]
    assert lines[-1].startswith("calibration error 0.255")


def test_nothing_to_find() -> None:
    assert math.isnan(find_errors(truth_of([]), []).ap50)
