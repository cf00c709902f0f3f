"""A drawn detection data set in COCO layout, so that everything can be tried without a download.

python -m data.shapes datasets/shapes

Every image is a pure function of (seed, split, index). Ids are sparse, as in COCO itself.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from data import DataError
from data.scenes import CATEGORIES, draw_scene

SPLITS = ("train", "val")


def _write_image(path: Path, image: np.ndarray) -> None:
    """A fifth of the bytes of a PNG, of which noise takes most."""
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    path.write_bytes(encoded.tobytes())


def _drawn(path: Path, info: dict[str, Any]) -> bool:
    """Whether the annotation file is there already; DataError if it is not the one wanted."""
    if not path.exists():
        return False
    try:
        same = json.loads(path.read_text())["info"] == info
    except (ValueError, KeyError, TypeError):  # not JSON, or not of this form
        same = False
    if not same:
        raise DataError(f"{path} holds other data than asked for: delete it or name another folder")
    return True


def _draw_split(root: Path, split: str, count: int, size: int, seed: int) -> None:
    path = root / "annotations" / f"instances_{split}.json"
    recipe = {"images": count, "size": size, "seed": seed}
    info = {"description": f"drawn shapes, {split}", "version": "1", "recipe": recipe}
    if _drawn(path, info):
        return
    (root / split).mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    stream = SPLITS.index(split)
    bar = tqdm(range(count), f"drawing {root / split}", unit="image", disable=None)
    for index in bar:  # disable=None: shown on a terminal, not in a log file
        scene = draw_scene(np.random.default_rng([seed, stream, index]), size)
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
        "info": info,
        "licenses": [
            {
                "id": 1,
                "name": "CC0 1.0",
                "url": "https://creativecommons.org/publicdomain/zero/1.0/",
            }
        ],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": key, "name": name} for key, name in CATEGORIES.items()],
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content))
    os.replace(partial, path)  # last, so that an interrupted drawing is never taken for a whole one


def draw_dataset(
    root: str | Path, *, train: int = 1500, val: int = 300, size: int = 160, seed: int = 0
) -> None:
    """Draws root/train, root/val and root/annotations/instances_{train,val}.json.

    A split that is there already, drawn with the same arguments, is left as it is. Raises
    DataError where the annotation file holds anything else: nothing is overwritten.
    """
    if size < 48 or min(train, val) < 1:
        raise DataError(
            f"size {size}, train {train}, val {val}: give 48 or more, 1 or more, 1 or more"
        )
    for split, count in zip(SPLITS, (train, val), strict=True):
        _draw_split(Path(root), split, count, size, seed)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m data.shapes", description=__doc__)
    parser.add_argument("root", type=Path, help="folder to draw into, for example datasets/shapes")
    parser.add_argument("--train", type=int, default=1500, help="training images (%(default)s)")
    parser.add_argument("--val", type=int, default=300, help="validation images (%(default)s)")
    parser.add_argument("--size", type=int, default=160, help="longer side, pixels (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        draw_dataset(**vars(options))
    except DataError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
