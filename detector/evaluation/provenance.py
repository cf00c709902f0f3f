"""What figures were made from, so that none is compared with one that was made otherwise."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

# What two evaluations must share for their figures to be compared, and how it is called
COMPARABLE = {
    "annotations": "the annotations",
    "evaluated": "the images that were evaluated",
    "classes": "the classes and their order",
    "images": "the image files",
}


def digest(value: Any) -> str:
    """A short fingerprint of plain values; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def describe_origin(
    weights: Path,
    truth: Mapping[str, Any],
    evaluated: Iterable[int],
    files: Mapping[int, str],
    classes: Sequence[str],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """What an evaluation was made from, as plain values for JSON.

    Args:
        weights: the checkpoint.
        truth: content of a COCO file, of which images, objects and categories count.
        evaluated: ids of the images that were looked at.
        files: image id -> path of the image.
        classes: in the order of the labels.
        settings: what else the figures depend on (input size, limits, suppression).
    """
    ids = sorted(evaluated)
    chosen = set(ids)
    images = [image for image in truth["images"] if image["id"] in chosen]
    objects = [row for row in truth["annotations"] if row["image_id"] in chosen]
    keep = ("image_id", "category_id", "bbox", "area", "iscrowd")
    stats = [(key, Path(files[key]).stat()) for key in ids]
    return {
        "weights": digest_file(weights),
        "annotations": digest(
            [
                sorted((image["id"], image["file_name"]) for image in images),
                [[row.get(name) for name in keep] for row in objects],
                sorted((row["id"], str(row["name"])) for row in truth["categories"]),
            ]
        ),
        "evaluated": {"count": len(ids), "digest": digest(ids)},
        "classes": list(classes),
        "images": digest([(key, stat.st_size) for key, stat in stats]),
        "changed": digest([(key, stat.st_mtime_ns) for key, stat in stats]),
        "settings": dict(settings),
    }


def find_differences(
    first: Mapping[str, Any], second: Mapping[str, Any], names: Iterable[str] = COMPARABLE
) -> list[str]:
    """In what two origins differ, in words; empty where they agree."""
    found = []
    for name in names:
        left, right = first.get(name), second.get(name)
        if left == right:
            continue
        text = COMPARABLE.get(name, name)
        if name == "evaluated" and left and right and left["count"] != right["count"]:
            text += f" ({left['count']} and {right['count']})"
        if name == "classes":
            text += f" ({', '.join(left or [])} and {', '.join(right or [])})"
        found.append(text)
    return found
