"""The grid: axes of configuration keys -> cells, each with a checked configuration of its own."""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detector.config.errors import UserError
from detector.config.resolve import parse
from detector.config.signatures import CONTRACTS
from detector.config.sources import typed
from detector.config.types import show

# What the cells are judged by must be the same for all
DATA = ("format", "root", "val", "annotations", "images", "classes", "holdout")
FIXED = ("run", "resume", "seed", *(f"data.{name}" for name in DATA))


class Axis(NamedTuple):
    """`values` as typed: words of the command line."""

    key: str
    values: list[str]

    @property
    def condition(self) -> bool:
        """Whether methods are compared within each of its values, not across them: the data is not
        the method's merit."""
        return self.key.startswith("data.")


class Cell(NamedTuple):
    """One training. `point`: axis key -> value as it is shown; `config`: the resolved tree."""

    name: str
    point: dict[str, str]
    seed: int
    config: dict[str, Any]


def make_cells(
    words: Sequence[str],
    axes: Sequence[Axis],
    seeds: Sequence[int],
    out: Path,
    chosen: Mapping[str, Sequence[str]] | None = None,
) -> list[Cell]:
    """All points of the grid x seeds, each seed's points together, so that comparisons are complete
    early.

    Args:
        words: what all cells share, as for train.py: --config FILE ... --key value ...
        out: folder of the ablation; a cell's run folder is `out/cells/NAME`.
        chosen: further words for a point (`point_name`), as tuning chose them.

    Raises UserError for whatever is wrong, before anything trains.
    """
    if not axes:
        raise UserError("nothing is varied: give --class_loss, --box_loss or --vary KEY VALUES")
    for number, axis in enumerate(axes):
        _check(axis, [other.key for other in axes[:number]])
    for name, values in (("--seeds", seeds), *((f"--vary {a.key}", a.values) for a in axes)):
        if len(set(values)) < len(values):
            raise UserError(f"{name} has a value twice: {' '.join(map(str, values))}")
    if not seeds:
        raise UserError("--seeds needs at least one number")
    cells = []
    points = list(itertools.product(*([*axis.values] for axis in axes)))
    for seed, values in itertools.product(seeds, points):
        point = {a.key: label(a.key, v) for a, v in zip(axes, values, strict=True)}
        own = [word for a, v in zip(axes, values, strict=True) for word in (f"--{a.key}", v)]
        name = f"{point_name(point)}_seed{seed}"
        further = (chosen or {}).get(point_name(point), ())
        own += [*further, "--seed", str(seed), "--run", str(out / "cells" / name)]
        shared = without(words, further[::2])
        cells.append(Cell(name, point, seed, parse([*shared, *own], usage="")[0]))
    names = [cell.name for cell in cells]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two cells would have the name {name}: make the values differ more")
    return cells


def without(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    """The words of a command line without some flags and their values."""
    kept: list[str] = []
    dropping = False
    for word in words:
        if word.startswith("--"):
            dropping = word.partition("=")[0] in flags
        if not dropping:
            kept.append(word)
    return kept


def _check(axis: Axis, before: Sequence[str]) -> None:
    if axis.key in FIXED:
        hint = ": use --seeds" if axis.key == "seed" else ""
        hint = hint or ": all cells are judged on the same images of the same data"
        raise UserError(f"{axis.key} cannot be an axis{hint}")
    if axis.key in before:
        raise UserError(f"{axis.key} is an axis twice: give all its values at once")
    if not axis.values:
        raise UserError(f"{axis.key} has no values: --vary {axis.key} VALUE VALUE ...")


def label(key: str, word: str) -> str:
    """A value as it is shown: a loss as Name(argument=1), all else as typed."""
    value = typed(word)
    if key not in CONTRACTS or not isinstance(value, dict):
        return word.rpartition(".")[2] if key in CONTRACTS else word
    arguments = ", ".join(f"{k}={show(v)}" for k, v in value.items() if k != "name")
    return f"{value.get('name')}({arguments})" if arguments else str(value.get("name"))


def point_name(point: Mapping[str, str]) -> str:
    """Of a point: good as a folder's name."""
    parts = []
    for key, value in point.items():
        text = re.sub(r"[^A-Za-z0-9.]+", "-", value).strip("-") or "none"
        parts.append(text if key in CONTRACTS else f"{key.rpartition('.')[2]}-{text}")
    return "_".join(parts)


def flatten(tree: Mapping[str, Any], parent: str = "") -> dict[str, Any]:
    """Nested sections -> dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{parent}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Dotted key -> its values, in order, for all keys in which the configurations differ. A key
    that only some have (an argument of a loss) differs, too."""
    flat = [flatten(config) for config in configs]
    found: dict[str, list[Any]] = {}
    for key in dict.fromkeys(key for one in flat for key in one):
        values = [one[key] for one in flat if key in one]
        distinct = list({json.dumps(value): value for value in values}.values())
        if len(distinct) > 1 or len(values) < len(flat):
            found[key] = distinct
    return found


def check_fairness(
    cells: Sequence[Cell], configs: Sequence[Mapping[str, Any]], tuned: Sequence[str] = ()
) -> list[str]:
    """Lines that say in what the cells' configurations differ. `tuned`: keys that tuning chose.

    Raises UserError if they differ in anything but the axes, the seed and what was tuned: then
    they say nothing about the axes.
    """
    axes = list(cells[0].point)
    found = differences(configs)
    lines = [f"{len(cells)} cells differ in nothing but"]
    for key in axes:
        values = list(dict.fromkeys(cell.point[key] for cell in cells))
        lines.append(f"  {key}: {', '.join(values)}")
        own = {name.removeprefix(f"{key}."): v for name, v in found.items() if _within(name, key)}
        own.pop("name", None)
        own.pop(key, None)
        if own:
            texts = (f"{name} {' / '.join(map(show, values))}" for name, values in own.items())
            lines.append(f"    and with it {', '.join(texts)}")
    for key in tuned:
        if key in found:
            lines.append(f"  {key}: {', '.join(map(show, found[key]))} (tuned)")
    if "seed" in found:
        lines.append(f"  seed: {', '.join(map(show, found['seed']))}")
    allowed = ("seed", "run", *tuned)
    for key, values in found.items():
        if key not in allowed and not any(_within(key, axis) for axis in axes):
            shown = ", ".join(map(show, values))
            raise UserError(
                f"the cells also differ in {key} ({shown}), which is no axis: their folders hold "
                "runs of other settings; choose another --out"
            )
    return lines


def _within(key: str, axis: str) -> bool:
    return key == axis or (axis in CONTRACTS and key.startswith(f"{axis}."))
