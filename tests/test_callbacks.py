"""What a person sees of a training, and the averaged weights."""

import errno
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import Timer
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from detector.criterion import Criterion
from detector.guard import Guard
from detector.optimization import LearningRate
from detector.training.averaging import RampedAverage, RampedEMA
from detector.training.callbacks import Bar, EpochLine, FinalValidation, StepFigures
from detector.training.quiet import quiet
from losses import FocalLoss, SmoothL1Loss


def test_the_average_is_ramped_and_copies_counts() -> None:
    net = nn.BatchNorm1d(1)
    mean = RampedAverage(net, decay=0.9)
    for updates, keep in ((0, 0), (1, 2 / 11), (10, 11 / 20), (1000, 0.9)):
        mean.n_averaged.fill_(updates)
        for value, part in ((0.0, mean.module), (1.0, net)):
            part.weight.data.fill_(value)
            part.running_var.fill_(value)
        mean.module.num_batches_tracked.fill_(3)
        net.num_batches_tracked.fill_(7)
        mean.update_parameters(net)
        assert mean.n_averaged == updates + 1
        assert mean.module.weight.item() == pytest.approx(1 - keep)
        assert mean.module.running_var.item() == pytest.approx(1 - keep)
        assert mean.module.num_batches_tracked.item() == 7
        assert net.weight.item() == 1


def test_the_average_moves_to_where_the_net_is_trained() -> None:
    """Lightning sets callbacks up before it moves the net to its device."""
    ema = RampedEMA(0.9)
    ema.setup(trainer(), nn.Linear(2, 2), "fit")  # type: ignore[arg-type]
    ema.on_fit_start(trainer(), SimpleNamespace(device=torch.device("meta")))  # type: ignore[arg-type]
    assert ema._average_model is not None
    assert ema._average_model.module.weight.is_meta
    assert ema._average_model.n_averaged.device.type == "cpu"


class CopiesBetweenDevices(TorchDispatchMode):
    """Collects the operations that read or write tensors of more than one device: each of them
    makes the host wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
        if len({tensor.device for tensor in tensors}) > 1:
            self.found.append(str(func))
        return result


@pytest.mark.parametrize("updates", [0, 5])
def test_the_average_never_makes_the_host_wait(updates: int) -> None:
    """torch's own does, twice at every update."""
    with torch.device("meta"):
        net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    mean = RampedAverage(net, decay=0.9)
    mean.n_averaged.fill_(updates)
    with CopiesBetweenDevices() as copies:
        mean.update_parameters(net)
    assert copies.found == []
    with CopiesBetweenDevices() as copies:
        AveragedModel.update_parameters(mean, net)
    assert copies.found  # what is looked for is seen


def detector() -> Any:
    module = nn.Identity()
    module.device = torch.device("cpu")  # type: ignore[assignment]
    settings, schedule = {"lr": 0.01, "reference_batch": 16}, {"warmup": 4}
    module.learning_rate = LearningRate(settings, schedule, images=8, updates=40)  # type: ignore[assignment]
    return module


def trainer(epoch: int = 0, **options: Any) -> Any:
    """A stand-in; `val_AP=0.5` is what was logged as val/AP."""
    metrics = {name: options.pop(name) for name in [*options] if name.startswith("val_")}
    defaults = {"max_epochs": 4, "should_stop": False, "sanity_checking": False}
    defaults["callbacks"] = []
    return SimpleNamespace(
        current_epoch=epoch,
        is_global_zero=True,
        logger=None,
        callback_metrics={name.replace("_", "/"): value for name, value in metrics.items()},
        **defaults | options,
    )


@pytest.mark.parametrize(
    ("options", "ended"),
    [
        # epoch, batch, updates -> 3 epochs of 4 batches, which alone end at epoch 2, batch 3
        ({"max_epochs": 3, "max_steps": -1}, (2, 3, 12)),
        ({"max_epochs": 3, "max_steps": 6}, (1, 1, 6)),
        ({"max_epochs": -1, "max_steps": 7}, (1, 2, 7)),
    ],
)
def test_the_last_step_is_validated(
    options: dict[str, int], ended: tuple[int, int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    final, module = FinalValidation(options["max_steps"]), detector()
    loop = trainer(check_val_every_n_epoch=3, num_training_batches=4, **options)
    for step in range(ended[2]):
        assert not loop.should_stop
        loop.current_epoch, batch, loop.global_step = step // 4, step % 4, step + 1
        final.on_train_batch_end(loop, module, None, None, batch)
    assert (loop.current_epoch, batch, loop.global_step) == ended
    assert loop.should_stop  # what Lightning validates at
    assert loop.check_val_every_n_epoch == 1
    final.on_train_end(loop, module)
    assert capsys.readouterr().out == ""


def test_a_training_whose_time_is_over_is_validated(capsys: pytest.CaptureFixture[str]) -> None:
    final, module = FinalValidation(), detector()
    loop = trainer(check_val_every_n_epoch=3, num_training_batches=4, should_stop=True)
    loop.global_step = 1
    final.on_train_batch_end(loop, module, None, None, 0)
    assert loop.check_val_every_n_epoch == 1
    loop.callbacks = [Timer({"seconds": 0})]
    final.on_train_end(loop, module)
    assert "max_time is over" in capsys.readouterr().out
    loop.callbacks = [Timer({"hours": 1})]  # something else ended it, and says so
    final.on_train_end(loop, module)
    assert capsys.readouterr().out == ""


def test_a_line_per_epoch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # and the CPU trains
    kept: list[dict[str, float]] = []
    (figures := StepFigures()).recent = {"train/loss": 0.5}
    line, module = EpochLine(figures, kept.append), detector()
    line.on_train_start(trainer(), module)
    assert "learning rate 0.005 for 8 images per update" in capsys.readouterr().out
    line.on_train_epoch_start(trainer(), module)
    for _ in range(10):
        line.on_train_batch_end()
    for ap, ap50 in ((0.125, 0.75), (0.25, 0.5), (0.25, 0.625)):  # the first highest AP stays
        line.on_validation_start(trainer(), module)
        line.on_validation_end(trainer(val_AP=ap, val_AP50=ap50), module)
    line.on_validation_end(trainer(val_AP=1.0, sanity_checking=True), module)
    line.on_train_epoch_end(trainer(val_AP=0.25, val_AP50=0.625), module)
    out = capsys.readouterr().out
    assert out.startswith("epoch 1/4  loss 0.500  AP 0.250  AP50 0.500  0.0 s")
    assert out.endswith("min left\n")
    assert kept[0]["epoch"] == 1
    assert kept[0]["val/AP50"] == 0.5
    assert 0 <= 10 * kept[0]["step_seconds"] <= kept[0]["seconds"]  # 10 steps, validation apart
    assert 0.01 < kept[0]["memory"] < 1000  # GiB of RAM
    # an epoch without validation has no figures, though Lightning still holds the last ones
    line.on_train_epoch_end(trainer(1, val_AP=0.25, val_AP50=0.5), module)
    assert "AP" not in capsys.readouterr().out
    assert "val/AP50" not in kept[1]


def test_the_bar_shows_what_was_read_last() -> None:
    (figures := StepFigures()).recent = {"train/loss": 0.123456, "train/class": 1.0}
    bar = Bar(figures, refresh_rate=1)
    figures.recent |= {"train/lr": 1e-4, "train/other": 3.0}
    assert bar.get_metrics(trainer(), detector()) == {
        "loss": "0.123",
        "class": "1",
        "lr": "0.0001",
    }


class Logger:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, figures: dict[str, float], step: int) -> None:
        self.rows.append((step, figures))


def test_figures_of_a_step_are_read_once_at_every_interval_and_at_the_end_of_an_epoch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures, logger, module = StepFigures(), Logger(), nn.Module()
    module.guard, module.criterion = Guard(), Criterion(FocalLoss(), SmoothL1Loss(), 2)
    group = {"lr": 0.5}
    fake = SimpleNamespace(log_every_n_steps=2, world_size=1, is_global_zero=True, logger=logger)
    fake.optimizers = [SimpleNamespace(param_groups=[group])]
    for step in (0, 1, 2, 2, 3, 4, 5):  # the second 2: a batch that was only accumulated
        fake.global_step, group["lr"] = step, 0.1 * step
        fake.is_last_batch = step == 5
        module.step_figures = {"train/loss": torch.tensor(1.0 + step)}  # type: ignore[assignment]
        module.guard.norm = torch.tensor(float(step))
        figures.on_train_batch_end(fake, module, None, None, 0)  # type: ignore[arg-type]
    keys = ("train/loss", "train/gradient_norm", "train/lr")
    expected = {
        step: dict(zip(keys, (1 + step, step, 0.1 * step), strict=True)) for step in (2, 4, 5)
    }
    assert dict(logger.rows) == {step: pytest.approx(row) for step, row in expected.items()}
    assert len(logger.rows) == 3
    assert figures.recent == logger.rows[-1][1]
    assert capsys.readouterr().out == ""


def test_a_full_disk_in_a_thread_is_left_to_the_main_thread(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # quiet() replaces it
    quiet()
    for error, shown in ((OSError(errno.ENOSPC, "No space left"), False), (ValueError("x"), True)):

        def fail(error: Exception = error) -> None:
            raise error

        (thread := threading.Thread(target=fail)).start()
        thread.join()
        assert ("Traceback" in capsys.readouterr().err) == shown
