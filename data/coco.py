"""COCO annotation files: finding, reading and checking them."""

import json
import math
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from data import DataError
from data.content import Content, Source, whole
from data.files import SYNONYMS, Place, split_names

PEEK = 1 << 16  # bytes at either end of a file that tell whether it is COCO's
SAMPLE = 20  # names of images that tell which folder they are in
REQUIRED = {
    "images": {"id", "file_name"},
    "annotations": {"image_id", "category_id", "bbox"},
    "categories": {"id", "name"},
}
TRUTH = {"0": 0, "1": 1, "false": 0, "true": 1}


def read(place: Place, split: str) -> Source:
    """One split. Raises DataError where files are missing or broken."""
    path, undivided = find_annotations(place, split)
    content, notes = read_file(path)
    folder = find_folder(place, split, path, [image["file_name"] for image in content["images"]])
    where = f"{place.relative(path)}, images in {place.relative(folder)}"
    return Source(str(path), folder, content, where, tuple(notes), undivided)


def find_annotations(place: Place, split: str) -> tuple[Path, bool]:
    """The annotation file of a split, and whether it is one for the whole of a data set that has
    no splits. Without a template: annotations/instances_SPLIT.json, or else the only COCO file
    whose name or folder says the split. Raises DataError for none, and for several."""
    if place.annotations:
        return place.fill(place.annotations, split), False
    path = place.root / "annotations" / f"instances_{split}.json"
    if path.is_file():
        return path, False
    files = [path for path in place.find_files((".json",)) if is_coco(path)]
    for name in split_names(split):
        named = [path for path in files if name.lower() in _tokens(place.relative(path))]
        instances = [path for path in named if path.name.startswith("instances")]
        if len(chosen := instances or named) == 1:
            return chosen[0], False
        if chosen:
            raise DataError(f"{_several(place, chosen)}: say which by data.annotations")
    words = {word for names in SYNONYMS for word in names}
    splits = [path for path in files if _tokens(place.relative(path)) & words]
    if len(files) == 1 and not splits:
        return files[0], True
    if len(files) > 1 and not splits:
        raise DataError(f"{_several(place, files)}: say which by data.annotations")
    names = ", ".join(map(place.relative, files))
    choices = "see data.root, data.format and data.annotations"
    if names:
        choices = f"there are: {names}: see data.train, data.val and data.annotations"
    raise DataError(f"cannot read the annotations {path}: no such file; {choices}")


def recognize(place: Place) -> str | None:
    """The name of an annotation file of COCO's that lies there."""
    if place.annotations:
        return place.annotations if place.annotations.endswith(".json") else None
    files = (path for path in place.find_files((".json",)) if is_coco(path))
    path = next(files, None)
    return place.relative(path) if path else None


def is_coco(path: Path) -> bool:
    """Whether a json file looks like COCO's, as far as its beginning and end tell."""
    with open(path, "rb") as file:
        head = file.read(PEEK)
        file.seek(max(0, path.stat().st_size - PEEK))
        text = (head + file.read()).replace(b"\0", b"")  # UTF-16
    start = head.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")[:1]
    return start == b"{" and bool(re.search(rb'"(images|annotations|categories)"\s*:\s*\[', text))


def _tokens(name: str) -> set[str]:
    """The words of a path, as they are and without a year: train2017, train."""
    words = re.split(r"[^a-z0-9]+", name.lower().removesuffix(".json"))
    return {*words, *(word.rstrip("0123456789") for word in words)}


def _several(place: Place, paths: Sequence[Path]) -> str:
    return f"{place.root} has {' and '.join(map(place.relative, paths))}"


def find_folder(place: Place, split: str, annotations: Path, names: Sequence[str]) -> Path:
    """The folder that the file names are relative to. Without a template: SPLIT, or where that has
    none of the images the only folder that has all, and is not called as another split. Raises
    DataError for several. Where there is none it is SPLIT, for whoever looks for the images next.
    """
    if place.images:
        return place.fill(place.images, split)
    default = place.root / split
    if not names or any(_has(place, default, name) for name in names[:SAMPLE]):
        return default
    own = {*split_names(split), *_tokens(annotations.stem)}
    others = {word for names in SYNONYMS for word in names} - own
    folders = [
        folder
        for folder in place.folders.walk(place.root)
        if not _tokens(place.relative(folder)) & others
        and all(_has(place, folder, name) for name in names[:SAMPLE])
    ]
    if len({os.path.realpath(folder / names[0]) for folder in folders}) > 1:
        several = " and ".join(map(place.relative, folders))
        raise DataError(f"{annotations}: its images are in {several}: say which by data.images")
    return folders[0] if folders else default


def _has(place: Place, folder: Path, name: str) -> bool:
    return place.folders.find(os.path.join(folder, name)) is not None


def read_file(path: Path) -> tuple[Content, list[str]]:
    """The content of the file, in which numbers written as text are numbers, and what to say of it.
    Raises DataError where it is missing, broken or of another kind, and where ids are not unique or
    lead nowhere."""
    content = _parse(path)
    for name, keys in REQUIRED.items():
        rows = content.get(name) if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise DataError(f"{path} has no list {name!r}: it is not a COCO annotation file")
        for number, row in enumerate(rows):
            if not isinstance(row, dict) or not keys <= row.keys():
                wanted = ", ".join(sorted(keys))
                raise DataError(f"{path}: entry {number} of {name!r} needs {wanted}")
    for number, row in enumerate(content["images"]):
        if not isinstance(row["file_name"], str):
            raise DataError(f"{path}: entry {number} of 'images' has no text as file_name")
    for row in content["categories"]:
        if not isinstance(row["name"], str | int | float):
            raise DataError(f"{path}: the category {row['id']!r} has no text as name")
        row["name"] = str(row["name"])
    for name in ("images", "categories"):
        _read_ids(content[name], f"{path}: {name}")
    return content, _read_annotations(content, path)


def _parse(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"cannot read the annotations {path}: {reason} (see data.root and data.annotations)"
        ) from None
    except UnicodeDecodeError as error:
        byte = f"byte {error.object[error.start]:#x} at {error.start}"
        raise DataError(f"{path} is not UTF-8 text ({byte}): save it as UTF-8") from None
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is not a whole JSON file: {reason}; copy it again") from None


def _read_ids(rows: list[dict[str, Any]], where: str) -> None:
    """Makes every id a whole number. Raises DataError for one that is none or occurs twice."""
    seen: dict[int, Any] = {}
    for row in rows:
        given, row["id"] = row["id"], whole(row["id"])
        if row["id"] is None:
            raise DataError(f"{where}: the id {given!r} is not a whole number")
        if row["id"] in seen:
            first = seen[row["id"]]
            pair = f"{first!r} occurs twice" if first == given else f"{first!r} and {given!r} occur"
            raise DataError(f"{where}: the id {pair}, make it unique")
        seen[row["id"]] = given


def _read_annotations(content: Content, path: Path) -> list[str]:
    """Makes numbers and truth values of what should be some, in place; what else to say of them."""
    known = {
        "image_id": {image["id"] for image in content["images"]},
        "category_id": {category["id"] for category in content["categories"]},
    }
    odd_areas = difficult = 0
    for row in content["annotations"]:
        for key, ids in known.items():
            value = row[key]
            if type(value) is not int:
                row[key] = whole(value)
            if row[key] not in ids:
                raise DataError(f"{_name(row, path)} has {key} {value!r}, which is not in the file")
        for key in ("iscrowd", "difficult"):
            if isinstance(value := row.get(key), str):
                if value.lower() not in TRUTH:
                    raise DataError(f"{_name(row, path)} has {key} {value!r}: write 0 or 1")
                row[key] = TRUTH[value.lower()]
        if row.get("difficult") and not row.get("iscrowd"):
            row["iscrowd"], difficult = 1, difficult + 1
        if isinstance(row["bbox"], list) and any(isinstance(side, str) for side in row["bbox"]):
            row["bbox"] = [_number(side, side) for side in row["bbox"]]
        if row.get("area") is not None:
            area = _number(row["area"], None)
            if area is None:
                raise DataError(f"{_name(row, path)} has the area {row['area']!r}: write a number")
            if math.isfinite(area) and area >= 0:
                row["area"] = area
            else:
                odd_areas += bool(row.pop("area"))
    notes = {
        f"{odd_areas} areas are below 0 or infinite: width x height count": odd_areas,
        f"{difficult} difficult objects without iscrowd count as if they had it, in training and "
        "evaluation: pycocotools, given the file as it is, would count them as objects": difficult,
    }
    return [note for note, count in notes.items() if count]


def _name(row: dict[str, Any], path: Path) -> str:
    return f"{path}: annotation {row.get('id', '(without id)')}"


def _number(value: Any, otherwise: Any) -> Any:
    """A number as it is, a text as the number it writes down, `otherwise` for anything else."""
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value if isinstance(value, int | float) else otherwise
