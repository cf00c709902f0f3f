"""The benchmarks, each on a tiny setting, and the figures of the documentation."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detector.config.errors import UserError
from detector.training.loss_curves import a_batch, slope
from losses import FocalLoss, SmoothL1Loss
from scripts import plot_embeddings, plot_losses
from scripts.benchmark import evaluation, losses, step, tiles
from scripts.benchmark.__main__ import BENCHMARKS, main
from scripts.benchmark.timing import call_in_process, make_batch, take_turns
from tests.conftest import TINY

SMALL = ["--size", "64", "--batch", "1", "--classes", "3", "--objects", "2", "--rounds", "1"]
SMALL += ["--device", "cpu", "--compile", "none"]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No processes, the start of which takes longer than what they measure."""
    for module in (step, evaluation, tiles):
        monkeypatch.setattr(module, "call_in_process", lambda function, *rest: function(*rest))


def test_without_a_benchmark_there_is_a_list_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 0
        lines = capsys.readouterr().out.splitlines()[2:8]
        assert [line.split()[0] for line in lines] == [*BENCHMARKS]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nsm"], "there is no benchmark nsm; did you mean 'nms'?"),
        (["nms", "--cuonts", "3"], "there is no --cuonts; did you mean '--counts'?"),
        (["step", "--precision", "half"], "--precision"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


def test_rounds_make_all_calls_in_turn() -> None:
    calls: list[str] = []
    times = take_turns({name: lambda name=name: calls.append(name) for name in "ab"}, 3)
    assert calls == ["a", "b"] * 5  # two rounds to warm up
    assert [len(values) for values in times.values()] == [3, 3]


def test_what_a_process_measures_comes_back() -> None:
    assert call_in_process(max, 3, 5) == 5
    with pytest.raises(ZeroDivisionError):
        call_in_process(divmod, 1, 0)


def test_both_losses_compute_the_same() -> None:
    predictions, batch = losses.make_predictions(1, 96, 4, "cpu"), make_batch(1, 96, 4, 3)
    computed = [
        compute(predictions, batch).item()
        for compute in (
            losses.our_loss(FocalLoss(), SmoothL1Loss(beta=0.0), 4, False, "cpu"),
            losses.torchvision_loss(4, 96),
        )
    ]
    assert computed[0] == pytest.approx(computed[1], rel=1e-4)


def test_losses_are_timed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda criterion, fullgraph: criterion)  # takes long
    words = ["losses", "--images", "1", "--size", "64", "--classes", "2", "--objects", "3"]
    times = main([*words, "--rounds", "1", "--device", "cpu"])
    assert len(times) == 1 + 2 * 3
    assert all(seconds > 0 for (seconds,) in times.values())
    assert "of torchvision, focal + L1" in capsys.readouterr().out


def test_whole_steps_of_every_loss_are_timed(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    steps = losses.training_steps(str(path), objects=3, device="cpu")
    assert next(iter(steps)) == "FocalLoss + SmoothL1Loss"
    assert len(steps) == 5 + 9 - 1  # classification and box losses; the first pair has one of each
    few = dict(list(steps.items())[:2])
    assert all(seconds > 0 for (seconds,) in take_turns(few, 1).values())


def test_compare_nms_is_timed(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--counts", "30", "40", "--classes", "2", "--rounds", "1", "--device", "cpu"]
    measured = main(["nms", *words])
    assert list(measured) == [(30, 2), (40, 2)]
    assert capsys.readouterr().out.splitlines()[-1].split()[:2] == ["40", "2"]


def test_loading_is_timed(capsys: pytest.CaptureFixture[str]) -> None:
    usual, large = main(["loader", "--size", "64", "--images", "4", "--rounds", "1"])
    assert list(usual) == ["torchvision", "ours"]
    assert list(large) == ["torchvision", "ours", "ours, data.reduce false"]
    assert "JPEG 128 x 128 to 64 x 64" in capsys.readouterr().out


def test_evaluation_is_timed_on_equal_figures(
    in_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = main(["evaluation", "--images", "6", "--classes", "3", "--detections", "10"])
    figures = [measurement.ap for measurement in measured.values()]
    assert len(figures) == 5
    assert figures == pytest.approx([figures[0]] * 5, abs=1e-12)
    assert figures[0] > 0
    assert "GiB more" in capsys.readouterr().out


def test_objects_in_a_large_image_are_counted(
    in_process: None, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--run", str(run), "--side", "300", "--objects", "4", "--score", "0.01"]
    measured = main(["tiles", *words])
    assert list(measured) == ["whole", "tiles"]
    assert "4 objects in 300 x 300 pixels" in capsys.readouterr().out
    objects = tiles.draw_large(tmp_path / "image.png", 300, 4)
    assert tiles.count_found(objects, objects) == 4
    twice = [{**objects[0], "bbox": objects[0]["bbox"]}, objects[0]]
    assert tiles.count_found(objects, twice) == 1  # a second detection finds nothing more
    assert tiles.count_found(objects, [{**objects[0], "category": "other"}]) == 0
    for side in (100, 200):
        with pytest.raises(UserError, match="500 objects do not fit"):
            tiles.draw_large(tmp_path / "full.png", side, 500)
    far = [{**row, "bbox": [0, 0, 5, 5]} for row in objects]
    assert tiles.count_found(objects, far) == tiles.count_found(objects, []) == 0
    image = cv2.imread(str(tmp_path / "image.png"))
    for row in objects:  # it stands out from what is around it
        x, y, width, height = row["bbox"]
        inside = image[round(y + height / 2), round(x + width / 2)].astype(float)
        outside = image[round(y - 6), round(x - 6)].astype(float)
        assert row["category"] == "ring" or np.abs(inside - outside).sum() > 40


def test_steps_are_timed(
    in_process: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(step.PRODUCT, "cpu", 64)
    measured = main(["step", *SMALL])
    printed = capsys.readouterr().out
    assert all(part in printed for part in step.PARTS)
    assert list(measured["steps"]) == list(measured["memory"]) == ["torchvision", "ours"]
    assert list(measured["inference"]) == ["torchvision", "ours, diou", "ours, hard"]
    assert all(seconds > 0 for values in measured["parts"].values() for seconds in values)


def test_both_sides_have_the_same_weights_and_train() -> None:
    setting = step.Setting(18, 64, 1, 3, 2, 1, "cpu", "32-true", "none")
    nets = setting.make_detector().net, setting.make_peer()
    counts = [sum(p.numel() for p in net.parameters()) for net in nets]
    # torchvision's anchors come in three ratios and three sizes, too, and its body is without the
    # classifier for ImageNet, as ours
    assert counts[0] == counts[1]
    for side in step.SIDES:
        load, predict, compute_loss, backward, update = step.training_parts(side, setting).values()
        loss = compute_loss(predict(load(None)))
        backward(loss)
        update(None)
        assert compute_loss(predict(load(None))).item() != loss.item()


def test_examples_of_the_focal_paper() -> None:
    rows = [line.split("|")[1:-1] for line in plot_losses.examples_table().splitlines()[2:]]
    ratios = {float(row[0]): float(row[3].replace(",", "")) for row in rows}
    assert ratios == {0.99: 10_000, 0.95: 400, 0.9: 100, 0.5: 4, 0.1: 1.2}


def test_reformulated_gradients_of_ghm_share_equally() -> None:
    logits, labels = a_batch(20_000)
    norm = slope(plot_losses.SigmoidCrossEntropy(), logits, labels)
    found = slope(plot_losses.GHMC(momentum=0), logits, labels)
    which = (norm * 30).long()
    sums = torch.zeros(30).scatter_add_(0, which, found / norm)
    filled = torch.bincount(which, minlength=30) > 0
    torch.testing.assert_close(sums[filled], torch.full((30,), 1 / filled.sum())[filled])


def test_figures_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="figures need the extra 'plots'")
    plot_losses.main(["--out", str(tmp_path)])
    names = {"focal", "ghm", "fixed_points", "deltas", "overlaps"}
    assert {path.stem for path in tmp_path.glob("*.png")} == names


def test_figures_of_embedding_losses_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="figures need the extra 'plots'")
    words = ["--out", str(tmp_path), "--steps", "1", "--images", "24"]
    plot_embeddings.main(words)
    assert {path.name for path in tmp_path.glob("*.png")} == {"margins.png", "features.png"}
    plot_embeddings.main(words)  # its own figures are replaced, a file of somebody else is not
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "margins.png").write_bytes(b"theirs")
    with pytest.raises(SystemExit) as caught:
        plot_embeddings.main([*words[2:], "--out", str(tmp_path / "theirs")])
    assert caught.value.code == 2
    assert (tmp_path / "theirs" / "margins.png").read_bytes() == b"theirs"


def test_examples_of_identities_depend_on_the_seed_alone() -> None:
    images, numbers = plot_embeddings.draw_examples(10, seed=1)
    again, _ = plot_embeddings.draw_examples(10, seed=1)
    other, _ = plot_embeddings.draw_examples(10, seed=2)
    assert images.shape == (10, 3, plot_embeddings.SIDE, plot_embeddings.SIDE)
    assert torch.equal(images, again)
    assert not torch.equal(images, other)
    assert numbers.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]
