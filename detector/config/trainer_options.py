"""Arguments of Lightning's Trainer: the values that are taken here, and those without a place.

Lightning itself refuses much only once a training has begun, and some of it by a traceback.
Arguments that are in neither table are taken as Lightning declares them.
"""

import datetime
import re
from typing import Annotated, Any, Literal

from detector.config.types import Count, Fraction, Natural, Option


def is_duration(value: Any) -> bool:
    """Whether a value is a time above 0 as Lightning reads it: 00:12:00:00, {hours: 12}."""
    if isinstance(value, str):
        return bool(re.fullmatch(r"\d+:\d\d:\d\d:\d\d", value)) and value.strip("0:") != ""
    try:
        return datetime.timedelta(**value) > datetime.timedelta(0)
    except (TypeError, OverflowError):
        return False


def is_devices(value: Any) -> bool:
    """Whether a value says how many devices, all of them (-1), or which: [0, 1], "0,1"."""
    if isinstance(value, list):
        return len(set(value)) == len(value) > 0 and all(type(x) is int and x >= 0 for x in value)
    if isinstance(value, str):
        return value in ("auto", "-1") or bool(re.fullmatch(r"0*[1-9]\d*|\d+(,\d+)+", value))
    return type(value) is int and (value > 0 or value == -1)


Share = Annotated[float, "above 0 and up to 1", lambda x: 0 < x <= 1]
Duration = Annotated[Any, "a time such as 00:12:00:00 or {hours: 12}", is_duration]
Devices = Annotated[Any, "a number above 0, -1, auto, or a list such as [0, 1]", is_devices]
TRAINER: dict[str, Option] = {
    "accelerator": Option(Literal["auto", "cpu", "gpu", "cuda", "mps"], "auto"),
    "strategy": Option(Literal["auto", "ddp", "ddp_find_unused_parameters_true"], "auto"),
    "devices": Option(Devices, "auto"),
    "num_nodes": Option(Count, 1),
    "min_epochs": Option(Natural | None, None),
    "max_steps": Option(Count | Literal[-1], -1),
    "min_steps": Option(Natural | None, None),
    "max_time": Option(Duration | None, None),
    "limit_train_batches": Option(Count | Share | None, None),
    "limit_val_batches": Option(Count | Share | None, None),
    "overfit_batches": Option(Count | Fraction, 0.0),
    "val_check_interval": Option(Count | Share | Duration | None, None),
    "check_val_every_n_epoch": Option(Count | None, 1),
    "num_sanity_val_steps": Option(Natural | Literal[-1], 0),
    "enable_progress_bar": Option(bool, True),
    "enable_model_summary": Option(bool, False),
    "accumulate_grad_batches": Option(Count, 1),
    "gradient_clip_algorithm": Option(Literal["norm", "value"] | None, None),
    "deterministic": Option(bool | Literal["warn"] | None, None),
    "profiler": Option(Literal["simple", "advanced", "pytorch"] | None, None),
    "reload_dataloaders_every_n_epochs": Option(Natural, 0),
}
OURS = "train.py sets this itself"
WITHOUT_EFFECT = "it would have no effect here"
# Arguments that are refused, each with the reason
REFUSED = {
    **dict.fromkeys(("logger", "callbacks", "plugins", "default_root_dir"), OURS),
    **dict.fromkeys(("use_distributed_sampler", "enable_checkpointing"), OURS),
    **dict.fromkeys(("limit_test_batches", "limit_predict_batches"), WITHOUT_EFFECT),
    **dict.fromkeys(("enable_autolog_hparams", "model_registry"), WITHOUT_EFFECT),
    "fast_dev_run": "it ends without figures and checkpoints; a short training is "
    "--trainer.max_epochs 1 --trainer.limit_train_batches 2 --trainer.limit_val_batches 2",
    "barebones": "it ends without figures and checkpoints; leave it out",
}
