"""The text of --help, for every command."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from detector.config.options import OPTIONS
from detector.config.signatures import CONTRACTS, library_losses
from detector.config.types import Option, show

EVERYWHERE = {
    "--config": Option(str, None, "a YAML file; may be repeated, later files win key by key"),
    "--print_config": Option(bool, False, "print the whole resolved configuration and stop"),
    "--help": Option(bool, False, "print this and stop"),
}


def help_text(
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
