"""Pixels: reading, resizing, padding, augmenting. The only file that knows albumentations."""

import math
import os
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from data import DataError

Shape = tuple[int, int]  # height, width

STRIDE = 32  # images are padded to multiples of it, or the feature levels would not fit together
GRAY = (124, 116, 104)  # around what is zoomed out: ImageNet's mean, about 0 when normalized
VISIBLE, SMALLEST = 0.1, 4.0  # share of a box, and square pixels, that have to be left of it
ROUNDING = 1e-3  # square pixels that a flip may take from the area of a box
JPEG = b"\xff\xd8"  # how such files begin
REDUCED = {  # cannot be had in RGB
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# What color=1 means: factors 1 ± 0.4 (hue: a turn by ± 0.05), as in the usual SSD and YOLO recipes.
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.4, 0.4, 0.4, 0.05


def load_image(path: str | Path, factor: int = 1, *, upright: bool = True) -> np.ndarray:
    """uint8 (H, W, 3) RGB, of gray images and images with alpha too.

    `factor` 2, 4 or 8 makes a JPEG that much smaller (sides rounded up), in a fraction of the time,
    by decoding the coarse part of every block; other files keep their size. `upright`: turned as
    the camera says in the EXIF data, as every viewer shows it; else as the pixels are stored.
    Raises DataError where the file is missing or cannot be decoded.
    """
    try:
        encoded = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"cannot read the image {path}: {error.strerror or error}") from None
    reduced = factor > 1 and encoded[:2].tobytes() == JPEG
    flags = REDUCED[factor] if reduced else cv2.IMREAD_COLOR_RGB
    flags |= 0 if upright else cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(encoded, flags) if encoded.size else None
    if image is None:
        raise DataError(
            f"cannot decode the image {path}: replace the file or drop it from the data"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if reduced else image


def load_annotated(path: str | Path, size: Shape, factor: int = 1) -> np.ndarray:
    """The image as its annotations see it: upright, or else as the pixels are stored, if only that
    has the annotated `size` (height, width), since some tools draw boxes on what is stored. Raises
    DataError where neither has: boxes may belong to any size, and a training on wrong ones would go
    unnoticed."""
    expected = size, (-(-size[0] // factor), -(-size[1] // factor))
    for upright in (True, False):
        image = load_image(path, factor, upright=upright)
        if image.shape[:2] in expected:
            return image
    height, width = load_image(path).shape[:2]
    raise DataError(
        f"{path} is {width}x{height} pixels, but its annotations say {size[1]}x{size[0]} (resized, "
        "or another image of this name?): correct one"
    )


def is_jpeg(path: str | Path) -> bool:
    """By its first bytes: of other files no smaller version is decoded."""
    with open(path, "rb") as file:
        return file.read(len(JPEG)) == JPEG


class InputSize:
    """How large images enter the net.

    Either `size` (height, width), the same for all, or `short` and `long`: the shorter side becomes
    `short`, unless the longer one would exceed `long`; portrait and landscape images then go into
    different batches. Several `short` are for training, which draws one per batch; otherwise the
    largest counts. Content keeps its aspect, is enlarged where it is smaller, and lies at the top
    left of a canvas whose sides are the next multiples of 32.
    """

    def __init__(
        self,
        size: Sequence[int] | int | None = (640, 640),
        short: Sequence[int] | int | None = None,
        long: int = 1333,
    ) -> None:
        sides = [size, size] if isinstance(size, int) else list(size or [])
        self.shorts = sorted([short] if isinstance(short, int) else list(short or []))
        self.by_orientation = bool(self.shorts)
        if not self.shorts and len(sides) != 2:
            raise DataError(f"data.size must be [height, width], not {size}")
        if any(not isinstance(side, int) or side < 1 for side in [*sides, *self.shorts, long]):
            raise DataError("data.size, data.short and data.long must be whole pixels above 0")
        if self.shorts and self.shorts[-1] > long:
            raise DataError(f"data.short {self.shorts[-1]} exceeds data.long {long}")
        self.size, self.long = tuple(sides), long

    def shape_for(self, height: int, width: int, short: int | None = None) -> Shape:
        """Height and width within which an image of this size is placed; the largest `short` is
        taken where none is given."""
        if not self.by_orientation:
            return self.size[0], self.size[1]
        short = short or self.shorts[-1]
        return (self.long, short) if height > width else (short, self.long)


def reduction(size: Shape, shape: Shape) -> int:
    """How many times smaller, 1, 2, 4 or 8, an image of `size` may be decoded that `resize` would
    bring within `shape`, so that it never has to be enlarged again."""
    scale = min(shape[0] / size[0], shape[1] / size[1])
    return next(factor for factor in (8, 4, 2, 1) if factor == 1 or scale * factor <= 1)


def resize(image: np.ndarray, shape: Shape) -> np.ndarray:
    """Scales (H, W, 3) to the largest size that fits into `shape` and keeps the aspect."""
    height, width = image.shape[:2]
    scale = min(shape[0] / height, shape[1] / width)
    new = [max(1, round(side * scale)) for side in (height, width)]
    if (height, width) == tuple(new):
        return image
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(image, (new[1], new[0]), interpolation=how)


def pad(image: np.ndarray, shape: Shape) -> torch.Tensor:
    """uint8 (3, H, W): (h, w, 3) at the top left, 0 elsewhere; H and W are those of `shape`,
    rounded up to multiples of 32. The channels of a pixel lie together in memory, as in the image,
    and as convolutions like it."""
    height, width = (math.ceil(side / STRIDE) * STRIDE for side in shape)
    if image.shape[:2] == (height, width):
        return torch.from_numpy(image).permute(2, 0, 1)
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    return torch.from_numpy(canvas).permute(2, 0, 1)


def place(image: np.ndarray, shape: Shape) -> tuple[torch.Tensor, Shape]:
    """What validation does to an image: uint8 (H, W, 3) -> (3, H', W') to feed, and the height and
    width of its content. `shape` comes from `InputSize.shape_for`."""
    content = resize(image, shape)
    return pad(np.ascontiguousarray(content), shape), (content.shape[0], content.shape[1])


class Augmentation:
    """Random flips (`hflip`, `vflip`: probabilities), `color` (0 none, 1 strong: brightness,
    contrast, saturation and hue) and `zoom` (scales by 1 ± zoom and shifts by up to zoom / 2 of the
    image, keeping its size). Boxes follow. One of which less than a tenth is left in the image is
    dropped, and so is one that became smaller than 4 square pixels; one that was as small before is
    not.
    """

    def __init__(
        self, hflip: float = 0.5, vflip: float = 0.0, color: float = 0.0, zoom: float = 0.0
    ) -> None:
        for name, value, highest in (("hflip", hflip, 1), ("vflip", vflip, 1), ("color", color, 2)):
            if not 0 <= value <= highest:
                raise DataError(f"data.{name} must be between 0 and {highest}, not {value}")
        if not 0 <= zoom < 1:
            raise DataError(f"data.zoom must be at least 0 and less than 1, not {zoom}")
        self.moves = hflip + vflip + zoom > 0
        self.pipeline: Any = None
        if self.moves or color > 0:
            with warnings.catch_warnings():  # it only warns about misspelled arguments
                warnings.filterwarnings("error", r".*Argument\(s\)", UserWarning)
                self.pipeline = self._compose(hflip, vflip, color, zoom)

    def _compose(self, hflip: float, vflip: float, color: float, zoom: float) -> Any:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or importing it asks the network
        import albumentations as A

        steps: list[Any] = []
        if hflip:
            steps.append(A.HorizontalFlip(p=hflip))
        if vflip:
            steps.append(A.VerticalFlip(p=vflip))
        if zoom:
            shift = {axis: (-zoom / 2, zoom / 2) for axis in "xy"}
            scale = (1 - zoom, 1 + zoom)
            options = {"scale": scale, "translate_percent": shift, "keep_ratio": True, "p": 1.0}
            steps.append(A.Affine(fill=GRAY, **options))
        if color:
            jitter = {"brightness": BRIGHTNESS, "contrast": CONTRAST, "saturation": SATURATION}
            factors = {
                name: (max(0.0, 1 - strength * color), 1 + strength * color)
                for name, strength in jitter.items()
            }
            steps.append(A.ColorJitter(**factors, hue=(-HUE * color, HUE * color), p=1.0))
        if not self.moves:  # it warns about box parameters that nothing uses
            return A.Compose(steps)
        options = {"min_visibility": VISIBLE, "clip": True, "filter_invalid_bboxes": True}
        boxes = A.BboxParams("pascal_voc", label_fields=["rows"], **options)
        return A.Compose(steps, bbox_params=boxes)

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, key: tuple[int, int, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """uint8 (H, W, 3), float32 (G, 4) -> image of the same size, boxes (G', 4), and for each of
        them its row (G',) in `boxes`. What is drawn is a function of `key` (seed, epoch, index)."""
        rows = np.arange(len(boxes))
        if self.pipeline is None:
            return image, boxes, rows
        # albumentations' own seeding gives all workers, or all its steps, the same numbers.
        generator = np.random.default_rng(key)
        self.pipeline.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        if not self.moves:
            return self.pipeline(image=image)["image"], boxes, rows
        # Labels would travel as float32, which does not hold large ids: only row numbers go along.
        result = self.pipeline(image=image, bboxes=boxes, rows=rows)
        moved = np.asarray(result["bboxes"], np.float32).reshape(-1, 4)
        rows = np.asarray(result["rows"], np.int64).reshape(-1)
        before, after = ((x[:, 2:] - x[:, :2]).prod(axis=1) for x in (boxes[rows], moved))
        kept = (before < SMALLEST) | (after >= SMALLEST - ROUNDING)
        return result["image"], moved[kept], rows[kept]
