"""What the Trainers are made of."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, Timer
from torch import Tensor
from torch._inductor.exc import CppCompileError
from torch.utils.data import DataLoader

from detector.config.errors import UserError
from detector.run.folder import add_epoch, best_epoch
from detector.training.averaging import RampedEMA
from detector.training.callbacks import Bar, EpochLine, FinalValidation, StepFigures
from detector.training.checkpoint_io import Saver
from detector.training.early_stopping import StopEarly
from detector.training.gradient_pictures import GradientPictures
from detector.training.quiet import quiet
from detector.training.trainer import (
    choose_precision,
    make_evaluation_trainer,
    make_trainer,
    one_line_failures,
    reached_limits,
)

OPTIONS = {"accelerator": "cpu", "max_epochs": 7, "log_every_n_steps": 3, "limit_val_batches": 5}


class Evaluator(pl.Callback):
    pass


def trainer(run: Path, decay: float = 0.0, patience: int = 0, **options: Any) -> pl.Trainer:
    config = {"trainer": OPTIONS | options, "ema": {"decay": decay}}
    config["early_stopping"] = {"patience": patience}
    return make_trainer(config, run, [Evaluator()], lambda _: None)


def kinds(loop: pl.Trainer) -> list[type]:
    return [type(callback) for callback in loop.callbacks]  # type: ignore[attr-defined]


def test_callbacks_come_in_order_and_options_pass(tmp_path: Path) -> None:
    loop = trainer(tmp_path, enable_progress_bar=False)
    saving = [Saver, Saver]
    watching = [GradientPictures, Evaluator, StepFigures, FinalValidation, EpochLine]
    assert kinds(loop) == [*watching, *saving]
    stopping = [*watching[:-2], StopEarly, *watching[-2:], *saving]
    assert kinds(trainer(tmp_path, patience=3, enable_progress_bar=False)) == stopping
    assert (loop.max_epochs, loop.log_every_n_steps, loop.limit_val_batches) == (7, 3, 5)  # type: ignore[attr-defined]
    assert loop.num_sanity_val_steps == 0
    best, last = loop.checkpoint_callbacks
    assert (best.monitor, best.mode, best.filename) == ("val/AP", "max", "best")  # type: ignore[attr-defined]
    assert (last.monitor, last.filename) == (None, "last")  # type: ignore[attr-defined]
    assert {Path(saver.dirpath) for saver in (best, last)} == {tmp_path / "checkpoints"}  # type: ignore[attr-defined]


def test_averaged_weights_and_the_bar_are_there_when_asked_for(tmp_path: Path) -> None:
    found = kinds(trainer(tmp_path, decay=0.9, enable_progress_bar=True))
    assert {RampedEMA, Bar} <= set(found)


def test_a_moved_run_keeps_its_best_checkpoint(tmp_path: Path) -> None:
    """The state that Lightning's own saver left in the old folder, under Lightning's key."""
    old = ModelCheckpoint(tmp_path / "old", filename="best", monitor="val/AP", mode="max")
    path = str(tmp_path / "old" / "best.ckpt")
    old.best_model_path = old.kth_best_model_path = path
    old.best_model_score = old.kth_value = torch.tensor(0.3)
    old.best_k_models = {path: torch.tensor(0.3)}
    loop = trainer(tmp_path / "new")
    best = loop.checkpoint_callbacks[0]
    assert best.state_key == old.state_key
    best.load_state_dict(old.state_dict())
    assert best.best_model_path == str(tmp_path / "new" / "checkpoints" / "best.ckpt")  # type: ignore[attr-defined]
    for ap, is_better in ((0.1, False), (0.4, True)):
        assert best.check_monitor_top_k(loop, torch.tensor(ap)) == is_better  # type: ignore[attr-defined]


class Scripted(pl.LightningModule):
    """Two updates an epoch, and validations of these APs."""

    learning_rate = "none"

    def __init__(self, *aps: float) -> None:
        super().__init__()
        self.layer, self.aps = torch.nn.Linear(1, 1), iter(aps)

    def training_step(self, batch: Tensor) -> Tensor:
        return self.layer(batch).mean()

    def validation_step(self, batch: Tensor) -> None:
        self.log("val/AP50", 0.0)

    def on_validation_epoch_end(self) -> None:
        self.log("val/AP", next(self.aps))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(torch.ones(2, 1))  # type: ignore[arg-type]

    val_dataloader = train_dataloader


@pytest.mark.parametrize("interval", [0.5, 1])
def test_the_best_of_metrics_json_is_what_the_best_checkpoint_holds(
    interval: float, tmp_path: Path
) -> None:
    """With several validations an epoch: the first update's is the best of all."""
    quiet()
    loop: Any = trainer(tmp_path, max_epochs=2, val_check_interval=interval)
    loop.callbacks = [x for x in loop.callbacks if type(x) in (FinalValidation, EpochLine, Saver)]
    for callback in loop.callbacks:
        if isinstance(callback, EpochLine):
            callback.save = partial(add_epoch, tmp_path)
    loop.fit(Scripted(0.5, 0.1, 0.2, 0.3))
    assert torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)["global_step"] == 1
    best = best_epoch(tmp_path)
    assert (best["epoch"], best["val/AP"]) == (1, 0.5)


def test_a_run_whose_time_is_over_has_reached_that_limit(tmp_path: Path) -> None:
    options = OPTIONS | {"max_time": {"seconds": 2}}
    loop = trainer(tmp_path, **options)
    (timer,) = (callback for callback in loop.callbacks if isinstance(callback, Timer))  # type: ignore[attr-defined]
    for seconds, reached in ((1, []), (3, ["trainer.max_time"])):  # that a checkpoint remembers
        timer.load_state_dict({"time_elapsed": {"train": seconds}})
        assert reached_limits(loop, options) == reached


@pytest.mark.parametrize("name", ["max_epochs", "limit_val_batches"])
def test_an_evaluation_takes_what_says_where_and_how_to_compute(name: str) -> None:
    loop = make_evaluation_trainer(OPTIONS, [Evaluator()])
    assert (getattr(loop, name) == OPTIONS[name]) == (name == "limit_val_batches")
    assert loop.logger is None
    assert not loop.checkpoint_callbacks
    assert Evaluator in kinds(loop)


def test_a_compiler_that_fails_is_one_line() -> None:
    error = CppCompileError(["g++", "x.cpp"], "x.cpp:1: fatal error: omp.h: No such file")
    with pytest.raises(UserError) as caught, one_line_failures():
        raise error
    line = str(caught.value)
    assert "\n" not in line
    assert all(part in line for part in ("C++ compile error", "CXX", "--speed.compile none"))
    with pytest.raises(RuntimeError, match="ours"), one_line_failures():
        raise RuntimeError("ours")


@pytest.mark.parametrize(
    ("cuda", "mps", "cpu", "accelerator", "chosen"),
    [
        (True, False, {}, "auto", "bf16-mixed"),
        (True, False, {}, "gpu", "bf16-mixed"),
        (False, False, {}, "auto", "32-true"),  # a GPU would say whether it has it; there is none
        (None, False, {"amx_bf16": True}, "auto", "bf16-mixed"),
        (None, False, {"avx512_bf16": True}, "cpu", "bf16-mixed"),
        (None, False, {"avx512_bf16": False, "avx2": True}, "auto", "32-true"),
        (True, False, {"avx512_bf16": False}, "cpu", "32-true"),  # the GPU is not used
        (None, True, {"amx_bf16": True}, "auto", "32-true"),
        (None, True, {"amx_bf16": True}, "mps", "32-true"),
    ],
)
def test_precision_auto_asks_the_device(
    cuda: bool | None,
    mps: bool,
    cpu: dict[str, bool],
    accelerator: str,
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`cuda`: whether a GPU has bfloat16 in hardware, None without a GPU."""

    def is_bf16_supported(including_emulation: bool = True) -> bool:
        return including_emulation or bool(cuda)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda is not None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu, raising=False)
    assert choose_precision({"precision": "auto", "accelerator": accelerator}) == chosen
    assert choose_precision({"precision": "16-mixed"}) == "16-mixed"
    with pytest.raises(UserError, match="machines could differ"):
        choose_precision({"precision": "auto", "num_nodes": 2})


def test_precision_auto_without_a_torch_that_tells_is_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_precision({"precision": "auto"}) == "32-true"


def test_an_evaluation_takes_precision_auto() -> None:
    trainer = make_evaluation_trainer({"accelerator": "cpu", "precision": "auto"}, [])
    assert trainer.precision in ("32-true", "bf16-mixed")
