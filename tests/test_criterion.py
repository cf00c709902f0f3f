import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import retinanet_resnet50_fpn
from torchvision.models.detection.retinanet import RetinaNetHead

from detector.criterion import Criterion
from detector.retinanet import Predictions
from detector.run.assemble import keep_what_fits
from losses import (
    GHMC,
    GHMR,
    BoxLoss,
    ClassificationLoss,
    FocalLoss,
    GIoULoss,
    SigmoidCrossEntropy,
    SmoothL1Loss,
    SoftmaxCrossEntropy,
)

K = 4


def scene(
    images: int = 2, objects: int = 5, seed: int = 0
) -> tuple[Predictions, dict[str, Tensor]]:
    """Random predictions of 300 anchors, and objects in rows that are followed by as many of
    padding."""
    generator = torch.Generator().manual_seed(seed)

    def boxes(*shape: int) -> Tensor:
        corner = torch.rand(*shape, 2, generator=generator) * 100
        return torch.cat([corner, corner + 5 + 60 * torch.rand(*shape, 2, generator=generator)], -1)

    logits = torch.randn(images, 300, K, generator=generator) - 2
    deltas = torch.randn(images, 300, 4, generator=generator) * 0.3
    predictions = Predictions(logits.requires_grad_(), deltas.requires_grad_(), boxes(300), [300])
    valid = torch.arange(2 * objects).expand(images, -1) < objects
    batch = {
        "boxes": torch.where(valid[..., None], boxes(images, 2 * objects), 0.0),
        "labels": torch.randint(0, K, (images, 2 * objects), generator=generator) * valid,
        "ignore": torch.zeros(images, 2 * objects, dtype=torch.bool),
        "valid": valid,
    }
    return predictions, batch


def total(criterion: Criterion, predictions: Predictions, batch: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(criterion(predictions, batch)[0].values())).sum()


def torchvision_losses(
    predictions: Predictions, batch: dict[str, Tensor], box: str
) -> dict[str, Tensor]:
    model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=K)
    head: RetinaNetHead = model.head
    head.regression_head._loss_type = box
    targets = [
        {"boxes": boxes[valid], "labels": labels[valid]}
        for boxes, labels, valid in zip(
            batch["boxes"], batch["labels"], batch["valid"], strict=True
        )
    ]
    outputs = {"cls_logits": predictions.logits, "bbox_regression": predictions.deltas}
    return model.compute_loss(targets, outputs, [predictions.anchors] * len(targets))


@pytest.mark.parametrize(("loss", "name"), [(SmoothL1Loss(beta=0.0), "l1"), (GIoULoss(), "giou")])
@pytest.mark.parametrize("seed", range(4))
def test_one_image_equals_torchvision(loss: BoxLoss, name: str, seed: int) -> None:
    predictions, batch = scene(images=1, seed=seed)
    expected = torchvision_losses(predictions, batch, name)
    losses, targets = Criterion(FocalLoss(), loss, K, force="torchvision")(predictions, batch)
    assert targets.num_foreground >= 5
    torch.testing.assert_close(losses["class"], expected["classification"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(losses["box"], expected["bbox_regression"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("box_loss", [SmoothL1Loss(), GIoULoss()], ids=repr)
@pytest.mark.parametrize("class_loss", [FocalLoss(), SigmoidCrossEntropy()], ids=repr)
def test_doubling_the_batch_keeps_the_loss(
    class_loss: ClassificationLoss, box_loss: BoxLoss
) -> None:
    predictions, batch = scene()
    criterion = Criterion(class_loss, box_loss, K)
    doubled = predictions._replace(
        logits=predictions.logits.repeat(2, 1, 1), deltas=predictions.deltas.repeat(2, 1, 1)
    )
    twice = {name: torch.cat([value, value]) for name, value in batch.items()}
    torch.testing.assert_close(
        total(criterion, doubled, twice), total(criterion, predictions, batch)
    )


@pytest.mark.parametrize("box_loss", [SmoothL1Loss(), GIoULoss()], ids=repr)
def test_no_objects_at_all(box_loss: BoxLoss) -> None:
    predictions, batch = scene()
    batch = batch | {"valid": torch.zeros_like(batch["valid"])}
    losses, targets = Criterion(FocalLoss(), box_loss, K)(predictions, batch)
    (losses["class"] + losses["box"]).backward()
    assert targets.num_foreground == 1  # never a division by zero
    assert losses["box"] == 0
    assert losses["class"] > 0
    assert predictions.deltas.grad is not None
    assert (predictions.deltas.grad == 0).all()
    assert predictions.logits.grad is not None
    assert predictions.logits.grad.isfinite().all()


@pytest.mark.parametrize("box_loss", [SmoothL1Loss(), GIoULoss()], ids=repr)
def test_ignored_anchors_and_other_boxes_change_nothing(box_loss: BoxLoss) -> None:
    predictions, batch = scene()
    batch["ignore"][:, 0] = True
    criterion = Criterion(FocalLoss(), box_loss, K)
    labels = criterion(predictions, batch)[1].labels
    ignored, foreground = labels == -1, (labels >= 0) & (labels < K)
    assert ignored.any()
    wild = predictions._replace(
        logits=torch.where(ignored[..., None], 1e30, predictions.logits),
        deltas=torch.where(foreground[..., None], predictions.deltas, 1e30),
    )
    value = total(criterion, wild, batch)
    assert value == total(criterion, predictions, batch)
    value.backward()
    assert predictions.logits.grad is not None
    assert (predictions.logits.grad[ignored] == 0).all()
    assert predictions.deltas.grad is not None
    assert predictions.deltas.grad.isfinite().all()


def test_weight_is_applied_once() -> None:
    predictions, batch = scene()
    plain, _ = Criterion(FocalLoss(), GIoULoss(), K)(predictions, batch)
    heavy, _ = Criterion(FocalLoss(weight=2.0), GIoULoss(weight=3.0), K)(predictions, batch)
    torch.testing.assert_close(heavy["class"], 2 * plain["class"])
    torch.testing.assert_close(heavy["box"], 3 * plain["box"])


@pytest.mark.parametrize("box_loss", [SmoothL1Loss(), GIoULoss()], ids=repr)
def test_autocast_changes_nothing(box_loss: BoxLoss) -> None:
    predictions, batch = scene()
    criterion = Criterion(FocalLoss(), box_loss, K)
    expected = total(criterion, predictions, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(total(criterion, predictions, batch), expected)


def test_first_value_of_focal_loss_with_the_prior() -> None:
    # background only, p = 0.01 everywhere: 0.75 * 0.01^2 * -ln 0.99 for each of 2 * 300 * K logits
    predictions, batch = scene()
    bias = FocalLoss().initial_bias(K, 0.01)
    predictions = predictions._replace(logits=bias.expand(2, 300, K))
    batch = batch | {"valid": torch.zeros_like(batch["valid"])}
    losses, _ = Criterion(FocalLoss(), SmoothL1Loss(), K)(predictions, batch)
    assert losses["class"].item() == pytest.approx(2 * 300 * K * 0.75 * 1e-4 * -math.log(0.99))


class Counting(FocalLoss):
    """With a state, as GHM has."""

    def __init__(self, bins: int = 1) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(bins))


def test_losses_are_modules_whose_state_is_found() -> None:
    assert list(Criterion(Counting(), GIoULoss(), K).state_dict()) == ["class_loss.seen"]


def test_the_state_of_another_loss_is_dropped_and_that_of_the_same_one_taken() -> None:
    def wrapped(loss: ClassificationLoss, seen: float = 0.0) -> nn.Module:
        """As in a Detector, and as in the copy that averages its weights."""
        criterion = Criterion(loss, GIoULoss(), K)
        criterion.register_load_state_dict_pre_hook(keep_what_fits)
        outer = nn.ModuleDict({"losses": criterion, "net": nn.Linear(2, 2)})
        outer.load_state_dict(outer.state_dict() | {"losses.class_loss.seen": torch.tensor([seen])})
        return nn.ModuleDict({"module": outer})

    saved = wrapped(Counting(), seen=7.0).state_dict()
    assert saved["module.losses.class_loss.seen"] == 7
    same, without, other = wrapped(Counting()), wrapped(FocalLoss()), wrapped(Counting(3))
    for module in (same, without, other):
        module.load_state_dict(saved)
        assert torch.equal(module.state_dict()["module.net.weight"], saved["module.net.weight"])
    assert same.state_dict()["module.losses.class_loss.seen"] == 7
    assert other.state_dict()["module.losses.class_loss.seen"].tolist() == [0, 0, 0]
    same.load_state_dict(without.state_dict())  # nothing is saved of it: it stays as it is
    assert same.state_dict()["module.losses.class_loss.seen"] == 7
    del saved["module.net.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key.*module\.net\.weight"):
        same.load_state_dict(saved)


@pytest.mark.parametrize(
    ("class_loss", "box_loss", "classes"),
    [
        (FocalLoss(), GIoULoss(), K),
        (GHMC(), GHMR(), K),
        (SoftmaxCrossEntropy(), SmoothL1Loss(), K - 1),
    ],
    ids=["FocalLoss", "GHMC", "SoftmaxCrossEntropy"],
)
def test_matching_and_losses_are_one_graph_whatever_the_batch_holds(
    class_loss: ClassificationLoss, box_loss: BoxLoss, classes: int
) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    eager = Criterion(class_loss, box_loss, classes)
    compiled = torch.compile(copy.deepcopy(eager), fullgraph=True, backend="eager")
    for seed, objects in ((0, 5), (1, 5), (2, 0)):
        predictions, batch = scene(seed=seed)
        batch["labels"] %= classes
        batch["valid"][:, objects:] = False
        expected, _ = eager(predictions, batch)
        losses, _ = compiled(predictions, batch)
        torch.testing.assert_close(losses, expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def joint_batch(objects: int) -> tuple[Predictions, dict[str, Tensor]]:
    """Two images, of which the first has all the objects."""
    predictions, batch = scene(images=2)
    batch["valid"][0, objects:] = batch["valid"][1] = False
    return predictions, batch


def losses_and_gradients(predictions: Predictions, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The two losses, and the gradients of their sum."""
    criterion = Criterion(FocalLoss(), GIoULoss(), K)
    logits, deltas = (x.detach().requires_grad_() for x in predictions[:2])
    losses, _ = criterion(predictions._replace(logits=logits, deltas=deltas), batch)
    (losses["class"] + losses["box"]).backward()
    assert logits.grad is not None
    assert deltas.grad is not None
    return {**losses, "logits": logits.grad, "deltas": deltas.grad}


def half_a_batch(rank: int, objects: int) -> dict[str, Tensor]:
    predictions, batch = joint_batch(objects)
    half = slice(rank, rank + 1)
    predictions = predictions._replace(
        logits=predictions.logits[half], deltas=predictions.deltas[half]
    )
    results = losses_and_gradients(predictions, {name: x[half] for name, x in batch.items()})
    return {name: x.detach() for name, x in results.items()}


@pytest.mark.parametrize("objects", [0, 1, 5])
def test_two_processes_are_one_with_the_joint_batch(
    two_processes: Callable[..., Any], objects: int
) -> None:
    """DistributedDataParallel averages gradients over processes: the mean loss must be that of the
    joint batch, and the gradient of an image's predictions half of what its process computes."""
    expected = losses_and_gradients(*joint_batch(objects))
    first, second = two_processes(half_a_batch, objects)
    for name in ("class", "box"):
        torch.testing.assert_close((first[name] + second[name]) / 2, expected[name])
    for name in ("logits", "deltas"):
        torch.testing.assert_close(torch.cat([first[name], second[name]]) / 2, expected[name])
