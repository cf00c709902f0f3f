"""YAML files and dotted flags -> one checked tree of plain values.

A typo is answered at once, because nothing that imports torch is imported here. The options are in
options.py, files and command line are read by sources.py, losses are looked up by signatures.py.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from detector.options import OPTIONS, RULES, Option, near, not_installed, show
from detector.signatures import (
    CONTRACTS,
    library_losses,
    load_class,
    loss_arguments,
    trainer_arguments,
)
from detector.sources import Given, Source, UserError, checked, dump, placed, read, split

__all__ = ["UserError", "load", "make_loss", "one_line_errors", "parse", "save", "write"]

# Arguments of Lightning's Trainer that train.py sets itself
OURS = (
    "logger",
    "callbacks",
    "default_root_dir",
    "use_distributed_sampler",
    "enable_checkpointing",
)
EVERYWHERE = {
    "--config": Option(str, None, "a YAML file; may be repeated, later files win key by key"),
    "--print_config": Option(bool, False, "print the whole resolved configuration and stop"),
    "--help": Option(bool, False, "print this and stop"),
}


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Mistakes of the user's: one line on stderr, exit status 2. Other errors stay as they are.

    Whatever has the attribute `user_error` counts, and a package that is not installed. A
    DataLoader worker wraps its error into a traceback, of which the last line is the message.
    Ctrl-C is exit status 130 without a word, and so is 141 where nobody reads on (`| head`).
    """
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes
        raise SystemExit(141) from None
    except ModuleNotFoundError as error:
        print("error:", not_installed(error.name), file=sys.stderr)
        raise SystemExit(2) from None
    except Exception as error:
        if not getattr(error, "user_error", False):
            raise
        *before, line = str(error).strip().splitlines() or [""]
        print("error:", re.sub(r"^[\w.]+Error: ", "", line) if before else line, file=sys.stderr)
        raise SystemExit(2) from None


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
        print(_help(usage, own, short, sections))
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


def write(path: Path, text: str) -> None:
    """A text file, at once, so that a kill leaves the whole of the old or of the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def make_loss(spec: Mapping[str, Any]) -> Any:
    """The loss of {name: FocalLoss, gamma: 2.0}, constructed. Imports torch."""
    arguments = {key: value for key, value in spec.items() if key != "name"}
    return load_class(spec["name"])(**arguments)


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


def _help(
    usage: str,
    own: Mapping[str, Option],
    short: Mapping[str, str],
    sections: Sequence[str] | None,
) -> str:
    """Two screens: how to call it, its options with their defaults, the losses."""
    names = {key: name for name, key in short.items()}
    shown = {key: x for key, x in OPTIONS.items() if not sections or key.split(".")[0] in sections}
    lines = [usage.strip(), "", *(_row(name, option) for name, option in own.items()), ""]
    lines += [_row(f"--{names.get(key, key)}", option) for key, option in shown.items()]
    for slot in (slot for slot in CONTRACTS if slot in shown):
        lines.append(f"Losses for --{slot}, and their arguments:")
        for name, given in library_losses(slot).items():
            lines.append(
                f"{name:<31}{', '.join(f'{k} {_brief(x.default)}' for k, x in given.items())}"
            )
    return "\n".join(line.rstrip() for line in lines)


def _row(name: str, option: Option) -> str:
    choices = f"({', '.join(map(show, get_args(option.kind)))})"
    text = (
        f"{option.help} {choices}".lstrip() if get_origin(option.kind) is Literal else option.help
    )
    return f"{name:<31}{_brief(option.default):<21} {text}"


def _brief(default: Any) -> str:
    if default is ... or default is None:
        return "" if default is ... else "null"
    return f"{default:.4g}" if isinstance(default, float) else show(default)
