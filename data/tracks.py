"""Identities of objects over many images: numbered, counted and checked."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from data import DataError
from data.split import Split


def number_identities(splits: Mapping[str, Split]) -> tuple[dict[str, Split], list[int | str]]:
    """The splits with small numbers for identities, which are numbers and texts: 0 .. C - 1 for the
    C identities of "train", in the order of what the file says, and the numbers after them for
    those of other splits only. -1 stays -1. Without "train" the other splits' begin at 0.
    And what the files say, by number."""
    known: dict[int | str, int] = {}
    for part in sorted(splits, key=lambda part: part != "train"):
        tracks = splits[part].identities
        if tracks is not None:
            values = {track for track in tracks.tolist() if isinstance(track, str) or track >= 0}
            for track in sorted(values, key=lambda value: (isinstance(value, str), value)):
                known.setdefault(track, len(known))
    result = {}
    for part, split in splits.items():
        if split.identities is not None:
            numbers = [known.get(track, -1) for track in split.identities.tolist()]
            split = replace(split, identities=np.array(numbers, np.int64))
        result[part] = split
    return result, list(known)


def objects_per_identity(split: Split) -> np.ndarray:
    """int64 (C,): how many objects of the split each identity has, from 0 to the highest."""
    if split.identities is None:
        return np.zeros(0, np.int64)
    return np.bincount(split.identities[split.identities >= 0])


def check_identities(split: Split, name: str, key: str) -> None:
    """Raises DataError where there is nothing to learn an identity from."""
    if not len(objects_per_identity(split)):
        raise DataError(
            f"{name}: no object has a {key}, which an embedding is trained with (see data.identity)"
        )


def report_identities(splits: Mapping[str, Split], key: str) -> list[str]:
    """What there is to learn and to recognize, as short lines; none where no object has an
    identity, which annotations have under `key`."""
    lines = []
    counts = {part: objects_per_identity(split) for part, split in splits.items()}
    if "train" in counts and len(counts["train"]):
        train = counts["train"]
        without = (~splits["train"].ignore).sum() - train.sum()
        line = f"train: {len(train)} identities with {train.min()} to {train.max()} objects each"
        lines.append(f"{line}, {without} objects without one")
        if (train == 1).any():
            lines.append(
                f"train: {(train == 1).sum()} identities have a single object: no other is like it"
            )
    if "val" in counts and counts["val"].any():
        val = np.flatnonzero(counts["val"])
        shared = int((val < len(counts["train"])).sum()) if "train" in counts else 0
        line = f"val: {len(val)} identities with {counts['val'][val].sum()} objects"
        if "train" in counts:
            line += f", {_overlap(shared, len(val))}"
        lines.append(line)
    elif "val" in counts and lines:
        lines.append(f"val: no object has a {key}: nothing is recognized there")
    return lines


def _overlap(shared: int, count: int) -> str:
    if shared == count:
        return "all of them in train: a closed set"
    if shared == 0:
        return "none of them in train: an open set, whose identity loss is 0"
    return f"{shared} of them in train: the others have no identity loss"
