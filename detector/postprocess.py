"""Postprocess: predictions of all anchors -> candidates -> detections."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from detector.boxes import clip, decode
from detector.embedding import gather_vectors
from detector.nms import Suppression
from detector.retinanet import Predictions


class Candidates(NamedTuple):
    """The C best (anchor, class) pairs of every image, before suppression; score 0: no pair.

    boxes (N, C, 4) xyxy in pixels of the net's input, cut to the content · scores (N, C) · labels
    (N, C), 0..K-1 · vectors (N, C, E) of the anchors, None without an embedding head.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    vectors: Tensor | None = None


class Detections(NamedTuple):
    """The detected objects of every image by falling score, padded to D with score 0 and label -1.

    boxes (N, D, 4) xyxy in pixels of the original images · scores (N, D) · labels (N, D), 0..K-1 ·
    vectors (N, D, E), None without an embedding head.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    vectors: Tensor | None = None


class Postprocess:
    """Choose the best candidates of every level, then suppress duplicates (focal loss paper,
    section 4).

    Args:
        scores: how logits are read, `ClassificationLoss.scores`.
        suppression: what removes the duplicates; may be exchanged between two calls.
        score_threshold: pairs with this score or a lower one are no candidates.
        top_k: at most so many (anchor, class) pairs of each level and image are candidates.
    """

    def __init__(
        self,
        scores: Callable[[Tensor], Tensor],
        suppression: Suppression,
        score_threshold: float,
        top_k: int,
    ) -> None:
        self.scores, self.suppression = scores, suppression
        self.score_threshold, self.top_k = score_threshold, top_k

    def __call__(
        self, predictions: Predictions, sizes: Tensor, original_sizes: Tensor
    ) -> Detections:
        """Detections in images whose content has `sizes` (N, 2) and had `original_sizes` (N, 2),
        height first."""
        candidates = self.choose(predictions, sizes)
        return suppress(candidates, self.suppression, sizes, original_sizes)

    @torch.no_grad()
    def choose(self, predictions: Predictions, sizes: Tensor) -> Candidates:
        """The best (anchor, class) pairs of every level, as boxes cut to the content."""
        chosen, start = [], 0
        for size in predictions.level_sizes:
            level = self.scores(predictions.logits[:, start : start + size].float())
            num_classes = level.shape[-1]
            best, pair = level.flatten(1).topk(min(self.top_k, size * num_classes))
            chosen.append((best, pair % num_classes, start + pair // num_classes))
            start += size
        scores, labels, index = (torch.cat(part, dim=1) for part in zip(*chosen, strict=True))
        scores = torch.where(scores > self.score_threshold, scores, 0.0)
        deltas = predictions.deltas.gather(1, index[..., None].expand(-1, -1, 4))
        boxes = clip(decode(deltas, predictions.anchors[index]), sizes)
        return Candidates(boxes, scores, labels, gather_vectors(predictions, index))


@torch.no_grad()
def suppress(
    candidates: Candidates, suppression: Suppression, sizes: Tensor, original_sizes: Tensor
) -> Detections:
    """The candidates that stay, in pixels of the original images; sizes as in `Postprocess`."""
    index, scores = suppression(*candidates[:3])
    scale = (original_sizes / sizes).float().flip(-1).repeat(1, 2)  # x, y, x, y
    boxes = candidates.boxes.gather(1, index[..., None].expand(-1, -1, 4)) * scale[:, None]
    kept, vectors = scores > 0, candidates.vectors
    if vectors is not None:
        vectors = vectors.gather(1, index[..., None].expand(-1, -1, vectors.shape[-1]))
    return Detections(
        torch.where(kept[..., None], boxes, 0.0),
        scores,
        torch.where(kept, candidates.labels.gather(1, index), -1),
        vectors,
    )
