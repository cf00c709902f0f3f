"""Pictures to be looked at, with or without annotations, read in batches of one input shape."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from data import DataError
from data.transforms import InputSize, load_annotated, load_image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class Picture(NamedTuple):
    """A file, the name to write it under, and what a split knows of it: `size` is its annotated
    height and width, `truth` its objects in any form."""

    path: Path
    name: str
    image_id: int | None = None
    truth: Any = None
    size: tuple[int, int] | None = None


def find_pictures(places: Sequence[str], leave_out: Path) -> list[Picture]:
    """Images, and those of folders and of the folders in them, by their names; each once. A name is
    the path below the folder that was given. What lies in `leave_out`, a folder within one of
    these, is left out. Raises DataError where there are none."""
    found: dict[Path, Picture] = {}
    ours = leave_out.resolve()
    for place in map(Path, places):
        if not place.exists():
            raise DataError(f"{place} does not exist: give images or folders of images")
        files = [place]
        if place.is_dir():
            files = sorted(file for file in place.rglob("*") if file.suffix.lower() in SUFFIXES)
            if place.resolve() in ours.parents:
                files = [file for file in files if ours not in file.resolve().parents]
            if not files:
                raise DataError(f"{place} holds no images ({', '.join(SUFFIXES)})")
        for file in files:
            name = file.relative_to(place).as_posix() if place.is_dir() else file.name
            found.setdefault(file.resolve(), Picture(file, name))
    return list(found.values())


def choose_names(pictures: Sequence[Picture], taken: set[str]) -> list[Picture]:
    """The same, with names that all differ and are not `taken`, of kinds that can be written."""
    taken, named = set(taken), []
    for picture in pictures:
        path = PurePosixPath(picture.name)
        suffix = path.suffix if path.suffix.lower() in SUFFIXES else ".png"
        name, number = str(path.with_suffix(suffix)), 2
        while name in taken:
            name, number = str(path.with_name(f"{path.stem}_{number}{suffix}")), number + 1
        taken.add(name)
        named.append(picture._replace(name=name))
    return named


def read_batches(
    pictures: Sequence[Picture], size: InputSize | None, count: int
) -> Iterator[list[tuple[Picture, np.ndarray]]]:
    """Up to `count` images, RGB (H, W, 3), of one input shape; of any shape with a `size` of None.
    What cannot be read is named and left out."""
    waiting: dict[tuple[int, int], list[tuple[Picture, np.ndarray]]] = {}
    for picture in tqdm(pictures, unit="image", disable=None):
        try:
            path, annotated = picture.path, picture.size
            image = load_annotated(path, annotated) if annotated else load_image(path)
        except DataError as error:
            tqdm.write(f"skipped: {error}", file=sys.stderr)
            continue
        shape = size.shape_for(*image.shape[:2]) if size else (0, 0)
        waiting.setdefault(shape, []).append((picture, image))
        if len(waiting[shape]) == count:
            yield waiting.pop(shape)
    yield from waiting.values()
