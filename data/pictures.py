"""Pictures to be looked at, of files, videos or a split, read in batches of one input shape."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data import DataError
from data.datamodule import DataModule
from data.transforms import InputSize, load_annotated, load_image
from data.video import SUFFIXES as VIDEOS
from data.video import Video, camera_number, is_video

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class Truth(NamedTuple):
    """Objects: boxes (B, 4) xyxy in pixels of the file, labels (B,), ignore bool (B,)."""

    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray


class Picture(NamedTuple):
    """A file, the name to write it under, and what a split knows of it: `size` is its annotated
    height and width. Of a frame of a video, also its number and the frames per second."""

    path: Path
    name: str
    image_id: int | None = None
    truth: Truth | None = None
    size: tuple[int, int] | None = None
    frame: int | None = None
    rate: float = 0.0


def find_pictures(places: Sequence[str], leave_out: Path, videos: bool = True) -> list[Picture]:
    """Images and videos, and those of folders and of the folders in them, by their names; each
    once. Without `videos`, images alone. A name is the path below the folder that was given. What
    lies in `leave_out`, a folder within one of these, is left out. Raises DataError where there
    are none."""
    found: dict[Path, Picture] = {}
    ours, kinds = leave_out.resolve(), (*SUFFIXES, *VIDEOS) if videos else SUFFIXES
    for place in map(Path, places):
        files = [place]
        if videos and (number := camera_number(place)) is not None:
            found[place] = Picture(place, f"camera_{number}.mp4")
            continue
        if not place.exists():
            more = ", videos, folders or camera:0" if videos else " or folders of images"
            raise DataError(f"{place} does not exist: give images{more}")
        if place.is_dir():
            files = sorted(file for file in place.rglob("*") if file.suffix.lower() in kinds)
            if place.resolve() in ours.parents:
                files = [file for file in files if ours not in file.resolve().parents]
            if not files:
                raise DataError(f"{place} holds no images ({', '.join(kinds)})")
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
        suffix = ".mp4" if is_video(picture.path) else suffix
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
    The frames of a video come in order and by themselves. What cannot be read is named and left
    out."""
    waiting: dict[tuple[int, int], list[tuple[Picture, np.ndarray]]] = {}
    for picture in tqdm(pictures, unit="image", disable=None):
        try:
            if is_video(picture.path):
                yield from _read_frames(picture, count)
                continue
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


def _read_frames(picture: Picture, count: int) -> Iterator[list[tuple[Picture, np.ndarray]]]:
    video = Video(picture.path)
    waiting: list[tuple[Picture, np.ndarray]] = []
    total, read = video.count or None, 0
    for frame in tqdm(video, picture.name, total, unit="frame", leave=False, disable=None):
        waiting.append((picture._replace(frame=read, rate=video.rate), frame))
        read += 1
        if len(waiting) == (1 if video.is_camera else count):  # what happens now is shown now
            yield waiting
            waiting = []
    if waiting:
        yield waiting
    if not video.is_camera and read < video.count:
        lost = f"{picture.path}: of {video.count} frames {read} can be decoded"
        tqdm.write(f"warning: {lost}", file=sys.stderr)


def of_split(options: dict, seed: int, split: str, count: int) -> tuple[list[Picture], list[int]]:
    """`count` images of a split, evenly spaced, with their objects, and the category id of every
    class. `options` are a configuration's section `data`; `split` may be "train" or "val"."""
    name = options[split] if split in ("train", "val") else split
    changed = {"val": name} | ({} if split == "val" else {"holdout": 0})
    data = DataModule(**{**options, **changed}, seed=seed)
    data.setup("validate")
    images, names = data.splits["val"], data.file_names
    if split == "train" and data.is_undivided:  # of one set, val is what training did not see
        data = DataModule(**{**options, "label_noise": 0}, seed=seed)
        data.setup("fit")
        images, names = data.splits["train"], data.train_names
    pictures = []
    for index in np.unique(np.linspace(0, len(images) - 1, count).round().astype(int)):
        rows, image_id = images.rows(index), int(images.image_ids[index])
        truth = Truth(images.boxes[rows], images.labels[rows], images.ignore[rows])
        file, (height, width) = Path(images.paths[index]), images.sizes[index].tolist()
        pictures.append(Picture(file, names[image_id], image_id, truth, (height, width)))
    return pictures, data.category_ids
