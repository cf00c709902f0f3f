"""Suppression of duplicates, all kinds behind one signature.

All are greedy: boxes are taken by falling score (of equal scores the first one first), and a box
that stays acts on the later ones of its class that overlap it.
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import batched_nms

from detector.diou_nms import suppress_batch, suppress_image
from losses.overlaps import iou

Kind = Literal["hard", "diou", "soft"]


class Kept(NamedTuple):
    """The M best boxes that stay, by falling score: `places` (N, M) among the boxes given, `scores`
    (N, M). Where there are fewer, place and score are 0."""

    places: Tensor
    scores: Tensor


@torch.no_grad()
def nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    kind: Kind = "hard",
    iou_threshold: float = 0.5,
    beta: float = 1.0,
    sigma: float | None = None,
    score_threshold: float = 0.0,
    class_agnostic: bool = False,
    max_detections: int = 100,
) -> Kept:
    """Suppress the duplicates of N images. ValueError for an unknown kind.

    Args:
        boxes: (N, D, 4) xyxy, finite · scores: (N, D), 0 where there is no box · labels: (N, D).
        kind: "hard": a later box goes if its IoU exceeds `iou_threshold`; torchvision's.
            "diou": if IoU - (rho^2 / c^2)^beta does, with the centers' distance rho and the hull's
            diagonal c, so that of two objects side by side both can stay (Zheng et al.,
            "Distance-IoU Loss", AAAI 2020, section 4.3; beta is of the authors' code). "soft": no
            box goes, but its score is multiplied by 1 - IoU where that exceeds `iou_threshold`, or
            with `sigma` by exp(-IoU^2 / sigma) everywhere (Bodla et al., "Soft-NMS", ICCV 2017,
            section 3).
        score_threshold: "soft" drops what falls to it.
        class_agnostic: boxes act on those of other classes too.
        max_detections: M; then it ends.
    """
    if kind not in (kinds := get_args(Kind)):
        raise ValueError(f"no suppression is called {kind!r}; there are: {', '.join(kinds)}")
    boxes, scores = boxes.float(), scores.float()
    if class_agnostic:
        labels = torch.zeros_like(labels)
    if kind == "soft":
        return _soft(boxes, scores, labels, iou_threshold, sigma, score_threshold, max_detections)
    if kind == "diou" and boxes.is_cuda:
        sorted_boxes = suppress_batch(boxes, scores, labels, iou_threshold, beta, max_detections)
        return first_that_stay(*sorted_boxes, max_detections)
    index = torch.zeros(len(boxes), max_detections, dtype=torch.int64, device=boxes.device)
    found = scores.new_zeros(len(boxes), max_detections)
    for row, image in enumerate(zip(boxes, scores, labels, strict=True)):
        there = (image[1] > 0).nonzero()[:, 0]
        b, s, k = (part[there] for part in image)
        if kind == "hard":
            keep = batched_nms(b, s, k, iou_threshold)[:max_detections]
        else:
            keep = suppress_image(b, s, k, iou_threshold, beta, max_detections)
        index[row, : len(keep)] = there[keep]
        found[row, : len(keep)] = s[keep]
    return Kept(index, found)


def first_that_stay(stays: Tensor, order: Tensor, scores: Tensor, most: int) -> Kept:
    """Of sorted boxes (N, D) the first M that stay."""
    short = max(0, most - stays.shape[1])
    stays, order, scores = (functional.pad(part, (0, short)) for part in (stays, order, scores))
    place = stays.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    there = stays.gather(1, place)
    return Kept(
        torch.where(there, order.gather(1, place), 0),
        torch.where(there, scores.gather(1, place), 0.0),
    )


def _soft(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    threshold: float,
    sigma: float | None,
    score_threshold: float,
    most: int,
) -> Kept:
    """Soft-NMS of all images at once: M times the best of each is taken, and the rest fades."""
    if not scores.shape[1]:
        scores, labels = scores.new_zeros(len(scores), 1), labels.new_zeros(len(scores), 1)
        boxes = boxes.new_zeros(len(scores), 1, 4)
    kept: list[tuple[Tensor, Tensor]] = []
    for _ in range(most):
        best, index = scores.max(dim=1, keepdim=True)  # the first of equals
        if not boxes.is_cuda and not best.any():
            break
        kept.append((index, best))
        box = boxes.gather(1, index[..., None].expand(-1, -1, 4))
        overlap = iou(box, boxes)
        if sigma is None:
            fade = torch.where(overlap > threshold, 1 - overlap, 1.0)
        else:
            fade = torch.exp(-overlap.square() / sigma)
        same = labels == labels.gather(1, index)
        scores = torch.where(same, scores * fade, scores).scatter(1, index, 0.0)
        scores = torch.where(scores > score_threshold, scores, 0.0)
    kept += [(torch.zeros_like(index), torch.zeros_like(best))] * (most - len(kept))
    index, found = (torch.cat(part, dim=1) for part in zip(*kept, strict=True))
    return Kept(torch.where(found > 0, index, 0), found)
