"""Every command that usages, the README, docs and configs show can be typed: it is parsed for real.

Placeholders such as RUN and FILE are filled in; nothing is run.
"""

import argparse
import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from detector.ablation.grid import make_cells
from detector.config.errors import EXTRAS, UserError, not_installed
from detector.config.options import OPTIONS
from detector.config.resolve import resolve, save

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = [
    *ROOT.glob("scripts/*.py"),
    *(main.parent for main in ROOT.glob("scripts/*/__main__.py")),
]
PROGRAMS = ["train.py", "eval.py", "data/shapes.py", *sorted(f"scripts/{x.name}" for x in SCRIPTS)]
RUNS = ("first", "second", "third", "mine", "other", "demo", "focal", "ghm", "identities")
RUNS += tuple(f"{name}_{seed}" for name in ("focal", "ghm", "a", "b") for seed in range(3))
SECTIONS = {key.split(".")[0] for key in OPTIONS}
BEGINNINGS = [
    ["train.py", "--config", "configs/retinanet_r18.yaml"],
    ["scripts/ablate.py", "--config", "configs/shapes.yaml", "--class_loss", "FocalLoss"],
    ["eval.py", "first"],
]
FILLED_IN = {
    **{"FILE": "configs/shapes.yaml", "OVERLAY": "configs/cpu.yaml", "N": "2"},
    **{"RUN": "first", "RUN_A": "first", "RUN_B": "second", "A": "FocalLoss", "B": "GHMC"},
    **{"NAME": "first", "KEY": "data.label_noise", "VALUE": "0", "BENCHMARK": "step"},
    "[P, K]": "[4, 2]",
}


def fill_in(text: str) -> list[str]:
    """The words of a command as somebody could type it: [--optional parts] are typed, of a|b the
    first, ... means nothing further, and what follows a pipe is not ours."""
    text = text.split(" | ")[0]
    text = re.sub(r"\[(--[^\]]*)\]", r"\1", text)
    text = text.replace("class_loss …", "class_loss GHMC").replace("box_loss …", "box_loss L1Loss")
    text = text.replace("VALUE VALUE", "0 0.2").replace("--key value", "").replace("...", "")
    words = [re.sub(r"^([A-Za-z]+)\|.*", r"\1", word) for word in shlex.split(text, comments=True)]
    return [FILLED_IN.get(word, word) for word in words if not re.match(r"[A-Z_]+=", word)]


def blocks_and_spans(page: Path) -> Iterator[str]:
    """Lines of code blocks, with their continuations, and code in the text of a page."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^ *```.*?\n(.*?)```", text, re.S | re.M):
        yield from block.replace("\\\n", " ").splitlines()
    for span in re.findall(r"`([^`]+)`", re.sub(r"^ *```.*?```", "", text, flags=re.S | re.M)):
        yield " ".join(span.split())


def shown() -> Iterator[tuple[str, str]]:
    """(where, text) of everything that may be a command."""
    for page in PAGES:
        yield from ((page.name, text.strip()) for text in blocks_and_spans(page))
    for config in sorted((ROOT / "configs").glob("*.yaml")):
        yield from ((config.name, x.strip("# ")) for x in config.read_text().splitlines())
    for recipe in (ROOT / "Makefile").read_text().splitlines():
        yield "Makefile", recipe.strip().removeprefix("$(BIN)/")
    for program in PROGRAMS:
        module = import_program(program)
        text = f"{module.__doc__}\n{getattr(module, 'USAGE', '')}"
        for line in re.sub(r"\\\n *", "", text).splitlines():
            if found := re.search(
                r"(?:^|  )(python .*?)(?:   .*)?$", line
            ):  # less what it explains
                yield program, found[1]


def import_program(program: str) -> ModuleType:
    """The module of `scripts/NAME.py`, or of the folder `scripts/NAME`."""
    name = program.removesuffix(".py").replace("/", ".")
    return importlib.import_module(f"{name}.__main__" if (ROOT / program).is_dir() else name)


def commands() -> list[tuple[str, list[str]]]:
    """(where, words) of every command; the first word is the program, or make."""
    start = r"([A-Z_]+=\S+ )*(python (?!-X|-c|-m p)|make |(train|eval)\.py (--|RUN)|scripts/\S+ )"
    launched = re.compile("(torchrun .* -- |srun )(?=python|train)")  # what starts the processes
    texts = [(where, launched.sub("", text)) for where, text in shown()]
    found = [(where, fill_in(text)) for where, text in texts if re.match(start, text)]
    return [(where, words[1:] if words[0] == "python" else words) for where, words in found]


def flags_alone() -> list[tuple[str, list[str]]]:
    """(where, words) of flags that the text shows without their program."""
    return [(where, fill_in(text)) for where, text in shown() if re.match(r"--\w", text)]


def parse_words(words: Sequence[str], out: Path) -> None:
    """Hands the words to the parser of their program."""
    if words[0] == "-m":
        words = [f"{words[1].replace('.', '/')}.py", *words[2:]]
    module = import_program(words[0])
    if words[0] == "scripts/ablate.py":
        options, axes, shared = module.parse_arguments(words[1:])
        make_cells(shared, axes, options["seeds"], out)
    elif hasattr(module, "parse_arguments"):
        module.parse_arguments(words[1:])
    else:
        parse_by_argparse(module, words[1:])


def parse_by_argparse(module: Any, words: Sequence[str]) -> None:
    """For a program whose main function parses its words: it is stopped once it has."""
    original = argparse.ArgumentParser.parse_args

    def parse_and_stop(*arguments: Any) -> None:
        original(*arguments)
        raise StopIteration

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        with pytest.raises(StopIteration):
            module.main(list(words))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the configs, the runs that examples name, and the README's own loss."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "configs").symlink_to(ROOT / "configs")
    for run in RUNS:
        save(resolve(), folder / "runs" / run / "config.yaml")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n +# my_losses.py\n(.*?)```", readme, re.S)
    (folder / "my_losses.py").write_text(re.sub(r"^   ", "", code, flags=re.M))
    return folder


COMMANDS, FLAGS = commands(), flags_alone()


def test_commands_are_found() -> None:
    places = {where for where, _ in COMMANDS}
    assert {"README.md", "training.md", "results.md", "shapes.yaml", *PROGRAMS[:2]} <= places
    assert len(COMMANDS) > 50


def test_examples_with_mistakes_are_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for text in (
        "train.py --config configs/nowhere.yaml",
        "train.py --config configs/shapes.yaml --model.class_loss.gama 1",
        "scripts/ablate.py --config FILE --class_loss A C",
        "eval.py RUN --nmss diou",
        "scripts/compare.py RUN_A",
    ):
        with pytest.raises(UserError):
            parse_words(fill_in(text), folder)


def name_of(example: Any) -> str | None:
    return " ".join(example)[:60] if isinstance(example, list) else None


@pytest.mark.parametrize(("where", "words"), COMMANDS, ids=name_of)
def test_a_command_is_understood(
    where: str, words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert words[1] in targets
    elif "--help" not in words:
        parse_words(words, folder)


def test_a_run_that_is_resumed_for_more_epochs_has_had_fewer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The README's had all of them, and answered that nothing was left to train."""
    monkeypatch.chdir(folder)
    epochs: dict[tuple[str, str], int] = {}
    checked = 0
    for where, words in COMMANDS:
        if words[0] == "train.py" and "--run" in words:
            config, _ = import_program("train.py").parse_arguments(words[1:])
            epochs[where, words[words.index("--run") + 1]] = config["trainer"]["max_epochs"]
        if "--resume" in words and "--trainer.max_epochs" in words:
            run, more = (words[words.index(f) + 1] for f in ("--resume", "--trainer.max_epochs"))
            assert epochs[where, run] < int(more), (where, words)
            checked += 1
    assert checked > 2


@pytest.mark.parametrize(("where", "words"), FLAGS, ids=name_of)
def test_flags_are_understood(
    where: str, words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the first program that has all of them; alone a flag needs no value."""
    monkeypatch.chdir(folder)
    for command in BEGINNINGS:
        if flags_of(import_program(command[0])).issuperset(filter(is_program_flag, words)):
            if len(words) > 1:
                parse_words([*command, *words], folder)
            return
    (flag, *_) = words
    files = [ROOT / program for program in PROGRAMS if (ROOT / program).is_file()]
    assert any(f'"{flag}"' in file.read_text() for file in files), flag


def is_program_flag(word: str) -> bool:
    """Whether a word is a flag, but none of the configuration."""
    return word.startswith("--") and word[2:].split(".")[0] not in SECTIONS


def flags_of(module: Any) -> set[str]:
    short = getattr(module, "SHORT", {})
    return {*getattr(module, "PROGRAM_OPTIONS", {}), *short, "--config", "--print_config", "--help"}


def test_extras_that_are_to_be_installed_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for module, extra in EXTRAS.items():
        packages = " ".join(project["optional-dependencies"][extra])
        assert module.replace("_", "-") in packages
        assert not_installed(f"{module}.part").endswith(f"pip install -e '.[{extra}]'")
    for where, text in shown():
        for extra in re.findall(r"pip install -e '\.\[(\w+)\]'", text):
            assert extra in project["optional-dependencies"], where
