"""An evaluation as pictures and for TensorBoard: precision and recall, AP by size, errors,
calibration, the best score threshold, which class is taken for which."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detector.config.files import write
from detector.evaluation.calibration import Calibration
from detector.evaluation.coco import Figures, format_figures
from detector.evaluation.operating_points import (
    Confusion,
    OperatingPoints,
    format_operating_points,
)
from detector.evaluation.pictures import NO_MATPLOTLIB, make_panels, plain, save_picture
from detector.evaluation.recognition import format_identities
from detector.evaluation.scores import format_scores
from detector.evaluation.tide import KINDS, Errors, Explanation, format_errors

CLASSES = 12  # so many curves can be told apart; of more classes those with most objects are drawn


def print_tables(
    title: str,
    figures: Figures,
    explanation: Explanation,
    scores: Mapping[str, float],
    score_threshold: float,
    identities: Any,
) -> None:
    """All tables of an evaluation. `scores`: see `ScoreMeter`; `identities`: figures of
    recognition, None without."""
    print(format_figures(figures, title))
    print("", format_errors(explanation.errors, explanation.calibration), sep="\n")
    print(format_scores(scores, score_threshold))
    print("", format_operating_points(explanation.points), sep="\n")
    if identities is not None:
        print("", format_identities(identities), sep="\n")


def write_report(
    folder: Path,
    title: str,
    figures: Figures,
    explanation: Explanation,
    mistakes: np.ndarray | None = None,
    step: int = 0,
) -> None:
    """report.png, confusion.png, mistakes.png and TensorBoard's files in `folder`; says where
    pictures are. `mistakes`: their sheet, RGB (H, W, 3), None where there are none; `step`: updates
    that the weights had seen."""
    for name in ("report", "confusion", "mistakes"):  # there may be none this time
        (folder / f"{name}.png").unlink(missing_ok=True)
    path, confusion = folder / "report.png", explanation.points.confusion
    pictures = {"report": save_picture(path, draw_report, title, figures, explanation)}
    if confusion is not None:
        file = folder / "confusion.png"
        pictures["confusion"] = save_picture(file, draw_confusion, confusion)
    if mistakes is not None:
        write(folder / "mistakes.png", cv2.imencode(".png", mistakes[..., ::-1])[1].tobytes())
        pictures["mistakes"] = mistakes
    known = {name: pixels for name, pixels in pictures.items() if pixels is not None}
    if known:
        print("pictures:", ", ".join(str(folder / f"{name}.png") for name in known))
    if pictures["report"] is None:
        print(NO_MATPLOTLIB)
    log_report(folder, figures, explanation, known, step)


def draw_report(title: str, figures: Figures, explanation: Explanation) -> Any:
    """Six panels as a matplotlib Figure."""
    figure, panels = make_panels(2, 3, (16, 8.5))
    figure.suptitle(plain(title))
    _draw_curves(panels[0, 0], figures)
    _draw_sizes(panels[0, 1], figures)
    _draw_thresholds(panels[0, 2], explanation.points)
    _draw_errors(panels[1, 0], explanation.errors)
    _draw_calibration(panels[1, 1], explanation.calibration)
    if explanation.points.confusion is None:
        panels[1, 2].set_axis_off()
    else:
        _draw_confusion(panels[1, 2], explanation.points.confusion)
    return figure


def draw_confusion(confusion: Confusion) -> Any:
    """The matrix by itself, large enough for its classes, as a matplotlib Figure."""
    side = min(30.0, 4 + 0.35 * len(confusion.names))
    figure, panels = make_panels(1, 1, (side, side))
    _draw_confusion(panels[0, 0], confusion)
    return figure


def _draw_curves(panel: Any, figures: Figures) -> None:
    recall = np.linspace(0, 1, 101)
    known = [name for name, curve in figures.curves.items() if curve and curve[0] >= 0]
    known.sort(key=lambda name: -figures.per_class[name]["objects"])
    for name in known[:CLASSES]:
        label = plain(f"{name} ({figures.per_class[name]['AP50']:.2f})")
        panel.plot(recall, figures.curves[name], linewidth=1, label=label)
    if known:
        mean = np.mean([figures.curves[name] for name in known], axis=0)
        panel.plot(recall, mean, color="black", linewidth=2, label=f"mean ({mean.mean():.2f})")
        panel.legend(fontsize=7, ncols=2, title="class (AP50)", title_fontsize=7)
    panel.set(title="Precision and recall at IoU 0.5", xlabel="recall", ylabel="precision")
    panel.set(xlim=(0, 1), ylim=(0, 1.02))


def _draw_sizes(panel: Any, figures: Figures) -> None:
    names = {"AP": "all", "APs": "small, to 32²", "APm": "to 96²", "APl": "large"}
    values = [figures.summary[name] for name in names]
    known = [0.0 if math.isnan(value) else value for value in values]
    bars = panel.bar(list(names.values()), known, color=["0.3", "C0", "C0", "C0"])
    panel.bar_label(bars, ["none" if math.isnan(v) else f"{v:.3f}" for v in values])
    panel.set(title="AP by size of the objects, pixels")


def _draw_errors(panel: Any, errors: Errors) -> None:
    gained = [errors.gained[kind] for kind in KINDS]
    bars = panel.barh(KINDS, gained, color="C3")
    panel.bar_label(
        bars, [f" {g:+.3f} ({errors.counts[k]})" for k, g in zip(KINDS, gained, strict=True)]
    )
    panel.invert_yaxis()
    panel.margins(x=0.25)
    panel.set(title=f"AP50 {errors.ap50:.3f}: what fixing each error adds (how many)")


def _draw_calibration(panel: Any, calibrated: Calibration) -> None:
    bins = len(calibrated.counts)
    centers = (np.arange(bins) + 0.5) / bins
    precision = np.nan_to_num(np.array(calibrated.precision, float))
    bars = panel.bar(centers, precision, width=0.9 / bins, color="C2")
    panel.bar_label(bars, [str(n) if n else "" for n in calibrated.counts], fontsize=7)
    panel.plot([0, 1], [0, 1], color="0.5", linestyle=":")
    panel.set(title=f"Calibration, error {calibrated.error:.3f} (detections per bin)")
    panel.set(xlabel="confidence", ylabel="precision at IoU 0.5", xlim=(0, 1), ylim=(0, 1.05))


def _draw_thresholds(panel: Any, points: OperatingPoints) -> None:
    curve, best = points.curve, points.best
    for other in sorted(points.curves.values(), key=lambda other: -len(other.f1))[:CLASSES]:
        panel.plot(other.thresholds, other.f1, color="0.75", linewidth=0.7)
    for name, color in (("precision", "C0"), ("recall", "C1"), ("f1", "black")):
        panel.plot(curve.thresholds, getattr(curve, name), color=color, label=name)
    if not math.isnan(best.threshold):
        panel.axvline(best.threshold, color="0.5", linestyle=":")
    panel.legend(fontsize=7)
    title = f"Best score {best.threshold:.3f}: F1 {best.f1:.3f}, all classes (gray: F1 of each)"
    panel.set(title=title, xlabel="lowest score", xlim=(0, 1), ylim=(0, 1.02))


def _draw_confusion(panel: Any, confusion: Confusion) -> None:
    counts = np.array(confusion.counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    panel.grid(visible=False)
    names = [plain(name) for name in confusion.names]
    places, size = range(len(names)), 7 if len(names) > 8 else 9
    panel.set_xticks(places, names, rotation=90, fontsize=size)
    panel.set_yticks(places, names, fontsize=size)
    if len(names) <= 31:
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[row, column] > 0.6 else "black"
            text = str(counts[row, column])
            panel.text(column, row, text, ha="center", va="center", color=color, fontsize=size)
    title = f"Detections from score {confusion.threshold:.3f}"
    panel.set(title=title, xlabel="detected as", ylabel="object")


def log_report(
    folder: Path,
    figures: Figures,
    explanation: Explanation,
    pictures: Mapping[str, np.ndarray],
    step: int,
) -> None:
    """The same for TensorBoard: scalars, a precision-recall curve of every class (20 at most), and
    the pictures, RGB (H, W, 3)."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    for name, value in {**figures.summary, **figures.voc}.items():
        if not math.isnan(value):
            writer.add_scalar(f"eval/{name}", value, step)
    for kind in KINDS:
        writer.add_scalar(f"eval_error/{kind}", explanation.errors.gained[kind], step)
    writer.add_scalar("eval/calibration_error", explanation.calibration.error, step)
    for name, value in explanation.points.best._asdict().items():
        if not math.isnan(value):
            writer.add_scalar(f"eval/best_{name}", value, step)
    recall, none = np.linspace(0, 1, 101), np.zeros(101)
    for name, curve in list(figures.curves.items())[:20]:
        if curve and curve[0] >= 0:
            counts = (none, none, none, none)
            writer.add_pr_curve_raw(
                f"eval/{name}", *counts, np.array(curve), recall, step, num_thresholds=101
            )
    for name, picture in pictures.items():
        writer.add_image(f"eval/{name}", picture, step, dataformats="HWC")
    writer.close()
