"""The Trainers of a run: that of training, with logger and checkpoints, and that of evaluation."""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from detector.config.errors import UserError
from detector.training.averaging import RampedEMA
from detector.training.callbacks import (
    Bar,
    EpochLine,
    FinalValidation,
    StepFigures,
    time_is_over,
)
from detector.training.checkpoint_io import Saver, WholeFiles
from detector.training.early_stopping import StopEarly
from detector.training.gradient_pictures import GradientPictures
from detector.training.logger import RunLogger

DEVICES = ("accelerator", "devices", "num_nodes", "strategy", "precision")
BF16_OF_CPUS = ("amx_bf16", "avx512_bf16")  # without, bfloat16 is emulated, slower than float32
PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}
# of the arguments that a run trained with, those that say where and how to compute
EVALUATION = (*DEVICES, "limit_val_batches")


def choose_precision(options: Mapping[str, Any]) -> str:
    """What `trainer.precision` is on this machine: `auto` stands for bf16-mixed where the device
    computes bfloat16 in hardware, otherwise for 32-true."""
    asked: str = options.get("precision", "32-true")
    if asked != "auto":
        return asked
    if options.get("num_nodes", 1) > 1:
        raise UserError(
            "trainer.precision auto: machines could differ in it; give 32-true or bf16-mixed"
        )
    accelerator = options.get("accelerator", "auto")
    if accelerator != "cpu" and torch.cuda.is_available():
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator in ("auto", "cpu") and not torch.backends.mps.is_available():
        # of torch before 2.12, which does not tell, float32
        known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        has = any(known.get(name) for name in BF16_OF_CPUS)
    else:
        has = False
    return "bf16-mixed" if has else "32-true"


def make_trainer(
    config: dict[str, Any],
    run: Path,
    evaluators: Sequence[pl.Callback],
    save_epoch: Callable[[dict[str, float]], None],
    updates: int | None = None,
) -> pl.Trainer:
    """A Trainer that logs and saves to the folder `run`; nothing is written before it trains.

    Raises UserError where this machine has no such devices.

    Args:
        config: a resolved configuration.
        evaluators: log figures of validation; of these val/AP chooses the best checkpoint.
        save_epoch: keeps what `EpochLine` tells of an epoch.
        updates: those that the run has seen, where it is resumed; what TensorBoard has of later
            ones, before the run was interrupted, is taken back.
    """
    figures = StepFigures()
    limit, patience = config["trainer"].get("max_time"), config["early_stopping"]["patience"]
    callbacks = [
        GradientPictures(run),  # first, so that no other callback counts its time as training
        *evaluators,
        figures,
        *([Timer(limit, verbose=False)] if limit else []),  # Lightning would add it behind the next
        *([StopEarly(patience)] if patience else []),
        FinalValidation(config["trainer"].get("max_steps", -1)),
        EpochLine(figures, save_epoch),
        *_savers(config, run),
    ]
    options: dict[str, Any] = {
        "enable_progress_bar": sys.stderr.isatty(),
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    ends = ("max_time", "max_steps")  # of which callbacks take care
    options |= {key: value for key, value in config["trainer"].items() if key not in ends}
    options["max_epochs"] = options["max_epochs"] or -1
    if options["enable_progress_bar"]:
        callbacks.append(Bar(figures, options["log_every_n_steps"]))
    if kind := options.get("profiler"):  # Lightning would print what it measured, were it not quiet
        options["profiler"] = PROFILERS[kind](dirpath=run, filename="profile")
    return _make(
        options,
        plugins=[WholeFiles()],
        default_root_dir=run,
        logger=RunLogger(
            run,
            name="",
            version="",
            default_hp_metric=False,
            purge_step=0 if updates is None else updates + 1,
        ),
        callbacks=callbacks,
    )


def _make(options: Mapping[str, Any], **fixed: Any) -> pl.Trainer:
    """A Trainer of the user's options and ours."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*fp16 is not supported.*")
            trainer = pl.Trainer(**options, **fixed, use_distributed_sampler=False)
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        asked = [
            f"trainer.{key} {options[key]}"
            for key in DEVICES
            if options.get(key) not in (None, "32-true")
        ]
        raise UserError(f"{', '.join(asked) or 'trainer'}: {_shorten(error)}") from error
    if options.get("precision") == "16-mixed" != trainer.precision:
        raise UserError("trainer.precision: a CPU does not compute in 16-mixed; give bf16-mixed")
    return trainer


@contextmanager
def one_line_failures() -> Iterator[None]:
    """What Lightning refuses only while it trains, and a compiler that fails, as UserErrors."""
    try:
        yield
    except MisconfigurationException as error:
        raise UserError(f"trainer: {_shorten(error)}") from error
    except Exception as error:
        if not type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
            raise
        raise UserError(
            f"speed.compile: torch could not compile the step ({_shorten(error)}): install a C++ "
            "compiler that works, named by the variable CXX, or go on with --speed.compile none"
        ) from error


def _shorten(error: Exception) -> str:
    """The first sentence of a message."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].split(". ")[0].strip().rstrip(".!:")


def check_batches(options: Mapping[str, Any], train: int, val: int) -> None:
    """UserError for limits of the Trainer's `options` by which no batch would be left, or no epoch
    validated. `train`, `val`: batches of an epoch."""
    overfit = options.get("overfit_batches")
    for part, count in (("train", train), ("val", val)):
        key = "overfit_batches" if overfit else f"limit_{part}_batches"
        share = options.get(key)
        if isinstance(share, float) and int(share * count) < 1:
            raise UserError(
                f"trainer.{key}: {share:g} of {count} batches of {part} are none: give a whole "
                f"number, or a share of {1 / count:.2g} or more"
            )
    interval = options.get("val_check_interval")
    limit = overfit or options.get("limit_train_batches") or 1.0
    train = min(train, limit) if isinstance(limit, int) else int(train * limit)
    by_epoch = options.get("check_val_every_n_epoch", 1) is not None
    if isinstance(interval, int) and by_epoch and interval > train:
        raise UserError(
            f"trainer.val_check_interval: {interval} batches are more than an epoch has ({train}); "
            "add --trainer.check_val_every_n_epoch null to count them across epochs"
        )


def reached_limits(trainer: pl.Trainer, options: Mapping[str, Any]) -> list[str]:
    """Those of the Trainer's `options` that let its run train no further."""
    reached = {
        "max_epochs": 0 < (options["max_epochs"] or -1) <= trainer.current_epoch,
        "max_steps": 0 < options.get("max_steps", -1) <= trainer.global_step,
        "max_time": time_is_over(trainer),
    }
    return [f"trainer.{key}" for key, is_reached in reached.items() if is_reached]


def _savers(config: dict[str, Any], run: Path) -> list[pl.Callback]:
    """What is saved: the best and the last weights, with `ema.decay` averaged ones."""
    shared: dict[str, Any] = {"dirpath": run / "checkpoints", "enable_version_counter": False}
    # None leaves it to Lightning, which would take an interval of 1 batch for 1.0, a whole epoch
    by_batch = isinstance(config["trainer"].get("val_check_interval"), int)
    shared["save_on_train_epoch_end"] = False if by_batch else None
    best = Saver(filename="best", monitor="val/AP", mode="max", **shared)
    last = Saver(filename="last", **shared | {"save_on_train_epoch_end": True})
    decay = config["ema"]["decay"]
    return [best, last, RampedEMA(decay)] if decay else [best, last]


def log_config(trainer: pl.Trainer, config: Mapping[str, Any]) -> None:
    """The configuration as text in TensorBoard."""
    text, logger = yaml.safe_dump(config, sort_keys=False), trainer.logger
    assert isinstance(logger, RunLogger)
    logger.experiment.add_text("config", f"```yaml\n{text}\n```", 0)  # a dummy but on rank 0


def make_evaluation_trainer(
    options: dict[str, Any], evaluators: Sequence[pl.Callback]
) -> pl.Trainer:
    """A Trainer that writes nothing; `options` are those that the run trains with."""
    defaults: dict[str, Any] = {"enable_progress_bar": sys.stderr.isatty()}
    kept = {key: options[key] for key in EVALUATION if key in options}
    return _make(
        defaults | kept | {"precision": choose_precision(options)},
        logger=False,
        enable_checkpointing=False,
        callbacks=[*evaluators],
    )
