"""Losses against values that were computed in float64 by scalar code, straight from the formulas.

`expected.json`: rows of loss, name, arguments and what is expected. Targets are 1 and 0, a mask of
0 means ignored. float32 must agree to rtol 1e-5, atol 1e-6.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from losses import (
    GHMC,
    GHMR,
    BalancedCrossEntropy,
    CIoULoss,
    DIoULoss,
    EIoULoss,
    FocalLoss,
    GIoULoss,
    IoULoss,
    L1Loss,
    L2Loss,
    SigmoidCrossEntropy,
    SmoothL1Loss,
    SoftmaxCrossEntropy,
)
from losses.overlaps import ciou, diou, eiou, giou, iou

ROWS = json.loads((Path(__file__).parent / "expected.json").read_text())
ONE = torch.tensor(1.0)
SIGMOID = {
    "bce": SigmoidCrossEntropy,
    "balanced_bce": BalancedCrossEntropy,
    "focal": FocalLoss,
    "ghm_c": GHMC,
}
DELTAS = {"l1": L1Loss, "l2": L2Loss, "smooth_l1": SmoothL1Loss, "ghm_r": GHMR}
BOXES = {
    "iou_loss": IoULoss,
    "giou_loss": GIoULoss,
    "diou_loss": DIoULoss,
    "ciou_loss": CIoULoss,
    "eiou_loss": EIoULoss,
}
OVERLAPS = {"iou": iou, "giou": giou, "diou": diou, "ciou": ciou, "eiou": eiou}


def rows(*losses: str) -> list[Any]:
    chosen = [row for row in ROWS if row["loss"] in losses]
    return [pytest.param(row, id=f"{row['loss']}-{row['name']}") for row in chosen]


def close(found: Tensor, expected: Any) -> None:
    torch.testing.assert_close(
        found.flatten(), torch.as_tensor(expected).flatten(), rtol=1e-5, atol=1e-6
    )


def examples(arguments: dict[str, Any]) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Logits (1, R, K), their labels, and the arguments of the loss: numbers in a row are anchors
    of one class each."""
    logits = torch.tensor(arguments.pop("logits"))
    logits = logits[None, :, None] if logits.ndim == 1 else logits[None]
    targets = torch.tensor(arguments.pop("targets")).view_as(logits)
    mask = torch.tensor(arguments.pop("mask", [1] * targets.numel())).view_as(logits)
    num_classes = logits.shape[-1]
    labels = torch.where(targets.sum(-1) > 0, targets.argmax(-1), num_classes)
    arguments.pop("num_pos", None)
    return logits.requires_grad_(), torch.where(mask[..., 0] > 0, labels, -1), arguments


@pytest.mark.parametrize("row", rows("bce", "balanced_bce", "focal"))
def test_sigmoid_losses(row: dict[str, Any]) -> None:
    expect, num_pos = row["expect"], row["args"].get("num_pos", 1)
    logits, labels, arguments = examples(dict(row["args"]))
    loss = SIGMOID[row["loss"]](**arguments)
    value = loss(logits, labels, ONE * max(1, num_pos))
    close(value, expect.get("num_pos", expect["sum"]))
    loss(logits, labels, ONE).backward()
    if "grad_of_sum" in expect:
        assert logits.grad is not None
        close(logits.grad, expect["grad_of_sum"])
    for k, expected in enumerate(expect["elementwise"]):
        close(loss(logits[:, k : k + 1], labels[:, k : k + 1], ONE), torch.tensor(expected).sum())


@pytest.mark.parametrize("row", rows("softmax_ce"))
def test_softmax(row: dict[str, Any]) -> None:
    arguments = row["args"]
    weights = arguments.get("class_weight")
    # the last class is the background; its weight is 1, so the case's weights are shifted to it
    factor = weights[-1] if weights else 1.0
    loss = SoftmaxCrossEntropy(
        class_weights=[w / factor for w in weights[:-1]] if weights else None
    )
    labels = torch.tensor([arguments["labels"]]).clamp(min=-1)
    close(factor * loss(torch.tensor([arguments["logits"]]), labels, ONE), row["expect"]["sum"])


@pytest.mark.parametrize("row", rows("ghm_c"))
def test_ghm_c(row: dict[str, Any]) -> None:
    arguments = {key: value for key, value in row["args"].items() if key not in ("ema", "steps")}
    batches = row["args"].get("steps", [arguments])
    options = {key: value for key, value in arguments.items() if key in ("bins", "momentum")}
    loss = GHMC(**{"momentum": 0.0, **options})
    # the uncorrected mean of the paper's row is the corrected one times 1 - momentum^t
    paper = row["args"].get("ema") == "paper"
    for step, batch in enumerate(batches, 1):
        logits, labels, _ = examples({k: v for k, v in batch.items() if k not in options})
        value = loss(logits, labels, ONE)
        value.backward()
        expected = row["expect"]["losses"][step - 1] if "steps" in row["args"] else None
        if expected is None:
            close(value, row["expect"]["loss"])
            assert logits.grad is not None
            close(logits.grad, row["expect"]["grad"])
            continue
        close(value, expected * (1 - loss.density.momentum**step if paper else 1))


@pytest.mark.parametrize("row", rows("ghm_r"))
def test_ghm_r(row: dict[str, Any]) -> None:
    # three deltas, of the fourth nothing is known: four anchors of a single delta each
    predicted, target = (torch.tensor(row["args"][name]) for name in ("pred", "target"))
    loss = GHMR(momentum=0.0, weight=1.0)
    mask = torch.ones(1, 3, dtype=torch.bool)
    close(loss(predicted.view(1, 3, 1), target.view(1, 3, 1), mask, ONE), row["expect"]["loss"])
    assert loss.density.running.div(2**16).tolist() == row["expect"]["counts"]


@pytest.mark.parametrize("row", rows("l1", "l2", "smooth_l1", *BOXES))
def test_box_losses(row: dict[str, Any]) -> None:
    arguments, kinds = dict(row["args"]), DELTAS | BOXES
    predicted, target = (torch.tensor(arguments.pop(name)) for name in ("pred", "target"))
    if predicted.ndim == 1:  # single deltas
        predicted, target = predicted[:, None], target[:, None]
    predicted, target = predicted[None], target[None]
    mask = torch.tensor(arguments.pop("mask", [1] * predicted.shape[1])).bool()
    mask = mask.view(1, predicted.shape[1], -1)[..., 0]
    num_pos = arguments.pop("num_pos", 1)
    arguments.pop("clamp", None)
    loss, expect = kinds[row["loss"]](**arguments), row["expect"]
    close(
        loss(predicted, target, mask, ONE * max(1, num_pos)), expect.get("num_pos", expect["sum"])
    )
    for k, expected in enumerate(expect["elementwise"]):
        one = slice(k, k + 1)
        close(
            loss(predicted[:, one], target[:, one], mask[:, one], ONE), torch.tensor(expected).sum()
        )


@pytest.mark.parametrize("row", rows("pairwise_similarity"))
def test_pairwise(row: dict[str, Any]) -> None:
    a, b = (torch.tensor(row["args"][name]) for name in ("boxes1", "boxes2"))
    close(OVERLAPS[row["args"]["kind"]](a[:, None], b), row["expect"]["matrix"])


@pytest.mark.parametrize("row", rows("box_loss_grad"))
def test_gradients_of_box_losses(row: dict[str, Any]) -> None:
    kind = row["args"]["kind"]
    loss = IoULoss(form="log") if kind == "log_iou" else BOXES[f"{kind}_loss"]()
    box = torch.tensor([[row["args"]["pred_box"]]], requires_grad=True)
    target = torch.tensor([[row["args"]["target_box"]]])
    loss(box, target, torch.tensor([[True]]), ONE).backward()
    assert box.grad is not None
    close(box.grad, row["expect"]["grad"])
