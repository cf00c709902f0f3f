"""Time reading, resizing and augmenting beside torchvision's reference transforms, on one core.

python scripts/time_loader.py --size 640
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import v2

from data.dataset import Images, collate
from data.split import Split
from data.transforms import Augmentation
from scripts.time_losses import take_turns

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def photographs(folder: Path, count: int, height: int, width: int) -> Split:
    """JPEGs with as much detail as photographs (noise of all scales), and seven boxes each."""
    random = np.random.default_rng(0)
    paths = []
    for index in range(count):
        layers = [
            cv2.resize(random.normal(0, 30, (height // k + 1, width // k + 1, 3)), (width, height))
            for k in (1, 4, 16, 64)
        ]
        image = np.clip(128 + np.sum(layers, axis=0) / 1.5, 0, 255).astype(np.uint8)
        paths.append(str(folder / f"{index}.jpg"))
        cv2.imwrite(paths[-1], image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    side = np.exp(random.uniform(3, 5, (7 * count, 2)))
    corner = random.uniform(0, 1, (7 * count, 2)) * ((width, height) - side)
    return Split(
        paths=paths,
        image_ids=np.arange(count),
        sizes=np.tile([height, width], (count, 1)),
        boxes=np.concatenate([corner, corner + side], 1).astype(np.float32),
        labels=np.zeros(7 * count, np.int64),
        ignore=np.zeros(7 * count, bool),
        identities=None,
        starts=7 * np.arange(count + 1),
        dropped={},
        clipped=0,
    )


def ours(split: Split, size: int, reduce: bool) -> Callable[[], Any]:
    """A batch as the net takes it."""
    images = Images(split, Augmentation(hflip=0.5, color=0.3), reduce=reduce)
    return lambda: collate([images[index, 0, (size, size)] for index in range(len(images))])


def theirs(split: Split, size: int) -> Callable[[], Any]:
    """The reference training's transforms (flip and photometric distortion), and the resizing and
    normalizing that its model begins with."""
    augment = v2.Compose(
        [
            v2.RandomPhotometricDistort(),
            v2.RandomHorizontalFlip(0.5),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    place = GeneralizedRCNNTransform(size, size, MEAN, STD)

    def run() -> Any:
        images, targets = [], []
        for index, path in enumerate(split.paths):
            with Image.open(path) as image:
                picture = image.convert("RGB")
            boxes = tv_tensors.BoundingBoxes(
                torch.from_numpy(split.boxes[split.rows(index)]),
                format="XYXY",
                canvas_size=split.sizes[index].tolist(),
            )
            labels = torch.from_numpy(split.labels[split.rows(index)])
            picture, target = augment(picture, {"boxes": boxes, "labels": labels})
            images.append(picture)
            targets.append(target)
        return place(images, targets)

    return run


def loaders(size: int, count: int, rounds: int) -> dict[str, list[float]]:
    """Seconds for an image on one core, of `count` photographs of 480 x 640, and of a quarter as
    many that are twice `size`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        with tempfile.TemporaryDirectory() as small, tempfile.TemporaryDirectory() as large:
            usual = photographs(Path(small), count, 480, 640)
            double = photographs(Path(large), max(1, count // 4), 2 * size, 2 * size)
            ways = {
                "torchvision": (theirs(usual, size), usual),
                "ours": (ours(usual, size, True), usual),
                "torchvision, large files": (theirs(double, size), double),
                "ours, large files": (ours(double, size, True), double),
                "ours, large files decoded whole": (ours(double, size, False), double),
            }
            found = take_turns({name: run for name, (run, _) in ways.items()}, rounds)
    finally:
        torch.set_num_threads(threads)
    return {name: [v / len(ways[name][1]) for v in values] for name, values in found.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=640, help="pixels, square (%(default)s)")
    parser.add_argument("--images", type=int, default=32, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="timed; the median counts")
    options = parser.parse_args(arguments)
    found = loaders(options.size, options.images, options.rounds)
    print(f"flip and color, to {options.size} x {options.size}, one core")
    for name, values in found.items():
        first = found["torchvision, large files" if "large" in name else "torchvision"]
        ratio = statistics.median(first) / statistics.median(values)
        print(f"  {name:<34}{1 / statistics.median(values):>8.1f} img/s  x {ratio:.2f}")


if __name__ == "__main__":
    main()
