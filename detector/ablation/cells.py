"""A grid's cells in their folder: each is trained and evaluated, and its outcome written down.

What is done is not done again, and what was interrupted goes on.
"""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from detector.ablation.grid import Axis, Cell, differences
from detector.config.errors import UserError
from detector.config.files import read_json, write_json
from detector.config.resolve import load, save

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("cells", "configs", "logs", "states")
Point = tuple[str, ...]  # the label of a value of every axis
INTERRUPTED = (130, -2, -15)  # Ctrl-C, and what schedulers send: the cell has not failed


class Outcome(NamedTuple):
    """How a cell ended. `state`: "done", "failed" (`reason` says why) or "not yet run".

    `result`, of a cell that is done: AP, AP50 and AP75 on all images after the last epoch;
    step_seconds of training (median over epochs) and its memory (GiB); rise, the AP gained in the
    last quarter of training, counted from the last validation before it (None without one); what
    the loss does to scores: calibration_error, pairs_above and suppression_ms, see `ScoreMeter`;
    with an embedding head what eval.py knows of recognition ("identity/mAP" ...), and
    "identity/rise" of its mAP.
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
        """How a cell ended, or that it has not yet."""
        return read_outcome(self.out, cell.name)

    def done(self) -> list[Cell]:
        return [cell for cell in self.cells if self.outcome(cell).state == "done"]

    def waiting(self) -> list[Cell]:
        """The cells that are not done: not yet run, interrupted or failed."""
        return [cell for cell in self.cells if self.outcome(cell).state != "done"]


def prepare(ablation: Ablation) -> None:
    """Writes the plan and the configuration of every cell into the folder of the ablation.

    A folder of another ablation is a UserError; one of the same axes and settings with fewer values
    or seeds is not another one.
    """
    out, cells = ablation.out, ablation.cells
    plan = {"axes": [axis.key for axis in ablation.axes], "tuned": list(ablation.tuned)}
    path = out / "ablation.json"
    if out.exists() and any(out.iterdir()) and not path.is_file():
        raise UserError(f"{out} holds something else than an ablation: choose another --out")
    if path.is_file():
        before = read_json(path)
        for name in ("axes", "tuned"):
            if before[name] != plan[name]:
                keys = [", ".join(source[name]) or "none" for source in (before, plan)]
                raise UserError(
                    f"{out} is another ablation: its {name} are {keys[0]}, not {keys[1]}; choose "
                    "another --out"
                )
    for cell in cells:
        file = out / "configs" / f"{cell.name}.yaml"
        if not file.is_file():
            continue
        before = {**load(file), "run": cell.config["run"]}  # the folder may have been moved
        if differ := differences([before, cell.config]):
            key, values = next(iter(differ.items()))
            raise UserError(
                f"{out} is another ablation: in its cell {cell.name} {key} is {values[0]}, now it "
                f"would be {values[-1]}; choose another --out"
            )
    for part in PARTS:
        (out / part).mkdir(parents=True, exist_ok=True)
    for cell in cells:
        save(cell.config, out / "configs" / f"{cell.name}.yaml")
    write_json(path, plan)


def read_outcome(out: Path, name: str) -> Outcome:
    """How the cell of that name ended, or that it has not yet."""
    path = out / "states" / f"{name}.json"
    return Outcome(**read_json(path)) if path.is_file() else Outcome("not yet run")


def run_cell(out: Path, name: str, environment: dict[str, str] | None = None) -> Outcome:
    """Trains a cell, or goes on with it, evaluates its last checkpoint, and writes the outcome.

    It is the last checkpoint and not the best, because the best epoch is chosen on the images that
    are then evaluated on: that would favor methods whose AP varies from epoch to epoch. If another
    process runs the cell, its end is waited for. A failure is an outcome, not an exception.
    `environment`: variables that are set for the commands.
    """
    with _lock(out / "logs" / f"{name}.lock") as lock:
        outcome = read_outcome(out, name)
        if outcome.state == "done":
            return outcome
        run, log = out / "cells" / name, out / "logs" / f"{name}.txt"
        code = 0
        with open(log, "a") as file:
            for words in _remaining_commands(out, name, run):
                code = subprocess.run(
                    [sys.executable, "-u", *words],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **(environment or {})},
                    pass_fds=[lock],  # the command keeps the lock if only this process is killed
                ).returncode
                if code:
                    break
        if code in INTERRUPTED:
            return Outcome("not yet run", "interrupted")
        if code:
            outcome = Outcome("failed", _explain_failure(log, code))
        else:
            outcome = Outcome("done", "", _read_result(run))
        write_json(out / "states" / f"{name}.json", outcome._asdict())
        return outcome


@contextmanager
def _lock(path: Path) -> Iterator[int]:
    """Holds the lock of a cell, so that only one process runs it; yields its file descriptor."""
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            tqdm.write(f"{path.stem}: another process runs it, waiting for its end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _remaining_commands(out: Path, name: str, run: Path) -> Iterator[list[str]]:
    """What is left to do, as words after `python`."""
    train = str(ROOT / "train.py")
    if not (run / "config.yaml").is_file():
        yield [train, "--config", str(out / "configs" / f"{name}.yaml")]
    elif count_epochs(run) < load(run / "config.yaml")["trainer"]["max_epochs"]:
        yield [train, "--resume", str(run)]
    yield [str(ROOT / "eval.py"), str(run), "--checkpoint", "last"]


def count_epochs(run: Path) -> int:
    """How many epochs of a run are over."""
    epochs = read_epochs(run)
    return int(epochs[-1]["epoch"]) if epochs else 0


def read_epochs(run: Path) -> list[dict[str, Any]]:
    """The figures of every epoch that is over, from metrics.json; [] before the first."""
    path = run / "metrics.json"
    return read_json(path)["epochs"] if path.is_file() else []


def _explain_failure(log: Path, code: int) -> str:
    """The last line that a command wrote, or the signal that ended it."""
    if code < 0:
        return f"killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return (lines or [f"exit status {code}"])[-1].removeprefix("error: ")[:300]


def _read_result(run: Path) -> dict[str, Any]:
    """`Outcome.result` of a run that is trained and evaluated."""
    metrics, epochs = read_json(run / "eval" / "metrics.json"), read_epochs(run)
    steps = sorted(line["step_seconds"] for line in epochs)
    result = {
        **{key: metrics["summary"][key] for key in ("AP", "AP50", "AP75")},
        "step_seconds": steps[len(steps) // 2],
        "memory": max(line["memory"] for line in epochs),
        "rise": _late_rise(epochs, "val/AP"),
        "calibration_error": metrics.get("calibration", {}).get("error"),
        **metrics.get("scores", {}),
    }
    if "identity" in metrics:
        values = metrics["identity"]["values"]
        result |= {f"identity/{name}": value for name, value in values.items()}
        result["identity/rise"] = _late_rise(epochs, "val/identity/mAP")
    return result


def _late_rise(epochs: Sequence[Mapping[str, float]], key: str) -> float | None:
    """What a figure gained in the last quarter of training, counted from the last value before it;
    None without one."""
    curve = [(line["epoch"], line[key]) for line in epochs if key in line]
    early = [figure for epoch, figure in curve if epoch <= 0.75 * epochs[-1]["epoch"]]
    return curve[-1][1] - early[-1] if early else None
