"""One split of a data set: the arrays that training reads, made from COCO content and checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data import DataError
from data.content import Content, class_ids, read_identity, whole
from data.files import Folders, find_images, header_size

FEW = 20  # classes that a report lists one by one


class Annotated(NamedTuple):
    """Boxes as the annotations have them, of the classes that are asked for: float64 (B, 4) xyxy,
    and the index of the image of each, int64 (B,)."""

    boxes: np.ndarray
    images: np.ndarray


NOTHING = Annotated(np.zeros((0, 4)), np.zeros(0, np.int64))


@dataclass(frozen=True)
class Split:
    """M images and their A boxes, sorted by image, in flat arrays (a million small objects would
    be copied into every worker). `rows(index)` are the boxes of one image.

    paths: M files · image_ids int64 (M,) · sizes int64 (M, 2) height, width · boxes float32 (A, 4)
    xyxy, pixels of the file, inside the image and with an area · labels int64 (A,) ·
    ignore bool (A,) crowd or difficult · identities int64 (A,), negative none, or None where the
    data has none; numbers and texts of the annotations until `number_identities` ·
    starts int64 (M + 1,) · dropped: reason -> boxes not taken over ·
    clipped: boxes that reached over the border by more than a pixel · annotated: all boxes before
    that, for checks · where: names the annotations in errors · unread: the error of the first
    identity that cannot be read, for those who need identities.
    """

    paths: list[str]
    image_ids: np.ndarray
    sizes: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    identities: np.ndarray | None
    starts: np.ndarray
    dropped: dict[str, int]
    clipped: int
    annotated: Annotated = NOTHING
    where: str = ""
    unread: str = ""

    def __len__(self) -> int:
        return len(self.paths)

    def rows(self, index: int) -> slice:
        return slice(int(self.starts[index]), int(self.starts[index + 1]))

    def report(self, name: str, classes: Sequence[str]) -> list[str]:
        """What is in it and what was left out, as two or three short lines."""
        counts = np.bincount(self.labels[~self.ignore], minlength=len(classes))
        empty = int((np.diff(self.starts) == 0).sum())
        lines = [
            f"{name}: {len(self)} images ({empty} without boxes), {counts.sum()} objects, "
            f"{self.ignore.sum()} crowd or difficult"
        ]
        most = np.argsort(-counts, kind="stable")
        parts = [f"{classes[label]} {counts[label]}" for label in most]
        if len(parts) > FEW:
            parts = [*parts[: FEW // 2], "...", *parts[-FEW // 2 :]]
        lines.append(f"{name}: {', '.join(parts)}")
        notes = [f"{count} {reason}" for reason, count in self.dropped.items() if count]
        if notes or self.clipped:
            notes = [f"dropped {', '.join(notes)}"] if notes else []
            notes += [f"clipped {self.clipped} at the border"] if self.clipped else []
            lines.append(f"{name}: boxes {'; '.join(notes)}")
        return lines


def to_split(
    content: Content,
    folder: Path,
    classes: Sequence[str],
    where: object,
    identity: str = "track_id",
) -> Split:
    """Checks everything that training relies on. `folder` is what the file names are relative to,
    `where` names the annotations in errors. Classes that are not in `classes` are left out."""
    images, annotations = content["images"], content["annotations"]
    if not images:
        raise DataError(f"{where} has no images")
    ids = class_ids(content, where)
    label_of = dict.fromkeys(ids.values(), -1)
    label_of |= {ids[name]: label for label, name in enumerate(classes) if name in ids}
    index_of = {image["id"]: index for index, image in enumerate(images)}
    image = np.array([index_of[row["image_id"]] for row in annotations], np.int64)
    labels = np.array([label_of[row["category_id"]] for row in annotations], np.int64)
    paths = find_images(folder, [image["file_name"] for image in images], Folders())
    sizes = _sizes(images, paths)
    order = np.argsort(image, kind="stable")
    image, labels = image[order], labels[order]
    annotations = [annotations[position] for position in order.tolist()]
    marks = np.array([row.get("iscrowd") or row.get("difficult") for row in annotations], bool)
    raw = _boxes(annotations, where)
    boxes, kept, dropped = _clean(raw, labels, sizes[image])
    counts = np.bincount(image[kept], minlength=len(images))
    identities, unread = _identities(annotations, identity, kept & ~marks, where)
    return Split(
        paths=paths,
        image_ids=np.array([image["id"] for image in images], np.int64),
        sizes=sizes,
        boxes=boxes[kept],
        labels=labels[kept],
        ignore=marks[kept],
        identities=None if identities is None else identities[kept],
        starts=np.concatenate([[0], np.cumsum(counts)]),
        dropped=dropped,
        clipped=int((abs(raw - boxes)[kept] > 1).any(axis=1).sum()),
        annotated=Annotated(raw[labels >= 0], image[labels >= 0]),
        where=str(where),
        unread=unread,
    )


def _sizes(images: list[dict[str, Any]], paths: list[str]) -> np.ndarray:
    """int64 (M, 2) height, width; from the image file where the annotations do not say."""
    sizes = np.zeros((len(images), 2), np.int64)
    for index, image in enumerate(images):
        height, width = (whole(image.get(side)) or 0 for side in ("height", "width"))
        sizes[index] = (height, width) if min(height, width) > 0 else header_size(paths[index])
    return sizes


def _boxes(annotations: list[dict[str, Any]], where: object) -> np.ndarray:
    """float64 (A, 4) xywh -> xyxy."""
    rows = [row["bbox"] for row in annotations]
    try:
        boxes = np.array(rows or np.zeros((0, 4)))
    except ValueError:  # not all have the same length
        boxes = np.zeros(0)
    if boxes.dtype.kind not in "fi" or boxes.shape != (len(rows), 4):
        _refuse_one(annotations, where)
    boxes = boxes.astype(np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _refuse_one(annotations: list[dict[str, Any]], where: object) -> None:
    for row in annotations:
        bbox = row["bbox"]
        numbers = isinstance(bbox, list) and all(isinstance(side, int | float) for side in bbox)
        if not numbers or len(bbox) != 4:
            name = f"annotation {row.get('id', '(without id)')}"
            raise DataError(f"{where}: {name} needs a bbox [x, y, width, height], not {bbox}")


def _clean(
    boxes: np.ndarray, labels: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Boxes (A, 4) clipped to their images (`sizes` (A, 2) height, width), which rows to keep, and
    how many were dropped for which reason."""
    finite = np.isfinite(boxes).all(axis=1)
    solid = finite & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    clipped = np.clip(np.where(finite[:, None], boxes, 0), 0, sizes[:, [1, 0, 1, 0]])
    clipped = clipped.astype(np.float32)  # rounding may take the last bit of an area
    inside = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    wanted = labels >= 0
    reasons = {
        "of other classes": ~wanted,
        "not finite": wanted & ~finite,
        "without area": wanted & finite & ~solid,
        "off the image": wanted & solid & ~inside,
    }
    return clipped, wanted & solid & inside, {k: int(v.sum()) for k, v in reasons.items()}


def _identities(
    annotations: list[dict[str, Any]], key: str, used: np.ndarray, where: object
) -> tuple[np.ndarray | None, str]:
    """Numbers and texts (A,), -1 where there is none or it is not `used`; None where no annotation
    has the key; and the error of the first that is neither number nor text."""
    values, unread = np.full(len(annotations), -1, object), ""
    for place in np.flatnonzero(used).tolist():
        try:
            values[place] = read_identity(annotations[place].get(key))
        except ValueError as error:
            unread = unread or (
                f"{where}: annotation {annotations[place].get('id', '(without id)')}: the {key} "
                f"{error}: write one, null where there is none, or name another key by "
                "data.identity"
            )
    return (values if any(row.get(key) is not None for row in annotations) else None), unread
