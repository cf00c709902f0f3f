"""What an ablation leaves behind: tables, pictures, one HTML page, TensorBoard."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from detector.ablation import tables
from detector.ablation.cells import outcome
from detector.ablation.grid import Axis, Cell, check_fairness
from detector.ablation.page import draw_curves, draw_effects, log_tensorboard, write_page
from detector.ablation.summary import summarize
from detector.config.errors import UserError
from detector.config.resolve import load
from detector.evaluation.bootstrap import image_weights
from detector.evaluation.matches import match_all


def report(
    truth: dict[str, Any],
    cells: list[Cell],
    axes: list[Axis],
    tuned: list[str],
    out: Path,
    draws: int,
    jobs: int,
    command: str,
) -> None:
    """Tables, pictures and pages of what is done, in `out` and on the terminal. `truth`: the ground
    truth of all cells; `draws`: of the images; `jobs`, `command`: to be told with the figures."""
    outcomes = {cell.name: outcome(out, cell.name) for cell in cells}
    tables.write_csv(out / "results.csv", cells, outcomes)
    done = [cell for cell in cells if outcomes[cell.name].state == "done"]
    if not done:
        raise UserError(f"no cell is done yet, so there is nothing to tell; see {out / 'logs'}")
    fairness = check_fairness(cells, [cell.config for cell in cells], tuned)
    ran = [load(out / "cells" / cell.name / "config.yaml") for cell in done]
    check_fairness(done, [{**tree, "run": None} for tree in ran], tuned)  # as they really ran
    bar = tqdm(done, "comparing", unit="cell", disable=None, leave=False)
    matches = {cell.name: matched(truth, out / "cells" / cell.name) for cell in bar}
    weights = image_weights(len(truth["images"]), draws)
    found = summarize(axes, cells, outcomes, matches, weights)
    found.notes.append(tuning_note(tuned))
    if jobs > 1:
        found.notes.append(f"{jobs} cells ran side by side: times are those of a shared machine.")
    parts = [tables.markdown(*tables.table(found))]
    changes = tables.conditions_table(found)
    parts += [tables.markdown(*changes)] if changes[1] else []
    text = "\n\n".join(
        [*parts, *found.notes, "```\n" + "\n".join(fairness) + "\n```", f"`{command}`"]
    )
    (out / "table.md").write_text(text + "\n")
    (out / "table.tex").write_text(tables.latex(*tables.table(found)))
    print("\n" + tables.plain(*tables.table(found)))
    if changes[1]:
        print("\n" + tables.plain(*changes))
    print("", *found.notes, sep="\n")
    show(out, cells, outcomes, found, fairness, command, text)


def tuning_note(tuned: Sequence[str]) -> str:
    if tuned:
        return f"{' and '.join(tuned)} were tuned for each, on images set apart from training."
    return (
        "Learning rate and loss weights are the same for all, not tuned for each (--tune): a loss "
        "with larger or smaller gradients may be judged by that."
    )


def matched(truth: dict[str, Any], folder: Path) -> Any:
    return match_all(truth, json.loads((folder / "eval" / "detections.json").read_text()))


def show(
    out: Path,
    cells: list[Cell],
    outcomes: dict[str, Any],
    found: Any,
    fairness: list[str],
    command: str,
    text: str,
) -> None:
    """Pictures, the page, TensorBoard; a missing matplotlib costs the pictures only."""
    figures = {}
    try:
        figures = {"Effects": draw_effects(found), "Curves": draw_curves(out, cells, found.axes)}
        for name, figure in figures.items():
            figure.savefig(out / f"{name.lower()}.png", dpi=110)
    except ModuleNotFoundError:
        print("pictures: need matplotlib, pip install matplotlib")
    pictures = {
        f"Gradient norms: {cell.name}": picture
        for cell in cells
        if (picture := out / "cells" / cell.name / "gradients.png").is_file()
    }
    write_page(out / "index.html", out.name, command, found, fairness, figures, pictures)
    log_tensorboard(out, cells, outcomes, text, figures)
    print(f"\ntables: {out / 'table.md'}, table.tex, results.csv; page: {out / 'index.html'}")
    print(f"tensorboard --logdir {out}")
