"""Every file is written whole or not at all, and none over one that is not ours."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from detector.config.errors import UserError
from detector.config.files import RECORD, Outputs, safe_name, write


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.json"
    write(path, "old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"metrics\.json.*No space left.*make space"):
        write(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def test_a_folder_in_the_way_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="folder"):
        write(tmp_path, "text")
    assert not list(tmp_path.parent.glob("*.partial"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="file"):
        write(tmp_path / "file" / "inner", "text")


def test_a_file_has_the_usual_permissions(tmp_path: Path) -> None:
    write(tmp_path / "a", "text")
    (tmp_path / "b").write_text("text")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_only_files_of_the_record_are_replaced(tmp_path: Path) -> None:
    record = tmp_path / RECORD
    ours, theirs = tmp_path / "ours.png", tmp_path / "theirs.png"
    Outputs(record).claim(ours)
    ours.write_text("1")
    Outputs(record).claim(ours)  # written by us, so it may be written again
    theirs.write_text("x")
    with pytest.raises(UserError, match=r"theirs\.png exists and was not written"):
        Outputs(record).claim(ours, theirs)
    assert json.loads(record.read_text()) == [str(ours)]


def test_nothing_is_claimed_where_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("x")
    with pytest.raises(UserError):
        Outputs(tmp_path / RECORD).claim(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / RECORD).exists()


def test_a_dead_link_is_a_file_of_somebody(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="exists"):
        Outputs(None).claim(tmp_path / "link")


@pytest.mark.parametrize("parent", ["file", "file/inner"])
def test_a_file_in_the_place_of_a_folder(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file, not a folder"):
        Outputs(None).claim(tmp_path / parent / "out.json")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0.jpg", "0.jpg"),
        ("sub/0.jpg", "sub/0.jpg"),
        ("../val/0.jpg", "val/0.jpg"),
        ("/data/val/0.jpg", "data/val/0.jpg"),
        ("C:\\images\\0.jpg", "images/0.jpg"),
        ("sub\\0.jpg", "sub/0.jpg"),
        ("a/../../b.jpg", "a/b.jpg"),
        ("..", "unnamed"),
    ],
)
def test_names_stay_in_their_folder(name: str, expected: str) -> None:
    assert safe_name(name) == expected
