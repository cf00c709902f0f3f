"""Training and evaluating the cells of a grid: here, one per GPU or share of the cores, or wherever
SLURM and Ray put them. What is done is not done again, what was interrupted goes on.
"""

import fcntl
import importlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from tqdm import tqdm

from detector.ablation.grid import Cell, differences
from detector.config import UserError, load, save

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("cells", "configs", "logs", "states")
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


def prepare(out: Path, plan: dict[str, Any], cells: Sequence[Cell]) -> None:
    """Writes down what is to be done. A folder of another ablation is a UserError; more values and
    more seeds of the same axes are not another one."""
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
    write(path, plan)


def listed(keys: Sequence[str]) -> str:
    return ", ".join(keys) or "none"


def outcome(out: Path, name: str) -> Outcome:
    """What is known of a cell now."""
    path = out / "states" / f"{name}.json"
    return Outcome(**json.loads(path.read_text())) if path.is_file() else Outcome("not yet run")


def run_cell(out: Path, name: str, environment: dict[str, str] | None = None) -> Outcome:
    """Train a cell (or go on with it), evaluate its last checkpoint, and write down what came out.

    The last checkpoint and not the best: choosing the best epoch on the images that then decide
    would reward a restless curve. A cell that another process has in hand is waited for. An error
    in it is an outcome, not an exception.
    """
    known = outcome(out, name)
    if known.state == "done":
        return known
    with _in_hand(out / "logs" / f"{name}.lock") as lock:
        known = outcome(out, name)
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
        found = Outcome("failed", _reason(log, code)) if code else Outcome("done", "", _read(run))
        write(out / "states" / f"{name}.json", found._asdict())
        return found


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
    epochs = _epochs(run)
    return int(epochs[-1]["epoch"]) if epochs else 0


def _epochs(run: Path) -> list[dict[str, Any]]:
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
    epochs = _epochs(run)
    steps = sorted(line["step_seconds"] for line in epochs)
    curve = [(line["epoch"], line["val/AP"]) for line in epochs if "val/AP" in line]
    early = [figure for epoch, figure in curve if epoch <= 0.75 * epochs[-1]["epoch"]]
    return {
        **{key: summary[key] for key in ("AP", "AP50", "AP75")},
        "step_seconds": steps[len(steps) // 2],
        "memory": max(line["memory"] for line in epochs),
        "rise": curve[-1][1] - early[-1] if early else None,
    }


def run_all(out: Path, cells: Sequence[Cell], jobs: int, gpus: Sequence[str]) -> None:
    """Runs the cells on this machine, `jobs` at a time, each on a GPU of `gpus` or a share of the
    cores, under one bar. A second Ctrl-C is not needed: the cells get the first one, too."""
    shares: SimpleQueue[dict[str, str]] = SimpleQueue()
    for number in range(jobs):
        shares.put(share(number, jobs, gpus))
    progress = Progress(out, cells)

    def work(cell: Cell) -> None:
        mine = shares.get()
        try:
            began = time.monotonic()
            progress.tell(cell, run_cell(out, cell.name, mine), time.monotonic() - began)
        finally:
            shares.put(mine)

    waiting = [cell for cell in cells if outcome(out, cell.name).state != "done"]
    with progress, ThreadPoolExecutor(jobs) as pool:
        tasks = [pool.submit(work, cell) for cell in waiting]
        try:
            for task in tasks:
                task.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def share(number: int, jobs: int, gpus: Sequence[str]) -> dict[str, str]:
    """The environment of one of `jobs` places. One job alone has the whole machine."""
    if gpus and jobs > 1:
        return {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]}
    if jobs == 1:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}


def visible_gpus() -> list[str]:
    """The GPUs that jobs can be given."""
    import torch

    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    every = names.split(",") if names else [str(k) for k in range(torch.cuda.device_count())]
    return every if torch.cuda.is_available() else []


class Progress:
    """One bar for all cells, counted in epochs, with the time left; plain lines without a terminal.
    The bar reads what the cells write, so that it does not matter where they run."""

    def __init__(self, out: Path, cells: Sequence[Cell]) -> None:
        self.out, self.cells = out, cells
        self.total = sum(cell.config["trainer"]["max_epochs"] for cell in cells)
        self.done = sum(outcome(out, cell.name).state == "done" for cell in cells)
        self.began, self.before = time.monotonic(), self._epochs()
        self.over = threading.Event()
        self.bar = tqdm(
            total=self.total, initial=self.before, unit="epoch", disable=None, desc="ablation"
        )

    def _epochs(self) -> int:
        return sum(epochs_done(self.out / "cells" / cell.name) for cell in self.cells)

    def __enter__(self) -> "Progress":
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()
        self.bar.close()

    def _watch(self) -> None:
        while not self.over.wait(2):
            self.bar.update(self._epochs() - self.bar.n)

    def tell(self, cell: Cell, found: Outcome, seconds: float) -> None:
        """A line for a cell that is over."""
        self.done += found.state == "done"
        now = self._epochs()
        each = (time.monotonic() - self.began) / max(1, now - self.before)
        what = f"AP {found.result['AP']:.3f}" if found.state == "done" else found.reason
        what = f"FAILED: {what}" if found.state == "failed" else what
        text = f"[{self.done}/{len(self.cells)}] {cell.name}: {what}, {seconds / 60:.1f} min"
        tqdm.write(f"{text}; about {each * (self.total - now) / 60:.0f} min left")
        sys.stdout.flush()


def cell_command(out: Path, name: str) -> list[str]:
    """The command that runs one cell, for engines that start processes elsewhere."""
    return [sys.executable, str(ROOT / "scripts" / "ablate.py"), "--cell", name, "--out", str(out)]


def write_slurm(out: Path, cells: Sequence[Cell], jobs: int) -> Path:
    """A script for sbatch with one array task for each cell that is not done."""
    names = [cell.name for cell in cells if outcome(out, cell.name).state != "done"]
    out = out.resolve()
    (out / "waiting.txt").write_text("\n".join(names) + "\n")
    command = shlex.join(cell_command(out, "NAME")).replace("NAME", '"$name"')
    gpu = "#SBATCH --gres=gpu:1\n" if visible_gpus() else ""
    text = f"""#!/bin/bash
#SBATCH --job-name=ablation
#SBATCH --array=1-{len(names)}%{jobs}
#SBATCH --cpus-per-task=4
{gpu}#SBATCH --requeue
#SBATCH --output={out}/logs/slurm_%a.txt
# Add what your cluster wants (partition, account, time, GPUs). A cell that is stopped goes on from
# its last epoch when this is submitted again.
name=$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {shlex.quote(str(out / "waiting.txt"))})
cd {shlex.quote(os.getcwd())}
# one task is one process: Lightning must not take the array for a distributed training
unset SLURM_NTASKS SLURM_JOB_NAME
exec {command}
"""
    path = out / "slurm.sh"
    path.write_text(text)
    return path


def run_ray(out: Path, cells: Sequence[Cell], jobs: int) -> None:
    """Runs the cells as Ray tasks: on the cluster that RAY_ADDRESS names, or on this machine. The
    folder it is called from and this repository must be at the same place everywhere."""
    try:
        ray: Any = importlib.import_module("ray")
    except ModuleNotFoundError:
        raise UserError("--engine ray needs Ray: pip install 'ray>=2.40'") from None
    out = out.resolve()
    ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, logging_level="warning")
    resources = ray.cluster_resources()
    need: dict[str, float] = {"num_cpus": max(1, int(resources.get("CPU", 1) // jobs))}
    if resources.get("GPU"):
        need = {"num_cpus": 1, "num_gpus": max(resources["GPU"] / jobs, 0.01)}
        need["num_gpus"] = min(1.0, need["num_gpus"])

    @ray.remote(**need, max_retries=2)
    def task(command: list[str], folder: str, threads: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        subprocess.run(command, cwd=folder, env=environment, check=False)

    here = os.getcwd(), str(int(need["num_cpus"]))
    progress = Progress(out, cells)
    began = time.monotonic()
    try:
        waiting = {
            task.remote(cell_command(out, cell.name), *here): cell
            for cell in cells
            if outcome(out, cell.name).state != "done"
        }
        with progress:
            while waiting:
                (ready,), _ = ray.wait(list(waiting))
                cell = waiting.pop(ready)
                progress.tell(cell, outcome(out, cell.name), time.monotonic() - began)
    finally:
        ray.shutdown()


def write(path: Path, content: Any) -> None:
    """JSON, at once, so that a kill leaves a whole file."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1))
    partial.replace(path)
