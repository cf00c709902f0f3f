"""What all pictures have in common: matplotlib (extra "plots"), colors, panels, PNG files."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detector.config.files import write

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5f5f5f", "#8c613c")
NO_MATPLOTLIB = "picture: needs matplotlib, pip install matplotlib"


def make_panels(
    rows: int, columns: int, size: tuple[float, float], **options: Any
) -> tuple[Any, Any]:
    """A matplotlib Figure of that size in inches, and its panels, (rows, columns) Axes. `options`:
    of `Figure.subplots`. ModuleNotFoundError without matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, **options)
    for panel in panels.flat:
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels


def save_picture(path: Path, draw: Callable[..., Any], *arguments: Any, dpi: int = 100) -> Any:
    """The Figure that `draw(*arguments)` returns, written to a PNG file. A missing matplotlib costs
    the picture only: then it is None, and there is no file."""
    try:
        figure = draw(*arguments)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        return None
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi)
    write(path, stream.getvalue())
    return figure
