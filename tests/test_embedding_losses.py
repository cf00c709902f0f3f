"""What every embedding loss keeps, whatever it compares: the contract of `EmbeddingLoss`."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from losses import (
    ArcFaceLoss,
    BalancedCrossEntropy,
    CenterLoss,
    CombinedMarginLoss,
    CosFaceLoss,
    EmbeddingLoss,
    IdentityCrossEntropy,
    SigmoidCrossEntropy,
    SoftmaxCrossEntropy,
    SphereFaceLoss,
    TripletLoss,
)
from losses.embedding import normalize

C, D = 4, 3


def make_losses() -> list[EmbeddingLoss]:
    """One of each, with the same weights every time."""
    torch.manual_seed(0)
    losses: list[EmbeddingLoss] = [
        IdentityCrossEntropy(),
        SphereFaceLoss(),
        CosFaceLoss(),
        ArcFaceLoss(),
        CombinedMarginLoss(),
        TripletLoss(margin=1.0),
        TripletLoss(margin=1.0, mining="all", reduction="nonzero"),
        CenterLoss(),
    ]
    for loss in losses:
        loss.setup(C, D)
    return losses


LOSSES = [loss.eval() for loss in make_losses()]


def name(loss: EmbeddingLoss) -> str:
    return type(loss).__name__ + getattr(loss, "mining", "")


def batch(count: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, D, generator=generator)
    return x, torch.randint(-1, C, (count,), generator=generator)


@pytest.mark.parametrize("loss", LOSSES, ids=name)
@pytest.mark.parametrize("value", [0.0, 1e4, torch.inf, torch.nan])
def test_objects_without_identity_change_nothing(loss: EmbeddingLoss, value: float) -> None:
    x, y = batch()
    assert (y == -1).any()
    wild = torch.where((y == -1)[:, None], value, x).requires_grad_()
    result = loss(wild, y)
    result.backward()
    assert result == loss(x, y)
    torch.testing.assert_close(result, loss(x[y >= 0], y[y >= 0]))
    assert wild.grad is not None
    assert wild.grad.isfinite().all()
    assert (wild.grad[y == -1] == 0).all()


@pytest.mark.parametrize("loss", make_losses(), ids=name)
@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_batch_without_identities_gives_zero_attached_to_the_graph(
    loss: EmbeddingLoss, count: int
) -> None:
    x = torch.randn(count, D, requires_grad=True)
    value = loss(x, torch.full((count,), -1))
    value.backward()
    assert value == 0
    for tensor in (x, *loss.parameters()):  # all of them: DistributedDataParallel waits for each
        assert tensor.grad is not None
        assert (tensor.grad == 0).all()


@pytest.mark.parametrize("loss", LOSSES, ids=name)
@pytest.mark.parametrize("size", [0.0, 1e-20, 1e-7, 1.0, 1e4])
def test_gradients_are_finite_for_any_length_and_for_duplicates(
    loss: EmbeddingLoss, size: float
) -> None:
    x = size * torch.tensor([[1.0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 0, 0], [0, 1, 0]])
    x.requires_grad_()
    value = loss(x, torch.tensor([0, 0, 0, 1, 2]))
    value.backward()
    assert value.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().max() < 1e5


@pytest.mark.parametrize("loss", LOSSES, ids=name)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_compared_in_float32(
    loss: EmbeddingLoss, dtype: torch.dtype
) -> None:
    x, y = batch()
    x = x.to(dtype)
    expected = loss(x.float(), y)
    assert expected.dtype == torch.float32
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(loss(x, y), expected)
        assert torch.equal(loss(x.float(), y), expected)


@pytest.mark.parametrize("loss", make_losses(), ids=name)
def test_a_step_is_one_graph(loss: EmbeddingLoss) -> None:
    """No wait for the device, no shape that depends on the data."""
    x, y = batch()
    expected = make_losses()[[name(other) for other in LOSSES].index(name(loss))](x, y)
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, y), expected)


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_one_identity_and_one_of_each(loss: EmbeddingLoss) -> None:
    x, _ = batch(C)
    for y in (torch.zeros(C, dtype=torch.int64), torch.arange(C)):
        x.requires_grad_()
        value = loss(x, y)
        value.backward()
        assert value.isfinite()


def test_a_single_identity_in_all_data() -> None:
    for loss in make_losses():
        loss.setup(1, D)
        value = loss(torch.randn(3, D), torch.tensor([0, 0, -1]))
        assert value.isfinite()
        if not isinstance(loss, CenterLoss):
            assert value == 0


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (SigmoidCrossEntropy, {"label_smoothing": 1}),
        (SoftmaxCrossEntropy, {"label_smoothing": -1}),
        (BalancedCrossEntropy, {"alpha": 1.5}),
        (IdentityCrossEntropy, {"label_smoothing": 2}),
        (IdentityCrossEntropy, {"label_smoothing": -0.1}),
        (SphereFaceLoss, {"m": 0}),
        (SphereFaceLoss, {"base": -1}),
        (SphereFaceLoss, {"gamma": -1}),
        (SphereFaceLoss, {"lambda_min": -1}),
        (ArcFaceLoss, {"s": 0}),
        (ArcFaceLoss, {"m": -1}),
        (CosFaceLoss, {"m": -1}),
        (CombinedMarginLoss, {"m1": 0}),
        (TripletLoss, {"margin": -1}),
        (CenterLoss, {"alpha": 5}),
        (CenterLoss, {"alpha": -0.1}),
    ],
)
def test_values_without_meaning_are_refused(
    loss: type[torch.nn.Module], options: dict[str, Any]
) -> None:
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=rf"\b{name}\d? {value}\b.*: give "):
        loss(**options)


def test_normalize() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-9, 0.0]], requires_grad=True)
    unit = normalize(x)
    assert unit.tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)],
        [0, 0],
        [pytest.approx(1e-9), 0],
    ]
    unit[:, 0].sum().backward()
    assert x.grad is not None
    # d (x / |x|) / dx = (1 - 0.36) / 5; a vector without length passes its gradient on as it is
    torch.testing.assert_close(x.grad[:, 0], torch.tensor([0.128, 1.0, 1.0]))


def part_of_a_batch(rank: int, rows: int) -> list[dict[str, Any]]:
    return [value_and_gradients(loss, *parts(rows)[rank]) for loss in make_losses()]


def parts(rows: int) -> list[tuple[Tensor, Tensor]]:
    """The first `rows` of a batch of 12, and the others. Behind the sixth is a single object with
    an identity, to be missed nowhere: its positives and negatives are before."""
    x, y = batch()
    y[6:] = -1
    y[7] = y[y >= 0][0]
    return [(x[:rows], y[:rows]), (x[rows:], y[rows:])]


def value_and_gradients(loss: EmbeddingLoss, x: Tensor, y: Tensor) -> dict[str, Any]:
    x = x.clone().requires_grad_()
    value = loss(x, y)
    value.backward()
    weights = [parameter.grad for parameter in loss.parameters()]
    return {"value": value.detach(), "x": x.grad, "weights": weights, "state": loss.state_dict()}


@pytest.mark.parametrize("rows", [6, 7, 0])
def test_two_processes_are_one_with_the_joint_batch(
    two_processes: Callable[..., Any], rows: int
) -> None:
    """Value, gradients, centers: the mean over ranks is that of one process, whether they have as
    many rows, or one of them has fewer, or none."""
    ranks = two_processes(part_of_a_batch, rows)
    joint = [torch.cat(both) for both in zip(*parts(rows), strict=True)]
    for loss, a, b in zip(make_losses(), *ranks, strict=True):
        expected = value_and_gradients(loss, *joint)
        torch.testing.assert_close((a["value"] + b["value"]) / 2, expected["value"])
        torch.testing.assert_close(torch.cat([a["x"], b["x"]]) / 2, expected["x"])
        for one, other, grad in zip(a["weights"], b["weights"], expected["weights"], strict=True):
            torch.testing.assert_close((one + other) / 2, grad)
        for key, state in expected["state"].items():
            torch.testing.assert_close(a["state"][key], state)
            assert torch.equal(a["state"][key], b["state"][key])
