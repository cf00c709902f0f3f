"""Learning rate and loss weight of every point: what is tried, and what is chosen."""

from pathlib import Path

import pytest

from detector.ablation.cells import Outcome
from detector.ablation.grid import Axis, Cell, Shared
from detector.ablation.tuning import (
    choose,
    describe_choice,
    make_candidates,
    search_metric,
    tuned_keys,
    unsettled,
    widen,
)
from detector.config.errors import UserError

LOSSES = Axis("model.class_loss", {"FocalLoss": "FocalLoss", "GHMC": "GHMC"})
NORMS = Axis("model.norm", {"group": "group", "batch": "batch"})


def test_every_point_tries_rates_and_weights_around_what_is_configured(tmp_path: Path) -> None:
    shared = Shared([], {"optimizer.lr": 0.04, "model.class_loss.weight": 3})
    cells = make_candidates(shared, [LOSSES], 7, tmp_path)
    assert [cell.name for cell in cells][:2] == ["FocalLoss_try0", "FocalLoss_try1"]
    assert len(cells) == 2 * 4 * 3
    tried = [(c.tuned["optimizer.lr"], c.tuned["model.class_loss.weight"]) for c in cells[:12]]
    assert tried == [(lr, w) for lr in (0.04, 0.02, 0.08, 0.01) for w in (3.0, 1.5, 6.0)]
    for cell in cells:
        assert cell.config["optimizer"]["lr"] == cell.tuned["optimizer.lr"]
        loss = cell.config["model"]["class_loss"]
        assert loss["name"] == cell.point["model.class_loss"]
        assert loss["weight"] == cell.tuned["model.class_loss.weight"]
        assert cell.config["data"]["holdout"] == 0.2
        assert cell.config["seed"] == 7
        assert cell.config["run"] == str(tmp_path / "cells" / cell.name)


def test_a_weight_that_a_loss_names_itself_is_what_is_varied_around(tmp_path: Path) -> None:
    axis = Axis("model.class_loss", {"GHMC(weight=2)": {"name": "GHMC", "weight": 2, "bins": 7}})
    cells = make_candidates(Shared([], {}), [axis], 0, tmp_path)
    assert {cell.config["model"]["class_loss"]["weight"] for cell in cells} == {1, 2, 4}
    assert {cell.config["model"]["class_loss"]["bins"] for cell in cells} == {7}


def test_only_the_rate_is_tuned_where_no_loss_is_varied(tmp_path: Path) -> None:
    assert tuned_keys([NORMS]) == ["optimizer.lr"]
    cells = make_candidates(Shared([], {}), [NORMS], 0, tmp_path)
    assert [cell.tuned for cell in cells[:4]] == [
        {"optimizer.lr": rate} for rate in (0.01, 0.005, 0.02, 0.0025)
    ]
    both = [LOSSES, Axis("model.box_loss", {"L1Loss": "L1Loss"})]
    assert tuned_keys(both) == ["optimizer.lr", "model.class_loss.weight"]
    with pytest.raises(UserError, match=r"--tune chooses optimizer\.lr, which is an axis"):
        tuned_keys([Axis("optimizer.lr", {"1": 1})])


@pytest.mark.parametrize(
    ("keys", "tuned"),
    [
        (["model.class_loss.gamma"], ["optimizer.lr", "model.class_loss.weight"]),
        (["model.class_loss.weight"], ["optimizer.lr"]),
        (["model.class_loss", "model.class_loss.weight"], ["optimizer.lr"]),
        (["data.label_noise", "model.box_loss.beta"], ["optimizer.lr", "model.box_loss.weight"]),
    ],
)
def test_an_argument_of_a_loss_makes_it_another_one(keys: list[str], tuned: list[str]) -> None:
    """gamma changes the size of the gradient; a weight that is compared is not tuned."""
    assert tuned_keys([Axis(key, {"1": 1}) for key in keys]) == tuned


def candidates(point: str, rates: list[float]) -> list[Cell]:
    return [
        Cell(f"{point}_try{k}", {"model.class_loss": point}, 0, {}, {"optimizer.lr": rate})
        for k, rate in enumerate(rates)
    ]


def test_the_highest_precision_is_chosen_for_each_point() -> None:
    cells = candidates("FocalLoss", [0.1, 0.2, 0.3]) + candidates("GHMC", [0.1, 0.2])
    outcomes = {
        "FocalLoss_try0": Outcome("failed", "not finite"),
        "FocalLoss_try1": Outcome("done", "", {"AP": 0.4}),
        "FocalLoss_try2": Outcome("done", "", {"AP": 0.5}),
        "GHMC_try0": Outcome("done", "", {"AP": 0.3}),
        "GHMC_try1": Outcome("done", "", {"AP": 0.3}),  # of equal ones the first
    }
    chosen, rows = choose(cells, outcomes, "AP")
    assert chosen == {"FocalLoss": {"optimizer.lr": 0.3}, "GHMC": {"optimizer.lr": 0.1}}
    assert rows[0] == ["FocalLoss", "0.1", "failed not finite", ""]
    assert rows[2] == ["FocalLoss", "0.3", "0.500", "chosen"]
    assert [row[-1] for row in rows[3:]] == ["chosen", ""]


def search_on(shared: Shared, precision: dict[tuple[float, float], float], out: Path) -> list[Cell]:
    """All cells of a search for focal loss alone. `precision`: (rate, weight) -> AP, else 0."""
    axis = Axis("model.class_loss", {"FocalLoss": "FocalLoss"})
    cells: list[Cell] = []
    further = make_candidates(shared, [axis], 0, out)
    while further:
        cells += further
        reached = {cell.name: precision.get(tuple(cell.tuned.values()), 0.0) for cell in cells}
        outcomes = {
            name: Outcome("done", "", {"AP": value})
            if value >= 0
            else Outcome("failed", "diverged")
            for name, value in reached.items()
        }
        further = widen(shared, [axis], cells, outcomes, "AP")
    return cells


@pytest.mark.parametrize(
    ("precision", "beyond"),
    [
        ({(0.04, 1.0): 0.3}, []),  # between worse ones
        ({(0.04, 0.5): 0.3}, [(0.04, 0.25)]),
        ({(0.08, 0.5): 0.3}, [(0.16, 0.5), (0.08, 0.25)]),
        ({(0.08, 1.0): 0.3, (0.16, 1.0): -1}, [(0.16, 1.0)]),  # diverged: no answer, no way
        # a better one beyond is walked to, and on from it
        (
            {(0.08, 1.0): 0.3, (0.16, 1.0): 0.4},
            [(0.16, 1.0), (0.32, 1.0), (0.16, 2.0), (0.16, 0.5)],
        ),
    ],
)
def test_a_best_at_an_end_is_searched_on_from(
    precision: dict[tuple[float, float], float], beyond: list[tuple[float, float]], tmp_path: Path
) -> None:
    cells = search_on(Shared([], {"optimizer.lr": 0.04}), precision, tmp_path)
    assert [tuple(cell.tuned.values()) for cell in cells[12:]] == beyond
    assert [cell.name for cell in cells] == [f"FocalLoss_try{k}" for k in range(len(cells))]
    for cell in cells:
        assert cell.config["optimizer"]["lr"] == cell.tuned["optimizer.lr"]
        assert cell.config["data"]["holdout"] == 0.2
        assert cell.config["run"] == str(tmp_path / "cells" / cell.name)


def test_the_search_does_not_leave_for_infinity(tmp_path: Path) -> None:
    rates = {(float(f"{0.01 * 2**k:.4g}"), 1.0): 0.1 + 0.01 * k for k in range(30)}
    cells = search_on(Shared([], {"optimizer.lr": 0.01}), rates, tmp_path)
    assert max(cell.tuned["optimizer.lr"] for cell in cells) == 0.16
    # nor in steps that rounding alone makes: 0.0003333 / 2 * 2 is not 0.0003333
    third = {(0.0003333, 1.0): 0.1, (0.0001666, 1.0): 0.2, (0.0001667, 1.0): 0.2}
    assert len(search_on(Shared([], {"optimizer.lr": 0.0003333}), third, tmp_path)) == 12


def test_embedding_losses_are_tuned_for_recognition() -> None:
    """A net whose head is off has AP alone."""
    heads = Axis("model.embedding_loss", {"ArcFaceLoss": "ArcFaceLoss", "none": []})
    assert (search_metric([heads]), search_metric([LOSSES])) == ("identity/mAP", "AP")
    cells = candidates("ArcFaceLoss", [0.1, 0.2]) + candidates("none", [0.1, 0.2])
    figures = [{"AP": 0.5, "identity/mAP": 0.1}, {"AP": 0.4, "identity/mAP": 0.2}]
    figures += [{"AP": 0.3}, {"AP": 0.6}]
    outcomes = {
        cell.name: Outcome("done", "", figure) for cell, figure in zip(cells, figures, strict=True)
    }
    chosen, rows = choose(cells, outcomes, "identity/mAP")
    assert chosen == {"ArcFaceLoss": {"optimizer.lr": 0.2}, "none": {"optimizer.lr": 0.2}}
    assert [row[2] for row in rows] == ["0.100", "0.200", "0.300", "0.600"]


def test_a_search_that_is_over_stays_over() -> None:
    """A candidate that diverged is an answer; another choice would be another ablation."""
    cells = candidates("A", [0.1, 0.2]) + candidates("B", [0.1, 0.2]) + candidates("C", [0.1, 0.2])
    done, failed, waiting = Outcome("done"), Outcome("failed"), Outcome("not yet run")
    states = [failed, done, failed, waiting, failed, failed]
    outcomes = {cell.name: state for cell, state in zip(cells, states, strict=True)}
    assert unsettled(cells, outcomes) == cells[2:]


def test_a_choice_at_the_end_of_what_was_tried_says_so() -> None:
    cells = candidates("FocalLoss", [0.1, 0.2, 0.3]) + candidates("GHMC", [0.1, 0.2, 0.3])
    chosen = {"FocalLoss": {"optimizer.lr": 0.3}, "GHMC": {"optimizer.lr": 0.2}}
    assert describe_choice(cells, chosen) == [
        "chosen for FocalLoss: optimizer.lr 0.3",
        "  its optimizer.lr is the highest that was tried: better may lie beyond",
        "chosen for GHMC: optimizer.lr 0.2",
    ]


def test_a_point_of_which_nothing_could_be_trained_is_an_error() -> None:
    cells = candidates("FocalLoss", [0.1, 0.2])
    outcomes = {cell.name: Outcome("failed", "out of memory") for cell in cells}
    with pytest.raises(UserError, match="no candidate of FocalLoss could be trained"):
        choose(cells, outcomes, "AP")


def test_images_set_apart_that_show_no_identity_twice_cannot_choose() -> None:
    cells = candidates("ArcFaceLoss", [0.1])
    outcomes = {cells[0].name: Outcome("done", "", {"AP": 0.5, "identity/mAP": None})}
    with pytest.raises(UserError, match=r"ArcFaceLoss_try0 has no identity/mAP.*leave out --tune"):
        choose(cells, outcomes, "identity/mAP")
