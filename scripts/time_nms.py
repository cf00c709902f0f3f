"""Time every kind of suppression against torchvision's, on the same boxes, side by side.

python scripts/time_nms.py
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor
from torchvision.ops import batched_nms
from tqdm import tqdm

from detector.nms import Suppression
from scripts.time_losses import take_turns

KINDS: dict[str, dict[str, Any]] = {
    "hard": {"kind": "hard"},
    "DIoU": {"kind": "diou"},
    "DIoU, beta 0.9": {"kind": "diou", "beta": 0.9},
    "DIoU, 100 kept": {"kind": "diou", "max_detections": 100},
    "soft, 100 kept": {"kind": "soft", "max_detections": 100},
}


def make_candidates(
    images: int, count: int, classes: int, device: str
) -> tuple[Tensor, Tensor, Tensor]:
    """As a detector makes them: one object for 25 boxes, 60 at most, boxes scattered around them,
    the farther off the lower the score; 15 % background."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    objects = min(60, max(1, count // 25))
    centers, sides = 640 * uniform(images, objects, 2), 16 * 16 ** uniform(images, objects, 2)
    own = torch.randint(objects, (images, count), generator=generator)
    row = torch.arange(images)[:, None]
    off = -0.12 * uniform(images, count).log()  # exponential
    noise = torch.randn(images, count, 4, generator=generator)
    center = centers[row, own] + sides[row, own] * off[..., None] * noise[..., :2]
    side = sides[row, own] * (off[..., None] * noise[..., 2:]).exp()
    background = uniform(images, count) < 0.15
    center = torch.where(background[..., None], 640 * uniform(images, count, 2), center)
    scores = (0.01 + uniform(images, count)) * (-3 * off).exp()
    labels = torch.randint(classes, (images, count), generator=generator)
    boxes = torch.cat([center - side / 2, center + side / 2], dim=-1)
    return boxes.to(device), scores.to(device), labels.to(device)


def times(candidates: tuple[Tensor, Tensor, Tensor], repeats: int) -> dict[str, float]:
    """Median seconds of torchvision's and of every kind, which take turns."""

    def theirs() -> None:
        for image in zip(*candidates, strict=True):
            batched_nms(*image, 0.5)

    count = candidates[1].shape[1]
    calls: dict[str, Callable[[], Any]] = {"torchvision": theirs}
    for name, options in KINDS.items():
        suppression = Suppression(**{"score_threshold": 0.0, "max_detections": count, **options})
        calls[name] = partial(suppression, *candidates)

    def timed(call: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            call()
            if candidates[0].is_cuda:
                torch.cuda.synchronize()

        return run

    found = take_turns({name: timed(call) for name, call in calls.items()}, repeats)
    return {name: statistics.median(values) for name, values in found.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    best = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=best, help="(%(default)s)")
    parser.add_argument("--images", type=int, default=1, help="in a batch (%(default)s)")
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 1000, 5000], help="of boxes")
    parser.add_argument("--classes", type=int, nargs="+", default=[1, 80])
    parser.add_argument("--repeats", type=int, default=20, help="(%(default)s)")
    options = parser.parse_args(arguments)
    machine = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    threads = "" if options.device == "cuda" else f", {torch.get_num_threads()} threads"
    print(f"{options.images} images; {machine}{threads}; torch {torch.__version__}")
    print(f"{'boxes':>6}{'classes':>8}{'torchvision':>13}  times that")
    cases = [(count, classes) for count in options.counts for classes in options.classes]
    for count, classes in tqdm(cases, disable=None, leave=False):
        found = times(
            make_candidates(options.images, count, classes, options.device), options.repeats
        )
        first = found.pop("torchvision")
        ratios = "   ".join(f"{name} {value / first:.2f}" for name, value in found.items())
        tqdm.write(f"{count:>6}{classes:>8}{1000 * first:>10.2f} ms  {ratios}")


if __name__ == "__main__":
    main()
