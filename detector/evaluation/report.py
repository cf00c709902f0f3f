"""Pictures of an evaluation: precision and recall, AP by size, errors, calibration.

Needs matplotlib (extra "plots").
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from detector.evaluation.calibration import Calibration
from detector.evaluation.coco import Figures
from detector.evaluation.tide import KINDS, Errors

CLASSES = 12  # so many curves can be told apart; of more classes those with most objects are drawn


def draw_report(
    path: Path, title: str, figures: Figures, errors: Errors, calibrated: Calibration
) -> None:
    """Four panels into one PNG. ModuleNotFoundError without matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    panels = figure.subplots(2, 2)
    _curves(panels[0, 0], figures)
    _sizes(panels[0, 1], figures)
    _errors(panels[1, 0], errors)
    _calibration(panels[1, 1], calibrated)
    for panel in panels.flat:
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _curves(panel: Any, figures: Figures) -> None:
    recall = np.linspace(0, 1, 101)
    known = [name for name, curve in figures.curves.items() if curve and curve[0] >= 0]
    known.sort(key=lambda name: -figures.per_class[name]["objects"])
    for name in known[:CLASSES]:
        label = f"{name} ({figures.per_class[name]['AP50']:.2f})"
        panel.plot(recall, figures.curves[name], linewidth=1, label=label)
    if known:
        mean = np.mean([figures.curves[name] for name in known], axis=0)
        panel.plot(recall, mean, color="black", linewidth=2, label=f"mean ({mean.mean():.2f})")
        panel.legend(fontsize=7, ncols=2, title="class (AP50)", title_fontsize=7)
    panel.set(title="Precision and recall at IoU 0.5", xlabel="recall", ylabel="precision")
    panel.set(xlim=(0, 1), ylim=(0, 1.02))


def _sizes(panel: Any, figures: Figures) -> None:
    names = {"AP": "all", "APs": "small, to 32²", "APm": "to 96²", "APl": "large"}
    values = [figures.summary[name] for name in names]
    known = [0.0 if math.isnan(value) else value for value in values]
    bars = panel.bar(list(names.values()), known, color=["0.3", "C0", "C0", "C0"])
    panel.bar_label(bars, ["none" if math.isnan(v) else f"{v:.3f}" for v in values])
    panel.set(title="AP by size of the objects, pixels")


def _errors(panel: Any, errors: Errors) -> None:
    gained = [errors.gained[kind] for kind in KINDS]
    bars = panel.barh(KINDS, gained, color="C3")
    panel.bar_label(
        bars, [f" {g:+.3f} ({errors.counts[k]})" for k, g in zip(KINDS, gained, strict=True)]
    )
    panel.invert_yaxis()
    panel.margins(x=0.25)
    panel.set(title=f"AP50 {errors.ap50:.3f}: what mending each error adds (how many)")


def _calibration(panel: Any, calibrated: Calibration) -> None:
    bins = len(calibrated.counts)
    centers = (np.arange(bins) + 0.5) / bins
    precision = np.nan_to_num(np.array(calibrated.precision, float))
    bars = panel.bar(centers, precision, width=0.9 / bins, color="C2")
    panel.bar_label(bars, [str(n) if n else "" for n in calibrated.counts], fontsize=7)
    panel.plot([0, 1], [0, 1], color="0.5", linestyle=":")
    panel.set(title=f"Calibration, error {calibrated.error:.3f} (detections per bin)")
    panel.set(xlabel="confidence", ylabel="precision at IoU 0.5", xlim=(0, 1), ylim=(0, 1.05))


def log_report(
    folder: Path, figures: Figures, errors: Errors, calibrated: Calibration, picture: Path | None
) -> None:
    """The same for TensorBoard: scalars, a precision-recall curve of every class (20 at most), and
    the picture."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    for name, value in {**figures.summary, **figures.voc}.items():
        if not math.isnan(value):
            writer.add_scalar(f"eval/{name}", value)
    for kind in KINDS:
        writer.add_scalar(f"eval_error/{kind}", errors.gained[kind])
    writer.add_scalar("eval/calibration_error", calibrated.error)
    recall, none = np.linspace(0, 1, 101), np.zeros(101)
    for name, curve in list(figures.curves.items())[:20]:
        if curve and curve[0] >= 0:
            counts = (none, none, none, none)
            writer.add_pr_curve_raw(
                f"eval/{name}", *counts, np.array(curve), recall, num_thresholds=101
            )
    if picture is not None:
        import cv2

        image = cv2.imread(str(picture), cv2.IMREAD_COLOR_RGB)
        writer.add_image("eval/report", image, dataformats="HWC")
    writer.close()
