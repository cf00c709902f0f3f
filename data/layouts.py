"""Finds a data set's annotations by its layout and settles which classes a run has."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from data import DataError, coco, voc

Splits = Mapping[str, str | Sequence[str]]  # "train", "val" -> the split's name, or names to join


class Source(NamedTuple):
    """`where` names it in errors; file names in `content` are relative to `folder`; `left_out`
    objects of other classes are not in `content` any more."""

    where: str
    folder: Path
    content: coco.Content
    left_out: int = 0


class Layout(NamedTuple):
    """Where COCO files are: templates relative to `root` (or absolute) with {split} in them."""

    root: Path
    annotations: str = "annotations/instances_{split}.json"
    images: str = "{split}"

    def path(self, template: str, split: str | Sequence[str]) -> Path:
        if not isinstance(split, str):
            raise DataError(f"{split} must be the name of one split: only VOC's can be joined")
        return self.root / template.replace("{split}", split)


def check_root(root: Path) -> None:
    if not root.is_dir():
        raise DataError(f"the data folder {root.absolute()} is missing (see data.root)")


def read_coco(
    layout: Layout, splits: Splits, chosen: list[str] | None
) -> tuple[list[str], dict[str, Source]]:
    """Classes and sources. Without `chosen` classes all splits must have the same ones, and their
    order is that of the first split's ids; otherwise every split must have the chosen ones."""
    check_root(layout.root)
    sources = {}
    for part, split in splits.items():
        path = layout.path(layout.annotations, split)
        sources[part] = Source(str(path), layout.path(layout.images, split), coco.read(path))
    first = next(iter(sources.values()))
    classes = chosen or list(coco.class_ids(first.content, first.where))
    for source in sources.values():
        names = coco.class_ids(source.content, source.where)
        asker = "data.classes" if chosen else first.where
        if not set(classes) <= set(names) or (not chosen and set(classes) != set(names)):
            differ = coco.difference(classes, asker, names, source.where)
            raise DataError(f"the classes differ; {differ}")
    return classes, sources


def read_voc(
    root: Path, splits: Splits, chosen: list[str] | None, *, complete: bool
) -> tuple[list[str], dict[str, Source]]:
    """Classes and sources. Without `chosen` the classes are those that occur, sorted. Every chosen
    one must occur if the splits are `complete`; a validation split alone may well lack one, but
    not all."""
    check_root(root)
    pictures = {part: voc.read(root, split) for part, split in splits.items()}
    found = voc.class_names(picture for part in pictures.values() for picture in part)
    if chosen and not (set(chosen) <= set(found) if complete else set(chosen) & set(found)):
        differ = coco.difference(chosen, "data.classes", found, "the data")
        raise DataError(f"{root}: the classes differ; {differ}")
    classes = chosen or found
    if not classes:
        raise DataError(f"{root} has no objects in {', '.join(map(str, splits.values()))}")
    sources = {}
    for part, images in pictures.items():
        content = voc.to_coco(images, classes)
        left_out = sum(len(image.things) for image in images) - len(content["annotations"])
        split = splits[part]
        name = split if isinstance(split, str) else "+".join(split)
        sources[part] = Source(f"{root} ({name})", root, content, left_out)
    return classes, sources
