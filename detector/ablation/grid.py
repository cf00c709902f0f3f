"""The grid: axes of configuration keys -> cells, each with a checked configuration of its own."""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from detector.config.errors import UserError
from detector.config.options import OPTIONS
from detector.config.resolve import resolve
from detector.config.signatures import SLOTS
from detector.config.sources import parse_value
from detector.config.types import format_value

# What methods can be compared by: of recognition what is a mean over queries, see eval.py
Metric = Literal[
    "AP",
    "AP50",
    "identity/mAP",
    "identity/rank1",
    "identity/rank5",
    "identity/search_mAP",
    "identity/search_mAP_recall",
    "identity/search_rank1",
    "identity/search_rank5",
]
RECOGNITION = get_args(Metric)[2:]
# What the cells are evaluated on must be the same for all
DATA = ("format", "root", "val", "annotations", "images", "classes", "holdout")
FIXED = ("run", "resume", "seed", *(f"data.{name}" for name in DATA))


class Axis(NamedTuple):
    """A key of the configuration that is varied. `values`: label, as tables show it -> value."""

    key: str
    values: dict[str, Any]

    @property
    def baseline(self) -> str:
        """The label that the others are compared with."""
        return next(iter(self.values))

    @property
    def is_condition(self) -> bool:
        """Whether methods are compared within each of its values, not across them: a key of `data.`
        makes the task easier or harder for all."""
        return self.key.startswith("data.")


class Cell(NamedTuple):
    """One training. `point`: axis key -> label; `config`: its complete configuration; `tuned`:
    what is set for this point alone, {dotted key: value}."""

    name: str
    point: dict[str, str]
    seed: int
    config: dict[str, Any]
    tuned: dict[str, Any] = {}


class Shared(NamedTuple):
    """What all cells share: YAML files, and {dotted key: value} that beats them."""

    files: Sequence[str]
    overrides: Mapping[str, Any]


def make_cells(
    shared: Shared,
    axes: Sequence[Axis],
    seeds: Sequence[int],
    out: Path,
    tuned: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Cell]:
    """All points of the grid x seeds, each seed's points together, so that comparisons are complete
    early.

    Args:
        out: folder of the ablation; a cell's run folder is `out/cells/NAME`.
        tuned: name of a point (`point_name`) -> what is set for it alone, as tuning chose it.

    Raises UserError for whatever is wrong, before anything trains.
    """
    if not axes:
        raise UserError("nothing is varied: give --class_loss, --box_loss or --vary KEY VALUES")
    for number, axis in enumerate(axes):
        _check_axis(axis, [other.key for other in axes[:number]], shared)
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds has a value twice: {' '.join(map(str, seeds))}")
    cells = []
    for seed, labels in itertools.product(seeds, itertools.product(*(a.values for a in axes))):
        point = {axis.key: label for axis, label in zip(axes, labels, strict=True)}
        name = f"{point_name(point)}_seed{seed}"
        chosen = dict((tuned or {}).get(point_name(point), {}))
        cells.append(make_cell(shared, axes, point, seed, out / "cells" / name, chosen))
    names = [cell.name for cell in cells]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two cells would have the name {name}: make the values differ more")
    return cells


def make_cell(
    shared: Shared,
    axes: Sequence[Axis],
    point: dict[str, str],
    seed: int,
    run: Path,
    tuned: dict[str, Any],
) -> Cell:
    """One cell; `run`: its run folder, which has the cell's name. It computes in float32 where the
    configuration leaves the precision to the device: cells on different devices stay alike."""
    values = {axis.key: _untuned(axis.key, axis.values[point[axis.key]], tuned) for axis in axes}
    overrides = {**shared.overrides, **tuned, **values, "seed": seed, "run": str(run)}
    config = resolve(shared.files, overrides, "command line")
    if config["trainer"]["precision"] == "auto" and "trainer.precision" not in values:
        config["trainer"]["precision"] = "32-true"
    return Cell(run.name, point, seed, config, tuned)


def _untuned(key: str, value: Any, tuned: Mapping[str, Any]) -> Any:
    """The value of an axis; of {name: GHMC, weight: 2} without the arguments that tuning chose."""
    if not isinstance(value, Mapping):
        return value
    return {name: inner for name, inner in value.items() if f"{key}.{name}" not in tuned}


def _check_axis(axis: Axis, former_keys: Sequence[str], shared: Shared) -> None:
    if axis.key in FIXED:
        hint = "use --seeds" if axis.key == "seed" else "all cells are evaluated on the same images"
        raise UserError(f"{axis.key} cannot be an axis: {hint}")
    if axis.key in former_keys:
        raise UserError(f"{axis.key} is an axis twice: give all its values at once")
    if axis.key in shared.overrides:
        raise UserError(f"{axis.key} is given twice: it is an axis, and set for all cells")
    if not axis.values:
        raise UserError(f"{axis.key} has no values: --vary {axis.key} VALUE VALUE ...")


def make_axis(key: str, words: Sequence[str]) -> Axis:
    """The axis of `--vary KEY WORD WORD ...`. A value is labeled by its word, a loss with arguments
    by Name(argument=1)."""
    kind = OPTIONS[key].kind if key in OPTIONS else Any
    values = [parse_value(word, kind) for word in words]
    labels = [_label(key, word, value) for word, value in zip(words, values, strict=True)]
    if len(set(labels)) < len(labels):
        raise UserError(f"--vary {key} has a value twice: {' '.join(words)}")
    return Axis(key, dict(zip(labels, values, strict=True)))


def _label(key: str, word: str, value: Any) -> str:
    if key not in SLOTS:
        return word
    if isinstance(value, list):
        return " + ".join(_label(key, str(loss), loss) for loss in value) or "none"
    if not isinstance(value, dict):
        return word.rpartition(".")[2]
    arguments = ", ".join(f"{k}={format_value(v)}" for k, v in value.items() if k != "name")
    name = str(value.get("name"))
    return f"{name}({arguments})" if arguments else name


def point_name(point: Mapping[str, str]) -> str:
    """The name of a point, fit for a folder."""
    parts = []
    for key, label in point.items():
        text = re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-") or "none"
        parts.append(text if key in SLOTS else f"{key.rpartition('.')[2]}-{text}")
    return "_".join(parts)


def flatten(tree: Mapping[str, Any], parent: str = "") -> dict[str, Any]:
    """Nested sections -> dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{parent}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Dotted key -> its distinct values, in order, for all keys in which the configurations differ.

    A key that only some have (an argument of a loss) differs, too.
    """
    flat = [flatten(config) for config in configs]
    differing: dict[str, list[Any]] = {}
    for key in dict.fromkeys(key for config in flat for key in config):
        values = [config[key] for config in flat if key in config]
        distinct = list({json.dumps(value): value for value in values}.values())
        if len(distinct) > 1 or len(values) < len(flat):
            differing[key] = distinct
    return differing


def check_fairness(
    cells: Sequence[Cell], configs: Sequence[Mapping[str, Any]], tuned: Sequence[str] = ()
) -> list[str]:
    """Lines that say in what the cells' configurations differ. `tuned`: keys that tuning chose.

    Raises UserError if they differ in anything but the axes, the seed and what was tuned: then the
    results say nothing about the axes; and where a precision that each device would choose itself
    is a value to compare.
    """
    if any(config["trainer"]["precision"] == "auto" for config in configs):
        raise UserError(
            "trainer.precision auto: cells on different devices could differ in it; give 32-true "
            "or bf16-mixed"
        )
    axes = list(cells[0].point)
    differing = differences(configs)
    allowed = ("seed", "run", *tuned)
    for key, values in differing.items():
        if key not in allowed and not any(belongs(key, axis) for axis in axes):
            raise UserError(
                f"the cells also differ in {key} ({_list_values(values)}), which is no axis: their "
                "folders hold runs of other settings; choose another --out"
            )
    lines = [f"{len(cells)} cells differ in nothing but"]
    for axis in axes:
        labels = dict.fromkeys(cell.point[axis] for cell in cells)
        lines.append(f"  {axis}: {', '.join(labels)}")
        arguments = [
            f"{key.removeprefix(f'{axis}.')} {' / '.join(map(format_value, values))}"
            for key, values in differing.items()
            if belongs(key, axis) and key not in (axis, f"{axis}.name")
        ]
        if arguments:
            lines.append(f"    and with it {', '.join(arguments)}")
    for key, note in (*((key, " (tuned)") for key in tuned), ("seed", "")):
        if key in differing:
            lines.append(f"  {key}: {_list_values(differing[key])}{note}")
    if "trainer.precision" not in differing:
        lines.append(f"and compute in {configs[0]['trainer']['precision']}")
    return lines


def _list_values(values: Sequence[Any]) -> str:
    return ", ".join(map(format_value, values))


def belongs(key: str, axis: str) -> bool:
    """Whether a key is the axis, or an argument of the loss that is the axis."""
    return key == axis or (axis in SLOTS and key.startswith(f"{axis}."))
