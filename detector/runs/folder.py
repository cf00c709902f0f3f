"""A run folder is the model: config.yaml says what it is, checkpoints/ holds its weights."""

import datetime
from pathlib import Path

from detector.config.errors import UserError


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


def checkpoint_file(run: Path, checkpoint: str = "best") -> Path:
    """The file of `best`, `last` or any path."""
    inside = run / "checkpoints" / f"{checkpoint}.ckpt"
    path = inside if checkpoint in ("best", "last") else Path(checkpoint)
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in (run / "checkpoints").glob("*.ckpt"))) or "none"
        raise UserError(f"there is no checkpoint {path}; {run} has: {there}")
    return path
