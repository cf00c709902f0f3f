"""Damaged files and runs that do not fit: one line that names the file, and nothing has changed."""

import hashlib
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import eval as evaluation
import train
from scripts import compare, gradient_density, predict

Damage = Callable[[Path], object]


class Code:
    """A pickle that runs a command when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('the code of a checkpoint was run')",)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil_weights(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    next(v for k, v in content["state_dict"].items() if k.startswith("net.")).fill_(torch.nan)
    torch.save(content, path)


def without(path: Path, name: str) -> None:
    content = torch.load(path, weights_only=True)
    del content[name]
    torch.save(content, path)


DAMAGES: dict[str, Damage] = {
    "half": cut,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("<html>404</html>"),
    "another pickle": lambda path: path.write_bytes(pickle.dumps({"a": 1})),
    "a list": lambda path: torch.save([1, 2], path),
    "code": lambda path: path.write_bytes(pickle.dumps(Code())),
    "not finite": spoil_weights,
}
RESUMED = {
    "no optimizer": lambda path: without(path, "optimizer_states"),
    "no epoch": lambda path: without(path, "loops"),
}
COMMANDS: dict[str, Callable[[Path], object]] = {
    "train.py --resume": lambda run: train.main(["--resume", str(run)]),
    "eval.py": lambda run: evaluation.main([str(run), "--checkpoint", "last"]),
    "predict.py": lambda run: predict.main(
        [str(run), "--split", "val", "--checkpoint", "last", "--out", str(run.parent / "pictures")]
    ),
    "model.weights": lambda run: train.main(
        [
            *("--config", str(run / "config.yaml"), "--run", str(run.parent / "new")),
            *("--model.weights", str(run / "checkpoints" / "last.ckpt")),
        ]
    ),
}


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def content(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check_refusal(
    command: Callable[[], object], folder: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit status 2, the folder as before."""
    before = content(folder)
    with pytest.raises(SystemExit) as error:
        command()
    lines = capsys.readouterr().err.strip().splitlines()
    assert error.value.code == 2, lines
    assert lines[-1].startswith("error: ")
    assert part in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert content(folder) == before


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_damaged_checkpoint(
    name: str, damage: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    DAMAGES[damage](copy / "checkpoints" / "last.ckpt")
    check_refusal(lambda: COMMANDS[name](copy), copy, "last.ckpt", capsys)


@pytest.mark.parametrize("damage", RESUMED)
def test_a_checkpoint_that_is_no_training(
    damage: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RESUMED[damage](copy / "checkpoints" / "last.ckpt")
    check_refusal(lambda: train.main(["--resume", str(copy)]), copy, "no checkpoint of a", capsys)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--model.width", "16"], "another model"),
        (["--model.depth", "34"], "another model"),
        (["--model.channels", "32"], "another model"),
        (["--optimizer.name", "adamw"], "was trained by sgd"),
        (["--model.freeze", "2"], "trained weights"),
        (["--data.classes", "[ring, star, cross, disk, triangle, square]"], "in this order"),
        (["--data.classes", "[disk, ring]"], "was trained on the classes"),
    ],
)
def test_a_resume_that_cannot_go_on_changes_nothing(
    words: list[str], part: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_refusal(lambda: train.main(["--resume", str(copy), *words]), copy, part, capsys)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        *(("config.yaml", text) for text in ("{", "a: [b", "[]", "data: 3")),
        *(("metrics.json", text) for text in ("", "{", "[]", "{}")),
    ],
)
def test_a_damaged_file_of_a_run(
    file: str, text: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / file).write_text(text)
    check_refusal(lambda: train.main(["--resume", str(copy)]), copy, file, capsys)


@pytest.mark.parametrize("file", ["metrics.json", "detections.json"])
def test_a_damaged_evaluation(file: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "eval").mkdir(exist_ok=True)
    (copy / "eval" / "metrics.json").write_text("{}")
    (copy / "eval" / "detections.json").write_text("[]")
    (copy / "eval" / file).write_text("{'")
    check_refusal(lambda: compare.main([str(copy), str(copy) + "/."]), copy, file, capsys)


OPENING: dict[str, Callable[[Path], object]] = {
    "eval.py": lambda run: evaluation.main([str(run)]),
    "eval.py --nms all": lambda run: evaluation.main(
        [str(run), "--nms", "all", "--draws", "2", "--candidates", "20"]
    ),
    "predict.py": lambda run: predict.main(
        [str(run), "--split", "val", "--out", str(run.parent / "pictures")]
    ),
    "gradient_density.py": lambda run: gradient_density.main([str(run), "--checkpoint", "best"]),
    "model.weights": lambda run: train.main(
        [
            *("--config", str(run / "config.yaml"), "--run", str(run.parent / "new")),
            *("--model.weights", str(run), "--trainer.max_steps", "1"),
        ]
    ),
}


@pytest.mark.parametrize("name", OPENING)
def test_without_a_best_checkpoint_the_last_is_taken_and_named(
    name: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "checkpoints" / "best.ckpt").unlink()
    OPENING[name](copy)
    last = str(copy / "checkpoints" / "last.ckpt")
    (line,) = [line for line in "".join(capsys.readouterr()).splitlines() if last in line]
    assert line.startswith("weights: ") or "has no best checkpoint yet" in line
    (copy / "checkpoints" / "last.ckpt").unlink()
    shutil.rmtree(copy.parent / "new", ignore_errors=True)
    with pytest.raises(SystemExit):
        OPENING[name](copy)
    assert "there is no checkpoint" in capsys.readouterr().err
