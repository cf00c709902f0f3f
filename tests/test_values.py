"""Every value at the edge of what a key takes works, or is refused by the key's name before
anything is trained or written."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import train
from data.shapes import draw_dataset
from detector.config.errors import UserError
from detector.config.options import OPTIONS
from detector.config.resolve import resolve
from detector.config.signatures import trainer_arguments
from detector.config.trainer_options import REFUSED

NOT_TEXT = ([], {}, True)
NOT_TRUTH = ("yes", 0, 1, None, "banana")
SHARES = ((0, 0.0, 0.5, 1), (-0.1, 1.1, "half", None, True, [0.5]))
BELOW_ONE = ((0, 0.999), (1, -0.1, "half", None, True))
COUNTS = ((1, 10**6), (0, -1, 1.5, "many", None, True, [1]))
NATURALS = ((0, 1, 10**6), (-1, 1.5, "many", None, True, [1]))
POSITIVE = ((1, 1e-30, 1e30), (0, -1, "much", None, True))
LIMITS = ((1, 1000, 1.0, 0.001, None), (0, 0.0, -1, 1.5, "half", True, [1]))
TRUTHS = ((True, False), NOT_TRUTH)
TIMES = ("00:00:00:01", {"hours": 1})
NO_TIMES = ("00:00:00:00", "10", "banana", -1, {}, {"apples": 1}, {"hours": -1})
# Key -> values that are taken, and values that are refused
EDGES: dict[str, tuple[Sequence[Any], Sequence[Any]]] = {
    "run": (("name", None), (True, [], {})),
    "seed": ((0, 2**32 - 1), (2**32, -1, 1.5, None, "one")),
    "resume": (("name", None), (True, [])),
    "data.format": (("auto", "coco", "voc", "yolo", "shapes", "identities"), ("COCO", "x", None)),
    "data.root": (("datasets",), (None, *NOT_TEXT)),
    **dict.fromkeys(("data.train", "data.val"), (("a", ["a", "b"]), ([], None, True, [1.5]))),
    **dict.fromkeys(("data.annotations", "data.images"), (("{split}", None), NOT_TEXT)),
    "data.classes": ((["a"], None), ([], "a", 3)),
    "data.single_class": TRUTHS,
    "data.size": (([1, 1], [64, 100]), ([64], 64, [0, 64], [64, -1], [64, 1.5], None, "64x64")),
    "data.short": ((1, [32, 64], None), ([], 0, [0], -1, "a")),
    "data.long": COUNTS,
    "data.batch_size": COUNTS,
    "data.workers": NATURALS,
    "data.cache": TRUTHS,
    "data.reduce": TRUTHS,
    **dict.fromkeys(
        ("data.hflip", "data.vflip", "data.color", "data.zoom", "data.label_noise"), SHARES
    ),
    "data.noise_kind": (("mixed", "class", "missing", "shifted"), ("all", None, 1)),
    **dict.fromkeys(("data.class_weights", "data.oversample"), SHARES),
    "data.identity": (("track_id",), (None, *NOT_TEXT)),
    "data.identities": (([2, 2], None), ([2], [0, 2], 2, "a")),
    "data.holdout": BELOW_ONE,
    "model.depth": ((10, 152), (0, 20, "50", None)),
    "model.width": ((8, 9), (7, 0, -8, 8.5, None)),
    "model.norm": (("frozen", "batch", "group"), ("layer", None, 1)),
    "model.freeze": ((0, 5), (-1, 6, None)),
    "model.weights": (("imagenet", None), NOT_TEXT),
    "model.channels": COUNTS,
    "model.convs": NATURALS,
    "model.head_norm": (("none", "group"), ("batch", None)),
    "model.p6": (("p5", "c5"), ("p6", None)),
    "model.prior": ((1e-30, 0.5), (0, 1, -1, None)),
    "model.anchors.sizes": (
        ([1, 1, 1, 1, 1],),
        ([1], [1, 1, 1, 1, 0], 32, None),
    ),
    "model.anchors.ratios": (([1], [1e-9]), ([], [0], 1, None)),
    "model.anchors.scales": COUNTS,
    "model.anchors.rounding": (("exact", "torchvision"), ("none", None)),
    "model.match.metric": (("iou", "giou", "diou", "ciou"), ("eiou", None)),
    **dict.fromkeys(
        ("model.match.foreground", "model.match.background"), ((None,), (-0.1, 1.1, "half"))
    ),
    "model.match.force": (("object", "torchvision", "none"), (True, None)),
    "model.class_loss": (("FocalLoss", {"name": "GHMC", "bins": 1}), ("Focal", None, [], "L1Loss")),
    "model.box_loss": (("L1Loss", "GIoULoss"), ("L3Loss", None, 3, "FocalLoss")),
    "model.embedding.size": ((0,), (-1, 1.5, None)),
    "model.embedding.samples": COUNTS,
    "model.embedding_loss": (([], None), ("Arc", 3, "")),
    "postprocess.nms": (("hard", "diou", "soft"), ("all", None)),
    "postprocess.iou_threshold": SHARES,
    "postprocess.beta": POSITIVE,
    "postprocess.sigma": ((0.5, None), (0, -1, "a")),
    "postprocess.class_agnostic": TRUTHS,
    "postprocess.score_threshold": BELOW_ONE,
    "postprocess.candidates": COUNTS,
    "postprocess.max_detections": COUNTS,
    "optimizer.name": (("sgd", "adamw"), ("adam", None)),
    "optimizer.lr": POSITIVE,
    "optimizer.loss_lr": POSITIVE,
    "optimizer.momentum": BELOW_ONE,
    "optimizer.weight_decay": ((0, 1e30), (-1, None, "a")),
    "optimizer.reference_batch": NATURALS,
    "schedule.name": (("multistep", "cosine"), ("step", None)),
    "schedule.warmup": NATURALS,
    "schedule.milestones": (([], [0], [1], [0.9, 0.1]), ([2], [-1], 0.5, None)),
    "schedule.gamma": POSITIVE,
    "ema.decay": BELOW_ONE,
    "early_stopping.patience": NATURALS,
    "speed.channels_last": TRUTHS,
    "speed.compile": (("none", "losses", "all"), (True, None, "net")),
    "trainer.max_epochs": ((1,), (0, -1, -2, 1.5, None, "a")),  # -1 needs another end
    "trainer.precision": (
        ("32-true", "bf16-mixed", "16-mixed", "auto"),
        (32, 16, 64, "bf16", None),
    ),
    "trainer.gradient_clip_val": ((0, None, 1e30), (-1, "inf", ".nan")),
    "trainer.log_every_n_steps": COUNTS,
    "trainer.accelerator": (
        ("auto", "cpu", "gpu", "cuda", "mps"),
        ("CPU", "tpu", "cuda:0", 3, None),
    ),
    "trainer.strategy": (("auto", "ddp"), ("dp", "fsdp", "deepspeed", None)),
    "trainer.devices": (
        (1, -1, "auto", "1", "0,1", [0], [0, 1]),
        (0, -2, 1.5, True, None, [], [0, 0], [-1], "all", "0", ""),
    ),
    "trainer.num_nodes": COUNTS,
    "trainer.min_epochs": ((0, None), (3, -1, 1.5)),  # 3 has an effect where a run can end early
    "trainer.min_steps": ((0, None), (3, -1, 1.5)),
    "trainer.max_steps": ((1, -1), (0, -2, None, 1.5)),
    "trainer.max_time": ((*TIMES, None), NO_TIMES),
    "trainer.limit_train_batches": LIMITS,
    "trainer.limit_val_batches": LIMITS,
    "trainer.overfit_batches": ((0, 0.0, 1, 0.5, 1000), (-1, 1.5, None, True)),
    "trainer.val_check_interval": (
        (1, 1000, 0.5, 1.0, None, *TIMES),
        (0, 0.0, -1, 1.5, *(time for time in NO_TIMES if time != {})),
    ),
    "trainer.check_val_every_n_epoch": ((1, 1000, None), (0, -1, 1.5)),
    "trainer.num_sanity_val_steps": ((0, 1, -1), (-2, 1.5, None)),
    "trainer.enable_progress_bar": TRUTHS,
    "trainer.enable_model_summary": TRUTHS,
    "trainer.accumulate_grad_batches": COUNTS,
    "trainer.gradient_clip_algorithm": (("norm", "value", None), ("mean", 2)),
    "trainer.deterministic": ((True, False, "warn", None), ("banana", 1)),
    "trainer.benchmark": ((True, None), ("banana", 1)),
    "trainer.inference_mode": TRUTHS,
    "trainer.profiler": (("simple", "advanced", "pytorch", None), ("xla", True)),
    "trainer.detect_anomaly": TRUTHS,
    "trainer.sync_batchnorm": ((False,), (True, None, 1)),  # the norm is frozen
    "trainer.reload_dataloaders_every_n_epochs": NATURALS,
    **{f"trainer.{key}": ((), (True, None, 1, "x")) for key in REFUSED},
}


def test_every_key_has_edges() -> None:
    assert set(EDGES) == {*OPTIONS, *(f"trainer.{key}" for key in trainer_arguments())}


@pytest.mark.parametrize("key", EDGES)
def test_values_are_taken_or_refused_by_name(key: str) -> None:
    taken, refused = EDGES[key]
    for value in taken:
        resolve(overrides={key: value})
    for value in refused:
        with pytest.raises(UserError) as error:
            resolve(overrides={key: value})
        assert str(error.value).startswith(key.partition("_loss")[0]), (value, str(error.value))
        assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> list[str]:
    """The shortest training: two steps of an epoch, two epochs, one validation batch."""
    root = tmp_path_factory.mktemp("values") / "data"
    draw_dataset(root, train=8, val=4, size=64)
    (path := root.parent / "small.yaml").write_text(
        "data: {size: [64, 64]}\nmodel: {depth: 10}\ntrainer: {log_every_n_steps: 1000}"
    )
    return [*tiny[:-1], str(root), "--config", str(path)]


@pytest.mark.parametrize(
    "flags",
    [
        # the end of a training: within an epoch, by time
        "--trainer.max_epochs -1 --trainer.max_steps 3 --trainer.check_val_every_n_epoch 7",
        "--trainer.max_time 00:00:00:01 --trainer.max_epochs 10000 --ema.decay 0.999 "
        "--trainer.check_val_every_n_epoch 9999",
        # when it is validated
        "--trainer.check_val_every_n_epoch null --trainer.val_check_interval 3",
        "--trainer.val_check_interval 00:01:00:00 --trainer.num_sanity_val_steps -1",
        # steps that are none of their own
        "--trainer.accumulate_grad_batches 100 --trainer.gradient_clip_val null "
        "--trainer.overfit_batches 1 --data.batch_size 1000 --schedule.milestones []",
        # numbers that are divided by, and sizes that hardly fit
        "--model.width 9 --model.channels 33 --model.head_norm group --model.convs 0 "
        "--data.size [1,1] --data.batch_size 3 --model.anchors.scales 1 --trainer.profiler simple",
    ],
)
def test_a_training_ends_with_figures(
    flags: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train.main([*words, "--run", str(tmp_path / "run"), *flags.split()])
    last = json.loads((run / "metrics.json").read_text())["epochs"][-1]
    assert all(math.isfinite(last[f"val/{name}"]) for name in ("AP", "class", "box")), last
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1].startswith("best: epoch ")
    assert "could not find the monitored key" not in printed.err


@pytest.mark.parametrize(
    "flags",
    [
        "--trainer.accelerator gpu",  # no such device here
        "--trainer.devices [0]",  # a CPU has no numbers
        "--trainer.precision 16-mixed",  # where Lightning would take another one
        "--trainer.limit_train_batches 0.001",
        "--trainer.limit_val_batches 0.5",
        "--trainer.overfit_batches 0.5",
        "--trainer.val_check_interval 3",
        "--trainer.val_check_interval 2 --trainer.devices 2 --trainer.strategy ddp",
        "--trainer.gradient_clip_algorithm value --trainer.gradient_clip_val null",
        "--data.identities [2,2]",
        "--data.zoom 1",
        "--data.short 64 --data.long 32",
        "--model.class_loss.gamma -1",
        "--model.class_loss.alpha 2",
        "--model.box_loss.beta -1",
        "--model.box_loss.weight -1",
    ],
)
def test_what_cannot_be_is_refused_before_training(
    flags: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        train.main([*words, "--run", str(tmp_path / "run"), *flags.split()])
    lines = capsys.readouterr().err.strip().splitlines()
    assert error.value.code == 2
    assert len(lines) == 1
    key = flags.split()[0].removeprefix("--")
    assert lines[0].startswith("error: ")
    assert key.rpartition(".")[2] in lines[0].replace("model.box_loss", key)
    assert not (tmp_path / "run").exists()


def test_a_training_that_was_cut_short_goes_on_with_the_next_epoch(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    train.main([*words, "--run", run, "--trainer.max_steps", "1"])
    train.main(["--resume", run, "--trainer.max_steps", "3"])
    epochs = json.loads((tmp_path / "run" / "metrics.json").read_text())["epochs"]
    assert [line["epoch"] for line in epochs] == [1, 2]  # of 1 update and of 2
    for flags, limits in (
        ("", "trainer.max_epochs and trainer.max_steps"),  # an epoch that was cut short is one
        ("--trainer.max_steps -1", "trainer.max_epochs"),
        ("--trainer.max_epochs 9 --trainer.max_steps 3", "trainer.max_steps"),
    ):
        capsys.readouterr()
        train.main(["--resume", run, *flags.split()])
        line = "nothing was left to train: to go on give a larger "
        assert line + limits in capsys.readouterr().out.splitlines()
    with pytest.raises(SystemExit):
        train.main(["--resume", run, "--run", "other"])
    assert "leave out --run" in capsys.readouterr().err


def test_a_training_that_diverges_is_an_error(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--optimizer.lr", "1e30", "--trainer.gradient_clip_val", "null"]
    with pytest.raises(SystemExit) as error:
        train.main([*words, "--run", str(tmp_path / "run"), *flags])
    assert error.value.code == 2
    assert "not finite" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()
