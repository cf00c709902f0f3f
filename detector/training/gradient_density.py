"""How wrong is the net, and what do losses make of it? Density of gradient norms, after GHM.

Li et al., "Gradient Harmonized Single-stage Detector", AAAI 2019, figures 1 to 3. The norm of the
gradient of cross-entropy in a logit is g = |p - t|: near 0 for the crowd of easy examples, near 1
for outliers. Everything is told from counts: of examples in bins of wrongness w = ln(g / (1 - g)),
in which both ends are wide, and of box deltas in bins of log10 |error|.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detector.boxes import encode
from detector.criterion import Targets
from detector.evaluation.table import Table
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

WORST, STEPS = 14.0, 560  # wrongness from -14 to 14 (g from 8e-7), steps of 0.05
SMALLEST, LARGEST, DECADE = -5, 1, 40  # powers of ten of a delta's error, steps of each
EASY, OUTLIER = 0.1, 0.9  # g of what is called so
REGIONS = ("easy background", "other background", "objects", "outliers")


class GradientCounts(nn.Module):
    """Counts on the device, exact; nothing is waited for.

    examples (2, STEPS): pairs of a valid anchor and a class, the anchor's own class in row 1, all
    else in row 0 · errors: deltas of foreground anchors by their error.
    """

    examples: Tensor
    errors: Tensor

    def __init__(self) -> None:
        super().__init__()
        steps = (LARGEST - SMALLEST) * DECADE
        for name, shape in (("examples", (2, STEPS)), ("errors", (steps,))):
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
            norm_logit = norm.clamp(1e-7, 1 - 1e-7).logit().clamp(-WORST, WORST)
            # histc leaves out what is beyond the scale
            norm_logit = torch.where(valid[:, None], norm_logit, math.inf)
            objects = torch.where(fore[:, None], norm_logit.gather(-1, label), math.inf)
            every, positive = (_histogram(x, STEPS, -WORST, WORST) for x in (norm_logit, objects))
            self.examples += torch.stack([every - positive, positive])
        error = predictions.deltas.float() - encode(targets.boxes, predictions.anchors)
        error = error.abs().log10().clamp(SMALLEST, LARGEST)
        error = torch.where(foreground[..., None], error, math.inf)
        self.errors += _histogram(error, len(self.errors), SMALLEST, LARGEST)

    def reset(self) -> None:
        self.examples.zero_()
        self.errors.zero_()


def _histogram(values: Tensor, steps: int, low: float, high: float) -> Tensor:
    return torch.histc(values, steps, low, high).long()


class Shares(NamedTuple):
    """What losses make of the counts. `norms` (STEPS,) and `sizes`: g and |error| of the bins'
    centers. `classes`: loss -> its share of total gradient in every bin, (2, STEPS); `regions`:
    loss -> region -> share; `boxes`: loss -> share in every bin of errors. Shares sum to 1."""

    norms: Tensor
    sizes: Tensor
    classes: dict[str, Tensor]
    regions: dict[str, dict[str, float]]
    boxes: dict[str, Tensor]


@torch.inference_mode(False)  # validation, which calls this, is in inference mode
@torch.enable_grad()
def shares(examples: Tensor, errors: Tensor) -> Shares:
    """Of counts on the CPU. GHM-C and GHM-R with their default bins, on these counts alone."""
    wrong = -WORST + 2 * WORST * (torch.arange(STEPS) + 0.5) / STEPS
    norms = wrong.sigmoid()
    classes: dict[str, Tensor] = {}
    losses = {"CE": SigmoidCrossEntropy(), "balanced CE": BalancedCrossEntropy()}
    for name, loss in {**losses, "focal": FocalLoss()}.items():
        logits = torch.stack([wrong, -wrong]).reshape(1, -1, 1).requires_grad_()
        labels = torch.tensor([1, 0]).repeat_interleave(STEPS)[None]  # background of one class: 1
        (slope,) = torch.autograd.grad(loss(logits, labels, torch.ones(())), logits)
        classes[name] = examples * slope.reshape(2, STEPS).abs()
    weights = _harmonized(norms, examples.sum(0), GHMC().density.bins)
    classes["GHM-C"] = examples * norms * weights

    sizes = 10 ** (SMALLEST + (torch.arange(len(errors)) + 0.5) / DECADE)
    boxes: dict[str, Tensor] = {}
    for name, box_loss in {"L1": L1Loss(), "smooth L1": SmoothL1Loss()}.items():
        error = torch.zeros(1, len(sizes), 4)
        error[..., 0] = sizes
        error.requires_grad_()
        foreground = torch.ones(1, len(sizes), dtype=torch.bool)
        value = box_loss(error, torch.zeros_like(error), foreground, torch.ones(()))
        (slope,) = torch.autograd.grad(value, error)
        boxes[name] = errors * slope[0, :, 0].abs()
    ghm = GHMR()
    outside = sizes / (sizes.square() + ghm.mu**2).sqrt()
    boxes["GHM-R"] = errors * outside * _harmonized(outside, errors, ghm.density.bins)

    classes, boxes = ({k: _share(v) for k, v in found.items()} for found in (classes, boxes))
    regions = {name: _regions(norms, share) for name, share in classes.items()}
    return Shares(norms, sizes, classes, regions, boxes)


def _harmonized(norms: Tensor, counts: Tensor, bins: int) -> Tensor:
    """The weight that GHM gives to examples of these norms."""
    place = (norms * bins).long().clamp(max=bins - 1)
    table = torch.zeros(bins).index_add_(0, place, counts.float())
    return torch.where(table > 0, 1 / table.clamp(min=1), 0.0)[place]


def _share(amounts: Tensor) -> Tensor:
    return amounts.double() / amounts.double().sum().clamp(min=1e-300)


def _regions(norms: Tensor, share: Tensor) -> dict[str, float]:
    """Outliers are of either kind, whatever is said of an object's class or of another."""
    outlier, easy = norms >= OUTLIER, norms <= EASY
    parts = (
        share[0][easy],
        share[0][~easy & ~outlier],
        share[1][~outlier],
        share[:, outlier],
    )
    return {name: float(part.sum()) for name, part in zip(REGIONS, parts, strict=True)}


def format_shares(examples: Tensor, found: Shares) -> str:
    """How many examples each region has, and what share of the gradient every loss gives it."""
    counts = _regions(found.norms, examples)
    rows = [
        [region, counts[region], *(loss[region] for loss in found.regions.values())]
        for region in REGIONS
    ]
    formats = ["", ",.0f", *[".1%"] * len(found.regions)]
    return Table(["region", "examples", *found.regions], rows, formats).render()
