"""YOLO annotations: a text file per image, on every line a class and a box or polygon as shares of
the image; data.yaml (or obj.data) says where images are and what the classes are called."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from data import DataError
from data.content import Content, Source
from data.files import IMAGES, Place, header_size, split_names
from data.lists import read_lines
from data.pairs import PICTURES, index, of_split, only
from data.yolo_yaml import SUFFIXES, Description, describe, find_descriptions, locate

LABELS = ("labels", "label", "annotations")  # folders
FARTHEST = 2.0  # a box may end outside of its image, but not as far as pixels would
PEEK = 5  # text files of a folder that tell whether they are labels
THREADS = 8  # that read the headers of images


class Label(NamedTuple):
    category: int
    box: tuple[float, float, float, float]  # left, top, width, height as shares of the image
    is_polygon: bool


def read(place: Place, split: str) -> Source:
    """One split. Where nothing says which images are in it, those in a folder of its name; where no
    folder is called as a split, all there are. An image without a label file, or with an empty one,
    has no objects. Raises DataError for whatever is missing or broken."""
    about = describe(place)
    images, origin, undivided = find_split(place, about, split)
    if not images:
        raise DataError(f"{place.root} has no images of {split!r} (see data.root and data.images)")
    files = [find_labels(place, image, split) for image in images]
    lacking = files.count(None)
    if lacking == len(files):
        raise DataError(
            f"{place.root}: none of the {len(files)} images of {split!r} has a label file, beside "
            "it or in labels where it is in images (see data.root and data.annotations)"
        )
    labels = [read_labels(file, about) if file else [] for file in files]
    polygons = sum(label.is_polygon for rows in labels for label in rows)
    notes = []
    if lacking:
        notes.append(f"{lacking} of {len(files)} images have no label file: they are background")
    if polygons:
        notes.append(f"{polygons} polygons are read as the boxes around them")
    if not about.names:
        notes.append("nothing names the classes: they are called by their numbers (see data.yaml)")
    content = to_coco(place.root, images, labels, about.names)
    where = f"{place.root} ({split})"
    return Source(where, place.root, content, origin, tuple(notes), undivided)


def recognize(place: Place) -> str | None:
    """The name of something of YOLO's that lies there: a description, or a file of labels."""
    descriptions, _ = find_descriptions(place)
    if descriptions:
        return " and ".join(place.relative(path) for path in descriptions)
    about = Description(place.root, {}, {})
    for folder in place.folders.walk(place.root):
        for path in place.folders.files(folder, (".txt",))[:PEEK]:
            with suppress(DataError, OSError):
                if read_labels(path, about):
                    return place.relative(path)
    return None


def find_split(place: Place, about: Description, split: str) -> tuple[list[Path], str, bool]:
    """The images of a split, what says so, and whether they are all because nothing tells splits
    apart. Raises DataError for what is missing."""
    if place.images:
        images = index(PICTURES, place, place.root, place.images, split)
        keys, undivided = of_split(images, split)
        return [only(images.files[key]) for key in keys], place.relative(images.folder), undivided
    for name in split_names(split):
        if entries := about.splits.get(name):
            paths = [path for entry in entries for path in _read_entry(place, about, entry)]
            return paths, f"{_origin(place, about)}: {', '.join(entries)}", False
        if f"{name}.txt" in (place.folders.entries(place.root) or {}):
            return _read_entry(place, about, f"{name}.txt"), f"{name}.txt", False
    if about.splits:
        raise DataError(
            f"{about.path} has no split {split!r}; there are: {', '.join(about.splits)}: "
            "see data.train and data.val (data.holdout sets a share of train apart)"
        )
    images = index(PICTURES, place, place.root, None, split)
    keys, undivided = of_split(images, split)
    return [only(images.files[key]) for key in keys], _origin(place, about), undivided


def _origin(place: Place, about: Description) -> str:
    return place.relative(about.path) if about.path else "no data.yaml"


def _read_entry(place: Place, about: Description, entry: str) -> list[Path]:
    """The images of a folder, or those that a text file lists."""
    path = locate(place, about.folder, entry)
    if path is None:
        raise DataError(
            f"{about.path}: there is no {entry}, neither from {about.folder} nor in {place.root}: "
            "correct the path there, or say by data.images where the images are"
        )
    if path.suffix.lower() != ".txt":
        folders = place.folders.walk(path)
        return [file for folder in folders for file in place.folders.files(folder, IMAGES)]
    lines = read_lines(path, lambda line: locate(place, path.parent, line) is not None)
    images = [locate(place, path.parent, line) for line in lines]
    missing = [line for line, image in zip(lines, images, strict=True) if image is None]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(lines)} images are missing that {path} lists, the first: "
            f"{missing[0]}"
        )
    return [image for image in images if image is not None]


def find_labels(place: Place, image: Path, split: str) -> Path | None:
    """The label file of an image: beside it, or at the same place in a folder labels where the
    image is in a folder images, or in the folder that the user names, in a folder of the image's or
    not. Raises DataError where there are several."""
    label = image.with_suffix(".txt")
    if place.annotations and not place.annotations.endswith(SUFFIXES):
        folder = place.fill(place.annotations, split)
        tails = (folder.joinpath(*label.parts[k:]) for k in range(1, len(label.parts)))
        files = [file for path in tails if (file := place.folders.find(str(path)))]
        return Path(files[0]) if files else None
    candidates = [label]
    for level, part in enumerate(image.parts[:-1]):
        if part.lower() in PICTURES.folders:
            parent, rest = Path(*label.parts[:level]), Path(*label.parts[level + 1 :])
            names = [name for name in place.folders.entries(parent) or {} if name.lower() in LABELS]
            candidates += [parent / name / rest for name in names]
    files = sorted({file for path in candidates if (file := place.folders.find(str(path)))})
    return only([Path(file) for file in files]) if files else None


def read_labels(path: Path, about: Description) -> list[Label]:
    """The lines of a label file. Raises DataError for the first that makes no sense."""
    labels = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            labels.append(_read_label(line.split(), about))
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}") from None
    return labels


def _read_label(words: list[str], about: Description) -> Label:
    """class, center x, center y, width, height, and perhaps a score; or class and x, y of three
    corners or more, of which the box around is taken."""
    category, *numbers = (float(word) for word in words)
    is_class = category.is_integer() and category >= 0
    if not is_class or (about.names and int(category) not in about.names):
        known = f"{min(about.names)} to {max(about.names)}" if about.names else "whole numbers"
        raise ValueError(f"there is no class {words[0]}: classes are {known}")
    if any(abs(number) > FARTHEST for number in numbers[: 4 if about.keypoints else None]):
        raise ValueError("YOLO's numbers are shares of the image, from 0 to 1, and not pixels")
    if about.keypoints or len(numbers) in (4, 5):
        x, y, width, height = numbers[:4]
        return Label(int(category), (x - width / 2, y - height / 2, width, height), False)
    if len(numbers) < 6 or len(numbers) % 2:
        raise ValueError(f"{len(numbers)} numbers after the class are no box and no polygon")
    left, top = min(numbers[::2]), min(numbers[1::2])
    width, height = max(numbers[::2]) - left, max(numbers[1::2]) - top
    return Label(int(category), (left, top, width, height), True)


def to_coco(
    root: Path, images: list[Path], labels: list[list[Label]], names: dict[int, str]
) -> Content:
    """The content of a COCO file in pixels; a category's id is its number in YOLO, ids of images
    and annotations count from 1."""
    with ThreadPoolExecutor(THREADS) as pool:
        sizes = list(pool.map(header_size, map(str, images)))
    seen = sorted({label.category for rows in labels for label in rows})
    names = names or {number: str(number) for number in seen}
    rows: list[dict[str, Any]] = []
    for image_id, (objects, (height, width)) in enumerate(zip(labels, sizes, strict=True), 1):
        for label in objects:
            sides = zip(label.box, (width, height, width, height), strict=True)
            bbox = [share * side for share, side in sides]
            row = {"id": len(rows) + 1, "image_id": image_id, "category_id": label.category}
            rows.append({**row, "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0})
    headers = [
        {"id": k, "file_name": os.path.relpath(path, root), "height": size[0], "width": size[1]}
        for k, (path, size) in enumerate(zip(images, sizes, strict=True), start=1)
    ]
    categories = [{"id": number, "name": name} for number, name in sorted(names.items())]
    return {"images": headers, "annotations": rows, "categories": categories}
