"""A run folder is the model: config.yaml says what it is, checkpoints/ holds its weights."""

import datetime
import math
import os
from pathlib import Path

from detector.config.errors import UserError
from detector.config.files import read_json, write_json


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


def is_exported(name: str) -> bool:
    """Whether this is not a run but a file of scripts/export.py."""
    return Path(name).suffix in (".onnx", ".pt2")


def new_run(name: str | None, stem: str) -> Path:
    """The folder of a run to be; a name that is taken is an error."""
    if name is None:
        return Path("runs") / f"{stem}_{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}"
    path = run_path(name)
    if path.exists() and any(path.iterdir()):
        raise UserError(f"{path} exists: choose another --run, or go on with it by --resume {name}")
    return path


def choose_run(resume: str | None, name: str | None, stem: str, first: bool) -> Path:
    """The folder that a training writes to: the run to resume, or a new one.

    Processes that Lightning starts for further devices (not `first`) take that of the first.
    """
    if resume:
        return existing_run(resume)
    if first:
        os.environ["DETECTOR_RUN"] = str(new_run(name, stem))
    return Path(os.environ.get("DETECTOR_RUN") or name or f"runs/{stem}")


def add_epoch(run: Path, figures: dict[str, float]) -> None:
    """Write the figures of an epoch to metrics.json: the best epoch, and an entry for each, those
    of before a resume included."""
    path = run / "metrics.json"
    epochs = [other for other in read_epochs(run) if other["epoch"] < figures["epoch"]] + [figures]
    write_json(path, {"best": max(epochs, key=_score), "epochs": epochs})


def read_epochs(run: Path) -> list[dict[str, float]]:
    """What metrics.json has of every epoch that is over; UserError where it is damaged."""
    path = run / "metrics.json"
    content = read_json(path) if path.is_file() else {"epochs": []}
    if not isinstance(content, dict) or not isinstance(content.get("epochs"), list):
        raise UserError(f"{path} is damaged (no list of epochs): delete it and go on")
    epochs: list[dict[str, float]] = content["epochs"]
    return epochs


def _score(epoch: dict[str, float]) -> float:
    """Its AP; below all others where it was not validated, or has none (no objects)."""
    figure = epoch.get("val/AP")
    return -1.0 if figure is None or math.isnan(figure) else figure


def best_epoch(run: Path) -> dict[str, float]:
    """Its figures."""
    best: dict[str, float] = read_json(run / "metrics.json")["best"]
    return best


def checkpoint_file(run: Path, checkpoint: str = "best") -> Path:
    """The file of `best`, `last` or any path. Where there is no best, that is last: a run that was
    stopped before its first validation has none."""
    inside = run / "checkpoints" / f"{checkpoint}.ckpt"
    if checkpoint == "best" and not inside.is_file():
        last = inside.with_name("last.ckpt")
        inside = last if last.is_file() else inside
    path = inside if checkpoint in ("best", "last") else Path(checkpoint)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in (run / "checkpoints").glob("*.ckpt"))) or "none"
        raise UserError(f"there is no checkpoint {path}; {run} has: {known}")
    return path
