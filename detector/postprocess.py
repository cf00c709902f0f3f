"""Postprocess: what every anchor says -> the objects found, in pixels of the original images."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detector.boxes import clip, decode
from detector.nms import Kind, nms
from detector.retinanet import Predictions


class Detections(NamedTuple):
    """Objects found, by falling score, padded to D of an image with score 0 and label -1.

    boxes (N, D, 4) xyxy in pixels of the original images · scores (N, D) · labels (N, D), 0..K-1.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Candidates(NamedTuple):
    """What suppression starts from, C of each image, in pixels of the net's input; score 0: none.

    boxes (N, C, 4) xyxy, inside of the content · scores (N, C) · labels (N, C), 0..K-1.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Postprocess:
    """Keep the best candidates of each level, decode, clip, suppress, keep the best again (focal
    loss paper, section 4).

    Args:
        scores: how logits are read, `ClassificationLoss.scores`.
        score_threshold: what scores no more is dropped first.
        candidates: at most so many (anchor, class) pairs of a level and image go on.
        max_detections: D.
        nms, suppression: kind of suppression, and what else `detector.nms.nms` takes.
    """

    def __init__(
        self,
        scores: Callable[[Tensor], Tensor],
        score_threshold: float = 0.05,
        candidates: int = 1000,
        max_detections: int = 100,
        nms: Kind = "hard",
        **suppression: Any,
    ) -> None:
        self.scores = scores
        self.score_threshold, self.count = score_threshold, candidates
        self.suppression = {"kind": nms, "max_detections": max_detections, **suppression}
        if nms == "soft":
            self.suppression["score_threshold"] = score_threshold

    def __call__(
        self, predictions: Predictions, sizes: Tensor, original_sizes: Tensor
    ) -> Detections:
        """Detections of images whose content has `sizes` (N, 2) and had `original_sizes` (N, 2),
        height first."""
        return self.suppress(self.candidates(predictions, sizes), sizes, original_sizes)

    @torch.no_grad()
    def candidates(self, predictions: Predictions, sizes: Tensor) -> Candidates:
        """The best (anchor, class) pairs of every level, as boxes cut to the content."""
        chosen, start = [], 0
        for size in predictions.level_sizes:
            level = self.scores(predictions.logits[:, start : start + size].float())
            num_classes = level.shape[-1]
            best, pair = level.flatten(1).topk(min(self.count, size * num_classes))
            chosen.append((best, pair % num_classes, start + pair // num_classes))
            start += size
        scores, labels, index = (torch.cat(part, dim=1) for part in zip(*chosen, strict=True))
        scores = torch.where(scores > self.score_threshold, scores, 0.0)
        deltas = predictions.deltas.gather(1, index[..., None].expand(-1, -1, 4))
        return Candidates(clip(decode(deltas, predictions.anchors[index]), sizes), scores, labels)

    @torch.no_grad()
    def suppress(self, candidates: Candidates, sizes: Tensor, original_sizes: Tensor) -> Detections:
        """The candidates that stay, in pixels of the original images."""
        index, scores = nms(*candidates, **self.suppression)
        scale = (original_sizes / sizes).float().flip(-1).repeat(1, 2)  # x, y, x, y
        boxes = candidates.boxes.gather(1, index[..., None].expand(-1, -1, 4)) * scale[:, None]
        there = scores > 0
        return Detections(
            torch.where(there[..., None], boxes, 0.0),
            scores,
            torch.where(there, candidates.labels.gather(1, index), -1),
        )
