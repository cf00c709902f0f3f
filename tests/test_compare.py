"""Runs whose detections are made up, compared as scripts/compare.py does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.config.resolve import resolve, save
from detector.evaluation import bootstrap
from scripts import compare

MakeRun = Callable[..., str]


@pytest.fixture
def make_run(shapes: Path, tmp_path: Path) -> MakeRun:
    """Makes the folder of a run that detects all objects but every `missed`-th."""

    def make(name: str, missed: int = 1000, **data: Any) -> str:
        run = tmp_path / name
        config = resolve([], {"data.root": str(shapes), "data.format": "coco"})
        save(config, run / "config.yaml")
        truth = json.loads((shapes / "annotations" / "instances_val.json").read_text())
        rows = [
            {key: row[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
            for number, row in enumerate(truth["annotations"], start=1)
            if number % missed
        ]
        (run / "eval").mkdir()
        content = {"data": {**config["data"], **data}}
        (run / "eval" / "metrics.json").write_text(json.dumps(content))
        (run / "eval" / "detections.json").write_text(json.dumps(rows))
        return str(run)

    return make


def test_runs_of_one_seed_have_intervals_and_no_verdict(make_run: MakeRun, capsys: Any) -> None:
    first, second = make_run("first"), make_run("second", missed=2)
    rows = compare.main([first, second, "--draws", "20"])
    printed = capsys.readouterr().out
    assert printed.count("one seed: no verdict") == 2  # AP and AP50
    assert "needs several runs of each" in printed
    assert rows[0]["AP"] == pytest.approx(1)
    difference = rows[1]["AP_difference"]
    assert difference.difference == pytest.approx(rows[1]["AP"] - 1)
    assert difference.difference < -0.3
    assert difference.low < difference.difference < difference.high


def test_all_that_is_printed_is_corrected_together(make_run: MakeRun, capsys: Any) -> None:
    """Two methods and two metrics beside the first: four comparisons."""
    words = [f"{make_run(f'{k}0', k)},{make_run(f'{k}1', k + 7)}" for k in (1000, 2, 3)]
    rows = compare.main([*words, "--draws", "20"])
    names = ("AP_difference", "AP50_difference")
    comparisons = [row[name] for name in names for row in rows[1:]]
    ordered = sorted(comparisons, key=lambda comparison: comparison.p)
    expected = np.maximum.accumulate([k * c.p for k, c in zip((4, 3, 2, 1), ordered, strict=True)])
    assert [c.adjusted for c in ordered] == pytest.approx(expected.clip(max=1))
    printed = capsys.readouterr().out
    assert "one seed" not in printed.lower()
    assert len(printed.splitlines()) == 2 + 2 * 3


def test_several_seeds_are_compared_by_their_spread(
    make_run: MakeRun, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two methods that differ by 0.1 in one seed and 0.3 in the other: the margin of error by
    Student's t with one degree of freedom is 12.7 standard errors of 0.1."""
    figures = iter([0.5, 0.5, 0.6, 0.8])
    monkeypatch.setattr(bootstrap, "full_ap", lambda _: np.full(2, next(figures)))
    monkeypatch.setattr(bootstrap, "bootstrap_ap", lambda _, weights: np.ones((2, len(weights))))
    run = make_run("run")
    rows = compare.main([f"{run},{run}", f"{run},{run}", "--draws", "20"])
    comparison = rows[1]["AP_difference"]
    assert comparison.difference == pytest.approx(0.2)
    assert comparison.high - comparison.difference == pytest.approx(12.706 * 0.1, rel=1e-3)
    assert "no difference shown" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{run}"], "two runs or more"),
        (["{run}", "nowhere"], "not a run"),
        (["{run}", "{run}", "--draws", "few"], "--draws (command line): expected a whole number"),
        (
            ["{run}", "{run}", "--draws", "1"],
            "--draws (command line): expected a whole number from 2 up",
        ),
        (["{run}", "{run}", "--drows", "3"], "there is no --drows"),
        (["{run},{run}", "{run}"], "as many runs"),
        (["{run}", "{bare}"], "python eval.py"),
        (["{run}", "{other}"], "different data: data.val"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], message: str, make_run: MakeRun, capsys: Any
) -> None:
    runs = {"run": make_run("run"), "other": make_run("other", val="train")}
    runs["bare"] = make_run("bare")
    Path(runs["bare"], "eval", "detections.json").unlink()
    with pytest.raises(SystemExit) as caught:
        compare.main([word.format(**runs) for word in words])
    assert caught.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert message in error[0]


def test_a_run_that_was_evaluated_on_fewer_images_is_refused(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the same weights: images that were not looked at must not count as misses."""
    first, second = make_run("first"), make_run("second")
    for run, count in ((first, 6), (second, 2)):
        path = Path(run, "eval", "metrics.json")
        evaluated = {"count": count, "digest": str(count), "ids": None}
        origin = {"annotations": "", "evaluated": evaluated, "classes": [], "images": ""}
        path.write_text(json.dumps({**json.loads(path.read_text()), "made_from": origin}))
    with pytest.raises(SystemExit):
        compare.main([first, second])
    assert "the images that were evaluated (6 and 2)" in capsys.readouterr().err
