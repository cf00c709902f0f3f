"""How wrong is the net, and what do losses make of it? Density of gradient norms, after GHM.

Li et al., "Gradient Harmonized Single-stage Detector", AAAI 2019, figures 1 to 3. The norm of the
gradient of cross-entropy in a logit is g = |p - t|: near 0 for the crowd of easy examples, near 1
for outliers. Examples are counted in bins of ln(g / (1 - g)), the logit of g, in which both ends
are wide, and box deltas in bins of log10 |error|; all else is computed from these counts.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detector.boxes import encode
from detector.criterion import Targets
from detector.retinanet import Predictions
from losses import (
    GHMC,
    GHMR,
    BalancedCrossEntropy,
    ClassificationLoss,
    FocalLoss,
    L1Loss,
    SigmoidCrossEntropy,
    SmoothL1Loss,
)

MAX_LOGIT, BINS = 14.0, 560  # logits of g from -14 to 14 (g from 8e-7), in steps of 0.05
SMALLEST, LARGEST, PER_DECADE = -5, 1, 40  # powers of ten of a delta's error, bins of each
EASY, OUTLIER = 0.1, 0.9  # up to this g an example is easy, from that g on it is an outlier
REGIONS = ("easy background", "other background", "objects", "outliers")


class GradientCounts(nn.Module):
    """Counts on the device, exact, without waiting for it.

    examples (2, BINS): pairs of a valid anchor and a class, the anchor's own class in row 1, all
    other pairs in row 0 · errors: deltas of foreground anchors by their error.
    """

    examples: Tensor
    errors: Tensor

    def __init__(self) -> None:
        super().__init__()
        bins = (LARGEST - SMALLEST) * PER_DECADE
        for name, shape in (("examples", (2, BINS)), ("errors", (bins,))):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.int64), persistent=False)

    @torch.no_grad()
    def add(
        self, class_loss: ClassificationLoss, predictions: Predictions, targets: Targets
    ) -> None:
        """Count a batch. What lies beyond a scale is counted in its last bin. Image by image: a
        histogram counts in float32, exact to 2^24."""
        labels = targets.labels
        scores = class_loss.scores(predictions.logits.float())
        num_classes = scores.shape[-1]
        foreground = (labels >= 0) & (labels < num_classes)
        column = labels.clamp(0, num_classes - 1)[..., None]  # the anchor's own class
        for image, label, valid, fore in zip(scores, column, labels >= 0, foreground, strict=True):
            score = image.gather(-1, label)
            norm = image.scatter(-1, label, torch.where(fore[:, None], 1 - score, score))
            logit = norm.clamp(1e-7, 1 - 1e-7).logit().clamp(-MAX_LOGIT, MAX_LOGIT)
            logit = torch.where(valid[:, None], logit, math.inf)  # histc leaves out what is beyond
            objects = torch.where(fore[:, None], logit.gather(-1, label), math.inf)
            every, positive = (_histogram(x, BINS, -MAX_LOGIT, MAX_LOGIT) for x in (logit, objects))
            self.examples += torch.stack([every - positive, positive])
        error = predictions.deltas.float() - encode(targets.boxes, predictions.anchors)
        error = error.abs().log10().clamp(SMALLEST, LARGEST)
        error = torch.where(foreground[..., None], error, math.inf)
        self.errors += _histogram(error, len(self.errors), SMALLEST, LARGEST)

    def reset(self) -> None:
        self.examples.zero_()
        self.errors.zero_()


def _histogram(values: Tensor, bins: int, low: float, high: float) -> Tensor:
    return torch.histc(values, bins, low, high).long()


class Shares(NamedTuple):
    """What losses make of the counts.

    norms (BINS,) and sizes: g and |error| at the bins' centers · counts: region -> examples ·
    classes: loss -> its share of the total gradient in every bin (2, BINS) · regions: loss ->
    region -> share · boxes: loss -> share in every bin of errors. Shares sum to 1.
    """

    norms: Tensor
    sizes: Tensor
    counts: dict[str, float]
    classes: dict[str, Tensor]
    regions: dict[str, dict[str, float]]
    boxes: dict[str, Tensor]


@torch.inference_mode(False)  # validation, which calls this, is in inference mode
@torch.enable_grad()
def shares(examples: Tensor, errors: Tensor) -> Shares:
    """Of counts on the CPU. GHM-C and GHM-R with their default bins, on these counts alone."""
    logits = -MAX_LOGIT + 2 * MAX_LOGIT * (torch.arange(BINS) + 0.5) / BINS
    sizes = 10 ** (SMALLEST + (torch.arange(len(errors)) + 0.5) / PER_DECADE)
    norms = logits.sigmoid()
    classes, boxes = _class_gradients(logits, examples), _box_gradients(sizes, errors)
    regions = {name: _regions(norms, share) for name, share in classes.items()}
    return Shares(norms, sizes, _regions(norms, examples), classes, regions, boxes)


def _class_gradients(logits: Tensor, examples: Tensor) -> dict[str, Tensor]:
    """Shares (2, BINS) of classification losses, by name."""
    gradients: dict[str, Tensor] = {}
    losses = {"CE": SigmoidCrossEntropy(), "balanced CE": BalancedCrossEntropy()}
    for name, loss in {**losses, "focal": FocalLoss()}.items():
        x = torch.stack([logits, -logits]).reshape(1, -1, 1).requires_grad_()
        labels = torch.tensor([1, 0]).repeat_interleave(BINS)[None]  # background of one class: 1
        (slope,) = torch.autograd.grad(loss(x, labels, torch.ones(())), x)
        gradients[name] = examples * slope.reshape(2, BINS).abs()
    norms = logits.sigmoid()
    gradients["GHM-C"] = examples * norms * _ghm_weights(norms, examples.sum(0), GHMC())
    return {name: _share(gradient) for name, gradient in gradients.items()}


def _box_gradients(sizes: Tensor, errors: Tensor) -> dict[str, Tensor]:
    """Shares of box losses in every bin of errors, by name."""
    gradients: dict[str, Tensor] = {}
    for name, loss in {"L1": L1Loss(), "smooth L1": SmoothL1Loss()}.items():
        delta = torch.zeros(1, len(sizes), 4)
        delta[..., 0] = sizes
        delta.requires_grad_()
        foreground = torch.ones(1, len(sizes), dtype=torch.bool)
        value = loss(delta, torch.zeros_like(delta), foreground, torch.ones(()))
        (slope,) = torch.autograd.grad(value, delta)
        gradients[name] = errors * slope[0, :, 0].abs()
    ghm = GHMR()
    norms = sizes / (sizes.square() + ghm.mu**2).sqrt()
    gradients["GHM-R"] = errors * norms * _ghm_weights(norms, errors, ghm)
    return {name: _share(gradient) for name, gradient in gradients.items()}


def _ghm_weights(norms: Tensor, counts: Tensor, loss: GHMC | GHMR) -> Tensor:
    """The weight of one example of each of these norms, in a batch of as many as `counts`."""
    index = loss.density.bin_of(norms)
    table = torch.zeros(loss.density.bins).index_add_(0, index, counts.float())
    return loss.density.bin_weights(table, table)[index]


def _share(amounts: Tensor) -> Tensor:
    return amounts.double() / amounts.double().sum().clamp(min=1e-300)


def _regions(norms: Tensor, amounts: Tensor) -> dict[str, float]:
    """Amounts (2, BINS) summed over regions. Outliers are of both rows: of an object's class or of
    another."""
    outlier, easy = norms >= OUTLIER, norms <= EASY
    parts = (
        amounts[0][easy],
        amounts[0][~easy & ~outlier],
        amounts[1][~outlier],
        amounts[:, outlier],
    )
    return {name: float(part.sum()) for name, part in zip(REGIONS, parts, strict=True)}
