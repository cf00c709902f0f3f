"""Figures and differences of a made-up ablation: nothing is trained, its files are written here."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.ablation.cells import Ablation
from detector.ablation.grid import Axis, Cell, Shared, make_axis, make_cells
from detector.ablation.pictures import draw_effects
from detector.ablation.report import summarize_runs
from detector.ablation.summary import (
    Summary,
    baseline,
    first_conditions,
    measure_queries,
    point_title,
)
from detector.ablation.tables import conditions_table, main_table
from detector.config.errors import UserError
from detector.config.resolve import save

IMAGES, BOX = 30, [0.0, 0.0, 10.0, 10.0]
TRUTH: dict[str, Any] = {
    "images": [{"id": image_id} for image_id in range(IMAGES)],
    "categories": [{"id": 1, "name": "disk"}],
    "annotations": [
        {"id": 1 + image_id, "image_id": image_id, "category_id": 1, "bbox": BOX, "iscrowd": 0}
        for image_id in range(IMAGES)
    ],
}
LOSSES = Axis("model.class_loss", {"FocalLoss": "FocalLoss", "GHMC": "GHMC"})
NOISE = Axis("data.label_noise", {"0": 0.0, "0.2": 0.2})


def finish(ablation: Ablation, cell: Cell, found: Sequence[int]) -> None:
    """As if the cell had been trained, and had detected the objects of the images `found`."""
    run = ablation.run_folder(cell)
    save(cell.config, run / "config.yaml")
    rows = [
        {"image_id": image_id, "category_id": 1, "bbox": BOX, "score": 0.9} for image_id in found
    ]
    (run / "eval").mkdir()
    (run / "eval" / "detections.json").write_text(json.dumps(rows))
    metrics = {"data": cell.config["data"]}
    (run / "eval" / "metrics.json").write_text(json.dumps(metrics))
    epochs = [{"epoch": k, "val/AP": k * len(found) / 2 / IMAGES} for k in (1, 2)]
    (run / "metrics.json").write_text(json.dumps({"epochs": epochs}))
    ap = len(found) / IMAGES
    result = {"AP": ap, "AP50": ap, "AP75": ap, "step_seconds": 0.1, "memory": 2.0, "rise": 0.002}
    write_state(ablation, cell, "done", "", result)


def write_state(ablation: Ablation, cell: Cell, state: str, reason: str, result: Any) -> None:
    path = ablation.out / "states" / f"{cell.name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"state": state, "reason": reason, "result": result}))


def made_up_ablation(
    out: Path, axes: Sequence[Axis] = (LOSSES, NOISE), seeds: Sequence[int] = (0, 1, 2)
) -> Ablation:
    """Focal loss detects the objects of 20 images, and with noise those of 18; GHM-C of 10 and 4;
    each seed misses one more."""
    out.mkdir()
    ablation = Ablation(out, axes, make_cells(Shared([], {}), axes, seeds, out))
    counts = {"FocalLoss": 20, "GHMC": 10, "FocalLoss0.2": 18, "GHMC0.2": 4}
    for cell in ablation.cells:
        label = "".join(cell.point.values()).removesuffix("0")
        label = label if label in counts else label.removesuffix("0.")
        finish(ablation, cell, range(cell.seed, counts[label]))
    return ablation


@pytest.fixture
def summary(tmp_path: Path) -> Summary:
    return summarize_runs(made_up_ablation(tmp_path / "out"), TRUTH, draws=200)


def test_points_are_compared_with_the_baseline_and_with_the_first_conditions(
    summary: Summary,
) -> None:
    rows = {row.point: row for row in summary.rows}
    assert list(rows) == [(a, b) for a in ("FocalLoss", "GHMC") for b in ("0", "0.2")]
    focal, noisy_focal, ghm, noisy_ghm = rows.values()
    assert focal.figures["AP"] == pytest.approx([20 / 30, 19 / 30, 18 / 30])
    assert focal.planned == 3
    assert (focal.to_baseline, focal.change, focal.more) == (None, None, None)
    assert (noisy_focal.to_baseline, noisy_focal.more) == (None, None)  # its conditions' baseline
    assert noisy_focal.change is not None
    assert ghm.to_baseline is not None
    assert ghm.to_baseline.verdict == "lower"
    assert ghm.change is None
    for effect, expected in (
        (noisy_focal.change, 18 - 20),
        (ghm.to_baseline, 10 - 20),
        (noisy_ghm.to_baseline, 4 - 18),
        (noisy_ghm.change, 4 - 10),
        (noisy_ghm.more, (4 - 10) - (18 - 20)),
    ):
        assert effect is not None
        # of 101 recalls; the seeds miss the same images, so that they differ alike
        assert effect.difference == pytest.approx(expected / 30, abs=0.01)
        assert effect.seeds == 3


def test_each_question_is_corrected_for_its_own_comparisons(summary: Summary) -> None:
    to_baseline = [row.to_baseline for row in summary.rows if row.to_baseline is not None]
    smaller, larger = sorted(to_baseline, key=lambda effect: effect.p)
    assert smaller.adjusted == pytest.approx(min(1, 2 * smaller.p))
    assert larger.adjusted == pytest.approx(max(larger.p, smaller.adjusted))
    (more,) = [row.more for row in summary.rows if row.more is not None]
    assert more.adjusted == more.p


def test_a_cell_without_figures_is_missing_and_the_seeds_that_both_have_are_compared(
    tmp_path: Path,
) -> None:
    ablation = made_up_ablation(tmp_path / "out", [LOSSES])
    failed = ablation.cells[1]  # GHM-C, seed 0
    write_state(ablation, failed, "failed", "out of memory", {})
    (ablation.out / "states" / f"{ablation.cells[-1].name}.json").unlink()
    summary = summarize_runs(ablation, TRUTH, draws=50)
    assert summary.missing == {
        failed.name: "failed: out of memory",
        ablation.cells[-1].name: "not yet run",
    }
    ghm = summary.rows[1]
    assert (len(ghm.figures["AP"]), ghm.planned) == (1, 3)
    assert ghm.to_baseline is not None
    assert ghm.to_baseline.seeds == 1
    assert ghm.to_baseline.verdict == "one seed: no verdict"


def test_without_the_baseline_nothing_is_called_one(tmp_path: Path) -> None:
    """Where its cells have failed, and where no other has a seed of it."""
    ablation = made_up_ablation(tmp_path / "out")
    for cell in ablation.cells:
        if cell.point["model.class_loss"] == "FocalLoss" and cell.point["data.label_noise"] != "0":
            write_state(ablation, cell, "failed", "out of memory", {})
    summary = summarize_runs(ablation, TRUTH, draws=50)
    assert [row.is_baseline for row in summary.rows] == [True, True, False, False]
    rows = {tuple(row[:2]): row for row in main_table(summary).cells()}
    assert rows["FocalLoss", "0"][5] == "the baseline"
    assert rows["FocalLoss", "0.2"][3] == "none is done"
    assert rows["GHMC", "0.2"][5] == "no seed in common"
    (noisy,) = conditions_table(summary).cells()
    assert noisy[:2] == ["GHMC", "0.2"]
    assert noisy[3] == "no seed in common"
    draw_effects(summary)  # says nothing of it, and draws the others


def test_queries_of_an_image_are_drawn_together() -> None:
    queries = [{"image_id": k, "mAP": ap} for k, ap in ((7, 0.1), (9, 0.2), (9, 0.6), (9, 1.0))]
    weights = np.array([[1, 1, 1], [2, 0, 1], [0, 3, 0]])  # of the images 7, 8 and 9
    value, draws = measure_queries(queries, "identity/mAP", [7, 8, 9], weights)
    assert value == pytest.approx(1.9 / 4)
    assert draws[:2] == pytest.approx([1.9 / 4, (2 * 0.1 + 1.8) / 5])
    assert np.isnan(draws[2])


def test_names_of_points() -> None:
    axes = [LOSSES, NOISE]
    assert baseline(("GHMC", "0.2"), axes) == ("FocalLoss", "0.2")
    assert first_conditions(("GHMC", "0.2"), axes) == ("GHMC", "0")
    assert point_title(("GHMC", "0.2"), axes) == "GHMC + label_noise 0.2"


def test_methods_are_compared_by_recognition(tmp_path: Path) -> None:
    """Of both losses every query of an image has the same AP; a cell without the head has none."""
    axis = make_axis("model.embedding_loss", ["ArcFaceLoss", "[TripletLoss, CenterLoss]", "[]"])
    assert list(axis.values) == ["ArcFaceLoss", "TripletLoss + CenterLoss", "none"]
    shared, out = Shared([], {"model.embedding.size": 8}), tmp_path / "out"
    out.mkdir()
    ablation = Ablation(out, [axis], make_cells(shared, [axis], [0, 1], out))
    for cell in ablation.cells:
        finish(ablation, cell, range(20))
        label = cell.point["model.embedding_loss"]
        if label == "none":
            continue
        best, others = (0.9, 0.5) if label == "ArcFaceLoss" else (0.8, 0.3 + 0.02 * cell.seed)
        queries = [{"image_id": k % 6, "mAP": best if k < 2 else others} for k in range(12)]
        (ablation.run_folder(cell) / "eval" / "queries.json").write_text(json.dumps(queries))
    summary = summarize_runs(ablation, TRUTH, 200, "identity/mAP")
    arc, triplet, none = (row.to_baseline for row in summary.rows)
    assert arc is None
    assert none is None
    assert triplet is not None
    # 2 of 12 queries differ by 0.1, the others by 0.2 or 0.18
    assert triplet.difference == pytest.approx(-(2 * 0.1 + 10 * 0.19) / 12)
    assert triplet.verdict == "lower"
    assert summarize_runs(ablation, TRUTH, 20, "AP50").rows[1].to_baseline is not None
    for cell in ablation.cells[1:]:
        (ablation.run_folder(cell) / "eval" / "queries.json").unlink(missing_ok=True)
    (ablation.run_folder(ablation.cells[0]) / "eval" / "queries.json").write_text("[]")
    with pytest.raises(UserError, match="no cell was trained with an embedding head"):
        summarize_runs(ablation, TRUTH, 20, "identity/mAP")
