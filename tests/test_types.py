"""Values are converted to the type of their option, or refused in one line."""

from typing import Any, Literal

import pytest

from detector.config.types import (
    Count,
    Fraction,
    LossName,
    Splits,
    coerce,
    describe_type,
    did_you_mean,
    format_value,
)


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (1, float, 1.0),
        (7, str, "7"),
        (7, int | str, 7),
        (7, float | int, 7),
        (7, str | float, 7.0),  # text comes last, as it would take every number
        (7, str | None, "7"),
        (None, float | None, None),
        (("a", "b"), list[str], ["a", "b"]),
        ((8, 9), tuple[Count, Count], [8, 9]),
        (["a"], Splits, ["a"]),
        (0, Fraction, 0.0),
        (320, Count | list[Count], 320),
        ([320], Count | list[Count], [320]),
        (18, Literal[18, 34], 18),
        ("anything", Any, "anything"),
    ],
)
def test_a_value_is_converted(value: Any, kind: Any, expected: Any) -> None:
    result = coerce(value, kind)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (True, int, "expected a whole number, got true"),
        (1.5, int, "expected a whole number, got 1.5"),
        ("0", float, "expected a number, got 0"),
        (1, bool, "expected true or false, got 1"),
        (2, Fraction, "expected a number from 0 to 1, got 2"),
        ([1, 2, 3], tuple[int, int], "expected a list [...] of 2, each a whole number, got [1, 2,"),
        ([1, "x"], list[int], "expected a whole number, got x"),
        (1, list[int], "expected a list [...], each a whole number, got 1"),
        ("hrad", Literal["hard", "soft"], "one of hard, soft, got hrad; did you mean 'hard'?"),
        (True, Literal[1, 2], "expected one of 1, 2, got true"),
        ("", LossName, 'expected text (the class of a loss), got ""'),
    ],
)
def test_another_value_is_refused(value: Any, kind: Any, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        coerce(value, kind)
    assert message in str(caught.value)


def test_types_and_values_in_a_users_words() -> None:
    assert describe_type(Count | list[Count] | None) == (
        "a whole number above 0 or a list [...], each a whole number above 0 or null"
    )
    assert format_value("two words") == "two words"
    assert format_value(["a", None, 1e-3]) == '["a", null, 0.001]'
    assert format_value("two\nlines") == '"two\\nlines"'


def test_the_nearest_choice() -> None:
    names = ["model.depth", "model.width", "seed"]
    assert did_you_mean("depth", names) == "; did you mean 'model.depth'?"
    assert did_you_mean("--Sed", ["--seed"]) == "; did you mean '--seed'?"
    assert did_you_mean("zzz", names) == ""
