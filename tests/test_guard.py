"""The Guard's counts, with and without a skipped update."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from detector.guard import Guard
from detector.training.callbacks import MAX_CONSECUTIVE, NonFiniteLoss, report_skipped


def clip(
    guard: Guard, gradient: float, images: list[int], fused: bool = True, by_value: bool = False
) -> Any:
    """An update of one parameter of two values, of a batch whose loss is the norm of its gradient;
    returns it and the optimizer."""
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([0.6, 0.8]) * gradient  # of norm `gradient`
    optimizer = SimpleNamespace(defaults={"fused": fused})
    guard.check_loss(torch.tensor(gradient), torch.tensor(images))
    guard.clip([parameter], optimizer, 10.0, by_value)
    return parameter, optimizer


def test_gradients_are_clipped_by_their_norm() -> None:
    guard = Guard()
    parameter, optimizer = clip(guard, 20.0, [1, 2])
    torch.testing.assert_close(parameter.grad, torch.tensor([6.0, 8.0]))
    assert guard.norm == pytest.approx(20)  # before clipping
    assert optimizer.found_inf == 0
    parameter, _ = clip(guard, 5.0, [1, 2])
    torch.testing.assert_close(parameter.grad, torch.tensor([3.0, 4.0]))
    assert guard.bad == guard.consecutive == 0


def test_gradients_are_clipped_by_their_values() -> None:
    parameter, _ = clip(guard := Guard(), 20.0, [1], by_value=True)
    torch.testing.assert_close(parameter.grad, torch.tensor([10.0, 10.0]))  # of 12 and 16
    assert guard.norm == pytest.approx(20)


def test_bad_updates_are_counted_in_all_and_one_after_the_other() -> None:
    guard = Guard()
    history = [math.nan, math.inf, 1.0, math.nan]
    seen = []
    for k, gradient in enumerate(history):
        _, optimizer = clip(guard, gradient, [10 * k, 10 * k + 1])
        assert optimizer.found_inf == (not math.isfinite(gradient))
        seen.append((int(guard.bad), int(guard.consecutive)))
    assert seen == [(1, 1), (2, 2), (2, 0), (3, 1)]
    line = report_skipped(guard, 3, 1, world_size=1)
    assert line == "skipped 3 updates, the last with a non-finite loss at images 30, 31"
    assert guard.bad == 0  # counted anew from here on
    assert guard.consecutive == 1


@pytest.mark.parametrize(("last", "after"), [([3, 4, 5], [6, 7]), ([3, 4], [6, 7, 8])])
def test_images_are_those_of_the_last_bad_batch_whatever_follows(
    last: list[int], after: list[int]
) -> None:
    guard = Guard()
    for gradient, images in ((math.nan, [1, 2]), (math.nan, last), (1.0, after)):
        clip(guard, gradient, images)
    assert report_skipped(guard, 2, 0, 1).endswith(f"images {', '.join(map(str, last))}")


def test_images_are_those_of_the_bad_batch_among_accumulated_ones() -> None:
    guard = Guard()
    guard.check_loss(torch.tensor(math.nan), torch.tensor([1, 2]))
    guard.check_loss(torch.tensor(1.0), torch.tensor([3, 4]))
    assert report_skipped(guard, 1, 1, world_size=1).endswith("images 1, 2")


def test_no_image_is_named_where_every_loss_is_finite() -> None:
    """The scale of 16-mixed is too large at first: gradients are infinite, the loss is not."""
    guard = Guard()
    clip(guard, math.nan, [1, 2])
    report_skipped(guard, 1, 1, world_size=1)
    guard.check_loss(torch.tensor(1.0), torch.tensor([3, 4]))
    line = report_skipped(guard, 5, 5, world_size=1)
    assert line.startswith("skipped 5 updates: infinite gradients of a finite loss")
    with pytest.raises(NonFiniteLoss, match="infinite for 20 updates in a row; lower"):
        report_skipped(guard, 5, MAX_CONSECUTIVE, world_size=1)


def test_an_optimizer_that_is_not_fused_is_told_nothing() -> None:
    _, optimizer = clip(Guard(), math.nan, [1], fused=False)
    assert not hasattr(optimizer, "found_inf")


def test_too_many_one_after_the_other_end_the_run() -> None:
    guard = Guard()
    clip(guard, math.nan, [7])
    report_skipped(guard, MAX_CONSECUTIVE - 1, MAX_CONSECUTIVE - 1, world_size=1)
    clip(guard, math.nan, [7])
    with pytest.raises(
        NonFiniteLoss, match="20 updates in a row, the last at images 7; "
    ) as caught:
        report_skipped(guard, 1, MAX_CONSECUTIVE, world_size=1)
    assert "\n" not in str(caught.value)
