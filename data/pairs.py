"""Which annotation file belongs to which image, where nothing but their names says so."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from data import DataError
from data.files import IMAGES, SYNONYMS, Place, plain, split_names


class Kind(NamedTuple):
    """Files of one kind, and folders whose names only say of what kind the files in them are."""

    suffixes: tuple[str, ...]
    folders: tuple[str, ...]
    default: str | None = None  # where they are if there is such a folder


PICTURES = Kind(IMAGES, ("images", "image", "imgs", "img", "jpegimages", "data"), "JPEGImages")


class Index(NamedTuple):
    """All files of a kind in and below a folder, by what says which image each belongs to: its path
    without suffix and without the kind's folders. Of images/train/a.jpg, train/images/a.jpg and
    train/a.jpg that is train/a. `divided`: the folder is that of one split already."""

    folder: Path
    files: dict[str, list[Path]]
    divided: bool = False


def index(kind: Kind, place: Place, base: Path, template: str | None, split: str) -> Index:
    """The files of a kind below `base`, or where the user's template says that they are."""
    folder = base
    if template:
        folder = base / template.replace("{split}", split)
    elif kind.default and place.folders.entries(base / kind.default) is not None:
        folder = base / kind.default
    files: dict[str, list[Path]] = {}
    for inner in place.folders.walk(folder):
        parts = [x for x in inner.relative_to(folder).parts if x.lower() not in kind.folders]
        for path in place.folders.files(inner, kind.suffixes):
            files.setdefault(plain("/".join([*parts, path.stem])), []).append(path)
    return Index(folder, files, bool(template) and "{split}" in str(template))


def of_split(images: Index, split: str) -> tuple[list[str], bool]:
    """The keys of the images in a folder that is called as the split; or those of all, and True,
    where none is in a folder of any split. Raises DataError where only other splits are there."""
    if images.divided:
        return list(images.files), False
    first = {key: key.partition("/")[0].lower() if "/" in key else "" for key in images.files}
    for name in split_names(split):
        if chosen := [key for key, folder in first.items() if folder == name.lower()]:
            return chosen, False
    others = {name for names in SYNONYMS for name in names} & set(first.values())
    if others:
        raise DataError(
            f"{images.folder} has no images of the split {split!r}; there are: "
            f"{', '.join(sorted(others))}: see data.train and data.val (data.holdout sets a share "
            "of train apart)"
        )
    return list(images.files), True


def pair(keys: list[str], images: Index, others: Index) -> dict[str, Path]:
    """Key -> annotation file, of the images that have one: the file of the same key, or else the
    only one that is left over and has this name. Raises DataError where several could be meant."""
    pairs = {key: only(others.files[key]) for key in keys if key in others.files}
    left_images, left_others = (
        _by_name(key for key in index.files if key not in other.files)
        for index, other in ((images, others), (others, images))
    )
    for key in keys:
        name = key.rpartition("/")[2]
        if key not in pairs and name in left_others:
            only([images.files[other][0] for other in left_images[name]])
            pairs[key] = only([path for other in left_others[name] for path in others.files[other]])
    return pairs


def _by_name(keys: Iterable[str]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for key in keys:
        names.setdefault(key.rpartition("/")[2], []).append(key)
    return names


def only(paths: list[Path]) -> Path:
    if len(paths) > 1:
        raise DataError(f"{paths[0]} and {paths[1]} could both be meant: rename or remove one")
    return paths[0]
