"""From finished cells to what they say: figures over seeds, differences, and notes on both."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from detector.ablation.cells import Outcome
from detector.ablation.effects import Sample, effect, minimal_detectable_difference
from detector.ablation.grid import Axis, Cell
from detector.config.signatures import CONTRACTS
from detector.evaluation.bootstrap import Comparison, holm
from detector.evaluation.matches import Matches, mean_precision

Point = tuple[str, ...]  # a value of every axis
RISING = 0.01  # AP gained in the last quarter of training from which it is said


class Row(NamedTuple):
    """A point of the grid. `figures`: name -> values of the seeds that are done. `to_baseline`: the
    difference in AP to the baseline under the same conditions; None for itself. `change`: that to
    the same method under the first conditions, and `more`: what it is more than the baseline's."""

    point: Point
    planned: int
    figures: dict[str, list[float]]
    to_baseline: Comparison | None = None
    change: Comparison | None = None
    more: Comparison | None = None


class Summary(NamedTuple):
    """`missing`: cell -> why it has no figures; `notes`: sentences on what the table can say."""

    axes: list[Axis]
    rows: list[Row]
    missing: dict[str, str]
    notes: list[str]


FIGURES = ("AP", "AP50", "AP75", "step_seconds", "memory", "rise")


def summarize(
    axes: Sequence[Axis],
    cells: Sequence[Cell],
    outcomes: Mapping[str, Outcome],
    matches: Mapping[str, Mapping[int, Matches]],
    weights: np.ndarray,
) -> Summary:
    """`matches`: of every cell that is done, by its name; `weights`: draws of the images (see
    `detector.evaluation.bootstrap.image_weights`)."""
    points = list(dict.fromkeys(tuple(cell.point.values()) for cell in cells))
    seeds = sorted({cell.seed for cell in cells})
    samples = {p: _sample(p, cells, seeds, matches, weights) for p in points}
    rows = []
    for point in points:
        mine = [cell for cell in cells if tuple(cell.point.values()) == point]
        done = [outcomes[cell.name].result for cell in mine if outcomes[cell.name].state == "done"]
        figures = {name: [one[name] for one in done if one[name] is not None] for name in FIGURES}
        base, first = _baseline(point, axes), _first_conditions(point, axes)
        terms = [(1, samples[point]), (-1, samples[base])]
        change = [(1, samples[point]), (-1, samples[first])]
        other = [(-1, samples[base]), (1, samples[_first_conditions(base, axes)])]
        rows.append(
            Row(
                point,
                len(mine),
                figures,
                effect(terms) if base != point else None,
                effect(change) if first != point else None,
                effect([*change, *other]) if first != point and base != point else None,
            )
        )
    for field in ("to_baseline", "change", "more"):  # each a question of its own
        corrected = holm([getattr(row, field) for row in rows])
        for k, one in enumerate(corrected):
            rows[k] = Row(**{**rows[k]._asdict(), field: one})
    missing = {
        cell.name: f"{found.state}{': ' * bool(found.reason)}{found.reason}"
        for cell in cells
        if (found := outcomes[cell.name]).state != "done"
    }
    notes = _notes(axes, rows, seeds, missing, weights)
    return Summary(list(axes), rows, missing, notes)


def _sample(
    point: Point,
    cells: Sequence[Cell],
    seeds: Sequence[int],
    matches: Mapping[str, Mapping[int, Matches]],
    weights: np.ndarray,
) -> Sample:
    figures = np.full(len(seeds), np.nan)
    draws = np.full((len(seeds), len(weights)), np.nan)
    for cell in cells:
        if tuple(cell.point.values()) == point and cell.name in matches:
            place = seeds.index(cell.seed)
            figures[place] = mean_precision(matches[cell.name])[0][0]
            draws[place] = mean_precision(matches[cell.name], weights)[0]
    return Sample(figures, draws)


def _baseline(point: Point, axes: Sequence[Axis]) -> Point:
    """The first method, under the same conditions."""
    return tuple(
        value if axis.is_condition else axis.baseline
        for value, axis in zip(point, axes, strict=True)
    )


def _first_conditions(point: Point, axes: Sequence[Axis]) -> Point:
    return tuple(
        axis.baseline if axis.is_condition else value
        for value, axis in zip(point, axes, strict=True)
    )


def name_of(point: Point, axes: Sequence[Axis]) -> str:
    """A loss by its name alone, anything else with the last part of its key."""
    pairs = zip(axes, point, strict=True)
    return " + ".join(v if a.key in CONTRACTS else f"{short(a)} {v}" for a, v in pairs)


def short(axis: Axis) -> str:
    """The last part of its key, as heads of tables and names have it."""
    return axis.key.rpartition(".")[2]


def _notes(
    axes: Sequence[Axis],
    rows: Sequence[Row],
    seeds: Sequence[int],
    missing: Mapping[str, str],
    weights: np.ndarray,
) -> list[str]:
    base = name_of(_baseline(rows[0].point, axes), axes)
    one, images = len(seeds) == 1, weights.shape[1]
    notes = [
        f"AP is that of the last epoch, {'of' if one else 'mean ± standard deviation over'} "
        f"{len(seeds)} seed{'' if one else 's'}. Differences are to {base} (under the same "
        "conditions), paired by seed and image, with 95 % intervals for "
        + (
            f"the luck of the {images} images. That of training is not in them: of one seed "
            "nothing here tells a better method from a luckier run."
            if one
            else f"both kinds of luck, that of training and that of the {images} images; p is "
            "corrected for the number of comparisons (Holm)."
        )
    ]
    if missing:
        listed = "; ".join(f"{name} {why}" for name, why in missing.items())
        notes.insert(0, f"INCOMPLETE: {len(missing)} cells have no figures: {listed}.")
    effects = [row.to_baseline for row in rows]
    for verdict in ("higher", "lower", "no difference shown"):
        names = [
            name_of(row.point, axes)
            for row in rows
            if row.to_baseline is not None and row.to_baseline.verdict == verdict
        ]
        what = {"no difference shown": "not separated from it (and not ranked)"}.get(
            verdict, f"{verdict} than the baseline"
        )
        if names:
            notes.append(f"{what[0].upper()}{what[1:]}: {', '.join(names)}.")
    least = minimal_detectable_difference(effects)
    if not one and not math.isnan(least):
        notes.append(
            f"With {len(seeds)} seeds a difference of {least:.3f} AP would have been found in 4 of "
            "5 such ablations; smaller ones may well exist."
        )
    rising = {
        name_of(row.point, axes): float(np.mean(row.figures["rise"]))
        for row in rows
        if row.figures["rise"] and np.mean(row.figures["rise"]) > RISING
    }
    if rising:
        listed = ", ".join(f"{name} {rise:+.3f}" for name, rise in rising.items())
        notes.append(
            f"Not converged: AP still rose in the last quarter of training: {listed}. A longer "
            "training may order them differently."
        )
    elif any(row.figures["rise"] for row in rows):
        notes.append(f"In the last quarter of training no AP rose by more than {RISING}.")
    return notes
