"""Class names in any letters: pictures showed ????? in their place."""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.evaluation import fonts
from detector.evaluation.drawing import INK, Line, Marks, add_title, draw
from detector.evaluation.fonts import Font, find_font, installed_fonts, special_letters
from detector.evaluation.pictures import make_panels, save_picture

CELL = "细"


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What one test found is not found for the next."""
    for function in (find_font, fonts._tell_once):
        function.cache_clear()
    yield
    for function in (find_font, fonts._tell_once):
        function.cache_clear()


@pytest.fixture
def black_cell(tmp_path: Path, monkeypatch: Any) -> Font:
    """An installed font whose only letters are a space and CELL, a black square."""
    builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(1000)
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    from matplotlib.font_manager import fontManager

    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 800), (900, 800), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    empty = TTGlyphPen(None).glyph()
    builder.setupGlyphOrder([".notdef", "space", "cell"])
    builder.setupCharacterMap({0x20: "space", ord(CELL): "cell"})
    builder.setupGlyf({".notdef": empty, "space": empty, "cell": pen.glyph()})
    builder.setupHorizontalMetrics({name: (1000, 0) for name in (".notdef", "space", "cell")})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Cell", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path = tmp_path / "cell.ttf"
    builder.save(path)
    known = [*fontManager.ttflist]
    fontManager.addfont(path)
    added = fontManager.ttflist[-1]
    monkeypatch.setattr(fontManager, "ttflist", [*known, added])
    return Font("Cell", str(path))


def pixels(text: str) -> np.ndarray:
    return add_title(np.zeros((1, 200, 3), np.uint8), text)[:24]


def test_letters_of_other_alphabets_are_told_apart() -> None:
    assert special_letters("a ±\n\udce4é细") == {"±", "é", "细"}
    pytest.importorskip("matplotlib")
    assert not np.array_equal(pixels("Größe"), pixels("Gr??e"))
    assert not np.array_equal(pixels("клетка"), pixels("платье"))
    assert np.array_equal(pixels("cell \udce4"), pixels("cell ?"))


def test_letters_are_as_large_as_those_of_opencv() -> None:
    pytest.importorskip("matplotlib")
    for scale in (0.45, 1.3):
        width, height, _ = Line("HHHHHH", scale, 1).extent()
        other = Line("НННННН", scale, 1).extent()  # Cyrillic
        assert np.allclose((width, height), other[:2], rtol=0.25, atol=2)


def test_the_regular_font_comes_first() -> None:
    pytest.importorskip("matplotlib")
    assert installed_fonts()[0].family == fonts.STANDARD
    assert Path(installed_fonts()[0].path).name == "DejaVuSans.ttf"
    assert not [font for font in installed_fonts() if "last resort" in font.family.lower()]


def test_an_installed_font_is_found_and_used(black_cell: Font, capsys: Any) -> None:
    assert find_font(frozenset(CELL)) == black_cell
    picture = pixels(CELL)
    assert (picture == INK).all(axis=2).sum() > 60  # a square of 10 pixels
    boxed = draw(
        np.zeros((64, 64, 3), np.uint8),
        Marks(np.array([[9, 30, 50, 60]]), np.zeros(1, int)),
        [CELL],
    )
    assert (boxed == INK).all(axis=2).sum() > 60
    assert capsys.readouterr().out == ""


def test_a_font_that_is_gone_is_passed_over(black_cell: Font, monkeypatch: Any) -> None:
    gone = Font("Gone", f"{black_cell.path}.gone")
    monkeypatch.setattr(fonts, "installed_fonts", lambda: [gone, black_cell])
    assert find_font(frozenset(CELL)) == black_cell


def test_plots_have_the_letters_too(black_cell: Font, tmp_path: Path) -> None:
    """Those of ticks, which matplotlib sets as late as it draws, as well."""

    def plot(*names: str) -> Any:
        figure, panels = make_panels(1, 1, (2, 2))
        panels[0, 0].set_yticks(range(len(names)), names)
        return figure

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = save_picture(tmp_path / "plot.png", plot, "a", CELL)
        blank = save_picture(tmp_path / "plot.png", plot, "a", "")
    assert drawn is not None
    assert blank is not None
    assert (drawn == 0).all(axis=2).sum() > (blank == 0).all(axis=2).sum() + 50


def test_what_no_font_has_is_told_once(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(fonts, "installed_fonts", lambda: [])
    assert np.array_equal(pixels(f"{CELL} 1"), pixels("? 1"))
    pixels("胞")
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert "install one that does" in told

    def plot() -> Any:
        figure, panels = make_panels(1, 1, (2, 2))
        panels[0, 0].set_title(CELL)
        return figure

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_picture(tmp_path / "plot.png", plot)


def test_without_matplotlib_it_is_told_what_is_missing(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.font_manager", None)
    assert find_font(frozenset(CELL)) is None
    assert "pip install matplotlib" in capsys.readouterr().out
