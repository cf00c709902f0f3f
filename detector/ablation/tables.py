"""A summary as tables: text, Markdown, LaTeX, CSV."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detector.ablation.cells import Outcome
from detector.ablation.grid import Cell
from detector.ablation.summary import FIGURES, Summary, short
from detector.evaluation.bootstrap import Comparison


def table(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the main table, as text."""
    heads = [short(axis) for axis in summary.axes]
    heads += ["seeds", "AP", "AP50", "difference in AP", "p", "verdict"]
    heads += ["ms/step", "GiB", "late rise"]
    lines = []
    for row in summary.rows:
        count = len(row.figures["AP"])
        cells = [*row.point, f"{count}" if count == row.planned else f"{count} of {row.planned}"]
        if not count:
            lines.append([*cells, "not yet run", *[""] * (len(heads) - len(cells) - 1)])
            continue
        cells += [_spread(row.figures[name]) for name in ("AP", "AP50")]
        cells += _compared(row.to_baseline)
        cells.append(f"{1000 * np.median(row.figures['step_seconds']):.0f}")
        cells.append(f"{max(row.figures['memory']):.2f}")
        rise = row.figures["rise"]
        lines.append([*cells, f"{np.mean(rise):+.3f}" if rise else "-"])
    return heads, lines


def conditions_table(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """What the conditions do to each method; no lines where there are none."""
    heads = [short(axis) for axis in summary.axes]
    heads += ["change of AP", "more than the baseline's", "p", "verdict"]
    lines = []
    for row in summary.rows:
        if row.change is not None:
            lines.append([*row.point, _interval(row.change), *_compared(row.more)])
    return heads, lines


def _spread(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.3f}"
    return f"{mean} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else mean


def _compared(effect: Comparison | None) -> list[str]:
    if effect is None:
        return ["the baseline", "", ""]
    p = f"{effect.adjusted:.3f}" if effect.adjusted >= 0.001 else "< 0.001"
    return [_interval(effect), p if effect.seeds > 1 else "", effect.verdict]


def _interval(effect: Comparison) -> str:
    return f"{effect.difference:+.3f} ({effect.low:+.3f} to {effect.high:+.3f})"


def markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *lines))


def plain(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """For terminals: columns, two blanks apart."""
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (heads, *lines)
    )


def latex(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """For \\usepackage{booktabs}."""
    special = {"%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#", "±": r"$\pm$", "<": "$<$"}

    def line(cells: Sequence[str]) -> str:
        texts = ("".join(special.get(letter, letter) for letter in cell) for cell in cells)
        return " & ".join(texts) + r" \\"

    body = "\n".join(map(line, lines))
    columns = "l" * len(heads)
    return (
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{line(heads)}\n\\midrule\n{body}\n"
        "\\bottomrule\n\\end{tabular}\n"
    )


def write_csv(path: Path, cells: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> None:
    """One line for each cell."""
    axes = list(cells[0].point)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*axes, "seed", "state", *FIGURES, "reason"])
        for cell in cells:
            found = outcomes[cell.name]
            figures = [found.result.get(name) for name in FIGURES]
            line: list[Any] = [*cell.point.values(), cell.seed, found.state, *figures, found.reason]
            writer.writerow(line)
