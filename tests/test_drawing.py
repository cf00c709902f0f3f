import numpy as np
import pytest

from detector.evaluation.drawing import (
    COLORS,
    GRAY,
    PAPER,
    Marks,
    contact_sheet,
    draw,
    side_by_side,
)

NAMES = [f"class {index}" for index in range(9)]
NONE = Marks(np.zeros((0, 4)), np.zeros(0, int))


def gray(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def marks(*boxes: list[float], label: int = 5) -> Marks:
    return Marks(np.array(boxes, np.float32), np.full(len(boxes), label))


def shows(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return (picture == color).all(axis=-1)


def test_a_box_is_drawn_in_its_color_where_it_is() -> None:
    picture = draw(gray(600, 640), marks([100, 200, 300, 400]), NAMES)
    assert picture.shape == (600, 640, 3)
    assert picture.dtype == np.uint8
    rows, columns = np.nonzero(shows(picture, COLORS[5]))
    assert abs(columns.min() - 100) <= 2
    assert abs(columns.max() - 300) <= 2
    assert abs(rows.max() - 400) <= 2
    assert 170 < rows.min() < 198  # the name stands above the box
    assert (picture[210:390, 110:290] == 90).all()  # what is inside stays visible


def test_the_image_stays_as_it_is() -> None:
    image = gray(640, 640)
    draw(image, marks([10, 10, 60, 60]), NAMES)
    draw(image[::-1, ::-1], marks([10, 10, 60, 60]), NAMES)  # a view, not contiguous
    side_by_side(image, marks([10, 10, 60, 60]), NONE, NAMES)
    assert (image == 90).all()


def test_small_images_are_enlarged_with_their_boxes() -> None:
    picture = draw(gray(160, 120), marks([20, 40, 60, 100]), NAMES)
    assert picture.shape == (640, 480, 3)  # 640 / 160 = 4
    rows, columns = np.nonzero(shows(picture, COLORS[5]))
    assert abs(columns.min() - 80) <= 2
    assert abs(rows.max() - 400) <= 2


def test_a_side_can_be_asked_for() -> None:
    assert draw(gray(1000, 500), NONE, NAMES, side=320).shape == (320, 160, 3)


def test_boxes_beyond_the_image_are_drawn_at_its_edge() -> None:
    picture = draw(gray(640, 640), marks([-50, -50, 700, 700], [630, 0, 640, 5]), NAMES)
    assert shows(picture, COLORS[5])[-1, 300]
    assert shows(picture, COLORS[5])[300, -1]


def test_the_name_of_a_box_at_the_top_stays_inside_the_image() -> None:
    picture = draw(gray(640, 640), marks([100, 0, 300, 300]), NAMES)
    assert shows(picture, COLORS[5])[6, 105:150].any()


def test_padding_is_not_drawn() -> None:
    padding = Marks(np.zeros((3, 4)), np.full(3, -1), np.zeros(3))
    assert (draw(gray(640, 640), padding, NAMES) == 90).all()
    assert (draw(gray(640, 640), NONE, NAMES) == 90).all()


def test_ignored_boxes_are_gray_and_dashed() -> None:
    box = Marks(np.array([[100, 100, 500, 500]]), np.array([1]), ignore=np.array([True]))
    picture = draw(gray(640, 640), box, NAMES)
    share = shows(picture, GRAY)[500, 100:500].mean()
    assert 0.2 < share < 0.8
    assert not shows(picture, COLORS[1]).any()


def test_the_higher_score_lies_on_top() -> None:
    boxes = np.tile([100.0, 100, 500, 500], (2, 1))
    for scores, top in (([0.9, 0.2], 0), ([0.2, 0.9], 1)):
        picture = draw(gray(640, 640), Marks(boxes, np.array([0, 1]), np.array(scores)), NAMES)
        assert shows(picture, COLORS[top])[500, 300]
        assert not shows(picture, COLORS[1 - top])[500, 300]


def test_colors_repeat() -> None:
    picture = draw(gray(640, 640), marks([100, 100, 500, 500], label=8), NAMES)
    assert shows(picture, COLORS[1])[500, 300]


def test_truth_is_left_and_detections_are_right() -> None:
    left = Marks(np.array([[100, 100, 300, 300]]), np.array([0]))
    right = Marks(np.array([[100, 100, 300, 300]]), np.array([1]), np.array([0.5]))
    picture = side_by_side(gray(480, 480), left, right, NAMES, title="a.jpg")
    middle = picture.shape[1] // 2
    assert middle >= 480
    assert shows(picture[:, :middle], COLORS[0]).any()
    assert not shows(picture[:, :middle], COLORS[1]).any()
    assert shows(picture[:, middle:], COLORS[1]).any()
    assert (picture[:20, :middle] != PAPER).any()  # the caption


def test_a_sheet_holds_all_pictures() -> None:
    pictures = [np.full((40, 60, 3), value, np.uint8) for value in (1, 2, 3)]
    pictures[1] = pictures[1][:20]  # not all have one size
    sheet = contact_sheet(pictures, columns=2, gap=10)
    assert sheet.shape == (10 + 2 * (40 + 10), 10 + 2 * (60 + 10), 3)
    for value, height in ((1, 40), (2, 20), (3, 40)):
        assert shows(sheet, (value, value, value)).sum() == height * 60
    assert contact_sheet(pictures[:1], columns=4, gap=0).shape == (40, 60, 3)
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])
