"""Every loss by hand, against an independent slow loop, by gradcheck and at the edges.

Losses under test are in evaluation mode, so that those that count (GHM) count each batch alone.
"""

import itertools
import math
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.ops import (
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)

from detector.config.command_line import parse
from detector.config.signatures import library_losses
from detector.run.assemble import make_loss
from losses import (
    GHMC,
    GHMR,
    BalancedCrossEntropy,
    BoxLoss,
    CIoULoss,
    ClassificationLoss,
    DIoULoss,
    EIoULoss,
    FocalLoss,
    GIoULoss,
    IoULoss,
    L1Loss,
    L2Loss,
    SigmoidCrossEntropy,
    SigmoidLoss,
    SmoothL1Loss,
    SoftmaxCrossEntropy,
)

K = 3
ONE = torch.tensor(1.0)

# one anchor of class 1, one background, one ignored
LOGITS = torch.tensor([[[0.0, math.log(3), -math.log(3)], [0.0, 0.0, 0.0], [5.0, 5.0, 5.0]]])
LABELS = torch.tensor([[1, K, -1]])
PREDICTED = torch.tensor([[[0.0, 0.0, 10.0, 10.0], [1.0, 2.0, 3.0, 4.0]]])
TARGET = torch.tensor([[[0.0, 0.0, 10.0, 5.0], [9.0, 9.0, 9.0, 9.0]]])
FOREGROUND = torch.tensor([[True, False]])


# -- slow references in plain Python: logits of anchors, labels, num_foreground -> loss ------------

SlowClass = Callable[[list[list[float]], list[int], float], float]
SlowBox = Callable[[list[list[float]], list[list[float]], float], float]


def examples(logits: list[list[float]], labels: list[int]) -> Iterator[tuple[float, bool, int]]:
    """p_t, whether the class is the own one, and the anchor's label, of all that is not ignored."""
    for row, label in zip(logits, labels, strict=True):
        for k, x in enumerate(row if label != -1 else []):
            p = 1 / (1 + math.exp(-x))
            yield (p if k == label else 1 - p), k == label, label


def slow_sigmoid(formula: Callable[[float, bool, int], float]) -> SlowClass:
    return lambda logits, labels, num_foreground: (
        sum(formula(*example) for example in examples(logits, labels)) / num_foreground
    )


def slow_focal(alpha: float | None, gamma: float) -> SlowClass:
    def formula(p_t: float, own: bool, _: int) -> float:
        alpha_t = 1.0 if alpha is None else alpha if own else 1 - alpha
        return -alpha_t * (1 - p_t) ** gamma * math.log(p_t)

    return slow_sigmoid(formula)


def slow_ghm(regions: int | None) -> SlowClass:
    """Of 30 bins; divided by `regions`, or by the number of those that hold examples."""

    def slow(logits: list[list[float]], labels: list[int], num_foreground: float) -> float:
        probabilities = [p_t for p_t, *_ in examples(logits, labels)]
        bins = [min(int((1 - p_t) * 30), 29) for p_t in probabilities]
        total = sum(
            -math.log(p_t) / bins.count(j) for p_t, j in zip(probabilities, bins, strict=True)
        )
        return total / (regions or len(set(bins)))

    return slow


def slow_damped(floor: float) -> SlowClass:
    """GHM-C with a floor, of 30 bins."""

    def slow(logits: list[list[float]], labels: list[int], num_foreground: float) -> float:
        probabilities = [p_t for p_t, *_ in examples(logits, labels)]
        bins = [min(int((1 - p_t) * 30), 29) for p_t in probabilities]
        return sum(
            -math.log(p_t) * min(1 / num_foreground, floor / bins.count(j))
            for p_t, j in zip(probabilities, bins, strict=True)
        )

    return slow


def slow_softmax(smoothing: float = 0.0, weights: Sequence[float] = (1, 1, 1, 1)) -> SlowClass:
    def slow(logits: list[list[float]], labels: list[int], num_foreground: float) -> float:
        total = 0.0
        for row, label in zip(logits, labels, strict=True):
            partition = sum(math.exp(x) for x in row)
            for k, x in enumerate(row if label != -1 else []):
                target = smoothing / len(row) + (k == label) * (1 - smoothing)
                total -= weights[label] * target * math.log(math.exp(x) / partition)
        return total / num_foreground

    return slow


def slow_deltas(formula: Callable[[float], float]) -> SlowBox:
    """Of the size of one delta's error."""

    def slow(a: list[list[float]], b: list[list[float]], num_foreground: float) -> float:
        pairs = zip(itertools.chain(*a), itertools.chain(*b), strict=True)
        return sum(formula(abs(x - y)) for x, y in pairs) / num_foreground

    return slow


def slow_ghm_r(a: list[list[float]], b: list[list[float]], num_foreground: float) -> float:
    pairs = zip(itertools.chain(*a), itertools.chain(*b), strict=True)
    errors = [abs(x - y) for x, y in pairs]
    bins = [min(int(d / math.hypot(d, 0.02) * 10), 9) for d in errors]
    return sum(
        (math.hypot(d, 0.02) - 0.02) / bins.count(j) / len(set(bins))
        for d, j in zip(errors, bins, strict=True)
    )


class Pair:
    """What the overlaps of two boxes are made of; 0 / 0 counts as 0."""

    def __init__(self, a: list[float], b: list[float]) -> None:
        self.sides = [(a[2] - a[0], b[2] - b[0]), (a[3] - a[1], b[3] - b[1])]
        (w, other_w), (h, other_h) = self.sides
        width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        shared = width * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        self.union = w * h + other_w * other_h - shared
        self.iou = shared / self.union if self.union else 0.0
        self.hull = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
        rho = (a[0] + a[2] - b[0] - b[2]) ** 2 / 4 + (a[1] + a[3] - b[1] - b[3]) ** 2 / 4
        self.distance = rho / (self.hull[0] ** 2 + self.hull[1] ** 2) if any(self.hull) else 0.0
        self.v = 4 / math.pi**2 * (math.atan2(w, h) - math.atan2(other_w, other_h)) ** 2

    @property
    def giou(self) -> float:
        hull = math.prod(self.hull)
        return self.iou - ((hull - self.union) / hull if hull else 0.0)

    @property
    def diou(self) -> float:
        return self.iou - self.distance

    def alpha(self, gate: float | None) -> float:
        """Of CIoU."""
        if (gate is not None and self.iou <= gate) or not 1 - self.iou + self.v:
            return 0.0
        return self.v / (1 - self.iou + self.v)

    def ciou(self, gate: float | None = None) -> float:
        return self.diou - self.alpha(gate) * self.v

    @property
    def eiou(self) -> float:
        pairs = zip(self.sides, self.hull, strict=True)
        return self.diou - sum((p - q) ** 2 / hull**2 for (p, q), hull in pairs if hull)


def slow_boxes(formula: Callable[[Pair], float]) -> SlowBox:
    return lambda a, b, num_foreground: (
        sum(formula(Pair(*pair)) for pair in zip(a, b, strict=True)) / num_foreground
    )


# -- the golden table: a loss, its value for the inputs above, its slow reference ------------------

LN2, LN4, LN4_3 = math.log(2), math.log(4), math.log(4 / 3)
# p = 1/2 of class 0, 3/4 of class 1 (the truth), 1/4 of class 2; then three times 1/2:
# nll = -ln p_t of the truth, and of the others
OTHERS = LN2 + LN4_3 + 3 * LN2
CLASSIFICATION_ROWS: list[tuple[ClassificationLoss, float, SlowClass]] = [
    (SigmoidCrossEntropy(), LN4_3 + OTHERS, slow_sigmoid(lambda p_t, *_: -math.log(p_t))),
    (
        SigmoidCrossEntropy(label_smoothing=0.2),  # targets 0.9 and 0.1
        LN2 + (0.9 * LN4_3 + 0.1 * LN4) + (0.1 * LN4 + 0.9 * LN4_3) + 3 * LN2,
        slow_sigmoid(lambda p_t, *_: -0.9 * math.log(p_t) - 0.1 * math.log(1 - p_t)),
    ),
    (
        SigmoidCrossEntropy(class_weights=[1, 2, 3]),
        2 * (LN2 + LN4_3 + LN4_3) + 3 * LN2,
        slow_sigmoid(lambda p_t, _, label: -(1, 2, 3, 1)[label] * math.log(p_t)),
    ),
    (
        BalancedCrossEntropy(),
        0.75 * LN4_3 + 0.25 * OTHERS,
        slow_sigmoid(lambda p_t, own, _: -(0.75 if own else 0.25) * math.log(p_t)),
    ),
    # with a background logit of 0, softmax gives 1, 3, 1/3, 1 of 16/3; then four times 1/4
    (SoftmaxCrossEntropy(), math.log(16 / 9) + LN4, slow_softmax()),
    (
        SoftmaxCrossEntropy(label_smoothing=0.4),  # 0.7 for the truth, 0.1 for the other three
        0.7 * math.log(16 / 9) + 0.2 * math.log(16 / 3) + 0.1 * math.log(16) + LN4,
        slow_softmax(0.4),
    ),
    (
        SoftmaxCrossEntropy(class_weights=[3, 2, 3]),
        2 * math.log(16 / 9) + LN4,
        slow_softmax(weights=(3, 2, 3, 1)),
    ),
    (
        SoftmaxCrossEntropy(0.4, class_weights=[3, 2, 3]),  # of the anchor, the smoothed part, too
        2 * (0.7 * math.log(16 / 9) + 0.2 * math.log(16 / 3) + 0.1 * math.log(16)) + LN4,
        slow_softmax(0.4, weights=(3, 2, 3, 1)),
    ),
    # (1 - p_t)^2: 1/4, 1/16, 1/16, 3 times 1/4; alpha 1/4 for the truth, 3/4 for the others
    (
        FocalLoss(),
        0.75 * LN2 / 4 + 0.25 * LN4_3 / 16 + 0.75 * LN4_3 / 16 + 3 * 0.75 * LN2 / 4,
        slow_focal(0.25, 2.0),
    ),
    (FocalLoss(alpha=None, gamma=0.0), LN4_3 + OTHERS, slow_focal(None, 0.0)),
    # factors 1/2, 1/4, 1/4, 3 times 1/2
    (FocalLoss(alpha=0.5, gamma=1.0), LN2 / 4 + LN4_3 / 4 + 3 * LN2 / 4, slow_focal(0.5, 1.0)),
    # norms 1/2 (four) and 1/4 (two): the mean of the two bins' mean nll
    (GHMC(), (LN2 + LN4_3) / 2, slow_ghm(None)),
    (GHMC(density="paper"), (LN2 + LN4_3) / 30, slow_ghm(30)),
    (GHMC(floor=0.5), (LN2 + LN4_3) / 2, slow_damped(0.5)),  # each bin counts as half an example
    (GHMC(floor=3.0), 3 * LN2 + 2 * LN4_3, slow_damped(3.0)),  # the four count as three
]
ANGLE = math.atan2(10, 5) - math.atan2(10, 10)
V = 4 / math.pi**2 * ANGLE**2
BOX_ROWS: list[tuple[BoxLoss, float, SlowBox]] = [
    # errors 0, 0, 0, 5
    (L1Loss(), 5.0, slow_deltas(lambda d: d)),
    (L2Loss(), 25.0, slow_deltas(lambda d: d * d)),
    (
        SmoothL1Loss(),
        5 - 1 / 18,
        slow_deltas(lambda d: 4.5 * d * d if d < 1 / 9 else d - 1 / 18),
    ),
    (SmoothL1Loss(beta=0.0), 5.0, slow_deltas(lambda d: d)),
    (
        SmoothL1Loss(beta=10.0),
        0.5 * 25 / 10,
        slow_deltas(lambda d: 0.05 * d * d if d < 10 else d - 5),
    ),
    (GHMR(), (math.hypot(5, 0.02) - 0.02) / 2, slow_ghm_r),  # two bins are filled, the other is 0
    # IoU 50 / 100; the hull is the union; centers 2.5 apart, diagonal sqrt(200)
    (IoULoss(), 0.5, slow_boxes(lambda pair: 1 - pair.iou)),
    (IoULoss(form="log"), LN2, slow_boxes(lambda pair: -math.log(max(pair.iou, 1e-6)))),
    (GIoULoss(), 0.5, slow_boxes(lambda pair: 1 - pair.giou)),
    (DIoULoss(), 0.5 + 6.25 / 200, slow_boxes(lambda pair: 1 - pair.diou)),
    (
        CIoULoss(),
        0.5 + 6.25 / 200 + V * V / (0.5 + V),
        slow_boxes(lambda pair: 1 - pair.ciou()),
    ),
    (
        CIoULoss(alpha_gate=0.5),
        0.5 + 6.25 / 200,
        slow_boxes(lambda pair: 1 - pair.ciou(gate=0.5)),
    ),
    (EIoULoss(), 0.5 + 6.25 / 200 + 25 / 100, slow_boxes(lambda pair: 1 - pair.eiou)),
]
CLASS_LOSSES = [loss.eval() for loss, *_ in CLASSIFICATION_ROWS]
BOX_LOSSES = [loss.eval() for loss, *_ in BOX_ROWS]
for class_loss in CLASS_LOSSES:
    class_loss.setup(K, 8)


def name(loss: object) -> str | None:
    if not isinstance(loss, torch.nn.Module):
        return None
    plain = {
        key: value for key, value in vars(loss).items() if isinstance(value, int | float | str)
    }
    listed = ",".join(
        f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in plain.items()
        if key not in ("training", "weight")
    )
    return f"{type(loss).__name__}({listed})"


def for_loss(loss: ClassificationLoss, logits: Tensor) -> Tensor:
    """Logits with a background column of 0 where the loss wants one."""
    extra = len(loss.initial_bias(K, 0.01)) - K
    return torch.cat([logits, logits.new_zeros(*logits.shape[:-1], extra)], -1)


@pytest.mark.parametrize(("loss", "expected", "slow"), CLASSIFICATION_ROWS, ids=name)
def test_classification_loss_by_hand(
    loss: ClassificationLoss, expected: float, slow: SlowClass
) -> None:
    logits = for_loss(loss, LOGITS)
    torch.testing.assert_close(loss(logits, LABELS, ONE), torch.tensor(expected))
    assert slow(logits[0].tolist(), LABELS[0].tolist(), 1.0) == pytest.approx(expected)


@pytest.mark.parametrize(("loss", "expected", "slow"), BOX_ROWS, ids=name)
def test_box_loss_by_hand(loss: BoxLoss, expected: float, slow: SlowBox) -> None:
    torch.testing.assert_close(loss(PREDICTED, TARGET, FOREGROUND, ONE), torch.tensor(expected))
    pair = PREDICTED[FOREGROUND].tolist(), TARGET[FOREGROUND].tolist()
    assert slow(*pair, 1.0) == pytest.approx(expected)


def test_every_loss_of_the_library_has_a_row() -> None:
    for slot, rows in ("model.class_loss", CLASSIFICATION_ROWS), ("model.box_loss", BOX_ROWS):
        assert {type(loss).__name__ for loss, *_ in rows} == set(library_losses(slot))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("loss", "slow"),
    [
        *((loss, slow) for loss, _, slow in CLASSIFICATION_ROWS),
        *((FocalLoss(a, g), slow_focal(a, g)) for a, g in ((None, 0.5), (0.75, 0), (0.5, 5))),
    ],
    ids=name,
)
def test_classification_against_a_slow_loop(
    loss: ClassificationLoss, slow: SlowClass, seed: int
) -> None:
    torch.manual_seed(seed)
    logits = 3 * torch.randn(2, 20, len(loss.initial_bias(K, 0.01)), dtype=torch.float64)
    labels = torch.randint(-1, K + 1, (2, 20))
    expected = slow(logits.flatten(0, 1).tolist(), labels.flatten().tolist(), 4.0)
    # weights of bins and classes are float32
    precision = 1e-6 if isinstance(loss, GHMC) or loss.class_weights is not None else 1e-9
    assert loss(logits, labels, 4 * ONE.double()).item() == pytest.approx(expected, rel=precision)
    assert loss(logits.float(), labels, 4 * ONE).item() == pytest.approx(expected, rel=1e-5)


def random_boxes(count: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Pairs (1, count, 4) that overlap, and pairs that do not; some of zero area, some equal."""
    corner = torch.rand(2, 1, count, 2, dtype=dtype) * 40
    a, b = torch.cat([corner, corner + torch.rand(2, 1, count, 2, dtype=dtype) * 40 + 1], -1)
    a[0, 0, 2:], b[0, 1, 2] = a[0, 0, :2], b[0, 1, 0]
    a[0, 2] = b[0, 2]
    a[0, 3], b[0, 3] = 5.0, 5.0
    return a, b


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("loss", "_", "slow"), BOX_ROWS, ids=name)
def test_box_loss_against_a_slow_loop(loss: BoxLoss, _: float, slow: SlowBox, seed: int) -> None:
    torch.manual_seed(seed)
    predicted, target = random_boxes(40)
    if loss.compares == "deltas":
        predicted, target = predicted / 100, target / 100
    mask = torch.rand(1, 40) < 0.7
    expected = slow(predicted[mask].tolist(), target[mask].tolist(), 4.0)
    precision = 1e-6 if isinstance(loss, GHMR) else 1e-9  # weights of bins are float32
    value = loss(predicted, target, mask, 4 * ONE.double())
    assert value.item() == pytest.approx(expected, rel=precision)


@pytest.mark.parametrize(
    ("loss", "theirs"),
    [
        (GIoULoss(), generalized_box_iou_loss),
        (DIoULoss(), distance_box_iou_loss),
        (CIoULoss(), complete_box_iou_loss),
    ],
    ids=name,
)
def test_against_torchvision(loss: BoxLoss, theirs: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    corner = torch.rand(2, 1, 50, 2) * 50
    a, b = torch.cat([corner, corner + torch.rand(2, 1, 50, 2) * 40 + 1], -1)
    a, other = a.clone().requires_grad_(), a.clone().requires_grad_()
    value = loss(a, b, torch.ones(1, 50, dtype=torch.bool), ONE)
    expected = theirs(other, b, reduction="sum")
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(a.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_focal_against_torchvision() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(1, 100, K), torch.randint(0, K + 1, (1, 100))
    targets = torch.nn.functional.one_hot(labels, K + 1)[..., :K].float()
    expected = sigmoid_focal_loss(logits, targets, reduction="sum")
    torch.testing.assert_close(FocalLoss()(logits, labels, ONE), expected)


def test_focal_gamma_fades_an_easy_example_by_its_factor() -> None:
    # p_t = 0.9: (1 - 0.9)^2 = 0.01 of cross-entropy
    logits, labels = torch.tensor([[[math.log(9)]]]), torch.tensor([[0]])
    ratio = FocalLoss(alpha=None)(logits, labels, ONE) / SigmoidCrossEntropy()(logits, labels, ONE)
    assert ratio.item() == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (SigmoidCrossEntropy(), 2063),
        (BalancedCrossEntropy(), 518),
        (FocalLoss(), 1.2827),
        (GHMC(), 2.3076),
        (GHMC(density="paper"), 0.1538),
        (
            GHMC(floor=3.0),
            4.6353,
        ),  # 3 examples of background and 1 of foreground: 3 ln(1 / 0.99) + ln 100
    ],
    ids=name,
)
def test_the_first_step(loss: ClassificationLoss, expected: float) -> None:
    """A tenth of two images of 800 x 1024 (307,152 anchors, 120 of them foreground, 80 classes),
    all logits at the prior 0.01."""
    logits = loss.initial_bias(80, 0.01).expand(1, 30_715, 80)
    labels = torch.full((1, 30_715), 80)
    labels[0, :12] = 7
    assert loss(logits, labels, torch.tensor(12.0)).item() == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("loss", CLASS_LOSSES, ids=name)
def test_scores_start_at_the_prior(loss: ClassificationLoss) -> None:
    scores = loss.scores(loss.initial_bias(K, 0.01))
    assert scores.shape == (K,)
    if isinstance(loss, SoftmaxCrossEntropy):  # classes compete: all objects together
        assert scores.sum().item() == pytest.approx(0.01)
        assert scores.max() == scores.min()
    else:
        torch.testing.assert_close(scores, torch.full((K,), 0.01))


@pytest.mark.parametrize("loss", CLASS_LOSSES, ids=name)
def test_classification_gradcheck(loss: ClassificationLoss) -> None:
    torch.manual_seed(0)
    columns = len(loss.initial_bias(K, 0.01))
    logits = torch.randn(1, 6, columns, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[0, 1, 2, K, -1, K]])
    assert torch.autograd.gradcheck(lambda x: loss(x, labels, ONE.double()), logits)


@pytest.mark.parametrize("loss", BOX_LOSSES, ids=name)
def test_box_gradcheck(loss: BoxLoss) -> None:
    torch.manual_seed(0)
    corner = torch.rand(1, 6, 2, dtype=torch.float64) * 10
    target = torch.cat([corner, corner + 5], -1)
    predicted = (target + torch.randn(1, 6, 4, dtype=torch.float64)).requires_grad_()
    mask = torch.tensor([[True, True, False, True, True, False]])
    if not isinstance(loss, CIoULoss):
        assert torch.autograd.gradcheck(lambda x: loss(x, target, mask, ONE.double()), predicted)
        return
    # alpha is a constant for the gradient: central differences of the slow loop with it held
    loss(predicted, target, mask, ONE.double()).backward()
    assert predicted.grad is not None
    for k in range(6):
        a, b = predicted[0, k].tolist(), target[0, k].tolist()
        alpha = Pair(a, b).alpha(loss.alpha_gate)
        for side in range(4):
            up, down = a.copy(), a.copy()
            up[side], down[side] = a[side] + 1e-6, a[side] - 1e-6
            ends = [1 - pair.diou + alpha * pair.v for pair in (Pair(up, b), Pair(down, b))]
            expected = (ends[0] - ends[1]) / 2e-6 if mask[0, k] else 0.0
            assert predicted.grad[0, k, side].item() == pytest.approx(expected, abs=1e-7)


def test_ciou_trains_the_aspect_towards_the_target() -> None:
    box = torch.tensor([[[0.0, 40.0, 100.0, 60.0]]], requires_grad=True)  # same center, too flat
    target = torch.tensor([[[25.0, 25.0, 75.0, 75.0]]])
    (CIoULoss()(box, target, torch.tensor([[True]]), ONE)).backward()
    assert box.grad is not None
    x1, y1, x2, y2 = (-box.grad[0, 0]).tolist()  # where a step goes
    assert x2 - x1 < 0 < y2 - y1


@pytest.mark.parametrize("loss", CLASS_LOSSES, ids=name)
@pytest.mark.parametrize("labels", [[-1, -1], [K, K], [0, K]])
@pytest.mark.parametrize("size", [0.0, 50.0, 1e4])
def test_classification_is_finite_and_attached(
    loss: ClassificationLoss, labels: list[int], size: float
) -> None:
    logits = torch.tensor([[[size, -size, 0.0], [-size, size, size]]])
    logits = for_loss(loss, logits).requires_grad_()
    value = loss(logits, torch.tensor([labels]), ONE)
    value.backward()
    assert logits.grad is not None
    assert value.isfinite()
    assert logits.grad.isfinite().all()
    if labels == [-1, -1]:
        assert value == 0
        assert (logits.grad == 0).all()


@pytest.mark.parametrize("gamma", [0.25, 0.5, 2.0])
def test_focal_gradient_is_exact_for_confident_logits(gamma: float) -> None:
    values = [50.0, -50.0, 1e4, -1e4, 17.0, -20.0]
    gradients = []
    for dtype in (torch.float32, torch.float64):
        logits = torch.tensor([[values]], dtype=dtype, requires_grad=True)
        FocalLoss(gamma=gamma)(logits, torch.tensor([[0]]), ONE).backward()
        assert logits.grad is not None
        gradients.append(logits.grad.double())
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("loss", BOX_LOSSES, ids=name)
@pytest.mark.parametrize(
    "pair",
    [
        ([3, 4, 9, 8], [3, 4, 9, 8]),
        ([5, 5, 5, 5], [5, 5, 5, 5]),
        ([0, 0, 4, 4], [1, 1, 1, 1]),
        ([1, 1, 1, 5], [0, 0, 4, 4]),
        ([0, 0, 4, 4], [1e4, 1e4, 1.1e4, 1.1e4]),
        ([0, 0, 1e-4, 1e4], [0, 0, 1e4, 1e-4]),
    ],
)
def test_box_losses_at_the_edges(loss: BoxLoss, pair: tuple[list[float], list[float]]) -> None:
    a = torch.tensor([[pair[0]]], dtype=torch.float32, requires_grad=True)
    b = torch.tensor([[pair[1]]], dtype=torch.float32)
    value = loss(a, b, torch.tensor([[True]]), ONE)
    value.backward()
    assert a.grad is not None
    assert value.isfinite()
    assert a.grad.isfinite().all()
    if pair[0] == pair[1]:
        point = pair[0][0] == pair[0][2] and loss.compares == "boxes"
        log = isinstance(loss, IoULoss) and loss.form == "log"
        expected = 0.0 if not point else -math.log(1e-6) if log else 1.0
        assert value.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("loss", CLASS_LOSSES, ids=name)
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_ignored_rows_change_nothing_even_when_not_finite(
    loss: ClassificationLoss, value: float
) -> None:
    logits = for_loss(loss, LOGITS)
    expected = loss(logits, LABELS, ONE)
    changed = logits.clone()
    changed[0, 2] = value
    changed.requires_grad_()
    found = loss(changed, LABELS, ONE)
    found.backward()
    assert found == expected
    assert changed.grad is not None
    assert changed.grad.isfinite().all()
    assert (changed.grad[0, 2] == 0).all()


SIGMOID_LOSSES = [loss for loss in CLASS_LOSSES if isinstance(loss, SigmoidLoss)]


@pytest.mark.parametrize(
    "loss", [*SIGMOID_LOSSES, FocalLoss(class_weights=[1.0, 2.0, 3.0]).eval()], ids=name
)
@pytest.mark.parametrize("ignored", [0.0, torch.inf, torch.nan])
def test_the_form_for_the_compiler_is_the_same(
    loss: SigmoidLoss, ignored: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(-1, K + 1, (2, 50), generator=generator)
    logits = 4 * torch.randn(2, 50, K, generator=generator)
    logits[labels == -1] = ignored
    logits.requires_grad_()
    results = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        value = loss(logits, labels, 7 * ONE)
        results.append([value.detach(), *torch.autograd.grad(value, logits)])
    for one, other in zip(*results, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("loss", [FocalLoss(gamma=1.5), GHMC()], ids=name)
def test_a_derivative_by_hand_is_that_of_the_formula(loss: SigmoidLoss) -> None:
    x_t = torch.linspace(-30, 30, 241, dtype=torch.float64).view(1, -1, 1)
    for one, other in zip(
        loss.loss_and_gradient(x_t), SigmoidLoss.loss_and_gradient(loss, x_t), strict=True
    ):
        torch.testing.assert_close(
            one, other, rtol=1e-8, atol=1e-12
        )  # softplus is linear from 20 on


@pytest.mark.slow
@pytest.mark.parametrize("loss", SIGMOID_LOSSES, ids=name)
def test_a_sigmoid_loss_compiles_into_one_graph(loss: SigmoidLoss) -> None:
    torch._dynamo.reset()
    labels = torch.tensor([[0, K, -1, 2, K]])
    logits = torch.linspace(-4, 4, 5 * K).view(1, 5, K).requires_grad_()
    expected = loss(logits, labels, ONE)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(logits, labels, ONE)
    torch.testing.assert_close(compiled, expected)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (compiled, expected)]
    torch.testing.assert_close(*gradients)


def test_a_sigmoid_loss_cannot_learn_parameters() -> None:
    class Learning(FocalLoss):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

    with pytest.raises(ValueError, match="Learning has parameters to learn"):
        Learning().setup(K, 8)


@pytest.mark.parametrize("loss", BOX_LOSSES, ids=name)
def test_boxes_elsewhere_change_nothing_and_no_foreground_is_zero(loss: BoxLoss) -> None:
    changed = PREDICTED.clone()
    changed[0, 1] = torch.inf
    assert loss(changed, TARGET, FOREGROUND, ONE) == loss(PREDICTED, TARGET, FOREGROUND, ONE)
    changed.requires_grad_()
    value = loss(changed, TARGET, torch.zeros(1, 2, dtype=torch.bool), ONE)
    value.backward()
    assert value == 0
    assert changed.grad is not None
    assert (changed.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_compared_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits, labels = (torch.randn(1, 50, K) * 6).to(dtype), torch.randint(-1, K + 1, (1, 50))
    boxes = (torch.rand(2, 1, 50, 4).cumsum(-1) * 50).to(dtype)
    mask = torch.ones(1, 50, dtype=torch.bool)
    checks: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda x, _, f=f: f(for_loss(f, x), labels, ONE) for f in CLASS_LOSSES
    ]
    checks += [lambda _, b, f=f: f(b[0], b[1], mask, ONE) for f in BOX_LOSSES]
    for check in checks:
        expected = check(logits.float(), boxes.float())
        with torch.autocast("cpu", dtype=dtype):
            assert torch.equal(check(logits, boxes), expected)
            assert torch.equal(check(logits.float(), boxes.float()), expected)


def test_class_weights_are_counted() -> None:
    with pytest.raises(ValueError, match="2 class_weights for 3 classes"):
        FocalLoss(class_weights=[1, 2]).setup(3, 8)
    FocalLoss(class_weights=[1, 2]).setup(2, 8)


@pytest.mark.parametrize(
    "loss", [SigmoidCrossEntropy, BalancedCrossEntropy, FocalLoss, SoftmaxCrossEntropy]
)
@pytest.mark.parametrize("compiling", [False, True])
def test_class_weights_keep_the_balance_to_background_and_boxes(
    loss: type[ClassificationLoss], compiling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of mean 1 over the objects they change neither the first value, when all classes are equally
    likely, nor what the background does to any class."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    # 6, 3 and 1 objects by the power 1, all classes the same say; then much background
    labels = torch.tensor([[0] * 6 + [1] * 3 + [2] + [K] * 1000])
    values, gradients = [], []
    for weights in (None, [10 / 18, 10 / 9, 10 / 3]):
        weighted = loss(class_weights=weights)  # type: ignore[call-arg]
        logits = weighted.initial_bias(K, 0.01).expand(1, labels.numel(), -1).clone()
        values.append(weighted(logits.requires_grad_(), labels, 10 * ONE))
        gradients += torch.autograd.grad(values[-1], logits)
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(gradient[0, 10:] for gradient in gradients))
    ratios = gradients[1][0, :10] / gradients[0][0, :10]
    expected = torch.tensor([10 / 18] * 6 + [10 / 9] * 3 + [10 / 3])
    torch.testing.assert_close(ratios, expected[:, None].expand_as(ratios))


def test_the_example_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file and its lines of a config, as they stand."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    section = readme.split("## Add a loss")[1].split("\n## ")[0]
    code, words = (
        re.search(r"```python\n(.*?)```", section, re.S),
        re.findall(r"`(--.*?)`", section),
    )
    assert code is not None
    (tmp_path / "my_losses.py").write_text(textwrap.dedent(code[1]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", sys.path.copy())
    monkeypatch.delitem(sys.modules, "my_losses", raising=False)  # of another test
    config, _ = parse(" ".join(words).split(), usage="")
    box_loss, class_loss = (make_loss(config["model"][k]) for k in ("box_loss", "class_loss"))
    del sys.modules["my_losses"]  # other tests have a file of this name
    assert box_loss.compares == "deltas"
    assert (box_loss.epsilon, class_loss.epsilon) == (0.1, 1.0)
    # errors 0, 0, 0, 5
    expected = 0.3 + math.hypot(5, 0.1)
    assert box_loss(PREDICTED, TARGET, FOREGROUND, ONE).item() == pytest.approx(expected)
    # 1 - p_t: 1/2, 1/4, 1/4, and 3 times 1/2
    assert class_loss(LOGITS, LABELS, ONE).item() == pytest.approx(LN4_3 + OTHERS + 2.5)
    logits = torch.randn(1, 3, K, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: class_loss(x, LABELS, ONE.double()), logits)
