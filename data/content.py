"""What every format is read into, the content of a COCO file, and what is done to it."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data import DataError

Content = dict[str, Any]  # of a COCO file: images, annotations, categories
SHARE = 0.2  # of a data set without splits, to validate on


class Source(NamedTuple):
    """A part of a data set, as it was read.

    where: names it in errors · folder: what the file names in `content` are relative to ·
    place: what was read, for the user · notes: what the user should know of it · undivided: the
    data set has no splits, and this is all of it · left_out: objects of classes that nobody asked
    for, no longer in `content` · shared: identities that several of the joined files have.
    """

    where: str
    folder: Path
    content: Content
    place: str
    notes: tuple[str, ...] = ()
    undivided: bool = False
    left_out: int = 0
    shared: int = 0


def whole(value: Any) -> int | None:
    """The whole number that 7, 7.0 or "7" is; None for anything else."""
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    is_text = isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+\s*", value, re.ASCII)
    return int(value) if is_text else None


def read_identity(value: Any) -> int | str:
    """What tells an object from others: a whole number of any size, or a text; -1, for none, where
    it is null, blank or negative. Raises ValueError for anything else."""
    if (number := whole(value)) is not None:
        return max(number, -1)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{value!r:.60} is neither a whole number nor a text")
    return (value or "").strip() or -1


def class_names(content: Content) -> list[str]:
    """The names of all categories, ordered by id."""
    return [row["name"] for row in sorted(content["categories"], key=lambda row: row["id"])]


def class_ids(content: Content, where: object) -> dict[str, int]:
    """Class name -> category id, ordered by id. Raises DataError for none and for doubles."""
    names = class_names(content)
    if not names:
        raise DataError(f"{where} has no categories")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{where}: two categories have the name {twice!r}, rename or merge them")
    ids = {row["name"]: row["id"] for row in content["categories"]}
    return {name: ids[name] for name in names}


def difference(
    left: Iterable[str], left_name: str, right: Iterable[str], right_name: str
) -> str | None:
    """One line that names the classes only one side has; None where both have the same."""
    sides = [(left_name, left, set(right)), (right_name, right, set(left))]
    parts = []
    for name, classes, others in sides:
        alone = [repr(item) for item in classes if item not in others]
        if alone:
            parts.append(f"only in {name}: {', '.join(alone)}")
    return "; ".join(parts) or None


def restrict(content: Content, classes: Sequence[str]) -> Content:
    """The same without categories, and their annotations, that are not in `classes`; the very same
    object where there are none."""
    categories = [row for row in content["categories"] if row["name"] in set(classes)]
    if len(categories) == len(content["categories"]):
        return content
    ids = {row["id"] for row in categories}
    rows = [row for row in content["annotations"] if row["category_id"] in ids]
    return {**content, "categories": categories, "annotations": rows}


def complete(content: Content, classes: Sequence[str]) -> Content:
    """The same with a category for every one of `classes`, new ones without objects."""
    names = {row["name"] for row in content["categories"]}
    free = 1 + max((row["id"] for row in content["categories"]), default=0)
    lacking = [name for name in classes if name not in names]
    new = [{"id": free + number, "name": name} for number, name in enumerate(lacking)]
    return {**content, "categories": content["categories"] + new} if new else content


def number_classes(content: Content, classes: Sequence[str]) -> Content:
    """The objects of `classes` alone; ids of categories and annotations count from 1 anew."""
    names = {row["id"]: row["name"] for row in content["categories"]}
    ids = {name: number for number, name in enumerate(classes, start=1)}
    kept = [row for row in content["annotations"] if names[row["category_id"]] in ids]
    rows = [
        {**row, "id": number, "category_id": ids[names[row["category_id"]]]}
        for number, row in enumerate(kept, start=1)
    ]
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    return {**content, "annotations": rows, "categories": categories}


def merge_classes(content: Content, name: str) -> Content:
    """All objects as one class."""
    rows = [{**row, "category_id": 1} for row in content["annotations"]]
    return {**content, "annotations": rows, "categories": [{"id": 1, "name": name}]}


def join(sources: Sequence[Source], root: Path, identity: str = "track_id") -> Source:
    """Several as one, in this order. Categories are those of all, by name; all ids count from 1
    anew, but identities, the values under the key `identity`, are those of the files; file names
    are relative to `root`."""
    if len(sources) == 1:
        return sources[0]
    names = list(dict.fromkeys(name for source in sources for name in class_names(source.content)))
    images: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for source in sources:
        content = number_classes(source.content, names)
        ids = {image["id"]: len(images) + k for k, image in enumerate(content["images"], start=1)}
        for image in content["images"]:
            name = os.path.relpath(os.path.join(source.folder, image["file_name"]), root)
            images.append({**image, "id": ids[image["id"]], "file_name": name})
        for row in content["annotations"]:
            rows.append({**row, "id": len(rows) + 1, "image_id": ids[row["image_id"]]})
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    content = {"images": images, "annotations": rows, "categories": categories}
    where, place = (" + ".join(getattr(x, name) for x in sources) for name in ("where", "place"))
    notes = tuple(note for source in sources for note in source.notes)
    return Source(where, root, content, place, notes, shared=_count_shared(sources, identity))


def _count_shared(sources: Sequence[Source], key: str) -> int:
    """How many identities are in more than one of them."""
    count: Counter[int | str] = Counter()
    for source in sources:
        values = set()
        for row in source.content["annotations"]:
            with suppress(ValueError):  # to be refused where it is needed
                values.add(read_identity(row.get(key)))
        count.update(values - {-1})
    return sum(number > 1 for number in count.values())


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
