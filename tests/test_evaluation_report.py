"""The picture and TensorBoard's files of an evaluation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detector.evaluation.coco import coco_figures
from detector.evaluation.report import draw_report, write_report
from detector.evaluation.tide import explain
from tests.test_coco_figures import random_set


@pytest.fixture(scope="module")
def content() -> Any:
    """A class has no object, so that its figures are nan."""
    truth, results = random_set(0)
    return coco_figures(truth, results), explain(truth, results)


def test_the_panels_show_the_figures(content: Any) -> None:
    pytest.importorskip("matplotlib", reason="pictures need the extra 'plots'")
    figures, (errors, calibrated, points, _) = content
    curves, sizes, scores, kinds, bins, confusion = draw_report("title", *content).axes
    labels = [text.get_text() for text in curves.get_legend().get_texts()]
    known = {name: row["AP50"] for name, row in figures.per_class.items() if row["objects"]}
    assert len(known) == 3
    assert sorted(labels[:-1]) == sorted(f"{name} ({ap50:.2f})" for name, ap50 in known.items())
    assert labels[-1] == f"mean ({figures.summary['AP50']:.2f})"
    assert sizes.patches[0].get_height() == figures.summary["AP"]
    assert [bar.get_width() for bar in kinds.patches] == list(errors.gained.values())
    texts = {text.get_text() for text in bins.texts}
    assert {str(count) for count in calibrated.counts if count} <= texts
    assert f"{points.best.threshold:.3f}" in scores.get_title()
    shown = [text.get_text() for text in confusion.texts]
    assert sum(map(int, shown)) == sum(map(sum, points.confusion.counts))


def test_a_class_may_have_any_name(content: Any, tmp_path: Path) -> None:
    """Neither a formula, nor hidden from the legend, as matplotlib takes $..$ and _."""
    pytest.importorskip("matplotlib", reason="pictures need the extra 'plots'")
    truth, results = random_set(0)
    for row, name in zip(truth["categories"], ("$x_{$", "_hidden", "a, b/c"), strict=False):
        row["name"] = name
    odd = coco_figures(truth, results), explain(truth, results)
    write_report(tmp_path, "in $y_{$", *odd)
    curves, *_ = draw_report("title", *odd).axes
    shown = {text.get_text().strip() for text in curves.get_legend().get_texts()}
    assert {text.rpartition(" (")[0] for text in shown} == {r"\$x_{\$", "_hidden", "a, b/c", "mean"}


def test_no_picture_of_an_earlier_evaluation_stays(content: Any, tmp_path: Path) -> None:
    truth, _ = random_set(0)
    write_report(tmp_path, "title", *content, np.zeros((20, 30, 3), np.uint8))
    nothing = coco_figures(truth, []), explain(truth, [])  # no best score, so no confusion
    write_report(tmp_path, "title", *nothing)
    assert {path.name for path in tmp_path.glob("*.png")} <= {"report.png"}


def test_tensorboard_gets_figures_errors_and_the_picture(content: Any, tmp_path: Path) -> None:
    figures, (errors, _, points, _) = content
    write_report(tmp_path, "title", *content, np.zeros((20, 30, 3), np.uint8), step=7)
    events = EventAccumulator(str(tmp_path)).Reload()
    values = {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}
    assert {events.Scalars(tag)[0].step for tag in values} == {7}
    assert values["eval/AP"] == pytest.approx(figures.summary["AP"])
    assert values["eval_error/missed"] == pytest.approx(errors.gained["missed"])
    assert values["eval/best_f1"] == pytest.approx(points.best.f1)
    assert (tmp_path / "mistakes.png").is_file()
    for name in ("report", "confusion", "mistakes"):
        assert (f"eval/{name}" in events.Tags()["images"]) == (tmp_path / f"{name}.png").is_file()
    assert "eval/class 3" in events.Tags()["tensors"]
    assert "eval/class 4" not in events.Tags()["tensors"]  # without objects
