"""Suppression of duplicates, all kinds behind one signature."""

from torch import Tensor
from torchvision.ops import batched_nms


def nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float, kind: str = "hard"
) -> Tensor:
    """Indices of the boxes that stay, by falling score.

    A box goes when a better one of its class that stays overlaps it by more than `iou_threshold`.
    "hard" is torchvision's.

    Args:
        boxes: (D, 4) · scores: (D,) · labels: (D,). All may be empty.
    """
    if kind != "hard":
        raise ValueError(f"no suppression is called {kind!r}; there is: hard")
    return batched_nms(boxes.float(), scores.float(), labels, iou_threshold)
