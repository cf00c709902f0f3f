"""A small drawn data set and the shortest real training that tests of the commands share."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from data.shapes import draw_dataset
from detector.training.quiet import UNHELPFUL

if "PYTEST_XDIST_WORKER" in os.environ:  # a process for each core: more threads get in their way
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)

# The figures that tests expect are a CPU's: a GPU rounds otherwise, and scripts would take it where
# there is one. tests/test_gpu.py gives it back to commands of its own.
os.environ.setdefault("GPUS_OF_TESTS", os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # workers of xdist inherit both

REAL = Path(os.environ.get("DETECTOR_REAL_DATA") or ".")  # folder of bccd, neu_det, coco256, pets09
# Counts of real data sets, which nobody may ship with this code: checked by those who have them.
needs_real_data = pytest.mark.skipif(
    "DETECTOR_REAL_DATA" not in os.environ,
    reason="real data sets are not in the repository: name their folder by DETECTOR_REAL_DATA",
)

TINY = """
data: {format: coco, size: [96, 96], batch_size: 4, workers: 0}
model:
  {depth: 18, width: 8, norm: group, channels: 16, convs: 1,
   anchors: {sizes: [12, 24, 48, 96, 160]}}
optimizer: {lr: 0.01, reference_batch: 0}
schedule: {warmup: 2}
trainer: {max_epochs: 2, accelerator: cpu, log_every_n_steps: 1}
"""


def pytest_configure(config: pytest.Config) -> None:
    for message in UNHELPFUL:
        config.addinivalue_line("filterwarnings", f"ignore:{message}")


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 training and 6 validation images of 96 pixels."""
    root = tmp_path_factory.mktemp("shapes")
    draw_dataset(root, train=16, val=6, size=96)
    return root


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> list[str]:
    """Flags of the shortest training."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(TINY)
    return ["--config", str(path), "--data.root", str(shapes)]


def with_root(tiny: list[str], root: Path) -> list[str]:
    """The same flags for other data."""
    return [*tiny[:-1], str(root)]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """A finished run of two epochs, with averaged weights."""
    import train

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    return train.main([*tiny, "--run", str(folder), "--ema.decay", "0.9"])


@pytest.fixture(scope="session")
def headed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained run with an embedding head, as train.py leaves it; beside it, tiny.yaml."""
    import torch

    from detector.config.resolve import resolve, save
    from detector.run.assemble import assemble

    run = tmp_path_factory.mktemp("runs") / "headed"
    config = run.parent / "tiny.yaml"
    config.write_text(TINY)
    changed = {"model.embedding.size": 8, "model.embedding_loss": "ArcFaceLoss"}
    tree = resolve([config], changed | {"data.classes": ["tile", "disk"], "data.root": str(run)})
    torch.manual_seed(0)
    (run / "checkpoints").mkdir(parents=True)
    save(tree, run / "config.yaml")
    state = {f"net.{name}": value for name, value in assemble(tree).net.state_dict().items()}
    torch.save({"state_dict": state}, run / "checkpoints" / "best.ckpt")
    return run


def join_group(rank: int, store: str) -> None:
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., list[Any]]]:
    """Calls a function of a test file in each of two processes of one group, with its rank and the
    arguments given here; returns what both return. The processes are started once, as importing
    torch takes longer than what they compute."""
    store = str(tmp_path_factory.mktemp("group") / "store")
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pools = [
            stack.enter_context(ProcessPoolExecutor(1, context, join_group, (rank, store)))
            for rank in (0, 1)
        ]

        def call(function: Callable[..., Any], *arguments: Any) -> list[Any]:
            results = [pool.submit(function, rank, *arguments) for rank, pool in enumerate(pools)]
            return [result.result(timeout=120) for result in results]

        yield call
