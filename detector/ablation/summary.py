"""From finished cells to figures over seeds and differences between points of the grid."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from detector.ablation.cells import Ablation, Point
from detector.ablation.effects import Sample, effect
from detector.ablation.grid import RECOGNITION, Axis
from detector.config.signatures import SLOTS
from detector.evaluation.bootstrap import Comparison, holm
from detector.evaluation.retrieval import TPR

RATES = tuple(f"identity/{name}" for name in TPR)  # of pairs: no mean over queries, no interval
SCORES = ("calibration_error", "pairs_above", "suppression_ms")  # what a loss does to scores
FIGURES = ("AP", "AP50", "AP75", "step_seconds", "memory", "rise", *SCORES)
Measured = tuple[float, np.ndarray]  # the metric of a cell, and on samples of the images (B,)


class Row(NamedTuple):
    """A point of the grid. `planned`: seeds; `figures`: name -> values of the seeds that are done.

    `to_baseline`: the difference in the metric to the baseline under the same conditions, None for
    itself (`is_baseline`) and without a common seed · `change`: that to the same method under the
    first conditions · `more`: how much larger `change` is than the baseline's.
    """

    point: Point
    planned: int
    figures: dict[str, list[float]]
    is_baseline: bool = False
    to_baseline: Comparison | None = None
    change: Comparison | None = None
    more: Comparison | None = None


class Summary(NamedTuple):
    """`missing`: cell -> why it has no figures; `images`: how many all cells are evaluated on;
    `metric`: what methods are compared by."""

    ablation: Ablation
    rows: list[Row]
    missing: dict[str, str]
    images: int
    metric: str = "AP"

    @property
    def rise(self) -> str:
        """The figure that tells whether training had converged."""
        return "identity/rise" if self.metric in RECOGNITION else "rise"

    @property
    def curves(self) -> tuple[str, str]:
        """The two figures of every epoch that are drawn."""
        return ("identity/mAP", "AP") if self.metric in RECOGNITION else ("AP", "AP50")


def summarize(
    ablation: Ablation, measured: Mapping[str, Measured], metric: str, weights: np.ndarray
) -> Summary:
    """`measured`: the metric of every cell that is done, by its name; `weights` (draws, images):
    the samples of the images that it was measured on."""
    samples = {point: _sample(ablation, point, measured, weights) for point in ablation.points}
    rows = [_row(ablation, point, samples, weights.shape[1]) for point in ablation.points]
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
    return Summary(ablation, rows, missing, weights.shape[1], metric)


def measure_queries(
    queries: Sequence[Mapping[str, Any]], metric: str, image_ids: Sequence[int], weights: np.ndarray
) -> Measured:
    """A metric of recognition from the queries of a cell (eval/queries.json); `image_ids`: of the
    columns of `weights`. The queries of an image are drawn together."""
    name = metric.removeprefix("identity/")
    place = {image_id: column for column, image_id in enumerate(image_ids)}
    values = np.array([query[name] for query in queries])
    each = weights[:, [place[query["image_id"]] for query in queries]]
    total = each.sum(axis=1)
    return float(values.mean()), each @ values / np.where(total > 0, total, np.nan)


def _sample(
    ablation: Ablation, point: Point, measured: Mapping[str, Measured], weights: np.ndarray
) -> Sample:
    figures = np.full(len(ablation.seeds), np.nan)
    draws = np.full((len(ablation.seeds), len(weights)), np.nan)
    for cell in ablation.cells_of(point):
        if cell.name in measured:
            place = ablation.seeds.index(cell.seed)
            figures[place], draws[place] = measured[cell.name]
    return Sample(figures, draws)


def _row(ablation: Ablation, point: Point, samples: Mapping[Point, Sample], images: int) -> Row:
    cells = ablation.cells_of(point)
    outcomes = [ablation.outcome(cell) for cell in cells]
    results = [outcome.result for outcome in outcomes if outcome.state == "done"]
    figures = {
        name: [result[name] for result in results if result.get(name) is not None]
        for name in (*FIGURES, *RECOGNITION, *RATES, "identity/rise")
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
        base == point,
        effect(to_baseline, images) if base != point else None,
        effect(change, images) if first != point else None,
        effect([*change, *base_change], images) if first != point and base != point else None,
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
    return " + ".join(v if a.key in SLOTS else f"{short_key(a)} {v}" for a, v in pairs)


def short_key(axis: Axis) -> str:
    """The last part of its key, as heads of tables have it."""
    return axis.key.rpartition(".")[2]
