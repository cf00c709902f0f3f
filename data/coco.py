"""COCO annotation files: reading, checking, and their classes."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import DataError

Content = dict[str, Any]  # of a COCO file: images, annotations, categories


def read(path: Path) -> Content:
    """The file as it is. Raises DataError where it is missing, broken or of another kind, or where
    ids are not unique."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"cannot read the annotations {path}: {reason} (see data.root and data.annotations)"
        ) from None
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is not a whole JSON file: {reason}; copy it again") from None
    for name, keys in (
        ("images", {"id", "file_name"}),
        ("annotations", {"image_id", "category_id", "bbox"}),
        ("categories", {"id", "name"}),
    ):
        rows = content.get(name) if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise DataError(f"{path} has no list {name!r}: it is not a COCO annotation file")
        for number, row in enumerate(rows):
            if not isinstance(row, dict) or not keys <= row.keys():
                wanted = ", ".join(sorted(keys))
                raise DataError(f"{path}: entry {number} of {name!r} needs {wanted}")
            if not isinstance(row.get("file_name", ""), str):
                raise DataError(f"{path}: entry {number} of {name!r} has no text as file_name")
    for name in ("images", "categories"):
        _check_ids(content[name], f"{path}: {name}")
    return content


def _check_ids(rows: list[dict[str, Any]], where: str) -> None:
    seen: set[int] = set()
    for row in rows:
        if type(row["id"]) is not int:
            raise DataError(f"{where}: the id {row['id']!r} is not a whole number")
        if row["id"] in seen:
            raise DataError(f"{where}: the id {row['id']} occurs twice, make it unique")
        seen.add(row["id"])


def class_ids(content: Content, where: object) -> dict[str, int]:
    """Class name -> category id, ordered by id. Raises DataError for none and for doubles."""
    rows = sorted(content["categories"], key=lambda row: row["id"])
    names = {str(row["name"]): row["id"] for row in rows}
    if not names:
        raise DataError(f"{where} has no categories")
    if len(names) < len(rows):
        every = [str(row["name"]) for row in rows]
        twice = next(name for name in names if every.count(name) > 1)
        raise DataError(f"{where}: two categories have the name {twice!r}, rename or merge them")
    return names


def difference(
    left: Iterable[str], left_name: str, right: Iterable[str], right_name: str
) -> str | None:
    """One line that names the classes only one side has; None where both have the same."""
    sides = [(left_name, left, set(right)), (right_name, right, set(left))]
    parts = []
    for name, classes, others in sides:
        alone = [item for item in classes if item not in others]
        if alone:
            parts.append(f"only in {name}: {', '.join(alone)}")
    return "; ".join(parts) or None


def restrict(content: Content, classes: Sequence[str]) -> Content:
    """The same without categories, and their annotations, that are not in `classes`; the very same
    object where there are none."""
    categories = [row for row in content["categories"] if str(row["name"]) in set(classes)]
    if len(categories) == len(content["categories"]):
        return content
    ids = {row["id"] for row in categories}
    rows = [row for row in content["annotations"] if row["category_id"] in ids]
    return {**content, "categories": categories, "annotations": rows}


def set_apart(content: Content, share: float, *, rest: bool) -> Content:
    """The part of the images that is set apart, or the rest of them, with their annotations.

    Chosen by lot, always the same ones; at least one image is in each part. Raises DataError for
    fewer than two images.
    """
    images = content["images"]
    if len(images) < 2:
        raise DataError(f"data.holdout needs two images or more, there is {len(images)}")
    count = min(max(1, round(share * len(images))), len(images) - 1)
    apart = np.zeros(len(images), bool)
    apart[np.random.default_rng(0).permutation(len(images))[:count]] = True
    kept = [image for image, is_apart in zip(images, apart, strict=True) if is_apart != rest]
    ids = {image["id"] for image in kept}
    rows = [row for row in content["annotations"] if row["image_id"] in ids]
    return {**content, "images": kept, "annotations": rows}
