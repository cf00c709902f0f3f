import math

import pytest
import torch
from torch import nn

from detector.guard import Guard
from detector.optimization import LearningRate, apply_settings, make_optimizer

ONE = {"lr": 1.0, "reference_batch": 0}
SGD = {"name": "sgd", "momentum": 0.9, "weight_decay": 0.1}


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        self.losses = nn.Linear(2, 2)


def test_only_weights_of_the_net_decay() -> None:
    decayed, others, learned = make_optimizer(Tiny(), SGD, 0.5, fused=True).param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(3, 2)]
    assert decayed["weight_decay"] == 0.1
    assert len(others["params"]) == 3  # bias, two of BatchNorm
    assert others["weight_decay"] == learned["weight_decay"] == 0


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("factor", [1.0, 10.0])
def test_what_a_loss_learns_has_a_rate_of_its_own(name: str, factor: float) -> None:
    settings = SGD | {"name": name, "loss_lr": factor}
    decayed, others, learned = make_optimizer(Tiny(), settings, 0.5, fused=False).param_groups
    assert [tuple(p.shape) for p in learned["params"]] == [(2, 2), (2,)]
    assert learned["lr_factor"] == factor
    assert "lr_factor" not in {**decayed, **others}


def test_without_a_loss_that_learns_there_are_two_groups() -> None:
    tiny = Tiny()
    del tiny.losses
    groups = make_optimizer(tiny, SGD | {"loss_lr": 10.0}, 0.5, fused=False).param_groups
    assert [len(group["params"]) for group in groups] == [1, 3]
    assert not any("lr_factor" in group for group in groups)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_older_checkpoints_with_what_losses_learn_in_the_second_group(name: str) -> None:
    old, new = (make_optimizer(Tiny(), SGD | {"name": name}, 0.1, False) for _ in range(2))
    for group in old.param_groups:
        for p in group["params"]:
            p.grad = torch.randn_like(p)
    old.step()
    state = old.state_dict()
    first, second, third = state["param_groups"]
    third.pop("lr_factor")
    state["param_groups"] = [first, {**second, "params": second["params"] + third["params"]}]
    new.load_state_dict(state)
    apply_settings(new, SGD | {"loss_lr": 10.0})
    assert [group.get("lr_factor") for group in new.param_groups] == [None, None, 10]
    for index, momentum in old.state_dict()["state"].items():
        for key, value in momentum.items():
            assert torch.equal(new.state_dict()["state"][index][key], value)


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


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("fused", [True, False])
def test_a_resume_in_another_precision_updates_as_it_does(name: str, fused: bool) -> None:
    """In 16-mixed the optimizer is not fused, else it is: then the guard makes it skip."""
    tiny = Tiny()
    old, new = (make_optimizer(tiny, SGD | {"name": name}, 0.1, f) for f in (not fused, fused))
    for p in tiny.parameters():
        p.grad = torch.ones_like(p)
    old.step()
    new.load_state_dict(old.state_dict())
    assert [group["fused"] for group in new.param_groups] == [fused] * 3
    for gradient in (1.0, math.nan) if fused else (1.0,):
        before = [p.detach().clone() for p in tiny.parameters()]
        for p in tiny.parameters():
            p.grad = torch.full_like(p, gradient)
        Guard().clip(list(tiny.parameters()), new, 10.0, torch.tensor([1]))
        new.step()
        kept = [torch.equal(p, old) for p, old in zip(tiny.parameters(), before, strict=True)]
        assert kept == [math.isnan(gradient)] * len(before)


def test_multistep_by_hand() -> None:
    schedule = {"name": "multistep", "warmup": 4, "milestones": [0.5, 0.75], "gamma": 0.1}
    rate = LearningRate(ONE, schedule, images=3, updates=100)
    rates = [rate.at(k) for k in (0, 3, 4, 49, 50, 74, 75, 99)]
    assert rates == pytest.approx([0.2, 0.8, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_by_hand() -> None:
    schedule = {"name": "cosine", "warmup": 0, "milestones": [], "gamma": 1.0}
    # (1 + cos(pi / 3)) / 2 = 0.75 after a third, 0.5 after half, 0 at the end and beyond
    rate = LearningRate(ONE, schedule, images=3, updates=60)
    assert [rate.at(k) for k in (0, 20, 30, 60, 70)] == pytest.approx([1, 0.75, 0.5, 0, 0])


def test_the_rate_is_scaled_to_the_images_and_warm_up_ends_in_a_short_run() -> None:
    schedule = {"name": "multistep", "warmup": 500, "milestones": [], "gamma": 1.0}
    rate = LearningRate({"lr": 0.02, "reference_batch": 16}, schedule, images=4, updates=20)
    # a quarter of the images, a quarter of 0.02; warm-up of a fifth of 20 updates
    assert [rate.at(k) for k in (0, 3, 4)] == pytest.approx([0.001, 0.004, 0.005])
    assert str(rate) == (
        "learning rate 0.005 for 4 images per update (optimizer.lr 0.02 for 16 images); "
        "warm-up of 4 of 20 updates"
    )


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_settings_beat_what_an_optimizer_remembers(name: str) -> None:
    tiny = Tiny()
    old, new = (make_optimizer(tiny, SGD | {"name": name}, 0.1, fused=False) for _ in range(2))
    new.load_state_dict(old.state_dict())
    apply_settings(new, {"momentum": 0.5, "weight_decay": 3.0})
    assert [group["weight_decay"] for group in new.param_groups] == [3.0, 0.0, 0.0]
    for group in new.param_groups:
        assert group["betas"] == (0.5, 0.999) if name == "adamw" else group["momentum"] == 0.5
