"""How fast is it here, beside torchvision's RetinaNet?  python scripts/benchmark.py

The same backbone, pyramid, heads, size, batch, precision, classes and objects on both sides, taking
turns on one machine: training step and its parts, peak memory, inference with suppression, loading.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch.utils.flop_counter import FlopCounterMode

from detector.training.callbacks import peak_memory
from scripts.sides import PARTS, SIDES, Work
from scripts.time_loader import loaders
from scripts.time_losses import take_turns


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__)
    for flag, default, text in (
        ("depth", 50 if gpu else 18, "of the ResNet"),
        ("size", 640 if gpu else 320, "pixels, square"),
        ("batch", 32 if gpu else 8, "images of a training step"),
        ("classes", 80, ""),
        ("objects", 7, "an image"),
        ("rounds", 20 if gpu else 5, "timed, of each side in turn; the median counts"),
        ("images", 64, "for the loader"),
    ):
        parser.add_argument(f"--{flag}", type=int, default=default, help=f"{text} (%(default)s)")
    parser.add_argument("--device", default="cuda" if gpu else "cpu", help="(%(default)s)")
    parser.add_argument("--precision", choices=["32", "bf16"], default="bf16" if gpu else "32")
    parser.add_argument(
        "--compile",
        choices=["none", "losses", "all"],
        default="all" if gpu else "losses",
        help="ours (%(default)s)",
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        default=["train", "memory", "inference", "loader"],
        choices=["train", "memory", "inference", "loader"],
        help="(all)",
    )
    parser.add_argument("--out", help="write the figures to this JSON file, too")
    return parser.parse_args(words)


def train(work: Work) -> dict[str, Any]:
    """Seconds of whole steps, and of their parts, which are timed in steps of their own: waiting
    for a GPU between parts slows it down."""
    sides = {name: work.training(name) for name in SIDES}
    found = take_turns({n: work.whole(side) for n, side in sides.items()}, work.options.rounds)
    held: dict[str, Any] = {}

    def only(name: str, part: str) -> Callable[[], None]:
        def run() -> None:
            held[name] = sides[name][part](held.get(name))
            work.wait()

        return run

    steps = {f"{name}: {part}": only(name, part) for part in PARTS for name in SIDES}
    return {"steps": found, "parts": take_turns(steps, work.options.rounds)}


def inference(work: Work) -> dict[str, list[float]]:
    """From images on the device to detections. The net is untrained, so all candidates are in."""
    detector, model = work.ours("none").eval(), work.theirs().eval()
    batch = {name: value[:8].to(work.device) for name, value in work.batch.items()}
    floats = [image.float() / 255 for image in batch["images"]]

    @torch.inference_mode()
    def theirs() -> None:
        with work.autocast():
            model(floats)
        work.wait()

    def ours(kind: str) -> Callable[[], None]:
        @torch.inference_mode()
        def run() -> None:
            suppression = detector.postprocess.suppression
            detector.postprocess.suppression = replace(suppression, kind=kind)
            with work.autocast():
                detector(batch)
            work.wait()

        return run

    ways = {"torchvision": theirs, "ours, DIoU-NMS": ours("diou"), "ours, hard": ours("hard")}
    return take_turns(ways, work.options.rounds)


def memory_of(name: str, options: argparse.Namespace, queue: Any) -> None:
    work = Work(options)
    step = work.whole(work.training(name))
    for _ in range(3):
        step()
    queue.put(peak_memory())


def memory(options: argparse.Namespace) -> dict[str, list[float]]:
    """GiB at most, each side in a process of its own: of tensors on the GPU, or of the process."""
    context = multiprocessing.get_context("spawn")
    found = {}
    for name in SIDES:
        queue = context.Queue()
        process = context.Process(target=memory_of, args=(name, options, queue))
        process.start()
        found[name] = [queue.get()]
        process.join()
    return found


def matrix_share(work: Work, seconds: float) -> dict[str, float]:
    """What share of the rate that large matrix products reach here the training step has: its
    operations are 2 x the multiply-adds of the network's forward pass, x 3 with backward."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work.our_parts(work.ours("none"))["network"](
            {name: value.to(work.device) for name, value in work.batch.items()}
        )
    operations = 3.0 * counter.get_total_flops()
    side = 8192 if work.device == "cuda" else 2048
    kind = torch.bfloat16 if work.options.precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=work.device, dtype=kind) for _ in range(2))

    def product() -> None:
        a @ b
        work.wait()

    best = min(take_turns({"product": product}, 10)["product"])
    peak = 2 * side**3 / best
    return {"step": operations / seconds, "peak": peak, "share": operations / seconds / peak}


def show(title: str, found: dict[str, list[float]], images: float, unit: str = "img/s") -> None:
    """A line for each: median, spread, and the ratio to the first."""
    print(f"\n{title}")
    first = statistics.median(next(iter(found.values())))
    for name, values in found.items():
        middle, spread = statistics.median(values), (max(values) - min(values)) / 2
        rate = f"{images / middle:>10.1f} {unit}" if images else f"{middle:>10.2f} {unit}"
        ratio = first / middle if images else middle / first
        what = "times as fast" if images else "of the first"
        print(f"  {name:<34}{rate}  ± {spread / middle:>4.0%}  {ratio:>6.2f} {what}")


def main(words: list[str] | None = None) -> dict[str, Any]:
    options = arguments(words)
    work = Work(options)
    machine = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(
        f"{machine}, {torch.get_num_threads()} threads, torch {torch.__version__}: R{options.depth}"
        f"-FPN, {options.size} x {options.size}, batch {options.batch}, {options.classes} classes, "
        f"{options.objects} objects an image, {options.precision}; ours compiled: {options.compile}"
    )
    found: dict[str, Any] = {"machine": machine, "torch": torch.__version__, **vars(options)}
    if "train" in options.parts:
        found["train"] = train(work)
        show("training step", found["train"]["steps"], options.batch)
        for part in PARTS:
            pair = {name: found["train"]["parts"][f"{name}: {part}"] for name in SIDES}
            show(f"  {part}", {name: [1000 * v for v in pair[name]] for name in pair}, 0, "ms")
        seconds = statistics.median(found["train"]["steps"]["ours"])
        found["matrix"] = matrix_share(work, seconds)
        print(
            f"\nmatrix products: {found['matrix']['step'] / 1e12:.2f} of "
            f"{found['matrix']['peak'] / 1e12:.2f} TFLOP/s, {found['matrix']['share']:.0%}"
        )
    if "memory" in options.parts:
        found["memory"] = memory(options)
        show("peak memory in training", found["memory"], 0, "GiB")
    if "inference" in options.parts:
        found["inference"] = inference(work)
        show("inference, 8 images", found["inference"], min(8, options.batch))
    if "loader" in options.parts:
        found["loader"] = loaders(640, options.images, options.rounds)
        for kind in (False, True):
            some = {k: v for k, v in found["loader"].items() if ("large" in k) == kind}
            show("loading on one core, flip and color, 640 x 640", some, 1)
    if options.out:
        Path(options.out).write_text(json.dumps(found, indent=1))
    return found


if __name__ == "__main__":
    main()
