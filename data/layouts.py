"""Which of COCO, VOC, YOLO and drawn shapes lies in a folder; reading its splits and classes."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from data import DataError, coco, voc, yolo
from data.content import (
    SHARE,
    Content,
    Source,
    class_ids,
    class_names,
    difference,
    join,
    merge_classes,
    number_classes,
    set_apart,
)
from data.files import Place
from data.identities import draw_identities
from data.options import Options, Splits
from data.shapes import SPLITS, draw_dataset, drawn_kind

READERS: dict[str, Callable[[Place, str], Source]] = {
    "coco": coco.read,
    "voc": voc.read,
    "yolo": yolo.read,
    "shapes": coco.read,
    "identities": coco.read,
}
DRAWN: dict[str, Callable[[Path], None]] = {"shapes": draw_dataset, "identities": draw_identities}
SIGNS = {"coco": coco.recognize, "voc": voc.recognize, "yolo": yolo.recognize}


class Reading(NamedTuple):
    """What was read: `layout` is one of READERS, `sources` has "train", "val" or both, `lines` say
    what was taken for what."""

    layout: str
    classes: list[str]
    sources: dict[str, Source]
    lines: list[str]


def read(options: Options, parts: Sequence[str]) -> Reading:
    """The training or the validation data or both, as `parts` ask. Draws shapes that are missing
    where the format says so. Raises DataError for whatever is wrong."""
    place = open_place(options)
    layout = detect(place) if options.format == "auto" else options.format
    # VOC has no list of classes: without a choice, those of both splits count.
    needed = ["train", "val"] if layout == "voc" and not options.classes else parts
    sources = _read_parts(place, layout, options, needed)
    chosen = list(options.classes) if options.classes else None
    if options.single_class:
        chosen = chosen or ["object"]
        sources = _change(sources, lambda content: merge_classes(content, chosen[0]))
    if layout == "voc":
        classes = _settle_names(sources, chosen, place.root)
        sources = _change(sources, lambda content: number_classes(content, classes))
    else:
        classes = _settle_categories(sources, chosen)
    sources = {part: sources[part] for part in parts}
    places = "; ".join(f"{part}: {source.place}" for part, source in sources.items())
    lines = [f"data: {layout.upper()} in {place.root}; {places}"]
    lines += [
        f"{part}: {source.shared} values of {options.identity} are in more than one of the files: "
        "objects with the same value count as one identity"
        for part, source in sources.items()
        if source.shared
    ]
    if any(source.undivided for source in sources.values()) and not options.holdout:
        options = replace(options, holdout=SHARE)
        lines.append(
            f"data: no splits there, so {SHARE:.0%} of the images, always the same ones, are set "
            "apart as val (data.holdout)"
        )
    if options.holdout:
        for part, source in sources.items():
            content = set_apart(source.content, options.holdout, rest=part == "train")
            sources[part] = source._replace(content=content)
    return Reading(layout, classes, sources, lines)


def _change(
    sources: Mapping[str, Source], change: Callable[[Content], Content]
) -> dict[str, Source]:
    changed = {}
    for part, source in sources.items():
        content = change(source.content)
        left_out = len(source.content["annotations"]) - len(content["annotations"])
        changed[part] = source._replace(content=content, left_out=left_out)
    return changed


def open_place(options: Options) -> Place:
    """Where the data set lies, with ~ and $NAME replaced. Raises DataError where that is no folder;
    shapes may yet have to be drawn."""
    root = Path(os.path.expandvars(os.path.expanduser(options.root)))
    if root.is_file() and options.format not in DRAWN:
        raise DataError(
            f"data.root {root} is a file: give its folder, and the file as data.annotations"
        )
    if not root.is_dir() and options.format not in DRAWN:
        hint = "" if root.is_absolute() else f", since data.root is {options.root!r}"
        draw = "" if options.format != "auto" else "; --data.format shapes draws images there"
        raise DataError(f"the data folder {root.absolute()} is missing{hint} (see data.root){draw}")
    return Place(root, options.annotations, options.images)


def detect(place: Place) -> str:
    """The layout of a folder. Raises DataError for none that is known, and for several."""
    if drawn := drawn_kind(place.root):
        return drawn
    signs = {name: sign for name, find in SIGNS.items() if (sign := find(place))}
    if len(signs) == 1:
        return next(iter(signs))
    if signs:
        found = " and ".join(f"{name.upper()} ({sign})" for name, sign in signs.items())
        raise DataError(f"{place.root} has {found}: say which by data.format {'|'.join(signs)}")
    names = list(place.folders.entries(place.root) or {})
    inside = f"it has {', '.join(names[:5])}" if names else "it is empty"
    raise DataError(
        f"{place.root.absolute()} has no annotations of COCO (json), VOC (xml) or YOLO (data.yaml, "
        f"txt); {inside} (see data.root and data.annotations; --data.format shapes draws images)"
    )


def _draw(place: Place, kind: str, splits: Iterable[Splits]) -> None:
    """Draws the shapes, or the identities, where they are missing."""
    if place.annotations or all(
        (place.root / "annotations" / f"instances_{split}.json").is_file() for split in splits
    ):
        return
    for split in splits:
        if split not in SPLITS:
            raise DataError(f"drawn {kind} have the splits {' and '.join(SPLITS)}, not {split!r}")
    DRAWN[kind](place.root)


def _read_parts(
    place: Place, layout: str, options: Options, parts: Sequence[str]
) -> dict[str, Source]:
    """What belongs to "train" and "val"; the same where a share of it is to be set apart."""
    splits = {"train": options.train, "val": options.train if options.holdout else options.val}
    sources: dict[str, Source] = {}
    for part in parts:
        for other, source in sources.items():
            if source.undivided or splits[other] == splits[part]:
                sources[part] = source
                break
        else:
            if layout in DRAWN:
                _draw(place, layout, splits.values())
            split = splits[part]
            names = [split] if isinstance(split, str) else split
            read_all = [READERS[layout](place, name) for name in names]
            sources[part] = join(read_all, place.root, options.identity)
    template = options.annotations or "{split}"
    is_same = layout == "coco" and "{split}" not in template and splits["train"] != splits["val"]
    if is_same and len(sources) > 1:
        raise DataError(
            f"data.annotations {template} is the same file for train and val: write {{split}} into "
            "it in place of the split, or give data.holdout to set a share of it apart"
        )
    return sources


def _settle_names(sources: Mapping[str, Source], chosen: list[str] | None, root: Path) -> list[str]:
    """The classes of data that does not list them: those that occur, sorted. Every chosen one must
    occur, if training data are there; a validation split alone may well lack some, but not all."""
    names = sorted({name for x in sources.values() for name in class_names(x.content)})
    if not names:
        raise DataError(f"{root} has no objects: {', '.join(x.where for x in sources.values())}")
    if chosen:
        lacking = set(chosen) - set(names)
        if lacking and ("train" in sources or lacking == set(chosen)):
            differ = difference(chosen, "data.classes", names, "the data")
            raise DataError(f"{root}: the classes differ; {differ}")
    return chosen or names


def _settle_categories(sources: Mapping[str, Source], chosen: list[str] | None) -> list[str]:
    """The classes of data that lists them: the chosen ones, or those of the first source in the
    order of their ids. Training data must list them all. Validation data may lack some, if it lists
    no others: another name in place of one that is missing may well mean the same."""
    first = next(iter(sources.values()))
    classes = chosen or list(class_ids(first.content, first.where))
    for part, source in sources.items():
        names = class_ids(source.content, source.where)
        lacking, others = set(classes) - set(names), set(names) - set(classes)
        wrong = lacking if part == "train" or others else lacking == set(classes)
        if wrong or (others and not chosen):
            asker = "data.classes" if chosen else first.where
            differ = difference(classes, asker, names, source.where)
            raise DataError(f"the classes differ; {differ}")
    return classes
