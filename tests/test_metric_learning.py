"""Triplet and center loss: by hand, against slow loops, and what center loss remembers."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from losses import CenterLoss, TripletLoss
from tests.test_expected import close, rows

LOSSES = [
    TripletLoss(mining=mining, squared=squared, reduction=reduction, margin=margin)  # type: ignore[arg-type]
    for mining in ("hard", "all")
    for squared in (True, False)
    for reduction, margin in (("mean", 0.2), ("nonzero", 0.6))
]


def name(loss: TripletLoss) -> str:
    return f"{loss.mining}-{'squared' if loss.squared else 'distance'}-{loss.reduction}"


@pytest.mark.parametrize("row", rows("triplet"))
def test_triplets_one_by_one(row: dict[str, Any]) -> None:
    """The row's anchor only: its positive is an anchor with a triplet of its own."""
    given = row["args"]
    loss = TripletLoss(given.get("margin", 0.2), normalized=given.get("normalize", True))
    for k, expected in enumerate(row["expect"]["elementwise"]):
        a, p, n = (torch.tensor(given[key][k]) for key in ("anchor", "positive", "negative"))
        distances = torch.stack([(a - other).square().sum() for other in (a, p, n)])[None]
        positive, negative = torch.tensor([[[0, 1, 0]], [[0, 0, 1]]]).bool()
        for triplets_of in (loss.hard_triplets, loss.all_triplets):
            close(triplets_of(distances, positive, negative)[0], expected)
        # both anchors of the batch a, p, n, of which a and p are of one identity
        if (a - n).square().sum() == (p - n).square().sum():
            close(loss(torch.stack([a, p, n]), torch.tensor([4, 4, 1])), expected)


@pytest.mark.parametrize("row", rows("triplet_batch_hard"))
def test_batch_hard(row: dict[str, Any]) -> None:
    given, expect = row["args"], row["expect"]
    loss = TripletLoss(given["margin"], normalized=given["normalize"])
    close(loss(torch.tensor(given["emb"]), torch.tensor(given["labels"])), expect["mean"])
    share = sum(x > 0 for x in expect["elementwise"]) / max(1, sum(expect["counts"]))
    assert loss.active_share == share


@pytest.mark.parametrize("row", rows("triplet_batch_all"))
@pytest.mark.parametrize("reduction", ["mean", "nonzero"])
def test_batch_all(row: dict[str, Any], reduction: Any) -> None:
    given, expect = row["args"], row["expect"]
    loss = TripletLoss(given["margin"], "all", reduction=reduction, normalized=given["normalize"])
    value = loss(torch.tensor(given["emb"]), torch.tensor(given["labels"]))
    close(value, expect["mean_all" if reduction == "mean" else "mean_nonzero"])
    assert loss.active_share == expect["n_nonzero"] / expect["n"]


def slow_triplets(loss: TripletLoss, embeddings: list[list[float]], identities: list[int]) -> float:
    """Every triplet in three nested loops."""

    def distance(i: int, j: int) -> float:
        a, b = (
            [x / (math.hypot(*row) or 1.0) for x in row] for row in (embeddings[i], embeddings[j])
        )
        square = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
        return square if loss.squared else math.sqrt(square)

    values = []
    for a, identity in enumerate(identities):
        if identity == -1:
            continue
        of_anchor = [
            (distance(a, p), distance(a, n))
            for p, other in enumerate(identities)
            for n, third in enumerate(identities)
            if p != a and other == identity and third not in (identity, -1)
        ]
        if of_anchor and loss.mining == "hard":
            of_anchor = [(max(p for p, _ in of_anchor), min(n for _, n in of_anchor))]
        values += [max(0.0, p - n + loss.margin) for p, n in of_anchor]
    if loss.reduction == "nonzero":
        values = [value for value in values if value > 0]
    return sum(values) / max(1, len(values))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_triplets_against_slow_loops(loss: TripletLoss, seed: int) -> None:
    torch.manual_seed(seed)
    embeddings = torch.randn(24, 4, dtype=torch.float64)
    identities = torch.randint(-1, 5, (24,))
    embeddings[3], embeddings[4], embeddings[5] = 0.0, embeddings[6], embeddings[7]
    identities[4], identities[6] = 2, 2  # duplicates of one identity, and of two
    identities[5], identities[7] = 1, 3
    identities[9] = 77  # the only one of its identity
    expected = slow_triplets(loss, embeddings.tolist(), identities.tolist())
    assert expected > 0
    assert loss(embeddings, identities).item() == pytest.approx(expected, rel=1e-9)
    assert loss(embeddings.float(), identities).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_triplet_gradcheck(loss: TripletLoss) -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    identities = torch.tensor([0, 1, 0, -1, 1, 2, 0, 5])
    assert torch.autograd.gradcheck(lambda x: loss(x, identities), embeddings)


@pytest.mark.parametrize("loss", LOSSES, ids=name)
@pytest.mark.parametrize("identities", [[0, 0, 0, 0], [0, 1, 2, 3], [0, -1, 1, -1]])
def test_without_a_triplet_the_loss_is_zero(loss: TripletLoss, identities: list[int]) -> None:
    """One identity only; one embedding of each; the same with objects of no identity between."""
    embeddings = torch.randn(4, 3, requires_grad=True)
    value = loss(embeddings, torch.tensor(identities))
    value.backward()
    assert value == 0
    assert embeddings.grad is not None
    assert (embeddings.grad == 0).all()
    assert loss.active_share == 0


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_a_collapsed_batch_costs_the_margin(loss: TripletLoss) -> None:
    """All embeddings equal: every triplet is active, and no gradient is NaN."""
    embeddings = torch.full((6, 3), 0.3, requires_grad=True)
    value = loss(embeddings, torch.tensor([0, 0, 1, 1, 2, -1]))
    value.backward()
    assert value.item() == pytest.approx(loss.margin)
    assert loss.active_share == 1
    assert embeddings.grad is not None
    assert (embeddings.grad == 0).all()


def test_only_a_margin_tells_of_a_collapse() -> None:
    """Without one the loss is 0, too, where all is learned; and nan is another failure."""
    assert TripletLoss(margin=0.2).explain({"TripletLoss": 0.2})
    for margin, value in ((0.2, 0.1), (0.2, math.nan), (0.0, 0.0)):
        assert TripletLoss(margin).explain({"TripletLoss": value}) is None


def test_active_share() -> None:
    # on a circle, identity 0 at 0 and 90 degrees, 1 at 180: squared distances 2 (positive), 4, 2
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    for mining in ("hard", "all"):
        loss = TripletLoss(mining=mining)  # type: ignore[arg-type]
        value = loss(embeddings, torch.tensor([0, 0, 1]))
        assert value.item() == pytest.approx(0.2 / 2)  # 2 - 4 + 0.2 < 0, 2 - 2 + 0.2
        assert loss.active_share == 0.5


def with_centers(centers: Any, **options: Any) -> CenterLoss:
    loss, centers = CenterLoss(**options), torch.tensor(centers)
    loss.setup(*centers.shape)
    loss.centers.copy_(centers)
    return loss


@pytest.mark.parametrize("row", rows("center"))
def test_center(row: dict[str, Any]) -> None:
    given, expect = row["args"], row["expect"]
    loss = with_centers(given["centers"]).eval()
    embeddings, labels = torch.tensor(given["emb"]), torch.tensor(given["labels"])
    close(loss(embeddings, labels), expect["mean"])
    for k, expected in enumerate(expect["elementwise"]):
        close(loss(embeddings[k : k + 1], labels[k : k + 1]), expected)


@pytest.mark.parametrize("row", rows("center_update"))
def test_centers_move(row: dict[str, Any]) -> None:
    given = row["args"]
    loss = with_centers(given["centers"], alpha=given["alpha"])
    loss(torch.tensor(given["emb"]), torch.tensor(given["labels"]))
    close(loss.centers, row["expect"]["centers"])


def slow_center(
    embeddings: list[list[float]], identities: list[int], centers: list[list[float]], alpha: float
) -> tuple[float, list[list[float]]]:
    """The loss, and the centers afterwards."""
    values, moved = [], []
    for x, y in zip(embeddings, identities, strict=True):
        if y >= 0:
            values.append(sum((a - b) ** 2 for a, b in zip(x, centers[y], strict=True)) / 2)
    for j, center in enumerate(centers):
        own = [x for x, y in zip(embeddings, identities, strict=True) if y == j]
        pulls = [sum(c - x[d] for x in own) / (1 + len(own)) for d, c in enumerate(center)]
        moved.append([c - alpha * pull for c, pull in zip(center, pulls, strict=True)])
    return sum(values) / max(1, len(values)), moved


@pytest.mark.parametrize("seed", range(3))
def test_center_against_a_slow_loop(seed: int) -> None:
    torch.manual_seed(seed)
    centers = torch.randn(6, 4, dtype=torch.float64)
    loss = with_centers(centers.float().tolist(), alpha=0.7)
    centers = loss.centers.double()
    embeddings, identities = torch.randn(30, 4, dtype=torch.float64), torch.randint(-1, 5, (30,))
    expected, moved = slow_center(embeddings.tolist(), identities.tolist(), centers.tolist(), 0.7)
    assert loss(embeddings, identities).item() == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(loss.centers, torch.tensor(moved))
    assert torch.equal(loss.centers[5], centers[5].float())  # without an embedding


def test_center_gradcheck() -> None:
    torch.manual_seed(0)
    loss = with_centers(torch.randn(4, 3).tolist()).eval()
    embeddings = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    identities = torch.tensor([0, 1, -1, 3, 3])
    assert torch.autograd.gradcheck(lambda x: loss(x, identities), embeddings)


def test_centers_stay_in_evaluation_and_are_remembered() -> None:
    loss = with_centers([[0.0, 0.0], [1.0, 1.0]])
    before = loss.centers.clone()
    x, y = torch.tensor([[4.0, 2.0]]), torch.tensor([0])
    loss.eval()(x, y)
    assert torch.equal(loss.centers, before)
    loss.train()(x, torch.tensor([-1]))
    assert torch.equal(loss.centers, before)
    loss(x, y)
    assert loss.centers.tolist() == [[1.0, 0.5], [1.0, 1.0]]  # 0 - 0.5 (0 - 4) / (1 + 1)
    resumed = with_centers([[9.0, 9.0], [9.0, 9.0]])
    resumed.load_state_dict(loss.state_dict())
    assert torch.equal(resumed(x, y), loss(x, y))
    assert torch.equal(resumed.centers, loss.centers)


def test_centers_move_after_the_loss_and_have_no_gradient() -> None:
    loss = with_centers([[0.0]], alpha=1.0)
    embeddings = torch.tensor([[2.0], [4.0]], requires_grad=True)
    value = loss(embeddings, torch.tensor([0, 0]))
    value.backward()
    assert value == (4 / 2 + 16 / 2) / 2
    assert embeddings.grad is not None
    assert embeddings.grad.flatten().tolist() == [1.0, 2.0]  # (x - c) / 2, with the center before
    assert loss.centers.item() == 2.0  # 0 - (-6) / (1 + 2)
    assert not list(loss.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_centers_are_float32_in_half_a_net(dtype: torch.dtype) -> None:
    loss = with_centers([[1.0, 2.0], [3.0, 4.0]]).to(dtype)
    assert loss.centers.dtype == torch.float32
    for _ in range(20):
        value = loss(torch.full((1, 2), 1.0078125, dtype=dtype), torch.tensor([0]))
    assert value.dtype == torch.float32
    # a quarter of the way is left undone each time: 1 + 2^-7 in the end, from both sides
    torch.testing.assert_close(loss.centers[0], torch.full((2,), 1.0078125), atol=4e-3, rtol=0)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_bad_step_is_not_remembered(value: float) -> None:
    loss = with_centers([[1.0, 1.0], [2.0, 2.0]])
    loss(torch.tensor([[value, 0.0], [4.0, 4.0]]), torch.tensor([0, 1]))
    assert loss.centers.tolist() == [[1.0, 1.0], [2.5, 2.5]]


def test_identical_embeddings_have_distance_zero_in_float32() -> None:
    """Matrix products would leave 1e-3."""
    torch.manual_seed(0)
    x: Tensor = torch.randn(1, 128).expand(40, 128)
    loss = TripletLoss(margin=0.0, squared=False)
    assert loss(x, torch.arange(40) % 4) == 0
