"""Where settings come from, YAML files and the command line, each as a flat source.

Flat: dotted key -> Given. A loss is its class at `model.class_loss` and its arguments at
`model.class_loss.gamma`, however they were written.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detector.config.errors import UserError, not_installed, placed
from detector.config.options import OPTIONS
from detector.config.signatures import CONTRACTS
from detector.config.types import Option, fit, near, show, words

try:
    import yaml
except ModuleNotFoundError as error:  # the first package that is missed outside the environment
    sys.exit(f"error: {not_installed(error.name)}")

COMMAND_LINE = "command line"


class Given(NamedTuple):
    value: Any
    origin: str  # a file, COMMAND_LINE or "default"


Source = dict[str, Given]


def checked(key: str, given: Given, kind: Any) -> Any:
    """The value as that type, or a UserError."""
    if given.value is ...:
        raise UserError(f"{key}: must be given, it has no default")
    with placed(key, given.origin):
        return fit(given.value, kind)


class _Loader(yaml.SafeLoader):
    """YAML whose plain 1e-3 is a number, whose yes, 010 and 2024-01-31 are text; no key twice."""

    yaml_implicit_resolvers = {}  # type: ignore[var-annotated]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        for index, (key, _) in enumerate(node.value):
            if key.value in names[:index]:
                problem = f"{key.value} appears twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Sections as blocks, lists on one line."""


_Dumper.add_representer(
    list, lambda dumper, x: dumper.represent_sequence("tag:yaml.org,2002:seq", x, flow_style=True)
)
for _tag, _pattern, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?", list("-+.0123456789")),
):
    _whole = re.compile(f"^({_pattern})$")
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _whole, _first)


def dump(tree: dict[str, Any]) -> str:
    """YAML that `read` understands; sections as blocks, lists on one line."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, width=1000)


def split(
    argv: Sequence[str], own: Mapping[str, Option], short: Mapping[str, str]
) -> tuple[dict[str, Any], Source]:
    """The words of the command line: the door's own options, and flags as a flat source."""
    mine: dict[str, Any] = {name.lstrip("-"): option.default for name, option in own.items()}
    mine["config"] = []
    flags: Source = {}
    rest, places = list(argv), [name for name in own if not name.startswith("--")]
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") and not places:
            raise UserError(f"unexpected '{word}': options are typed as --key value")
        name, equals, text = word.partition("=")
        if not word.startswith("--"):
            name, equals, text = places.pop(0), "=", word
        key = short.get(name.lstrip("-"), name.lstrip("-"))
        option = own.get(name) or OPTIONS.get(key) or Option(Any, None)
        switch = name in own and option.kind is bool  # so that a positional may follow it
        if not equals and rest and not rest[0].startswith("--") and not switch:
            text = rest.pop(0)
        elif not equals and option.kind not in (bool, Any):
            raise UserError(f"{name} needs a value: {words(option.kind)}")
        elif not equals:
            text = "true"
        value = typed(text, option.kind)
        if name in own:
            value = checked(name, Given(value, COMMAND_LINE), option.kind)
            mine[key] = [*mine[key], value] if key == "config" else value
            continue
        for leaf, part in _flatten(key, value, COMMAND_LINE):
            if leaf in flags:
                raise UserError(f"{leaf} is given twice on the command line")
            flags[leaf] = Given(part, COMMAND_LINE)
    if missing := [name for name in own if mine[name.lstrip("-")] is ...]:
        raise UserError(f"{' and '.join(missing)} must be given; see --help")
    return mine, flags


def typed(text: str, kind: Any = Any) -> Any:
    """A word of the command line: as it stands for a text, as YAML for everything else."""
    if kind in (str, str | None):
        return None if text == "null" and kind is not str else text
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        return text


def read(path: str | Path) -> Source:
    """A YAML file as a flat source."""
    try:
        tree = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        there = [file.name for file in Path(path).parent.glob("*.yaml")]
        raise UserError(f"there is no file {path}{near(Path(path).name, there)}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UserError(f"{path}: {reason}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "unreadable characters"
        raise UserError(f"{path}{line}: bad YAML: {reason}") from None
    if not isinstance(tree, dict | None):
        raise UserError(f"{path}: expected sections such as data: and model:, got {show(tree)}")
    return {key: Given(value, str(path)) for key, value in _flatten("", tree or {}, str(path))}


def _flatten(key: str, value: Any, origin: str) -> Iterator[tuple[str, Any]]:
    """Dotted keys down to options and to arguments of losses and of the trainer.

    {class_loss: {name: GHMC, bins: 20}} is class_loss: GHMC and class_loss.bins: 20.
    """
    parent, _, last = key.rpartition(".")
    leaf = parent in (*CONTRACTS, "trainer") or (key in OPTIONS and key not in CONTRACTS)
    if isinstance(value, dict) and not leaf:
        for name, inner in value.items():
            if "." in str(name):
                raise UserError(f"{name} ({origin}): in YAML sections are nested, not dotted")
            yield from _flatten(f"{key}.{name}".lstrip("."), inner, origin)
    elif value is not None or not any(option.startswith(f"{key}.") for option in OPTIONS):
        yield parent if last == "name" and parent in CONTRACTS else key, value


def write(path: Path, text: str) -> None:
    """A text file, at once, so that a kill leaves the whole of the old or of the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
