"""What runs beside training: figures of a step, the bar, a line per epoch."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback, Timer, TQDMProgressBar

from detector.guard import Guard

MAX_CONSECUTIVE = 20  # so many consecutive non-finite updates end the run


class NonFiniteLoss(RuntimeError):
    """Training has diverged. The message is one line."""

    user_error = True


def report_skipped(guard: Guard, bad: int, consecutive: int, world_size: int) -> str:
    """One line about `bad` skipped updates, with the images of the last non-finite loss of each
    rank; those to come are counted from 0.

    Gradients may be infinite where every loss is finite: 16-mixed begins so, until it has found its
    scale. No image is to blame then. Every rank must call it. Raises NonFiniteLoss when too many
    were consecutive, which are more than that search takes.
    """
    own = [] if guard.images is None else guard.images.tolist()
    images: list[Any] = [own]
    if world_size > 1:
        images = [None] * world_size
        dist.all_gather_object(images, own)
    text = ", ".join(str(image) for part in images for image in part if image >= 0)
    guard.bad, guard.images = torch.zeros_like(guard.bad), None
    if consecutive >= MAX_CONSECUTIVE:
        what = f"loss was not finite for {consecutive} updates in a row, the last at images {text}"
        if not text:
            what = f"gradients of a finite loss were infinite for {consecutive} updates in a row"
        raise NonFiniteLoss(
            f"the {what}; {'look at these images, ' if text else ''}lower optimizer.lr or lengthen "
            "schedule.warmup, and start a new run: the weights of this one may be spoilt"
        )
    if not text:
        return f"skipped {bad} updates: infinite gradients of a finite loss (16-mixed begins so)"
    return f"skipped {bad} updates, the last with a non-finite loss at images {text}"


class StepFigures(Callback):
    """Reads the figures of a training step at every logging interval and at the end of an epoch:
    the one wait for the device.

    They go to the logger. `recent` are those that were read last, the mean over ranks: train/loss,
    train/class, train/box, train/num_foreground, train/gradient_norm and train/lr, and those of the
    embedding losses. Prints a line where updates were skipped, and where an embedding loss tells of
    a failed training; raises NonFiniteLoss where too many updates were skipped.
    """

    def __init__(self) -> None:
        self.recent: dict[str, float] = {}
        self.last_step = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, interval = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        due = step % interval == 0 or trainer.is_last_batch
        if not due or step == self.last_step:
            return
        self.last_step, guard = step, pl_module.guard
        tensors = {**pl_module.step_figures, "train/gradient_norm": guard.norm}
        tensors |= {"bad": guard.bad, "consecutive": guard.consecutive}
        values = torch.stack(list(tensors.values()))
        if trainer.world_size > 1:
            dist.all_reduce(values)
            values = values / trainer.world_size
        figures = dict(zip(tensors, values.tolist(), strict=True))
        bad, consecutive = int(figures.pop("bad")), int(figures.pop("consecutive"))
        self.recent = figures | {"train/lr": trainer.optimizers[0].param_groups[0]["lr"]}
        if trainer.logger:
            trainer.logger.log_metrics(self.recent, step)
        lines = [report_skipped(guard, bad, consecutive, trainer.world_size)] if bad else []
        if pl_module.criterion.embedding is not None:
            named = {name.removeprefix("train/"): value for name, value in figures.items()}
            lines += pl_module.criterion.embedding.explain(named)
        if lines and trainer.is_global_zero:
            print(*lines, sep="\n")


class Bar(TQDMProgressBar):
    """A bar that shows what was read last, so that it never waits for the device."""

    def __init__(self, figures: StepFigures, refresh_rate: int) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self.figures = figures

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        recent = self.figures.recent
        names = [name for name in ("loss", "class", "box", "lr") if f"train/{name}" in recent]
        return {name: f"{recent[f'train/{name}']:.3g}" for name in names}


def peak_memory(device: torch.device) -> float:
    """GiB that this process has had at most: of tensors on the GPU where it computes, elsewhere of
    RAM; nan where the system does not say. (getrusage would count what started the process, too.)
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    peaks = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(peaks[0]) / 2**20 if peaks else math.nan


class EpochLine(Callback):
    """One plain line per epoch, for terminals and logs alike: loss, AP, speed, time left."""

    def __init__(self, figures: StepFigures, save: Callable[[dict[str, float]], None]) -> None:
        """`save` is given what to keep of every epoch, so that a kill loses at most one: epoch,
        seconds, step_seconds (validation apart), memory (see `peak_memory`), and figures: of
        several validations those of the highest AP, as best.ckpt is of that one."""
        self.figures, self.save = figures, save
        self.validation: dict[str, float] = {}
        self.validating, self.steps = 0.0, 0

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validation_started = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        logged = trainer.callback_metrics.items()
        figures = {name: float(value) for name, value in logged if name.startswith("val/")}
        known = self.validation.get("val/AP", math.nan)  # nan is not >= any
        if not trainer.sanity_checking and not known >= figures.get("val/AP", math.nan):
            self.validation = figures
        losses = [figures[name] for name in ("val/class", "val/box") if name in figures]
        if not all(map(math.isfinite, losses)):  # others may be nan, where there are no objects
            raise NonFiniteLoss(
                "the validation loss is not finite, so training has diverged: lower optimizer.lr "
                "or lengthen schedule.warmup, and start a new run"
            )
        self.validating += time.perf_counter() - self.validation_started

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.started, self.first = time.perf_counter(), trainer.current_epoch
        if trainer.is_global_zero:
            print(pl_module.learning_rate)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epoch_started, self.validating, self.steps = time.perf_counter(), 0.0, 0

    def on_train_batch_end(self, *_: Any) -> None:
        self.steps += 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        now, done = time.perf_counter(), trainer.current_epoch + 1
        figures, self.validation = self.validation, {}
        if not trainer.is_global_zero:
            return
        seconds = now - self.epoch_started
        step = (seconds - self.validating) / max(1, self.steps)
        cost = {"seconds": seconds, "step_seconds": step, "memory": peak_memory(pl_module.device)}
        self.save({"epoch": done, **cost, **figures})
        if trainer.logger:  # the checkpoint that follows must not know more than TensorBoard
            trainer.logger.experiment.flush()  # type: ignore[attr-defined]
        epochs = trainer.max_epochs or -1
        text = f"epoch {done}/{epochs}" if epochs > 0 else f"epoch {done}"
        if "train/loss" in self.figures.recent:
            text += f"  loss {self.figures.recent['train/loss']:.3f}"
        for name in ("AP", "AP50"):
            if f"val/{name}" in figures:
                text += f"  {name} {figures[f'val/{name}']:.3f}"
        text += f"  {now - self.epoch_started:.1f} s"
        if epochs > done and not trainer.should_stop:
            left = (now - self.started) / (done - self.first) * (epochs - done)
            text += f"  {left / 60:.1f} min left"
        print(text, flush=True)


def time_is_over(trainer: pl.Trainer) -> bool:
    """Whether the run has had all of trainer.max_time."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
    return any((timer.time_remaining() or 0) <= 0 for timer in timers)


class FinalValidation(Callback):
    """Every run ends with figures: after its last step there is a validation, whatever ends it
    (trainer.max_epochs, max_steps, max_time) and however often it validates. Comes after a Timer.

    An epoch that is cut short counts as one: a resume begins with the next.

    Args:
        max_steps: updates of the whole run at most, -1 for no limit. It is given to the Trainer
            only when training starts: one that knows it earlier takes every resume for one within
            an epoch, whose remaining batches it looks for.
    """

    def __init__(self, max_steps: int = -1) -> None:
        self.max_steps, self.ended = max_steps, False

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        trainer.fit_loop.epoch_loop.max_steps = self.max_steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
        self.ended = last_epoch and batch_idx + 1 >= trainer.num_training_batches
        self.ended |= 0 < self.max_steps <= trainer.global_step
        if self.ended or trainer.should_stop:
            trainer.should_stop = True  # what makes Lightning validate within an epoch, too
            if trainer.check_val_every_n_epoch:
                trainer.check_val_every_n_epoch = 1

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if time_is_over(trainer) and not self.ended and trainer.is_global_zero:
            print("stopped, as trainer.max_time is over")
