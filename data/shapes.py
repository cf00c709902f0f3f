"""A drawn detection data set in COCO layout, so that everything can be tried without a download.

python -m data.shapes datasets/shapes

Every image is a pure function of (seed, split, index). Ids are sparse, as in COCO itself.
"""

import argparse
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from data import DataError
from data.scenes import CATEGORIES, Scene, draw_scene

SPLITS = ("train", "val")
MARKER = ".drawn"  # lies in folders of our own making; also the lock of processes that draw
MARK = "The images and annotations here are drawn by data/shapes.py, which may draw them again.\n"
IGNORED = {MARKER, ".lock", ".gitkeep", ".DS_Store", "Thumbs.db"}


class Drawing(NamedTuple):
    """What is drawn: its `title` in the annotation file, category names by id, and an image of a
    split, `scene(random, size, split)`."""

    title: str
    categories: Mapping[int, str]
    scene: Callable[[np.random.Generator, int, str], Scene]


SHAPES = Drawing("drawn shapes", CATEGORIES, lambda random, size, split: draw_scene(random, size))


def drawn_kind(root: Path) -> str | None:
    """ "shapes" or "identities" where a folder holds such, as far as its first bytes tell."""
    try:
        with open(root / "annotations" / "instances_train.json", "rb") as file:
            start = file.read(200).decode(errors="replace")
    except OSError:
        return None
    match = re.search(r'"description": "drawn (shapes|identities)[,"]', start)
    return match[1] if match else None


def check_folder(root: Path) -> None:
    """Raises DataError unless the folder is absent, empty or of our own making. Folders that were
    drawn before there was a marker hold nothing but what their annotation files name."""
    if not root.exists() or (root / MARKER).is_file():
        return
    if not root.is_dir():
        raise DataError(f"{root} is a file: name a folder to draw the shapes into")
    names = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    names = {name for name in names if name.rpartition("/")[2] not in IGNORED}
    others = sorted(names - {name for split in SPLITS for name in _files_of(root, split)})
    if others:
        raise DataError(
            f"{root} holds other data, such as {others[0]}: shapes are drawn only into a new or "
            "empty folder. If these are your data, give --data.format auto; else another data.root"
        )


def _files_of(root: Path, split: str) -> set[str]:
    """What a drawn annotation file and its images are called, relative to the root."""
    name = f"annotations/instances_{split}.json"
    try:
        content = json.loads((root / name).read_bytes())
        if re.fullmatch(rf"drawn .*, {split}", content["info"]["description"]):
            return {name, *(f"{split}/{image['file_name']}" for image in content["images"])}
    except (OSError, ValueError, KeyError, TypeError):  # missing, not JSON, or not of this form
        pass
    return set()


def _write_image(path: Path, image: np.ndarray) -> None:
    """A fifth of the bytes of a PNG, of which noise takes most."""
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    path.write_bytes(encoded.tobytes())


class _Recipe(NamedTuple):
    """What decides every pixel of a split."""

    drawing: Drawing
    split: str
    images: int
    size: int
    seed: int

    @property
    def info(self) -> dict[str, Any]:
        recipe = {"images": self.images, "size": self.size, "seed": self.seed}
        return {
            "description": f"{self.drawing.title}, {self.split}",
            "version": "1",
            "recipe": recipe,
        }

    def path(self, root: Path) -> Path:
        return root / "annotations" / f"instances_{self.split}.json"


def _is_drawn(root: Path, recipe: _Recipe) -> bool:
    """Whether the annotation file is there already; DataError if it is not the one wanted."""
    path = recipe.path(root)
    if not path.exists():
        return False
    try:
        same = json.loads(path.read_text())["info"] == recipe.info
    except (ValueError, KeyError, TypeError):  # not JSON, or not of this form
        same = False
    if not same:
        raise DataError(f"{path} holds other data than asked for: delete it or name another folder")
    return True


def _draw_split(root: Path, recipe: _Recipe) -> None:
    drawing, split, count, size, seed = recipe
    path = recipe.path(root)
    (root / split).mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    stream = SPLITS.index(split)
    bar = tqdm(range(count), f"drawing {root / split}", unit="image", disable=None)
    for index in bar:  # disable=None: shown on a terminal, not in a log file
        scene = drawing.scene(np.random.default_rng([seed, stream, index]), size, split)
        image_id = 500_000 * stream + 7 * index + 11
        name = f"{image_id:06d}.jpg"
        height, width = scene.image.shape[:2]
        images.append(
            {"id": image_id, "file_name": name, "height": height, "width": width, "license": 1}
        )
        for row in scene.annotations:  # ids from 1: pycocotools takes 0 for "unmatched"
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **row})
        _write_image(root / split / name, scene.image)
    content = {
        "info": recipe.info,
        "licenses": [
            {
                "id": 1,
                "name": "CC0 1.0",
                "url": "https://creativecommons.org/publicdomain/zero/1.0/",
            }
        ],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": key, "name": name} for key, name in drawing.categories.items()],
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content))
    os.replace(partial, path)  # last, so that an interrupted drawing is never taken for a whole one


def draw_dataset(
    root: str | Path,
    *,
    train: int = 1500,
    val: int = 300,
    size: int = 160,
    seed: int = 0,
    drawing: Drawing = SHAPES,
) -> None:
    """Draws root/train, root/val and root/annotations/instances_{train,val}.json.

    A split that is there already, drawn with the same arguments, is left as it is. Processes that
    start together draw once. Raises DataError, before anything is written, where the folder holds
    files that were not drawn here or are not the ones asked for.
    """
    root = Path(root)
    if size < 48 or min(train, val) < 1:
        raise DataError(
            f"size {size}, train {train}, val {val}: give 48 or more, 1 or more, 1 or more"
        )
    counts = zip(SPLITS, (train, val), strict=True)
    recipes = [_Recipe(drawing, split, count, size, seed) for split, count in counts]
    if not all(recipe.path(root).exists() for recipe in recipes):
        check_folder(root)
    if all(_is_drawn(root, recipe) for recipe in recipes):
        return
    import fcntl  # Windows lacks it, and only this needs it

    root.mkdir(parents=True, exist_ok=True)
    with open(root / MARKER, "a+") as marker:
        fcntl.flock(marker, fcntl.LOCK_EX)
        if not marker.tell():
            marker.write(MARK)
        for recipe in recipes:
            if not _is_drawn(root, recipe):
                _draw_split(root, recipe)


def parser(module: str, text: str | None, train: int, val: int) -> argparse.ArgumentParser:
    """Of a command `python -m data.<module>` that draws a data set."""
    program = argparse.ArgumentParser(prog=f"python -m data.{module}", description=text)
    program.add_argument("root", type=Path, help=f"folder to draw into: datasets/{module}")
    program.add_argument("--train", type=int, default=train, help="training images (%(default)s)")
    program.add_argument("--val", type=int, default=val, help="validation images (%(default)s)")
    program.add_argument("--size", type=int, default=160, help="longer side, pixels (%(default)s)")
    program.add_argument("--seed", type=int, default=0)
    return program


def main(arguments: list[str] | None = None) -> None:
    program = parser("shapes", __doc__, train=1500, val=300)
    try:
        draw_dataset(**vars(program.parse_args(arguments)))
    except DataError as error:
        program.error(str(error))


if __name__ == "__main__":
    main()
