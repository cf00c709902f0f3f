"""What a summary lets say, sentence by sentence."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from detector.ablation.grid import Axis
from detector.ablation.notes import (
    note_convergence,
    note_figures,
    note_missing,
    note_power,
    note_tuning,
    note_verdict,
    write_notes,
)
from detector.ablation.report import summarize_runs
from detector.ablation.summary import Row, Summary
from tests.test_summary import LOSSES, TRUTH, finish, made_up_ablation, summary, write_state

__all__ = ["summary"]  # the fixture


def test_every_note_of_a_finished_ablation(summary: Summary) -> None:
    notes = write_notes(summary, jobs=2)
    assert [note.split()[0] for note in notes] == ["AP", "Lower", "With", "In", "Learning", "2"]
    assert "over 3 seeds. Differences are to FocalLoss + label_noise 0 (under the" in notes[0]
    assert "for other seeds and other images than these 30. p is corrected" in notes[0]
    assert notes[1] == "Lower than the baseline: GHMC + label_noise 0, GHMC + label_noise 0.2."
    assert "With 3 seeds a difference of 0." in notes[2]
    assert notes[5] == "2 cells ran side by side: times are those of a shared machine."


def test_one_seed_says_what_is_unknown_and_ranks_nothing(tmp_path: Path) -> None:
    ablation = made_up_ablation(tmp_path / "out", [LOSSES], seeds=[0])
    summary = summarize_runs(ablation, TRUTH, draws=50)
    assert "of one seed nothing here tells a better method" in note_figures(summary)
    verdicts = ("higher", "lower", "no difference shown")
    assert [note_verdict(summary, verdict) for verdict in verdicts] == ["", "", ""]
    assert note_power(summary) == ""


def test_one_method_is_compared_to_none(tmp_path: Path) -> None:
    ablation = made_up_ablation(tmp_path / "out", [Axis("model.class_loss", {"GHMC": "GHMC"})])
    note = note_figures(summarize_runs(ablation, TRUTH, draws=50))
    assert note == "AP is that of the last epoch, mean ± standard deviation over 3 seeds."


def test_one_common_seed_of_several_is_told(tmp_path: Path) -> None:
    """Its interval is the narrowest, as it knows nothing of other seeds."""
    ablation = made_up_ablation(tmp_path / "out", [LOSSES])
    whole = note_figures(summarize_runs(ablation, TRUTH, draws=50))
    for cell in ablation.cells_of(("GHMC",))[1:]:
        write_state(ablation, cell, "failed", "why", {})
    summary = summarize_runs(ablation, TRUTH, draws=50)
    assert "Of one common seed they are for the images alone." in note_figures(summary)
    assert "one common seed" not in whole


def test_the_power_is_said_of_the_seeds_that_are_done(tmp_path: Path) -> None:
    ablation = made_up_ablation(tmp_path / "out", [LOSSES], seeds=[0, 1, 2, 3])
    for number, cell in enumerate(ablation.cells_of(("GHMC",))):
        shutil.rmtree(ablation.run_folder(cell) / "eval")
        finish(ablation, cell, range(number, 12 + 2 * number))
    write_state(ablation, ablation.cells[0], "failed", "why", {})
    note = note_power(summarize_runs(ablation, TRUTH, draws=50))
    assert note.startswith("With 3 seeds a difference of ")


def test_what_is_missing_comes_first(summary: Summary) -> None:
    incomplete = summary._replace(missing={"a": "failed: why", "b": "not yet run"})
    expected = "INCOMPLETE: 2 cells have no figures: a failed: why; b not yet run."
    assert note_missing(incomplete) == write_notes(incomplete, 1)[0] == expected


@pytest.mark.parametrize(
    ("rises", "note"),
    [
        (
            [0.012, 0.016],
            "Not converged: AP still rose in the last quarter of training (from the last "
            "validation before it on): GHMC +0.014",
        ),
        ([0.009], "In the last quarter of training no AP rose by more than 0.01."),
        ([], ""),
    ],
)
def test_a_curve_that_still_rises(
    tmp_path: Path, summary: Summary, rises: list[float], note: str
) -> None:
    row = Row(("GHMC",), 1, {"rise": rises})
    ablation = summary.ablation._replace(axes=[LOSSES])
    assert note_convergence(summary._replace(ablation=ablation, rows=[row])).startswith(note)
    assert bool(note) == bool(note_convergence(summary._replace(ablation=ablation, rows=[row])))


def test_tuning_is_told(summary: Summary) -> None:
    ablation, values = summary.ablation, {"optimizer.lr": 0.02, "model.class_loss.weight": 1.0}
    cells = [cell._replace(tuned=values) for cell in ablation.cells]
    note = note_tuning(ablation._replace(tuned=list(values), cells=cells))
    assert note.startswith("For each optimizer.lr and model.class_loss.weight were chosen by AP")
    assert "(tuning/table.md): FocalLoss + label_noise 0 0.02, 1.0; " in note
    assert note.count("; ") == 3
    assert "not tuned for each (--tune)" in note_tuning(summary.ablation)


def test_the_power_is_that_of_the_spread(tmp_path: Path) -> None:
    """Seeds that differ more between the methods hide larger differences."""
    figures = []
    for name, noise in (("calm", 0), ("wild", 4)):
        ablation = made_up_ablation(tmp_path / name, [LOSSES])
        for number, cell in enumerate(ablation.cells_of(("GHMC",))):
            shutil.rmtree(ablation.run_folder(cell) / "eval")
            finish(ablation, cell, range(number, 12 + noise * number))
        note = note_power(summarize_runs(ablation, TRUTH, draws=50))
        figures.append(float(note.split("difference of ")[1].split()[0]))
    assert np.diff(figures)[0] > 0.1
