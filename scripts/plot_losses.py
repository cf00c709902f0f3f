"""Draw the figures of docs/losses.md with the losses:  python scripts/plot_losses.py --out DIR"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from detector.config.command_line import parse_options
from detector.config.errors import one_line_errors
from detector.config.files import RECORD, Outputs, write
from detector.config.types import Option
from detector.training.loss_curves import a_batch, fixed_point, one_by_one, slope
from losses import (
    GHMC,
    GHMR,
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
)

USAGE = """python scripts/plot_losses.py --out DIR

Writes focal.png, ghm.png, fixed_points.png, deltas.png and overlaps.png, and prints a table of
examples. Needs matplotlib."""
PROGRAM_OPTIONS = {"--out": Option(str, ..., "folder to write to")}
GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)


def plot_focal(plt: Any) -> Any:
    """Loss and gradient against the probability of the truth."""
    p = torch.linspace(0.005, 0.995, 199)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    for gamma in GAMMAS:
        loss = FocalLoss(alpha=None, gamma=gamma)
        labels = torch.zeros(1, len(p), dtype=torch.int64)
        values, gradients = one_by_one(loss, p.logit().view(1, -1, 1), labels)
        name = "CE (γ = 0)" if gamma == 0 else f"γ = {gamma:g}"
        left.plot(p, values, label=name)
        right.plot(p, gradients, label=name)
    left.set(ylabel="loss", ylim=(0, 5))
    right.set(ylabel="gradient of the logit")
    for axis in (left, right):
        axis.set(xlabel="probability of the truth $p_t$", xlim=(0, 1))
    right.legend()
    return figure


def plot_ghm(plt: Any) -> Any:
    """What every loss makes of the gradient norm of cross-entropy, one by one and all together."""
    logits, labels = a_batch()
    norm = slope(SigmoidCrossEntropy(), logits, labels)
    bins = torch.linspace(0, 1, 31)
    middle = (bins[1:] + bins[:-1]) / 2
    which = torch.bucketize(norm, bins[1:-1])
    counts = torch.bincount(which, minlength=30)
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4))
    axes[0].bar(middle, counts, width=1 / 30, color="0.6")
    axes[0].set(yscale="log", ylabel="examples", title="the batch")
    for name, loss in (
        ("CE", SigmoidCrossEntropy()),
        ("focal", FocalLoss()),
        ("GHM-C", GHMC(momentum=0)),
    ):
        gradients = slope(loss, logits, labels)
        total = torch.zeros(30).scatter_add_(0, which, gradients)
        mean = total / counts.clamp(min=1)
        axes[1].plot(middle, mean / mean.max(), label=name)
        axes[2].plot(middle, total / total.sum(), label=name)
    axes[1].set(ylabel="mean gradient, largest = 1", yscale="log", title="of one example")
    axes[2].set(ylabel="share of the whole gradient", title="of all examples")
    for axis in axes:
        axis.set(xlabel="gradient norm of CE, $|p - t|$", xlim=(0, 1))
    axes[1].legend()
    return figure


def plot_fixed_points(plt: Any) -> Any:
    """Where every loss leaves anchors that look alike, against the share of objects among them."""
    shares = torch.tensor([1, *range(4, 97, 4), 99]) / 100
    figure, axis = plt.subplots(figsize=(5.4, 4.4))
    for name, loss, style in (
        ("CE", SigmoidCrossEntropy(), "-"),
        ("focal", FocalLoss(), "-"),
        ("GHM-C", GHMC(momentum=0), "-"),
        ("GHM-C, floor 3", GHMC(momentum=0, floor=3.0), "--"),
        ("GHM-C, floor 0.3", GHMC(momentum=0, floor=0.3), ":"),
    ):
        axis.plot(shares, [fixed_point(loss, float(q)) for q in shares], style, label=name)
    axis.set(xlabel="share of objects among anchors that look alike", ylabel="score they end at")
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.legend()
    return figure


def plot_deltas(plt: Any) -> Any:
    """Losses of one delta and their gradients."""
    error = torch.linspace(-1, 1, 401).view(1, -1, 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    for name, loss in (
        ("L1", L1Loss()),
        ("L2", L2Loss()),
        ("smooth L1, β = 1/9", SmoothL1Loss()),
        ("smooth L1, β = 1", SmoothL1Loss(beta=1.0)),
        ("ASL1 of GHM-R, μ = 0.02", GHMR(momentum=0)),  # alone in its bin, so not weighed
    ):
        values, gradients = one_by_one(loss, error, torch.zeros_like(error))
        left.plot(error.flatten(), values, label=name)
        right.plot(error.flatten(), gradients, label=name)
    left.set(ylabel="loss", ylim=(0, 1.6))
    right.set(ylabel="size of the gradient")
    for axis in (left, right):
        axis.set(xlabel="error of the delta")
    left.legend(ncols=2, loc="upper center", fontsize="small")
    return figure


def plot_overlaps(plt: Any) -> Any:
    """Box losses while one box slides over another: of the same size, and inside of a larger."""
    shift = torch.linspace(-160, 160, 161)
    zero = torch.zeros_like(shift)
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True)
    for axis, (half_width, half_height) in zip(axes, ((50.0, 50.0), (45.0, 15.0)), strict=True):
        sliding = [shift - half_width, zero - half_height, shift + half_width, zero + half_height]
        moving = torch.stack(sliding, dim=-1)[None]
        fixed = torch.tensor([-50.0, -50.0, 50.0, 50.0]).expand_as(moving)
        for name, loss in (
            ("IoU", IoULoss()),
            ("-ln IoU", IoULoss(form="log")),
            ("GIoU", GIoULoss()),
            ("DIoU", DIoULoss()),
            ("CIoU", CIoULoss()),
            ("EIoU", EIoULoss()),
        ):
            values, _ = one_by_one(loss, moving, fixed)
            style = {"IoU": "-", "-ln IoU": ":", "CIoU": "--"}.get(name, "-")
            axis.plot(shift, values, style, label=name)
        size = f"{2 * half_width:g} × {2 * half_height:g}"
        axis.set(xlabel="distance of the centers, pixels", title=f"{size} over 100 × 100")
    axes[0].set(ylabel="loss", ylim=(0, 3.2))
    axes[1].legend(ncols=3, loc="lower center")
    return figure


def examples_table() -> str:
    """Easy and hard examples under cross-entropy and focal loss, in Markdown."""
    p = torch.tensor([0.99, 0.95, 0.9, 0.5, 0.1])
    logits, labels = p.logit().view(1, -1, 1), torch.zeros(1, len(p), dtype=torch.int64)
    entropy, _ = one_by_one(SigmoidCrossEntropy(), logits, labels)
    focal, _ = one_by_one(FocalLoss(alpha=None), logits, labels)
    lines = ["| p_t | CE | focal, γ = 2 | CE / focal |", "|---|---|---|---|"]
    for row in zip(p.tolist(), entropy.tolist(), focal.tolist(), strict=True):
        lines.append(f"| {row[0]:g} | {row[1]:.5f} | {row[2]:.6f} | {row[1] / row[2]:,.1f} |")
    return "\n".join(lines)


def plot(out: Path) -> None:
    """Writes every figure to a folder, and prints the table of examples."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {"axes.grid": True, "grid.alpha": 0.3, "axes.spines.top": False}
    plt.rcParams |= {"axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 1.6}
    plots = {"focal": plot_focal, "ghm": plot_ghm, "fixed_points": plot_fixed_points}
    plots |= {"deltas": plot_deltas, "overlaps": plot_overlaps}
    paths = {name: out / f"{name}.png" for name in plots}
    Outputs(out / RECORD).claim(*paths.values())
    for name, path in paths.items():
        figure, png = plots[name](plt), io.BytesIO()
        figure.tight_layout()
        figure.savefig(png, format="png", dpi=110, metadata={"Software": None})
        write(path, png.getvalue())
        print(path)
    print(examples_table())


def parse_arguments(argv: Sequence[str]) -> dict[str, Any]:
    """The options."""
    options, _ = parse_options(argv, usage=USAGE, program_options=PROGRAM_OPTIONS, sections=())
    return options


def main(argv: Sequence[str] | None = None) -> None:
    with one_line_errors():
        options = parse_arguments(sys.argv[1:] if argv is None else argv)
        plot(Path(options["out"]))


if __name__ == "__main__":
    main()
