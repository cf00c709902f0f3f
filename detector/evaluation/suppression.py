"""One pass of the net, every suppression: candidates that were saved once are suppressed again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from detector.evaluation.bootstrap import Interval, image_weights, interval, resampled
from detector.evaluation.coco import coco_figures
from detector.evaluation.matches import match_all
from detector.evaluation.results import Row, to_results
from detector.postprocess import Candidates, Postprocess

TOGETHER = 64  # images
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
KINDS: dict[str, dict[str, Any]] = {
    "hard": {"nms": "hard"},
    "DIoU, beta 0.6": {"nms": "diou", "beta": 0.6},
    "DIoU, beta 0.9": {"nms": "diou", "beta": 0.9},
    "DIoU, beta 1": {"nms": "diou", "beta": 1.0},
    "soft, linear": {"nms": "soft"},
}
GAUSSIAN = {  # without a threshold
    f"soft, Gaussian {sigma}": {"nms": "soft", "sigma": sigma} for sigma in (0.3, 0.5)
}


class Saved(NamedTuple):
    """Candidates of one image: boxes (C, 4), scores (C,), labels (C,), and its size (2,) in the
    net's input and originally (2,)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    size: Tensor
    original_size: Tensor


def to_save(
    candidates: Candidates, sizes: Tensor, original_sizes: Tensor, image_ids: Tensor
) -> dict[int, Saved]:
    """The candidates of a batch by image id, on the CPU, without the padding."""
    there = (candidates.scores > 0).cpu()
    boxes, scores, labels = (part.cpu() for part in candidates)
    sizes, original_sizes = sizes.cpu(), original_sizes.cpu()
    return {
        image_id: Saved(boxes[k][own], scores[k][own], labels[k][own], sizes[k], original_sizes[k])
        for k, (image_id, own) in enumerate(zip(image_ids.tolist(), there, strict=True))
    }


def save(path: Path, key: Mapping[str, Any], candidates: Mapping[int, Saved]) -> None:
    """`key`: what they depend on, plain values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"key": dict(key), "images": {k: tuple(v) for k, v in candidates.items()}}, path)


def load(path: Path, key: Mapping[str, Any]) -> dict[int, Saved] | None:
    """What `save` wrote; None if there is nothing, or it depends on something else."""
    if not path.is_file():
        return None
    try:
        content = torch.load(path, weights_only=True)
    except Exception:  # an interrupted write: as if there were nothing
        return None
    if content.get("key") != dict(key):
        return None
    return {image_id: Saved(*parts) for image_id, parts in content["images"].items()}


def suppressed(
    candidates: Mapping[int, Saved], postprocess: Postprocess, category_ids: Sequence[int]
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
        detections = postprocess.suppress(batch, sizes, original_sizes)
        rows += to_results(detections, ids[start : start + TOGETHER], category_ids)
    return rows


class Line(NamedTuple):
    kind: str
    threshold: float | None
    figures: dict[str, float]  # AP, AP50, AP75
    against: Interval | None  # the first line, AP


def compare_all(
    candidates: Mapping[int, Saved],
    ground_truth: Mapping[str, Any],
    category_ids: Sequence[int],
    options: Mapping[str, Any],
    draws: int,
) -> list[Line]:
    """Every kind of suppression at every threshold. The first line is hard at the configured
    threshold; the others' difference to it has an interval from `draws` draws of the images, unless
    0.

    `options`: the configured arguments of `Postprocess`, for what the kinds do not set.
    """
    settings: list[tuple[str, float | None, dict[str, Any]]] = []
    usual = float(options["iou_threshold"])
    settings.append(("hard", usual, KINDS["hard"]))
    for kind, own in KINDS.items():
        settings += [
            (kind, threshold, own)
            for threshold in THRESHOLDS
            if (kind, threshold) != ("hard", usual)
        ]
    settings += [(kind, None, own) for kind, own in GAUSSIAN.items()]
    kept = ("score_threshold", "max_detections", "class_agnostic")
    shared = {name: options[name] for name in kept}
    weights = image_weights(len(candidates), draws) if draws else None
    lines: list[Line] = []
    first: Any = None
    for kind, threshold, own in tqdm(settings, "suppressing", disable=None, leave=False):
        chosen = {**shared, **own, "iou_threshold": usual if threshold is None else threshold}
        postprocess = Postprocess(torch.sigmoid, **chosen)
        rows = suppressed(candidates, postprocess, category_ids)
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
