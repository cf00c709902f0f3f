"""The scripts that measure and draw the losses."""

from pathlib import Path

import pytest
import torch

from losses import FocalLoss, SmoothL1Loss
from scripts import (
    benchmark,
    plot_losses,
    time_evaluation,
    time_growth,
    time_losses,
    time_nms,
)
from tests.conftest import TINY


def test_both_sides_of_the_timing_compute_the_same() -> None:
    predictions, batch = time_losses.make_scene(1, 96, 4, 3, "cpu")
    mine = time_losses.ours(predictions, batch, FocalLoss(), SmoothL1Loss(beta=0.0), False)
    step = time_losses.theirs(predictions, batch)
    assert mine().item() == pytest.approx(step().item(), rel=1e-4)
    time_losses.with_backward(mine, predictions)()
    assert predictions.logits.grad is not None


def test_whole_steps_of_every_loss_are_timed(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.replace("coco", "shapes"))
    steps = time_losses.training_steps(str(path), "cpu", objects=3)
    assert next(iter(steps)) == "FocalLoss + SmoothL1Loss"
    assert len(steps) == 5 + 9 - 1  # classification and box losses; the first pair has one of each
    few = dict(list(steps.items())[:2])
    assert all(seconds > 0 for (seconds,) in time_losses.take_turns(few, 1).values())


def test_suppression_is_timed(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--counts", "30", "--classes", "2", "--repeats", "1", "--device", "cpu"]
    time_nms.main(words)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.split()[:2] == ["30", "2"]
    assert all(name in last for name in time_nms.KINDS)


def test_evaluation_is_timed_on_equal_figures(capsys: pytest.CaptureFixture[str]) -> None:
    content, results = time_evaluation.make_data(6, 3, 10)
    figures = [way(content, results) for way in time_evaluation.WAYS.values()]
    assert figures == pytest.approx([figures[0]] * len(figures), abs=1e-12)
    assert figures[0] > 0


def test_the_benchmark_compares_like_with_like(capsys: pytest.CaptureFixture[str]) -> None:
    """Both sides have as many weights, and the steps of both train."""
    words = ["--size", "64", "--batch", "2", "--classes", "3", "--rounds", "1", "--images", "4"]
    words += ["--device", "cpu", "--compile", "none", "--parts", "train", "inference", "loader"]
    work = benchmark.Work(benchmark.arguments(words))
    mine, other = work.ours("none").net, work.theirs()
    counts = [sum(p.numel() for p in net.parameters()) for net in (mine, other)]
    # torchvision's anchors come in three ratios and three sizes, too; its body has a classifier
    # for ImageNet no more, as ours
    assert counts[0] == counts[1]
    found = benchmark.main(words)
    printed = capsys.readouterr().out
    assert "ours, DIoU-NMS" in printed
    assert all(part in printed for part in benchmark.PARTS)
    assert all(v > 0 for times in found["train"]["steps"].values() for v in times)
    for name in benchmark.SIDES:
        side = work.training(name)
        total = side["matching and losses"](side["network"](side["data"](None)))
        side["backward"](total)
        before = float(total.detach())
        side["optimizer"](None)
        again = side["matching and losses"](side["network"](side["data"](None)))
        assert float(again.detach()) != before


def test_growth_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    words = ["--config", str(path), "--batches", "1", "2", "--objects", "1", "3"]
    words += ["--epochs", "2", "--images", "4", "8", "--out", str(tmp_path / "growth.png")]
    curves = time_growth.main(words)
    assert [list(curve) for curve in curves.values()] == [[1, 2], [1, 3], [1, 2], [4, 8]]
    assert "picture" in capsys.readouterr().out


def test_examples_of_the_focal_paper() -> None:
    rows = [line.split("|")[1:-1] for line in plot_losses.examples_table().splitlines()[2:]]
    ratios = {float(row[0]): float(row[3].replace(",", "")) for row in rows}
    assert ratios == {0.99: 10_000, 0.95: 400, 0.9: 100, 0.5: 4, 0.1: 1.2}


def test_reformulated_gradients_of_ghm_share_equally() -> None:
    logits, labels = plot_losses.a_batch(20_000)
    norm = plot_losses.slope(plot_losses.SigmoidCrossEntropy(), logits, labels)
    found = plot_losses.slope(plot_losses.GHMC(momentum=0), logits, labels)
    which = (norm * 30).long()
    sums = torch.zeros(30).scatter_add_(0, which, found / norm)
    filled = torch.bincount(which, minlength=30) > 0
    torch.testing.assert_close(sums[filled], torch.full((30,), 1 / filled.sum())[filled])


def test_figures_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="figures need the extra 'plots'")
    plot_losses.main(["--out", str(tmp_path)])
    assert {path.stem for path in tmp_path.glob("*.png")} == {"focal", "ghm", "deltas", "overlaps"}
