"""The text of --help, for every program."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from detector.config.options import OPTIONS
from detector.config.signatures import CONTRACTS, LISTS, library_losses
from detector.config.types import Option, format_value


def format_help(
    usage: str,
    program_options: Mapping[str, Option],
    short: Mapping[str, str],
    sections: Sequence[str] | None,
) -> str:
    """How a program is called, its options with their defaults, and the losses: two screens.

    The arguments are those of `command_line.parse`.
    """
    shorter = {words: flag for flag, words in short.items()}
    shown = {
        key: option
        for key, option in OPTIONS.items()
        if sections is None or key.split(".")[0] in sections
    }
    lines = [usage.strip(), ""]
    for name, option in program_options.items():
        is_switch = option.kind is bool
        lines.append(_row(name, option._replace(default=...) if is_switch else option))
    lines += [f"{flag:<31}short for {words}" for flag, words in short.items() if " " in words]
    lines += [""] if shown else []
    lines += [_row(shorter.get(f"--{key}", f"--{key}"), option) for key, option in shown.items()]
    for slot in (slot for slot in CONTRACTS if slot in shown):
        lines.append(f"Losses for --{slot}, and their arguments:")
        alike: dict[str, list[str]] = {}  # by their arguments
        for name, arguments in library_losses(slot).items():
            listed = ", ".join(f"{k} {_format_default(x.default)}" for k, x in arguments.items())
            alike.setdefault(listed, []).append(name)
        lines += [f"{', '.join(names):<30} {listed}" for listed, names in alike.items()]
    for slot in (slot for slot in LISTS if slot in shown):
        lines.append(f"Losses for --{slot} (docs/losses.md has their arguments):")
        lines.append(", ".join(library_losses(slot)))
    return "\n".join(line.rstrip() for line in lines)


def _row(name: str, option: Option) -> str:
    text = option.help
    if get_origin(option.kind) is Literal:
        text = f"{text} ({', '.join(map(format_value, get_args(option.kind)))})".lstrip()
    return f"{name:<31}{_format_default(option.default):<21} {text}"


def _format_default(default: Any) -> str:
    if default is ... or default == []:
        return ""
    return f"{default:.4g}" if isinstance(default, float) else format_value(default)
