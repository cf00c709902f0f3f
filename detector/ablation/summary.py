"""From finished cells to figures over seeds and differences between points of the grid."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from detector.ablation.cells import Ablation, Point
from detector.ablation.effects import Sample, effect
from detector.ablation.grid import Axis
from detector.config.signatures import CONTRACTS
from detector.evaluation.bootstrap import Comparison, bootstrap_ap, full_ap, holm
from detector.evaluation.matches import Matches

FIGURES = ("AP", "AP50", "AP75", "step_seconds", "memory", "rise")


class Row(NamedTuple):
    """A point of the grid. `planned`: seeds; `figures`: name -> values of the seeds that are done.

    `to_baseline`: the difference in AP to the baseline under the same conditions, None for itself ·
    `change`: that to the same method under the first conditions · `more`: how much larger `change`
    is than the baseline's.
    """

    point: Point
    planned: int
    figures: dict[str, list[float]]
    to_baseline: Comparison | None = None
    change: Comparison | None = None
    more: Comparison | None = None


class Summary(NamedTuple):
    """`missing`: cell -> why it has no figures; `images`: how many all cells are evaluated on."""

    ablation: Ablation
    rows: list[Row]
    missing: dict[str, str]
    images: int


def summarize(
    ablation: Ablation, matches: Mapping[str, Mapping[int, Matches]], weights: np.ndarray
) -> Summary:
    """`matches`: of every cell that is done, by its name; `weights` (draws, images): samples of the
    images, see `detector.evaluation.bootstrap.image_weights`."""
    samples = {point: _sample(ablation, point, matches, weights) for point in ablation.points}
    rows = [_row(ablation, point, samples) for point in ablation.points]
    for field in ("to_baseline", "change", "more"):  # each answers a question of its own
        corrected = holm([getattr(row, field) for row in rows])
        values: list[dict[str, Any]] = [{field: comparison} for comparison in corrected]
        rows = [row._replace(**value) for row, value in zip(rows, values, strict=True)]
    outcomes = {cell.name: ablation.outcome(cell) for cell in ablation.cells}
    missing = {
        name: f"{outcome.state}: {outcome.reason}" if outcome.reason else outcome.state
        for name, outcome in outcomes.items()
        if outcome.state != "done"
    }
    return Summary(ablation, rows, missing, weights.shape[1])


def _sample(
    ablation: Ablation,
    point: Point,
    matches: Mapping[str, Mapping[int, Matches]],
    weights: np.ndarray,
) -> Sample:
    figures = np.full(len(ablation.seeds), np.nan)
    draws = np.full((len(ablation.seeds), len(weights)), np.nan)
    for cell in ablation.cells_of(point):
        if cell.name in matches:
            place = ablation.seeds.index(cell.seed)
            figures[place] = full_ap(matches[cell.name])[0]
            draws[place] = bootstrap_ap(matches[cell.name], weights)[0]
    return Sample(figures, draws)


def _row(ablation: Ablation, point: Point, samples: Mapping[Point, Sample]) -> Row:
    cells = ablation.cells_of(point)
    outcomes = [ablation.outcome(cell) for cell in cells]
    results = [outcome.result for outcome in outcomes if outcome.state == "done"]
    figures = {
        name: [result[name] for result in results if result[name] is not None] for name in FIGURES
    }
    base, first = baseline(point, ablation.axes), first_conditions(point, ablation.axes)
    base_first = first_conditions(base, ablation.axes)
    to_baseline = [(1, samples[point]), (-1, samples[base])]
    change = [(1, samples[point]), (-1, samples[first])]
    base_change = [(1, samples[base_first]), (-1, samples[base])]
    return Row(
        point,
        len(cells),
        figures,
        effect(to_baseline) if base != point else None,
        effect(change) if first != point else None,
        effect([*change, *base_change]) if first != point and base != point else None,
    )


def baseline(point: Point, axes: Sequence[Axis]) -> Point:
    """The first method, under the same conditions."""
    pairs = zip(point, axes, strict=True)
    return tuple(label if axis.is_condition else axis.baseline for label, axis in pairs)


def first_conditions(point: Point, axes: Sequence[Axis]) -> Point:
    """The same method, under the first conditions."""
    pairs = zip(point, axes, strict=True)
    return tuple(axis.baseline if axis.is_condition else label for label, axis in pairs)


def point_title(point: Point, axes: Sequence[Axis]) -> str:
    """A loss by its name alone, anything else after the last part of its key."""
    pairs = zip(axes, point, strict=True)
    return " + ".join(v if a.key in CONTRACTS else f"{short_key(a)} {v}" for a, v in pairs)


def short_key(axis: Axis) -> str:
    """The last part of its key, as heads of tables have it."""
    return axis.key.rpartition(".")[2]
