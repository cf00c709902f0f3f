"""What a YOLO data set says of itself: where images are, and what the classes are called."""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from data import DataError
from data.files import Place
from data.lists import read_lines

SUFFIXES = (".yaml", ".yml", ".data")
LARGEST = 2**20  # bytes of a description
NAMES = ("obj.names", "classes.names", "classes.txt", "labels.txt")  # files with a class a line


class Description(NamedTuple):
    """What data.yaml or obj.data says. `splits`: name -> folders or lists of images, relative to
    `folder` · `names` of the classes, {} where nothing says them · `keypoints`: the numbers of a
    box are followed by those of points."""

    folder: Path
    splits: dict[str, list[str]]
    names: dict[int, str]
    keypoints: bool = False
    path: Path | None = None


def describe(place: Place) -> Description:
    """What the data set says of itself, in data.yaml, obj.data or a file with the classes' names.
    Raises DataError for broken ones, and for several."""
    if place.annotations and place.annotations.endswith(SUFFIXES):
        about = _read_description(place, place.root / place.annotations)
        if about is None:
            raise DataError(f"{place.root / place.annotations} does not name the classes")
        return about
    descriptions, broken = find_descriptions(place)
    if len(descriptions) > 1:
        names = " and ".join(map(place.relative, descriptions))
        raise DataError(f"{place.root} has {names}: say which by data.annotations")
    if descriptions:
        return next(iter(descriptions.values()))
    if broken:
        raise broken[0]
    for folder in place.folders.walk(place.root, 1):
        for name in NAMES:
            if name in (place.folders.entries(folder) or {}):
                return Description(place.root, {}, dict(enumerate(read_lines(folder / name))))
    return Description(place.root, {}, {})


def find_descriptions(place: Place) -> tuple[dict[Path, Description], list[DataError]]:
    """Those in the folder and one level below, and what is wrong with files that are broken."""
    descriptions: dict[Path, Description] = {}
    broken: list[DataError] = []
    for folder in place.folders.walk(place.root, 1):
        for path in place.folders.files(folder, SUFFIXES):
            try:
                about = _read_description(place, path)
            except DataError as error:
                broken.append(error)
            else:
                descriptions |= {path: about} if about else {}
    return descriptions, broken


def _read_description(place: Place, path: Path) -> Description | None:
    """None for a file that is about something else."""
    try:
        if path.stat().st_size > LARGEST or not re.search(rb"\b(names|nc)\b", path.read_bytes()):
            return None
        if path.suffix == ".data":
            lines = [line.split("=", 1) for line in read_lines(path) if "=" in line]
            tree: Any = {key.strip(): value.strip() for key, value in lines}
        else:
            tree = yaml.safe_load(path.read_text("utf-8-sig"))
        if not isinstance(tree, dict) or not {"names", "nc"} & tree.keys():
            return None
        names = _read_names(place, path, tree)
        given = {key: tree[key] for key in ("train", "val", "valid", "test") if tree.get(key)}
        splits = {key: [x] if isinstance(x, str) else list(x) for key, x in given.items()}
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise DataError(f"cannot read {path}: {' '.join(str(error).split())}") from None
    folder = locate(place, path.parent, str(tree.get("path") or ".")) or path.parent
    return Description(folder, splits, names, bool(tree.get("kpt_shape")), path)


def _read_names(place: Place, path: Path, tree: dict[str, Any]) -> dict[int, str]:
    """A list, or numbers with names, or the name of a file with a class on every line; numbers
    where only their count is given."""
    names = tree.get("names", range(int(tree.get("nc", 0))))
    if isinstance(names, str):
        names = read_lines(locate(place, path.parent, names) or path.parent / names)
    pairs = names.items() if isinstance(names, dict) else enumerate(names)
    return {int(number): str(name) for number, name in pairs}


def locate(place: Place, folder: Path, name: str) -> Path | None:
    """The file or folder of that name, relative to `folder` or to the data set; or else what its
    last parts name there, since such files keep the paths of the machine that wrote them."""
    parts = [x for x in PurePosixPath(name.replace("\\", "/")).parts if x not in ("/", "..", ".")]
    # A folder called images may be that of another split; a list of the data set is no other's.
    fewest = 1 if name.endswith((".txt", ".names")) else min(2, len(parts))
    tails = [os.path.join(place.root, *parts[k:]) for k in range(len(parts) - fewest + 1)]
    for path in (os.path.join(folder, name), os.path.join(place.root, name), *tails):
        if file := place.folders.find(os.path.normpath(path)):
            return Path(file)
    return None
