from typing import Any

import torch

from detector.nms import Suppression
from detector.postprocess import Postprocess
from detector.retinanet import Predictions

ANCHORS = torch.tensor(
    [[0, 0, 10, 10], [1, 0, 11, 10], [40, 40, 60, 60], [0, 0, 10, 10]], dtype=torch.float32
)


def predictions(scores: list[list[float]], level_sizes: list[int] | None = None) -> Predictions:
    """One image: anchors as boxes, scores of each anchor and class given as probabilities."""
    logits = torch.logit(torch.tensor([scores]))
    return Predictions(logits, torch.zeros(1, 4, 4), ANCHORS, level_sizes or [3, 1])


def postprocess(score_threshold: float = 0.05, top_k: int = 1000, **options: Any) -> Postprocess:
    return Postprocess(torch.sigmoid, Suppression(**options), score_threshold, top_k)


SIZE = torch.tensor([[50, 100]])  # height, width


def test_compare_nms_clipping_and_scale_by_hand() -> None:
    # class 0: anchors 0 and 1 overlap by 90 / 110 > 0.5, so the lesser goes; class 1 is another
    found = predictions([[0.9, 0.01], [0.8, 0.7], [0.6, 0.01], [0.02, 0.03]])
    detections = postprocess(max_detections=5)(found, SIZE, SIZE * 2)
    assert detections.labels.tolist() == [[0, 1, 0, -1, -1]]
    expected = torch.tensor([0.9, 0.7, 0.6, 0.0, 0.0])
    torch.testing.assert_close(detections.scores[0], expected)
    # the third is cut at the height of 50 and all are twice as large in the original
    assert detections.boxes[0, 2].tolist() == [80, 80, 120, 100]


def test_original_size_scales_each_axis_by_its_own_ratio() -> None:
    found = predictions([[0.9], [0.01], [0.01], [0.01]])
    detections = postprocess()(found, SIZE, torch.tensor([[100, 300]]))
    assert detections.boxes[0, 0].tolist() == [0, 0, 30, 20]


def test_candidates_are_counted_per_level() -> None:
    found = predictions([[0.9], [0.5], [0.8], [0.3]])
    kept = postprocess(top_k=1, iou_threshold=1.0)(found, SIZE, SIZE)
    torch.testing.assert_close(kept.scores[0, :3], torch.tensor([0.9, 0.3, 0.0]))


def test_threshold_is_strict_and_nothing_found_is_all_padding() -> None:
    found = predictions([[0.5], [0.5], [0.5], [0.5]])
    detections = postprocess(score_threshold=0.5)(found, SIZE, SIZE)
    assert (detections.labels == -1).all()
    assert (detections.scores == 0).all()
    assert detections.boxes.shape == (1, 100, 4)


def test_images_of_a_batch_do_not_touch_each_other() -> None:
    a, b = predictions([[0.9], [0.8], [0.6], [0.1]]), predictions([[0.2], [0.7], [0.1], [0.3]])
    both = Predictions(torch.cat([a.logits, b.logits]), a.deltas.repeat(2, 1, 1), ANCHORS, [3, 1])
    post = postprocess()
    joint = post(both, SIZE.repeat(2, 1), SIZE.repeat(2, 1))
    for k, single in enumerate((a, b)):
        alone = post(single, SIZE, SIZE)
        for part, expected in zip(joint[:3], alone[:3], strict=True):
            assert torch.equal(part[k], expected[0])


def test_the_kind_of_suppression_and_its_arguments_arrive() -> None:
    # the two overlap by 90 / 110; DIoU takes off 1 / (11^2 + 10^2), so both are suppressed; beta
    # 0.1 takes off 0.58, so both stay
    found = predictions([[0.9], [0.8], [0.01], [0.01]])
    counts = {}
    for name, options in {
        "hard": {"iou_threshold": 0.8},
        "diou": {"kind": "diou", "iou_threshold": 0.8},
        "beta": {"kind": "diou", "iou_threshold": 0.8, "beta": 0.1},
        "soft": {"kind": "soft"},
    }.items():
        detections = postprocess(**options)(found, SIZE, SIZE)
        counts[name] = int((detections.labels[0] >= 0).sum())
    assert counts == {"hard": 1, "diou": 1, "beta": 2, "soft": 2}
