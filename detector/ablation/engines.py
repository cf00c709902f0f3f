"""Where cells run: on this machine, one per GPU or share of the cores, or where SLURM puts them."""

import os
import shlex
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tqdm import tqdm

from detector.ablation.cells import ROOT, Ablation, Outcome, epochs_done, run_cell
from detector.ablation.grid import Cell


def run_all(ablation: Ablation, jobs: int, gpus: Sequence[str]) -> None:
    """Runs the cells on this machine, `jobs` at a time, each on a GPU of `gpus` or a share of the
    cores, under one bar. A second Ctrl-C is not needed: the cells get the first one, too."""
    shares: SimpleQueue[dict[str, str]] = SimpleQueue()
    for number in range(jobs):
        shares.put(share(number, jobs, gpus))
    progress = Progress(ablation)

    def work(cell: Cell) -> None:
        environment = shares.get()
        try:
            began = time.monotonic()
            outcome = run_cell(ablation.out, cell.name, environment)
            progress.tell(cell, outcome, time.monotonic() - began)
        finally:
            shares.put(environment)

    with progress, ThreadPoolExecutor(jobs) as pool:
        tasks = [pool.submit(work, cell) for cell in ablation.waiting()]
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

    def __init__(self, ablation: Ablation) -> None:
        self.ablation, self.cells = ablation, ablation.cells
        self.total = sum(cell.config["trainer"]["max_epochs"] for cell in self.cells)
        self.done = len(ablation.done())
        self.began, self.before = time.monotonic(), self._epochs()
        self.over = threading.Event()
        self.bar = tqdm(
            total=self.total, initial=self.before, unit="epoch", disable=None, desc="ablation"
        )

    def _epochs(self) -> int:
        return sum(epochs_done(self.ablation.run_folder(cell)) for cell in self.cells)

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

    def tell(self, cell: Cell, outcome: Outcome, seconds: float) -> None:
        """A line for a cell that is over."""
        self.done += outcome.state == "done"
        now = self._epochs()
        each = (time.monotonic() - self.began) / max(1, now - self.before)
        what = f"AP {outcome.result['AP']:.3f}" if outcome.state == "done" else outcome.reason
        what = f"FAILED: {what}" if outcome.state == "failed" else what
        text = f"[{self.done}/{len(self.cells)}] {cell.name}: {what}, {seconds / 60:.1f} min"
        tqdm.write(f"{text}; about {each * (self.total - now) / 60:.0f} min left")
        sys.stdout.flush()


def cell_command(out: Path, name: str) -> list[str]:
    """The command that runs one cell, for engines that start processes elsewhere."""
    return [
        sys.executable,
        str(ROOT / "scripts" / "ablate.py"),
        "--cell",
        name,
        "--out",
        str(out),
    ]


def write_slurm(ablation: Ablation, jobs: int) -> Path:
    """A script for sbatch with one array task for each cell that is not done."""
    names = [cell.name for cell in ablation.waiting()]
    out = ablation.out.resolve()
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
