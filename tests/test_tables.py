"""Rows of an ablation's tables, and its CSV."""

import csv
import io
from pathlib import Path

from detector.ablation.notes import note_rates
from detector.ablation.report import summarize_runs
from detector.ablation.summary import Summary
from detector.ablation.tables import (
    conditions_table,
    format_csv,
    main_table,
    rates_table,
    scores_table,
)
from tests.test_summary import LOSSES, TRUTH, made_up_ablation, summary, write_state

__all__ = ["summary"]  # the fixture


def test_the_main_table(summary: Summary) -> None:
    table = main_table(summary)
    heads = "class_loss label_noise seeds AP AP50 difference in AP p verdict ms/step GiB late rise"
    assert " ".join(table.heads) == heads
    first, _, ghm, _ = table.cells()
    # 20, 19 and 18 of 30: mean 0.633, standard deviation 1 / 30
    assert first[:5] == ["FocalLoss", "0", "3", "0.633 ± 0.033", "0.633 ± 0.033"]
    assert first[5:8] == ["the baseline", "", ""]
    assert first[8:] == ["100", "2.00", "+0.002"]
    effect = summary.rows[2].to_baseline
    assert effect is not None
    assert ghm[5:8] == [effect.interval(), "< 0.001", "lower"]


def test_a_point_that_has_run_may_not_have_the_metric(tmp_path: Path) -> None:
    ablation = made_up_ablation(tmp_path / "out", [LOSSES])
    summary = summarize_runs(ablation, TRUTH, draws=50)
    rows = main_table(summary._replace(metric="identity/mAP")).cells()
    assert rows[0] == ["FocalLoss", "0 of 3", "has no identity/mAP"]


def test_seeds_that_are_not_done(tmp_path: Path) -> None:
    ablation = made_up_ablation(tmp_path / "out", [LOSSES])
    focal, ghm = (ablation.cells_of((name,)) for name in ("FocalLoss", "GHMC"))
    for cell in (*focal[:1], *ghm):
        write_state(ablation, cell, "failed", "why", {})
    rows = main_table(summarize_runs(ablation, TRUTH, draws=50)).cells()
    assert rows[0][1] == "2 of 3"
    assert rows[1] == ["GHMC", "0 of 3", "none is done"]
    lines = list(csv.DictReader(io.StringIO(format_csv(ablation))))
    assert [line["state"] for line in lines] == ["failed", "failed", *["done", "failed"] * 2]
    assert lines[0]["AP"] == ""
    assert lines[0]["reason"] == "why"
    assert float(lines[2]["AP"]) == 19 / 30


def test_what_losses_do_to_scores(tmp_path: Path) -> None:
    ablation = made_up_ablation(tmp_path / "out", [LOSSES])
    assert not scores_table(summarize_runs(ablation, TRUTH, draws=50)).rows  # of older cells
    for number, cell in enumerate(ablation.cells_of(("GHMC",))):
        result = ablation.outcome(cell).result
        scores = {"calibration_error": 0.1 * number, "pairs_above": 0.02, "suppression_ms": 1.5}
        write_state(ablation, cell, "done", "", result | scores)
    rows = scores_table(summarize_runs(ablation, TRUTH, draws=50)).cells()
    assert rows == [["GHMC", "0.100", "2.00%", "1.50"]]


def test_rates_of_pairs(tmp_path: Path) -> None:
    ablation = made_up_ablation(tmp_path / "out", [LOSSES])
    before = summarize_runs(ablation, TRUTH, draws=50)
    assert not rates_table(before).rows
    assert not note_rates(before)
    for number, cell in enumerate(ablation.cells_of(("GHMC",))):
        rates = {"identity/TPR@FAR1e-1": 0.6 + 0.1 * number, "identity/TPR@FAR1e-2": None}
        if number:
            rates["identity/TPR@FAR1e-3"] = 0.25
        write_state(ablation, cell, "done", "", ablation.outcome(cell).result | rates)
    summary = summarize_runs(ablation, TRUTH, draws=50)
    table = rates_table(summary)
    assert table.heads == ["class_loss", "TPR@FAR1e-1", "TPR@FAR1e-3"]
    assert table.cells() == [["GHMC", "0.700 ± 0.100", "0.250 ± 0.000"]]
    assert "without interval" in note_rates(summary)
    lines = list(csv.DictReader(io.StringIO(format_csv(ablation))))
    assert [line["identity/TPR@FAR1e-3"] for line in lines] == ["", "", "", "0.25", "", "0.25"]


def test_conditions(summary: Summary) -> None:
    table = conditions_table(summary)
    assert [row[:2] for row in table.cells()] == [["FocalLoss", "0.2"], ["GHMC", "0.2"]]
    focal, ghm = table.cells()
    assert focal[3:] == ["the baseline", "", ""]
    change, more = summary.rows[3].change, summary.rows[3].more
    assert change is not None
    assert more is not None
    assert ghm[2:4] == [change.interval(), more.interval()]


def test_without_conditions_there_is_no_table_of_them(tmp_path: Path) -> None:
    ablation = made_up_ablation(tmp_path / "out", [LOSSES], seeds=[0])
    assert not conditions_table(summarize_runs(ablation, TRUTH, draws=50)).rows
