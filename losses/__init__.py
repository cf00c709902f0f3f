"""The losses. A leaf: imports torch only. A name exported here works in configs."""

from losses.base import BoxLoss, ClassificationLoss, PerBoxLoss
from losses.cross_entropy import BalancedCrossEntropy, SigmoidCrossEntropy, SoftmaxCrossEntropy
from losses.focal import FocalLoss
from losses.ghm import GHMC, GHMR
from losses.iou import CIoULoss, DIoULoss, EIoULoss, GIoULoss, IoULoss
from losses.regression import L1Loss, L2Loss, SmoothL1Loss
from losses.sigmoid import SigmoidLoss

__all__ = [
    "GHMC",
    "GHMR",
    "BalancedCrossEntropy",
    "BoxLoss",
    "CIoULoss",
    "ClassificationLoss",
    "DIoULoss",
    "EIoULoss",
    "FocalLoss",
    "GIoULoss",
    "IoULoss",
    "L1Loss",
    "L2Loss",
    "PerBoxLoss",
    "SigmoidCrossEntropy",
    "SigmoidLoss",
    "SmoothL1Loss",
    "SoftmaxCrossEntropy",
]
