"""Files of a data set: which there are, which of them a name means, how large an image is."""

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from data import DataError

IMAGES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff"),
    *(".gif", ".avif", ".jp2", ".ppm", ".pgm"),
)
SYNONYMS = (("val", "valid", "validation"), ("train", "training"), ("test", "testing"))
T = TypeVar("T")
TURNED = ("JPEG", "MPO", "PNG", "WEBP")  # OpenCV turns these, Pillow does not; TIFF both do


def split_names(split: str) -> tuple[str, ...]:
    """The split's own name first, then what other tools call it: val, valid, validation."""
    others = [name for names in SYNONYMS if split.lower() in names for name in names]
    return (split, *(name for name in others if name != split))


class Folders:
    """Folders, each listed once: asking for every single file takes minutes on a network drive."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, bool] | None] = {}

    def entries(self, folder: str | Path) -> dict[str, bool] | None:
        """Name -> whether it is a folder, sorted; None: there is no such folder."""
        key = str(folder)
        if key not in self._entries:
            try:
                with os.scandir(key or ".") as entries:
                    names = {entry.name: entry.is_dir() for entry in entries}
            except OSError:
                self._entries[key] = None
            else:
                self._entries[key] = dict(sorted(names.items()))
        return self._entries[key]

    def find(self, path: str) -> str | None:
        """The file or folder that is meant: of this very name, or else with / for \\ (written on
        Windows), or else with its accents encoded in another way (written on a Mac)."""
        folder, name = os.path.split(path)
        entries = self.entries(folder)
        if entries is not None and name in entries:
            return path
        if "\\" in path:
            return self.find(path.replace("\\", "/"))
        if entries is None:
            parent = self.find(folder) if folder and folder != path else None
            return self.find(os.path.join(parent, name)) if parent not in (None, folder) else None
        same = [other for other in entries if plain(other) == plain(name)]
        return os.path.join(folder, same[0]) if len(same) == 1 and not name.isascii() else None

    def walk(self, root: str | Path, depth: int = 3) -> list[Path]:
        """The folder and those below it, `depth` levels deep, without hidden ones."""
        folders = [Path(root)]
        for name, is_folder in (self.entries(root) or {}).items() if depth else ():
            if is_folder and name[0] != "." and name != "__MACOSX":
                folders += self.walk(Path(root) / name, depth - 1)
        return folders

    def files(self, folder: str | Path, suffixes: Sequence[str]) -> list[Path]:
        """The files of a folder that end so, whatever the case, without hidden ones."""
        entries = self.entries(folder) or {}
        names = [name for name, is_folder in entries.items() if not is_folder and name[0] != "."]
        return [Path(folder) / name for name in names if name.lower().endswith(tuple(suffixes))]


@dataclass(frozen=True)
class Place:
    """Where a data set lies: its folder, and where the user says that annotations and images are,
    templates relative to it (or absolute) in which {split} stands for the split's name."""

    root: Path
    annotations: str | None = None
    images: str | None = None
    folders: Folders = field(default_factory=Folders, compare=False)

    def fill(self, template: str, split: str) -> Path:
        return self.root / template.replace("{split}", split)

    def relative(self, path: Path) -> str:
        """How a file of the data set is called to its user."""
        return (
            path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)
        )

    def find_files(self, suffixes: Sequence[str]) -> list[Path]:
        """All files that end so, in folders up to three levels deep."""
        folders = self.folders.walk(self.root)
        return [path for folder in folders for path in self.folders.files(folder, suffixes)]


def plain(name: str) -> str:
    """The name with its accents in one encoding: Macs write another than the rest."""
    return unicodedata.normalize("NFC", name)


def find_images(folder: Path, names: Sequence[str], folders: Folders) -> list[str]:
    """The paths of images called `names` by the annotations. Raises DataError for missing ones."""
    paths = [os.path.join(folder, name) for name in names]
    found = [folders.find(path) for path in paths]
    missing = [path for path, file in zip(paths, found, strict=True) if file is None]
    if not missing:
        return [file for file in found if file is not None]
    parent, name = os.path.split(missing[0])
    entries = folders.entries(parent)
    see = "(see data.root and data.images)"
    if entries is None:
        raise DataError(f"the image folder {parent} is missing {see}")
    similar = [other for other in entries if other.casefold() == name.casefold()]
    hint = f"; there is {similar[0]}, which differs in case" if similar else ""
    raise DataError(
        f"{len(missing)} of {len(paths)} images are missing, the first: {missing[0]}{hint} {see}"
    )


def header_size(path: str) -> tuple[int, int]:
    """Height and width from the first bytes of an image file, turned as its EXIF data says."""
    from PIL import Image  # OpenCV can only decode the whole

    try:
        with Image.open(path) as image:
            turned = image.format in TURNED and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return (image.width, image.height) if turned else (image.height, image.width)
    except OSError:
        raise DataError(f"cannot decode the image {path}: replace it or drop it") from None
