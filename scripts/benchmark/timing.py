"""What all benchmarks share: taking turns, processes, tables, and a batch of made-up objects."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data.dataset import collate
from detector.evaluation.table import Table

Times = dict[str, list[float]]


def choose_device(device: str | None) -> str:
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def describe_machine(device: str) -> str:
    """`CPU, 2 threads, torch 2.14.1`, or the name of the GPU."""
    threads = f"CPU, {torch.get_num_threads()} threads"
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else threads
    return f"{name}, torch {torch.__version__}"


def take_turns(calls: Mapping[str, Callable[[], Any]], rounds: int, device: str = "cpu") -> Times:
    """Seconds of each call in every round, the wait for the device included.

    A round makes all calls, so that what disturbs the machine disturbs all of them alike. Two
    rounds to warm up are not counted.
    """
    times: Times = {name: [] for name in calls}
    for _ in tqdm(range(rounds + 2), "rounds", disable=None, leave=False):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    return {name: values[2:] for name, values in times.items()}


def call_in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns in a fresh process, whose memory is that of the call alone."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, *arguments).result()


def print_times(title: str, times: Times, images: float = 0) -> None:
    """A row for each call: its median, the spread (half of the range) and the ratio to the first.

    Milliseconds, or with the number of images of a call their rate.
    """
    medians = {name: statistics.median(values) for name, values in times.items()}
    reference, first = next(iter(medians.items()))
    rows = []
    for name, median in medians.items():
        spread = (max(times[name]) - min(times[name])) / 2 / median
        figures = (images / median, first / median) if images else (1000 * median, median / first)
        rows.append([name, figures[0], spread, figures[1]])
    ratio = f"times as fast as {reference}" if images else f"of {reference}"
    heads = ["", "img/s" if images else "ms", "±", ratio]
    print_table(title, heads, rows, ["", ".1f" if images else ".2f", ".0%", ".2f"])


def print_table(
    title: str, heads: Sequence[str], rows: Sequence[Sequence[Any]], formats: Sequence[str]
) -> None:
    print(f"\n{title}", Table(heads, rows, formats).render(), sep="\n", flush=True)


def make_batch(images: int, size: int, classes: int, objects: int) -> dict[str, Tensor]:
    """Noise with objects of 16 to 300 pixels, as a loader hands it over."""
    random = np.random.default_rng(0)
    samples = []
    for index in range(images):
        sides = np.exp(random.uniform(2.8, 5.7, (objects, 2))).clip(max=0.9 * size)
        corners = random.uniform(0, 1, (objects, 2)) * (size - sides)
        pixels = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
        samples.append(
            {
                "image": torch.from_numpy(pixels).movedim(-1, 0),
                "boxes": np.concatenate([corners, corners + sides], 1).astype(np.float32),
                "labels": random.integers(0, classes, objects),
                "ignore": np.zeros(objects, bool),
                "size": (size, size),
                "original_size": (size, size),
                "image_id": index,
            }
        )
    return collate(samples)
