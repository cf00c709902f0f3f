"""What figures were made from, so that none is compared with one that was made otherwise."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detector.config.errors import UserError
from detector.config.files import read_json

# What two evaluations must share for their figures to be compared, and how it is called
COMPARABLE = {
    "annotations": "the annotations",
    "evaluated": "the images that were evaluated",
    "classes": "the classes and their order",
    "images": "the image files",
}
# Keys of the section data of a configuration that say what is evaluated
DATA = ("format", "root", "val", "annotations", "images", "classes", "holdout")


def digest(value: Any) -> str:
    """A short fingerprint of plain values; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def digest_truth(
    truth: Mapping[str, Any], image_ids: Iterable[int] | None = None, identity: str = "track_id"
) -> str:
    """Of the images, objects and categories of a COCO file; `image_ids`: of these images only;
    `identity`: the key of an object's identity, where it has one."""
    chosen = {image["id"] for image in truth["images"]}
    chosen &= chosen if image_ids is None else set(image_ids)
    keep = ("image_id", "category_id", "bbox", "area", "iscrowd")
    objects = [row for row in truth["annotations"] if row["image_id"] in chosen]
    return digest(
        [
            sorted((row["id"], row["file_name"]) for row in truth["images"] if row["id"] in chosen),
            [
                [*map(row.get, keep), *([row[identity]] if row.get(identity) is not None else [])]
                for row in objects
            ],
            sorted((row["id"], str(row["name"])) for row in truth["categories"]),
        ]
    )


def describe_origin(
    weights: Path,
    truth: Mapping[str, Any],
    evaluated: Iterable[int],
    files: Mapping[int, str],
    classes: Sequence[str],
    settings: Mapping[str, Any],
    identity: str = "track_id",
) -> dict[str, Any]:
    """What an evaluation was made from, as plain values for JSON.

    Args:
        weights: the checkpoint.
        truth: content of a COCO file, of which images, objects and categories count.
        evaluated: ids of the images that were looked at.
        files: image id -> path of the image.
        classes: in the order of the labels.
        settings: what else the figures depend on (input size, limits, suppression).
        identity: key of an object's identity in `truth`.
    """
    ids = sorted(evaluated)
    stats = [(key, Path(files[key]).stat()) for key in ids]
    return {
        "weights": digest_file(weights),
        "annotations": digest_truth(truth, ids, identity),
        "evaluated": {
            "count": len(ids),
            "digest": digest(ids),
            "ids": ids if len(ids) < len(truth["images"]) else None,
        },
        "classes": list(classes),
        "images": digest([(key, stat.st_size) for key, stat in stats]),
        "changed": digest([(key, stat.st_mtime_ns) for key, stat in stats]),
        "settings": dict(settings),
    }


def detection_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What detections depend on beside weights and images, of a configuration."""
    data = {name: config["data"][name] for name in ("size", "short", "long", "reduce")}
    return {"data": data, "postprocess": config["postprocess"]}


def read_best_score(
    path: Path, weights: Path, config: Mapping[str, Any], command: str
) -> tuple[float, str]:
    """The score threshold that an evaluation found best, `best_score` of its metrics.json, and the
    split that it was found on.

    UserError, which names the `command` that helps, if there is none, or if it was of other weights
    or settings. A threshold for candidates below the best score changes nothing and may differ.
    """
    if not path.is_file():
        raise UserError(f"--score best: there is no {path} yet: {command}")
    content = read_json(path)
    origin, best = content.get("made_from") or {}, content.get("best_score")
    if best is None or origin.get("weights") != digest_file(weights):
        raise UserError(f"--score best: {path} is of other weights than {weights}: {command}")
    now, then = detection_settings(config), origin["settings"]
    for section, values in now.items():
        for name in values.keys() - {"score_threshold"}:
            if values[name] != then[section][name]:
                key = f"{section}.{name}"
                raise UserError(
                    f"--score best: {path} is of {key} {then[section][name]}, not {values[name]}; "
                    f"leave out --{key}, or: {command} --{key} {values[name]}"
                )
    if best["threshold"] is None:
        raise UserError(f"--score best: {path} has none, since nothing was detected: give a number")
    return float(best["threshold"]), str(content["data"]["val"])


def check_comparable(
    evaluations: Mapping[str, Mapping[str, Any]], truth: Mapping[str, Any]
) -> list[int] | None:
    """Make sure that evaluations are of the same images and of the annotations as they are now.

    Args:
        evaluations: run -> content of its eval/metrics.json. One that was written before origins
            were kept is only known by its section "data".
        truth: content of the COCO file that all are now compared by.

    Returns the ids of the images that were evaluated, None for all. Raises UserError.
    """
    # of those without an origin little is known: whatever is compared with them would seem alike
    first = max(evaluations, key=lambda run: bool(evaluations[run].get("made_from")))
    for run, evaluation in evaluations.items():
        same = [
            name for name in DATA if evaluation["data"][name] != evaluations[first]["data"][name]
        ]
        differences = [f"data.{name}" for name in same]
        origins = [evaluations[key].get("made_from") for key in (first, run)]
        if all(origins):
            differences += find_differences(origins[0] or {}, origins[1] or {})
        if differences:
            raise UserError(
                f"{first} and {run} were evaluated on different data: {', '.join(differences)}; "
                "evaluate both alike (python eval.py RUN)"
            )
    known = {key: row["made_from"] for key, row in evaluations.items() if row.get("made_from")}
    for run, origin in known.items():
        identity = evaluations[run]["data"].get("identity", "track_id")
        if origin["annotations"] != digest_truth(truth, origin["evaluated"]["ids"], identity):
            raise UserError(
                f"the annotations have changed since {run} was evaluated: python eval.py {run}"
            )
    ids = [origin["evaluated"]["ids"] for origin in known.values()]
    return ids[0] if ids else None


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
