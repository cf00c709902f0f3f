"""The command line of eval.py on a real run: its files, and --nms all."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import eval as evaluation
from detector.evaluation import compare_nms


def test_an_evaluation_explains_itself(run: Path, capsys: Any) -> None:
    evaluation.main([str(run), "--score_threshold", "0.001"])
    text = capsys.readouterr().out
    assert all(word in text for word in ("VOC07", "VOC12", "location", "calibration error"))
    saved = json.loads((run / "eval" / "metrics.json").read_text())
    assert {"summary", "per_class", "voc", "errors", "calibration", "best_score"} <= set(saved)
    assert set(saved["scores"]) == {"pairs_above", "suppression_ms"}
    assert "NaN" not in (run / "eval" / "metrics.json").read_text()  # JSON knows none
    rows = json.loads((run / "eval" / "detections.json").read_text())
    assert {"image_id", "category_id", "bbox", "score", "file_name"} == set(rows[0])
    pytest.importorskip("matplotlib", reason="pictures need the extra 'plots'")
    assert (run / "eval" / "report.png").stat().st_size > 10_000


def test_a_single_pass_answers_for_every_suppression(
    run: Path, shapes: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_nms, "THRESHOLDS", (0.5,))
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
    again = [str(run), "--nms", "all", *flags]
    for limit in ("1", "1.0"):  # one batch, and all of them
        with pytest.raises(AssertionError, match="run again"):
            evaluation.main(
                [str(run), "--nms", "all", *flags, "--trainer.limit_val_batches", limit]
            )
    image = next((shapes / "val").iterdir())
    os.utime(image, ns=(1, 1))
    with pytest.raises(AssertionError, match="run again"):  # an image was replaced
        evaluation.main(again)


def test_detections_are_not_written_over_a_file_of_somebody(
    run: Path, tmp_path: Path, capsys: Any
) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text("precious")
    for out in (mine, tmp_path, mine / "inner.json"):
        with pytest.raises(SystemExit) as error:
            evaluation.main([str(run), "--out", str(out)])
        assert error.value.code == 2
        assert str(out) in capsys.readouterr().err
    assert mine.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]


def test_what_may_be_wrong_with_the_validation_data_is_said(run: Path, capsys: Any) -> None:
    evaluation.main([str(run), "--max_detections", "1", "--draws", "0"])
    out = capsys.readouterr().out
    assert "warning: val: " in out
    assert "have more than 1 objects" in out


@pytest.mark.parametrize("flags", [[], ["--nms", "all"]])
def test_nothing_is_computed_that_cannot_be_kept(
    flags: list[str], run: Path, tmp_path: Path, capsys: Any
) -> None:
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    (tmp_path / "run" / "eval").write_text("a file where a folder should be")
    with pytest.raises(SystemExit):
        evaluation.main([str(tmp_path / "run"), *flags])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: cannot use {tmp_path / 'run' / 'eval'}: ")
