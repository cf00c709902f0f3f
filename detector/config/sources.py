"""Settings as flat sources: one of every YAML file and one of the overrides.

A source maps dotted keys to a Value. However a loss was written, its class is at
`model.class_loss` and its arguments are at `model.class_loss.gamma`.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from detector.config.errors import UserError, locate_errors, not_installed
from detector.config.options import OPTIONS
from detector.config.signatures import CONTRACTS
from detector.config.types import coerce, did_you_mean, format_value

try:
    import yaml
except ModuleNotFoundError as error:  # the first package that is missed outside the environment
    sys.exit(f"error: {not_installed(error.name)}")


class Value(NamedTuple):
    """A value and its origin: the path of a file, "command line", "default"."""

    value: Any
    origin: str


Source = dict[str, Value]


def check(key: str, value: Value, kind: Any) -> Any:
    """The plain value, converted to the type. UserError if it has another or must be given."""
    if value.value is ...:
        raise UserError(f"{key}: must be given, it has no default")
    with locate_errors(key, value.origin):
        return coerce(value.value, kind)


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
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_pattern})$"), _first
        )


def parse_value(word: str, kind: Any = Any) -> Any:
    """A word of the command line, read as YAML; if the type is text, as it stands (or null)."""
    if kind in (str, str | None):
        return None if word == "null" and kind is not str else word
    try:
        return yaml.load(word, _Loader)
    except yaml.YAMLError:
        return word


def read(path: str | Path) -> Source:
    """A YAML file as a flat source."""
    try:
        tree = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        names = [file.name for file in Path(path).parent.glob("*.yaml")]
        raise UserError(f"there is no file {path}{did_you_mean(Path(path).name, names)}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UserError(f"{path}: {reason}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "unreadable characters"
        raise UserError(f"{path}{line}: bad YAML: {reason}") from None
    if not isinstance(tree, dict | None):
        raise UserError(f"{path}: expected sections as data: and model:, got {format_value(tree)}")
    for name in tree or {}:
        _refuse_dots(str(name), str(path))
    return flatten(tree or {}, str(path))


def flatten(tree: Mapping[str, Any], origin: str) -> Source:
    """Sections, or values by dotted keys, as a flat source. UserError for a key given twice."""
    source: Source = {}
    for name, value in tree.items():
        for key, leaf in _leaves(str(name), value, origin):
            if key in source:
                raise UserError(f"{key} is given twice ({origin})")
            source[key] = Value(leaf, origin)
    return source


def _leaves(key: str, value: Any, origin: str) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values down to options and to arguments of losses and of the trainer.

    {class_loss: {name: GHMC, bins: 20}} is class_loss: GHMC and class_loss.bins: 20.
    """
    parent, _, last = key.rpartition(".")
    is_argument = parent in (*CONTRACTS, "trainer")
    is_option = key in OPTIONS and key not in CONTRACTS
    is_section = any(option.startswith(f"{key}.") for option in OPTIONS)
    if isinstance(value, dict) and not is_argument and not is_option:
        for name, inner in value.items():
            _refuse_dots(str(name), origin)
            yield from _leaves(f"{key}.{name}", inner, origin)
    elif parent in CONTRACTS and last == "name":
        yield parent, value
    elif value is not None or not is_section:  # a section with nothing below it sets nothing
        yield key, value


def _refuse_dots(name: str, origin: str) -> None:
    if "." in name:
        raise UserError(f"{name} ({origin}): in YAML sections are nested, not dotted")


def dump(tree: dict[str, Any]) -> str:
    """YAML that `read` understands; sections as blocks, lists on one line."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, width=1000)
