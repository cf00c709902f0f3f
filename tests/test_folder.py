"""Names, paths and files of a run folder."""

import json
import os
from pathlib import Path

import pytest

from detector.config.errors import UserError
from detector.run.folder import (
    add_epoch,
    best_epoch,
    checkpoint_file,
    choose_run,
    existing_run,
    run_path,
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a run `old`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTOR_RUN", "")
    (tmp_path / "runs" / "old").mkdir(parents=True)
    (tmp_path / "runs" / "old" / "config.yaml").touch()
    return tmp_path


def test_a_name_lies_under_runs_and_a_path_where_it_says(place: Path) -> None:
    assert run_path("mine") == Path("runs/mine")
    assert run_path("else/mine") == Path("else/mine")
    assert run_path(str(place)) == place
    assert existing_run("old") == Path("runs/old")
    with pytest.raises(UserError, match=r"runs/mine is not a run: .*; there are: old"):
        existing_run("mine")


def test_a_training_writes_to_a_new_folder_or_the_resumed_one() -> None:
    assert choose_run("old", None, "stem", first=True) == Path("runs/old")
    assert choose_run(None, "mine", "stem", first=True) == Path("runs/mine")
    assert choose_run(None, None, "stem", first=True).name.startswith("stem_20")
    with pytest.raises(UserError, match="go on with it by --resume old"):
        choose_run(None, "old", "stem", first=True)


def test_further_processes_take_the_folder_of_the_first() -> None:
    run = choose_run(None, None, "stem", first=True)  # named after the time
    assert os.environ["DETECTOR_RUN"] == str(run)
    assert choose_run(None, None, "stem", first=False) == run


def test_epochs_are_kept_over_a_resume_and_the_best_is_that_of_the_highest_ap(place: Path) -> None:
    run = place / "runs" / "old"
    for epoch, ap in ((1, 0.2), (2, 0.5), (3, 0.3)):
        add_epoch(run, {"epoch": epoch, "val/AP": ap})
    assert best_epoch(run)["epoch"] == 2
    add_epoch(run, {"epoch": 2, "val/AP": 0.1})  # resumed after the first, it goes another way
    content = json.loads((run / "metrics.json").read_text())
    assert [line["epoch"] for line in content["epochs"]] == [1, 2]
    assert content["best"] == {"epoch": 1, "val/AP": 0.2}


def test_a_checkpoint_is_best_last_or_a_file(place: Path) -> None:
    run = Path("runs/old")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "best.ckpt").touch()
    (place / "other.ckpt").touch()
    assert checkpoint_file(run) == run / "checkpoints" / "best.ckpt"
    assert checkpoint_file(run, "other.ckpt") == Path("other.ckpt")
    (run / "checkpoints" / "best.ckpt").rename(last := run / "checkpoints" / "last.ckpt")
    assert checkpoint_file(run) == last
    last.rename(run / "checkpoints" / "best.ckpt")
    with pytest.raises(UserError, match=r"no checkpoint runs/old/checkpoints/last\.ckpt; .* best"):
        checkpoint_file(run, "last")
