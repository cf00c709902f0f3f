"""Detections as text: lines of JSON, COCO, YOLO and CSV, from one list of what was seen."""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from detector.config.errors import UserError
from detector.config.files import safe_name
from detector.evaluation.drawing import Marks

LABELS = "labels"  # folder of YOLO's text files


class Seen(NamedTuple):
    """What was detected in an image (name, height and width), and of a frame of a video its number
    and the frames per second, of a data set's image its id and its objects. `output`: the name that
    its picture is written under."""

    name: str
    size: tuple[int, int]
    marks: Marks
    frame: int | None = None
    rate: float = 0.0
    image_id: int | None = None
    truth: Marks | None = None
    output: str = ""


def rows_of(seen: Seen, classes: Sequence[str], ids: Sequence[int] | None) -> Iterator[dict]:
    """A dict per object: image_id and category_id where the data set is known (`ids`, of every
    class), file_name, frame in a video, category, bbox (x, y, width, height), score."""
    for label, bbox, score in _objects(seen):
        row: dict[str, Any] = {}
        if ids is not None:
            row |= {"image_id": seen.image_id, "category_id": ids[label]}
        row |= {"file_name": seen.name}
        row |= {} if seen.frame is None else {"frame": seen.frame}
        yield row | {"category": classes[label], "bbox": bbox, "score": score}


def _objects(seen: Seen) -> Iterator[tuple[int, list[float], float]]:
    boxes, labels, scores = (part.tolist() for part in seen.marks[:3] if part is not None)
    for (left, top, right, bottom), label, score in zip(boxes, labels, scores, strict=True):
        yield label, [left, top, right - left, bottom - top], score


def render(
    kind: str, everything: Sequence[Seen], classes: Sequence[str], ids: Sequence[int] | None
) -> dict[str, str]:
    """File name -> content, of a kind of FORMATS."""
    everything = sorted(everything, key=lambda seen: (seen.name, seen.frame or 0))
    return FORMATS[kind](everything, classes, ids)


def _json(
    everything: Sequence[Seen], classes: Sequence[str], ids: Sequence[int] | None
) -> dict[str, str]:
    rows = [row for seen in everything for row in rows_of(seen, classes, ids)]
    return {"detections.json": json.dumps(rows)}


def _coco(
    everything: Sequence[Seen], classes: Sequence[str], ids: Sequence[int] | None
) -> dict[str, str]:
    """A whole data set, with the images without objects; annotations have a score besides."""
    ids = list(range(1, len(classes) + 1)) if ids is None else ids
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, seen in enumerate(everything, 1):
        image_id = number if seen.image_id is None else seen.image_id
        height, width = seen.size
        image = {"id": image_id, "file_name": seen.name, "height": height, "width": width}
        images.append(image | ({} if seen.frame is None else {"frame": seen.frame}))
        for label, bbox, score in _objects(seen):
            row: dict[str, Any] = {"id": len(annotations) + 1, "image_id": image_id}
            row |= {"category_id": ids[label]}
            row |= {"bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0, "score": score}
            annotations.append(row)
    categories = [{"id": id, "name": name} for id, name in zip(ids, classes, strict=True)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return {"detections.json": json.dumps(content)}


def _yolo(
    everything: Sequence[Seen], classes: Sequence[str], ids: Sequence[int] | None
) -> dict[str, str]:
    """labels/NAME.txt with a line per object, class number and center, width, height as shares of
    the image; no scores, which training would not read. A frame's name ends in its number."""
    files = {"classes.txt": "".join(f"{name}\n" for name in classes)}
    videos = {label_file(seen.name) for seen in everything if seen.frame is not None}
    for seen in everything:
        height, width = seen.size
        lines = [
            f"{label} {(x + w / 2) / width:.6f} {(y + h / 2) / height:.6f} "
            f"{w / width:.6f} {h / height:.6f}\n"
            for label, (x, y, w, h), _ in _objects(seen)
        ]
        name = label_file(seen.name, seen.frame)
        numbered = re.fullmatch(r"(.*)_\d{6,}\.txt", name) if seen.frame is None else None
        if name in files or (numbered and f"{numbered[1]}.txt" in videos):
            raise UserError(
                f"{name} would be of two images of one name: give them one after the other, or "
                "another --format"
            )
        files[name] = "".join(lines)
    return files


def label_file(name: str, frame: int | None = None) -> str:
    path = PurePosixPath(safe_name(name))
    number = "" if frame is None else f"_{frame:06d}"
    return str(LABELS / path.with_name(f"{path.stem}{number}.txt"))


def _csv(
    everything: Sequence[Seen], classes: Sequence[str], ids: Sequence[int] | None
) -> dict[str, str]:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file_name", "frame", "category", "x", "y", "width", "height", "score"])
    for seen in everything:
        frame = "" if seen.frame is None else seen.frame
        for label, bbox, score in _objects(seen):
            table.writerow([seen.name, frame, classes[label], *bbox, score])
    return {"detections.csv": text.getvalue()}


FORMATS = {"json": _json, "coco": _coco, "yolo": _yolo, "csv": _csv}
