"""The real commands: train, resume, evaluate, and the mistakes people make."""

import contextlib
import importlib.util
import io
import json
import math
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import eval as evaluation
import train
from detector.config.resolve import load
from losses import GHMC
from tests.conftest import with_root

ROOT = Path(__file__).parents[1]


def events(run: Path) -> EventAccumulator:
    reader = EventAccumulator(str(run), size_guidance={"tensors": 0, "scalars": 0})
    reader.Reload()
    return reader


def losses(run: Path) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(run).Scalars("train/loss")]


def weights(run: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def command(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A real process; 120 seconds at most."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        cwd=cwd or ROOT,
        env=environment,
        timeout=240,
    )


def test_a_run_folder_is_complete(run: Path) -> None:
    config = load(run / "config.yaml")
    assert config["data"]["classes"] == ["disk", "square", "triangle", "star", "ring", "cross"]
    assert config["model"]["class_loss"]["name"] == "FocalLoss"
    for name in ("best", "last"):
        assert (run / "checkpoints" / f"{name}.ckpt").is_file()
        assert not (run / "checkpoints" / f"{name}.ckpt").is_symlink()
    metrics = json.loads((run / "metrics.json").read_text())
    assert [line["epoch"] for line in metrics["epochs"]] == [1, 2]
    assert metrics["best"]["val/AP"] == max(line["val/AP"] for line in metrics["epochs"])


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """What train.py does before the first step, and then an InterruptedError."""

    def interrupt(*_: Any) -> None:
        raise InterruptedError

    monkeypatch.setattr("detector.training.trainer.log_config", interrupt)


def test_what_must_be_known_of_a_loss_is_printed_before_training(
    tiny: list[str], tmp_path: Path, capsys: Any, no_training: None
) -> None:
    words = [*tiny, "--model.class_loss", "GHMC", "--run", str(tmp_path / "run")]
    with pytest.raises(InterruptedError):
        train.main(words)
    assert GHMC().advice in capsys.readouterr().out.splitlines()
    with pytest.raises(InterruptedError):
        train.main([*tiny, "--data.class_weights", "0.5", "--run", str(tmp_path / "weighted")])
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("class weights: "))
    assert line.startswith("class weights: disk 0.")  # the most frequent one


def test_the_precision_that_auto_stands_for_is_kept_and_told(
    tiny: list[str],
    tmp_path: Path,
    capsys: Any,
    no_training: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("detector.training.trainer.choose_precision", lambda _: "bf16-mixed")
    run = tmp_path / "run"
    with pytest.raises(InterruptedError):
        train.main([*tiny, "--trainer.precision", "auto", "--run", str(run)])
    assert load(run / "config.yaml")["trainer"]["precision"] == "bf16-mixed"
    assert "precision: bf16-mixed, by what the device computes in" in capsys.readouterr().out


def test_checkpoint_weights_are_named_net_and_losses_only(run: Path) -> None:
    names = weights(run)["state_dict"]
    assert {name.split(".")[0] for name in names} <= {"net", "losses"}


def test_tensorboard_has_what_users_look_for(run: Path) -> None:
    tags = events(run).Tags()
    scalars = {"train/loss", "train/class", "train/box", "train/lr", "train/gradient_norm"}
    scalars |= {"train/num_foreground", "AP/AP", "AP/AP50", "AP/AP75", "val/class", "val/box"}
    assert scalars <= set(tags["scalars"])
    assert min(tags["scalars"]) == "AP/AP"  # what TensorBoard shows first
    expected = {"train/batch", "val/truth_and_detections"}
    if importlib.util.find_spec("matplotlib"):
        expected.add("train/gradients")
    assert set(tags["images"]) == expected
    assert (run / "train_batch.png").is_file()
    assert "config/text_summary" in tags["tensors"]
    assert len(losses(run)) == 8  # 2 epochs of 16 / 4 steps, read at every one


def test_eval_equals_pycocotools_on_the_written_json(run: Path, shapes: Path, capsys: Any) -> None:
    out = run / "detections.json"
    words = [str(run), "--out", str(out), "--score_threshold", "0.001"]
    figures = evaluation.main(words)
    rows = json.loads(out.read_text())
    truth = shapes / "annotations" / "instances_val.json"
    names = {image["id"]: image["file_name"] for image in json.loads(truth.read_text())["images"]}
    assert rows
    assert all(names[row["image_id"]] == row["file_name"] for row in rows)
    with contextlib.redirect_stdout(io.StringIO()):
        objects = COCO(str(truth))
        reference = COCOeval(objects, objects.loadRes(rows), "bbox")
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    expected = [value if value >= 0 else float("nan") for value in reference.stats.tolist()]
    assert list(figures.values()) == pytest.approx(expected, nan_ok=True)
    printed = capsys.readouterr().out
    assert "AR100" in printed
    assert "triangle" in printed
    saved = json.loads((run / "eval" / "metrics.json").read_text())
    assert saved["summary"]["AP"] == pytest.approx(figures["AP"])


@pytest.mark.parametrize(
    (
        "batch_size",
        "size",
    ),  # 6: an uneven last batch; the images are square: the wide one is padded
    [("1", "[64, 64]"), ("6", "[64, 64]"), ("1", "[64, 128]"), ("8", "[64, 128]")],
)
def test_figures_do_not_depend_on_the_batch_size(run: Path, batch_size: str, size: str) -> None:
    flags = ["--score_threshold", "0.001", "--data.size", size]
    one = evaluation.main([str(run), *flags])
    other = evaluation.main([str(run), *flags, "--data.batch_size", batch_size])
    assert one == pytest.approx(other, abs=1e-6, nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_resume_goes_on_exactly(tiny: list[str], tmp_path: Path, workers: str) -> None:
    flags = ["--data.workers", workers, "--data.color", "0.5", "--ema.decay", "0.9"]
    flags += ["--schedule.name", "cosine"]
    whole = train.main(
        [*tiny, *flags, "--run", str(tmp_path / "whole"), "--trainer.max_epochs", "3"]
    )

    # the schedule knows three epochs, and the process is cut off after one
    class Cut(KeyboardInterrupt):
        pass

    def cut(self: Any, *_: Any) -> None:
        if self.trainer.current_epoch == 1:
            raise Cut

    from detector.module import Detector

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(SystemExit, Cut):
        patch.setattr(Detector, "on_train_epoch_start", cut, raising=False)
        train.main([*tiny, *flags, "--run", str(tmp_path / "parts"), "--trainer.max_epochs", "3"])
    assert weights(tmp_path / "parts")["epoch"] == 0
    resumed = train.main(["--resume", str(tmp_path / "parts")])
    assert losses(resumed) == losses(whole)
    for key in ("state_dict", "current_model_state"):
        for name, value in weights(whole)[key].items():
            assert torch.equal(value, weights(resumed)[key][name]), name
    epochs = json.loads((resumed / "metrics.json").read_text())["epochs"]
    assert [line["epoch"] for line in epochs] == [1, 2, 3]


def test_explicit_flags_beat_what_the_checkpoint_remembers(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    flags = [
        "--optimizer.lr",
        "0.5",
        "--optimizer.weight_decay",
        "0.25",
        "--trainer.max_epochs",
        "3",
    ]
    train.main(["--resume", str(copy), *flags])
    decayed, others = weights(copy)["optimizer_states"][0]["param_groups"]
    # a tenth of 0.5 at update 12 of 12, after one milestone
    assert decayed["lr"] == others["lr"] == pytest.approx(0.05)
    assert decayed["weight_decay"] == 0.25


@pytest.mark.parametrize(
    ("flags", "shares"),  # of the run, at the updates that are left
    [
        ("--data.batch_size 2 --trainer.max_epochs 4", [k / 32 for k in range(16, 32)]),
        (
            "--trainer.accumulate_grad_batches 3 --trainer.max_epochs 4",
            [k / 8 for k in (4, 5, 6, 7)],
        ),
        ("--data.batch_size 8 --trainer.max_epochs 9 --trainer.max_steps 10", [0.8, 0.9]),
    ],
)
def test_resume_with_other_images_per_update_goes_on_at_its_epoch(
    flags: str, shares: list[float], run: Path, tmp_path: Path
) -> None:
    """After two of four epochs a cosine is at its half, however many updates they had. Where
    max_steps ends the run, the 8 updates that it has seen count."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    words = ["--schedule.name", "cosine", "--schedule.warmup", "0", "--trainer.limit_val_batches"]
    train.main(["--resume", str(copy), *flags.split(), *words, "1"])
    expected = [0.01 * (1 + math.cos(math.pi * share)) / 2 for share in shares]
    rates = [event.value for event in events(copy).Scalars("train/lr") if event.step > 8]
    assert rates == pytest.approx(expected)


def test_resume_with_another_loss_keeps_the_net(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    flags = ["--model.class_loss", "SigmoidCrossEntropy", "--trainer.max_epochs", "3"]
    train.main(["--resume", str(copy), *flags])
    assert load(copy / "config.yaml")["model"]["class_loss"]["name"] == "SigmoidCrossEntropy"
    assert weights(copy)["epoch"] == 2


def error_of(main: Any, words: list[str], capsys: Any) -> str:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    return lines[0]


def test_a_name_that_is_taken_is_an_error(run: Path, tiny: list[str], capsys: Any) -> None:
    line = error_of(train.main, [*tiny, "--run", str(run)], capsys)
    assert "--resume" in line


def test_a_run_that_is_none(capsys: Any, tmp_path: Path) -> None:
    assert "is not a run" in error_of(evaluation.main, [str(tmp_path / "nothing")], capsys)
    assert "is not a run" in error_of(train.main, ["--resume", str(tmp_path / "nothing")], capsys)


def test_a_checkpoint_that_is_none(run: Path, tmp_path: Path, capsys: Any) -> None:
    assert "best, last" in error_of(evaluation.main, [str(run), "--checkpoint", "wurst"], capsys)
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(b"no checkpoint")
    line = error_of(evaluation.main, [str(run), "--checkpoint", str(broken)], capsys)
    assert "cannot be read as a checkpoint" in line


def test_a_checkpoint_of_another_model(
    run: Path, tiny: list[str], tmp_path: Path, capsys: Any
) -> None:
    other = train.main(
        [
            *tiny,
            "--run",
            str(tmp_path / "other"),
            "--model.channels",
            "8",
            "--trainer.max_epochs",
            "1",
        ]
    )
    path = str(other / "checkpoints" / "last.ckpt")
    assert "of another model" in error_of(evaluation.main, [str(run), "--checkpoint", path], capsys)


def test_a_broken_image_stops_with_its_name(
    shapes: Path, tiny: list[str], tmp_path: Path, capsys: Any
) -> None:
    root = tmp_path / "data"
    shutil.copytree(shapes, root)
    image = sorted((root / "train").iterdir())[3]
    image.write_bytes(b"no image")
    for workers in ("0", "1"):
        words = [*with_root(tiny, root), "--data.workers", workers]
        line = error_of(train.main, [*words, "--run", str(tmp_path / workers)], capsys)
        assert image.name in line


def test_evaluation_on_data_with_other_classes(
    run: Path, shapes: Path, tmp_path: Path, capsys: Any
) -> None:
    root = tmp_path / "data"
    shutil.copytree(shapes, root)
    path = root / "annotations" / "instances_val.json"
    path.write_text(path.read_text().replace('"star"', '"comet"'))
    line = error_of(evaluation.main, [str(run), "--data.root", str(root)], capsys)
    assert "star" in line
    assert "comet" in line


def test_evaluation_with_the_classes_in_another_order(run: Path, capsys: Any) -> None:
    classes = load(run / "config.yaml")["data"]["classes"]
    words = [str(run), "--data.classes", f"[{', '.join(reversed(classes))}]"]
    line = error_of(evaluation.main, words, capsys)
    assert f"was trained on the classes {', '.join(classes)}, in this order" in line
    assert "leave out data.classes" in line


def test_starting_from_an_earlier_run_with_other_classes(
    run: Path, shapes: Path, tiny: list[str], tmp_path: Path, capsys: Any
) -> None:
    words = [*tiny, "--run", str(tmp_path / "new"), "--trainer.max_epochs", "1"]
    train.main([*words, "--model.weights", str(run), "--data.classes", "[disk, ring]"])
    assert "the last layer of the class head is new" in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one(run: Path) -> None:
    flags = ["--score_threshold", "0.001", "--data.batch_size", "4"]
    one = evaluation.main([str(run), *flags])
    two = command(
        "eval.py", str(run), *flags, "--trainer.devices", "2", "--trainer.strategy", "ddp"
    )
    assert two.returncode == 0, two.stderr
    saved = json.loads((run / "eval" / "metrics.json").read_text())["summary"]
    saved = {name: float("nan") if value is None else value for name, value in saved.items()}
    assert saved == pytest.approx(one, abs=1e-6, nan_ok=True)


@pytest.mark.slow
def test_two_processes_train_as_one_on_the_joint_batch(tiny: list[str], tmp_path: Path) -> None:
    one = train.main([*tiny, "--run", str(tmp_path / "one"), "--trainer.max_epochs", "1"])
    words = [*tiny, "--run", str(tmp_path / "two"), "--trainer.max_epochs", "1"]
    words += ["--data.batch_size", "2", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    done = command("train.py", *words)
    assert done.returncode == 0, done.stderr
    two = tmp_path / "two"
    assert [step for step, _ in losses(one)] == [step for step, _ in losses(two)]
    assert [v for _, v in losses(two)] == pytest.approx([v for _, v in losses(one)], rel=1e-4)
    expected, found = weights(one)["state_dict"], weights(two)["state_dict"]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-3)


@pytest.mark.slow
def test_torchrun_joins_two_machines(tiny: list[str], tmp_path: Path) -> None:
    """Two processes of this one stand for them; the docs show this command."""
    shared = [*tiny, "--trainer.max_epochs", "1", "--data.batch_size", "2"]
    words = [*shared, "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    done = command("train.py", *words, "--run", str(tmp_path / "one"))
    assert done.returncode == 0, done.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--master_port"]
    launch += [str(port), "--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--node_rank"]
    words = [*shared, "--trainer.devices", "1", "--trainer.num_nodes", "2"]
    nodes = [
        subprocess.Popen(
            [*launch, str(k), "--", "train.py", *words, "--run", str(tmp_path / "two")], cwd=ROOT
        )
        for k in range(2)
    ]
    assert [node.wait(300) for node in nodes] == [0, 0]
    one, two = (tmp_path / name for name in ("one", "two"))
    assert losses(one) == losses(two)
    expected, found = weights(one)["state_dict"], weights(two)["state_dict"]
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.slow
def test_it_memorizes_eight_images(shapes: Path, tiny: list[str], tmp_path: Path) -> None:
    root = tmp_path / "eight"
    content = json.loads((shapes / "annotations" / "instances_train.json").read_text())
    with_objects = {row["image_id"] for row in content["annotations"]}
    content["images"] = [image for image in content["images"] if image["id"] in with_objects][:8]
    chosen = {image["id"] for image in content["images"]}
    content["annotations"] = [r for r in content["annotations"] if r["image_id"] in chosen]
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    flags = ["--data.images", str(shapes / "train"), "--data.hflip", "0"]
    flags += ["--model.width", "32", "--model.channels", "64", "--model.convs", "2"]
    flags += ["--model.head_norm", "group", "--optimizer.name", "adamw", "--optimizer.lr", "0.001"]
    flags += ["--schedule.name", "cosine", "--data.batch_size", "8", "--data.cache", "true"]
    flags += ["--trainer.max_epochs", "250", "--trainer.check_val_every_n_epoch", "250"]
    folder = train.main([*with_root(tiny, root), *flags, "--run", str(tmp_path / "run")])
    best = json.loads((folder / "metrics.json").read_text())["best"]
    assert best["val/AP50"] > 0.95


def test_a_run_stops_where_its_ap_no_longer_rises(
    tiny: list[str], tmp_path: Path, capsys: Any
) -> None:
    """Weights that do not move: the first AP is the highest, and one validation without a higher
    one is enough."""
    frozen = ["--optimizer.lr", "1e-30", "--early_stopping.patience", "1"]
    run = train.main([*tiny, *frozen, "--trainer.max_epochs", "6", "--run", str(tmp_path / "run")])
    text = capsys.readouterr().out
    assert "stopping: in 1 validations AP was not above" in text
    assert "max_time" not in text
    epochs = json.loads((run / "metrics.json").read_text())["epochs"]
    assert [line["epoch"] for line in epochs] == [1, 2]
    assert all("val/AP" in line for line in epochs)
    train.main(["--resume", str(run), "--early_stopping.patience", "3"])
    assert "stopping: in 3 validations AP was not above" in capsys.readouterr().out
    epochs = json.loads((run / "metrics.json").read_text())["epochs"]
    assert [line["epoch"] for line in epochs] == [1, 2, 3, 4]
    train.main(["--resume", str(run), "--early_stopping.patience", "0"])  # without a warning
    assert len(json.loads((run / "metrics.json").read_text())["epochs"]) == 6


def test_validations_without_an_object_stop_no_run(
    tiny: list[str], shapes: Path, tmp_path: Path, capsys: Any
) -> None:
    """Of which AP is nan: neither above the highest nor below it."""
    root = tmp_path / "data"
    shutil.copytree(shapes, root)
    path = root / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    seen = {image["id"] for image in content["images"][:4]}
    content["annotations"] = [r for r in content["annotations"] if r["image_id"] not in seen]
    path.write_text(json.dumps(content))
    words = ["--early_stopping.patience", "1", "--trainer.limit_val_batches", "1"]
    run = train.main([*with_root(tiny, root), *words, "--run", str(tmp_path / "run")])
    epochs = json.loads((run / "metrics.json").read_text())["epochs"]
    assert [line["val/AP"] for line in epochs] == [None, None]
    assert "stopping" not in (text := capsys.readouterr().out)
    assert "best" not in text
