"""The losses. A leaf: imports torch only. A configuration finds every class in here by its name."""

from losses.base import BoxLoss, ClassificationLoss, PerBoxLoss
from losses.cross_entropy import BalancedCrossEntropy, SigmoidCrossEntropy, SoftmaxCrossEntropy
from losses.embedding import EmbeddingLoss
from losses.focal import FocalLoss
from losses.ghm import GHMC, GHMR
from losses.identity import ClassifierLoss, IdentityCrossEntropy
from losses.iou import CIoULoss, DIoULoss, EIoULoss, GIoULoss, IoULoss
from losses.margin import (
    ArcFaceLoss,
    CombinedMarginLoss,
    CosFaceLoss,
    SphereFaceLoss,
)
from losses.metric_learning import CenterLoss, TripletLoss
from losses.regression import L1Loss, L2Loss, SmoothL1Loss
from losses.sigmoid import SigmoidLoss

__all__ = [
    "GHMC",
    "GHMR",
    "ArcFaceLoss",
    "BalancedCrossEntropy",
    "BoxLoss",
    "CIoULoss",
    "CenterLoss",
    "ClassificationLoss",
    "ClassifierLoss",
    "CombinedMarginLoss",
    "CosFaceLoss",
    "DIoULoss",
    "EIoULoss",
    "EmbeddingLoss",
    "FocalLoss",
    "GIoULoss",
    "IdentityCrossEntropy",
    "IoULoss",
    "L1Loss",
    "L2Loss",
    "PerBoxLoss",
    "SigmoidCrossEntropy",
    "SigmoidLoss",
    "SmoothL1Loss",
    "SoftmaxCrossEntropy",
    "SphereFaceLoss",
    "TripletLoss",
]
