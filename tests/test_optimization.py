import math

import pytest
import torch
from torch import nn

from detector.optimization import make_optimizer, rate_factor

SGD = {"name": "sgd", "momentum": 0.9, "weight_decay": 0.1}


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        self.losses = nn.Linear(2, 2)


def test_only_weights_of_the_net_decay() -> None:
    tiny = Tiny()
    decayed, others = make_optimizer(tiny, SGD, 0.5, fused=True).param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(3, 2)]
    assert decayed["weight_decay"] == 0.1
    # bias, two of BatchNorm, two of the loss
    assert len(others["params"]) == 5
    assert others["weight_decay"] == 0


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_skipped_first_update_leaves_no_trace(name: str) -> None:
    """torch's fused SGD leaves its momentum unfilled when the first update is skipped."""
    results = []
    for skip in (True, False):
        torch.manual_seed(0)
        tiny = Tiny()
        optimizer = make_optimizer(tiny, SGD | {"name": name}, 0.1, fused=True)
        for found in [1.0] * skip + [0.0, 0.0]:
            for p in tiny.parameters():
                p.grad = torch.full_like(p, math.nan if found else 1.0)
            optimizer.found_inf = torch.tensor(found)  # type: ignore[attr-defined]
            optimizer.step()
        results.append([p.detach().clone() for p in tiny.parameters()])
    for skipped, plain in zip(*results, strict=True):
        assert torch.equal(skipped, plain)


def test_multistep_by_hand() -> None:
    schedule = {"name": "multistep", "warmup": 4, "milestones": [0.5, 0.75], "gamma": 0.1}
    factors = [rate_factor(k, 100, schedule) for k in (0, 3, 4, 49, 50, 74, 75, 99)]
    assert factors == pytest.approx([0.2, 0.8, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_by_hand() -> None:
    schedule = {"name": "cosine", "warmup": 0, "milestones": [], "gamma": 1.0}
    # (1 + cos(pi / 3)) / 2 = 0.75 after a third, 0.5 after half, 0 at the end and beyond
    factors = [rate_factor(k, 60, schedule) for k in (0, 20, 30, 60, 70)]
    assert factors == pytest.approx([1, 0.75, 0.5, 0, 0])
