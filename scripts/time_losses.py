"""Time matching and losses against torchvision's, on the same tensors, side by side.

python scripts/time_losses.py --images 8 --size 640 --classes 80 --objects 20

Or whole training steps of a configuration with every loss, side by side:

python scripts/time_losses.py --config configs/shapes.yaml
"""

import argparse
import inspect
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor
from torchvision.models.detection import retinanet_resnet50_fpn
from tqdm import tqdm

import losses
from detector.anchors import AnchorGenerator
from detector.config.errors import one_line_errors
from detector.config.resolve import resolve
from detector.criterion import Criterion
from detector.optimization import make_optimizer
from detector.retinanet import Predictions
from detector.runs.assemble import assemble
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


def with_backward(step: Step, predictions: Predictions) -> Callable[[], None]:
    def run() -> None:
        predictions.logits.grad = predictions.deltas.grad = None
        step().backward()
        if predictions.logits.is_cuda:
            torch.cuda.synchronize()

    return run


def swappable(kind: type) -> list[str]:
    """Names of the losses of a kind that a configuration can name."""
    return [
        name
        for name in losses.__all__
        if issubclass(loss := getattr(losses, name), kind) and not inspect.isabstract(loss)
    ]


def training_steps(path: str, device: str, objects: int) -> dict[str, Callable[[], None]]:
    """One whole step (network, matching, losses, backward, optimizer) of a configuration with each
    classification loss, and with each box loss; the first is focal + smooth L1."""
    pairs = [("FocalLoss", "SmoothL1Loss")]
    pairs += [(name, "SmoothL1Loss") for name in swappable(ClassificationLoss)]
    pairs += [("FocalLoss", name) for name in swappable(BoxLoss)]
    steps = {}
    for class_loss, box_loss in dict.fromkeys(pairs):
        losses = {"model.class_loss": class_loss, "model.box_loss": box_loss}
        config = resolve([path], losses)
        if config["data"]["short"]:
            raise SystemExit(f"{path} has data.short: only one fixed data.size can be timed")
        size, images = config["data"]["size"], config["data"]["batch_size"]
        classes = 6 if config["data"]["format"] == "shapes" else 20
        config["data"]["classes"] = [str(k) for k in range(classes)]
        config["model"]["weights"] = None
        _, batch = make_scene(images, min(size), classes, objects, device)
        batch["images"] = torch.randint(0, 256, (images, 3, *size), dtype=torch.uint8).to(device)
        batch["sizes"] = torch.tensor([size] * images).to(device)
        steps[f"{class_loss} + {box_loss}"] = training_step(config, batch, device)
    return steps


def training_step(
    config: dict[str, Any], batch: dict[str, Tensor], device: str
) -> Callable[[], None]:
    detector = assemble(config).to(device).train()
    optimizer = make_optimizer(detector, config["optimizer"], 1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        losses, _ = detector.criterion(detector.net(batch["images"], batch["sizes"]), batch)
        (losses["class"] + losses["box"]).backward()
        optimizer.step()
        if batch["boxes"].is_cuda:
            torch.cuda.synchronize()

    return step


def take_turns(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each in every round; a round runs them all, so that what disturbs the machine
    disturbs all alike. Two rounds to warm up are not counted."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in tqdm(range(rounds + 2), "rounds", disable=None, leave=False):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return {name: values[2:] for name, values in times.items()}


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
    parser.add_argument("--config", help="time whole training steps of it; its own size and batch")
    options = parser.parse_args(arguments)
    if options.config:
        with one_line_errors():
            whole = training_steps(options.config, options.device, options.objects)
        title = f"whole training step of {options.config}, {options.objects} objects an image"
        return report(take_turns(whole, options.repeats), title, options.device, "the first")
    predictions, batch = make_scene(
        options.images, options.size, options.classes, options.objects, options.device
    )
    parts = (predictions, batch)
    smooth = SmoothL1Loss(beta=0.0)
    steps = {"torchvision, focal + L1": theirs(*parts)}
    for compiled in (False, True):
        end = ", compiled" if compiled else ""
        steps[f"focal + L1{end}"] = ours(*parts, FocalLoss(), smooth, compiled)
        steps[f"focal + GIoU{end}"] = ours(*parts, FocalLoss(), GIoULoss(), compiled)
        steps[f"GHM-C + L1{end}"] = ours(*parts, GHMC(), smooth, compiled)
    timed = {name: with_backward(step, predictions) for name, step in steps.items()}
    title = (
        f"matching and losses, forward and backward: {options.images} x {options.size}^2, "
        f"{predictions.logits.shape[1]:,} anchors, {options.classes} classes, "
        f"{options.objects} objects"
    )
    return report(take_turns(timed, options.repeats), title, options.device, "torchvision")


def report(
    times: dict[str, list[float]], title: str, device: str, reference: str
) -> dict[str, float]:
    """Print the table; its first row is what the others are compared with."""
    found = {name: statistics.median(values) for name, values in times.items()}
    machine = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    threads = "" if device == "cuda" else f", {torch.get_num_threads()} threads"
    print(f"{title}; {machine}{threads}; torch {torch.__version__}")
    print(f"{'':42} {'ms':>8} {'of ' + reference:>15}")
    first = next(iter(found.values()))
    for name, value in found.items():
        print(f"{name:42} {1000 * value:8.1f} {value / first:15.2f}")
    return found


if __name__ == "__main__":
    main()
