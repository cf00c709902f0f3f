"""The command line of eval.py on a real run: its files, and --nms all."""

import json
from pathlib import Path
from typing import Any

import pytest

import eval as evaluation
from detector.evaluation import suppression


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


def test_a_single_pass_answers_for_every_suppression(
    run: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suppression, "THRESHOLDS", (0.5,))
    flags = ["--score_threshold", "0.001", "--candidates", "40", "--draws", "50"]
    evaluation.main([str(run), "--nms", "all", *flags])
    assert "the baseline" in capsys.readouterr().out
    lines = json.loads((run / "eval" / "suppression.json").read_text())
    assert set(lines[0]) == {"kind", "threshold", "figures", "against"}
    assert lines[0]["figures"]["AP"] > 0
    difference, low, high, p, adjusted, *_ = lines[1]["against"]
    assert low <= difference <= high
    assert p <= adjusted
    figures = {line["kind"]: line["figures"]["AP"] for line in lines}
    for kind, words in (
        ("DIoU, beta 0.9", ["diou", "--beta", "0.9"]),
        ("soft, Gaussian 0.3", ["soft", "--sigma", "0.3"]),
    ):
        alone = evaluation.main([str(run), "--nms", *words, *flags[:4]])
        assert figures[kind] == pytest.approx(alone["AP"], abs=1e-9), kind

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the net was run again")

    monkeypatch.setattr(evaluation, "validate", never)
    capsys.readouterr()
    evaluation.main([str(run), "--nms", "all", *flags])
    assert "the net is not run again" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="run again"):  # other candidates are needed
        evaluation.main([str(run), "--nms", "all", "--score_threshold", "0.01", *flags[2:]])
