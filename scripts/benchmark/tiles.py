"""Small objects in one large image, whole and in tiles, by a run that was trained on drawn shapes:
how many are found, how long it takes and how much memory."""

import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_convert, box_iou

from data.scenes import CATEGORIES, FREQUENCY, background, circle, paint, place_shape
from detector.config.errors import UserError
from detector.run.folder import existing_run
from scripts.benchmark.timing import call_in_process, print_table
from scripts.predict import main as predict

SMALL = (12, 80)  # pixels of an object's longer side
TRIES = 10_000  # to place an object beside the others
STRIP = 1000  # rows that noise is added to at a time


class Measurement(NamedTuple):
    recall: float
    precision: float
    seconds: float
    memory: float  # GiB at most, of the whole process


def draw_large(path: Path, side: int, count: int) -> list[dict[str, Any]]:
    """Writes a square image with `count` shapes that do not touch, drawn as in the training images;
    returns category and bbox (xywh) of each."""
    random = np.random.default_rng(0)
    image, light = background(random, side, side), circle(1.0)[random.integers(64)]
    objects: list[dict[str, Any]] = []
    taken, misses = np.zeros((0, 3)), 0
    while len(objects) < count:
        if side <= 2 * SMALL[1] or misses > TRIES:
            raise UserError(f"{count} objects do not fit into {side} pixels: give a larger --side")
        misses += 1
        extent = float(np.exp(random.uniform(*np.log(SMALL))))
        center = random.uniform(SMALL[1], side - SMALL[1], 2)
        if (np.abs(taken[:, :2] - center).max(1) < (taken[:, 2] + extent) / 2 + 4).any():
            continue
        taken, misses = np.concatenate([taken, [[*center, extent]]]), 0
        category = int(random.choice(list(CATEGORIES), p=FREQUENCY / FREQUENCY.sum()))
        contours = place_shape(random, CATEGORIES[category], extent, center)
        low, high = contours[0].min(0), contours[0].max(0)
        (x1, y1), (x2, y2) = low.astype(int), np.ceil(high).astype(int)
        colors = random.uniform(20, 235, (32, 3))
        contrasts = np.linalg.norm(colors - image[:, y1:y2, x1:x2].mean((1, 2)), axis=1)
        color = colors[np.argmax(contrasts > 100)].astype(np.float32)[:, None, None]
        paint(image, contours, np.broadcast_to(color, image.shape), light)
        box = [*low.tolist(), *(high - low).tolist()]
        objects.append({"category": CATEGORIES[category], "bbox": box})
    pixels = np.empty((side, side, 3), np.uint8)
    for top in range(0, side, STRIP):
        strip = image[:, top : top + STRIP].transpose(1, 2, 0)
        strip = strip + 4 * random.standard_normal((*strip.shape[:2], 1), np.float32)
        pixels[top : top + STRIP] = cv2.GaussianBlur(strip, (0, 0), 0.5).clip(0, 255).round()
    cv2.imwrite(str(path), pixels[..., ::-1])
    return objects


def count_found(objects: list[dict[str, Any]], rows: list[dict[str, Any]]) -> int:
    """Objects that have a detection of their class, with an IoU of 0.5 or more, of their own."""
    found = 0
    for category in sorted({row["category"] for row in objects}):
        truth, seen = (boxes_of(part, category) for part in (objects, rows))
        overlaps = box_iou(truth, seen).numpy() >= 0.5
        found += int(overlaps[linear_sum_assignment(overlaps, maximize=True)].sum())
    return found


def boxes_of(rows: list[dict[str, Any]], category: str) -> torch.Tensor:
    """xyxy (B, 4)."""
    boxes = [row["bbox"] for row in rows if row["category"] == category]
    return box_convert(torch.tensor(boxes).reshape(-1, 4), "xywh", "xyxy")


def measure(words: list[str], objects: list[dict[str, Any]], out: Path) -> Measurement:
    start = time.perf_counter()
    predict([*words, "--out", str(out)])
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows = json.loads((out / "detections.json").read_text())
    found = count_found(objects, rows)
    return Measurement(found / len(objects), found / max(1, len(rows)), seconds, memory)


def run(run: str, side: int, objects: int, score: float) -> dict[str, Measurement]:
    existing_run(run)  # before the image is drawn, which takes long
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "large.png"
        drawn = call_in_process(draw_large, image, side, objects)  # whose memory is not to count
        words = [run, str(image), "--score", str(score)]
        measured = {
            name: call_in_process(measure, [*words, *more], drawn, Path(folder) / name)
            for name, more in (("whole", []), ("tiles", ["--tile"]))
        }
    rows = [[name, *values] for name, values in measured.items()]
    heads = ["", "found", "of detections right", "s", "GiB"]
    title = f"{objects} objects in {side} x {side} pixels, score {score:g}"
    print_table(title, heads, rows, ["", ".3f", ".3f", ".1f", ".2f"])
    return measured
