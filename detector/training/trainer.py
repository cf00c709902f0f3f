"""The Trainers of a run: that of training, with logger and checkpoints, and that of evaluation."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger

from detector.training.callbacks import Bar, EpochLine, RampedEMA, StepFigures
from detector.training.checkpoint_io import WholeFiles
from detector.training.gradient_pictures import GradientPictures

# of the arguments that a run trained with, those that say where and how to compute
EVALUATION = ("accelerator", "devices", "num_nodes", "strategy", "precision", "limit_val_batches")


def make_trainer(
    config: dict[str, Any],
    run: Path,
    evaluators: Sequence[pl.Callback],
    save_epoch: Callable[[dict[str, float]], None],
    updates: int | None = None,
) -> pl.Trainer:
    """A Trainer that logs and saves to the folder `run`.

    Args:
        config: a resolved configuration, which is also written to TensorBoard as text.
        evaluators: log figures of validation; of these val/AP chooses the best checkpoint.
        save_epoch: keeps what `EpochLine` tells of an epoch.
        updates: those that the run has seen, where it is resumed; what TensorBoard has of later
            ones, before the run was interrupted, is taken back.
    """
    figures = StepFigures()
    callbacks = [
        GradientPictures(run),  # first, so that no other callback counts its time as training
        *evaluators,
        figures,
        EpochLine(figures, save_epoch),
        *_savers(config, run),
    ]
    options: dict[str, Any] = {
        "enable_progress_bar": sys.stderr.isatty(),
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    options |= config["trainer"]
    if options["enable_progress_bar"]:
        callbacks.append(Bar(figures, options["log_every_n_steps"]))
    options["plugins"] = [*(options.get("plugins") or []), WholeFiles()]
    return pl.Trainer(
        **options,
        default_root_dir=run,
        logger=_logger(config, run, 0 if updates is None else updates + 1),
        callbacks=callbacks,
        use_distributed_sampler=False,
    )


def _savers(config: dict[str, Any], run: Path) -> list[pl.Callback]:
    """What is saved: the best and the last weights, with `ema.decay` averaged ones."""
    shared: dict[str, Any] = {"dirpath": run / "checkpoints", "enable_version_counter": False}
    best = ModelCheckpoint(filename="best", monitor="val/AP", mode="max", **shared)
    last = ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **shared)
    decay = config["ema"]["decay"]
    return [best, last, RampedEMA(decay)] if decay else [best, last]


def _logger(config: dict[str, Any], run: Path, purge_step: int) -> TensorBoardLogger:
    logger = TensorBoardLogger(
        run, name="", version="", default_hp_metric=False, purge_step=purge_step
    )
    text = yaml.safe_dump(config, sort_keys=False)
    logger.experiment.add_text("config", f"```yaml\n{text}\n```", 0)  # on rank 0, else a dummy
    return logger


def make_evaluation_trainer(
    options: dict[str, Any], evaluators: Sequence[pl.Callback]
) -> pl.Trainer:
    """A Trainer that writes nothing; `options` are those that the run trains with."""
    defaults: dict[str, Any] = {"enable_progress_bar": sys.stderr.isatty()}
    return pl.Trainer(
        **defaults | {key: options[key] for key in EVALUATION if key in options},
        logger=False,
        enable_checkpointing=False,
        callbacks=[*evaluators],
        use_distributed_sampler=False,
    )
