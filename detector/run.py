"""A run folder is the model: config.yaml says what it is, checkpoints/ holds its weights."""

import datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector.anchors import AnchorGenerator
from detector.backbone import Backbone
from detector.config import UserError, load, make_loss
from detector.criterion import Criterion
from detector.module import Detector
from detector.postprocess import Postprocess
from detector.retinanet import RetinaNet


def run_path(name: str) -> Path:
    """The folder of a run: `runs/NAME`, or NAME itself where it is a path."""
    path = Path(name)
    return path if path.is_absolute() or len(path.parts) > 1 or path.is_dir() else "runs" / path


def existing_run(name: str) -> Path:
    """The same, for a run that has to be there."""
    path = run_path(name)
    if not (path / "config.yaml").is_file():
        known = sorted(p.parent.name for p in Path("runs").glob("*/config.yaml"))
        hint = f"; there are: {', '.join(known)}" if known else ""
        raise UserError(f"{path} is not a run: it has no config.yaml{hint}")
    return path


def new_run(name: str | None, stem: str) -> Path:
    """The folder of a run to be; a name that is taken is an error."""
    if name is None:
        return Path("runs") / f"{stem}_{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}"
    path = run_path(name)
    if path.exists() and any(path.iterdir()):
        raise UserError(f"{path} exists: choose another --run, or go on with it by --resume {name}")
    return path


def assemble(config: dict[str, Any]) -> Detector:
    """The untrained detector that a resolved configuration describes; `data.classes` must be filled
    in."""
    model = config["model"]
    num_classes = len(config["data"]["classes"])
    class_loss, box_loss = (_loss(config, slot) for slot in ("class_loss", "box_loss"))
    body = {key: model[key] for key in ("depth", "width", "norm", "channels", "p6", "freeze")}
    fast = config["speed"]["channels_last"]
    layout = torch.channels_last if fast else torch.contiguous_format
    net = RetinaNet(
        Backbone(**body),
        AnchorGenerator(**model["anchors"]),
        class_loss.initial_bias(num_classes, model["prior"]),
        convs=model["convs"],
        head_norm=model["head_norm"],
        num_classes=num_classes,
    )
    return Detector(
        net.to(memory_format=layout),
        Criterion(class_loss, box_loss, num_classes, **model["match"]),
        Postprocess(class_loss.scores, **config["postprocess"]),
        config["optimizer"],
        config["schedule"],
        config["data"]["batch_size"],
    )


def _loss(config: dict[str, Any], slot: str) -> Any:
    try:
        loss = make_loss(config["model"][slot])
        loss.setup(len(config["data"]["classes"]), config["model"]["channels"])
    except ValueError as error:
        raise UserError(f"model.{slot}: {error}") from error
    return loss


def checkpoint_file(run: Path, checkpoint: str = "best") -> Path:
    """The file of `best`, `last` or any path."""
    inside = run / "checkpoints" / f"{checkpoint}.ckpt"
    path = inside if checkpoint in ("best", "last") else Path(checkpoint)
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in (run / "checkpoints").glob("*.ckpt"))) or "none"
        raise UserError(f"there is no checkpoint {path}; {run} has: {there}")
    return path


def read_weights(path: Path) -> dict[str, Any]:
    """The content of a checkpoint or weights file, on the CPU; plain types only."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (
            str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        )
        raise UserError(f"{path} cannot be read as a checkpoint: {reason}") from error


def net_weights(content: dict[str, Any]) -> dict[str, Tensor]:
    """Of a checkpoint of ours the weights of the net, without `net.`; empty for any other
    content."""
    state = content.get("state_dict", {})
    return {key[4:]: value for key, value in state.items() if key.startswith("net.")}


def open_run(
    name: str, checkpoint: str = "best", config: dict[str, Any] | None = None
) -> tuple[dict[str, Any], Detector]:
    """The configuration of a run and its trained detector in evaluation mode.

    `config` replaces the run's own config.yaml, for flags that change how it is evaluated.
    """
    run = existing_run(name)
    config = config or load(run / "config.yaml")
    detector = assemble(config)
    path = checkpoint_file(run, checkpoint)
    weights = net_weights(read_weights(path))
    own = detector.net.state_dict()
    wrong = [key for key in own if key not in weights or weights[key].shape != own[key].shape]
    wrong += [key for key in weights if key not in own]
    if wrong:
        raise UserError(
            f"{path} is of another model than {run}/config.yaml describes: {len(wrong)} weights "
            f"differ, the first is net.{wrong[0]}"
        )
    detector.net.load_state_dict(weights)
    return config, detector.eval()
