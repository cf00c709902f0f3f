"""Matching and losses beside torchvision's on the same tensors, or whole training steps of a
configuration with every loss."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import losses
from detector.anchors import AnchorGenerator
from detector.config.errors import UserError
from detector.config.resolve import resolve
from detector.criterion import Criterion
from detector.optimization import make_optimizer
from detector.retinanet import Predictions
from detector.run.assemble import assemble
from losses import GHMC, BoxLoss, ClassificationLoss, FocalLoss, GIoULoss, SmoothL1Loss
from scripts.benchmark.timing import (
    Times,
    choose_device,
    describe_machine,
    make_batch,
    print_times,
    take_turns,
)
from scripts.benchmark.torchvision_peer import make_retinanet, make_targets

Batch = dict[str, Tensor]


def make_predictions(images: int, size: int, classes: int, device: str) -> Predictions:
    """As an untrained net makes them."""
    torch.manual_seed(0)
    levels = [(-(-size // stride),) * 2 for stride in AnchorGenerator.strides]
    anchors = AnchorGenerator()((size, size), levels).to(device)
    logits = torch.randn(images, len(anchors), classes, device=device) * 0.5 - 4.6
    deltas = torch.randn(images, len(anchors), 4, device=device) * 0.1
    counts = [rows * columns * 9 for rows, columns in levels]
    return Predictions(logits.requires_grad_(), deltas.requires_grad_(), anchors, counts)


def our_loss(
    class_loss: ClassificationLoss, box_loss: BoxLoss, classes: int, is_compiled: bool, device: str
) -> Callable[[Predictions, Batch], Tensor]:
    """The total loss of predictions and a batch."""
    criterion: Any = Criterion(class_loss, box_loss, classes).to(device)
    if is_compiled:
        criterion = torch.compile(criterion, fullgraph=True)

    def compute(predictions: Predictions, batch: Batch) -> Tensor:
        return torch.stack(list(criterion(predictions, batch)[0].values())).sum()

    return compute


def torchvision_loss(classes: int, size: int) -> Callable[[Predictions, Batch], Tensor]:
    """torchvision's total of focal and L1 loss, its matching included."""
    model = make_retinanet(18, size, classes)

    def compute(predictions: Predictions, batch: Batch) -> Tensor:
        targets = make_targets(batch)
        outputs = {"cls_logits": predictions.logits, "bbox_regression": predictions.deltas}
        anchors = [predictions.anchors] * len(targets)
        return torch.stack(list(model.compute_loss(targets, outputs, anchors).values())).sum()

    return compute


def backward(compute: Callable[[Predictions, Batch], Tensor], data: tuple[Any, Batch]) -> None:
    """A forward and a backward pass."""
    predictions, _ = data
    predictions.logits.grad = predictions.deltas.grad = None
    compute(*data).backward()


def time_losses(
    images: int, size: int, classes: int, objects: int, rounds: int, device: str
) -> Times:
    predictions = make_predictions(images, size, classes, device)
    batch = make_batch(images, size, classes, objects)
    batch = {name: value.to(device) for name, value in batch.items()}
    l1 = SmoothL1Loss(beta=0.0)
    computations = {"torchvision, focal + L1": torchvision_loss(classes, size)}
    for is_compiled in (False, True):
        end = ", compiled" if is_compiled else ""
        for name, class_loss, box_loss in (
            ("focal + L1", FocalLoss(), l1),
            ("focal + GIoU", FocalLoss(), GIoULoss()),
            ("GHM-C + L1", GHMC(), l1),
        ):
            computations[name + end] = our_loss(class_loss, box_loss, classes, is_compiled, device)
    data = (predictions, batch)
    calls = {name: partial(backward, compute, data) for name, compute in computations.items()}
    return take_turns(calls, rounds, device)


def loss_names(kind: type) -> list[str]:
    """The losses of a kind that a configuration can name."""
    return [
        name
        for name in losses.__all__
        if issubclass(loss := getattr(losses, name), kind) and not inspect.isabstract(loss)
    ]


def training_steps(path: str, objects: int, device: str) -> dict[str, Callable[[], None]]:
    """A whole step (network, matching, losses, backward, optimizer) of a configuration with each
    classification loss, and with each box loss; the first is focal + smooth L1."""
    pairs = [("FocalLoss", "SmoothL1Loss")]
    pairs += [(name, "SmoothL1Loss") for name in loss_names(ClassificationLoss)]
    pairs += [("FocalLoss", name) for name in loss_names(BoxLoss)]
    config = resolve([path])
    if config["data"]["short"]:
        raise UserError(f"{path} has data.short: only a fixed data.size can be timed")
    (height, width), images = config["data"]["size"], config["data"]["batch_size"]
    classes = len(config["data"]["classes"] or []) or 20
    batch = make_batch(images, max(height, width), classes, objects)
    batch["images"] = batch["images"][..., :height, :width]
    batch = {name: value.to(device) for name, value in batch.items()}
    shared = {"data.classes": [str(k) for k in range(classes)], "model.weights": None}
    steps = {}
    for class_loss, box_loss in dict.fromkeys(pairs):
        chosen = {"model.class_loss": class_loss, "model.box_loss": box_loss}
        step = training_step(resolve([path], shared | chosen), batch, device)
        steps[f"{class_loss} + {box_loss}"] = step
    return steps


def training_step(config: dict[str, Any], batch: Batch, device: str) -> Callable[[], None]:
    detector = assemble(config).to(device).train()
    optimizer = make_optimizer(detector, config["optimizer"], 1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        losses, _ = detector.criterion(detector.net(batch["images"], batch["sizes"]), batch)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()

    return step


def run(
    config: str | None,
    images: int,
    size: int,
    classes: int,
    objects: int,
    rounds: int,
    device: str | None,
) -> Times:
    device = choose_device(device)
    if config:
        title = f"training step of {config}"
        times = take_turns(training_steps(config, objects, device), rounds, device)
    else:
        title = f"matching, losses and backward: {images} x {size}^2, {classes} classes"
        times = time_losses(images, size, classes, objects, rounds, device)
    print_times(f"{title}, {objects} objects an image; {describe_machine(device)}", times)
    return times
