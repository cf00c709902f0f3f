"""Axes -> points -> cells, and that these differ in nothing but the axes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from detector.ablation.grid import (
    Axis,
    Shared,
    check_fairness,
    differences,
    make_axis,
    make_cells,
    point_name,
)
from detector.config.errors import UserError
from detector.config.signatures import library_losses


def grid(tiny: list[str], out: Path, *axes: Axis, seeds: Sequence[int] = (0,), **more: Any) -> Any:
    """The cells of some axes over the flags of the shortest training."""
    _, file, _, root = tiny
    return make_cells(Shared([file], {"data.root": root, **more}), axes, seeds, out)


def losses(*names: str) -> Axis:
    return Axis("model.class_loss", {name: name for name in names})


def test_a_grid_is_every_combination_with_every_seed(tiny: list[str], tmp_path: Path) -> None:
    axes = [
        make_axis("model.class_loss", ["FocalLoss", "{name: FocalLoss, gamma: 1}"]),
        make_axis("data.label_noise", ["0", "0.2"]),
    ]
    cells = grid(tiny, tmp_path, *axes, seeds=[0, 3])
    assert [cell.name for cell in cells[:4]] == [
        "FocalLoss_label_noise-0_seed0",
        "FocalLoss_label_noise-0.2_seed0",
        "FocalLoss-gamma-1_label_noise-0_seed0",
        "FocalLoss-gamma-1_label_noise-0.2_seed0",
    ]
    assert len(cells) == 8
    last = cells[-1]
    assert last.point == {"model.class_loss": "FocalLoss(gamma=1)", "data.label_noise": "0.2"}
    assert last.config["seed"] == 3
    assert last.config["model"]["class_loss"]["gamma"] == 1
    assert last.config["data"]["label_noise"] == 0.2
    assert last.config["run"] == str(tmp_path / "cells" / last.name)


def test_all_cells_have_one_precision(tiny: list[str], tmp_path: Path) -> None:
    """Left to the devices, as overlays for single runs leave it, it is float32 on all of them."""
    cells = grid(tiny, tmp_path, losses("FocalLoss", "GHMC"), **{"trainer.precision": "auto"})
    assert {cell.config["trainer"]["precision"] for cell in cells} == {"32-true"}
    assert check_fairness(cells, [c.config for c in cells])[-1] == "and compute in 32-true"
    cells = grid(tiny, tmp_path, make_axis("trainer.precision", ["auto", "bf16-mixed"]))
    with pytest.raises(UserError, match="precision auto: cells on different devices could"):
        check_fairness(cells, [cell.config for cell in cells])
    cells = grid(tiny, tmp_path, make_axis("trainer.precision", ["32-true", "bf16-mixed"]))
    assert "compute in" not in " ".join(check_fairness(cells, [c.config for c in cells]))


def test_arguments_of_a_loss_can_be_an_axis(tiny: list[str], tmp_path: Path) -> None:
    axis = Axis("model.class_loss.gamma", {"0": 0, "2": 2})
    cells = grid(tiny, tmp_path, axis)
    assert [cell.config["model"]["class_loss"]["gamma"] for cell in cells] == [0, 2]
    assert point_name(cells[1].point) == "gamma-2"


def test_cells_differ_in_nothing_but_the_axes(tiny: list[str], tmp_path: Path) -> None:
    cells = grid(tiny, tmp_path, losses("FocalLoss", "GHMC"), seeds=[0, 1])
    configs = [cell.config for cell in cells]
    text = "\n".join(check_fairness(cells, configs))
    assert "model.class_loss: FocalLoss, GHMC" in text
    assert "gamma 2.0" in text
    assert "seed: 0, 1" in text
    focal, ghm = (library_losses("model.class_loss")[name] for name in ("FocalLoss", "GHMC"))
    arguments = {"name", *focal, *ghm} - {"weight"}  # both have the same weight
    assert {"gamma", "bins"} <= arguments
    assert set(differences(configs[:2])) == {
        "run",
        *(f"model.class_loss.{argument}" for argument in arguments),
    }
    other = json.loads(json.dumps(configs))
    other[2]["optimizer"]["lr"] = 5.0
    with pytest.raises(UserError, match=r"also differ in optimizer.lr \(0.01, 5.0\), which is no"):
        check_fairness(cells, other)
    assert "optimizer.lr: 0.01, 5.0 (tuned)" in "\n".join(
        check_fairness(cells, other, ["optimizer.lr"])
    )
