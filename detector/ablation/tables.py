"""A summary as tables, and the figures of every cell as CSV."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from detector.ablation.cells import Ablation
from detector.ablation.grid import RECOGNITION
from detector.ablation.summary import FIGURES, RATES, SCORES, Summary, short_key
from detector.evaluation.bootstrap import comparison_cells
from detector.evaluation.table import Table


def main_table(summary: Summary) -> Table:
    """A row for each point: figures over seeds, difference to the baseline, time and memory."""
    metric = summary.metric
    shown = ("AP", "AP50") if metric in ("AP", "AP50") else (metric, "AP")
    heads = [*map(short_key, summary.ablation.axes), "seeds", *shown]
    heads += [f"difference in {metric}", "p", "verdict", "ms/step", "GiB", "late rise"]
    rows: list[list[Any]] = []
    for row in summary.rows:
        count, figures = len(row.figures[metric]), row.figures
        seeds = f"{count}" if count == row.planned else f"{count} of {row.planned}"
        if not count:
            has_run = figures["AP"]  # and is a detector without an embedding head, say
            rows.append([*row.point, seeds, f"has no {metric}" if has_run else "none is done"])
            continue
        spreads = [_spread(figures[name]) for name in shown]
        cells = [
            *row.point,
            seeds,
            *spreads,
            *comparison_cells(row.to_baseline, is_baseline=row.is_baseline),
        ]
        time, memory = 1000 * np.median(figures["step_seconds"]), max(figures["memory"])
        rises = figures[summary.rise]
        rise = np.mean(rises) if rises else None
        rows.append([*cells, time, memory, rise])
    texts = [""] * (len(heads) - 3)
    return Table(heads, rows, [*texts, ".0f", ".2f", "+.3f"])


def scores_table(summary: Summary) -> Table:
    """What each point does to scores, means over seeds; without rows where no cell knows."""
    heads = [*map(short_key, summary.ablation.axes)]
    heads += ["calibration error", "pairs above the threshold", "suppression ms/image"]
    rows = [
        [*row.point, *(np.mean(row.figures[name]) for name in SCORES)]
        for row in summary.rows
        if all(row.figures[name] for name in SCORES)
    ]
    return Table(heads, rows, [*[""] * len(summary.ablation.axes), ".3f", ".2%", ".2f"])


def rates_table(summary: Summary) -> Table:
    """TPR at FAR over seeds, without rows where no cell knows."""
    known = [name for name in RATES if any(row.figures[name] for row in summary.rows)]
    heads = [*map(short_key, summary.ablation.axes), *(name.split("/")[1] for name in known)]
    rows = []
    for row in summary.rows:
        spreads = [_spread(row.figures[name]) if row.figures[name] else None for name in known]
        if any(spreads):
            rows.append([*row.point, *spreads])
    return Table(heads, rows)


def conditions_table(summary: Summary) -> Table:
    """What the conditions do to each method; without rows where there are none."""
    heads = [*map(short_key, summary.ablation.axes)]
    heads += [f"change of {summary.metric}", "more than the baseline's", "p", "verdict"]
    rows = [
        [
            *row.point,
            row.change.interval(),
            *comparison_cells(row.more, is_baseline=row.is_baseline),
        ]
        for row in summary.rows
        if row.change is not None
    ]
    return Table(heads, rows)


def _spread(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.3f}"
    return f"{mean} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else mean


def format_csv(ablation: Ablation) -> str:
    """One line for each cell."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    axes = [axis.key for axis in ablation.axes]
    outcomes = [ablation.outcome(cell) for cell in ablation.cells]
    known = {name for outcome in outcomes for name in outcome.result}
    names = [*FIGURES, *(name for name in (*RECOGNITION, *RATES) if name in known)]
    writer.writerow([*axes, "seed", "state", *names, "reason"])
    for cell, (state, reason, result) in zip(ablation.cells, outcomes, strict=True):
        figures = [result.get(name) for name in names]
        writer.writerow([*cell.point.values(), cell.seed, state, *figures, reason])
    return stream.getvalue()
