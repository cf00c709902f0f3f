"""Text files that list images, as VOC's ImageSets and YOLO's lists do, in any encoding."""

import codecs
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from data import DataError
from data.files import IMAGES, Place, plain, split_names
from data.pairs import Index, only

MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
OTHERS = ("cp1252", "gb18030", "shift_jis", "euc_kr", "cp1251", "latin-1")
QUOTES = "\"'"


def read_lines(path: Path, is_known: Callable[[str], bool] = bool) -> list[str]:
    """The lines that are not blank, without quotes and blanks around them.

    A text that is not UTF-8 and has no mark of its encoding is read in the one that makes the most
    lines known: names of files that exist. Raises OSError.
    """
    readings = [list(map(_strip, text.splitlines())) for text in _decodings(path.read_bytes())]
    readings = [[line for line in lines if line] for lines in readings]
    if len(readings) == 1:
        return readings[0]
    return max(readings, key=lambda lines: sum(map(is_known, lines)))  # the first of the best


def _decodings(raw: bytes) -> Iterator[str]:
    for mark, encoding in MARKS.items():
        if raw.startswith(mark):
            yield raw.decode(encoding, "replace")
            return
    try:
        yield raw.decode()
        return
    except UnicodeDecodeError:
        yield raw.decode(errors="surrogateescape")  # as the names of such files are in Python
    for encoding in OTHERS:
        try:
            yield raw.decode(encoding)
        except UnicodeDecodeError:
            continue


def _strip(line: str) -> str:
    line = line.strip()
    quoted = len(line) > 1 and line[0] == line[-1] and line[0] in QUOTES
    return line[1:-1].strip() if quoted else line


def find_list(place: Place, base: Path, split: str) -> Path | None:
    """VOC's list of a split. Raises DataError where there are lists of other splits only."""
    folders = (base / "ImageSets" / "Main", base / "ImageSets", base)
    for name in split_names(split):
        for folder in folders:
            if f"{name}.txt" in (place.folders.entries(folder) or {}):
                return folder / f"{name}.txt"
    lists = [
        path
        for inner in place.folders.walk(base, 1)
        for path in place.folders.files(inner / "ImageSets" / "Main", (".txt",))
    ]
    if lists:
        names = [(path.parents[2].relative_to(base) / path.stem).as_posix() for path in lists]
        raise DataError(
            f"the split {folders[0] / split}.txt is missing; there are: {', '.join(names)}: see "
            "data.train and data.val"
        )
    return None


def read_list(base: Path, path: Path, images: Index, xmls: Index) -> list[tuple[Path, Path]]:
    """Image and xml file of every line of VOC's list. Raises DataError for lines that mean none,
    several, or one that is listed already."""
    lines = read_lines(path, lambda line: bool(_keys(line, images)))
    keys = [_keys(line, images) for line in lines]
    missing = [line for line, known in zip(lines, keys, strict=True) if not known]
    if missing and len(missing) == len(lines) and images.folder == base:
        raise DataError(f"the image folder {base / 'JPEGImages'} is missing ({path} lists images)")
    if missing:
        raise DataError(
            f"{len(missing)} of {len(lines)} images are missing in {images.folder}, "
            f"the first: {missing[0]} (listed in {path})"
        )
    files: dict[str, tuple[Path, Path]] = {}
    for line, (key, *others) in zip(lines, keys, strict=True):
        if others:
            raise DataError(
                f"{path}: {line!r} could mean the image {key!r} or {others[0]!r}: rename one"
            )
        if key in files:
            raise DataError(f"{path} names the image {key} twice, delete one of the lines")
        named = [image for image in images.files[key] if line.endswith(image.name)]
        xml = only(xmls.files.get(key, [xmls.folder / f"{key}.xml"]))
        files[key] = only(named or images.files[key]), xml
    return list(files.values())


def _keys(line: str, images: Index) -> list[str]:
    """The images that a line may mean. It has a name, with or without its suffix and folder, and
    perhaps a second column: -1, 0 or 1 in lists of a class, an xml file in others."""
    line = plain(line.replace("\\", "/")).removeprefix("./")
    names = {line, re.sub(r"\s+(-?[01]|\S.*\.xml)$", "", line)}
    for name in list(names):
        stem, suffix = os.path.splitext(name)
        names |= {stem} if suffix.lower() in (*IMAGES, ".xml") else set()
    names |= {name.removeprefix("JPEGImages/") for name in names}
    return sorted(name for name in names if name in images.files)
