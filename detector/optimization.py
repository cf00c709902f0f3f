"""Optimizer and learning rate, from the sections `optimizer` and `schedule`."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

Settings = Mapping[str, Any]


def group_parameters(module: nn.Module, settings: Settings) -> list[dict[str, Any]]:
    """What of the module is trained, in the groups of an optimizer, whose order is that of a
    checkpoint: weights of the net, its norms and biases, what losses learn.

    Weight decay is for the first only. What a loss learns has the learning rate times `loss_lr` (1
    if it is absent).
    """
    groups: tuple[list[nn.Parameter], ...] = ([], [], [])
    for name, p in module.named_parameters():
        if p.requires_grad:
            in_net = name.startswith("net.")
            groups[0 if in_net and p.ndim > 1 else 1 if in_net else 2].append(p)
    options: list[dict[str, Any]] = [{"params": group} for group in groups[:2]]
    learned = {"params": groups[2], "lr_factor": settings.get("loss_lr", 1.0)}
    return [*options, learned] if groups[2] else options


def make_optimizer(
    module: nn.Module, settings: Settings, lr: float, fused: bool
) -> torch.optim.Optimizer:
    """SGD or AdamW ("sgd", "adamw") for all parameters of the module that are trained.

    A fused optimizer skips an update, on the device, where its `found_inf` is 1.
    """
    groups = group_parameters(module, settings)
    if settings["name"] == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, lr=lr, fused=fused)
    else:
        optimizer = torch.optim.SGD(groups, lr=lr, momentum=settings["momentum"], fused=fused)
        for parameter in [p for group in groups for p in group["params"]]:
            # torch allocates the momentum without filling it when the first update is skipped
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    optimizer.register_load_state_dict_pre_hook(split_learned)
    optimizer.register_load_state_dict_pre_hook(stay_fused)
    apply_settings(optimizer, settings)
    return optimizer


def split_learned(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any] | None:
    """Of a checkpoint from when what losses learn had a group of its own only at another rate than
    the net: the same parameters, in the same order, in three groups."""
    groups, own = state["param_groups"], optimizer.param_groups
    if (len(groups), len(own)) != (2, 3):
        return None
    params, count = groups[1]["params"], len(own[1]["params"])
    learned = {**groups[1], "params": params[count:], "lr_factor": own[2]["lr_factor"]}
    groups = [groups[0], {**groups[1], "params": params[:count]}, learned]
    return {**state, "param_groups": groups}


def stay_fused(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Of a checkpoint of any precision: with groups that are fused where this optimizer was made
    so, and not where it was not: only in 16-mixed (see `Detector.configure_optimizers`)."""
    fused = {"fused": optimizer.defaults["fused"]}
    return {**state, "param_groups": [group | fused for group in state["param_groups"]]}


def apply_settings(optimizer: torch.optim.Optimizer, settings: Settings) -> None:
    """Set weight decay and momentum of an optimizer that `make_optimizer` made: after a resume it
    has those that the checkpoint remembers."""
    for index, group in enumerate(optimizer.param_groups):
        group["weight_decay"] = 0.0 if index else settings["weight_decay"]
        if "lr_factor" in group:
            group["lr_factor"] = settings.get("loss_lr", 1.0)
        if "betas" in group:
            group["betas"] = (settings["momentum"], 0.999)
        else:
            group["momentum"] = settings["momentum"]


class LearningRate:
    """The learning rate of every update: linear warm-up, then steps or half a cosine.

    Args:
        optimizer: `lr`, meant for `reference_batch` images per update and scaled linearly to those
            of this run; a `reference_batch` of 0: not scaled.
        schedule: `name` ("multistep", "cosine"), `warmup` (updates, but at most a fifth of a short
            run), `milestones` (shares of the run) and `gamma`.
        images: per update, of all processes and accumulated batches together.
        updates: of the whole run.
    """

    def __init__(self, optimizer: Settings, schedule: Settings, images: int, updates: int) -> None:
        self.reference = optimizer["reference_batch"]
        self.asked, self.schedule = optimizer["lr"], schedule
        self.images, self.updates = images, max(1, updates)
        self.base = self.asked * (images / self.reference if self.reference else 1.0)
        self.warmup = min(schedule["warmup"], self.updates // 5)

    def __str__(self) -> str:
        scaled = f" for {self.reference} images" if self.reference else ", not scaled"
        return (
            f"learning rate {self.base:.4g} for {self.images} images per update (optimizer.lr "
            f"{self.asked:g}{scaled}); warm-up of {self.warmup} of {self.updates} updates"
        )

    def at(self, update: int) -> float:
        """The rate of an update, which are counted from 0."""
        factor = min(1.0, (update + 1) / (self.warmup + 1))
        if self.schedule["name"] == "cosine":
            factor *= 0.5 * (1 + math.cos(math.pi * min(1.0, update / self.updates)))
        else:
            passed = sum(update >= share * self.updates for share in self.schedule["milestones"])
            factor *= self.schedule["gamma"] ** passed
        return self.base * factor
