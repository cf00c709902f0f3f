"""From one image of a split to the batch that the model gets."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from data.sampler import Key
from data.split import Split
from data.transforms import Augmentation, Shape, load_annotated, pad, reduction, resize

SMALLEST_GROUP = 16  # rows of a batch's objects: 16, 32, 64, ...


class Images(Dataset[dict[str, Any]]):
    """A split's images, resized, augmented and padded. `images[key]` depends on the seed and the
    key alone, wherever and in whatever order it is asked for."""

    def __init__(
        self,
        split: Split,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        reduce: bool = True,
    ) -> None:
        """`reduce`: decode JPEGs no larger than needed."""
        self.split, self.augmentation = split, augmentation
        self.seed, self.reduce = seed, reduce
        self.cache: list[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.split)

    def fill_cache(self, shape: Shape, threads: int = 1) -> None:
        """Keeps all images in memory, decoded and resized to `shape`. Worker processes that are
        forked later share them."""
        with ThreadPoolExecutor(max(1, threads)) as pool:
            read = pool.map(lambda index: self._read(index, shape), range(len(self)))
            bar = "reading images into memory"
            self.cache = list(tqdm(read, bar, len(self), unit="image", leave=False, disable=None))

    def _read(self, index: int, shape: Shape) -> np.ndarray:
        """uint8 (h, w, 3), resized."""
        path, (height, width) = self.split.paths[index], self.split.sizes[index].tolist()
        factor = reduction((height, width), shape) if self.reduce else 1
        return resize(load_annotated(path, (height, width), factor), shape)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        index, draw, shape = key
        image = self.cache[index] if self.cache is not None else self._read(index, shape)
        rows = self.split.rows(index)
        height, width = self.split.sizes[index].tolist()
        scale = (image.shape[1] / width, image.shape[0] / height)  # rounding: not quite the same
        boxes = self.split.boxes[rows] * np.array(scale + scale, np.float32)
        kept = np.arange(len(boxes))
        if self.augmentation is not None:
            image, boxes, kept = self.augmentation(image, boxes, (self.seed, draw, index))
        sample = {
            "image": pad(np.ascontiguousarray(image), shape),
            "boxes": boxes,
            "labels": self.split.labels[rows][kept],
            "ignore": self.split.ignore[rows][kept],
            "size": image.shape[:2],
            "original_size": (height, width),
            "image_id": int(self.split.image_ids[index]),
        }
        if self.split.identities is not None:
            sample["identities"] = self.split.identities[rows][kept]
        return sample


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """N images of one shape -> the batch, the only thing that data and detector share.

    images          uint8 (N, 3, H, W) RGB, content at the top left, 0 elsewhere
    boxes           float32 (N, G, 4) xyxy in pixels of the input
    labels          int64 (N, G), 0 on padding rows
    ignore          bool (N, G), a crowd or a difficult object
    valid           bool (N, G), False on padding rows
    sizes           int64 (N, 2), height and width of the content
    original_sizes  int64 (N, 2), height and width of the image file
    image_ids       int64 (N,)
    identities      int64 (N, G), -1 none; only where the data has tracks

    G is 16, 32, 64, ..., so that a compiled step sees few different shapes. A box goes back to
    pixels of the file, each axis by its own ratio: x * original_width / width.
    """
    group = SMALLEST_GROUP
    while group < max(len(sample["boxes"]) for sample in samples):
        group *= 2
    shape = (len(samples), group)
    batch = {
        "images": torch.stack([sample["image"].movedim(0, -1) for sample in samples]),
        "boxes": torch.zeros(*shape, 4),
        "labels": torch.zeros(shape, dtype=torch.int64),
        "ignore": torch.zeros(shape, dtype=torch.bool),
        "valid": torch.zeros(shape, dtype=torch.bool),
        "sizes": torch.tensor([sample["size"] for sample in samples]),
        "original_sizes": torch.tensor([sample["original_size"] for sample in samples]),
        "image_ids": torch.tensor([sample["image_id"] for sample in samples]),
    }
    fields = ["boxes", "labels", "ignore"]
    if "identities" in samples[0]:
        batch["identities"] = torch.full(shape, -1)
        fields.append("identities")
    batch["images"] = batch["images"].movedim(-1, 1)  # stays channels last in memory
    for row, sample in enumerate(samples):
        count = len(sample["boxes"])
        batch["valid"][row, :count] = True
        for field in fields:
            batch[field][row, :count] = torch.from_numpy(sample[field])
    return batch
