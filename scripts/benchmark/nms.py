"""Every kind of suppression beside torchvision's batched_nms, on the same boxes."""

import itertools
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from detector.nms import Suppression
from scripts.benchmark.timing import (
    Times,
    choose_device,
    describe_machine,
    print_table,
    take_turns,
)

KINDS: dict[str, dict[str, Any]] = {
    "hard": {"kind": "hard"},
    "DIoU": {"kind": "diou"},
    "DIoU, beta 0.9": {"kind": "diou", "beta": 0.9},
    "DIoU, 100 kept": {"kind": "diou", "max_detections": 100},
    "soft, 100 kept": {"kind": "soft", "max_detections": 100},
}
Candidates = tuple[Tensor, Tensor, Tensor]


def make_candidates(images: int, count: int, classes: int, device: str) -> Candidates:
    """Boxes (N, C, 4), scores (N, C) and labels (N, C) as a detector makes them: one object for 25
    boxes, 60 at most, boxes scattered around them, the farther off the lower the score; 15 % of
    them anywhere."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    objects = min(60, max(1, count // 25))
    centers, sides = 640 * uniform(images, objects, 2), 16 * 16 ** uniform(images, objects, 2)
    nearest = torch.randint(objects, (images, count), generator=generator)
    row = torch.arange(images)[:, None]
    offset = -0.12 * uniform(images, count).log()  # exponential
    noise = torch.randn(images, count, 4, generator=generator)
    center = centers[row, nearest] + sides[row, nearest] * offset[..., None] * noise[..., :2]
    side = sides[row, nearest] * (offset[..., None] * noise[..., 2:]).exp()
    background = uniform(images, count) < 0.15
    center = torch.where(background[..., None], 640 * uniform(images, count, 2), center)
    scores = (0.01 + uniform(images, count)) * (-3 * offset).exp()
    labels = torch.randint(classes, (images, count), generator=generator)
    boxes = torch.cat([center - side / 2, center + side / 2], dim=-1)
    return boxes.to(device), scores.to(device), labels.to(device)


def time_kinds(candidates: Candidates, rounds: int, device: str) -> Times:
    """Seconds of torchvision's and of every kind of ours."""

    def run_torchvision() -> None:
        for image in zip(*candidates[:3], strict=True):
            batched_nms(*image, 0.5)

    calls: dict[str, Callable[[], Any]] = {"torchvision": run_torchvision}
    defaults = {"score_threshold": 0.0, "max_detections": candidates[1].shape[1]}
    for name, options in KINDS.items():
        calls[name] = partial(Suppression(**(defaults | options)), *candidates[:3])
    return take_turns(calls, rounds, device)


def run(
    images: int, counts: list[int], classes: list[int], rounds: int, device: str | None
) -> dict[tuple[int, int], Times]:
    """Times by the number of boxes and of classes."""
    device = choose_device(device)
    measured, rows = {}, []
    for count, number in itertools.product(counts, classes):
        candidates = make_candidates(images, count, number, device)
        times = measured[count, number] = time_kinds(candidates, rounds, device)
        first, *others = (statistics.median(values) for values in times.values())
        rows.append([count, number, 1000 * first, *(seconds / first for seconds in others)])
    title = f"{images} images, ours as ratios to torchvision; {describe_machine(device)}"
    heads = ["boxes", "classes", "torchvision, ms", *KINDS]
    print_table(title, heads, rows, [",", "d", *[".2f"] * (1 + len(KINDS))])
    return measured
