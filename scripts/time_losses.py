"""Time matching and losses against torchvision's, on the same tensors, side by side.

python scripts/time_losses.py --images 8 --size 640 --classes 80 --objects 20
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor
from torchvision.models.detection import retinanet_resnet50_fpn
from tqdm import tqdm

from detector.anchors import AnchorGenerator
from detector.criterion import Criterion
from detector.retinanet import Predictions
from losses import GHMC, BoxLoss, ClassificationLoss, FocalLoss, GIoULoss, SmoothL1Loss

Step = Callable[[], Tensor]


def make_scene(
    images: int, size: int, classes: int, objects: int, device: str
) -> tuple[Predictions, dict[str, Tensor]]:
    """Predictions of an untrained net, and objects of 16 to 300 pixels padded to the next of 16,
    32, ..."""
    torch.manual_seed(0)
    levels = [(-(-size // stride),) * 2 for stride in AnchorGenerator.strides]
    anchors = AnchorGenerator()((size, size), levels).to(device)
    logits = torch.randn(images, len(anchors), classes, device=device) * 0.5 - 4.6
    deltas = torch.randn(images, len(anchors), 4, device=device) * 0.1
    rows = 16
    while rows < objects:
        rows *= 2
    sides = torch.exp(torch.empty(images, rows, 2).uniform_(2.8, 5.7)).clamp(max=0.9 * size)
    corner = torch.rand(images, rows, 2) * (size - sides)
    batch = {
        "boxes": torch.cat([corner, corner + sides], dim=2),
        "labels": torch.randint(0, classes, (images, rows)),
        "ignore": torch.zeros(images, rows, dtype=torch.bool),
        "valid": (torch.arange(rows) < objects).expand(images, rows),
    }
    sizes = [rows * columns * 9 for rows, columns in levels]
    predictions = Predictions(logits.requires_grad_(), deltas.requires_grad_(), anchors, sizes)
    return predictions, {name: value.to(device) for name, value in batch.items()}


def ours(
    predictions: Predictions,
    batch: dict[str, Tensor],
    class_loss: ClassificationLoss,
    box_loss: BoxLoss,
    compiled: bool,
) -> Step:
    criterion = Criterion(class_loss, box_loss, predictions.logits.shape[-1])
    forward = torch.compile(criterion, fullgraph=True) if compiled else criterion

    def step() -> Tensor:
        losses, _ = forward(predictions, batch)
        return losses["class"] + losses["box"]

    return step


def theirs(predictions: Predictions, batch: dict[str, Tensor]) -> Step:
    model = retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=predictions.logits.shape[-1]
    )
    targets = [
        {"boxes": boxes[valid], "labels": labels[valid]}
        for boxes, labels, valid in zip(
            batch["boxes"], batch["labels"], batch["valid"], strict=True
        )
    ]
    outputs = {"cls_logits": predictions.logits, "bbox_regression": predictions.deltas}
    anchors = [predictions.anchors] * len(targets)

    def step() -> Tensor:
        losses = model.compute_loss(targets, outputs, anchors)
        return losses["classification"] + losses["bbox_regression"]

    return step


def seconds(step: Step, predictions: Predictions, repeats: int) -> float:
    """Median of forward and backward, after two rounds of warming up."""
    times = []
    for _ in range(repeats + 2):
        predictions.logits.grad = predictions.deltas.grad = None
        _wait(predictions)
        start = time.perf_counter()
        step().backward()
        _wait(predictions)
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def _wait(predictions: Predictions) -> None:
    if predictions.logits.is_cuda:
        torch.cuda.synchronize()


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__)
    for flag, default, text in (
        ("images", 8, "in the batch"),
        ("size", 640, "pixels, square"),
        ("classes", 80, ""),
        ("objects", 20, "per image"),
        ("repeats", 5, "timed rounds; the median counts"),
    ):
        parser.add_argument(f"--{flag}", type=int, default=default, help=f"{text} (%(default)s)")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=best, help="(%(default)s)")
    options = parser.parse_args(arguments)
    predictions, batch = make_scene(
        options.images, options.size, options.classes, options.objects, options.device
    )
    smooth = SmoothL1Loss(beta=0.0)
    steps: dict[str, Step] = {"torchvision, focal + L1": theirs(predictions, batch)}
    for compiled in (False, True):
        end = ", compiled" if compiled else ""
        parts = (predictions, batch)
        steps[f"focal + L1{end}"] = ours(*parts, FocalLoss(), smooth, compiled)
        steps[f"focal + GIoU{end}"] = ours(*parts, FocalLoss(), GIoULoss(), compiled)
        steps[f"GHM-C + L1{end}"] = ours(*parts, GHMC(), smooth, compiled)
    found: dict[str, float] = {}
    for name in (bar := tqdm(steps, disable=None)):
        bar.set_description(name)
        found[name] = seconds(steps[name], predictions, options.repeats)
    first = next(iter(found.values()))
    machine = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    threads = "" if options.device == "cuda" else f", {torch.get_num_threads()} threads"
    print(
        f"{options.images} x {options.size}^2, {predictions.logits.shape[1]:,} anchors, "
        f"{options.classes} classes, {options.objects} objects; {machine}{threads}; "
        f"torch {torch.__version__}"
    )
    print(f"{'matching and losses, forward and backward':42} {'ms':>8} {'of torchvision':>15}")
    for name, value in found.items():
        print(f"{name:42} {1000 * value:8.1f} {value / first:15.2f}")
    return found


if __name__ == "__main__":
    main()
