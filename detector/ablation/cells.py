"""Training and evaluating one cell of a grid, and what is known of it. What is done is not done
again, what was interrupted goes on.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from detector.ablation.grid import Axis, Cell, differences
from detector.config.errors import UserError
from detector.config.files import write
from detector.config.resolve import load, save

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("cells", "configs", "logs", "states")
Point = tuple[str, ...]  # the label of a value of every axis
INTERRUPTED = (130, -2, -15)  # Ctrl-C, and what schedulers send: no failure of the cell's


class Outcome(NamedTuple):
    """What is known of a cell. `state`: "done", "failed" (`reason` says why), "not yet run".

    `result`, of a cell that is done: AP, AP50, AP75 on all images after the last epoch; of training
    step_seconds (median over epochs) and memory (GiB); rise, the AP gained in the last quarter of
    training (None with fewer than two validations).
    """

    state: str
    reason: str = ""
    result: dict[str, Any] = {}


class Ablation(NamedTuple):
    """A grid and the folder in which its cells are trained. `tuned`: keys that tuning chose."""

    out: Path
    axes: Sequence[Axis]
    cells: Sequence[Cell]
    tuned: Sequence[str] = ()

    @property
    def points(self) -> list[Point]:
        """All combinations of values, in the order of the cells."""
        return list(dict.fromkeys(tuple(cell.point.values()) for cell in self.cells))

    @property
    def seeds(self) -> list[int]:
        return sorted({cell.seed for cell in self.cells})

    def cells_of(self, point: Point) -> list[Cell]:
        """One for each seed."""
        return [cell for cell in self.cells if tuple(cell.point.values()) == point]

    def run_folder(self, cell: Cell) -> Path:
        return self.out / "cells" / cell.name

    def outcome(self, cell: Cell) -> Outcome:
        """What is known of a cell now."""
        return read_outcome(self.out, cell.name)

    def done(self) -> list[Cell]:
        return [cell for cell in self.cells if self.outcome(cell).state == "done"]

    def waiting(self) -> list[Cell]:
        """The cells that are not done: not yet run, interrupted or failed."""
        return [cell for cell in self.cells if self.outcome(cell).state != "done"]


def prepare(ablation: Ablation) -> None:
    """Writes down what is to be done. A folder of another ablation is a UserError; more values and
    more seeds of the same axes are not another one."""
    out, cells = ablation.out, ablation.cells
    plan = {"axes": [axis.key for axis in ablation.axes], "tuned": list(ablation.tuned)}
    path = out / "ablation.json"
    if out.exists() and any(out.iterdir()) and not path.is_file():
        raise UserError(f"{out} holds something else than an ablation: choose another --out")
    if path.is_file():
        before = json.loads(path.read_text())
        for name in ("axes", "tuned"):
            if before[name] != plan[name]:
                raise UserError(
                    f"{out} is another ablation: its {name} are {listed(before[name])}, not "
                    f"{listed(plan[name])}; choose another --out"
                )
    for cell in cells:
        file = out / "configs" / f"{cell.name}.yaml"
        if file.is_file() and (differ := differences([load(file), cell.config])):
            key, values = next(iter(differ.items()))
            raise UserError(
                f"{out} is another ablation: in its cell {cell.name} {key} is {values[0]}, now it "
                f"would be {values[-1]}; choose another --out"
            )
    for part in PARTS:
        (out / part).mkdir(parents=True, exist_ok=True)
    for cell in cells:
        save(cell.config, out / "configs" / f"{cell.name}.yaml")
    write(path, json.dumps(plan))


def listed(keys: Sequence[str]) -> str:
    return ", ".join(keys) or "none"


def read_outcome(out: Path, name: str) -> Outcome:
    """What is known of the cell of that name now."""
    path = out / "states" / f"{name}.json"
    return Outcome(**json.loads(path.read_text())) if path.is_file() else Outcome("not yet run")


def run_cell(out: Path, name: str, environment: dict[str, str] | None = None) -> Outcome:
    """Train a cell (or go on with it), evaluate its last checkpoint, and write down what came out.

    The last checkpoint and not the best: choosing the best epoch on the images that then decide
    would reward a restless curve. A cell that another process has in hand is waited for. An error
    in it is an outcome, not an exception.
    """
    known = read_outcome(out, name)
    if known.state == "done":
        return known
    with _in_hand(out / "logs" / f"{name}.lock") as lock:
        known = read_outcome(out, name)
        if known.state == "done":
            return known
        run, log = out / "cells" / name, out / "logs" / f"{name}.txt"
        command = [sys.executable, "-u"]
        code = 0
        with open(log, "a") as file:
            for words in _steps(out, name, run):
                code = subprocess.run(
                    [*command, *words],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **(environment or {})},
                    pass_fds=[lock],  # so that the cell stays in hand if only we are killed
                ).returncode
                if code:
                    break
        if code in INTERRUPTED:
            return Outcome("not yet run", "interrupted")
        outcome = Outcome("failed", _reason(log, code)) if code else Outcome("done", "", _read(run))
        write(out / "states" / f"{name}.json", json.dumps(outcome._asdict()))
        return outcome


@contextmanager
def _in_hand(path: Path) -> Iterator[int]:
    """Only one process works at a cell."""
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            tqdm.write(f"{path.stem} is in the hands of another process, which is waited for")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _steps(out: Path, name: str, run: Path) -> Iterator[list[str]]:
    """The commands that are left to do."""
    train = str(ROOT / "train.py")
    if not (run / "checkpoints" / "last.ckpt").is_file():
        shutil.rmtree(run, ignore_errors=True)  # killed before its first epoch was over
        yield [train, "--config", str(out / "configs" / f"{name}.yaml")]
    elif epochs_done(run) < load(run / "config.yaml")["trainer"]["max_epochs"]:
        yield [train, "--resume", str(run)]
    yield [str(ROOT / "eval.py"), str(run), "--checkpoint", "last"]


def epochs_done(run: Path) -> int:
    """Epochs of a run that are over, as metrics.json says."""
    epochs = epochs_of(run)
    return int(epochs[-1]["epoch"]) if epochs else 0


def epochs_of(run: Path) -> list[dict[str, Any]]:
    """What metrics.json has of every epoch that is over."""
    path = run / "metrics.json"
    return json.loads(path.read_text())["epochs"] if path.is_file() else []


def _reason(log: Path, code: int) -> str:
    """Why a command failed: the last line it wrote, or the signal."""
    if code < 0:
        return f"killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return (lines or [f"exit status {code}"])[-1].removeprefix("error: ")[:300]


def _read(run: Path) -> dict[str, Any]:
    """The result of a finished cell."""
    summary = json.loads((run / "eval" / "metrics.json").read_text())["summary"]
    epochs = epochs_of(run)
    steps = sorted(line["step_seconds"] for line in epochs)
    curve = [(line["epoch"], line["val/AP"]) for line in epochs if "val/AP" in line]
    early = [figure for epoch, figure in curve if epoch <= 0.75 * epochs[-1]["epoch"]]
    return {
        **{key: summary[key] for key in ("AP", "AP50", "AP75")},
        "step_seconds": steps[len(steps) // 2],
        "memory": max(line["memory"] for line in epochs),
        "rise": curve[-1][1] - early[-1] if early else None,
    }
