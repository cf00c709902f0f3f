"""Optimizer and learning rate: plain functions of the settings."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def make_optimizer(
    module: nn.Module, settings: Mapping[str, Any], lr: float, fused: bool
) -> torch.optim.Optimizer:
    """SGD or AdamW ("sgd", "adamw") for all parameters of the module that are trained.

    Weight decay is for weights of the net only: not for norms, biases or anything of a loss.
    A fused optimizer skips an update, on the device, where its `found_inf` is 1.
    """
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    decayed = [name.startswith("net.") and p.ndim > 1 for name, p in trained]
    groups = [
        {
            "params": [p for (_, p), its in zip(trained, decayed, strict=True) if its == chosen],
            "weight_decay": settings["weight_decay"] if chosen else 0.0,
        }
        for chosen in (True, False)
    ]
    if settings["name"] == "adamw":
        betas = (settings["momentum"], 0.999)
        return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=fused)
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=settings["momentum"], fused=fused)
    for _, parameter in trained:
        # torch allocates the momentum without filling it when the very first update is skipped
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def rate_factor(update: int, total: int, schedule: Mapping[str, Any]) -> float:
    """Factor of the learning rate at an update: linear warm-up, times steps or half a cosine.

    `schedule`: name ("multistep", "cosine"), warmup (updates), milestones (shares of `total`) and
    gamma.
    """
    start = min(1.0, (update + 1) / (schedule["warmup"] + 1))
    if schedule["name"] == "cosine":
        return start * 0.5 * (1 + math.cos(math.pi * min(1.0, update / total)))
    passed = sum(update >= share * total for share in schedule["milestones"])
    return start * schedule["gamma"] ** passed
