"""Evaluation beside plain pycocotools, on the same made-up detections."""

import contextlib
import copy
import io
import resource
import time
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation.coco import coco_figures, fast_tools
from scripts.benchmark.timing import call_in_process, print_table

Content = dict[str, Any]
Rows = list[dict[str, Any]]
PYCOCOTOOLS = (COCO, COCOeval)
WAYS = (
    "pycocotools",
    "all figures, pycocotools",
    "during fit, pycocotools",
    "all figures, fastest installed",
    "during fit, fastest installed",
)


class Measurement(NamedTuple):
    seconds: float
    memory: float  # GiB more than before
    ap: float


def make_data(images: int, classes: int, detections: int) -> tuple[Content, Rows]:
    """A ground truth of seven objects an image on average, of few classes; detections around them
    with any score."""
    random = np.random.default_rng(0)
    objects: Rows = []
    results: Rows = []
    for image in range(images):
        kinds = random.integers(1, classes + 1, 4)
        count = int(random.poisson(7))
        sides = np.exp(random.uniform(np.log(10), np.log(300), (count, 2)))
        boxes = np.concatenate([random.uniform(0, 340, (count, 2)), sides], axis=1)
        labels = random.choice(kinds, count)
        for bbox, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            crowd = int(random.random() < 0.012)
            objects.append({"image_id": image, "category_id": label, "bbox": bbox})
            objects[-1] |= {"id": len(objects), "area": bbox[2] * bbox[3], "iscrowd": crowd}
        near = boxes[random.integers(count, size=detections)] if count else np.zeros((0, 4))
        near = near + near[:, [2, 3, 2, 3]] * random.normal(0, 0.15, near.shape)
        for bbox, score in zip(near.clip(1).tolist(), random.random(len(near)), strict=True):
            label = int(random.choice(kinds))
            row = {"image_id": image, "category_id": label, "bbox": bbox, "score": float(score)}
            results.append(row)
    content = {
        "images": [{"id": image} for image in range(images)],
        "categories": [{"id": k, "name": str(k)} for k in range(1, classes + 1)],
        "annotations": objects,
    }
    return content, results


def plain_ap(content: Content, results: Rows) -> float:
    """AP as pycocotools' documentation computes it."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"info": {}, **copy.deepcopy(content)}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def compute_ap(way: str, content: Content, results: Rows) -> float:
    if way == "pycocotools":
        return plain_ap(content, results)
    tools = fast_tools() if way.endswith("fastest installed") else PYCOCOTOOLS
    full = way.startswith("all figures")
    return coco_figures(content, results, full=full, tools=tools).summary["AP"]


def measure(way: str, images: int, classes: int, detections: int) -> Measurement:
    content, results = make_data(images, classes, detections)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    ap = compute_ap(way, content, results)
    seconds = time.perf_counter() - start
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    return Measurement(seconds, memory, ap)


def run(images: int, classes: int, detections: int) -> dict[str, Measurement]:
    measured = {way: call_in_process(measure, way, images, classes, detections) for way in WAYS}
    first = measured["pycocotools"].seconds
    rows = [[way, x.seconds, x.seconds / first, x.memory, x.ap] for way, x in measured.items()]
    title = f"{images} images, {classes} classes, {detections} detections each"
    heads = ["", "s", "of pycocotools", "GiB more", "AP"]
    print_table(title, heads, rows, ["", ".1f", ".2f", ".2f", ".4f"])
    return measured
