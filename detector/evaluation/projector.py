"""Vectors with pictures of their objects, for TensorBoard's projector."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from detector.evaluation.retrieval import Objects, unit

CROP = 32  # pixels of a picture
MOST = 1000  # objects, of which the projector still moves


def write_projector(
    folder: Path,
    objects: Objects,
    names: Sequence[int | str],
    read_image: Callable[[int], np.ndarray],
    most: int = MOST,
) -> bool:
    """Vectors of length 1, identities, as `names` has them by number, and crops of up to `most`
    objects with an identity, evenly chosen; `read_image` gives the RGB image of an image id.
    Replaces what is in the folder, which goes where no object has an identity. Returns whether any
    has one."""
    import torch
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    if not len(known := np.flatnonzero(objects.identities >= 0)):
        return False
    rows = known[np.unique(np.linspace(0, len(known) - 1, most).round().astype(int))]
    crops = []
    for image_id in dict.fromkeys(objects.image_ids[rows].tolist()):
        image = read_image(image_id)
        for row in rows[objects.image_ids[rows] == image_id]:
            crops.append((row, crop(image, objects.boxes[row])))
    order = [row for row, _ in crops]
    pixels = torch.from_numpy(np.stack([picture for _, picture in crops]))
    with SummaryWriter(str(folder)) as writer:
        writer.add_embedding(
            torch.from_numpy(unit(objects.vectors[order])),
            [names[number] for number in objects.identities[order]],
            pixels.permute(0, 3, 1, 2).float() / 255,
            tag="identities",
        )
    return True


def crop(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """What a box (x, y, width, height) shows, uint8 (CROP, CROP, 3)."""
    x, y, width, height = box
    left, top = max(0, int(x)), max(0, int(y))
    part = image[top : max(top + 1, round(y + height)), left : max(left + 1, round(x + width))]
    return cv2.resize(part, (CROP, CROP), interpolation=cv2.INTER_AREA)
