"""Average precision of weighted images against pycocotools."""

import numpy as np
import pytest

from detector.config.errors import UserError
from detector.evaluation.coco import coco_figures
from detector.evaluation.matches import check_objects, match_all, mean_precision
from tests.test_coco_figures import random_set


@pytest.mark.parametrize("seed", range(5))
def test_of_every_image_once_it_is_cocos(seed: int) -> None:
    ground_truth, results = random_set(seed)
    figures = coco_figures(ground_truth, results, full=False).summary
    matches = match_all(ground_truth, results)
    ap, ap50 = mean_precision(matches)
    assert ap.tolist() == pytest.approx([figures["AP"]], abs=1e-12)
    assert ap50.tolist() == pytest.approx([figures["AP50"]], abs=1e-12)
    (only,), _ = mean_precision(match_all(ground_truth, results, thresholds=[0.5]))
    assert only == pytest.approx(figures["AP50"], abs=1e-12)


def test_weights_count_images() -> None:
    """An image with weight 0 is as if it were not there, weight 2 as if it were there twice."""
    ground_truth, results = random_set(1)
    ids = sorted(image["id"] for image in ground_truth["images"])
    weights = np.ones((2, len(ids)))
    weights[0, ::3] = 0
    weights[1, ::2] = 2
    ap, ap50 = mean_precision(match_all(ground_truth, results), weights)
    left = [image for k, image in enumerate(ids) if k % 3]
    figures = coco_figures(ground_truth, results, image_ids=left, full=False).summary
    assert (ap[0], ap50[0]) == pytest.approx((figures["AP"], figures["AP50"]), abs=1e-12)

    twice = {key: list(value) for key, value in ground_truth.items()}
    more = list(results)
    shift = 10**7
    doubled = set(ids[::2])
    for rows, copies in ((ground_truth["annotations"], twice["annotations"]), (results, more)):
        copies += [
            {**row, "image_id": row["image_id"] + shift}
            for row in rows
            if row["image_id"] in doubled
        ]
    twice["images"] += [{"id": image + shift} for image in doubled]
    # a copy right after its original: otherwise equal scores would be in another order
    more.sort(key=lambda row: -row["score"])
    figures = coco_figures(twice, more, full=False).summary
    assert ap[1] == pytest.approx(figures["AP"], abs=0.02)


def test_detections_without_any_object_or_none_at_all() -> None:
    ground_truth, results = random_set(2)
    assert mean_precision(match_all(ground_truth, []))[0].tolist() == [0.0]
    empty = {**ground_truth, "annotations": []}
    assert np.isnan(mean_precision(match_all(empty, results))[0]).all()
    weights = np.zeros((2, len(ground_truth["images"])))
    weights[1] = 1  # the first sample has no image, the second all
    ap, _ = mean_precision(match_all(ground_truth, results), weights)
    assert np.isnan(ap).tolist() == [True, False]


def test_nothing_to_find_is_one_clear_line() -> None:
    ground_truth, _ = random_set(2)
    check_objects(ground_truth)
    crowds = [{**row, "iscrowd": 1} for row in ground_truth["annotations"]]
    for annotations in ([], crowds):
        with pytest.raises(UserError, match=r"no object .* no average precision to compare"):
            check_objects({**ground_truth, "annotations": annotations})
