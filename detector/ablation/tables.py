"""A summary as tables, and the figures of every cell as CSV."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from detector.ablation.cells import Ablation
from detector.ablation.summary import FIGURES, Summary, short_key
from detector.evaluation.bootstrap import comparison_cells
from detector.evaluation.table import Table


def main_table(summary: Summary) -> Table:
    """A row for each point: figures over seeds, difference to the baseline, time and memory."""
    heads = [*map(short_key, summary.ablation.axes), "seeds", "AP", "AP50"]
    heads += ["difference in AP", "p", "verdict", "ms/step", "GiB", "late rise"]
    rows: list[list[Any]] = []
    for row in summary.rows:
        count, figures = len(row.figures["AP"]), row.figures
        seeds = f"{count}" if count == row.planned else f"{count} of {row.planned}"
        if not count:
            rows.append([*row.point, seeds, "not yet run"])
            continue
        spreads = _spread(figures["AP"]), _spread(figures["AP50"])
        cells = [*row.point, seeds, *spreads, *comparison_cells(row.to_baseline)]
        time, memory = 1000 * np.median(figures["step_seconds"]), max(figures["memory"])
        rise = np.mean(figures["rise"]) if figures["rise"] else None
        rows.append([*cells, time, memory, rise])
    texts = [""] * (len(heads) - 3)
    return Table(heads, rows, [*texts, ".0f", ".2f", "+.3f"])


def conditions_table(summary: Summary) -> Table:
    """What the conditions do to each method; without rows where there are none."""
    heads = [*map(short_key, summary.ablation.axes)]
    heads += ["change of AP", "more than the baseline's", "p", "verdict"]
    rows = [
        [*row.point, row.change.interval(), *comparison_cells(row.more)]
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
    writer.writerow([*axes, "seed", "state", *FIGURES, "reason"])
    for cell in ablation.cells:
        state, reason, result = ablation.outcome(cell)
        figures = [result.get(name) for name in FIGURES]
        writer.writerow([*cell.point.values(), cell.seed, state, *figures, reason])
    return stream.getvalue()
