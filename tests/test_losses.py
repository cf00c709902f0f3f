"""Every loss against arithmetic, an independent slow reference, gradcheck and the edges."""

import inspect
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

import losses
from losses import (
    BoxLoss,
    ClassificationLoss,
    FocalLoss,
    GIoULoss,
    SigmoidCrossEntropy,
    SmoothL1Loss,
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
CLASSIFICATION_ROWS = [
    # p = 1/2 of class 0, 3/4 of class 1 (the truth), 1/4 of class 2; then three times 1/2
    # -ln of 1 - 1/2, 3/4 and 1 - 1/4; then 3 ln 2
    (SigmoidCrossEntropy(), LN2 + LN4_3 + LN4_3 + 3 * LN2),
    # targets 0.9 and 0.1 -> 0.95 ... with e = 0.2: 0.9 and 0.1
    (
        SigmoidCrossEntropy(label_smoothing=0.2),
        LN2 + (0.9 * LN4_3 + 0.1 * LN4) + (0.1 * LN4 + 0.9 * LN4_3) + 3 * LN2,
    ),
    # (1 - p_t)^2: 1/4, 1/16, 1/16, 3 times 1/4; alpha 1/4 for the truth, 3/4 for the others
    (
        FocalLoss(),
        0.75 * LN2 / 4 + 0.25 * LN4_3 / 16 + 0.75 * LN4_3 / 16 + 3 * 0.75 * LN2 / 4,
    ),
    (FocalLoss(alpha=None, gamma=0.0), LN2 + LN4_3 + LN4_3 + 3 * LN2),
]
BOX_ROWS = [
    # errors 0, 0, 0, 5 and beta 1/9: 5 - 1/18
    (SmoothL1Loss(), 5 - 1 / 18),
    (SmoothL1Loss(beta=0.0), 5.0),
    (SmoothL1Loss(beta=10.0), 0.5 * 25 / 10),
    # IoU 50 / 100, the hull is the union
    (GIoULoss(), 0.5),
]


@pytest.mark.parametrize(("loss", "expected"), CLASSIFICATION_ROWS)
def test_classification_loss_by_hand(loss: ClassificationLoss, expected: float) -> None:
    torch.testing.assert_close(loss(LOGITS, LABELS, ONE), torch.tensor(expected))
    torch.testing.assert_close(loss(LOGITS, LABELS, 4 * ONE), torch.tensor(expected / 4))


@pytest.mark.parametrize(("loss", "expected"), BOX_ROWS)
def test_box_loss_by_hand(loss: BoxLoss, expected: float) -> None:
    torch.testing.assert_close(loss(PREDICTED, TARGET, FOREGROUND, ONE), torch.tensor(expected))


def test_every_loss_has_a_row() -> None:
    named = {type(loss) for loss, _ in [*CLASSIFICATION_ROWS, *BOX_ROWS]}
    exported = {
        c for c in vars(losses).values() if inspect.isclass(c) and not inspect.isabstract(c)
    }
    assert named == exported


def slow_focal(logits: Tensor, labels: Tensor, alpha: float | None, gamma: float) -> float:
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        for k, x in enumerate(row):
            if label == -1:
                continue
            p = 1 / (1 + math.exp(-x))
            p_t = p if k == label else 1 - p
            weight = 1.0 if alpha is None else alpha if k == label else 1 - alpha
            total += -weight * (1 - p_t) ** gamma * math.log(p_t)
    return total


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (None, 0.5), (0.75, 0.0), (0.5, 5.0)])
def test_focal_against_a_slow_loop(alpha: float | None, gamma: float) -> None:
    torch.manual_seed(0)
    logits, labels = (
        torch.randn(1, 40, K, dtype=torch.float64) * 3,
        torch.randint(-1, K + 1, (1, 40)),
    )
    expected = slow_focal(logits[0], labels[0], alpha, gamma)
    value = FocalLoss(alpha=alpha, gamma=gamma)(logits, labels, ONE.double())
    assert value.item() == pytest.approx(expected, rel=1e-9)


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


@pytest.mark.parametrize("gamma", [0.25, 0.5, 2.0])
def test_focal_gradient_is_finite_for_confident_logits(gamma: float) -> None:
    logits = torch.tensor([[[50.0, -50.0, 1e4], [-1e4, 17.0, -20.0]]], requires_grad=True)
    FocalLoss(gamma=gamma)(logits, torch.tensor([[0, K]]), ONE).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_giou_against_torchvision() -> None:
    torch.manual_seed(0)
    corner = torch.rand(2, 1, 50, 2) * 50
    a, b = torch.cat([corner, corner + torch.rand(2, 1, 50, 2) * 40 + 1], -1)
    value = GIoULoss()(a, b, torch.ones(1, 50, dtype=torch.bool), ONE)
    torch.testing.assert_close(value, generalized_box_iou_loss(a, b, reduction="sum"))


@pytest.mark.parametrize(
    ("predicted", "target", "expected"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 0.0),
        ([0, 0, 1, 1], [2, 0, 3, 1], 1 - 0 + 1 / 3),  # hull 3, union 2: (3 - 2) / 3 more
        ([5, 5, 5, 5], [5, 5, 5, 5], 1.0),  # two identical points: 0 / 0 counts as 0
        ([0, 0, 4, 4], [1, 1, 1, 1], 1.0 + 0),  # a point inside: IoU 0, hull = union
    ],
)
def test_giou_at_the_edges(predicted: list[float], target: list[float], expected: float) -> None:
    a = torch.tensor([[predicted]], dtype=torch.float32, requires_grad=True)
    b = torch.tensor([[target]], dtype=torch.float32)
    value = GIoULoss()(a, b, torch.tensor([[True]]), ONE)
    value.backward()
    assert value.item() == pytest.approx(expected)
    assert a.grad is not None
    assert a.grad.isfinite().all()


CLASS_LOSSES = [loss for loss, _ in CLASSIFICATION_ROWS]
BOX_LOSSES = [loss for loss, _ in BOX_ROWS]


@pytest.mark.parametrize("loss", CLASS_LOSSES, ids=repr)
def test_scores_start_at_the_prior(loss: ClassificationLoss) -> None:
    scores = loss.scores(loss.initial_bias(K, 0.01))
    assert scores.shape == (K,)
    torch.testing.assert_close(scores, torch.full((K,), 0.01))


@pytest.mark.parametrize("loss", CLASS_LOSSES, ids=repr)
def test_classification_gradcheck(loss: ClassificationLoss) -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 6, K, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[0, 1, 2, K, -1, K]])
    assert torch.autograd.gradcheck(lambda x: loss(x, labels, ONE.double()), logits)


@pytest.mark.parametrize("loss", BOX_LOSSES, ids=repr)
def test_box_gradcheck(loss: BoxLoss) -> None:
    torch.manual_seed(0)
    corner = torch.rand(1, 6, 2, dtype=torch.float64) * 10
    target = torch.cat([corner, corner + 5], -1)
    predicted = (target + torch.randn(1, 6, 4, dtype=torch.float64)).requires_grad_()
    mask = torch.tensor([[True, True, False, True, True, False]])
    assert torch.autograd.gradcheck(lambda x: loss(x, target, mask, ONE.double()), predicted)


@pytest.mark.parametrize("loss", CLASS_LOSSES, ids=repr)
@pytest.mark.parametrize("labels", [[-1, -1], [K, K], [0, K]])
def test_classification_is_finite_and_attached(loss: ClassificationLoss, labels: list[int]) -> None:
    for size in (0.0, 50.0, 1e4):
        logits = torch.tensor([[[size, -size, 0.0], [-size, size, size]]], requires_grad=True)
        value = loss(logits, torch.tensor([labels]), ONE)
        value.backward()
        assert logits.grad is not None
        assert value.isfinite()
        assert logits.grad.isfinite().all()
        if labels == [-1, -1]:
            assert value == 0
            assert (logits.grad == 0).all()


@pytest.mark.parametrize("loss", CLASS_LOSSES, ids=repr)
def test_ignored_rows_change_nothing_even_when_infinite(loss: ClassificationLoss) -> None:
    expected = loss(LOGITS, LABELS, ONE)
    changed = LOGITS.clone()
    changed[0, 2] = torch.inf
    changed.requires_grad_()
    value = loss(changed, LABELS, ONE)
    value.backward()
    assert value == expected
    assert changed.grad is not None
    assert changed.grad.isfinite().all()


@pytest.mark.parametrize("loss", BOX_LOSSES, ids=repr)
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
        lambda x, _, f=f: f(x, labels, ONE) for f in CLASS_LOSSES
    ]
    checks += [lambda _, b, f=f: f(b[0], b[1], mask, ONE) for f in BOX_LOSSES]
    for check in checks:
        expected = check(logits.float(), boxes.float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(check(logits, boxes), expected)
