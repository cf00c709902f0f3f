"""The losses. A leaf: imports torch and torchvision.ops only. A name exported here works in
configs."""

from losses.base import BoxLoss, ClassificationLoss
from losses.cross_entropy import SigmoidCrossEntropy
from losses.focal import FocalLoss
from losses.iou import GIoULoss
from losses.regression import SmoothL1Loss

__all__ = [
    "BoxLoss",
    "ClassificationLoss",
    "FocalLoss",
    "GIoULoss",
    "SigmoidCrossEntropy",
    "SmoothL1Loss",
]
