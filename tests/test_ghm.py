"""What GHM counts and remembers, over steps, precisions and processes."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from detector.training.loss_curves import fixed_point
from losses import GHMC, GHMR, BalancedCrossEntropy, FocalLoss, SigmoidCrossEntropy
from losses.ghm import FIXED_POINT, GradientDensity
from tests.authors_ghm import AuthorsGHMC

ONE = torch.tensor(1.0)


def logit(p: float) -> float:
    return float(torch.logit(torch.tensor(p, dtype=torch.float64)))


# of a background anchor with one class the norm is p: three in the first half, one in the second
LOGITS = torch.tensor([[[logit(0.1)], [logit(0.2)], [logit(0.3)], [logit(0.9)]]])
LABELS = torch.ones(1, 4, dtype=torch.int64)


def counts(loss: GHMC | GHMR) -> list[float]:
    return (loss.density.running / FIXED_POINT).tolist()


def test_the_running_mean_decays_in_all_bins_and_is_corrected_for_its_start() -> None:
    loss = GHMC(bins=2, momentum=0.75)
    loss(LOGITS, LABELS, ONE)
    assert counts(loss) == [0.75, 0.25]
    loss(LOGITS[:, :3], LABELS[:, :3], ONE)
    assert counts(loss) == [0.75 * 0.75 + 0.25 * 3, 0.75 * 0.25]
    assert loss.density.updates == 2
    weights = loss.eval().density.harmonize(torch.tensor([[[0.1]]]), torch.tensor([[True]]))
    mean = 0.75 * counts(loss)[0] + 0.25 * 1
    assert weights.item() == pytest.approx((1 - 0.75**3) / mean)


def test_the_first_step_is_not_too_large() -> None:
    first = GHMC(momentum=0.75)(LOGITS, LABELS, ONE)
    assert first == GHMC(momentum=0.0)(LOGITS, LABELS, ONE)


def test_a_floor_is_a_limit_of_what_a_bin_counts() -> None:
    """2 of the floor times 1.5 foreground anchors: 3 examples. The running counts decide."""
    loss = GHMC(bins=2, momentum=0.75, floor=2.0)
    cross_entropy = torch.nn.functional.softplus(LOGITS).flatten()
    first = loss(LOGITS, LABELS, torch.tensor(1.5))  # three and one: none is more than 3
    torch.testing.assert_close(first, cross_entropy.sum() / 1.5)
    many = LOGITS[:, :1].expand(1, 20, 1)
    second = loss(many, torch.ones(1, 20, dtype=torch.int64), torch.tensor(1.5))
    count = (0.75 * 0.25 * 3 + 0.25 * 20) / (1 - 0.75**2)
    torch.testing.assert_close(second, 20 * cross_entropy[0] * 3 / count / 1.5)


def test_an_infinite_floor_is_cross_entropy_and_none_is_the_form_of_the_paper() -> None:
    for one, other in (
        (GHMC(floor=math.inf), SigmoidCrossEntropy()),
        (GHMC(floor=0.0), GHMC()),
    ):
        for seed in range(3):  # with a memory of other batches
            logits, labels = batch(seed)
            logits.requires_grad_()
            values = [loss(logits, labels, torch.tensor(13.0)) for loss in (one, other)]
            gradients = [torch.autograd.grad(value, logits)[0] for value in values]
            torch.testing.assert_close(*values, rtol=1e-6, atol=0)
            torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)


def test_a_floor_without_foreground_and_without_valid_anchors() -> None:
    """num_foreground is 1 where there is none, so a crowded bin counts as `floor` examples."""
    loss = GHMC(momentum=0.0, floor=3.0)
    logits = torch.full((1, 100, 1), logit(0.01)).requires_grad_()
    labels = torch.ones(1, 100, dtype=torch.int64)
    value = loss(logits, labels, ONE)
    assert value.item() == pytest.approx(3 * -math.log(0.99), rel=1e-5)
    value.backward()
    assert logits.grad is not None
    assert logits.grad.sum().item() == pytest.approx(3 * 0.01, rel=1e-5)
    assert loss(logits, -labels, ONE) == 0


def closed_form(floor: float, q: float) -> float:
    """As many anchors look alike as are foreground, F; a bin counts as at most floor F."""
    objects, others = min(q, floor), min(1 - q, floor)  # objects (1 - p) = others p
    return objects / (objects + others)


@pytest.mark.parametrize("q", [0.05, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_where_anchors_that_look_alike_end(q: float) -> None:
    """A share q of them are objects. A proper scoring rule ends at p = q."""
    assert fixed_point(SigmoidCrossEntropy(), q) == pytest.approx(q, abs=1e-3)
    balanced = 0.75 * q / (0.75 * q + 0.25 * (1 - q))
    assert fixed_point(BalancedCrossEntropy(), q) == pytest.approx(balanced, abs=1e-3)
    for density in ("valid_bins", "paper"):
        loss = GHMC(momentum=0.0, density=density)  # type: ignore[arg-type]
        assert fixed_point(loss, q) == pytest.approx(0.5, abs=1e-3)
    middle = min(max(q, 15 / 31), 16 / 31)  # both groups share the bin around one half
    assert fixed_point(GHMC(bins=31, momentum=0.0), q) == pytest.approx(middle, abs=1e-3)
    levels = [100, 10_100 - round(100 * q)]  # those that look alike, all others
    assert fixed_point(AuthorsGHMC(levels).eval(), q) == pytest.approx(0.5, abs=1e-3)
    assert fixed_point(GHMC(momentum=0.0, floor=3.0), q) == pytest.approx(q, abs=1e-3)
    expected = closed_form(0.3, q)
    assert fixed_point(GHMC(momentum=0.0, floor=0.3), q) == pytest.approx(expected, abs=1e-3)
    p = fixed_point(FocalLoss(), q)
    objects = 0.25 * (1 - p) ** 2 * (1 - p - 2 * p * math.log(p))
    others = 0.75 * p**2 * (p - 2 * (1 - p) * math.log(1 - p))
    assert q * objects == pytest.approx((1 - q) * others, rel=1e-2)


def test_the_flat_histogram_that_is_sought_has_a_loss_of_one() -> None:
    """Norms that fill [0, G] evenly: 1 + (1 - G) ln(1 - G) / G."""
    norms = (torch.arange(30_000) + 0.5) / 30_000
    for end in (1.0, 0.9, 0.5):
        logits = (end * norms).logit().view(1, -1, 1)
        value = GHMC()(logits, torch.ones(1, 30_000, dtype=torch.int64), ONE)
        rest = (1 - end) * math.log(1 - end) / end if end < 1 else 0.0
        assert value.item() == pytest.approx(1 + rest, rel=1e-3)


def test_only_the_form_of_the_paper_comes_with_advice() -> None:
    assert "model.class_loss.floor" in GHMC().advice
    assert "\n" not in GHMC().advice
    assert not GHMC(floor=3.0).advice
    assert not SigmoidCrossEntropy().advice


def test_evaluation_and_batches_without_valid_anchors_are_not_remembered() -> None:
    loss = GHMC()
    loss(LOGITS, LABELS, ONE)
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    ignored = torch.full((1, 4), -1)
    assert loss(LOGITS, ignored, ONE) == 0
    loss.eval()(LOGITS[:, :2], LABELS[:, :2], ONE)
    assert all(torch.equal(before[name], value) for name, value in loss.state_dict().items())
    assert sorted(before) == ["density.running", "density.updates"]


@pytest.mark.parametrize("floor", [None, 0.5])
def test_a_state_goes_on_where_it_was(floor: float | None) -> None:
    one, two, fresh = (GHMC(bins=2, floor=floor) for _ in range(3))
    one(LOGITS, LABELS, ONE)
    two.load_state_dict(one.state_dict())
    following = LOGITS[:, 1:], LABELS[:, 1:], ONE
    assert one(*following) == two(*following) != fresh(*following)


def test_density_of_the_paper_is_smaller_by_the_share_of_filled_bins() -> None:
    values = [GHMC(bins=10, density=d)(LOGITS, LABELS, ONE) for d in ("valid_bins", "paper")]  # type: ignore[arg-type]
    torch.testing.assert_close(values[1], values[0] * 4 / 10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_hardest_examples_are_counted_in_any_precision(dtype: torch.dtype) -> None:
    """Norms that round to 1 belong to the last bin, also in a module cast to half precision."""
    loss = GHMC().to(dtype)
    logits = torch.full((1, 5, 1), 90.0, dtype=dtype, requires_grad=True)
    value = loss(logits, torch.ones(1, 5, dtype=torch.int64), ONE)
    assert value.item() == pytest.approx(90.0)
    assert loss.density.running[-1] == 5 * 2**14
    value.backward()
    assert logits.grad is not None
    assert logits.grad.float().sum().item() == pytest.approx(1.0, rel=1e-2)


def test_counts_are_exact_beyond_what_float32_counts() -> None:
    density = GradientDensity(bins=4, momentum=0.0)
    index = torch.zeros(1, 1, 1, dtype=torch.int64).expand(1, 2**19, 64)
    valid = torch.ones(1, 2**19, dtype=torch.bool)
    assert density.count(index, valid).tolist() == [2**25, 0, 0, 0]
    valid[0, 0] = False
    assert density.count(index, valid).tolist() == [2**25 - 64, 0, 0, 0]


def test_ghm_r_counts_the_deltas_of_foreground_anchors_only() -> None:
    loss = GHMR(momentum=0.0)
    predicted = torch.tensor([[[0.0, 0.02, 1.0, -1.0], [7.0, 7.0, 7.0, 7.0]]])
    loss(predicted, torch.zeros(1, 2, 4), torch.tensor([[True, False]]), ONE)
    assert counts(loss) == [1, 0, 0, 0, 0, 0, 0, 1, 0, 2]


def test_what_no_floor_can_be() -> None:
    for floor in (-1.0, math.nan):
        with pytest.raises(ValueError, match="give a number above 0, or null"):
            GHMC(floor=floor)


def test_what_no_histogram_can_be_made_of() -> None:
    for options in ({"bins": 0}, {"momentum": 1.0}, {"momentum": -0.1}):
        with pytest.raises(ValueError, match="give 1 or more"):
            GHMC(**options)  # type: ignore[arg-type]


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(4, 50, 3, generator=generator)
    labels = torch.randint(-1, 4, (4, 50), generator=generator)
    labels[3] = -1  # nothing to learn, but its process must not be missed
    return logits, labels


FOREGROUND = 20  # of the joint batch, as if it were labeled so


def half_a_batch(rank: int, floor: float | None) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
    """Value, gradient and histogram of one of two processes."""
    logits, labels = batch()
    part = slice(0, 3) if rank == 0 else slice(3, 4)
    x = logits[part].clone().requires_grad_()
    loss = GHMC(floor=floor)
    value = loss(x, labels[part], torch.tensor(FOREGROUND / 2))
    value.backward()
    return value.detach(), x.grad, loss.state_dict()


@pytest.mark.parametrize("floor", [None, 0.5])
def test_two_processes_count_as_one(two_processes: Callable[..., Any], floor: float | None) -> None:
    (one, first, state), (two, second, other) = two_processes(half_a_batch, floor)
    logits, labels = batch()
    logits.requires_grad_()
    loss = GHMC(floor=floor)
    value = loss(logits, labels, torch.tensor(float(FOREGROUND)))
    assert value != GHMC(floor=math.inf)(logits, labels, torch.tensor(float(FOREGROUND)))
    value.backward()
    torch.testing.assert_close((one + two) / 2, value.detach())  # the mean over ranks, as DDP's
    torch.testing.assert_close(torch.cat([first, second]) / 2, logits.grad)
    for name, expected in loss.state_dict().items():
        assert torch.equal(state[name], expected)
        assert torch.equal(other[name], expected)


def authors_loop(
    levels: list[int],
    running: list[float],
    logits: list[list[list[float]]],
    labels: list[list[int]],
) -> tuple[float, list[list[list[float]]]]:
    """Loss and gradient of one step of the authors' code, written from its description: example by
    example, level by level. `running` is changed."""
    momentum, bins, start, total = 0.75, len(running), 0, 0.0
    gradient = [[[0.0 for _ in row] for row in image] for image in logits]
    for size in levels:
        members: dict[int, list[tuple[int, int, int, float, float]]] = {}
        for n, image in enumerate(logits):
            for r in range(start, start + size):
                for k, x in enumerate(image[r] if labels[n][r] >= 0 else []):
                    p, target = 1 / (1 + math.exp(-x)), float(k == labels[n][r])
                    place = min(int(abs(p - target) * bins), bins - 1)
                    members.setdefault(place, []).append((n, r, k, p, target))
        for place, examples in members.items():
            running[place] = momentum * running[place] + (1 - momentum) * len(examples)
            for n, r, k, p, target in examples:
                weight = 1 / running[place] / len(members)
                total -= weight * math.log(p if target else 1 - p)
                gradient[n][r][k] = weight * (p - target)
        start += size
    return total, gradient


def test_the_authors_code_is_the_loop_that_it_is_described_as() -> None:
    levels, running = [30, 15, 5], [0.0] * 30
    loss = AuthorsGHMC(levels).double()
    for step in range(4):
        logits, labels = batch(step)
        logits = logits.double().requires_grad_()
        value = loss(logits, labels, ONE)
        (gradient,) = torch.autograd.grad(value, logits)
        expected, slope = authors_loop(levels, running, logits.tolist(), labels.tolist())
        assert value.item() == pytest.approx(expected, rel=1e-6)
        torch.testing.assert_close(gradient, torch.tensor(slope).double(), rtol=1e-6, atol=1e-9)
    assert loss.running.tolist() == pytest.approx(running)


def test_the_authors_code_starts_four_times_too_large_and_is_else_one_level_of_ours() -> None:
    logits, labels = batch()
    torch.testing.assert_close(
        AuthorsGHMC([50])(logits, labels, ONE), 4 * GHMC()(logits, labels, ONE)
    )
    theirs, ours = AuthorsGHMC([50], momentum=0.0), GHMC(momentum=0.0)
    for step in range(3):
        torch.testing.assert_close(*(loss(*batch(step), ONE) for loss in (theirs, ours)))
