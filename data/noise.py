"""Wrong labels on purpose, to find out what they do to a loss."""

from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from data import DataError
from data.split import Split

Kind = Literal["mixed", "class", "missing", "shifted"]


def with_noise(
    split: Split, rate: float, kind: Kind, num_classes: int, seed: int
) -> tuple[Split, str]:
    """A split in which a share of the objects is annotated wrongly, and a line that counts them.

    "class": another class, all equally likely · "missing": no box · "shifted": the box moved by 0.3
    to 0.6 of its width and of its height, and cut at the border (IoU 0.09 to 0.32 with the truth,
    but up to 0.49 where it is cut) · "mixed": each object one of the three. Crowds and difficult
    objects stay as they are. What happens to an object depends on (seed, its number) alone: at a
    higher rate those that were wrong at a lower one stay wrong in the same way. Raises DataError
    where a class cannot be wrong as there is only one.
    """
    if kind not in get_args(Kind):
        raise DataError(f"data.noise_kind must be one of {', '.join(get_args(Kind))}, not {kind!r}")
    kinds = ["class", "missing", "shifted"] if kind == "mixed" else [kind]
    if num_classes == 1 and "class" in kinds:
        if kind == "class":
            raise DataError("data.noise_kind class needs two classes or more, the data has one")
        kinds.remove("class")
    random = np.random.default_rng((seed, 3))  # as the sampler of epoch 3, for another purpose
    count = len(split.boxes)
    chance, choice, other = (random.random(count) for _ in range(3))
    away = random.uniform(0.3, 0.6, (count, 2)) * random.choice([-1, 1], (count, 2))
    wrong = (chance < rate) & ~split.ignore
    chosen = np.minimum((choice * len(kinds)).astype(int), len(kinds) - 1)
    of = {name: wrong & (chosen == number) for number, name in enumerate(kinds)}

    labels, boxes = split.labels.copy(), split.boxes.copy()
    image = np.repeat(np.arange(len(split)), np.diff(split.starts))
    kept = np.ones(count, bool)
    if "class" in of:
        steps = 1 + np.minimum((other * (num_classes - 1)).astype(int), num_classes - 2)
        labels = np.where(of["class"], (labels + steps) % num_classes, labels)
    if "missing" in of:
        kept = ~of["missing"]
    if "shifted" in of:
        moved = boxes + np.tile(away * (boxes[:, 2:] - boxes[:, :2]), 2)
        moved = np.clip(moved, 0, split.sizes[image][:, [1, 0, 1, 0]]).astype(np.float32)
        boxes = np.where(of["shifted"][:, None], moved, boxes)

    starts = np.concatenate([[0], np.cumsum(np.bincount(image[kept], minlength=len(split)))])
    identities = None if split.identities is None else split.identities[kept]
    noisy = replace(
        split,
        boxes=boxes[kept],
        labels=labels[kept],
        ignore=split.ignore[kept],
        identities=identities,
        starts=starts,
    )
    parts = ", ".join(f"{rows.sum()} {name}" for name, rows in of.items())
    return noisy, f"label noise {rate:g}: {parts} of {count} objects"
