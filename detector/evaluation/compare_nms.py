"""One pass of the net, every suppression: candidates that were saved once are suppressed again."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from detector.config.files import write
from detector.evaluation.bootstrap import (
    Comparison,
    bootstrap_ap,
    compare_fixed,
    comparison_cells,
    holm,
    image_weights,
)
from detector.evaluation.coco import coco_figures
from detector.evaluation.matches import check_objects, match_all
from detector.evaluation.results import ImageCandidates, Row, to_results
from detector.evaluation.table import Table
from detector.nms import Suppression
from detector.postprocess import Candidates, suppress

BATCH = 64  # images that are suppressed at once
FIGURES = ("AP", "AP50", "AP75")
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
KINDS: dict[str, dict[str, Any]] = {
    "hard": {"kind": "hard"},
    "DIoU, beta 0.6": {"kind": "diou", "beta": 0.6},
    "DIoU, beta 0.9": {"kind": "diou", "beta": 0.9},
    "DIoU, beta 1": {"kind": "diou", "beta": 1.0},
    "soft, linear": {"kind": "soft", "sigma": None},
}
GAUSSIAN = {  # without a threshold
    f"soft, Gaussian {sigma}": {"kind": "soft", "sigma": sigma} for sigma in (0.3, 0.5)
}


def save(path: Path, key: Mapping[str, Any], candidates: Mapping[int, ImageCandidates]) -> None:
    """`key`: what they depend on, plain values."""
    buffer = io.BytesIO()
    torch.save({"key": dict(key), "images": {k: tuple(v) for k, v in candidates.items()}}, buffer)
    write(path, buffer.getvalue())


def load(path: Path, key: Mapping[str, Any]) -> dict[int, ImageCandidates] | None:
    """What `save` wrote; None if there is nothing, or it depends on something else."""
    if not path.is_file():
        return None
    try:
        content = torch.load(path, weights_only=True)
    except Exception:  # an interrupted write: as if there were nothing
        return None
    if content.get("key") != dict(key):
        return None
    return {image_id: ImageCandidates(*parts) for image_id, parts in content["images"].items()}


def suppress_images(
    candidates: Mapping[int, ImageCandidates], suppression: Suppression, category_ids: Sequence[int]
) -> list[Row]:
    """Result rows of all images; an image without candidates has none."""
    ids = [image_id for image_id, image in candidates.items() if len(image.scores)]
    rows: list[Row] = []
    for start in range(0, len(ids), BATCH):
        images = [candidates[image_id] for image_id in ids[start : start + BATCH]]
        parts = (
            [getattr(image, name) for image in images] for name in ("boxes", "scores", "labels")
        )
        batch = Candidates(*(pad_sequence(part, batch_first=True) for part in parts))
        sizes = torch.stack([image.size for image in images])
        original_sizes = torch.stack([image.original_size for image in images])
        detections = suppress(batch, suppression, sizes, original_sizes)
        rows += to_results(detections, ids[start : start + BATCH], category_ids)
    return rows


class Line(NamedTuple):
    """A suppression. `threshold`: None where it has none; `figures`: AP, AP50, AP75; `against`: its
    difference in AP to the first line, None for that one and without draws."""

    kind: str
    threshold: float | None
    figures: dict[str, float]
    against: Comparison | None


def list_settings(usual: float) -> list[tuple[str, float | None]]:
    """Every kind at every IoU threshold, hard suppression at the `usual` one first."""
    grid = [(kind, threshold) for kind in KINDS for threshold in THRESHOLDS]
    rest = [setting for setting in grid if setting != ("hard", usual)]
    return [("hard", usual), *rest, *((kind, None) for kind in GAUSSIAN)]


def compare_all(
    candidates: Mapping[int, ImageCandidates],
    ground_truth: Mapping[str, Any],
    category_ids: Sequence[int],
    configured: Suppression,
    draws: int,
) -> list[Line]:
    """Every kind of suppression at every threshold. The first line is hard at the configured
    threshold; the others are compared with it by `draws` samples of the images, unless 0, and
    corrected for their number: the net is the same, so only the images vary.

    `configured`: the suppression that is configured, for what the kinds do not set.
    """
    check_objects(ground_truth)
    usual = configured.iou_threshold
    weights = image_weights(len(candidates), draws) if draws else None
    lines: list[Line] = []
    samples: list[np.ndarray] = []  # AP of each line on each sample of the images
    for kind, threshold in tqdm(list_settings(usual), "suppressing", disable=None, leave=False):
        limit = usual if threshold is None else threshold
        suppression = replace(configured, iou_threshold=limit, **{**KINDS, **GAUSSIAN}[kind])
        rows = suppress_images(candidates, suppression, category_ids)
        figures = coco_figures(ground_truth, rows, full=False, image_ids=candidates).summary
        lines.append(Line(kind, threshold, figures, None))
        if weights is not None:
            samples.append(bootstrap_ap(match_all(ground_truth, rows, candidates), weights)[0])
    differences = [line.figures["AP"] - lines[0].figures["AP"] for line in lines]
    pairs = zip(differences[1:], samples[1:], strict=False)
    count = len(candidates)
    comparisons = holm([compare_fixed(value, s - samples[0], count) for value, s in pairs])
    for place, comparison in enumerate(comparisons, 1):
        lines[place] = lines[place]._replace(against=comparison)
    return lines


def format_lines(lines: Sequence[Line]) -> str:
    heads, formats = ["suppression", "IoU", *FIGURES], ["", ".2f", *[".4f"] * len(FIGURES)]
    rows = [[line.kind, line.threshold, *map(line.figures.get, FIGURES)] for line in lines]
    if lines[-1].against is None:
        return Table(heads, rows, formats).render()
    rows = [
        [*row, *comparison_cells(line.against, 4)] for row, line in zip(rows, lines, strict=True)
    ]
    return Table([*heads, "difference in AP (95 %)", "p", "verdict"], rows, formats).render()
