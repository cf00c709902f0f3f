"""The files that an ablation leaves behind."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from detector.ablation.cells import Ablation
from detector.ablation.page import Document
from detector.ablation.report import report
from detector.config.errors import UserError
from detector.config.resolve import save
from detector.evaluation.table import Table
from tests.test_summary import LOSSES, TRUTH, made_up_ablation

FILES = {"table.md", "table.tex", "results.csv", "index.html"}


def test_all_files_show_the_same_cells(tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("matplotlib", reason="pictures need the extra 'plots'")
    ablation = made_up_ablation(tmp_path / "out")
    report(ablation, TRUTH, 50, 1, "python scripts/ablate.py --out <out>")
    out, printed = ablation.out, capsys.readouterr().out
    texts = {name: (out / name).read_text() for name in FILES}
    (interval,) = set(re.findall(r"-0\.33\d \(-0\.\d+ to -0\.\d+\)", printed))  # GHM-C, no noise
    for name in ("table.md", "table.tex", "index.html"):
        assert interval in texts[name], name
    assert (out / "effects.png").read_bytes()[:4] == (out / "curves.png").read_bytes()[:4]
    page = texts["index.html"]
    assert page.count('src="data:image/png;base64,') == 2
    assert '<td class="lower">lower</td>' in page
    assert "python scripts/ablate.py --out &lt;out&gt;" in page  # escaped
    assert not re.findall(r'(?:src|href)="https?:', page)  # it needs no other file
    assert [*(out / "summary").glob("events*")]
    assert all([*(ablation.run_folder(cell) / "hparams").glob("*")] for cell in ablation.cells)


def test_a_missing_matplotlib_costs_the_pictures_only(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    ablation = made_up_ablation(tmp_path / "out", [LOSSES], seeds=[0])
    report(ablation, TRUTH, 50, 1, "command")
    assert capsys.readouterr().out.count("picture: needs matplotlib") == 1
    assert {path.name for path in ablation.out.iterdir()} >= FILES
    assert not [*ablation.out.glob("*.png")]


def test_pictures_of_gradients_are_taken_along(tmp_path: Path) -> None:
    ablation = made_up_ablation(tmp_path / "out", [LOSSES], seeds=[0])
    (ablation.run_folder(ablation.cells[0]) / "gradients.png").write_bytes(b"a picture")
    report(ablation, TRUTH, 50, 1, "command")
    page = (ablation.out / "index.html").read_text()
    assert '<img alt="Gradient norms: FocalLoss_seed0" src="data:image/png;base64,YSBw' in page


def test_a_cell_that_ran_otherwise_than_planned_is_refused(tmp_path: Path) -> None:
    ablation = made_up_ablation(tmp_path / "out", [LOSSES], seeds=[0])
    cell = ablation.cells[1]
    other = {**cell.config, "optimizer": {**cell.config["optimizer"], "lr": 5.0}}
    save(other, ablation.run_folder(cell) / "config.yaml")
    with pytest.raises(UserError, match=r"also differ in optimizer\.lr"):
        report(ablation, TRUTH, 50, 1, "command")


def test_nothing_done_is_one_clear_line(tmp_path: Path) -> None:
    ablation = Ablation(tmp_path, [LOSSES], made_up_ablation(tmp_path / "out", [LOSSES]).cells)
    with pytest.raises(UserError, match="no cell is done yet"):
        report(ablation, TRUTH, 50, 1, "command")


def test_a_document_in_markdown_and_for_the_terminal() -> None:
    tables = {"Results": Table(["a"], [["1"]]), "Conditions": Table(["b"], [["2"]])}
    document = Document("name", ["First.", "Second."], tables, ["they differ", "in x"], "command")
    assert document.to_text() == "a\n1\n\nb\n2\n\nFirst.\nSecond."
    assert document.to_markdown().splitlines() == [
        *["| a   |", "|:----|", "| 1   |", "", "| b   |", "|:----|", "| 2   |", ""],
        *["First.", "", "Second.", "", "```", "they differ", "in x", "```", "", "`command`"],
    ]
    assert document.to_latex().count(r"\begin{tabular}") == 1
