"""A fair comparison gives every method a learning rate and a loss weight of its own.

They are chosen by short searches on images set apart from the training split, before the validation
split is looked at: a grid around what is configured, then on from its best while that leads uphill.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detector.ablation.cells import Outcome
from detector.ablation.grid import (
    Axis,
    Cell,
    Shared,
    belongs,
    flatten,
    make_cell,
    make_cells,
    point_name,
)
from detector.config.errors import UserError
from detector.config.signatures import CONTRACTS

# Factors of what is configured; that itself is first, so that it stays where nothing is better
RATES, WEIGHTS = (1.0, 0.5, 2.0, 0.25), (1.0, 0.5, 2.0)
FARTHEST = 16.0  # no value is tried that is more than this many times what is configured, or less
HOLDOUT = 0.2


def tuned_keys(axes: Sequence[Axis]) -> list[str]:
    """What is tuned: the learning rate, and the weight of the losses that are compared, whole ones
    or an argument of them. Of two losses only one weight, as the learning rate scales both."""
    varied = [axis.key for axis in axes]
    if "optimizer.lr" in varied:
        raise UserError("--tune chooses optimizer.lr, which is an axis: leave out one of them")
    compared = [slot for slot in CONTRACTS if any(belongs(key, slot) for key in varied)]
    weights = [f"{slot}.weight" for slot in compared]
    return ["optimizer.lr", *[key for key in weights if key not in varied][:1]]


def search_metric(axes: Sequence[Axis]) -> str:
    """What the search maximizes: a learning rate for embedding losses is one that recognizes well.
    It does not depend on --metric, so that other tables of the same cells can be had."""
    of_embedding = any(belongs(axis.key, "model.embedding_loss") for axis in axes)
    return "identity/mAP" if of_embedding else "AP"


def make_candidates(shared: Shared, axes: Sequence[Axis], seed: int, out: Path) -> list[Cell]:
    """The cells of the search: of every point one for each combination of rate and weight."""
    keys = tuned_keys(axes)
    shared = _set_apart(shared)
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


def widen(
    shared: Shared,
    axes: Sequence[Axis],
    cells: Sequence[Cell],
    outcomes: Mapping[str, Outcome],
    metric: str,
) -> list[Cell]:
    """What to try next: of every point those neighbors of its best, half and twice each value,
    that were not tried and are not too far. [] once the best of each lies between worse ones."""
    further = []
    for name, best in choose(cells, outcomes, metric)[0].items():
        own = [cell for cell in cells if point_name(cell.point) == name]
        first = own[0]  # has what is configured
        for key, factor in itertools.product(best, (2.0, 0.5)):
            values = {**best, key: float(f"{best[key] * factor:.4g}")}
            distance = abs(math.log(values[key] / first.tuned[key])) if values[key] else 0.0
            if distance < math.log(1.1 * FARTHEST) and not any(
                _are_alike(values, cell.tuned) for cell in own
            ):
                run = Path(first.config["run"]).with_name(f"{name}_try{len(own)}")
                own.append(
                    make_cell(_set_apart(shared), axes, first.point, first.seed, run, values)
                )
                further.append(own[-1])
    return further


def _set_apart(shared: Shared) -> Shared:
    """Trained and evaluated on the training split alone."""
    return shared._replace(overrides={**shared.overrides, "data.holdout": HOLDOUT})


def _are_alike(values: Mapping[str, float], others: Mapping[str, float]) -> bool:
    """Whether two candidates differ in nothing but rounding."""
    return all(math.isclose(values[key], others[key], rel_tol=0.01) for key in values)


def unsettled(cells: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> list[Cell]:
    """The cells of points whose search is not over. Of the others a candidate that failed is not
    tried again: another choice would not fit the cells that were trained with this one."""
    states: dict[str, set[str]] = {}
    for cell in cells:
        states.setdefault(point_name(cell.point), set()).add(outcomes[cell.name].state)
    over = {name for name, ended in states.items() if {"done"} <= ended <= {"done", "failed"}}
    return [cell for cell in cells if point_name(cell.point) not in over]


def choose(
    cells: Sequence[Cell], outcomes: Mapping[str, Outcome], metric: str
) -> tuple[dict[str, dict[str, Any]], list[list[str]]]:
    """For every point (its name) what its candidate with the highest `metric` (or AP, of a net
    without an embedding head) was given, of equal ones the first; a table of all.

    `outcomes`: name of a cell -> its outcome. UserError for a point of which no candidate is done,
    or has the metric: the images set apart may show no identity twice.
    """
    results = {cell.name: outcomes[cell.name].result for cell in cells}
    done = [cell for cell in cells if outcomes[cell.name].state == "done"]
    reached = {cell.name: results[cell.name].get(metric, results[cell.name]["AP"]) for cell in done}
    best: dict[str, Cell] = {}
    for cell in done:
        if reached[cell.name] is None:
            raise UserError(
                f"--tune: {cell.name} has no {metric}, as none of the images set apart shows an "
                "identity of another one: more images, or leave out --tune"
            )
        leader = best.setdefault(point_name(cell.point), cell)
        if reached[cell.name] > reached[leader.name]:
            best[point_name(cell.point)] = cell
    rows: list[list[str]] = []
    for cell in cells:
        point, (state, reason, _) = point_name(cell.point), outcomes[cell.name]
        if point not in best:
            raise UserError(f"no candidate of {point} could be trained, see the logs of its cells")
        values = [f"{value:.4g}" for value in cell.tuned.values()]
        ended = f"{reached[cell.name]:.3f}" if state == "done" else f"{state} {reason}"
        rows.append([point, *values, ended, "chosen" if cell is best[point] else ""])
    return {point: cell.tuned for point, cell in best.items()}, rows


def describe_choice(cells: Sequence[Cell], chosen: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each point, and one where the best is the least or the most that was tried."""
    lines = []
    for name, values in chosen.items():
        listed = ", ".join(f"{key} {value:.4g}" for key, value in values.items())
        lines.append(f"chosen for {name}: {listed}")
        for key, value in values.items():
            tried = [cell.tuned[key] for cell in cells if point_name(cell.point) == name]
            ends = {min(tried): "lowest", max(tried): "highest"}
            if value in ends and len(set(tried)) > 1:
                lines.append(
                    f"  its {key} is the {ends[value]} that was tried: better may lie beyond"
                )
    return lines
