"""A fair comparison gives every method its own learning rate and loss weight: chosen by short
searches on images set apart from the training split, before the validation split is looked at."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from detector.ablation.cells import Outcome
from detector.ablation.grid import Axis, Cell, make_cells, point_name
from detector.config.errors import UserError

RATES, WEIGHTS = (0.25, 0.5, 1.0, 2.0), (0.5, 1.0, 2.0)
HOLDOUT = 0.2


def tuned_keys(axes: Sequence[Axis]) -> list[str]:
    """What is tuned: the learning rate, and the weight of the losses that are compared. Of two
    losses only one weight, as the learning rate scales both."""
    keys = ["optimizer.lr"]
    keys += [
        f"{slot}.weight"
        for slot in ("model.class_loss", "model.box_loss")
        if slot in [axis.key for axis in axes]
    ][:1]
    for axis in axes:
        if axis.key in keys:
            raise UserError(f"--tune chooses {axis.key}, which is an axis: leave out one of them")
    return keys


def candidates(
    words: Sequence[str], axes: Sequence[Axis], seed: int, out: Path
) -> tuple[list[Cell], dict[str, list[list[str]]]]:
    """The cells of the search, and for every point (its name) the words of its candidates, in the
    order of the cells."""
    keys = tuned_keys(axes)
    found: list[Cell] = []
    choices: dict[str, list[list[str]]] = {}
    extra = [*words, "--data.holdout", str(HOLDOUT)]
    for base in make_cells(extra, axes, [seed], out):
        name = point_name(base.point)
        values = [_values(base, key) for key in keys]
        for rate in values[0]:
            for weight in values[1] if len(values) > 1 else [None]:
                own = ["--optimizer.lr", f"{rate:.4g}"]
                own += [f"--{keys[1]}", f"{weight:.4g}"] if weight is not None else []
                choices.setdefault(name, []).append(own)
    for number in range(max(map(len, choices.values()))):
        chosen = {name: words[number] for name, words in choices.items()}
        for cell in make_cells(extra, axes, [seed], out, chosen):
            full = f"{point_name(cell.point)}_try{number}"
            config = {**cell.config, "run": str(out / "cells" / full)}
            found.append(cell._replace(name=full, config=config))
    return found, choices


def _values(cell: Cell, key: str) -> list[float]:
    section, last = key.rsplit(".", 1)
    tree = cell.config
    for part in section.split("."):
        tree = tree[part]
    return [float(tree[last]) * factor for factor in (RATES if last == "lr" else WEIGHTS)]


def best(
    cells: Sequence[Cell],
    choices: Mapping[str, Sequence[Sequence[str]]],
    outcomes: Mapping[str, Outcome],
) -> tuple[dict[str, list[str]], list[list[str]]]:
    """For every point the words with the highest AP, and a table of all candidates. A point without
    any finished candidate is a UserError."""
    chosen: dict[str, list[str]] = {}
    lines: list[list[str]] = []
    for point, words in choices.items():
        figures = []
        for number, own in enumerate(words):
            found = outcomes[f"{point}_try{number}"]
            figure = found.result.get("AP", -1.0)
            figures.append(figure)
            shown = f"{figure:.3f}" if found.state == "done" else f"{found.state} {found.reason}"
            lines.append([point, *own[1::2], shown])
        if max(figures) < 0:
            raise UserError(f"no candidate of {point} could be trained, see the logs of its cells")
        chosen[point] = list(words[figures.index(max(figures))])
    return chosen, lines
