"""Classifiers of identities: by hand, against a slow loop, and where angles have their edges."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from losses import (
    ArcFaceLoss,
    ClassifierLoss,
    CombinedMarginLoss,
    CosFaceLoss,
    IdentityCrossEntropy,
    SphereFaceLoss,
)
from losses.margin import (
    attainable_probability,
    default_scale,
    margin_target,
    multiplied_angle,
    smallest_scale,
)
from tests.test_expected import close, rows

LOSSES = [
    IdentityCrossEntropy(),
    IdentityCrossEntropy(label_smoothing=0.0),
    SphereFaceLoss(),
    SphereFaceLoss(m=1),
    SphereFaceLoss(m=3, base=0.5, lambda_min=0.0),
    CosFaceLoss(),
    CosFaceLoss(s=64.0),
    ArcFaceLoss(),
    ArcFaceLoss(s=30.0, mode="plain"),
    ArcFaceLoss(s=30.0, mode="easy"),
    CombinedMarginLoss(),
    CombinedMarginLoss(s=8.0, m1=2.0, m2=0.4, m3=0.1),
    CombinedMarginLoss(s=8.0, m1=0.9, m2=0.4, m3=0.15, mode="plain"),
]


def name(loss: ClassifierLoss) -> str:
    return f"{type(loss).__name__}{getattr(loss, 'm', '')}{getattr(loss, 'mode', '')}{loss.weight}"


def with_classes(loss: ClassifierLoss, weight: Tensor, bias: Tensor | None = None) -> Any:
    """The loss with these class vectors (C, D)."""
    loss.setup(*weight.shape)
    loss.to(weight.dtype)
    with torch.no_grad():
        loss.classifier.weight.copy_(weight)
        if bias is not None:
            loss.classifier.bias.copy_(bias)
    return loss


def class_vectors_of(cosines: list[float]) -> Tensor:
    """Unit vectors (2, 3) with these cosines to (1, 0, 0)."""
    (a, b) = cosines
    return torch.tensor([[a, math.sqrt(1 - a * a), 0.0], [b, 0.0, math.sqrt(1 - b * b)]])


@pytest.mark.parametrize("row", rows("margin_target"))
def test_margin_target(row: dict[str, Any]) -> None:
    arguments = dict(row["args"])
    cosines = torch.tensor(arguments.pop("cos"))
    close(margin_target(cosines, **arguments), row["expect"]["values"])


MARGINS = {"cosface": CosFaceLoss, "arcface": ArcFaceLoss, "combined_margin": CombinedMarginLoss}


@pytest.mark.parametrize("row", rows(*MARGINS))
def test_margin_losses(row: dict[str, Any]) -> None:
    """Every row by itself, as no class vectors have the cosines of all; and -1 beside it."""
    arguments = dict(row["args"])
    cosines, labels = arguments.pop("cos"), arguments.pop("labels")
    if row["loss"] != "cosface":
        arguments.setdefault("mode", "plain")
    loss, values = MARGINS[row["loss"]](**arguments), []
    for pair, label in zip(cosines, labels, strict=True):
        with_classes(loss, class_vectors_of(pair))
        values.append(loss(torch.tensor([[1.0, 0, 0], [9, 9, 9]]), torch.tensor([label, -1])))
    expected = torch.tensor(row["expect"]["elementwise"])
    torch.testing.assert_close(torch.stack(values).detach(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("row", rows("sphereface"))
def test_sphereface(row: dict[str, Any]) -> None:
    given = row["args"]
    loss = SphereFaceLoss(m=given["m"], base=given["lam"], lambda_min=0.0)
    with_classes(loss, torch.tensor(given["weight"]))
    embeddings, labels = torch.tensor(given["emb"]), torch.tensor(given["labels"])
    close(loss(embeddings, labels), row["expect"]["mean"])
    for k, expected in enumerate(row["expect"]["elementwise"]):
        close(loss(embeddings[k : k + 1], labels[k : k + 1]), expected)


@pytest.mark.parametrize("row", rows("sphereface_lambda"))
def test_annealing_of_sphereface(row: dict[str, Any]) -> None:
    loss, values = SphereFaceLoss(), []
    for step in row["args"]["steps"]:
        loss.updates.fill_(step)
        values.append(loss.annealing())
    close(torch.stack(values), row["expect"]["values"])


def test_annealing_counts_updates_and_is_remembered() -> None:
    torch.manual_seed(0)
    loss = with_classes(SphereFaceLoss(), torch.eye(2))
    for training in (True, False, True):
        loss.train(training)(torch.ones(1, 2), torch.tensor([0]))
    assert loss.updates == 0  # neither batches nor evaluation count
    loss.advance()
    loss.advance()
    assert loss.state_dict()["updates"] == 2
    resumed = with_classes(SphereFaceLoss(), torch.zeros(2, 2))
    resumed.load_state_dict(loss.state_dict())
    x, y = torch.randn(5, 2), torch.tensor([0, 1, 1, 0, -1])
    assert torch.equal(resumed(x, y), loss(x, y))
    assert loss.annealing() == pytest.approx(1000 / 1.24)


def slow_target(cosine: float, loss: CombinedMarginLoss) -> float:
    angle = loss.m1 * math.acos(max(-1.0, min(1.0, cosine))) + loss.m2
    target = math.cos(angle)
    if loss.mode == "easy" and cosine <= 0:
        target = cosine
    if loss.mode == "monotonic" and angle > math.pi:
        target = cosine - loss.m2 * math.sin(loss.m2)
        if loss.m1 != 1:
            k = int(angle / math.pi)
            target = (-1) ** k * math.cos(angle) - 2 * k
    return target - loss.m3


def slow_sphere(cosine: float, loss: SphereFaceLoss) -> float:
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    k = next(k for k in range(loss.m) if angle <= (k + 1) * math.pi / loss.m + 1e-12)
    annealing = max(loss.lambda_min, loss.base)
    psi = (-1) ** k * math.cos(loss.m * angle) - 2 * k
    return (annealing * cosine + psi) / (1 + annealing)


def slow_loss(loss: ClassifierLoss, embeddings: Any, identities: list[int]) -> float:
    """The formula with plain numbers, one embedding after the other."""
    weight = loss.classifier.weight.tolist()
    values = []
    for x, y in zip(embeddings.tolist(), identities, strict=True):
        if y == -1:
            continue
        logits = []
        for j, w in enumerate(weight):
            dot = sum(a * b for a, b in zip(x, w, strict=True))
            if isinstance(loss, IdentityCrossEntropy):
                logits.append(dot + loss.classifier.bias[j].item())
                continue
            length = math.hypot(*x)
            cosine = dot / (length or 1.0) / math.hypot(*w)
            if isinstance(loss, SphereFaceLoss):
                logits.append(length * (slow_sphere(cosine, loss) if j == y else cosine))
            else:
                assert isinstance(loss, CombinedMarginLoss)
                logits.append(loss.scale * (slow_target(cosine, loss) if j == y else cosine))
        top = max(logits)
        logs = [z - top - math.log(sum(math.exp(v - top) for v in logits)) for z in logits]
        e, count = loss.label_smoothing, len(logits)
        values.append(-sum((e / count + (1 - e) * (j == y)) * v for j, v in enumerate(logs)))
    return sum(values) / max(1, len(values))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_against_a_slow_loop(loss: ClassifierLoss, seed: int) -> None:
    torch.manual_seed(seed)
    weight = torch.randn(7, 4, dtype=torch.float64)
    with_classes(loss, weight, torch.randn(7) if loss.bias else None)
    embeddings = 3 * torch.randn(40, 4, dtype=torch.float64)
    embeddings[0], embeddings[1], embeddings[2] = 0.0, 2 * weight[1], -weight[2]
    identities = torch.randint(-1, 7, (40,))
    identities[:4] = torch.tensor([0, 1, 2, -1])
    expected = slow_loss(loss, embeddings, identities.tolist())
    assert loss(embeddings, identities).item() == pytest.approx(expected, rel=1e-9)
    loss.float()
    assert loss(embeddings.float(), identities).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_gradcheck(loss: ClassifierLoss) -> None:
    torch.manual_seed(0)
    with_classes(loss, torch.randn(4, 3, dtype=torch.float64))
    embeddings = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    identities = torch.tensor([0, 1, 3, -1, 2, 2])
    inputs = (embeddings, *loss.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: loss(x, identities), inputs)


@pytest.mark.parametrize("mode", ["monotonic", "plain", "easy"])
@pytest.mark.parametrize(
    "margins", [(1.0, 0.5, 0.0), (1.0, 0.3, 0.2), (2.0, 0.4, 0.1), (1, 0, 0.35)]
)
def test_gradients_of_the_target_are_finite_and_exact(margins: Any, mode: Any) -> None:
    """At the angles 0 and pi, next to them, and on both sides of where m1 t + m2 = pi."""
    m1, m2, _ = margins
    joint = math.cos((math.pi - m2) / m1)
    cosines = [1.0, 1 - 6e-8, 0.999, 0.3, joint + 1e-4, joint - 1e-4, -0.999, -1 + 6e-8, -1.0]
    x = torch.tensor(cosines, requires_grad=True)
    margin_target(x, *margins, mode).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    exact = torch.tensor(cosines[2:7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c: margin_target(c, *margins, mode), exact, eps=1e-7)


@pytest.mark.parametrize("margins", [(1.0, 0.5, 0.0), (0.9, 0.4, 0.15), (2.0, 0.4, 0.1), (4, 0, 0)])
def test_monotonic_targets_fall_with_the_angle(margins: Any) -> None:
    cosines = torch.linspace(0, math.pi, 1000, dtype=torch.float64).cos()
    assert (margin_target(cosines, *margins, mode="monotonic").diff() < 1e-12).all()
    assert (margin_target(cosines, *margins, mode="plain").diff() > 1e-6).any()


@pytest.mark.parametrize("m", [1, 2, 3, 4, 6])
def test_the_multiplied_angle_is_continuous_and_falls(m: int) -> None:
    angles = torch.linspace(0, math.pi, 2001, dtype=torch.float64)
    values = multiplied_angle(angles.cos(), m)
    assert values[0] == 1
    assert values[-1].item() == pytest.approx(1 - 2 * m)
    steps = values.diff()
    assert (steps < 1e-9).all()
    assert steps.abs().max() < 1.01 * m * math.pi / 2000  # its slope is at most m
    torch.testing.assert_close(multiplied_angle(angles.cos(), 1), angles.cos())


def test_an_embedding_at_its_class_vector_and_opposite_of_it() -> None:
    """Two identities on a line, s = 2: logits 2 cos(0.5) and -2; then -2 - 2 * 0.5 sin(0.5), 2."""
    loss = with_classes(ArcFaceLoss(s=2.0), torch.tensor([[3.0, 0.0], [-1.0, 0.0]]))
    for label, own, other in ((0, 2 * math.cos(0.5), -2.0), (1, -2 - math.sin(0.5), 2.0)):
        embeddings = torch.tensor([[5.0, 0.0]], requires_grad=True)
        value = loss(embeddings, torch.tensor([label]))
        value.backward()
        assert value.item() == pytest.approx(math.log1p(math.exp(other - own)), rel=1e-5)
        assert embeddings.grad is not None
        assert embeddings.grad.isfinite().all()


def test_union_of_margins_contains_the_others() -> None:
    torch.manual_seed(0)
    weight, x, y = torch.randn(5, 3), torch.randn(20, 3), torch.randint(-1, 5, (20,))
    pairs = [
        (ArcFaceLoss(s=9.0, m=0.3), CombinedMarginLoss(s=9.0, m1=1, m2=0.3, m3=0)),
        (CosFaceLoss(s=9.0, m=0.2), CombinedMarginLoss(s=9.0, m1=1, m2=0, m3=0.2)),
    ]
    for loss, union in pairs:
        with_classes(loss, weight)
        with_classes(union, weight)
        torch.testing.assert_close(loss(x, y), union(x, y))


def test_the_default_scale_follows_the_number_of_identities() -> None:
    for count in (200, 1000, 90_000):
        assert default_scale(count) == math.sqrt(2) * math.log(count - 1)
    loss = CosFaceLoss()
    loss.setup(1000, 8)
    assert loss.scale == pytest.approx(math.sqrt(2) * math.log(999))
    for count in (2, 3, 10, 100):  # there the formula is too small: 0 for two identities
        assert attainable_probability(default_scale(count), count) == pytest.approx(0.9)
    assert default_scale(1) > 0


def test_the_attainable_probability() -> None:
    # three class vectors in a plane, 120 degrees apart: e^2 / (e^2 + 2 e^-1)
    expected = math.exp(2) / (math.exp(2) + 2 * math.exp(-1))
    assert attainable_probability(2.0, 3) == pytest.approx(expected)
    angles = torch.tensor([0.0, 2 / 3, 4 / 3]) * math.pi
    weight = torch.stack([angles.cos(), angles.sin()], 1)
    loss = with_classes(CosFaceLoss(s=2.0, m=0.0), weight)
    assert loss(5 * weight, torch.arange(3)).item() == pytest.approx(-math.log(expected))
    assert attainable_probability(smallest_scale(92), 92) == pytest.approx(0.9)


def test_a_scale_that_is_too_small_is_reported_in_one_line() -> None:
    loss = ArcFaceLoss(s=4.0)
    loss.setup(92, 8)
    (line,) = loss.report()
    assert "ArcFaceLoss: with s 4 even a perfect answer among 92 identities" in line
    assert "probability 0.39" in line  # 1 / (1 + 91 exp(-4 * 92 / 91))
    assert "s 6.7 or more" in line
    for quiet in (ArcFaceLoss(), ArcFaceLoss(s=30.0), IdentityCrossEntropy()):
        quiet.setup(92, 8)
        assert quiet.report() == []


def test_the_chance_level_is_the_loss_of_equal_logits() -> None:
    for smoothing in (0.0, 0.1):
        loss = with_classes(IdentityCrossEntropy(smoothing), torch.zeros(9, 4), torch.zeros(9))
        value = loss(torch.randn(5, 4), torch.arange(5))
        assert value.item() == pytest.approx(loss.chance_level) == pytest.approx(math.log(9))


def test_half_precision_keeps_the_margin() -> None:
    """In bfloat16 a logit of 50 has steps of 0.25: everything is computed in float32."""
    torch.manual_seed(0)
    loss = with_classes(ArcFaceLoss(s=64.0), torch.randn(9, 16).bfloat16())
    x, y = torch.randn(30, 16).bfloat16(), torch.randint(0, 9, (30,))
    exact = with_classes(ArcFaceLoss(s=64.0), loss.classifier.weight.detach().float())
    assert torch.equal(loss(x, y), exact(x.float(), y))


def test_initial_class_vectors_change_no_later_draw() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    ArcFaceLoss().setup(10, 4)
    assert torch.equal(torch.rand(3), expected)


def test_a_net_that_learned_the_opposite_is_named() -> None:
    """The mean cosine with the own class vector leaves out who has no identity."""
    loss = ArcFaceLoss()
    loss.setup(3, 8)
    own = loss.classifier.weight.detach()[[0, 1, 2, 0]]
    identities = torch.tensor([0, 1, 2, -1])
    for sign, told in ((1.0, False), (-1.0, True)):
        loss(2 * sign * own, identities)
        figures = {name: value.item() for name, value in loss.figures().items()}
        assert figures["ArcFaceLoss_cosine"] == pytest.approx(sign)
        assert (loss.explain(figures) is not None) == told
    assert loss.explain({"ArcFaceLoss_cosine": math.nan}) is None  # another failure
    assert "ArcFaceLoss: the mean cosine with the own class vector is -1.00" in str(
        loss.explain(figures)
    )
