"""A fair comparison gives every method a learning rate and a loss weight of its own.

They are chosen by short searches on images set apart from the training split, before the validation
split is looked at.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detector.ablation.cells import Outcome
from detector.ablation.grid import Axis, Cell, Shared, flatten, make_cell, make_cells, point_name
from detector.config.errors import UserError
from detector.config.signatures import CONTRACTS

RATES, WEIGHTS = (0.25, 0.5, 1.0, 2.0), (0.5, 1.0, 2.0)  # factors of what is configured
HOLDOUT = 0.2


def tuned_keys(axes: Sequence[Axis]) -> list[str]:
    """What is tuned: the learning rate, and the weight of the losses that are compared. Of two
    losses only one weight, as the learning rate scales both."""
    varied = [axis.key for axis in axes]
    keys = ["optimizer.lr", *[f"{slot}.weight" for slot in CONTRACTS if slot in varied][:1]]
    for key in keys:
        if key in varied:
            raise UserError(f"--tune chooses {key}, which is an axis: leave out one of them")
    return keys


def make_candidates(shared: Shared, axes: Sequence[Axis], seed: int, out: Path) -> list[Cell]:
    """The cells of the search: of every point one for each combination of rate and weight."""
    keys = tuned_keys(axes)
    shared = shared._replace(overrides={**shared.overrides, "data.holdout": HOLDOUT})
    cells = []
    for base in make_cells(shared, axes, [seed], out):
        configured = flatten(base.config)
        scales = [
            [float(f"{configured[key] * factor:.4g}") for factor in factors]
            for key, factors in zip(keys, (RATES, WEIGHTS), strict=False)
        ]
        for number, values in enumerate(itertools.product(*scales)):
            run = out / "cells" / f"{point_name(base.point)}_try{number}"
            tuned = dict(zip(keys, values, strict=True))
            cells.append(make_cell(shared, axes, base.point, seed, run, tuned))
    return cells


def choose(
    cells: Sequence[Cell], outcomes: Mapping[str, Outcome]
) -> tuple[dict[str, dict[str, Any]], list[list[str]]]:
    """For every point (its name) what its candidate with the highest AP was given; a table of all.

    `outcomes`: name of a cell -> its outcome. UserError for a point of which no candidate is done.
    """
    best: dict[str, Cell] = {}
    rows: list[list[str]] = []
    for cell in cells:
        point, (state, reason, result) = point_name(cell.point), outcomes[cell.name]
        values = [f"{value:.4g}" for value in cell.tuned.values()]
        ended = f"{result['AP']:.3f}" if state == "done" else f"{state} {reason}"
        rows.append([point, *values, ended])
        leader = outcomes[best.setdefault(point, cell).name].result
        if result.get("AP", -1.0) > leader.get("AP", -1.0):
            best[point] = cell
    for point, cell in best.items():
        if outcomes[cell.name].state != "done":
            raise UserError(f"no candidate of {point} could be trained, see the logs of its cells")
    return {point: cell.tuned for point, cell in best.items()}, rows
