"""Criterion: match, normalize once, ask the losses."""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from detector.boxes import decode, encode
from detector.embedding import EmbeddingCriterion
from detector.matching import match
from detector.retinanet import Predictions
from losses import BoxLoss, ClassificationLoss
from losses.base import IGNORED


class Targets(NamedTuple):
    """What the predictions of a batch are compared with: labels (N, R) and boxes (N, R, 4) of the
    anchors, see `match`, and the normalizer `num_foreground`, a scalar, see `joint_count`; and what
    the embedding losses tell, see `EmbeddingCriterion`."""

    labels: Tensor
    boxes: Tensor
    num_foreground: Tensor
    figures: dict[str, Tensor] = {}


def joint_count(foreground: Tensor) -> Tensor:
    """max(1, foreground anchors summed over ranks) / world size.

    DistributedDataParallel averages gradients over ranks, so dividing by this on every rank gives
    the gradient of one process on the joint batch. Clamping before the division matters: the mean
    of few foreground anchors over many ranks is below 1.
    """
    count = foreground.sum().float()
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(count)
        return count.clamp(min=1) / dist.get_world_size()
    return count.clamp(min=1)


class Criterion(nn.Module):
    """Predictions and objects -> the named losses of a batch.

    The only normalizer is `num_foreground`, shared by all losses that do not bring one of their own
    (GHM). Everything is in float32, whatever autocast says.

    Args:
        class_loss, box_loss: the swappable parts.
        num_classes: K.
        embedding: what trains the vectors that tell objects apart; None without such a head.
        matching: `metric`, `foreground`, `background` and `force` of `match`.
    """

    def __init__(
        self,
        class_loss: ClassificationLoss,
        box_loss: BoxLoss,
        num_classes: int,
        embedding: EmbeddingCriterion | None = None,
        **matching: Any,
    ) -> None:
        super().__init__()
        self.class_loss, self.box_loss, self.embedding = class_loss, box_loss, embedding
        self.num_classes, self.matching = num_classes, matching

    def forward(
        self, predictions: Predictions, batch: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], Targets]:
        """The weighted losses "class" and "box", and "embedding" if there is one, whose sum is
        minimized, and their targets."""
        anchors = predictions.anchors
        labels, boxes, rows = match(anchors, batch, self.num_classes, **self.matching)
        foreground = (labels >= 0) & (labels < self.num_classes)
        num_foreground = joint_count(foreground)
        with torch.autocast(anchors.device.type, enabled=False):
            logits, predicted = predictions.logits.float(), predictions.deltas.float()
            if self.box_loss.compares == "deltas":
                target = encode(boxes, anchors)
            else:
                # far-off deltas of other anchors would overflow where nobody looks
                predicted = decode(torch.where(foreground[..., None], predicted, 0.0), anchors)
                target = boxes
            box = self.box_loss(predicted, target, foreground, num_foreground)
            classes = self.class_loss(logits, labels, num_foreground)
            losses = {"class": self.class_loss.weight * classes, "box": self.box_loss.weight * box}
            figures: dict[str, Tensor] = {}
            if self.embedding is not None:
                identities = batch.get("identities", torch.full_like(batch["labels"], IGNORED))
                identities = torch.where(foreground, identities.gather(1, rows), IGNORED)
                losses["embedding"], figures = self.embedding(predictions, identities)
        return losses, Targets(labels, boxes, num_foreground, figures)
