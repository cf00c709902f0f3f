"""YAML files, flags and overrides -> one checked tree; a mistake is one line."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from detector.config.command_line import parse
from detector.config.errors import UserError, one_line_errors
from detector.config.resolve import load, resolve, save
from detector.run.assemble import make_loss

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


def test_several_losses_with_their_arguments(tmp_path: Path) -> None:
    assert resolve()["model"]["embedding_loss"] is None
    none = {"model.embedding.size": 8, "model.embedding_loss": []}  # a value of an ablation's axis
    assert resolve((), none)["model"]["embedding_loss"] == []
    text = "model: {embedding: {size: 8}, embedding_loss: TripletLoss}"
    path = file(tmp_path / "a.yaml", text)
    (triplet,) = tree("--config", path)["model"]["embedding_loss"]
    assert (triplet["name"], triplet["margin"]) == ("TripletLoss", 0.2)
    words = "[{name: CenterLoss, weight: 0.1}, SphereFaceLoss]"
    config = tree("--config", path, "--model.embedding_loss", words)
    center, sphere = config["model"]["embedding_loss"]  # the file's loss is gone
    assert center == {"name": "CenterLoss", "alpha": 0.5, "weight": 0.1}
    assert (sphere["name"], sphere["m"]) == ("SphereFaceLoss", 4)
    save(config, tmp_path / "config.yaml")
    assert load(tmp_path / "config.yaml") == config
    assert make_loss(center).weight == 0.1


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
        (["--model.embedding_loss", "FocalLoss"], ["FocalLoss is a ClassificationLoss"]),
        (["--model.embedding_loss", "ArcFace"], ["did you mean 'ArcFaceLoss'", "TripletLoss"]),
        (["--model.embedding_loss", "[{name: ArcFaceLoss, mm: 1}]"], ["no argument 'mm'", "s, m,"]),
        (["--model.embedding_loss", "{name: ArcFaceLoss, m: big}"], ["a number, got big"]),
        (["--model.embedding_loss", "[{m: 1}]"], ["embedding_loss.name: must be given"]),
        (["--model.embedding_loss", "7"], ["a loss, or a list of losses or null, got 7"]),
        (["--model.embedding_loss", "ArcFaceLoss"], ["needs the size of the vectors"]),
        (["--model.embedding.size", "128"], ["needs a loss, such as"]),
        (["--trainer.max_epoch", "2"], ["did you mean 'max_epochs'"]),
        (["--trainer.logger", "x"], ["train.py sets this itself"]),
        (["--model.depth", "20"], ["18", "152"]),
        (["--model.depth", "10", "--model.weights", "imagenet"], ["no imagenet weights", "10"]),
        (
            ["--data.class_weights", "1", "--model.class_loss", "GHMC"],
            ["data.class_weights", "needs a model.class_loss with class_weights (GHMC has none"],
        ),
        (
            ["--data.class_weights", "1", "--model.class_loss.class_weights", "[1, 2]"],
            ["data.class_weights", "class_weights are given as well: leave out one"],
        ),
        (["--data.size", "320"], ["a list", "320"]),
        (["--data.size", "[32, 32]", "--model.norm", "batch"], ["norm batch", "more than 32"]),
        (["--model.width", "4"], ["a whole number from 8 up", "4"]),
        (["--trainer.precision", "bf16-true"], ["32-true", "bf16-mixed"]),
        (["--trainer.gradient_clip_algorithm", "mean"], ["norm, value or null, got mean"]),
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


def test_a_section_may_be_empty_but_is_no_value(tmp_path: Path) -> None:
    empty = file(tmp_path / "empty.yaml", "data:\nmodel:\n  anchors:\ntrainer:\n")
    assert resolve([empty]) == resolve()
    wrong = file(tmp_path / "wrong.yaml", "model: {anchors: 3}")
    with pytest.raises(UserError, match=r"model\.anchors \(.*\): is a section \(sizes, ratios"):
        resolve([wrong])


def test_a_key_twice_in_a_file_is_an_error(tmp_path: Path) -> None:
    path = file(tmp_path / "mine.yaml", "seed: 1\nseed: 2")
    with pytest.raises(UserError, match="twice"):
        tree("--config", path)


def test_a_missing_package_is_one_line(capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught, one_line_errors():
        import package_that_nobody_has  # noqa: F401
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "package_that_nobody_has is not installed" in message
    assert "activate" in message
    assert "pip install -r requirements.txt" in message


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
