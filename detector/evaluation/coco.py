"""COCO average precision. pycocotools defines the numbers."""

import contextlib
import io
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation.results import Row
from detector.evaluation.table import Table
from detector.evaluation.voc import voc_figures

LARGEST = 2**53  # id: floats, as which some JSON readers take numbers, hold no larger ones
CLASS_HEADS = ("objects", "AP", "AP50")  # of a class, in the printed table
BEST = 100  # detections of an image and class that COCO's figures count
AREAS = {"s": 1, "m": 2, "l": 3}  # objects to 32², to 96² and above, in pixels; 0 is all of them


class Figures(NamedTuple):
    """`summary`: AP, AP50, AP75, then (full) APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl, each
    0 to 1, all of the 100 best detections of an image and class; then AP_300 and AR_300, of the
    300 best, where so many were asked for. `per_class`: class name -> AP, AP50, objects, the number
    of those that are not crowds, and (full) VOC07 and VOC12. `curves` (full): class name ->
    precision at IoU 0.5 and 101 recalls, -1 without objects. `voc` (full): VOC07, the 11-point AP50
    of VOC2007, and VOC12, the area under the curve (see `detector.evaluation.voc`). A figure over
    no objects is nan."""

    summary: dict[str, float]
    per_class: dict[str, dict[str, float]]
    curves: dict[str, list[float]]
    voc: dict[str, float]


def _check_ids(
    ground_truth: Mapping[str, Any], results: Sequence[Row], chosen: Collection[int]
) -> None:
    """ValueError for ids that the ground truth does not have, or that JSON readers would round."""
    known = {image["id"] for image in ground_truth["images"]}
    categories = {category["id"] for category in ground_truth["categories"]}
    for large in (key for key in (*known, *categories) if abs(key) > LARGEST):
        raise ValueError(f"id {large} is above 2^53: JSON readers would round it, renumber it")
    for what, unknown in (
        ("asked to evaluate image", set(chosen) - known),
        ("results for image", {row["image_id"] for row in results} - known),
        ("results for category", {row["category_id"] for row in results} - categories),
    ):
        if unknown:
            more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            raise ValueError(f"{what} {min(unknown)}{more}, which the ground truth does not have")


def _check_finite(results: Sequence[Row]) -> None:
    numbers = np.array([[*row["bbox"], row["score"]] for row in results], float)
    for index in np.flatnonzero(~np.isfinite(numbers.reshape(-1, 5)).all(axis=1))[:1]:
        raise ValueError(f"a detection is not finite, have the weights diverged? {results[index]}")


def _make_index(
    container: Any,
    rows: Iterable[Row],
    images: Collection[int],
    categories: Collection[int],
    fields: Sequence[str],
) -> Any:
    """A COCO of copies of the rows in `images`, since COCOeval writes into them."""
    index, kept = container(), ("image_id", "category_id", "bbox", *fields)
    index.dataset = {
        "images": [{"id": key} for key in sorted(images)],
        "categories": [{"id": key} for key in sorted(categories)],
        "annotations": [
            {"id": number, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
            | {field: row[field] for field in kept if row.get(field) is not None}
            for number, row in enumerate(  # from 1: a match with an id 0 would count as none
                (row for row in rows if row["image_id"] in images), start=1
            )
        ],
    }
    index.createIndex()
    return index


def evaluate(
    ground_truth: Mapping[str, Any],
    results: Sequence[Row],
    image_ids: Iterable[int] | None = None,
    *,
    full: bool = True,
    thresholds: Sequence[float] | None = None,
    most: int = BEST,
    tools: tuple[Any, Any] = (COCO, COCOeval),
) -> Any:
    """A COCOeval that has run. Not `full`: objects of all sizes together, only the `most` best
    detections; `full` and `most` above 100: of the `most` best, too. `thresholds`: IoUs instead of
    COCO's ten. Raises ValueError as `coco_figures`."""
    every = [image["id"] for image in ground_truth["images"]]
    images = set(every if image_ids is None else map(int, image_ids))
    categories = {category["id"] for category in ground_truth["categories"]}
    _check_ids(ground_truth, results, images)
    _check_finite(results)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports on every step
        objects = _make_index(
            tools[0], ground_truth["annotations"], images, categories, ["area", "iscrowd"]
        )
        detections = _make_index(tools[0], results, images, categories, ["score"])
        evaluation = tools[1](objects, detections, "bbox")
        limits = evaluation.params
        if thresholds is not None:
            limits.iouThrs = np.array(thresholds, float)
        if not full:
            limits.areaRng, limits.areaRngLbl = limits.areaRng[:1], limits.areaRngLbl[:1]
            limits.maxDets = [most]
        elif most > BEST:
            limits.maxDets = [*limits.maxDets, most]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def fast_tools() -> tuple[Any, Any]:
    """COCO and COCOeval of faster-coco-eval (extra "fast"): the same figures in a fraction of the
    time, which a test asserts. Without it pycocotools', which define them."""
    try:
        from faster_coco_eval import COCO as FastCOCO
        from faster_coco_eval import COCOeval_faster
    except ModuleNotFoundError:
        return COCO, COCOeval
    return FastCOCO, COCOeval_faster


def coco_figures(
    ground_truth: Mapping[str, Any],
    results: Sequence[Row],
    *,
    full: bool = True,
    image_ids: Iterable[int] | None = None,
    max_detections: int = BEST,
    tools: tuple[Any, Any] | None = None,
) -> Figures:
    """COCO's figures for boxes, as pycocotools defines them; `full` adds VOC's.

    `ground_truth` is the content of a COCO file; `info`, `area` (width x height) and `iscrowd` (0)
    may be missing. `full=False` skips the areas and the recalls: a third of the time, same numbers.
    `image_ids` restricts objects and detections to these images. Without detections the figures
    are 0. `max_detections`: with more than 100 there are figures of so many, too, beside COCO's (a
    crowd can have more objects). `tools`: classes to compute with; None: the fastest that are
    installed. Raises ValueError for results of unknown images or categories, for ids above 2^53,
    and for nan or inf.
    """
    tools = tools or fast_tools()
    most = max(BEST, max_detections) if full else BEST
    evaluation = evaluate(ground_truth, results, image_ids, full=full, most=most, tools=tools)
    objects = evaluation.cocoGt
    counts = Counter(row["category_id"] for row in objects.anns.values() if not row["iscrowd"])
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    order = {category_id: k for k, category_id in enumerate(evaluation.params.catIds)}
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    summary = _summary(precision, recall, list(evaluation.params.maxDets), full)
    place = list(evaluation.params.maxDets).index(BEST)
    precision = precision[..., place]  # (10 IoUs, 101 recalls, K, areas)
    per_class: dict[str, dict[str, float]] = {}
    curves: dict[str, list[float]] = {}
    for key, name in names.items():
        cells = precision[:, :, order[key], 0]
        per_class[name] = {"AP": _mean(cells), "AP50": _mean(cells[0]), "objects": counts[key]}
        if full:
            curves[name] = precision[0, :, order[key], 0].tolist()
    figures = Figures(summary, per_class, curves, {})
    if not full:
        return figures
    annotations = [row for row in ground_truth["annotations"] if row["image_id"] in objects.imgs]
    detections = [row for row in results if row["image_id"] in objects.imgs]
    voc = voc_figures({**ground_truth, "annotations": annotations}, detections)
    for name, row in per_class.items():
        row["VOC07"], row["VOC12"] = voc.eleven[name], voc.area[name]
    return figures._replace(voc={"VOC07": voc.mean_eleven, "VOC12": voc.mean_area})


def format_figures(figures: Figures, title: str = "") -> str:
    """The summary, three figures a line, then all classes, in two columns when there are more than
    40; in at most 80 characters."""
    pairs = [[name, figure] for name, figure in {**figures.summary, **figures.voc}.items()]
    lines = [list(chain(*pairs[start : start + 3])) for start in range(0, len(pairs), 3)]
    summary = Table([], lines, ["", ".3f"] * 3)
    columns = 2 if len(figures.per_class) > 40 else 1
    width = 16 if columns == 2 else 56
    classes = [
        [name if len(name) <= width else f"{name[: width - 2]}..", *map(row.get, CLASS_HEADS)]
        for name, row in figures.per_class.items()
    ]
    height = -(-len(classes) // columns)
    lines = [list(chain(*classes[start::height])) for start in range(height)]
    heads, formats = ["class", *CLASS_HEADS] * columns, ["", "d", ".3f", ".3f"] * columns
    tables = summary.render(), Table(heads, lines, formats).render()
    return "\n\n".join([title, *tables] if title else tables)


def _mean(cells: np.ndarray) -> float:
    """Of the cells that have objects; the others are -1."""
    cells = cells[cells > -1]
    return float(cells.mean()) if cells.size else math.nan


def _summary(
    precision: np.ndarray, recall: np.ndarray, limits: Sequence[int], full: bool
) -> dict[str, float]:
    """`precision` (10 IoUs, 101 recalls, K, areas, limits), `recall` (10 IoUs, K, areas, limits);
    `limits`: how many detections of an image and class count."""
    best = limits.index(BEST)
    every = precision[..., 0, best]
    summary = {"AP": every, "AP50": every[0], "AP75": every[5]}
    if full:
        summary |= {f"AP{size}": precision[..., area, best] for size, area in AREAS.items()}
        summary |= {f"AR{most}": recall[:, :, 0, k] for k, most in enumerate(limits[: best + 1])}
        summary |= {f"AR{size}": recall[:, :, area, best] for size, area in AREAS.items()}
        for k, most in enumerate(limits[best + 1 :], best + 1):
            summary |= {f"AP_{most}": precision[..., 0, k], f"AR_{most}": recall[:, :, 0, k]}
    return {name: _mean(cells) for name, cells in summary.items()}
