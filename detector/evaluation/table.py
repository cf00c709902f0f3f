"""Tables of figures for a terminal."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

from detector.evaluation.coco import Figures


def _cell(figure: float) -> str:
    return "-" if math.isnan(figure) else f"{figure:.3f}"


def format_table(figures: Figures, title: str = "") -> str:
    """The summary, then all classes, in two columns when there are more than 40; 80 characters."""
    every = {**figures.summary, **figures.voc}
    cells = [f"{name:<6}{_cell(figure):>5}" for name, figure in every.items()]
    lines = [title, ""] if title else []
    lines += ["    ".join(cells[start : start + 3]) for start in range(0, len(cells), 3)]
    columns = 2 if len(figures.per_class) > 40 else 1
    width = min(max([5, *map(len, figures.per_class)]), 16 if columns == 2 else 56)
    rows = [f"{'class':<{width}}{'objects':>9}{'AP':>7}{'AP50':>7}"]
    for name, row in figures.per_class.items():
        name = name if len(name) <= width else name[: width - 2] + ".."
        row_figures = f"{_cell(row['AP']):>7}{_cell(row['AP50']):>7}"
        rows.append(f"{name:<{width}}{row['objects']:>9}{row_figures}")
    height = -(-len(rows[1:]) // columns)
    lines += ["", "  ".join(rows[:1] * columns)]
    lines += ["  ".join(rows[1 + start :: height]) for start in range(height)]
    return "\n".join(lines)
