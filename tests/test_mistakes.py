"""The sheet of mistakes: what is on it, in which order, and that it is the right piece of image."""

import tracemalloc

import numpy as np

from detector.evaluation.drawing import COLORS
from detector.evaluation.mistakes import MOST, SIDE, choose_mistakes, draw_crop, draw_mistakes
from detector.evaluation.tide import Mistake, explain
from tests.test_coco_figures import box, truth_of

GOOD, NEAR, FAR = [0.0, 0, 10, 10], [1.0, 0, 10, 10], [100.0, 100, 10, 10]


def test_mistakes_by_hand() -> None:
    """A wrong class, two false detections, a missed object; a correct detection is none."""
    truth = truth_of(
        [box(0, GOOD), box(1, GOOD, category_id=2), box(1, FAR), box(0, FAR)], categories=(1, 2)
    )
    results = [box(0, GOOD, score=0.9), box(1, NEAR, score=0.7), box(0, [50.0, 0, 9, 9], score=0.2)]
    results += [box(1, [50.0, 0, 9, 9], score=0.8)]
    mistakes = explain(truth, results).mistakes
    assert [(m.kind, m.image_id, m.score, m.detected, m.truth) for m in mistakes] == [
        ("background", 1, 0.8, "class 1", ""),
        ("class", 1, 0.7, "class 1", "class 2"),
        ("background", 0, 0.2, "class 1", ""),
        ("missed", 1, None, "", "class 1"),
        ("missed", 0, None, "", "class 1"),
    ]
    assert mistakes[1].bbox == NEAR
    groups = list(choose_mistakes(mistakes).values())
    assert [[m.kind for m in group] for group in groups] == [
        ["background", "background"],
        ["class"],
        ["missed", "missed"],
    ]


def test_a_group_is_not_larger_than_the_sheet_and_none_is_empty() -> None:
    many = [Mistake("background", 1, [0, 0, 5, 5], 0.5, "a", "")] * (MOST + 5)
    (group,) = choose_mistakes(many).values()
    assert len(group) == MOST
    assert draw_mistakes({}, [], lambda _: np.zeros((9, 9, 3), np.uint8)) is None


def test_a_crop_shows_the_box_in_its_middle() -> None:
    """A red object beyond the border: white outside of the image."""
    image = np.zeros((100, 100, 3), np.uint8)
    image[80:100, 40:60] = (255, 0, 0)
    mistake = Mistake("background", 1, [40.0, 80, 20, 20], 0.5, "a", "")
    crop = draw_crop(image, mistake, [[0.0, 0, 5, 5]])
    assert crop.shape == (SIDE + 24, SIDE, 3)
    middle = crop[24 + SIDE // 2, SIDE // 2]
    assert middle[0] > 200
    assert middle[1:].max() < 60
    edge = crop[24 + SIDE // 2, 60:74]  # the box begins at a third of 200 pixels
    assert (edge == np.array(COLORS[0])).all(axis=1).any()
    assert crop[24 + SIDE - 3, SIDE // 2].min() > 240  # below the image
    assert crop[24 + 10, SIDE // 2].max() < 60


def test_the_crop_of_a_large_box_takes_no_more_memory_than_its_image() -> None:
    image = np.zeros((1500, 2000, 3), np.uint8)
    mistake = Mistake("missed", 1, [0.0, 0, 2000, 1500], None, "", "a")
    tracemalloc.start()
    crop = draw_crop(image, mistake, [mistake.bbox] * 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < image.nbytes
    assert crop.shape == (SIDE + 24, SIDE, 3)


def test_every_image_is_read_once() -> None:
    read: list[int] = []

    def read_image(image_id: int) -> np.ndarray:
        read.append(image_id)
        return np.zeros((120, 120, 3), np.uint8)

    mistakes = [Mistake("background", k % 2, [5.0, 5, 9, 9], 0.5, "a", "") for k in range(4)]
    mistakes += [Mistake("missed", 1, [5.0, 5, 9, 9], None, "", "a")]
    sheet = draw_mistakes(choose_mistakes(mistakes), [], read_image)
    assert sheet is not None
    assert sheet.dtype == np.uint8
    assert sorted(read) == [0, 1]
