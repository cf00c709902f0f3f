import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml

import eval as evaluation
import train
from data.dataset import Images
from data.options import FORMATS, Options
from data.transforms import Augmentation, InputSize
from detector.anchors import AnchorGenerator
from detector.backbone import Backbone
from detector.config.command_line import parse, parse_options
from detector.config.errors import UserError, one_line_errors
from detector.config.options import OPTIONS
from detector.config.resolve import load, resolve, save
from detector.config.types import Count, Natural, Option, coerce
from detector.matching import match
from detector.module import Detector
from detector.nms import Suppression
from detector.optimization import make_optimizer
from detector.postprocess import Postprocess
from detector.retinanet import RetinaNet
from detector.runs.assemble import make_loss
from scripts import ablate, compare, gradient_density, predict, voc2coco

ROOT = Path(__file__).parents[1]


def tree(*words: str) -> dict[str, Any]:
    return parse(words, usage="")[0]


def file(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_defaults_are_complete() -> None:
    config = resolve()
    assert config["model"]["class_loss"] == {
        "name": "FocalLoss",
        "alpha": 0.25,
        "gamma": 2.0,
        "class_weights": None,
        "weight": 1.0,
    }
    assert config["trainer"]["max_epochs"] == 12


def test_later_files_win_key_by_key_and_the_command_line_beats_every_file(tmp_path: Path) -> None:
    a = file(tmp_path / "a.yaml", "optimizer: {lr: 1e-3, momentum: 0.5}\nseed: 3")
    b = file(tmp_path / "b.yaml", "optimizer: {lr: 0.2}")
    config = tree("--seed", "7", "--config", a, "--config", b)
    assert config["seed"] == 7
    assert config["optimizer"]["lr"] == 0.2
    assert config["optimizer"]["momentum"] == 0.5
    assert tree("--config", b, "--config", a)["optimizer"]["lr"] == 0.001


def test_naming_another_class_resets_its_arguments(tmp_path: Path) -> None:
    a = file(tmp_path / "a.yaml", "model: {class_loss: {name: FocalLoss, weight: 5, gamma: 1}}")
    b = file(tmp_path / "b.yaml", "model: {class_loss: SigmoidCrossEntropy}")
    expected = {"name": "SigmoidCrossEntropy", "label_smoothing": 0.0, "class_weights": None}
    expected |= {"weight": 1.0}
    assert tree("--config", a, "--config", b)["model"]["class_loss"] == expected
    flag = ("--model.class_loss", "SigmoidCrossEntropy")
    assert tree("--config", a, *flag)["model"]["class_loss"] == expected
    assert tree(*flag, "--config", a)["model"]["class_loss"] == expected


def test_naming_the_same_class_keeps_its_arguments(tmp_path: Path) -> None:
    a = file(tmp_path / "a.yaml", "model: {class_loss: {name: FocalLoss, gamma: 1}}")
    assert (
        tree("--config", a, "--model.class_loss", "FocalLoss")["model"]["class_loss"]["gamma"] == 1
    )


def test_the_order_of_flags_does_not_matter() -> None:
    words = ("--model.box_loss", "GIoULoss"), ("--model.box_loss.weight", "2")
    assert tree(*words[0], *words[1]) == tree(*words[1], *words[0])


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--modle.depth", "18"], ["no --modle.depth", "did you mean '--model.depth'"]),
        (["--depth", "18"], ["did you mean '--model.depth'"]),
        (["--model.dept", "18"], ["did you mean 'depth'"]),
        (["--model.class_loss", "FocalLos"], ["did you mean 'FocalLoss'", "SigmoidCrossEntropy"]),
        (
            ["--model.class_loss.gama", "1"],
            ["did you mean 'gamma'", "alpha, gamma, class_weights, weight"],
        ),
        (["--model.class_loss.gamma", "big"], ["gamma", "a number", "big"]),
        (["--model.class_loss", "GIoULoss"], ["box_loss"]),
        (["--trainer.max_epoch", "2"], ["did you mean 'max_epochs'"]),
        (["--trainer.logger", "x"], ["train.py sets this itself"]),
        (["--model.depth", "20"], ["18", "152"]),
        (["--model.depth", "10", "--model.weights", "imagenet"], ["no imagenet weights", "10"]),
        (["--data.size", "320"], ["a list", "320"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
        (["stray"], ["stray"]),
    ],
)
def test_a_mistake_is_one_line(words: list[str], parts: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught, one_line_errors():
        tree(*words)
    assert caught.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert all(part in lines[0] for part in parts), lines[0]


def test_a_mistake_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = file(tmp_path / "mine.yaml", "model: {dept: 18}")
    with pytest.raises(UserError, match=r"mine\.yaml"):
        tree("--config", path)


def test_a_key_twice_in_a_file_is_an_error(tmp_path: Path) -> None:
    path = file(tmp_path / "mine.yaml", "seed: 1\nseed: 2")
    with pytest.raises(UserError, match="twice"):
        tree("--config", path)


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


def test_a_missing_package_is_one_line(capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught, one_line_errors():
        import package_that_nobody_has  # noqa: F401
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "package_that_nobody_has is not installed" in message
    assert "activate" in message


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


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_config_parses_and_opens_with_a_comment(path: Path) -> None:
    assert path.read_text().startswith("# ")
    tree("--config", str(path))


def test_a_saved_tree_reads_back_equal_and_print_config_prints_it(
    tmp_path: Path, capsys: Any
) -> None:
    config = tree("--model.box_loss", "GIoULoss", "--seed", "4")
    save(config, tmp_path / "config.yaml")
    assert load(tmp_path / "config.yaml") == config
    with pytest.raises(SystemExit):
        tree("--model.box_loss", "GIoULoss", "--seed", "4", "--print_config")
    assert yaml.safe_load(capsys.readouterr().out) == config


def test_a_users_own_loss(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "my_losses.py").write_text(
        "from losses import FocalLoss\n\n"
        "class Mine(FocalLoss):\n"
        "    def __init__(self, sharp: float = 3.0, weight: float = 1.0) -> None:\n"
        "        super().__init__(gamma=sharp, weight=weight)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = tree("--model.class_loss", "my_losses.Mine", "--model.class_loss.sharp", "4")
    assert spec["model"]["class_loss"] == {"name": "my_losses.Mine", "sharp": 4.0, "weight": 1.0}
    assert make_loss(spec["model"]["class_loss"]).gamma == 4.0


def test_overrides_of_code_are_those_of_the_command_line(tmp_path: Path) -> None:
    path = file(tmp_path / "a.yaml", "model: {class_loss: {name: FocalLoss, gamma: 1}, depth: 18}")
    words = ["--config", path, "--model.class_loss", "{name: GHMC, bins: 20}", "--seed", "3"]
    loss = {"name": "GHMC", "bins": 20}
    assert resolve([path], {"model.class_loss": loss, "seed": 3}) == tree(*words)
    flat = {"model.class_loss": "GHMC", "model.class_loss.bins": 20, "seed": 3}
    assert resolve([path], flat) == tree(*words)
    with pytest.raises(UserError, match=r"model.dept \(overrides\): model has no 'dept'"):
        resolve([path], {"model.dept": 18})
    with pytest.raises(UserError, match=r"model\.class_loss\.bins is given twice"):
        resolve([path], {"model.class_loss": loss, "model.class_loss.bins": 30})


# What a configuration gives, and other names for its keys
RECEIVERS: list[tuple[Any, str, dict[str, str]]] = [
    (Options, "data", {}),
    (InputSize, "data", {}),
    (Augmentation, "data", {}),
    (Images, "data", {}),
    (Backbone, "model", {}),
    (RetinaNet, "model", {}),
    (AnchorGenerator, "model.anchors", {}),
    (match, "model.match", {}),
    (Suppression, "postprocess", {"kind": "nms"}),
    (Postprocess, "postprocess", {"top_k": "candidates"}),
    (Detector.compile_parts, "speed", {"parts": "compile"}),
    (make_optimizer, "optimizer", {}),
]


@pytest.mark.parametrize(("receiver", "section", "renamed"), RECEIVERS)
def test_defaults_and_choices_are_those_of_the_table(
    receiver: Any, section: str, renamed: dict[str, str]
) -> None:
    """A default that a signature repeats for those who call it without a configuration."""
    for name, parameter in inspect.signature(receiver, eval_str=True).parameters.items():
        key = f"{section}.{renamed.get(name, name)}"
        if key not in OPTIONS:
            continue
        option = OPTIONS[key]
        if parameter.default is not inspect.Parameter.empty:
            assert coerce(parameter.default, option.kind) == option.default, key
        if get_origin(parameter.annotation) is Literal:
            assert get_args(parameter.annotation) == get_args(option.kind), key


def test_the_keys_of_a_section_are_what_its_receiver_takes() -> None:
    for receiver, section in ((Options, "data"), (AnchorGenerator, "model.anchors")):
        keys = {key.rpartition(".")[2] for key in OPTIONS if key.startswith(f"{section}.")}
        assert keys == set(inspect.signature(receiver).parameters)
    assert set(FORMATS) == set(get_args(OPTIONS["data.format"].kind))


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
