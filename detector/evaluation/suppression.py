"""One pass of the net, every suppression: candidates that were saved once are suppressed again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from detector.evaluation.bootstrap import Interval, image_weights, interval, resampled
from detector.evaluation.coco import coco_figures
from detector.evaluation.matches import match_all
from detector.evaluation.results import ImageCandidates, Row, to_results
from detector.nms import Suppression
from detector.postprocess import Candidates, suppress

TOGETHER = 64  # images
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
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"key": dict(key), "images": {k: tuple(v) for k, v in candidates.items()}}, path)


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


def suppressed(
    candidates: Mapping[int, ImageCandidates], suppression: Suppression, category_ids: Sequence[int]
) -> list[Row]:
    """Result rows of all images."""
    ids, rows = list(candidates), []
    for start in range(0, len(ids), TOGETHER):
        part = [candidates[image_id] for image_id in ids[start : start + TOGETHER]]
        most = max(len(one.scores) for one in part)
        batch = Candidates(
            torch.zeros(len(part), most, 4),
            torch.zeros(len(part), most),
            torch.zeros(len(part), most, dtype=torch.int64),
        )
        for row, one in enumerate(part):
            for whole, values in zip(batch, one[:3], strict=True):
                whole[row, : len(values)] = values
        sizes = torch.stack([one.size for one in part])
        original_sizes = torch.stack([one.original_size for one in part])
        detections = suppress(batch, suppression, sizes, original_sizes)
        rows += to_results(detections, ids[start : start + TOGETHER], category_ids)
    return rows


class Line(NamedTuple):
    kind: str
    threshold: float | None
    figures: dict[str, float]  # AP, AP50, AP75
    against: Interval | None  # the first line, AP


def compare_all(
    candidates: Mapping[int, ImageCandidates],
    ground_truth: Mapping[str, Any],
    category_ids: Sequence[int],
    configured: Suppression,
    draws: int,
) -> list[Line]:
    """Every kind of suppression at every threshold. The first line is hard at the configured
    threshold; the others' difference to it has an interval from `draws` draws of the images, unless
    0.

    `configured`: the suppression that is configured, for what the kinds do not set.
    """
    settings: list[tuple[str, float | None, dict[str, Any]]] = []
    usual = configured.iou_threshold
    settings.append(("hard", usual, KINDS["hard"]))
    for kind, own in KINDS.items():
        settings += [
            (kind, threshold, own)
            for threshold in THRESHOLDS
            if (kind, threshold) != ("hard", usual)
        ]
    settings += [(kind, None, own) for kind, own in GAUSSIAN.items()]
    weights = image_weights(len(candidates), draws) if draws else None
    lines: list[Line] = []
    first: Any = None
    for kind, threshold, own in tqdm(settings, "suppressing", disable=None, leave=False):
        limit = usual if threshold is None else threshold
        suppression = replace(configured, iou_threshold=limit, **own)
        rows = suppressed(candidates, suppression, category_ids)
        figures = coco_figures(ground_truth, rows, full=False, image_ids=candidates).summary
        against = None
        if weights is not None:
            drawn = resampled(match_all(ground_truth, rows, candidates), weights)[0]
            if first is None:
                first = drawn
            else:
                against = interval(figures["AP"] - lines[0].figures["AP"], drawn - first)
        lines.append(Line(kind, threshold, figures, against))
    return lines


def format_lines(lines: Sequence[Line]) -> str:
    head = f"{'suppression':<20}{'IoU':>5}{'AP':>8}{'AP50':>8}{'AP75':>8}"
    if lines[-1].against is not None:
        head += "   AP, difference to the first (95 %)"
    text = [head]
    for kind, threshold, figures, against in lines:
        limit = "-" if threshold is None else f"{threshold:.2f}"
        row = f"{kind:<20}{limit:>5}" + "".join(f"{figures[name]:>8.4f}" for name in figures)
        if against is not None:
            row += f"   {against.difference:+.4f} ({against.low:+.4f} to {against.high:+.4f})"
            row += f" {against.verdict}"
        text.append(row)
    return "\n".join(text)
