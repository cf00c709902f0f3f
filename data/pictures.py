"""Pictures to be looked at, of files, videos or a split, read in batches of one input shape."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from data import DataError
from data.datamodule import DataModule
from data.files import IMAGES
from data.transforms import InputSize, Shape, is_jpeg, load_annotated, load_image, place, reduction
from data.video import SUFFIXES as VIDEOS
from data.video import Video, camera_number, is_video

WRITTEN = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")  # others become .png


class Truth(NamedTuple):
    """Objects: boxes (B, 4) xyxy in pixels of the file, labels (B,), ignore bool (B,)."""

    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray


class Picture(NamedTuple):
    """A file, its name for the user, the one to write it under (`choose_names`), and what a split
    knows of it: `size` is its annotated height and width. Of a frame of a video, also its number
    and the frames per second."""

    path: Path
    name: str
    output: str = ""
    image_id: int | None = None
    truth: Truth | None = None
    size: tuple[int, int] | None = None
    frame: int | None = None
    rate: float = 0.0


class View(NamedTuple):
    """A picture that was read: `image`, uint8 RGB (H, W, 3), and what the net gets of it, which is
    smaller where evaluation decodes it smaller (`data.reduce`)."""

    picture: Picture
    image: np.ndarray
    small: np.ndarray


def find_pictures(
    places: Sequence[str], is_ours: Callable[[Path, Path], bool], videos: bool = True
) -> list[Picture]:
    """Images and videos, and those of folders and of the folders in them, without hidden ones, by
    their names; each once. Without `videos`, images alone. A name is the path below the folder that
    was given, or where two are equal the whole path. `is_ours(file, folder)`: whether a file of a
    folder was written by a command, not by the user; it is left out. Raises DataError where there
    are none."""
    found: dict[Path, Picture] = {}
    kinds = (*IMAGES, *VIDEOS) if videos else IMAGES
    for given in map(Path, places):
        files = [given]
        if videos and (number := camera_number(given)) is not None:
            found[given] = Picture(given, f"camera_{number}.mp4")
            continue
        if not given.exists():
            more = ", videos, folders or camera:0" if videos else " or folders of images"
            raise DataError(f"{given} does not exist: give images{more}")
        if given.is_dir():
            files = [file for file in sorted(given.rglob("*")) if file.suffix.lower() in kinds]
            files = [file for file in files if file.is_file() and not _is_hidden(file, given)]
            files = [file for file in files if not is_ours(file, given)]
            if not files:
                raise DataError(f"{given} holds no images ({', '.join(kinds)})")
        for file in files:
            name = file.relative_to(given).as_posix() if given.is_dir() else file.name
            found.setdefault(file.resolve(), Picture(file, name))
    count = Counter(picture.name for picture in found.values())
    return [x._replace(name=x.path.as_posix()) if count[x.name] > 1 else x for x in found.values()]


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def choose_names(pictures: Sequence[Picture], taken: set[str]) -> list[Picture]:
    """The same, each with an `output`: they all differ, are not `taken`, and are of kinds that can
    be written."""
    taken, named = set(taken), []
    for picture in pictures:
        path = PurePosixPath(picture.output or picture.name)
        suffix = path.suffix if path.suffix.lower() in WRITTEN else ".png"
        suffix = ".mp4" if is_video(picture.path) else suffix
        name, number = str(path.with_suffix(suffix)), 2
        while name in taken:
            name, number = str(path.with_name(f"{path.stem}_{number}{suffix}")), number + 1
        taken.add(name)
        named.append(picture._replace(output=name))
    return named


def read_view(picture: Picture, size: InputSize | None, reduce: bool) -> View:
    """The image as it is, and as evaluation decodes it with `data.reduce` for this input size."""

    def load(factor: int) -> np.ndarray:
        if picture.size is None:
            return load_image(picture.path, factor)
        return load_annotated(picture.path, picture.size, factor)

    image = load(1)
    shape = image.shape[:2]
    factor = reduction(shape, size.shape_for(*shape)) if size and reduce else 1
    return View(picture, image, load(factor) if factor > 1 and is_jpeg(picture.path) else image)


def feed(
    smalls: Sequence[np.ndarray], shapes: Sequence[Shape], size: InputSize, device: torch.device
) -> dict[str, torch.Tensor]:
    """The batch of images of one input shape; `shapes`: of the originals."""
    asked = [size.shape_for(*shape[:2]) for shape in shapes]
    placed = [place(small, shape) for small, shape in zip(smalls, asked, strict=True)]
    batch = {
        "images": torch.stack([pixels for pixels, _ in placed]),
        "sizes": torch.tensor([content for _, content in placed]),
        "original_sizes": torch.tensor([shape[:2] for shape in shapes]),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def read_batches(
    pictures: Sequence[Picture], size: InputSize | None, count: int, reduce: bool
) -> Iterator[list[View]]:
    """Up to `count` images of one input shape; of any shape with a `size` of None. The frames of a
    video come in order and by themselves. What cannot be read is named and left out."""
    waiting: dict[tuple[int, int], list[View]] = {}
    for picture in tqdm(pictures, unit="image", disable=None):
        try:
            if is_video(picture.path):
                yield from _read_frames(picture, count)
                continue
            view = read_view(picture, size, reduce)
        except DataError as error:
            tqdm.write(f"skipped: {error}", file=sys.stderr)
            continue
        shape = size.shape_for(*view.image.shape[:2]) if size else (0, 0)
        waiting.setdefault(shape, []).append(view)
        if len(waiting[shape]) == count:
            yield waiting.pop(shape)
    yield from waiting.values()


def _read_frames(picture: Picture, count: int) -> Iterator[list[View]]:
    video = Video(picture.path)
    waiting: list[View] = []
    total, read = video.count or None, 0
    for frame in tqdm(video, picture.name, total, unit="frame", leave=False, disable=None):
        waiting.append(View(picture._replace(frame=read, rate=video.rate), frame, frame))
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
        pictures.append(Picture(file, names[image_id], "", image_id, truth, (height, width)))
    return pictures, data.category_ids
