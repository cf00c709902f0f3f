import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from data import DataError
from data.files import header_size
from data.transforms import (
    GRAY,
    Augmentation,
    InputSize,
    Shape,
    load_annotated,
    load_image,
    pad,
    place,
    reduction,
    resize,
)

RED, BLUE = (250, 10, 10), (10, 10, 250)
NONE = np.zeros((0, 4), np.float32)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A red and a blue rectangle on green, 90 x 120, and their boxes."""
    image = np.full((90, 120, 3), (20, 200, 20), np.uint8)
    image[30:50, 12:52] = RED
    image[44:80, 70:100] = BLUE
    return image, np.array([[12, 30, 52, 50], [70, 44, 100, 80]], np.float32)


def extent(image: np.ndarray, color: tuple[int, int, int]) -> list[int]:
    """The box of the pixels that are closer to `color` than half way to any other."""
    near = np.abs(image.astype(int) - color).max(axis=2) < 110
    rows, columns = np.nonzero(near)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "I;16"])
def test_images_of_any_kind_become_rgb(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        picture = Image.fromarray(np.full((4, 6), 200 * 257, np.uint16))
    else:
        picture = Image.new("RGB", (6, 4), (200, 100, 50)).convert(mode)
    picture.save(tmp_path / "x.png")
    image = load_image(tmp_path / "x.png")
    assert image.shape == (4, 6, 3)
    assert image.dtype == np.uint8
    # Luminance 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2; a palette only has near colors.
    gray = {"L": (124, 124, 124), "LA": (124, 124, 124), "I;16": (200, 200, 200)}
    distance = np.abs(image[0, 0].astype(int) - gray.get(mode, (200, 100, 50))).max()
    assert distance <= (30 if mode == "P" else 1)


def turned(path: Path, orientation: int) -> np.ndarray:
    """Writes a picture of 40 x 60 pixels that says how to turn it, and returns it as stored: red at
    the left of the top, blue at the left of the bottom, green elsewhere."""
    picture = np.full((40, 60, 3), (20, 200, 20), np.uint8)
    picture[:16, :32], picture[24:, :32] = RED, BLUE
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(path, exif=exif)
    return picture


UPRIGHT = {  # what the eight orientations say, each as numpy says it
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image.swapaxes(0, 1)[:, ::-1],
    7: lambda image: image.swapaxes(0, 1)[::-1, ::-1],
    8: lambda image: image.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_an_image_is_turned_as_its_camera_says(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    path = tmp_path / f"x{suffix}"
    expected = UPRIGHT[orientation](turned(path, orientation))
    for factor in (1, 2, 4):
        image = load_image(path, factor)
        scale = factor if suffix == ".jpg" else 1  # only these become smaller
        small = expected[scale // 2 :: scale, scale // 2 :: scale]
        assert image.shape == small.shape
        assert np.abs(image.astype(int) - small).mean() < 12
    assert header_size(str(path)) == expected.shape[:2]


@pytest.mark.parametrize("factor", [1, 2])
def test_the_annotated_size_tells_whether_boxes_were_drawn_on_what_is_stored(
    tmp_path: Path, factor: int
) -> None:
    stored = turned(tmp_path / "x.jpg", 6)
    for size, expected in (((40, 60), stored), ((60, 40), UPRIGHT[6](stored))):
        image = load_annotated(tmp_path / "x.jpg", size, factor)
        assert image.shape[:2] == (size[0] // factor, size[1] // factor)
        assert np.abs(image.astype(int) - expected[::factor, ::factor]).mean() < 12
    with pytest.raises(DataError, match="is 40x60 pixels, but its annotations say 61x40"):
        load_annotated(tmp_path / "x.jpg", (40, 61), factor)


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_a_jpeg_can_be_decoded_smaller(tmp_path: Path, factor: int) -> None:
    """The same picture, red on the left and blue on the right; other files keep their size."""
    picture = np.zeros((101, 150, 3), np.uint8)
    picture[:, :75], picture[:, 75:] = (200, 20, 20), (20, 20, 200)
    for name in ("x.jpg", "x.png"):
        Image.fromarray(picture).save(tmp_path / name)
    image = load_image(tmp_path / "x.jpg", factor)
    assert image.shape == (-(-101 // factor), -(-150 // factor), 3)
    edge = 75 // factor
    for part, color in (
        (image[:, : edge - 1], (200, 20, 20)),
        (image[:, edge + 2 :], (20, 20, 200)),
    ):
        assert np.abs(part.reshape(-1, 3).mean(0) - color).max() < 3
    assert load_image(tmp_path / "x.png", factor).shape == (101, 150, 3)


@pytest.mark.parametrize(
    ("size", "shape", "factor"),
    [
        ((480, 640), (240, 320), 2),  # exactly half
        ((480, 640), (241, 320), 2),  # the width decides
        ((480, 640), (241, 321), 1),
        ((480, 640), (640, 640), 1),
        ((4000, 3000), (640, 640), 4),  # 0.16: 1/8 would have to be enlarged
        ((9000, 9000), (640, 640), 8),
    ],
)
def test_no_image_is_decoded_smaller_than_needed(size: Shape, shape: Shape, factor: int) -> None:
    assert reduction(size, shape) == factor


@pytest.mark.parametrize("content", [b"", b"this is no image", None])
def test_an_image_that_cannot_be_read_is_named_in_one_line(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "broken.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.jpg") as caught:
        load_image(tmp_path / "broken.jpg")
    assert "\n" not in str(caught.value)


def test_placing_keeps_the_aspect_and_pads_right_and_below() -> None:
    image = np.full((100, 300, 3), 200, np.uint8)
    canvas, size = place(image, (64, 96))
    # min(64 / 100, 96 / 300) = 0.32: 32 x 96 pixels
    assert size == (32, 96)
    assert canvas.shape == (3, 64, 96)
    assert canvas.dtype == torch.uint8
    assert (canvas[:, :32] == 200).all()
    assert (canvas[:, 32:] == 0).all()


def test_small_images_are_enlarged_and_odd_shapes_padded_to_multiples_of_32() -> None:
    canvas, size = place(np.full((10, 20, 3), 7, np.uint8), (100, 100))
    assert size == (50, 100)  # 100 / 20 = 5 times
    assert canvas.shape == (3, 128, 128)
    assert canvas.sum() == 3 * 50 * 100 * 7


def test_an_extreme_aspect_keeps_at_least_one_pixel() -> None:
    assert resize(np.zeros((1, 1000, 3), np.uint8), (64, 64)).shape == (1, 64, 3)


def test_shrinking_averages_and_does_not_alias() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert (resize(stripes, (32, 32)) == 100).all()


def test_channels_stay_rgb() -> None:
    image, _ = scene()
    assert tuple(pad(image, (96, 128))[:, 40, 20].tolist()) == RED


def test_short_and_long_give_a_shape_for_each_orientation() -> None:
    sizes = InputSize(None, short=800, long=1333)
    assert sizes.shape_for(480, 640) == (800, 1333)
    assert sizes.shape_for(500, 500) == (800, 1333)
    assert sizes.shape_for(640, 480) == (1333, 800)
    canvas, size = place(np.zeros((480, 640, 3), np.uint8), sizes.shape_for(480, 640))
    assert size == (800, 1067)  # 640 * 800 / 480 = 1066.67
    assert canvas.shape == (3, 800, 1344)  # 42 * 32 = 1344
    # 200 x 1000: 1333 / 1000 < 800 / 200, so the longer side decides; 200 * 1.333 = 266.6
    assert place(np.zeros((200, 1000, 3), np.uint8), sizes.shape_for(200, 1000))[1] == (267, 1333)


def test_the_largest_of_several_short_sides_counts_unless_one_is_named() -> None:
    sizes = InputSize(None, short=[640, 800, 720], long=1333)
    assert sizes.shape_for(1, 2) == (800, 1333)
    assert sizes.shape_for(2, 1, short=640) == (1333, 640)


@pytest.mark.parametrize(
    ("size", "short", "long"),
    [((640,), None, 1333), ((0, 640), None, 1333), (None, None, 1333), (None, 800, 600)],
)
def test_sizes_that_make_no_sense_are_refused(size: object, short: object, long: int) -> None:
    with pytest.raises(DataError, match=r"data\.(size|short)"):
        InputSize(size, short, long)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [{"hflip": 1.5}, {"vflip": -0.1}, {"color": -1.0}, {"zoom": 1.0}, {"zoom": -0.1}],
)
def test_strengths_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(DataError, match=f"data.{next(iter(options))}"):
        Augmentation(**options)


def test_a_horizontal_flip_mirrors_boxes() -> None:
    image, boxes = scene()
    flipped, moved, rows = Augmentation(hflip=1.0)(image, boxes, (0, 0, 0))
    assert (flipped == image[:, ::-1]).all()
    # 120 - 52 = 68 and 120 - 12 = 108
    np.testing.assert_allclose(moved, [[68, 30, 108, 50], [20, 44, 50, 80]], atol=1e-4)
    assert rows.tolist() == [0, 1]


def test_a_vertical_flip_mirrors_boxes() -> None:
    image, boxes = scene()
    flipped, moved, _ = Augmentation(hflip=0.0, vflip=1.0)(image, boxes, (0, 0, 0))
    assert (flipped == image[::-1]).all()
    # 90 - 50 = 40 and 90 - 30 = 60
    np.testing.assert_allclose(moved, [[12, 40, 52, 60], [70, 10, 100, 46]], atol=1e-4)


def test_pixels_stay_in_their_boxes_whatever_is_drawn() -> None:
    image, boxes = scene()
    augmentation = Augmentation(hflip=0.5, vflip=0.5, color=0.2, zoom=0.5)
    zoomed = set()
    for index in range(40):
        result, moved, rows = augmentation(image, boxes, (3, 1, index))
        assert result.shape == image.shape
        assert result.dtype == np.uint8
        for box, row in zip(moved, rows, strict=True):
            expected = extent(result, RED if row == 0 else BLUE)
            np.testing.assert_allclose(box, expected, atol=1.01)
            zoomed.add(round(float(box[2] - box[0]) / (40 if row == 0 else 30), 1))
    assert min(zoomed) <= 0.6
    assert max(zoomed) >= 1.3


def test_zooming_out_shows_gray_around() -> None:
    image, boxes = scene()
    augmentation = Augmentation(hflip=0.0, zoom=0.6)
    results = [augmentation(image, boxes, (0, 0, index))[0] for index in range(12)]
    corners = [tuple(result[0, 0].tolist()) for result in results]
    assert GRAY in corners
    assert (20, 200, 20) in corners


def test_what_is_zoomed_out_of_the_image_loses_its_box_and_the_rest_keep_their_rows() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    boxes = np.array([[0, 0, 8, 8], [45, 45, 55, 55], [92, 92, 100, 100]], np.float32)
    augmentation = Augmentation(hflip=0.0, zoom=0.9)
    seen = [augmentation(image, boxes, (0, 0, index)) for index in range(40)]
    kept = {tuple(rows.tolist()) for _, _, rows in seen}
    assert {(0, 1, 2), (1,), (0, 1), (1, 2)} <= kept
    for _, moved, _ in seen:
        width, height = moved[:, 2] - moved[:, 0], moved[:, 3] - moved[:, 1]
        assert (width * height >= 4 - 1e-3).all()
        assert (moved >= 0).all()
        assert (moved <= 100).all()


def test_only_what_an_augmentation_made_tiny_is_dropped() -> None:
    """Of boxes with 3.6 and 4.4 square pixels: a flip drops none, and zooming, which scales by 0.5
    to 1.5 and moves neither out of the image, the second alone, where that comes below 4."""
    image = np.zeros((100, 100, 3), np.uint8)
    boxes = np.array([[50, 50, 52, 51.8], [40, 40, 42, 42.2]], np.float32)
    for options in ({"hflip": 1.0}, {"vflip": 1.0}, {"hflip": 0.0, "color": 1.0}):
        _, moved, rows = Augmentation(**{"hflip": 0.0, **options})(image, boxes, (0, 0, 0))
        assert rows.tolist() == [0, 1]
        np.testing.assert_allclose(moved[:, 2:] - moved[:, :2], [[2, 1.8], [2, 2.2]], atol=1e-4)
    zooming = Augmentation(hflip=0.0, zoom=0.5)
    results = [zooming(image, boxes, (0, 0, index)) for index in range(20)]
    for _, moved, rows in results:
        scale = (moved[0, 2] - moved[0, 0]) / 2
        assert rows.tolist() == ([0, 1] if 4.4 * scale**2 >= 4 else [0])
    assert {len(rows) for _, _, rows in results} == {1, 2}


@pytest.mark.parametrize(
    "options", [{}, {"color": 1.0}, {"zoom": 0.3}, {"hflip": 0.0, "color": 0.5}]
)
def test_images_without_boxes_pass(options: dict[str, float]) -> None:
    image, _ = scene()
    _, boxes, rows = Augmentation(**options)(image, NONE, (0, 0, 0))
    assert boxes.shape == (0, 4)
    assert boxes.dtype == np.float32
    assert rows.shape == (0,)
    assert rows.dtype == np.int64


def test_no_augmentation_changes_nothing() -> None:
    image, boxes = scene()
    result, moved, rows = Augmentation(hflip=0.0)(image, boxes, (0, 0, 0))
    assert result is image
    assert moved is boxes
    assert rows.tolist() == [0, 1]


def test_color_changes_pixels_and_no_boxes() -> None:
    image, boxes = scene()
    result, moved, _ = Augmentation(hflip=0.0, color=1.0)(image, boxes, (0, 0, 0))
    assert (result != image).any()
    assert moved is boxes


def test_draws_depend_on_the_key_alone() -> None:
    image, boxes = scene()
    first, second = (Augmentation(color=1.0, zoom=0.3) for _ in range(2))
    keys = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    results = [first(image, boxes, key)[0] for key in keys]
    again = [second(image, boxes, key)[0] for key in reversed(keys)][::-1]
    for number, result in enumerate(results):
        assert (result == again[number]).all()
        assert not any((result == other).all() for other in results[number + 1 :])


def test_the_two_flips_are_independent() -> None:
    image, boxes = scene()
    augmentation = Augmentation(hflip=0.5, vflip=0.5)
    seen = {tuple(augmentation(image, boxes, (0, 0, i))[1][0].round().tolist()) for i in range(40)}
    assert len(seen) == 4


def test_a_misspelled_argument_of_albumentations_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import albumentations

    flip = albumentations.HorizontalFlip
    monkeypatch.setattr(albumentations, "HorizontalFlip", lambda p: flip(p=p, misspelled=1))
    with pytest.raises(UserWarning, match="misspelled"):
        Augmentation()


def test_nothing_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image, boxes = scene()
        for options in (
            {},
            {"hflip": 0.0, "color": 1.0},
            {"zoom": 0.3, "vflip": 0.2, "color": 2.0},
        ):
            Augmentation(**options)(image, boxes, (0, 0, 0))


def test_odd_sizes_survive_every_augmentation() -> None:
    augmentation = Augmentation(vflip=0.5, color=1.0, zoom=0.5)
    for height, width in ((1, 64), (64, 1), (1, 1)):
        image = cv2.resize(scene()[0], (width, height))
        assert augmentation(image, NONE, (0, 0, 0))[0].shape == image.shape
