"""YAML files and dotted flags -> one checked tree of plain values.

A typo is answered at once, because nothing that imports torch is imported here. The options are in
options.py, files and command line are read by sources.py, losses are looked up by signatures.py.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detector.config.errors import UserError, placed
from detector.config.help import EVERYWHERE, help_text
from detector.config.options import OPTIONS, RULES
from detector.config.signatures import CONTRACTS, loss_arguments, trainer_arguments
from detector.config.sources import Given, Source, checked, dump, read, split, write
from detector.config.types import Option, near

# Arguments of Lightning's Trainer that train.py sets itself
OURS = (
    "logger",
    "callbacks",
    "default_root_dir",
    "use_distributed_sampler",
    "enable_checkpointing",
)


def parse(
    argv: Sequence[str],
    *,
    usage: str,
    own: Mapping[str, Option] | None = None,
    base: Callable[[dict[str, Any]], str | Path | None] | None = None,
    short: Mapping[str, str] | None = None,
    sections: Sequence[str] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The resolved tree, and the door's own options (no dashes) with `config`, the list of files.

    Later files win key by key, and the command line beats every file wherever it stands. Naming
    another class of loss drops the arguments that were set for the old one. `--help` and
    `--print_config` end the program. Raises UserError.

    Args:
        argv: the words after the program's name.
        usage: what `--help` shows first.
        own: the door's own options: "--out" is a flag, "run" a positional.
        base: from own options and dotted flags to the file to start from, a run's config.yaml.
        short: further names of options, {"nms": "postprocess.nms"}.
        sections: the only sections that this door lets files and flags change; None: all.
    """
    own, short = {**(own or {}), **EVERYWHERE}, short or {}
    if {"--help", "-h"} & set(argv):
        print(help_text(usage, own, short, sections))
        raise SystemExit(0)
    mine, flags = split(argv, own, short)
    given = [read(path) for path in mine["config"]] + [flags]
    start = base({key: value for key, (value, _) in flags.items()} | mine) if base else None
    names = [name.lstrip("-") for name in (*own, *short) if name not in OPTIONS]
    tree = _resolve([read(start), *given] if start else given, names)
    for key, (_, origin) in (item for source in given for item in source.items()):
        if sections is not None and key.split(".")[0] not in sections:
            raise UserError(f"{key} ({origin}): only {', '.join(sections)} can be changed here")
    if mine["print_config"]:
        print(dump(tree), end="")
        raise SystemExit(0)
    return tree, mine


def load(path: str | Path) -> dict[str, Any]:
    """The resolved tree of one file, such as a run's config.yaml."""
    return _resolve([read(path)])


def save(tree: dict[str, Any], path: str | Path) -> None:
    """Writes a tree that `load` reads back equal."""
    write(Path(path), dump(tree))


def _resolve(sources: Sequence[Source], names: Sequence[str] = ()) -> dict[str, Any]:
    """Sources laid over the defaults in their order; checked, complete and nested.

    `names` are what else a misspelled flag may mean.
    """
    flat = {key: Given(option.default, "default") for key, option in OPTIONS.items()}
    for source in sources:
        for slot in CONTRACTS:
            if slot in source and source[slot].value != flat[slot].value:  # nothing may leak
                flat = {key: x for key, x in flat.items() if not key.startswith(f"{slot}.")}
        flat |= source
    known = _known(flat)
    for key, given in flat.items():
        if key not in known:
            raise UserError(f"{key} ({given.origin}): {_unknown(key, known, flat, names)}")
    arguments = {key for key in known if key.startswith(tuple(f"{slot}." for slot in CONTRACTS))}
    values = {
        key: checked(key, flat.get(key, Given(option.default, "default")), option.kind)
        for key, option in known.items()
        if key in flat or key in arguments
    }
    for key, holds, text in RULES:
        if not holds(values):
            raise UserError(f"{key} ({flat[key].origin}): {text}")
    return _nest(values)


def _known(flat: Source) -> dict[str, Option]:
    """All keys there are, given the losses that are named."""
    known = dict(OPTIONS)
    for slot in CONTRACTS:
        name = checked(slot, flat[slot], OPTIONS[slot].kind)
        with placed(slot, flat[slot].origin):
            known |= {f"{slot}.{key}": x for key, x in loss_arguments(name, slot).items()}
    return known | {
        f"trainer.{key}": option
        for key, option in trainer_arguments().items()
        if key not in OURS and f"trainer.{key}" not in known
    }


def _unknown(key: str, known: Mapping[str, Option], flat: Source, names: Sequence[str]) -> str:
    """What to say of a key that is not known: its first wrong part, the nearest, the choices."""
    parent, parts = "", key.split(".")
    while parts and parts[0] in _under(parent, known):
        parent += f"{parts.pop(0)}."
    section, choices = parent.rstrip("."), _under(parent, known)
    if not parts:
        return f"is a section ({', '.join(choices)}), not a value"
    part = parts[0]
    if not choices:
        return f"{section} is a value, it has no '{part}'"
    if section == "trainer" and part in OURS:
        return "train.py sets this itself"
    if section == "trainer":
        hint = near(part, choices) or f". It takes {', '.join(choices)}"
        return f"pl.Trainer has no argument '{part}'{hint}"
    if section in CONTRACTS:
        owner, hint = f"{flat[section].value} has no argument", near(part, choices)
    else:
        owner = f"{section or 'the configuration'} has no"
        choices += [] if section else names
        exact = [name for name in known if name.endswith(f".{part}")]
        hint = f"; did you mean '{exact[0]}'?" if exact else near(part, choices)
    return f"{owner} '{part}'{hint or '.'} It takes {', '.join(choices) or 'nothing'}"


def _under(parent: str, known: Mapping[str, Option]) -> list[str]:
    """The names directly below a section."""
    names = [name.removeprefix(parent) for name in known if name.startswith(parent)]
    return list(dict.fromkeys(name.split(".")[0] for name in names))


def _nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flat to sections; a loss becomes {name, argument, ...}."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *parents, last = f"{key}.name".split(".") if key in CONTRACTS else key.split(".")
        section = tree
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return tree
