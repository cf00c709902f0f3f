"""What the README and the pages show is run, in order, on little data for an epoch or two."""

import re
import shutil
from pathlib import Path

import pytest

from data.identities import draw_identities
from data.shapes import draw_dataset
from tests.test_commands import ROOT, RUNS, fill_in, import_program

PAGES = ("README.md", "data.md", "training.md", "evaluation.md", "ablation.md", "export.md")
PAGES += ("recognition.md",)
ELSEWHERE = ("download.py", "tensorboard", "make", "torchrun", "srun")  # needs a network, or nodes
LITTLE = ["--data.format", "coco", "--data.size", "[96, 96]"]
LITTLE += ["--data.workers", "0", "--data.cache", "false", "--trainer.accelerator", "cpu"]
LITTLE += ["--model.width", "8", "--model.channels", "16", "--model.norm", "group"]


def shown(page: str) -> list[list[str]]:
    """The words of the commands in the code blocks of a page, the program first."""
    path = ROOT / page if page == "README.md" else ROOT / "docs" / page
    blocks = re.findall(r"^ *```\n(.*?)```", path.read_text(encoding="utf-8"), re.S | re.M)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    ours = [line for line in lines if line.startswith("python ")]
    return [fill_in(line)[1:] for line in ours if not any(word in line for word in ELSEWHERE)]


@pytest.fixture
def place(run: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the configurations, an image, and little data sets under the names that the
    pages use."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    sets = tmp_path / "datasets"
    for name in ("mine", "shapes"):
        shutil.copytree(shapes, sets / name)
    draw_dataset(sets / "other", train=1, val=6, size=96, seed=1)
    draw_identities(sets / "identities", train=24, val=8, size=96)
    (sets / "other" / "val").rename(sets / "other" / "test")
    files = sets / "other" / "annotations"
    (files / "instances_val.json").rename(files / "instances_test.json")
    shutil.copy(next((sets / "identities" / "val").glob("*.jpg")), tmp_path / "image.jpg")
    return tmp_path


def shorten(words: list[str]) -> list[str]:
    """The same command on little data, for an epoch or two, with one seed and few channels."""
    text = " ".join(words)
    words = [re.sub(r"^(IMAGE_OR_FOLDER\w*|DIR)$", "datasets/mine", word) for word in words]
    words = ["image.jpg" if word == "IMAGE" else word for word in words]
    for flag, few in (("--trainer.max_epochs", ["2"]), ("--seeds", ["0"])):
        if flag in words:
            start = words.index(flag) + 1
            rest = range(start, len(words))
            words[start : next((k for k in rest if words[k][:2] == "--"), len(words))] = few
    if words[0] == "eval.py" or "best" in words:  # nothing that learned so little is sure of more
        return [*words, "--postprocess.score_threshold", "0.001"]
    if words[0] == "scripts/search.py":
        return [*words, "--box", "1", "1", "20", "20"]
    if words[0] not in ("train.py", "scripts/ablate.py") or "--resume" in words:
        return words
    recognizes = "identities.yaml" in text or "people.yaml" in text
    root = "datasets/identities" if recognizes else "datasets/mine"
    if "--data.root" in words:
        words[words.index("--data.root") + 1] = root
    else:
        words += ["--data.root", root]
    more = [] if "--trainer.max_epochs" in text else ["--trainer.max_epochs", "1"]
    batch = ["--data.batch_size", "8" if recognizes else "4"]
    return [*words, *more, *batch, *LITTLE]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page: str, place: Path, run: Path) -> None:
    commands = [shorten(words) for words in shown(page)]
    assert commands
    made = [words[words.index("--run") + 1] for words in commands if "--run" in words]
    for name in RUNS:
        if name not in made:
            shutil.copytree(run, place / "runs" / name)
    for words in commands:
        import_program(words[0]).main(words[1:])
