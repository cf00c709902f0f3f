"""Types of options: what a value must be, how it is read, and how it is told to a user."""

import difflib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin


class Option(NamedTuple):
    """`kind` is a type: int, float | None, list[str], Literal[...], Annotated[type, words, test].

    The default `...` (Ellipsis) stands for none: a value has to be given.
    """

    kind: Any
    default: Any
    help: str = ""


Fraction = Annotated[float, "from 0 to 1", lambda x: 0 <= x <= 1]
Threshold = Annotated[float, "from 0 to below 1", lambda x: 0 <= x < 1]
Inside = Annotated[float, "between 0 and 1", lambda x: 0 < x < 1]
Positive = Annotated[float, "above 0", lambda x: x > 0]
Amount = Annotated[float, "from 0 up", lambda x: x >= 0]
Count = Annotated[int, "above 0", lambda x: x > 0]
Natural = Annotated[int, "from 0 up", lambda x: x >= 0]
UpTo5 = Annotated[int, "from 0 to 5", lambda x: 0 <= x <= 5]
Splits = str | list[str]
Precision = Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"]
LossName = Annotated[str, "(the class of a loss)", bool]


def fit(value: Any, kind: Any) -> Any:
    """The value as that type: 1 becomes the number 1.0, a tuple a list, 7 the text "7".

    A type that is not understood lets everything through. ValueError: expected what, got what.
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        for choice in sorted(args, key=lambda x: (type(value) is not x, x is str)):
            with suppress(ValueError):
                return fit(value, choice)
    elif origin is Annotated:
        with suppress(ValueError):
            value = fit(value, args[0])
            if args[2](value):
                return value
    elif origin is Literal:
        if any(value == x and type(value) is type(x) for x in args):
            return value
        raise ValueError(f"{_expected(value, kind)}{near(str(value), map(str, args))}")
    elif origin in (list, tuple, Sequence):
        count = len(args) if origin is tuple and ... not in args else None
        if isinstance(value, list | tuple) and count in (None, len(value)):
            return [fit(x, args[0]) for x in value]
    elif kind in (float, str) and type(value) is int:
        return kind(value)
    elif kind not in (bool, int, float, str, NoneType) or type(value) is kind:
        return value
    raise ValueError(_expected(value, kind))


def _expected(value: Any, kind: Any) -> str:
    return f"expected {words(kind)}, got {show(value)}"


def words(kind: Any) -> str:
    """The type as a user reads it: `a list of 2, each a whole number above 0`."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(map(words, args))
    if origin is Annotated:
        return f"{words(args[0])} {args[1]}"
    if origin is Literal:
        return "one of " + ", ".join(map(show, args))
    if origin is tuple and ... not in args:
        return f"a list [...] of {len(args)}, each {words(args[0])}"
    if origin in (list, tuple, Sequence):
        return f"a list [...], each {words(args[0])}"
    names = {int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}
    return names.get(kind, "text")


def show(value: Any) -> str:
    """The value as one types it, on one line."""
    plain = isinstance(value, str) and value.isprintable() and value
    return value if plain else json.dumps(value, default=str)


def near(word: str, choices: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing when nothing is near."""
    names = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(word.lower(), names, 1, 0.5)
    return f"; did you mean '{names[found[0]]}'?" if found else ""
