"""What all pictures have in common: matplotlib (extra "plots"), colors, panels, PNG files."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detector.config.files import write
from detector.evaluation.fonts import STANDARD, find_font, special_letters

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


def give_letters(figure: Any) -> bool:
    """Gives texts whose letters matplotlib's font lacks another one that has them; whether any was
    changed. The figure has been drawn before: only then are names at ticks known."""
    from matplotlib.text import Text

    texts = [text for text in figure.findobj(Text) if special_letters(text.get_text())]
    letters = special_letters("".join(text.get_text() for text in texts))
    font = find_font(letters) if letters else None
    if font is None or font.family == STANDARD:
        return False
    for text in texts:
        text.set_fontfamily([STANDARD, font.family])
    return True


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
    with warnings.catch_warnings():  # of letters that its font lacks
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        canvas.draw()
        if give_letters(figure):
            canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    write(path, cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
    return pixels
