"""Pictures of an ablation. Need matplotlib, of which `detector.evaluation.pictures` takes care."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detector.ablation.cells import Ablation, read_epochs
from detector.ablation.summary import Summary, point_title
from detector.evaluation.bootstrap import Comparison
from detector.evaluation.pictures import COLORS, make_panels

BLUE, RED, GREEN = COLORS[:3]
DASHES = ("-", "--", ":", "-.")


def draw_effects(summary: Summary) -> Any:
    """A dot for each seed, and the differences to the baseline with their intervals; a matplotlib
    Figure."""
    metric = summary.metric
    rows = [row for row in summary.rows if row.figures[metric]]
    figure, ((seeds, effects),) = make_panels(1, 2, (10, 1.6 + 0.42 * len(rows)), sharey=True)
    for place, row in enumerate(rows):
        values = row.figures[metric]
        seeds.plot(values, [place] * len(values), "o", color=BLUE, alpha=0.6, markersize=6)
        seeds.plot([np.mean(values)] * 2, [place - 0.25, place + 0.25], color="black", linewidth=2)
        if row.is_baseline or row.to_baseline:
            _draw_effect(effects, place, row.to_baseline)
    effects.axvline(0, color="black", linewidth=1)
    titles = [point_title(row.point, summary.ablation.axes) for row in rows]
    seeds.set_yticks(range(len(rows)), titles)
    seeds.invert_yaxis()
    seeds.set(title=f"{metric} of every seed, and the mean", xlabel=metric)
    effects.set(title="Difference to the baseline, 95 %", xlabel=f"difference in {metric}")
    return figure


def _draw_effect(panel: Any, place: int, effect: Comparison | None) -> None:
    if effect is None:
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # over the line at 0
        panel.annotate("baseline", (0, place), ha="center", va="center", fontsize=9, bbox=box)
        return
    color = {"higher": GREEN, "lower": RED}.get(effect.verdict, "#777777")
    bar = {"color": color, "linewidth": 3, "solid_capstyle": "butt"}
    panel.plot([effect.low, effect.high], [place] * 2, **bar)
    panel.plot(effect.difference, place, "o", color=color, markersize=7)


def draw_curves(ablation: Ablation, metrics: Sequence[str] = ("AP", "AP50")) -> Any:
    """Two metrics against epochs, the mean over seeds and a band from the lowest to the highest; a
    matplotlib Figure."""
    figure, (panels,) = make_panels(1, 2, (10, 4.2 + 0.07 * len(ablation.points)))
    for panel, metric in zip(panels, metrics, strict=True):
        for number, point in enumerate(ablation.points):
            runs = [ablation.run_folder(cell) for cell in ablation.cells_of(point)]
            epochs, values = _read_curves(runs, f"val/{metric}")
            if not epochs:
                continue
            color = COLORS[number % len(COLORS)]
            line = {"color": color, "linestyle": DASHES[number // len(COLORS) % len(DASHES)]}
            title = point_title(point, ablation.axes)
            panel.plot(epochs, values.mean(0), marker=".", label=title, **line)
            panel.fill_between(epochs, values.min(0), values.max(0), alpha=0.15, color=color)
        panel.set(title=f"{metric} on the validation images", xlabel="epoch", ylabel=metric)
        panel.set_ylim(bottom=0)
    if panels[0].lines:
        names = {"handles": panels[0].lines, "loc": "outside lower center"}
        figure.legend(**names, ncols=3, fontsize=8)
    return figure


def _read_curves(runs: Sequence[Path], key: str) -> tuple[list[int], np.ndarray]:
    """The epochs that all runs have (that have any), and the figures (runs, epochs)."""
    curves = [
        {line["epoch"]: line[key] for line in read_epochs(run) if key in line} for run in runs
    ]
    curves = [curve for curve in curves if curve]
    epochs = sorted(set.intersection(*map(set, curves))) if curves else []
    return epochs, np.array([[curve[epoch] for epoch in epochs] for curve in curves])
