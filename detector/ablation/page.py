"""Pictures of an ablation, one HTML file that holds everything, and the same for TensorBoard."""

import base64
import html
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detector.ablation.cells import Outcome, epochs_of
from detector.ablation.grid import Axis, Cell, flatten
from detector.ablation.summary import Summary, name_of
from detector.ablation.tables import conditions_table, table

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em;
       color: #222; background: #fff }
table { border-collapse: collapse; font-size: 13px } th, td { padding: .3em .7em; text-align: left;
       border-bottom: 1px solid #ddd; white-space: nowrap } th { border-bottom: 2px solid #888 }
.wide { overflow-x: auto } .higher { color: #176d2c } .lower { color: #a31515 }
.alarm { background: #fde8e8; padding: .5em 1em } pre { background: #f5f5f5; padding: 1em;
       overflow-x: auto; font-size: 12px } svg, img { max-width: 100%; height: auto }
"""
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5f5f5f", "#8c613c")


def draw_effects(summary: Summary) -> Any:
    """One dot per seed, and the differences to the baseline with their intervals. A matplotlib
    Figure; ModuleNotFoundError without matplotlib."""
    from matplotlib.figure import Figure

    rows = [row for row in summary.rows if row.figures["AP"]]
    figure = Figure(figsize=(10, 1.6 + 0.42 * len(rows)), layout="constrained")
    dots, gaps = figure.subplots(1, 2, sharey=True)
    for place, row in enumerate(rows):
        values = row.figures["AP"]
        dots.plot(values, [place] * len(values), "o", color=COLORS[0], alpha=0.6, markersize=6)
        dots.plot([np.mean(values)] * 2, [place - 0.25, place + 0.25], color="black", linewidth=2)
        one = row.to_baseline
        if one is None:
            gaps.annotate("baseline", (0, place), ha="center", va="center", fontsize=9)
            continue
        color = {"higher": COLORS[2], "lower": COLORS[1]}.get(one.verdict, "#777777")
        gaps.plot([one.low, one.high], [place] * 2, color=color, linewidth=3, solid_capstyle="butt")
        gaps.plot(one.difference, place, "o", color=color, markersize=7)
    gaps.axvline(0, color="black", linewidth=1)
    dots.set_yticks(range(len(rows)), [name_of(row.point, summary.axes) for row in rows])
    dots.invert_yaxis()
    dots.set(title="AP of every seed, and the mean", xlabel="AP")
    gaps.set(title="Difference to the baseline, 95 %", xlabel="difference in AP")
    _tidy(dots, gaps)
    return figure


def draw_curves(out: Path, cells: Sequence[Cell], axes: Sequence[Axis]) -> Any:
    """AP and AP50 against epochs, the mean over seeds and a band from the lowest to the highest."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    points = list(dict.fromkeys(tuple(cell.point.values()) for cell in cells))
    for panel, key in zip(panels, ("AP", "AP50"), strict=True):
        for number, point in enumerate(points):
            curves = [
                curve
                for cell in cells
                if tuple(cell.point.values()) == point
                and (curve := _curve(out / "cells" / cell.name, f"val/{key}"))
            ]
            if not curves:
                continue
            epochs = sorted(set.intersection(*map(set, curves)))
            values = np.array([[curve[epoch] for epoch in epochs] for curve in curves])
            style = {"color": COLORS[number % len(COLORS)]}
            dashed = ("-", "--", ":", "-.")[number // len(COLORS) % 4]
            panel.plot(
                epochs, values.mean(0), dashed, marker=".", label=name_of(point, axes), **style
            )
            panel.fill_between(epochs, values.min(0), values.max(0), alpha=0.15, **style)
        panel.set(title=f"{key} on the validation images", xlabel="epoch", ylabel=key)
        panel.set_ylim(bottom=0)
    if panels[0].lines:
        panels[0].legend(fontsize=8)
    _tidy(*panels)
    return figure


def _curve(run: Path, key: str) -> dict[int, float]:
    return {line["epoch"]: line[key] for line in epochs_of(run) if key in line}


def _tidy(*panels: Any) -> None:
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)


def write_page(
    path: Path,
    title: str,
    command: str,
    summary: Summary,
    fairness: Sequence[str],
    figures: Mapping[str, Any],
    pictures: Mapping[str, Path],
) -> None:
    """One file without any other. `figures`: heading -> matplotlib Figure; `pictures`: heading ->
    PNG file."""
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for note in summary.notes:
        kind = ' class="alarm"' if note.startswith("INCOMPLETE") else ""
        parts.append(f"<p{kind}>{html.escape(note)}</p>")
    parts.append(_table(*table(summary)))
    changes = conditions_table(summary)
    if changes[1]:
        parts += ["<h2>What the conditions change</h2>", _table(*changes)]
    for heading, figure in figures.items():
        parts += [f"<h2>{html.escape(heading)}</h2>", _svg(figure)]
    for heading, picture in pictures.items():
        data = base64.b64encode(picture.read_bytes()).decode()
        parts.append(f"<h2>{html.escape(heading)}</h2>")
        parts.append(f'<img alt="{html.escape(heading)}" src="data:image/png;base64,{data}">')
    parts += ["<h2>What differs</h2>", f"<pre>{html.escape(chr(10).join(fairness))}</pre>"]
    parts += ["<h2>Command</h2>", f"<pre>{html.escape(command)}</pre>"]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    page = f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'
    path.write_text(page, encoding="utf-8")


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        marks = (cell if cell in ("higher", "lower") else "" for cell in cells)
        pairs = zip(cells, marks, strict=True)
        texts = (f'<{tag} class="{mark}">{html.escape(cell)}</{tag}>' for cell, mark in pairs)
        return f"<tr>{''.join(texts)}</tr>"

    body = "".join(row(line, "td") for line in lines)
    return f'<div class="wide"><table>{row(heads, "th")}{body}</table></div>'


def _svg(figure: Any) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg")
    return stream.getvalue()[stream.getvalue().index("<svg") :]


def pixels(figure: Any) -> np.ndarray:
    """A matplotlib Figure as uint8 (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def log_tensorboard(
    out: Path,
    cells: Sequence[Cell],
    outcomes: Mapping[str, Outcome],
    text: str,
    figures: Mapping[str, Any],
) -> None:
    """Table and pictures as one page (tab Text, Images), and the settings of every cell with its
    figures (tab HParams); what was there before goes."""
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    shutil.rmtree(out / "summary", ignore_errors=True)
    with SummaryWriter(str(out / "summary")) as writer:
        writer.add_text("ablation", text)
        for name, figure in figures.items():
            writer.add_image(f"ablation/{name}", pixels(figure), dataformats="HWC")
    for cell in cells:
        found, folder = outcomes[cell.name], out / "cells" / cell.name / "hparams"
        if found.state != "done":
            continue
        shutil.rmtree(folder, ignore_errors=True)
        flat = flatten(cell.config)
        settings: dict[str, Any] = {**cell.point, "seed": cell.seed}
        keys = ("optimizer.lr", "model.class_loss.weight", "model.box_loss.weight")
        settings |= {key: flat[key] for key in keys if key in flat and key not in settings}
        metrics = {
            f"final/{name}": value for name, value in found.result.items() if value is not None
        }
        with SummaryWriter(str(folder)) as writer:
            file_writer: Any = writer._get_file_writer()
            for summary in hparams(settings, metrics):
                file_writer.add_summary(summary)
            for name, value in metrics.items():
                writer.add_scalar(name, value)
