"""No command writes over a file that it did not make, whatever is typed."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eval as evaluation
import train
from scripts import (
    ablate,
    check_data,
    download,
    export,
    gradient_density,
    plot_embeddings,
    plot_losses,
    predict,
    search,
    voc2coco,
)

Command = Callable[[Path, Path, str], Any]  # run, data folder, where to write to
COMMANDS: dict[str, Command] = {
    "eval.py": lambda run, data, out: evaluation.main([str(run), "--out", out]),
    "predict.py of a split": lambda run, data, out: predict.main(
        [str(run), "--split", "val", "--count", "6", "--out", out]
    ),
    "predict.py of a folder": lambda run, data, out: predict.main(
        [str(run), str(data / "val"), "--out", out]
    ),
    "predict.py with labels and crops": lambda run, data, out: predict.main(
        [str(run), str(data / "val"), "--out", out, "--crops", "--format", "yolo", "--score", "0"]
    ),
    "voc2coco.py": lambda run, data, out: voc2coco.main([str(data / "voc"), "train", "--out", out]),
    "ablate.py": lambda run, data, out: ablate.main(
        [
            *["--class_loss", "FocalLoss", "GHMC", "--data.format", "coco"],
            "--data.root",
            str(data),
            "--out",
            out,
        ]
    ),
    "search.py": lambda run, data, out: search.main(
        [
            *[
                str(run.parent / "headed"),
                "--query",
                str(next((data / "val").glob("*.jpg"))),
                "--out",
                out,
            ],
            *["--gallery", str(data / "val"), "--box", "1", "1", "20", "20"],
        ]
    ),
    "plot_embeddings.py": lambda run, data, out: plot_embeddings.main(
        ["--out", out, "--steps", "1", "--images", "8"]
    ),
    "ablate.py for slurm": lambda run, data, out: ablate.main(
        [
            *["--class_loss", "FocalLoss", "GHMC", "--data.format", "coco", "--engine", "slurm"],
            *["--data.root", str(data), "--out", out],
        ]
    ),
    "gradient_density.py": lambda run, data, out: gradient_density.main([str(run), "--out", out]),
    "check_data.py": lambda run, data, out: check_data.main(
        ["--data.root", str(data), "--data.format", "coco", "--out", out]
    ),
    "download.py": lambda run, data, out: download.main(
        ["voc2007", "--to", out, "--mirror", "http://127.0.0.1:9"]
    ),
    "export.py": lambda run, data, out: export.main(
        [str(run), "--format", "torch", "--images", "1", "--out", out]
    ),
    "plot_losses.py": lambda run, data, out: plot_losses.main(["--out", out]),
    "train.py": lambda run, data, out: train.main(
        ["--config", str(run / "config.yaml"), "--data.root", str(data), "--run", out]
    ),
}
WRITING = {path.name for path in Path(train.__file__).parent.glob("scripts/*.py")} - {"compare.py"}


def test_every_command_that_writes_is_here() -> None:
    """scripts/compare.py only prints; scripts/benchmark writes to folders for temporary files."""
    named = {name.split()[0] for name in COMMANDS}
    assert named == {"train.py", "eval.py", *WRITING}


@pytest.fixture(scope="module")
def spare(run: Path, headed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run, whose folder remembers what was written; beside it, one with the embedding
    head."""
    folder = tmp_path_factory.mktemp("spare")
    shutil.copytree(headed, folder / "headed")
    return Path(shutil.copytree(run, folder / "run"))


@pytest.fixture
def data(tmp_path: Path, shapes: Path) -> Path:
    """A copy of the data of the run, and a little VOC folder in it."""
    root = tmp_path / "data"
    shutil.copytree(shapes, root)
    voc = root / "voc"
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (voc / folder).mkdir(parents=True)
    image = next((root / "val").iterdir())
    shutil.copy(image, voc / "JPEGImages" / "1.jpg")
    (voc / "ImageSets" / "Main" / "train.txt").write_text("1\n")
    (voc / "Annotations" / "1.xml").write_text("<annotation/>")
    for folder in (".", "val", "annotations"):  # the names of figures, which take long to draw
        for name in ("focal.png", plot_embeddings.MARGINS):
            (root / folder / name).write_text("somebody's own")
    return root


def content(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("place", ["val", "annotations", "annotations/instances_val.json", "."])
def test_data_folders_are_read_only_to_us(
    name: str, place: str, spare: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(data)
    code = 0
    try:
        COMMANDS[name](spare, data, str(data / place))
    except SystemExit as error:
        code = int(error.code or 0)
    errors = capsys.readouterr().err
    assert code in (0, 2), errors
    assert code == 0 or errors.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in errors
    after = content(data)
    assert {key: after.get(key) for key in before} == before
