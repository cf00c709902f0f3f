"""Pictures of the density of gradient norms, by hand and at every validation. Needs matplotlib."""

import contextlib
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from detector.config.files import write
from detector.criterion import Criterion
from detector.training.gradient_density import (
    BINS,
    EASY,
    MAX_LOGIT,
    OUTLIER,
    PER_DECADE,
    REGIONS,
    GradientCounts,
    Shares,
    shares,
)


class GradientPictures(Callback):
    """Counts gradient norms at every logging interval, of rank 0, and draws them at every
    validation: train/gradients in TensorBoard, and gradients.png in the run's folder."""

    def __init__(self, run: Path) -> None:
        self.run, self.counts = run, GradientCounts()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        # A forward hook of the criterion: predictions that `training_step` returned would live
        # until the end of the batch, which takes 19 % more memory with compiled losses, and none
        # without (ResNet-18 of a quarter of the width, 8 images of 320 px, 80 classes).
        if not trainer.is_global_zero:
            return
        self.counts.to(pl_module.device)

        @torch.compiler.disable
        def count(criterion: Criterion, inputs: Any, outputs: Any) -> None:
            interval = trainer.log_every_n_steps  # type: ignore[attr-defined]
            if criterion.training and trainer.global_step % interval == 0:
                self.counts.add(criterion.class_loss, inputs[0], outputs[1])

        self.hook = pl_module.criterion.register_forward_hook(count)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            self.hook.remove()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Without matplotlib there is no picture."""
        if not trainer.is_global_zero or not self.counts.examples.any():
            return
        loss = type(pl_module.criterion.class_loss).__name__
        title = f"Training with {loss}, to epoch {trainer.current_epoch + 1}"
        with contextlib.suppress(ModuleNotFoundError):
            picture = save_gradients(self.run / "gradients.png", self.counts, title)
            if trainer.logger:
                trainer.logger.experiment.add_image(  # type: ignore[attr-defined]
                    "train/gradients", picture, trainer.global_step, dataformats="HWC"
                )
        self.counts.reset()


def save_gradients(path: Path, counts: GradientCounts, title: str) -> np.ndarray:
    """Draw what was counted into a PNG; returns the picture, RGB (H, W, 3)."""
    picture = draw_gradients(counts.examples.cpu(), counts.errors.cpu(), title)
    _, png = cv2.imencode(".png", picture[..., ::-1])
    write(path, png.tobytes())
    return picture


def draw_gradients(examples: Tensor, errors: Tensor, title: str) -> np.ndarray:
    """Four panels as a picture, RGB (H, W, 3); ModuleNotFoundError without matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    results = shares(examples, errors)
    figure = Figure(figsize=(12, 9), dpi=90)
    figure.suptitle(title)
    # fixed, as a layout engine would draw everything twice more, at every validation
    figure.subplots_adjust(0.09, 0.1, 0.98, 0.91, wspace=0.17, hspace=0.25)
    panels = figure.subplots(2, 2)
    _density(panels[0, 0], results.norms, examples)
    _gradients(panels[0, 1], results)
    _bars(panels[1, 0], results)
    _boxes(panels[1, 1], results, errors)
    for panel in panels.flat:
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _density(panel: Any, norms: Tensor, examples: Tensor) -> None:
    total = max(1, int(examples.sum()))
    panel.axvspan(float(norms[0]), EASY, color="#0072b2", alpha=0.07)
    panel.axvspan(OUTLIER, float(norms[-1]), color="#d55e00", alpha=0.12)
    for row, (name, color) in enumerate((("background", "#5f5f5f"), ("objects", "#009e73"))):
        density = examples[row] / total * (BINS / (2 * MAX_LOGIT))
        shown = torch.where(density > 0, density, math.nan)
        panel.plot(norms, shown, color=color, label=f"{name} ({int(examples[row].sum()):,})")
    panel.set(xscale="logit", yscale="log", xlabel="gradient norm g = |p − t|")
    panel.set(title="Examples per unit of logit", ylabel="share of all examples")
    panel.annotate("easy", (0.03, 0.03), xycoords="axes fraction", color="#0072b2")
    panel.annotate("outliers", (0.97, 0.03), xycoords="axes fraction", ha="right", color="#d55e00")
    panel.legend(loc="upper right")


def _gradients(panel: Any, results: Shares) -> None:
    for name, share in results.classes.items():
        panel.plot(results.norms, share.sum(0) * (BINS / (2 * MAX_LOGIT)), label=name)
    panel.set(xscale="logit", xlabel="gradient norm g", ylabel="share of the loss's gradient")
    panel.set(title="Where each loss takes its gradient from, per unit of logit")
    panel.legend()


def _bars(panel: Any, results: Shares) -> None:
    colors = ("#bcd7e8", "#0072b2", "#009e73", "#d55e00")
    left = [0.0] * len(results.regions)
    for region, color in zip(REGIONS, colors, strict=True):
        widths = [loss[region] for loss in results.regions.values()]
        bars = panel.barh(list(results.regions), widths, left=left, color=color, label=region)
        texts = [f"{width:.0%}" if width >= 0.04 else "" for width in widths]
        panel.bar_label(bars, texts, label_type="center", color="black", fontsize=9)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    panel.invert_yaxis()
    panel.set(xlim=(0, 1), xlabel="share of the loss's gradient")
    panel.set_title(f"easy: g ≤ {EASY}, outliers: g ≥ {OUTLIER}", fontsize=10)
    panel.legend(ncols=4, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12))


def _boxes(panel: Any, results: Shares, errors: Tensor) -> None:
    count = int(errors.sum())
    panel.fill_between(
        results.sizes,
        errors / max(1, count) * PER_DECADE,
        color="#bbbbbb",
        label="deltas",
        step="mid",
    )
    for name, share in results.boxes.items():
        panel.plot(results.sizes, share * PER_DECADE, label=f"gradient of {name}")
    panel.set(xscale="log", xlabel="error of a delta", ylabel="share per decade")
    panel.set(title=f"Box deltas of foreground anchors ({count:,})")
    panel.legend()
