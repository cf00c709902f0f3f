"""How fast is it, beside what others offer?  python scripts/benchmark BENCHMARK [--key value]

All sides of a comparison take turns in one run, so that what disturbs the machine disturbs all of
them alike: ratios are what counts, medians of rounds.
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

if not __package__:  # called as a folder, which stands first on the path: its losses.py would
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # hide the package losses

from detector.config.command_line import parse_options
from detector.config.errors import UserError, one_line_errors
from detector.config.types import Count, Fraction, Option, did_you_mean

BENCHMARKS = {
    "step": "training step, its parts, peak memory, inference; beside torchvision's RetinaNet",
    "losses": "matching and losses, beside torchvision's; with --config whole steps of every loss",
    "nms": "every kind of suppression, beside torchvision's batched_nms",
    "loader": "reading, resizing and augmenting, beside torchvision's reference transforms",
    "evaluation": "COCO's figures, beside plain pycocotools",
    "tiles": "small objects in one large image, in tiles and whole, by a run on drawn shapes",
}
USAGE = "\n".join(
    ["python scripts/benchmark BENCHMARK [--key value ...]", ""]
    + [f"  {name:<12}{text}" for name, text in BENCHMARKS.items()]
    + ["", "python scripts/benchmark BENCHMARK --help lists the options of one of them."]
)
DEVICE = Option(str | None, None, "cpu or cuda; null: cuda where there is a GPU")
OPTIONS: dict[str, dict[str, Option]] = {
    "step": {
        "--depth": Option(Count | None, None, "of the ResNet; null: 50, on a CPU 18"),
        "--size": Option(Count | None, None, "pixels, square; null: 640, on a CPU 320"),
        "--batch": Option(Count | None, None, "images; null: 32, on a CPU 8"),
        "--classes": Option(Count, 80, ""),
        "--objects": Option(Count, 7, "per image"),
        "--rounds": Option(Count | None, None, "that are timed; null: 20, on a CPU 5"),
        "--device": DEVICE,
        "--precision": Option(
            Literal["32-true", "bf16-mixed"] | None,
            None,
            "32-true or bf16-mixed; null: bf16-mixed, on a CPU 32-true",
        ),
        "--compile": Option(
            Literal["none", "losses", "all"] | None,
            None,
            "none, losses or all of ours; null: all, on a CPU losses",
        ),
        "--parts": Option(
            list[Literal["training", "memory", "inference"]],
            ["training", "memory", "inference"],
            "what is measured",
        ),
    },
    "losses": {
        "--config": Option(str | None, None, "time whole training steps of it, its size and batch"),
        "--images": Option(Count, 8, "in the batch"),
        "--size": Option(Count, 640, "pixels, square"),
        "--classes": Option(Count, 80, ""),
        "--objects": Option(Count, 20, "per image"),
        "--rounds": Option(Count, 5, "that are timed"),
        "--device": DEVICE,
    },
    "nms": {
        "--images": Option(Count, 1, "in a batch"),
        "--counts": Option(list[Count], [100, 1000, 5000], "of boxes in an image"),
        "--classes": Option(list[Count], [1, 80], ""),
        "--rounds": Option(Count, 20, "that are timed"),
        "--device": DEVICE,
    },
    "loader": {
        "--size": Option(Count, 640, "pixels, square"),
        "--images": Option(Count, 32, "of 480 x 640; a quarter as many of twice the size"),
        "--rounds": Option(Count, 5, "that are timed"),
    },
    "evaluation": {
        "--images": Option(Count, 5000, ""),
        "--classes": Option(Count, 80, ""),
        "--detections": Option(Count, 100, "in every image with objects"),
    },
    "tiles": {
        "--run": Option(str, ..., "of configs/shapes.yaml"),
        "--side": Option(Count, 8000, "pixels of the image"),
        "--objects": Option(Count, 500, "in it"),
        "--score": Option(Fraction, 0.5, "lowest that counts"),
    },
}


def parse_arguments(argv: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The name of the benchmark and its options."""
    name, *words = argv or ["--help"]
    if name in ("--help", "-h"):
        print(USAGE)
        raise SystemExit(0)
    if name not in BENCHMARKS:
        hint = did_you_mean(name, BENCHMARKS) or f": {', '.join(BENCHMARKS)}"
        raise UserError(f"there is no benchmark {name}{hint}")
    usage = f"python scripts/benchmark {name} [--key value ...]\n\n{BENCHMARKS[name]}"
    options, _ = parse_options(words, usage=usage, program_options=OPTIONS[name], sections=())
    return name, options


def main(argv: Sequence[str] | None = None) -> Any:
    """Runs a benchmark and prints its tables; returns what was measured."""
    with one_line_errors():
        name, options = parse_arguments(sys.argv[1:] if argv is None else argv)
        return importlib.import_module(f"scripts.benchmark.{name}").run(**options)


if __name__ == "__main__":
    main()
