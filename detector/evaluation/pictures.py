"""What all pictures have in common: matplotlib (extra "plots"), colors, panels, PNG files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detector.config.files import write

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5f5f5f", "#8c613c")
NO_MATPLOTLIB = "picture: needs matplotlib, pip install matplotlib"


def make_panels(
    rows: int, columns: int, size: tuple[float, float], **options: Any
) -> tuple[Any, np.ndarray]:
    """A matplotlib Figure of that size in inches, and its panels, Axes (rows, columns). `options`:
    of `Figure.subplots`. ModuleNotFoundError without matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, **options)
    for panel in panels.flat:
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels


def plain(text: str) -> str:
    """A user's text, for matplotlib: which would set what stands between $ and $ as a formula, and
    leave out of a legend what begins with _."""
    return text.replace("$", r"\$") if text[:1] != "_" else plain(f" {text}")


def save_picture(
    path: Path, draw: Callable[..., Any], *arguments: Any, dpi: int = 100
) -> np.ndarray | None:
    """Writes the matplotlib Figure that `draw(*arguments)` returns to a PNG file, and returns its
    pixels, RGB (H, W, 3). A missing matplotlib costs the picture only: None, and no file."""
    try:
        figure = draw(*arguments)
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        return None
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    write(path, cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
    return pixels
