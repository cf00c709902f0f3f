"""What may be wrong with data: errors, which cannot be meant, and warnings, which may be.

The loader raises the errors and prints the warnings; scripts/check_data.py shows both, with what
only a look into every file can tell (data/check_files.py).
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data import DataError
from data.split import Split
from data.transforms import InputSize

SMALLEST = 4.0  # square pixels of the input: what is smaller can hardly be learned
COVERED = 0.95  # of an image by a crowd: it teaches no background
SOME, MOST = 0.05, 0.5  # shares of boxes or images from which on something is a warning, an error
BEYOND = 0.1  # share of boxes that leave their images where x, y, width, height are none
MANY = 20  # boxes without which nothing is concluded from all of them
FEW = 5  # names that a line gives
QUICK = 5000  # images of both splits that are compared by content while a training starts


class Finding(NamedTuple):
    """`line` says what, where and what to do; `images` are paths of those that show it."""

    level: str  # "error" or "warning"
    kind: str
    line: str
    images: Sequence[str] = ()


def check(splits: Mapping[str, Split], classes: Sequence[str], size: InputSize) -> list[Finding]:
    """What the arrays of "train" and "val", or of one of them, tell."""
    findings = check_names(classes)
    for part, split in splits.items():
        findings += [*check_paths(part, split), *check_boxes(part, split)]
        findings += [*check_objects(part, split, classes), *check_crowds(part, split)]
        findings += check_sizes(part, split, size)
    if "train" in splits and "val" in splits:
        findings += check_leaks(splits["train"], splits["val"], QUICK)
    return findings


def raise_errors(findings: Iterable[Finding]) -> None:
    """Raises DataError for the first error."""
    for finding in findings:
        if finding.level == "error":
            raise DataError(finding.line)


def check_names(classes: Sequence[str]) -> list[Finding]:
    """Classes that may well be one."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        groups[" ".join(name.split()).casefold()].append(name)
    findings = []
    for names in groups.values():
        if len(names) > 1:
            line = f"the classes {_list(names)} differ only in case or blanks: give them one name"
            findings.append(Finding("warning", "class names", line))
    if any(not name.strip() for name in classes):
        findings.append(Finding("warning", "class names", "a class has no name: give it one"))
    return findings


def check_paths(part: str, split: Split) -> list[Finding]:
    """A file under two ids: the objects of one are background of the other."""
    seen: dict[str, int] = {}
    for path, image_id in zip(split.paths, split.image_ids.tolist(), strict=True):
        first = seen.setdefault(os.path.normpath(path), image_id)
        if first != image_id:
            line = (
                f"{split.where}: {path} has the ids {first} and {image_id}, and the objects of one "
                "are background of the other: give their annotations one id"
            )
            return [Finding("error", "one file, two ids", line, [path])]
    return []


def check_boxes(part: str, split: Split) -> list[Finding]:
    """Whether boxes, as the annotations have them, can be pixels of these images."""
    boxes, image = split.annotated
    finite = np.isfinite(boxes).all(axis=1)
    boxes, image = boxes[finite], image[finite]
    if not len(boxes):
        return []
    height, width = split.sizes[image].T
    left, top, right, bottom = boxes.T
    solid = (right > left) & (bottom > top)
    off = (left >= width) | (top >= height) | (right <= 0) | (bottom <= 0)
    rules = {
        "end within the first pixel: if they are shares of the image, from 0 to 1, multiply them "
        "by its width and height": solid & (right <= 1) & (bottom <= 1),
        "have no area, as if x2 < x1: a bbox is x, y, width, height": ~solid,
        "lie off their images: were these resized, or are x and y swapped?": solid & off,
    }
    findings = []
    for text, wrong in rules.items():
        if wrong.mean() > SOME:
            level = "error" if wrong.mean() > MOST else "warning"
            line = f"{_name(part, split, level)}: {wrong.sum()} of {len(boxes)} boxes {text}"
            findings.append(Finding(level, "boxes", line, worst_paths(split, image[wrong])))
    beyond = solid & ((right > width + 1) | (bottom > height + 1))
    # The numbers x, y, width, height, taken for x1, y1, x2, y2:
    corners = (right - left > left) & (bottom - top > top) & (left >= 0) & (top >= 0)
    corners &= (right - left <= width) & (bottom - top <= height)
    if corners.all() and beyond.mean() > BEYOND:
        level = "error" if len(boxes) > 3 else "warning"
        name = _name(part, split, level)
        line = (
            f"{name}: {beyond.sum()} of {len(boxes)} boxes leave their images, "
            "and all would be inside if bbox were x1, y1, x2, y2: it has to be x, y, width, height"
        )
        findings.append(Finding(level, "boxes", line, worst_paths(split, image[beyond])))
    if len(boxes) >= MANY and boxes.max() <= 100 and np.median(split.sizes) >= 200:
        line = f"{part}: no box ends beyond pixel 100 of large images: are these shares in percent?"
        findings.append(Finding("warning", "boxes", line, worst_paths(split, image)))
    return findings


def check_objects(part: str, split: Split, classes: Sequence[str]) -> list[Finding]:
    """Whether there is anything to learn, or to measure."""
    counts = np.bincount(split.labels[~split.ignore], minlength=len(classes))
    if not counts.any():
        purpose = "to train on" if part == "train" else "to measure AP on"
        reason = f": all {len(split.boxes)} are crowds or difficult" if len(split.boxes) else ""
        dropped = ", ".join(f"{n} boxes {why}" for why, n in split.dropped.items() if n)
        reason = reason or (f": {dropped}" if dropped else "")
        line = f"{split.where} has no objects {purpose}{reason}"
        return [Finding("error", "objects", line)]
    names = [name for name, count in zip(classes, counts, strict=True) if not count]
    if not names:
        return []
    means = "their outputs learn nothing" if part == "train" else "their AP is not measured"
    line = f"{part}: no object of {_list(names)}: {means} (data.classes can leave them out)"
    return [Finding("warning", "classes without objects", line)]


def check_crowds(part: str, split: Split) -> list[Finding]:
    """Crowds that cover images: what lies in one is neither right nor wrong."""
    image = np.repeat(np.arange(len(split)), np.diff(split.starts))
    sides = split.boxes[:, 2:] - split.boxes[:, :2]
    covers = split.ignore & (sides.prod(axis=1) >= COVERED * split.sizes[image].prod(axis=1))
    covered = np.unique(image[covers])
    if len(covered) <= SOME * len(split):
        return []
    level = "error" if len(covered) == len(split) else "warning"
    line = (
        f"{_name(part, split, level)}: a crowd covers nearly all of {len(covered)} of {len(split)} "
        "images, in which nothing counts as background: are iscrowd and its bbox meant so?"
    )
    return [Finding(level, "crowds", line, worst_paths(split, covered))]


def check_sizes(part: str, split: Split, size: InputSize) -> list[Finding]:
    """Objects of which hardly a pixel is left in the input."""
    image = np.repeat(np.arange(len(split)), np.diff(split.starts))
    shapes = np.array([size.shape_for(*sides) for sides in split.sizes.tolist()])
    scale = (shapes / split.sizes).min(axis=1)
    areas = (split.boxes[:, 2:] - split.boxes[:, :2]).prod(axis=1) * scale[image] ** 2
    tiny = (areas < SMALLEST) & ~split.ignore
    if not tiny.any():
        return []
    line = (
        f"{part}: {tiny.sum()} of {(~split.ignore).sum()} objects have less than {SMALLEST:g} "
        "square pixels in the input, too few to be learned: give a larger data.size, or cut the "
        "images into tiles"
    )
    return [Finding("warning", "tiny objects", line, worst_paths(split, image[tiny]))]


def check_leaks(train: Split, val: Split, limit: float) -> list[Finding]:
    """Images of val that are also in train: by path, and by content where both together have no
    more images than `limit`."""
    known = {os.path.normpath(path) for path in train.paths}
    same = [path for path in val.paths if os.path.normpath(path) in known]
    if not same and len(train) + len(val) <= limit:
        same = _same_content(train.paths, val.paths)
    if not same:
        return []
    line = (
        f"{len(same)} of {len(val)} val images are also in train, the first: {same[0]}; AP is then "
        "partly that of what was learned by heart (see data.val, data.holdout)"
    )
    return [Finding("warning", "leaks", line, same)]


def _same_content(left: Sequence[str], right: Sequence[str]) -> list[str]:
    """Those of `right` whose bytes are those of one of `left`; only files of one size are read."""
    sizes: dict[int, list[str]] = defaultdict(list)
    for path in left:
        sizes[os.path.getsize(path)].append(path)
    digests: dict[int, set[bytes]] = {}
    same = []
    for path in right:
        if (size := os.path.getsize(path)) in sizes:
            if size not in digests:
                digests[size] = {digest(other) for other in sizes[size]}
            same += [path] if digest(path) in digests[size] else []
    return same


def digest(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _name(part: str, split: Split, level: str) -> str:
    """An error names the annotations, a warning the part that the report is about."""
    return split.where if level == "error" else part


def _list(names: Sequence[str]) -> str:
    quoted = [repr(name) for name in names]
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(quoted[:FEW]) + more


def worst_paths(split: Split, images: np.ndarray) -> list[str]:
    """Of the images, each once, those that are named most often first."""
    numbers, counts = np.unique(images, return_counts=True)
    return [split.paths[number] for number in numbers[np.argsort(-counts, kind="stable")]]
