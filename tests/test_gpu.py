"""On a machine with a GPU the commands use it; elsewhere these tests are skipped."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

GPUS = os.environ["GPUS_OF_TESTS"]  # tests/conftest.py
ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(
    shutil.which("nvidia-smi") is None or GPUS == "", reason="there is no GPU"
)


def call(*words: str) -> str:
    """What a command prints that sees the GPUs."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": GPUS}
    if GPUS == "all":
        del environment["CUDA_VISIBLE_DEVICES"]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["--trainer.precision", "32-true", "--model.norm", "batch"],
        ["--trainer.precision", "bf16-mixed", "--model.class_loss", "GHMC"],
        ["--trainer.precision", "16-mixed", "--model.box_loss", "GIoULoss"],
    ],
)
def test_commands_use_the_gpu(words: list[str], tiny: list[str], tmp_path: Path) -> None:
    run, out = str(tmp_path / "run"), tmp_path / "out"
    shapes = Path(tiny[-1])
    call("train.py", *tiny, *words, "--trainer.accelerator", "gpu", "--run", run)
    last = json.loads(Path(run, "metrics.json").read_text())["epochs"][-1]
    assert 0 < last["memory"] < 1  # GiB of the GPU; of RAM such a process has more
    evaluated = call("eval.py", run)
    assert f"{last['val/AP']:.3f}" in evaluated
    call("scripts/predict.py", run, str(shapes / "val"), "--out", str(out), "--score", "0.01")
    assert list(out.iterdir())
    call("scripts/gradient_density.py", run)
    call("train.py", "--resume", run, "--trainer.max_epochs", "3")
    assert len(json.loads(Path(run, "metrics.json").read_text())["epochs"]) == 3


def test_steps_are_timed_on_the_gpu() -> None:
    small = "--depth 18 --size 64 --batch 2 --classes 3 --rounds 1 --compile none"
    assert "peak memory in training" in call("scripts/benchmark", "step", *small.split())
    losses = "--images 2 --size 64 --classes 3 --rounds 1"
    assert "GHM-C + L1, compiled" in call("scripts/benchmark", "losses", *losses.split())
