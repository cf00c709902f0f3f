"""Time evaluation against plain pycocotools, on the same made-up detections, side by side.

python scripts/time_evaluation.py --images 5000 --classes 80 --detections 100
"""

import argparse
import contextlib
import copy
import io
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation.coco import coco_figures, fast_tools

Content = dict[str, Any]
PLAIN = (COCO, COCOeval)


def make_data(images: int, classes: int, detections: int) -> tuple[Content, list[dict[str, Any]]]:
    """Seven objects an image on average, of few classes; detections around them and anywhere."""
    random = np.random.default_rng(0)
    objects: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
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


def plain(content: Content, results: list[dict[str, Any]]) -> float:
    """What pycocotools' documentation does."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"info": {}, **copy.deepcopy(content)}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def ours(full: bool, tools: Any) -> Callable[[Content, list[dict[str, Any]]], float]:
    return lambda content, results: coco_figures(content, results, full=full, tools=tools).summary[
        "AP"
    ]


WAYS: dict[str, Callable[[Content, list[dict[str, Any]]], float]] = {
    "pycocotools": plain,
    "all figures, pycocotools": ours(True, PLAIN),
    "during fit, pycocotools": ours(False, PLAIN),
    "all figures, fastest installed": ours(True, fast_tools()),
    "during fit, fastest installed": ours(False, fast_tools()),
}


def measure(name: str, options: argparse.Namespace, queue: Any) -> None:
    """In a process of its own, so that the memory is its own."""
    content, results = make_data(options.images, options.classes, options.detections)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    figure = WAYS[name](content, results)
    seconds = time.perf_counter() - start
    queue.put(
        (seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20, figure)
    )


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000, help="(%(default)s)")
    parser.add_argument("--classes", type=int, default=80, help="(%(default)s)")
    parser.add_argument("--detections", type=int, default=100, help="an image (%(default)s)")
    options = parser.parse_args(arguments)
    context = multiprocessing.get_context("spawn")
    print(
        f"{options.images} images, {options.classes} classes, {options.detections} detections each"
    )
    print(f"{'':<32}{'s':>8}{'of plain':>10}{'GiB more':>10}{'AP':>9}")
    found: dict[str, float] = {}
    for name in WAYS:
        queue = context.Queue()
        process = context.Process(target=measure, args=(name, options, queue))
        process.start()
        seconds, memory, figure = queue.get()
        process.join()
        found[name] = seconds
        ratio = seconds / next(iter(found.values()))
        print(f"{name:<32}{seconds:>8.1f}{ratio:>10.2f}{memory:>10.2f}{figure:>9.4f}", flush=True)
    return found


if __name__ == "__main__":
    main()
