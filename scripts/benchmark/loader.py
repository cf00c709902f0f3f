"""Reading, resizing and augmenting beside torchvision's reference transforms, on one core."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
from scripts.benchmark.timing import Times, print_times, take_turns

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def write_photographs(folder: str, count: int, height: int, width: int) -> Split:
    """JPEGs with as much detail as photographs (noise of all scales), and seven boxes each."""
    random = np.random.default_rng(0)
    paths = []
    for index in range(count):
        layers = [
            cv2.resize(random.normal(0, 30, (height // k + 1, width // k + 1, 3)), (width, height))
            for k in (1, 4, 16, 64)
        ]
        image = np.clip(128 + np.sum(layers, axis=0) / 1.5, 0, 255).astype(np.uint8)
        paths.append(str(Path(folder, f"{index}.jpg")))
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


def our_loader(split: Split, size: int, reduce: bool = True) -> Callable[[], Any]:
    """All images of the split as one batch, as the net takes it."""
    images = Images(split, Augmentation(hflip=0.5, color=0.3), reduce=reduce)
    return lambda: collate([images[index, 0, (size, size)] for index in range(len(images))])


def torchvision_loader(split: Split, size: int) -> Callable[[], Any]:
    """The transforms of torchvision's reference training (flip and photometric distortion), and the
    resizing and normalizing that its model begins with."""
    augment = v2.Compose(
        [
            v2.RandomPhotometricDistort(),
            v2.RandomHorizontalFlip(0.5),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    resize = GeneralizedRCNNTransform(size, size, MEAN, STD)

    def load() -> Any:
        samples = []
        for index, path in enumerate(split.paths):
            with Image.open(path) as image:
                pixels = image.convert("RGB")
            rows, canvas = split.rows(index), split.sizes[index].tolist()
            boxes = torch.from_numpy(split.boxes[rows])
            target = {
                "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=canvas),
                "labels": torch.from_numpy(split.labels[rows]),
            }
            samples.append(augment(pixels, target))
        images, targets = zip(*samples, strict=True)
        return resize(list(images), list(targets))

    return load


@contextmanager
def one_thread() -> Iterator[None]:
    """Neither torch nor OpenCV starts threads."""
    threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv2_threads)


def run(size: int, images: int, rounds: int) -> list[Times]:
    measured = []
    for count, height, width in ((images, 480, 640), (max(1, images // 4), 2 * size, 2 * size)):
        with tempfile.TemporaryDirectory() as folder, one_thread():
            split = write_photographs(folder, count, height, width)
            calls = {
                "torchvision": torchvision_loader(split, size),
                "ours": our_loader(split, size),
            }
            if height == 2 * size:
                calls["ours, data.reduce false"] = our_loader(split, size, reduce=False)
            times = take_turns(calls, rounds)
        title = f"JPEG {height} x {width} to {size} x {size}, flip and color, one core"
        print_times(title, times, count)
        measured.append(times)
    return measured
