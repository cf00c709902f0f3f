"""Where cells run: on this machine, one per GPU or share of the cores, or where SLURM puts them."""

import os
import shlex
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue

from tqdm import tqdm

from detector.ablation.cells import ROOT, Ablation, Outcome, run_cell
from detector.ablation.grid import Cell
from detector.config.files import write


def run_all(ablation: Ablation, jobs: int, gpus: Sequence[str]) -> None:
    """Runs on this machine what is not done, `jobs` cells at a time, under one bar.

    Each runs on a GPU of `gpus` or on a share of the cores. Ctrl-C reaches the running cells, too,
    and the others do not start.
    """
    environments: SimpleQueue[dict[str, str]] = SimpleQueue()
    for number in range(jobs):
        environments.put(make_environment(number, jobs, gpus))

    def run(cell: Cell) -> tuple[Cell, Outcome, float]:
        environment, started = environments.get(), time.monotonic()
        try:
            outcome = run_cell(ablation.out, cell.name, environment)
            return cell, outcome, time.monotonic() - started
        finally:
            environments.put(environment)

    waiting, started = ablation.waiting(), time.monotonic()
    total, done = len(ablation.cells), len(ablation.cells) - len(waiting)
    bar = tqdm(total=total, initial=done, unit="cell", desc="ablation", disable=None)
    with bar, ThreadPoolExecutor(jobs) as pool:
        tasks = [pool.submit(run, cell) for cell in waiting]
        try:
            for ended, task in enumerate(as_completed(tasks), 1):
                cell, outcome, seconds = task.result()
                done += outcome.state == "done"
                left = (len(tasks) - ended) * (time.monotonic() - started) / ended
                line = f"[{done}/{total}] {describe(cell, outcome)}, {seconds / 60:.1f} min"
                tqdm.write(f"{line}; about {left / 60:.0f} min left")
                bar.update()
                sys.stdout.flush()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def describe(cell: Cell, outcome: Outcome) -> str:
    """One line of how a cell ended."""
    if outcome.state == "done":
        return f"{cell.name}: AP {outcome.result['AP']:.3f}"
    return f"{cell.name}: {'FAILED: ' * (outcome.state == 'failed')}{outcome.reason}"


def make_environment(number: int, jobs: int, gpus: Sequence[str]) -> dict[str, str]:
    """The variables of one of several jobs. A single job has the whole machine."""
    if jobs == 1:
        return {}
    share = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
    return share | ({"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {})


def visible_gpus(cells: Sequence[Cell]) -> list[str]:
    """The GPUs that jobs can be given, as CUDA_VISIBLE_DEVICES names them; none where all cells
    are to train on something else."""
    import torch

    asked = {cell.config["trainer"].get("accelerator", "auto") for cell in cells}
    if not asked & {"auto", "gpu", "cuda"}:
        return []
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    every = names.split(",") if names else [str(k) for k in range(torch.cuda.device_count())]
    return every if torch.cuda.is_available() else []


def write_slurm(ablation: Ablation, jobs: int) -> Path:
    """A script for sbatch with one array task for each cell that is not done."""
    names = [cell.name for cell in ablation.waiting()]
    out = ablation.out.resolve()
    write(out / "waiting.txt", "\n".join(names) + "\n")
    script = shlex.quote(str(ROOT / "scripts" / "ablate.py"))
    gpu = "#SBATCH --gres=gpu:1\n" if visible_gpus(ablation.cells) else ""
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
exec {shlex.quote(sys.executable)} {script} --cell "$name" --out {shlex.quote(str(out))}
"""
    path = out / "slurm.sh"
    write(path, text)
    return path
