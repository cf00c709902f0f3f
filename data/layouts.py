"""Finds a data set's annotations by its layout and settles which classes a run has."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from data import DataError, coco, voc
from data.options import Options, Splits


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


def read(options: Options, parts: Sequence[str]) -> tuple[list[str], dict[str, Source]]:
    """Classes of the run, and the sources of "train" and "val", of those `parts` that are asked
    for. What the formats "shapes" and "identities" lack is drawn."""
    root, chosen = Path(options.root), list(options.classes) if options.classes else None
    names = {"train": options.train, "val": options.train if options.holdout else options.val}
    if options.format == "voc":
        # VOC has no list of classes: without a choice, those of both splits count.
        needed = parts if chosen else ["train", "val"]
        splits = {part: names[part] for part in needed}
        return read_voc(root, splits, chosen, complete="train" in needed)
    templates = {"annotations": options.annotations, "images": options.images}
    layout = Layout(root, **{name: template for name, template in templates.items() if template})
    if options.format in ("shapes", "identities"):
        _draw(layout, names.values(), options.format)
    return read_coco(layout, {part: names[part] for part in parts}, chosen)


def _draw(layout: Layout, splits: Iterable[Splits], kind: str) -> None:
    """Draws the shapes, or the identities, where they are missing."""
    if all(layout.path(layout.annotations, split).is_file() for split in splits):
        return
    from data.identities import draw_identities
    from data.shapes import SPLITS, draw_dataset

    for split in splits:
        if split not in SPLITS:
            raise DataError(f"drawn {kind} have the splits {' and '.join(SPLITS)}, not {split!r}")
    if kind == "identities":
        draw_identities(layout.root)
    else:
        draw_dataset(layout.root)


def check_root(root: Path) -> None:
    if not root.is_dir():
        raise DataError(f"the data folder {root.absolute()} is missing (see data.root)")


def read_coco(
    layout: Layout, splits: Mapping[str, Splits], chosen: list[str] | None
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
    root: Path, splits: Mapping[str, Splits], chosen: list[str] | None, *, complete: bool
) -> tuple[list[str], dict[str, Source]]:
    """Classes and sources. Without `chosen` the classes are those that occur, sorted. Every chosen
    one must occur if the splits are `complete`; a validation split alone may well lack one, but
    not all."""
    check_root(root)
    images = {part: voc.read(root, split) for part, split in splits.items()}
    names = voc.class_names(image for part in images.values() for image in part)
    if chosen and not (set(chosen) <= set(names) if complete else set(chosen) & set(names)):
        differ = coco.difference(chosen, "data.classes", names, "the data")
        raise DataError(f"{root}: the classes differ; {differ}")
    classes = chosen or names
    if not classes:
        raise DataError(f"{root} has no objects in {', '.join(map(str, splits.values()))}")
    sources = {}
    for part, rows in images.items():
        content = voc.to_coco(rows, classes)
        left_out = sum(len(image.objects) for image in rows) - len(content["annotations"])
        split = splits[part]
        name = split if isinstance(split, str) else "+".join(split)
        sources[part] = Source(f"{root} ({name})", root, content, left_out)
    return classes, sources
