"""Postprocess: what every anchor says -> the objects found, in pixels of the original images."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from detector.boxes import clip, decode
from detector.nms import nms
from detector.retinanet import Predictions


class Detections(NamedTuple):
    """Objects found, by falling score, padded to D of an image with score 0 and label -1.

    boxes (N, D, 4) xyxy in pixels of the original images · scores (N, D) · labels (N, D), 0..K-1.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Postprocess:
    """Keep the best candidates of each level, decode, clip, suppress, keep the best again (focal
    loss paper, section 4).

    Args:
        scores: how logits are read, `ClassificationLoss.scores`.
        nms: kind of suppression, see `detector.nms`.
        iou_threshold: overlap above which the lesser of two boxes of a class goes.
        score_threshold: what scores no more is dropped first.
        candidates: at most so many (anchor, class) pairs of a level and image go on.
        max_detections: D.
    """

    def __init__(
        self,
        scores: Callable[[Tensor], Tensor],
        nms: str = "hard",
        iou_threshold: float = 0.5,
        score_threshold: float = 0.05,
        candidates: int = 1000,
        max_detections: int = 100,
    ) -> None:
        self.scores, self.kind = scores, nms
        self.iou_threshold, self.score_threshold = iou_threshold, score_threshold
        self.candidates, self.max_detections = candidates, max_detections

    def select(self, predictions: Predictions) -> tuple[Tensor, Tensor, Tensor]:
        """The best (anchor, class) pairs of every level: scores, labels and anchor indices, each
        (N, C).

        What does not pass the threshold has score 0.
        """
        chosen, start = [], 0
        for size in predictions.level_sizes:
            level = self.scores(predictions.logits[:, start : start + size].float())
            num_classes = level.shape[-1]
            best, pair = level.flatten(1).topk(min(self.candidates, size * num_classes))
            chosen.append((best, pair % num_classes, start + pair // num_classes))
            start += size
        scores, labels, anchors = (torch.cat(part, dim=1) for part in zip(*chosen, strict=True))
        return torch.where(scores > self.score_threshold, scores, 0.0), labels, anchors

    @torch.no_grad()
    def __call__(
        self, predictions: Predictions, sizes: Tensor, original_sizes: Tensor
    ) -> Detections:
        """Detections of images whose content has `sizes` (N, 2) and had `original_sizes` (N, 2),
        height first."""
        scores, labels, index = self.select(predictions)
        deltas = predictions.deltas.gather(1, index[..., None].expand(-1, -1, 4))
        boxes = clip(decode(deltas, predictions.anchors[index]), sizes)
        scale = (original_sizes / sizes).float().flip(-1).repeat(1, 2)  # x, y, x, y
        rows = [self.suppress(*row) for row in zip(boxes, scores, labels, strict=True)]
        kept = Detections(*(torch.stack(part) for part in zip(*rows, strict=True)))
        return kept._replace(boxes=kept.boxes * scale[:, None])

    def suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Of one image's candidates (C, ...) those that stay, padded to `max_detections`."""
        passed = scores > 0
        boxes, scores, labels = boxes[passed], scores[passed], labels[passed]
        keep = nms(boxes, scores, labels, self.iou_threshold, self.kind)[: self.max_detections]
        missing = self.max_detections - len(keep)
        return (
            torch.cat([boxes[keep], boxes.new_zeros(missing, 4)]),
            torch.cat([scores[keep], scores.new_zeros(missing)]),
            torch.cat([labels[keep], labels.new_full((missing,), -1)]),
        )
