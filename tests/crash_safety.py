"""Kills trainings by kill -9 at random moments and fills their disk: is anything lost?

python tests/crash_safety.py [--kills 20] [--saving 5] [--others 5] [--disks 5] [--seed 0]
(pytest does not collect it)

A small training runs once without interruption. Then the same is killed at random moments, each
time gone on with by the same command, until it is over: the curve, the weights and what TensorBoard
shows must be those of the first. So must they where it is killed whenever it writes a checkpoint,
and the figures of an evaluation and of an ablation that are killed and typed again. Then it runs on
small disks (a tmpfs each, which needs root), each full at another moment: one clear line, and once
there is space --resume ends at the same curve.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from data.shapes import draw_dataset  # noqa: E402

GONE_ON, EQUAL = "killed, gone on with", "curve, weights, TensorBoard equal"
CURVE = ("epoch", "val/class", "val/box", "val/AP")


def command(run: Path, *flags: str) -> list[str]:
    """The command that begins a training, or goes on with it where its folder exists."""
    base = [sys.executable, str(ROOT / "train.py")]
    if (run / "config.yaml").is_file():
        return [*base, "--resume", str(run), *flags]
    return [*base, "--config", "small.yaml", "--run", str(run), *flags]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def start(words: Sequence[str], work: Path) -> subprocess.Popen[str]:
    """A process with those that it starts, all of them in one group."""
    pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(words, cwd=work, env=environment(), start_new_session=True, **pipe)


def curve(run: Path) -> list[tuple[float, ...]]:
    epochs = json.loads((run / "metrics.json").read_text())["epochs"]
    return [tuple(line[name] for name in CURVE) for line in epochs]


def weights(run: Path) -> dict[str, torch.Tensor]:
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    state: dict[str, torch.Tensor] = content["state_dict"]
    return state


def steps(run: Path) -> list[int]:
    """The steps of train/loss as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run))
    events.Reload()
    return [event.step for event in events.Scalars("train/loss")]


def equal(run: Path, whole: Path) -> dict[str, bool]:
    """In what a run is equal to the uninterrupted one."""
    ours, theirs = weights(run), weights(whole)
    return {
        "curve": curve(run) == curve(whole),
        "weights": all(torch.equal(ours[key], theirs[key]) for key in theirs),
        "TensorBoard": steps(run) == steps(whole),
    }


def doing(run: Path) -> str:
    """What a training was busy with, as its folder tells."""
    if not (run / "config.yaml").is_file():
        return "starting"
    path = run / "metrics.json"
    done = json.loads(path.read_text())["epochs"][-1]["epoch"] if path.is_file() else 0
    return f"after epoch {done}"


def is_running(run: Path, began: float) -> bool:
    """Whether the training that began then has written its configuration."""
    path = run / "config.yaml"
    return path.is_file() and path.stat().st_mtime >= began


def kill(work: Path, whole: Path, seconds: float, kills: int, random_: random.Random) -> list[Any]:
    """One training, killed again and again; rows for the table."""
    rows: list[Any] = []
    number = 0
    while len(rows) < kills:
        run = work / f"killed_{number}"
        number += 1
        while True:
            began = time.time()
            process = start(command(run), work)
            # at any moment of the training: counted from when its folder has been written to
            while process.poll() is None and not is_running(run, began):
                time.sleep(0.05)
            wait = random_.uniform(0.0, 1.1) * seconds
            try:
                output, _ = process.communicate(timeout=wait if len(rows) < kills else None)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.communicate()
                rows.append([len(rows) + 1, f"{wait:.1f} s", doing(run), GONE_ON])
                print(*rows[-1], sep="  ", flush=True)
                continue
            if process.returncode:
                rows.append([len(rows) + 1, "-", doing(run), f"FAILED: {output.splitlines()[-1]}"])
                print(output)
                return rows
            break
        same = equal(run, whole)
        lost = [name for name, value in same.items() if not value]
        verdict = f"NOT EQUAL: {', '.join(lost)}" if lost else EQUAL
        rows.append(["", "", "finished", verdict])
        print(*rows[-1], sep="  ", flush=True)
    return rows


def kill_while_saving(work: Path, whole: Path, kills: int) -> list[Any]:
    """A training that is killed whenever a part of a checkpoint is on the disk; rows."""
    rows: list[Any] = []
    run = work / "killed_while_saving"
    while True:
        process = start(command(run), work)
        while process.poll() is None and len(rows) < kills:
            partial = [path.name for path in (run / "checkpoints").glob(".*.partial")]
            if partial:
                os.killpg(process.pid, 9)
                process.communicate()
                rows.append([len(rows) + 1, partial[0].split(".ckpt")[0][1:], doing(run), GONE_ON])
                print(*rows[-1], sep="  ", flush=True)
                break
        else:
            process.communicate()
            break
    lost = [name for name, value in equal(run, whole).items() if not value]
    rows.append(["", "", "finished", f"NOT EQUAL: {', '.join(lost)}" if lost else EQUAL])
    return rows


def figures(folder: Path) -> dict[str, Any]:
    """Figures and detections of all evaluations below a folder."""
    return {
        str(path.relative_to(folder)): (
            json.loads(path.read_text())["summary"],
            path.with_name("detections.json").read_text(),
        )
        for path in sorted(folder.rglob("eval/metrics.json"))
    }


def kill_others(work: Path, whole: Path, kills: int, random_: random.Random) -> list[Any]:
    """An evaluation and an ablation, each killed at random moments and typed again; rows."""
    rows: list[Any] = []
    losses = ["--class_loss", "FocalLoss", "GHMC", "--trainer.max_epochs", "2"]
    commands = {
        "eval.py": (whole, ["eval.py", str(whole)]),
        "ablate.py": (
            work / "ablation",
            ["scripts/ablate.py", "--config", "small.yaml", *losses, "--out", "ablation"],
        ),
    }
    for name, (folder, (program, *flags)) in commands.items():
        words = [sys.executable, str(ROOT / program), *flags]
        began = time.time()
        subprocess.run(words, cwd=work, env=environment(), check=True, capture_output=True)
        seconds, expected = time.time() - began, figures(folder)
        shutil.rmtree(whole / "eval" if name == "eval.py" else folder)
        for number in range(kills):
            process, wait = start(words, work), random_.uniform(0.2, 1.0) * seconds
            try:
                process.communicate(timeout=wait)
                rows.append([name, f"{wait:.1f} s", "finished before"])
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.communicate()
                rows.append([name, f"{wait:.1f} s", GONE_ON])
            print(number + 1, *rows[-1], sep="  ", flush=True)
        subprocess.run(words, cwd=work, env=environment(), check=True, capture_output=True)
        same = figures(folder) == expected and bool(expected)
        rows.append([name, "finished", "figures equal" if same else "NOT EQUAL"])
        print(*rows[-1], sep="  ", flush=True)
    return rows


def fill(work: Path, whole: Path, disks: int) -> list[Any]:
    """The same on disks that are too small, each by another share of what a run needs."""
    rows: list[Any] = []
    need = sum(file.stat().st_size for file in whole.rglob("*") if file.is_file())
    for number in range(disks):
        size = int(need * (number + 0.5) / disks)
        disk = work / f"disk_{number}"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=True)
        try:
            run = disk / "run"
            process = subprocess.run(
                command(run), cwd=work, env=environment(), capture_output=True, text=True
            )
            last = (process.stderr.strip().splitlines() or [""])[-1]
            clear = process.returncode == 2 and "Traceback" not in process.stderr
            subprocess.run(["mount", "-o", "remount,size=1g", disk], check=True)
            again = subprocess.run(
                command(run), cwd=work, env=environment(), capture_output=True, text=True
            )
            same = again.returncode == 0 and all(equal(run, whole).values())
            state = "then --resume: equal" if same else "then --resume: NOT EQUAL"
            rows.append(
                [f"{size / 2**20:.1f} MiB", last[:100] if clear else f"TRACEBACK {last}", state]
            )
            print(*rows[-1], sep="  ", flush=True)
            if not same:
                print(again.stdout[-500:], again.stderr[-1500:])
        finally:
            subprocess.run(["umount", "-l", disk], check=False)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--saving", type=int, default=5)
    parser.add_argument("--others", type=int, default=5)
    parser.add_argument("--disks", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    work = Path(tempfile.mkdtemp(prefix="crash_safety_"))
    draw_dataset(work / "datasets" / "golden", train=16, val=6, size=96)
    text = (ROOT / "tests" / "golden" / "small.yaml").read_text()
    (work / "small.yaml").write_text(text.replace("max_epochs: 2", f"max_epochs: {options.epochs}"))
    whole = work / "whole"
    subprocess.run(command(whole), cwd=work, env=environment(), check=True)
    seconds = time.time() - (whole / "config.yaml").stat().st_mtime
    print(f"uninterrupted: {seconds:.0f} s after its start")
    rows = kill(work, whole, seconds, options.kills, random.Random(options.seed))
    saving = kill_while_saving(work, whole, options.saving) if options.saving else []
    draws = random.Random(options.seed)
    others = kill_others(work, whole, options.others, draws) if options.others else []
    disks = fill(work, whole, options.disks)
    print(tabulate(rows, ["kill", "after", "state", "result"], tablefmt="github"))
    print(tabulate(saving, ["kill", "writing", "state", "result"], tablefmt="github"))
    print(tabulate(others, ["command", "after", "result"], tablefmt="github"))
    print(tabulate(disks, ["disk", "what is said", "result"], tablefmt="github"))
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
