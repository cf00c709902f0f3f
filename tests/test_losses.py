"""Every loss by hand, against an independent slow loop, by gradcheck and at the edges.

Losses under test are in evaluation mode, so that those that count (GHM) count each batch alone.
"""

import inspect
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torchvision.ops import (
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)

import losses
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

LN2, LN4, LN4_3 = math.log(2), math.log(4), math.log(4 / 3)
# p = 1/2 of class 0, 3/4 of class 1 (the truth), 1/4 of class 2; then three times 1/2:
# the surprise -ln p_t of the truth, and of the others
OTHERS = LN2 + LN4_3 + 3 * LN2
CLASSIFICATION_ROWS: list[tuple[ClassificationLoss, float]] = [
    (SigmoidCrossEntropy(), LN4_3 + OTHERS),
    # e = 0.2: targets 0.9 and 0.1
    (
        SigmoidCrossEntropy(label_smoothing=0.2),
        LN2 + (0.9 * LN4_3 + 0.1 * LN4) + (0.1 * LN4 + 0.9 * LN4_3) + 3 * LN2,
    ),
    (SigmoidCrossEntropy(class_weights=[1, 2, 3]), LN2 + 2 * LN4_3 + 3 * LN4_3 + 6 * LN2),
    (BalancedCrossEntropy(), 0.75 * LN4_3 + 0.25 * OTHERS),
    # with a background logit of 0, softmax gives 1, 3, 1/3, 1 of 16/3; then four times 1/4
    (SoftmaxCrossEntropy(), math.log(16 / 9) + LN4),
    (
        SoftmaxCrossEntropy(label_smoothing=0.4),  # 0.7 for the truth, 0.1 for the other three
        0.7 * math.log(16 / 9) + 0.2 * math.log(16 / 3) + 0.1 * math.log(16) + LN4,
    ),
    (SoftmaxCrossEntropy(class_weights=[3, 2, 3]), 2 * math.log(16 / 9) + LN4),
    # (1 - p_t)^2: 1/4, 1/16, 1/16, 3 times 1/4; alpha 1/4 for the truth, 3/4 for the others
    (
        FocalLoss(),
        0.75 * LN2 / 4 + 0.25 * LN4_3 / 16 + 0.75 * LN4_3 / 16 + 3 * 0.75 * LN2 / 4,
    ),
    (FocalLoss(alpha=None, gamma=0.0), LN4_3 + OTHERS),
    # norms 1/2 (four) and 1/4 (two): the mean of the two bins' mean surprises
    (GHMC(), (LN2 + LN4_3) / 2),
    (GHMC(density="paper"), (LN2 + LN4_3) / 30),
]
ANGLE = math.atan2(10, 5) - math.atan2(10, 10)
V = 4 / math.pi**2 * ANGLE**2
BOX_ROWS: list[tuple[BoxLoss, float]] = [
    # errors 0, 0, 0, 5
    (L1Loss(), 5.0),
    (L2Loss(), 25.0),
    (SmoothL1Loss(), 5 - 1 / 18),
    (SmoothL1Loss(beta=0.0), 5.0),
    (SmoothL1Loss(beta=10.0), 0.5 * 25 / 10),
    (GHMR(), (math.hypot(5, 0.02) - 0.02) / 2),  # two bins are filled, the other is 0
    # IoU 50 / 100; the hull is the union; centers 2.5 apart, diagonal sqrt(200)
    (IoULoss(), 0.5),
    (IoULoss(form="log"), LN2),
    (GIoULoss(), 0.5),
    (DIoULoss(), 0.5 + 6.25 / 200),
    (CIoULoss(), 0.5 + 6.25 / 200 + V * V / (0.5 + V)),
    (CIoULoss(alpha_gate=0.5), 0.5 + 6.25 / 200),
    (EIoULoss(), 0.5 + 6.25 / 200 + 25 / 100),
]
CLASS_LOSSES = [loss.eval() for loss, _ in CLASSIFICATION_ROWS]
BOX_LOSSES = [loss.eval() for loss, _ in BOX_ROWS]
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


def is_mean(loss: object) -> bool:
    """Whether it brings its own normalizer."""
    return isinstance(loss, GHMC | GHMR)


def for_loss(loss: ClassificationLoss, logits: Tensor) -> Tensor:
    """Logits with a background column of 0 where the loss wants one."""
    extra = len(loss.initial_bias(K, 0.01)) - K
    return torch.cat([logits, logits.new_zeros(*logits.shape[:-1], extra)], -1)


@pytest.mark.parametrize(("loss", "expected"), CLASSIFICATION_ROWS, ids=name)
def test_classification_loss_by_hand(loss: ClassificationLoss, expected: float) -> None:
    logits = for_loss(loss, LOGITS)
    torch.testing.assert_close(loss(logits, LABELS, ONE), torch.tensor(expected))
    quarter = expected if is_mean(loss) else expected / 4
    torch.testing.assert_close(loss(logits, LABELS, 4 * ONE), torch.tensor(quarter))


@pytest.mark.parametrize(("loss", "expected"), BOX_ROWS, ids=name)
def test_box_loss_by_hand(loss: BoxLoss, expected: float) -> None:
    torch.testing.assert_close(loss(PREDICTED, TARGET, FOREGROUND, ONE), torch.tensor(expected))
    quarter = expected if is_mean(loss) else expected / 4
    found = loss(PREDICTED, TARGET, FOREGROUND, 4 * ONE)
    torch.testing.assert_close(found, torch.tensor(quarter))


def subclasses(parent: type) -> Iterator[type]:
    for child in parent.__subclasses__():
        yield child
        yield from subclasses(child)


def test_every_loss_has_a_row_and_is_exported() -> None:
    named = {type(loss) for loss in [*CLASS_LOSSES, *BOX_LOSSES]}
    known = {*subclasses(ClassificationLoss), *subclasses(BoxLoss)}
    ours = {c for c in known if c.__module__.startswith("losses.") and not inspect.isabstract(c)}
    assert named == ours
    assert ours <= {value for value in vars(losses).values() if inspect.isclass(value)}


# -- slow loops, written from the formulas ------------------------------------------------------


def slow_sigmoid(loss: ClassificationLoss, logits: list[list[float]], labels: list[int]) -> float:
    examples = []  # p_t, target, class
    for row, label in zip(logits, labels, strict=True):
        for k, x in enumerate(row if label != -1 else []):
            p = 1 / (1 + math.exp(-x))
            examples.append((p if k == label else 1 - p, k == label, k))
    total = 0.0
    if isinstance(loss, GHMC):
        bins = [min(int((1 - p) * 30), 29) for p, *_ in examples]
        regions = len(set(bins)) if loss.density.density == "valid_bins" else 30
        for (p, *_), mine in zip(examples, bins, strict=True):
            total += -math.log(p) / bins.count(mine) / regions
        return total
    for p, truth, k in examples:
        value = -math.log(p)
        if isinstance(loss, FocalLoss):
            value *= (1 - p) ** loss.gamma
            if loss.alpha is not None:
                value *= loss.alpha if truth else 1 - loss.alpha
        if isinstance(loss, BalancedCrossEntropy):
            value *= 0.75 if truth else 0.25
        if isinstance(loss, SigmoidCrossEntropy):
            e = loss.label_smoothing
            value = (1 - e / 2) * value - e / 2 * math.log(1 - p)
            weights = loss.class_weights
            value *= 1 if weights is None else float(weights[k])
        total += value
    return total


def slow_softmax(loss: SoftmaxCrossEntropy, logits: list[list[float]], labels: list[int]) -> float:
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        if label == -1:
            continue
        partition = sum(math.exp(x) for x in row)
        for k, x in enumerate(row):
            target = loss.label_smoothing / len(row) + (k == label) * (1 - loss.label_smoothing)
            weights = [1.0] * len(row) if loss.class_weights is None else [*loss.class_weights, 1.0]
            total -= float(weights[k]) * target * math.log(math.exp(x) / partition)
    return total


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "loss",
    [*CLASS_LOSSES, *(FocalLoss(alpha=a, gamma=g) for a, g in ((None, 0.5), (0.75, 0), (0.5, 5)))],
    ids=name,
)
def test_classification_against_a_slow_loop(loss: ClassificationLoss, seed: int) -> None:
    torch.manual_seed(seed)
    logits = 3 * torch.randn(2, 20, len(loss.initial_bias(K, 0.01)), dtype=torch.float64)
    labels = torch.randint(-1, K + 1, (2, 20))
    slow = slow_softmax if isinstance(loss, SoftmaxCrossEntropy) else slow_sigmoid
    expected = slow(loss, logits.flatten(0, 1).tolist(), labels.flatten().tolist())  # type: ignore[operator]
    # weights of bins and classes are float32
    precision = 1e-6 if is_mean(loss) or loss.class_weights is not None else 1e-9
    assert loss(logits, labels, ONE.double()).item() == pytest.approx(expected, rel=precision)
    assert loss(logits.float(), labels, ONE).item() == pytest.approx(expected, rel=1e-5)


def slow_overlap(
    loss: BoxLoss, a: list[float], b: list[float], alpha: float | None = None
) -> float:
    """The loss of one pair; `alpha` replaces that of CIoU."""
    w, h, wg, hg = a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(
        0.0, min(a[3], b[3]) - max(a[1], b[1])
    )
    union = w * h + wg * hg - shared
    overlap = shared / union if union else 0.0
    wide, high = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    if isinstance(loss, IoULoss):
        return 1 - overlap if loss.form == "linear" else -math.log(max(overlap, 1e-6))
    if isinstance(loss, GIoULoss):
        return 1 - overlap + ((wide * high - union) / (wide * high) if wide * high else 0.0)
    rho = (a[0] + a[2] - b[0] - b[2]) ** 2 / 4 + (a[1] + a[3] - b[1] - b[3]) ** 2 / 4
    value = 1 - overlap + (rho / (wide**2 + high**2) if wide + high else 0.0)
    if isinstance(loss, EIoULoss):
        value += (w - wg) ** 2 / wide**2 if wide else 0.0
        value += (h - hg) ** 2 / high**2 if high else 0.0
    if isinstance(loss, CIoULoss):
        v = 4 / math.pi**2 * (math.atan2(w, h) - math.atan2(wg, hg)) ** 2
        if alpha is None:
            alpha = v / (1 - overlap + v) if 1 - overlap + v else 0.0
            if loss.alpha_gate is not None and overlap <= loss.alpha_gate:
                alpha = 0.0
        value += alpha * v
    return value


def slow_box(loss: BoxLoss, predicted: list[list[float]], target: list[list[float]]) -> float:
    if loss.compares == "boxes":
        return sum(slow_overlap(loss, a, b) for a, b in zip(predicted, target, strict=True))
    errors = [
        abs(x - y)
        for a, b in zip(predicted, target, strict=True)
        for x, y in zip(a, b, strict=True)
    ]
    if isinstance(loss, GHMR):
        bins = [min(int(d / math.hypot(d, 0.02) * 10), 9) for d in errors]
        return sum(
            (math.hypot(d, 0.02) - 0.02) / bins.count(j) / len(set(bins))
            for d, j in zip(errors, bins, strict=True)
        )
    beta = getattr(loss, "beta", 0.0)
    if isinstance(loss, L2Loss):
        return sum(d * d for d in errors)
    return sum(0.5 * d * d / beta if d < beta else d - 0.5 * beta for d in errors)


def random_boxes(count: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Pairs (1, count, 4) that overlap, and pairs that do not; some of zero area, some equal."""
    corner = torch.rand(2, 1, count, 2, dtype=dtype) * 40
    a, b = torch.cat([corner, corner + torch.rand(2, 1, count, 2, dtype=dtype) * 40 + 1], -1)
    a[0, 0, 2:], b[0, 1, 2] = a[0, 0, :2], b[0, 1, 0]
    a[0, 2] = b[0, 2]
    a[0, 3], b[0, 3] = 5.0, 5.0
    return a, b


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("loss", BOX_LOSSES, ids=name)
def test_box_loss_against_a_slow_loop(loss: BoxLoss, seed: int) -> None:
    torch.manual_seed(seed)
    predicted, target = random_boxes(40)
    if loss.compares == "deltas":
        predicted, target = predicted / 100, target / 100
    mask = torch.rand(1, 40) < 0.7
    expected = slow_box(loss, predicted[mask].tolist(), target[mask].tolist())
    precision = 1e-6 if is_mean(loss) else 1e-9
    value = loss(predicted, target, mask, ONE.double())
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
    ],
    ids=name,
)
def test_the_first_step(loss: ClassificationLoss, expected: float) -> None:
    """Two images of 800 x 1024: 307,152 anchors, 120 of them foreground, 80 classes, all logits at
    the prior 0.01."""
    logits = loss.initial_bias(80, 0.01).expand(1, 307_152, 80)
    labels = torch.full((1, 307_152), 80)
    labels[0, :120] = 7
    assert loss(logits, labels, torch.tensor(120.0)).item() == pytest.approx(expected, rel=2e-3)


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
        v = 4 / math.pi**2 * (math.atan2(a[2] - a[0], a[3] - a[1]) - math.pi / 4) ** 2
        penalty = slow_overlap(loss, a, b) - slow_overlap(DIoULoss(), a, b)
        for side in range(4):
            up, down = a.copy(), a.copy()
            up[side], down[side] = a[side] + 1e-6, a[side] - 1e-6
            ends = [slow_overlap(loss, x, b, alpha=penalty / v) for x in (up, down)]
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


SIGMOID_LOSSES = [loss for loss in CLASS_LOSSES if isinstance(loss, losses.SigmoidLoss)]


@pytest.mark.parametrize(
    "loss", [*SIGMOID_LOSSES, FocalLoss(class_weights=[1.0, 2.0, 3.0]).eval()], ids=name
)
@pytest.mark.parametrize("ignored", [0.0, torch.inf, torch.nan])
def test_the_form_for_the_compiler_is_the_same(loss: losses.SigmoidLoss, ignored: float) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(-1, K + 1, (2, 50), generator=generator)
    logits = 4 * torch.randn(2, 50, K, generator=generator)
    logits[labels == -1] = ignored
    for one, other in zip(
        loss._total(logits, labels), loss._fused(logits, labels, labels != -1), strict=True
    ):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other)


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
def test_half_precision_inputs_are_judged_in_float32(dtype: torch.dtype) -> None:
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
    # columns of a class weigh, whether it is the truth or not
    logits, labels = torch.zeros(1, 1, 2), torch.tensor([[0]])
    value = SigmoidCrossEntropy(class_weights=[3, 5])(logits, labels, ONE)
    assert value.item() == pytest.approx(8 * LN2)
