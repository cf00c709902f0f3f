"""Types of options: what a value must be, how it is converted, how it is told to a user."""

import difflib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin


class Option(NamedTuple):
    """One option of a configuration or of a program.

    `kind` is the type that a value must have: int, float | None, list[str], Literal["a", "b"], or
    Annotated[type, words, test], where the test must hold as well and the words say what it asks.
    The default `...` (Ellipsis) means that a value must be given.
    """

    kind: Any
    default: Any
    help: str = ""


Fraction = Annotated[float, "from 0 to 1", lambda x: 0 <= x <= 1]
Threshold = Annotated[float, "from 0 to below 1", lambda x: 0 <= x < 1]
OpenUnit = Annotated[float, "between 0 and 1", lambda x: 0 < x < 1]
Positive = Annotated[float, "above 0", lambda x: x > 0]
NonNegative = Annotated[float, "from 0 up", lambda x: x >= 0]
Count = Annotated[int, "above 0", lambda x: x > 0]
Natural = Annotated[int, "from 0 up", lambda x: x >= 0]
Seed = Annotated[int, "from 0 to 4294967295", lambda x: 0 <= x < 2**32]  # what numpy takes
Draws = Annotated[int, "from 2 up", lambda x: x >= 2]  # a single one has no spread
ZeroToFive = Annotated[int, "from 0 to 5", lambda x: 0 <= x <= 5]
Splits = str | Annotated[list[str], "(one or more)", bool]
# the "-true" kinds of Lightning would round the boxes of a batch to half precision
Precision = Literal["32-true", "bf16-mixed", "16-mixed", "auto"]
Width = Annotated[int, "from 8 up", lambda x: x >= 8]  # of fewer, torch's kernels corrupt memory
LossName = Annotated[str, "(the class of a loss)", bool]
LossList = Annotated[
    Any, "a loss, or a list of losses", lambda x: isinstance(x, str | dict | list) and x != ""
]


def coerce(value: Any, kind: Any) -> Any:
    """The value converted to a type: 1 to the number 1.0, a tuple to a list, 7 to the text "7".

    Types that are not among those of `Option` accept every value. Raises ValueError, whose text
    says what was expected and what was given.
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if type(value) in args:
            return value
        for choice in sorted(args, key=lambda choice: choice is str):  # text would take any number
            with suppress(ValueError):
                return coerce(value, choice)
    elif origin is Annotated:
        with suppress(ValueError):
            value = coerce(value, args[0])
            if args[2](value):
                return value
    elif origin is Literal:
        if any(value == x and type(value) is type(x) for x in args):
            return value
        raise ValueError(f"{_expected(value, kind)}{did_you_mean(str(value), map(str, args))}")
    elif origin in (list, tuple, Sequence):
        length = len(args) if origin is tuple and ... not in args else None
        if isinstance(value, list | tuple) and length in (None, len(value)):
            return [coerce(x, args[0]) for x in value]
    elif kind in (float, str) and type(value) is int:
        return kind(value)
    elif kind not in (bool, int, float, str, NoneType) or type(value) is kind:
        return value
    raise ValueError(_expected(value, kind))


def _expected(value: Any, kind: Any) -> str:
    return f"expected {describe_type(kind)}, got {format_value(value)}"


def describe_type(kind: Any) -> str:
    """The type in a user's words: `a list [...] of 2, each a whole number above 0`."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(map(describe_type, args))
    if origin is Annotated:
        return args[1] if args[0] is Any else f"{describe_type(args[0])} {args[1]}"
    if origin is Literal:
        return "one of " * (len(args) > 1) + ", ".join(map(format_value, args))
    if origin is tuple and ... not in args:
        return f"a list [...] of {len(args)}, each {describe_type(args[0])}"
    if origin in (list, tuple, Sequence):
        return f"a list [...], each {describe_type(args[0])}"
    names = {int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}
    return names.get(kind, "text")


def format_value(value: Any) -> str:
    """The value as a user would type it, on one line."""
    is_plain = isinstance(value, str) and value.isprintable() and value
    return value if is_plain else json.dumps(value, default=str)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the nearest choice, or nothing where none is near.

    A choice of several parts that ends in the word is the nearest: model.depth of depth.
    """
    word = word.lower().lstrip("-")
    names = {choice.lower().lstrip("-"): choice for choice in choices}
    nearest = [name for name in names if name.endswith(f".{word}")]
    nearest = nearest or difflib.get_close_matches(word, names, 1, 0.5)
    return f"; did you mean '{names[nearest[0]]}'?" if nearest else ""
