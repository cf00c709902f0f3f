"""What was trained by an earlier version goes on: a run and an ablation of commit 7d6af94.

They were made in an empty folder, with `draw_dataset("datasets/golden", train=16, val=6, size=96)`:

    python train.py --config small.yaml --run runs/golden            (run/, after two epochs)
    python train.py --resume runs/golden --trainer.max_epochs 4      (after_four_epochs.json)
    python scripts/ablate.py --config one.yaml --class_loss FocalLoss SigmoidCrossEntropy \\
        --seeds 0 --out abl --draws 50                               (ablation/, less a cell)
"""

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import eval as evaluation
import train
from data.shapes import draw_dataset
from detector.ablation import cells
from scripts import ablate

GOLDEN = Path(__file__).parent / "golden"
CURVE = ("val/class", "val/box", "val/AP", "val/AP50")
ROUNDING = {"rel": 1e-3, "abs": 1e-4}  # other processors add up in another order


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the paths that the run and the ablation remember exist."""
    draw_dataset(tmp_path / "datasets" / "golden", train=16, val=6, size=96)
    shutil.copytree(GOLDEN / "run", tmp_path / "runs" / "golden")
    shutil.copytree(GOLDEN / "ablation", tmp_path / "abl")
    shutil.copy(GOLDEN / "one.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_older_run_goes_on_along_the_same_curve(place: Path) -> None:
    train.main(["--resume", "runs/golden", "--trainer.max_epochs", "4"])
    epochs = json.loads((place / "runs" / "golden" / "metrics.json").read_text())["epochs"]
    expected = json.loads((GOLDEN / "after_four_epochs.json").read_text())["epochs"]
    assert [line["epoch"] for line in epochs] == [1, 2, 3, 4]
    for line, known in zip(epochs, expected, strict=True):
        for name in CURVE:
            assert line[name] == pytest.approx(known[name], **ROUNDING), (line["epoch"], name)
    summary = evaluation.main(["runs/golden", "--checkpoint", "last"])
    assert summary["AP"] == pytest.approx(expected[-1]["val/AP"], **ROUNDING)


def test_a_new_run_follows_the_curve_of_the_older_one(place: Path) -> None:
    """Initial weights, order of the data, augmentation, matching, losses and averaging at once."""
    train.main(["--config", str(GOLDEN / "small.yaml"), "--run", "runs/new"])
    epochs = json.loads((place / "runs" / "new" / "metrics.json").read_text())["epochs"]
    expected = json.loads((GOLDEN / "after_four_epochs.json").read_text())["epochs"]
    for line, known in zip(epochs, expected[:2], strict=True):
        for name in CURVE:
            assert line[name] == pytest.approx(known[name], **ROUNDING), (line["epoch"], name)


def run_here(command: list[str], **_: Any) -> Any:
    """A command of a cell, without a process of its own."""
    program, *words = command[2:]  # after python -u
    {"train.py": train.main, "eval.py": evaluation.main}[Path(program).name](words)
    return SimpleNamespace(returncode=0)


def test_an_older_ablation_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "subprocess", SimpleNamespace(run=run_here, STDOUT=None))
    words = ["--config", "one.yaml", "--class_loss", "FocalLoss", "SigmoidCrossEntropy"]
    ablate.main([*words, "--seeds", "0", "--out", "abl", "--draws", "50"])
    with open(place / "abl" / "results.csv") as file:
        rows = list(csv.DictReader(file))
    with open(GOLDEN / "ablation_results.csv") as file:
        expected = list(csv.DictReader(file))
    # not trained again: even its times are those of then
    assert {name: rows[0][name] for name in expected[0]} == expected[0]
    assert [row["state"] for row in rows] == ["done", "done"]
    assert float(rows[1]["AP"]) == pytest.approx(float(expected[1]["AP"]), abs=1e-4)
