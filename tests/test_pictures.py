"""PNG files of figures, with matplotlib and without."""

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detector.evaluation.pictures import make_panels, save_picture


def draw(text: str) -> Any:
    figure, panels = make_panels(1, 2, (4, 2))
    panels[0, 1].set_title(text)
    return figure


def test_the_file_has_the_pixels_that_are_returned(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need the extra 'plots'")
    path = tmp_path / "new" / "picture.png"
    pixels = save_picture(path, draw, "title", dpi=50)
    assert pixels is not None
    assert pixels.shape == (100, 200, 3)  # 2 x 4 inches
    assert np.array_equal(cv2.imread(str(path))[..., ::-1], pixels)
    other = save_picture(path, draw, "another title", dpi=50)
    assert other is not None
    assert not np.array_equal(other, pixels)


@pytest.mark.parametrize("module", ["matplotlib", "matplotlib.figure"])
def test_a_missing_matplotlib_costs_the_picture_only(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert save_picture(tmp_path / "picture.png", draw, "title") is None
    assert not [*tmp_path.iterdir()]


def test_any_other_missing_module_is_an_error(tmp_path: Path) -> None:
    def need_another() -> None:
        raise ModuleNotFoundError("No module named 'another'", name="another")

    with pytest.raises(ModuleNotFoundError, match="another"):
        save_picture(tmp_path / "picture.png", need_another)
