"""YAML files and overrides -> one checked tree of plain values.

A typo is answered at once, because nothing that imports torch is imported here. The options are in
options.py, files are read by sources.py, losses are looked up by signatures.py.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detector.config.errors import UserError, locate_errors
from detector.config.files import write
from detector.config.options import OPTIONS, RULES
from detector.config.signatures import CONTRACTS, LISTS, loss_arguments, trainer_arguments
from detector.config.sources import Source, Value, check, dump, flatten, read
from detector.config.trainer_options import REFUSED, TRAINER
from detector.config.types import Option, did_you_mean


def resolve(
    files: Sequence[str | Path] = (),
    overrides: Mapping[str, Any] | None = None,
    origin: str = "overrides",
) -> dict[str, Any]:
    """The complete configuration: sections as nested dictionaries, a loss as {name, argument, ...},
    several as a list of these.

    Later files win key by key, and overrides beat every file. Naming another class of loss drops
    the arguments that were set for the former one. Raises UserError.

    Args:
        files: paths of YAML files.
        overrides: dotted key -> plain value; {"model.class_loss": {"name": "GHMC", "bins": 20}} is
            the same as {"model.class_loss": "GHMC", "model.class_loss.bins": 20}.
        origin: where the overrides come from, for error messages.
    """
    sources = [read(path) for path in files] + [flatten(overrides or {}, origin)]
    merged = _merge(sources)
    known = _known_options(merged)
    for key, value in merged.items():
        if key not in known:
            raise UserError(f"{key} ({value.origin}): {_explain_unknown(key, known, merged)}")
    values = {}
    for key, option in known.items():
        if key in merged or not key.startswith("trainer."):  # Lightning has its own defaults
            value = merged.get(key, Value(option.default, "default"))
            values[key] = check(key, value, option.kind)
    for slot in LISTS:
        if values[slot] is not None:
            values[slot] = _resolve_losses(slot, merged[slot], values[slot])
    for key, holds, text in RULES:
        if not holds(values):
            raise UserError(f"{key} ({merged[key].origin}): {text}")
    return _nest(values)


def load(path: str | Path) -> dict[str, Any]:
    """The complete configuration of one file, such as a run's config.yaml."""
    return resolve([path])


def save(tree: dict[str, Any], path: str | Path) -> None:
    """Writes a configuration that `load` reads back equal."""
    write(path, dump(tree))


def _merge(sources: Sequence[Source]) -> Source:
    """The defaults, and over them the sources in their order."""
    merged = {key: Value(option.default, "default") for key, option in OPTIONS.items()}
    for source in sources:
        for slot in CONTRACTS:
            if slot in source and source[slot].value != merged[slot].value:
                # arguments of the former loss must not leak into the new one
                merged = {k: v for k, v in merged.items() if not k.startswith(f"{slot}.")}
        merged |= source
    return merged


def _known_options(merged: Source) -> dict[str, Option]:
    """All keys that may be set, given the losses that are named."""
    known = dict(OPTIONS)
    for slot in CONTRACTS:
        name = check(slot, merged[slot], OPTIONS[slot].kind)
        with locate_errors(slot, merged[slot].origin):
            known |= {f"{slot}.{key}": x for key, x in loss_arguments(name, slot).items()}
    return known | {
        f"trainer.{key}": TRAINER.get(key, option)
        for key, option in trainer_arguments().items()
        if key not in REFUSED and f"trainer.{key}" not in known
    }


def _resolve_losses(slot: str, given: Value, losses: Any) -> list[dict[str, Any]]:
    """Losses, each a name or {name, argument, ...}, with all their arguments."""
    complete = []
    for loss in losses if isinstance(losses, list) else [losses]:
        spec = loss if isinstance(loss, dict) else {"name": loss}
        name = check(f"{slot}.name", Value(spec.get("name", ...), given.origin), str)
        with locate_errors(slot, given.origin):
            known = loss_arguments(name, slot)
        for key in (key for key in spec if key not in ("name", *known)):
            hint = did_you_mean(str(key), known) or "."
            raise UserError(
                f"{slot} ({given.origin}): {name} has no argument '{key}'{hint} "
                f"It takes {', '.join(known) or 'nothing'}"
            )
        arguments = {key: Value(spec.get(key, x.default), given.origin) for key, x in known.items()}
        checked = {key: check(f"{slot}.{key}", x, known[key].kind) for key, x in arguments.items()}
        complete.append({"name": name, **checked})
    return complete


def _explain_unknown(key: str, known: Mapping[str, Option], merged: Source) -> str:
    """Why a key is not known: its first wrong part, the nearest right name, the choices."""
    parent, parts = "", key.split(".")
    while parts and parts[0] in _names_below(parent, known):
        parent += f"{parts.pop(0)}."
    section, choices = parent.rstrip("."), _names_below(parent, known)
    if not parts:
        return f"is a section ({', '.join(choices)}), not a value"
    part = parts[0]
    if not choices:
        return f"{section} is a value, it has no '{part}'"
    if section == "trainer" and part in REFUSED:
        return REFUSED[part]
    if section == "trainer":
        hint = did_you_mean(part, choices) or f". It takes {', '.join(choices)}"
        return f"pl.Trainer has no argument '{part}'{hint}"
    if section in CONTRACTS:
        owner, hint = f"{merged[section].value} has no argument", did_you_mean(part, choices)
    else:
        owner = f"{section or 'the configuration'} has no"
        hint = did_you_mean(part, [*choices, *known])
    return f"{owner} '{part}'{hint or '.'} It takes {', '.join(choices) or 'nothing'}"


def _names_below(parent: str, known: Mapping[str, Option]) -> list[str]:
    """The names directly below a section; `parent` ends in a dot, or is empty."""
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
