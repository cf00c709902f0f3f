"""Figures of the embedding losses:  python scripts/plot_embeddings.py --out figures"""

import math
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from detector.config.command_line import parse_options
from detector.config.errors import one_line_errors
from detector.config.files import RECORD, Outputs
from detector.config.types import Count, Option

USAGE = """python scripts/plot_embeddings.py --out DIR [--steps 400]

Writes margins.png, the target logit of a classifier against the angle between embedding and class
vector, and features.png, what a tiny net with two outputs makes of eight drawn identities when it
is trained with each loss, on images that it was not trained on. Both are drawn by the losses."""
PROGRAM_OPTIONS = {
    "--out": Option(str, ..., "folder to write to"),
    "--steps": Option(Count, 400, "updates of each net of features.png"),
    "--images": Option(Count, 2000, "to train on; as many others, at most 800, are shown"),
}
MARGINS, FEATURES = "margins.png", "features.png"
IDENTITIES, SIDE = 8, 24  # of features.png: how many, and pixels of their images


def plot_margins() -> Any:
    """z_y / s, or z_y / |x|, against the angle; a matplotlib Figure."""
    import torch

    from detector.evaluation.pictures import make_panels
    from losses import ArcFaceLoss, CombinedMarginLoss, CosFaceLoss, SphereFaceLoss

    losses = {
        "softmax, cos t": CosFaceLoss(s=1.0, m=0.0),
        "SphereFace, m = 4, L = 0": SphereFaceLoss(base=1e-9, lambda_min=0.0),
        "SphereFace, m = 4, L = 5": SphereFaceLoss(base=5.0),
        "CosFace, m = 0.35": CosFaceLoss(s=1.0),
        "ArcFace, m = 0.5": ArcFaceLoss(s=1.0),
        "ArcFace, plain": ArcFaceLoss(s=1.0, mode="plain"),
        "union (1, 0.3, 0.2)": CombinedMarginLoss(s=1.0),
        "union (0.9, 0.4, 0.15)": CombinedMarginLoss(s=1.0, m1=0.9, m2=0.4, m3=0.15),
    }
    angles = torch.linspace(0, math.pi, 361)
    embeddings = torch.stack([angles.cos(), angles.sin()], 1)
    figure, ((panel,),) = make_panels(1, 1, (7, 4.2))
    for name, loss in losses.items():
        loss.setup(2, 2)
        with torch.no_grad():
            loss.classifier.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
            logits = loss.training_logits(embeddings, torch.zeros(len(angles), 1).long())
        dashes = "--" if "plain" in name or "cos t" in name else "-"
        panel.plot(angles.rad2deg(), logits[:, 0], dashes, label=name)
    panel.set(xlabel="angle t between embedding and its class vector, degrees")
    panel.set(ylabel="target logit / scale", xlim=(0, 180), ylim=(-3, 1.05))
    panel.legend(fontsize=8)
    return figure


def draw_examples(count: int, seed: int) -> tuple[Any, Any]:
    """Images (B, 3, SIDE, SIDE) of the first identities of `data.identities`, turned, scaled, moved
    and lit at random, and which one each shows."""
    import numpy as np
    import torch

    from data.identities import draw_face, identities

    random = np.random.default_rng(seed)
    images, numbers = [], np.arange(count) % IDENTITIES
    for number in numbers.tolist():
        angle, size = random.uniform(-0.3, 0.3), SIDE / 2 * random.uniform(0.8, 1.2)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        center = SIDE / 2 + random.uniform(-2, 2, 2)
        face = draw_face(identities()[number], turn * size, center, (SIDE, SIDE))
        light = random.uniform(0.6, 1.2) * random.uniform(0.85, 1.15, (3, 1, 1))
        images.append(face * light + random.normal(0, 12, face.shape))
    pixels = torch.tensor(np.stack(images), dtype=torch.float32) / 128 - 1
    return pixels, torch.tensor(numbers)


def make_net() -> Any:
    """Three convolutions and two outputs, with the activation of the center loss paper."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    widths = (3, 24, 48, 64)
    layers = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)]
        layers += [nn.PReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (SIDE // 8) ** 2, 2))


def train_features(
    losses: Sequence[Any], steps: int, seen: tuple[Any, Any], unseen: tuple[Any, Any]
) -> tuple[Any, float]:
    """Outputs (B, 2) for unseen images of a net trained with the losses on seen ones, and the share
    of them whose own class has the highest cosine (or logit, of softmax)."""
    import torch

    net = make_net()
    for loss in losses:
        loss.setup(IDENTITIES, 2)
    parameters = [*net.parameters(), *(p for loss in losses for p in loss.parameters())]
    optimizer = torch.optim.Adam(parameters, lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    images, numbers = seen
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(0, len(images), (128,), generator=generator)
        embeddings = net(images[rows])
        total = sum(loss.weight * loss(embeddings, numbers[rows]) for loss in losses)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()
        for loss in losses:
            loss.advance()
    images, numbers = unseen
    with torch.no_grad():
        features = net.eval()(images)
        classifier = losses[0].classifier
        logits = classifier(features) if losses[0].bias else losses[0].cosines(features)
    return features, float((logits.argmax(1) == numbers).float().mean())


def plot_features(steps: int, count: int) -> Any:
    """One panel for each loss, a color for each identity, lines for class vectors; a matplotlib
    Figure."""
    import torch

    from detector.evaluation.pictures import COLORS, make_panels
    from losses import ArcFaceLoss, CenterLoss, IdentityCrossEntropy, SphereFaceLoss

    softmax = {"label_smoothing": 0.0}
    kinds: dict[str, list[Any]] = {
        "softmax (center, weight 0)": [IdentityCrossEntropy(**softmax)],
        "center, weight 0.003": [IdentityCrossEntropy(**softmax), CenterLoss(weight=0.003)],
        "center, weight 0.1": [IdentityCrossEntropy(**softmax), CenterLoss(weight=0.1)],
        "ArcFace, m = 0.5": [ArcFaceLoss()],
        **{f"SphereFace, m = {m}": [SphereFaceLoss(m, 1000, 2, 0)] for m in (1, 2, 3, 4)},
    }
    figure, panels = make_panels(2, 4, (12, 6.4))
    seen, unseen = draw_examples(count, seed=1), draw_examples(min(800, count), seed=2)
    numbers = unseen[1]
    for panel, (name, losses) in zip(panels.flat, kinds.items(), strict=True):
        features, accuracy = train_features(losses, steps, seen, unseen)
        print(f"{name}: {accuracy:.3f} of the images are recognized", flush=True)
        length = features.norm(dim=1).quantile(0.99)
        for number in range(IDENTITIES):
            x, y = features[numbers == number].T
            panel.scatter(x, y, s=4, color=COLORS[number], linewidths=0)
        if not losses[0].bias:
            vectors = torch.nn.functional.normalize(losses[0].classifier.weight.detach()) * length
            for x, y in vectors.tolist():
                panel.plot([0, x], [0, y], color="black", linewidth=0.6)
        panel.set_title(f"{name}: {accuracy:.0%}", fontsize=10)
        panel.set_aspect("equal", adjustable="datalim")
    return figure


def plot(options: dict[str, Any]) -> None:
    from detector.evaluation.pictures import NO_MATPLOTLIB, save_picture

    out = Path(options["out"])
    Outputs(out / RECORD).claim(out / MARGINS, out / FEATURES)
    pictures = [
        save_picture(out / MARGINS, plot_margins, dpi=130),
        save_picture(out / FEATURES, plot_features, options["steps"], options["images"], dpi=130),
    ]
    if any(picture is None for picture in pictures):
        print(NO_MATPLOTLIB)


def parse_arguments(argv: Sequence[str]) -> dict[str, Any]:
    """The program's options."""
    options, _ = parse_options(argv, usage=USAGE, program_options=PROGRAM_OPTIONS, sections=())
    return options


def main(argv: Sequence[str] | None = None) -> None:
    with one_line_errors():
        plot(parse_arguments(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    main()
