"""Suppression of duplicates, all kinds behind one signature.

All are greedy: boxes are taken by falling score (of equal scores the first one first), and a box
that stays acts on the later ones of its class that overlap it.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from detector.diou_nms import suppress_batch, suppress_image
from losses.overlaps import iou

Kind = Literal["hard", "diou", "soft"]


class Kept(NamedTuple):
    """The M best boxes that stay, by falling score: `places` (N, M) among the boxes given, `scores`
    (N, M). Where there are fewer than M, place and score are 0."""

    places: Tensor
    scores: Tensor


@dataclass(frozen=True, kw_only=True)
class Suppression:
    """A kind of suppression with its settings; called with boxes, it suppresses their duplicates.

    kind:
        "hard": a later box is removed if its IoU exceeds `iou_threshold`; torchvision's, on a GPU
        the same of all images at once.
        "diou": it is removed if IoU - (rho^2 / c^2)^beta exceeds `iou_threshold`, with the distance
        rho of the centers and the diagonal c of the hull, so that of two objects side by side both
        can stay (Zheng et al., "Distance-IoU Loss", AAAI 2020, section 4.3; beta is from the
        authors' code).
        "soft": no box is removed, but its score is multiplied by 1 - IoU where the IoU exceeds
        `iou_threshold`, or, if `sigma` is given, by exp(-IoU^2 / sigma) everywhere (Bodla et al.,
        "Soft-NMS", ICCV 2017, section 3).
    score_threshold: "soft" removes a box when its score falls to this value.
    class_agnostic: a box acts on boxes of other classes too.
    max_detections: M; the search ends when so many boxes stay.

    ValueError for an unknown kind.
    """

    kind: Kind = "hard"
    iou_threshold: float = 0.5
    beta: float = 1.0
    sigma: float | None = None
    score_threshold: float = 0.05
    class_agnostic: bool = False
    max_detections: int = 100

    def __post_init__(self) -> None:
        if self.kind not in (kinds := get_args(Kind)):
            raise ValueError(f"no suppression is {self.kind!r}; there are: {', '.join(kinds)}")

    @torch.no_grad()
    def __call__(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Kept:
        """Boxes (N, D, 4) xyxy, finite · scores (N, D), 0 where there is no box · labels (N, D)."""
        boxes, scores = boxes.float(), scores.float()
        if self.class_agnostic:
            labels = torch.zeros_like(labels)
        threshold, beta, most = self.iou_threshold, self.beta, self.max_detections
        if self.kind == "soft":
            return self._soft(boxes, scores, labels)
        if boxes.is_cuda:
            beta_or_none = beta if self.kind == "diou" else None
            return Kept(*suppress_batch(boxes, scores, labels, threshold, beta_or_none, most))
        index = torch.zeros(len(boxes), most, dtype=torch.int64, device=boxes.device)
        kept_scores = scores.new_zeros(len(boxes), most)
        for row, image in enumerate(zip(boxes, scores, labels, strict=True)):
            real = (image[1] > 0).nonzero()[:, 0]
            b, s, k = (part[real] for part in image)
            if self.kind == "hard":
                keep = batched_nms(b, s, k, threshold).sort().values  # its equal scores: any order
                keep = keep[s[keep].argsort(descending=True, stable=True)][:most]
            else:
                keep = suppress_image(b, s, k, threshold, beta, most)
            index[row, : len(keep)] = real[keep]
            kept_scores[row, : len(keep)] = s[keep]
        return Kept(index, kept_scores)

    def _soft(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Kept:
        """All images at once: M times the best box of each is taken, and the others fade."""
        if not scores.shape[1]:
            scores, labels = scores.new_zeros(len(scores), 1), labels.new_zeros(len(scores), 1)
            boxes = boxes.new_zeros(len(scores), 1, 4)
        kept: list[tuple[Tensor, Tensor]] = []
        for _ in range(self.max_detections):
            best, index = scores.max(dim=1, keepdim=True)  # the first of equals
            if not boxes.is_cuda and not best.any():
                break
            kept.append((index, best))
            overlap = iou(boxes.gather(1, index[..., None].expand(-1, -1, 4)), boxes)
            if self.sigma is None:
                fade = torch.where(overlap > self.iou_threshold, 1 - overlap, 1.0)
            else:
                fade = torch.exp(-overlap.square() / self.sigma)
            same = labels == labels.gather(1, index)
            scores = torch.where(same, scores * fade, scores).scatter(1, index, 0.0)
            scores = torch.where(scores > self.score_threshold, scores, 0.0)
        missing = self.max_detections - len(kept)
        kept += [(torch.zeros_like(index), torch.zeros_like(best))] * missing
        index, best = (torch.cat(part, dim=1) for part in zip(*kept, strict=True))
        return Kept(torch.where(best > 0, index, 0), best)
