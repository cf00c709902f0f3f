"""The grammar of all programs: options, lists, help, usage, and mistakes that are told at once."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import eval as evaluation
import train
from detector.config.command_line import parse_options
from detector.config.errors import UserError
from detector.config.types import Count, Natural, Option
from scripts import ablate, compare, gradient_density, predict, voc2coco

ROOT = Path(__file__).parents[1]


PROGRAM_OPTIONS = {
    "first": Option(str, ...),
    "others": Option(list[str], []),
    "--out": Option(str | None, None),
    "--count": Option(Count, 3),
    "--fast": Option(bool, False),
    "--seeds": Option(list[Natural], [0]),
    "--vary": Option(list[list[str]], []),
}


def options(*words: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Program options that differ from their defaults, and overrides."""
    short = {"--loss": "--vary model.class_loss", "--beta": "--postprocess.beta"}
    given, overrides = parse_options(
        words, usage="", program_options=PROGRAM_OPTIONS, short=short, sections=("postprocess",)
    )
    defaults = {name.removeprefix("--"): x.default for name, x in PROGRAM_OPTIONS.items()}
    return {k: v for k, v in given.items() if v != defaults.get(k, [])}, overrides


def test_the_grammar_of_programs() -> None:
    assert options("a") == ({"first": "a"}, {})
    assert options("a", "b", "--out", "x", "c") == (
        {"first": "a", "others": ["b", "c"], "out": "x"},
        {},
    )
    assert options("--fast", "a", "--count=7") == ({"first": "a", "fast": True, "count": 7}, {})
    assert options("a", "--seeds", "1", "2", "--out", "null") == (
        {"first": "a", "seeds": [1, 2]},
        {},
    )
    words = ["a", "--vary", "seed", "1", "2", "--loss", "GHMC", "{name: GHMC}", "--vary", "x", "y"]
    axes = [["seed", "1", "2"], ["model.class_loss", "GHMC", "{name: GHMC}"], ["x", "y"]]
    assert options(*words) == ({"first": "a", "vary": axes}, {})
    given, overrides = options("--config", "x.yaml", "a", "--beta", "2", "--config=y.yaml")
    assert given == {"first": "a", "config": ["x.yaml", "y.yaml"]}  # one word each, again and again
    assert overrides == {"postprocess.beta": 2}
    assert options("a", "--postprocess.class_agnostic", "--beta=2") == (
        {"first": "a"},
        {"postprocess.class_agnostic": True, "postprocess.beta": 2},
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "x"], "first must be given; see --help"),
        (["a", "--out", "--fast"], "--out needs a value: text or null"),
        (["a", "--out", "x", "--out", "y"], "--out is given twice"),
        (["a", "--seeds"], "--seeds needs a value: a whole number from 0 up"),
        (
            ["a", "--seeds", "0", "-1"],
            "--seeds (command line): expected a whole number from 0 up, got -1",
        ),
        (
            ["a", "--count", "1.5"],
            "--count (command line): expected a whole number above 0, got 1.5",
        ),
        (["a", "--fats"], "there is no --fats; did you mean '--fast'?"),
        (["a", "--zzz"], "there is no --zzz; --help lists all options"),
        (["a", "--sigma", "1"], "there is no --sigma; did you mean '--postprocess.sigma'?"),
        (["a", "--depth", "18"], "there is no --depth; --help lists all options"),
        (
            ["a", "--model.depth", "18"],
            "model.depth (command line): only postprocess can be changed",
        ),
        (["a", "--beta", "1", "--postprocess.beta", "2"], "postprocess.beta is given twice"),
        (["a", "--postprocess.nms"], "--postprocess.nms needs a value: one of hard, diou, soft"),
    ],
)
def test_a_mistake_in_a_programs_options(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        options(*words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["data.size", "data.classes", "data.short"])
def test_a_key_with_a_list_says_how_it_is_typed(key: str) -> None:
    with pytest.raises(UserError, match="unexpected '6': type lists of a key as --key '"):
        parse_options([f"--{key}", "5", "6"], usage="", program_options={})
    with pytest.raises(UserError, match="unexpected '6': type options as --key value"):
        parse_options([f"--{key}", "5", "--seed=5", "6"], usage="", program_options={})


def test_a_program_without_configuration_has_none_of_its_flags() -> None:
    arguments: dict[str, Any] = {"usage": "", "program_options": {"--seed": Option(Natural, 0)}}
    assert parse_options([], **arguments, sections=()) == ({"seed": 0}, {})
    for word in ("--config", "--model.depth", "--print_config"):
        with pytest.raises(UserError, match=f"there is no {word}"):
            parse_options([word, "x"], **arguments, sections=())


@pytest.mark.parametrize(
    "program", [train, evaluation, ablate, compare, gradient_density, predict, voc2coco]
)
def test_without_a_word_the_usage_is_shown(program: Any, capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        program.main([])
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.err == f"{program.USAGE}\n\n--help lists all options\n"
    assert printed.out == ""


def test_help_fits_two_screens(capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        train.main(["--help"])
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 2 * 50
    words = [line.split() for line in lines]
    assert ["FocalLoss", "alpha", "0.25,", "gamma", "2,"] in [line[:5] for line in words]
    assert ["--model.depth", "50", "layers"] in [line[:3] for line in words]
    assert ["--print_config", "print"] in [line[:2] for line in words]  # a switch has no default


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("train", ["--model.dept", "18"]),
        ("train", ["--model.class_loss.gama", "1"]),
        ("eval", ["nowhere", "--nms", "diou"]),
        ("scripts.ablate", ["--class_loss", "FocalLos", "GHMC"]),
        ("scripts.compare", ["nowhere"]),
        ("scripts.gradient_density", ["nowhere"]),
        ("scripts.predict", ["nowhere", "image.jpg", "--out", "out", "--scor", "1"]),
        ("scripts.voc2coco", ["nowhere", "train"]),
    ],
)
def test_errors_come_before_torch_is_imported(program: str, words: list[str]) -> None:
    """Within half a second of computing (here a tenth to a third)."""
    code = f"""
import importlib, sys, time
try:
    importlib.import_module({program!r}).main({words!r})
except SystemExit as stop:
    print(stop.code, "torch" in sys.modules, time.process_time() < 0.5)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.stdout.strip() == "2 False True"
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
