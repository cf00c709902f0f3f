"""How often detections of each confidence are right, by hand."""

import math

import numpy as np
import pytest

from detector.evaluation.calibration import calibration
from detector.evaluation.matches import match_all
from detector.evaluation.tide import explain
from tests.test_coco_figures import box, truth_of

GOOD, FAR = [0.0, 0, 10, 10], [100.0, 100, 10, 10]


def test_bins_and_error_by_hand() -> None:
    truth = truth_of([box(0, GOOD), box(1, GOOD)])
    results = [box(0, GOOD, score=0.95), box(1, GOOD, score=0.55)]
    results += [box(0, FAR, score=0.52), box(1, FAR, score=1.0)]
    calibrated = calibration(match_all(truth, results, thresholds=[0.5]))
    assert calibrated.counts == [0, 0, 0, 0, 0, 2, 0, 0, 0, 2]
    assert calibrated.precision[5] == calibrated.precision[9] == 0.5
    assert calibrated.confidence[5] == pytest.approx(0.535)
    assert math.isnan(calibrated.precision[0])
    assert calibrated.error == pytest.approx((abs(0.535 - 0.5) + abs(0.975 - 0.5)) / 2)
    assert repr(explain(truth, results)[1]) == repr(calibrated)  # repr, since nan != nan


def test_detections_of_crowds_do_not_count() -> None:
    truth = truth_of([box(0, GOOD), box(0, FAR, iscrowd=1)])
    results = [box(0, GOOD, score=0.9), box(0, FAR, score=0.9)]
    calibrated = calibration(match_all(truth, results, thresholds=[0.5]))
    assert (sum(calibrated.counts), calibrated.precision[9]) == (1, 1.0)


def test_without_detections() -> None:
    calibrated = calibration(match_all(truth_of([box(0, GOOD)]), []))
    assert calibrated.error == 0
    assert np.isnan(calibrated.precision).all()
