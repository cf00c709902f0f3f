"""Candidates that are saved once give what the net would give again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import eval as evaluation
from detector.config.resolve import load
from detector.evaluation import bootstrap, suppression
from detector.evaluation.results import ImageCandidates
from scripts import compare


def test_a_single_pass_answers_for_every_suppression(
    run: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suppression, "THRESHOLDS", (0.5, 0.7))
    flags = ["--score_threshold", "0.001", "--draws", "50"]
    evaluation.main([str(run), "--nms", "all", *flags])
    table = capsys.readouterr().out
    lines = json.loads((run / "eval" / "suppression.json").read_text())
    assert len(lines) == 5 * 2 + 2
    assert (lines[0]["kind"], lines[0]["threshold"]) == ("hard", 0.5)
    assert lines[0]["figures"]["AP"] > 0
    for line in lines:
        name, threshold, figures = line["kind"], line["threshold"], line["figures"]
        words = {"hard": "hard", "DIoU": "diou", "soft": "soft"}[name.split(",")[0]]
        extra = ["--beta", name.split()[-1]] if words == "diou" else []
        extra += ["--sigma", name.split()[-1]] if "Gaussian" in name else []
        extra += ["--iou_threshold", str(threshold)] if threshold else []
        alone = evaluation.main([str(run), "--nms", words, *flags[:2], *extra])
        assert figures["AP"] == pytest.approx(alone["AP"], abs=1e-9), name
    heads, first, *rest = table.strip().splitlines()
    assert heads.split()[:5] == ["suppression", "IoU", "AP", "AP50", "AP75"]
    assert first.endswith("the baseline")
    verdicts = ("higher", "lower", "no difference shown")
    assert all(text.endswith(verdicts) for text in rest)
    adjusted = [line["against"][4] for line in lines[1:]]
    assert sorted(adjusted) == sorted(min(1, p) for p in adjusted)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the net was run again")

    monkeypatch.setattr(evaluation, "validate", never)
    capsys.readouterr()
    evaluation.main([str(run), "--nms", "all", *flags])
    assert "the net is not run again" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="run again"):  # other candidates are needed
        evaluation.main([str(run), "--nms", "all", "--score_threshold", "0.01"])


def test_a_broken_file_is_as_if_there_were_none(tmp_path: Path) -> None:
    path = tmp_path / "candidates.pt"
    one = ImageCandidates(
        torch.rand(2, 4), torch.rand(2), torch.tensor([0, 1]), *[torch.tensor([9, 9])] * 2
    )
    suppression.save(path, {"a": 1}, {7: one})
    again = suppression.load(path, {"a": 1})
    assert again is not None
    assert all(torch.equal(a, b) for a, b in zip(again[7], one, strict=True))
    assert suppression.load(path, {"a": 2}) is None
    path.write_bytes(path.read_bytes()[:100])
    assert suppression.load(path, {"a": 1}) is None
    assert suppression.load(tmp_path / "none.pt", {}) is None


def test_an_evaluation_explains_itself(run: Path, capsys: Any) -> None:
    evaluation.main([str(run), "--score_threshold", "0.001"])
    text = capsys.readouterr().out
    assert all(word in text for word in ("VOC07", "VOC12", "location", "calibration error"))
    saved = json.loads((run / "eval" / "metrics.json").read_text())
    assert {"summary", "per_class", "voc", "errors", "calibration"} <= set(saved)
    assert "NaN" not in (run / "eval" / "metrics.json").read_text()  # JSON knows none
    rows = json.loads((run / "eval" / "detections.json").read_text())
    assert {"image_id", "category_id", "bbox", "score", "file_name"} == set(rows[0])
    pytest.importorskip("matplotlib", reason="pictures need the extra 'plots'")
    assert (run / "eval" / "report.png").stat().st_size > 10_000


def test_runs_are_compared(run: Path, capsys: Any) -> None:
    evaluation.main([str(run), "--score_threshold", "0.001"])
    capsys.readouterr()
    rows = compare.main([str(run), str(run), "--draws", "20"])
    printed = capsys.readouterr().out
    assert printed.count("one seed: no verdict") == 2  # AP and AP50
    assert "needs several runs of each" in printed
    assert rows[1]["AP_difference"].difference == 0
    summary = json.loads((run / "eval" / "metrics.json").read_text())["summary"]
    assert rows[0]["AP"] == pytest.approx(summary["AP"], abs=1e-9)
    compare.main([f"{run},{run}", f"{run},{run}", "--draws", "20"])
    assert capsys.readouterr().out.count("no difference shown") == 2


def test_several_seeds_are_compared_by_their_spread(
    run: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two methods that differ by 0.1 in one seed and 0.3 in the other: the margin of error by
    Student's t with one degree of freedom is 12.7 standard errors of 0.1."""
    found = iter([0.5, 0.5, 0.6, 0.8])

    def made_up(_: Any) -> Any:
        return np.full(2, next(found))

    monkeypatch.setattr(bootstrap, "full_ap", made_up)
    monkeypatch.setattr(bootstrap, "bootstrap_ap", lambda _, weights: np.ones((2, len(weights))))
    evaluation.main([str(run)])
    rows = compare.main([f"{run},{run}", f"{run},{run}", "--draws", "20"])
    one = rows[1]["AP_difference"]
    assert one.difference == pytest.approx(0.2)
    assert one.high - one.difference == pytest.approx(12.706 * 0.1, rel=1e-3)
    assert "no difference shown" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{run}"], "two runs or more"),
        (["{run}", "nowhere"], "not a run"),
        (["{run}", "{run}", "--draws", "few"], "--draws (command line): expected a whole number"),
        (["{run}", "{run}", "--drows", "3"], "there is no --drows"),
        (["{run},{run}", "{run}"], "as many runs"),
        (["{run}", "{bare}"], "python eval.py"),
        (["{run}", "{other}"], "different data: data.val"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], message: str, run: Path, tmp_path: Path, capsys: Any
) -> None:
    evaluation.main([str(run)])
    bare, other = tmp_path / "bare", tmp_path / "other"
    for folder in (bare, other):
        folder.mkdir()
        (folder / "config.yaml").write_text((run / "config.yaml").read_text())
    (other / "eval").mkdir()
    content = json.loads((run / "eval" / "metrics.json").read_text())
    content["data"]["val"] = "train"
    (other / "eval" / "metrics.json").write_text(json.dumps(content))
    (other / "eval" / "detections.json").write_text("[]")
    assert load(bare / "config.yaml")
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        compare.main([word.format(run=run, bare=bare, other=other) for word in words])
    assert caught.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert message in error[0]
