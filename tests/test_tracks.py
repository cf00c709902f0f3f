"""Identities: numbered, counted, checked; and in the data of a run."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data import DataError
from data.content import read_identity
from data.datamodule import DataModule
from data.identities import draw_identities
from data.split import Split
from data.tracks import (
    check_identities,
    number_identities,
    objects_per_identity,
    report_identities,
)
from tests.test_identity_sampler import frequent, of_tracks


def with_tracks(*tracks: int) -> Split:
    return of_tracks([list(tracks)])


TRAIN = with_tracks(70, 5, -1, 70, 900, 5, 70)


def test_identities_of_train_are_numbered_first() -> None:
    val = with_tracks(900, 6, -1, 5, 3, 6)
    numbered, names = number_identities({"val": val, "train": TRAIN})
    assert numbered["train"].identities.tolist() == [1, 0, -1, 1, 2, 0, 1]
    assert numbered["val"].identities.tolist() == [2, 4, -1, 0, 3, 4]
    assert objects_per_identity(numbered["train"]).tolist() == [2, 3, 1]
    assert names == [5, 70, 900, 3, 6]


@pytest.mark.parametrize(
    ("value", "identity"),
    [(2**70, 2**70), ("17", 17), (17.0, 17), (" p17", "p17"), (0, 0)]
    + [(none, -1) for none in (None, -1, "-7", "", " ")],
)
def test_what_is_an_identity(value: Any, identity: int | str) -> None:
    assert read_identity(value) == identity


@pytest.mark.parametrize("value", [1.5, float("nan"), [3], {}, True])
def test_what_is_no_identity(value: Any) -> None:
    with pytest.raises(ValueError, match="neither a whole number nor a text"):
        read_identity(value)


def test_numbers_of_any_size_and_texts_are_numbered() -> None:
    tracks = np.array([2**70, "p17", -1, 5, "p17", "a"], object)
    numbered, _ = number_identities({"train": replace(with_tracks(*[0] * 6), identities=tracks)})
    assert numbered["train"].identities.tolist() == [1, 3, -1, 0, 3, 2]
    assert numbered["train"].identities.dtype == np.int64


def test_splits_without_identities_stay_as_they_are() -> None:
    bare = replace(TRAIN, identities=None)
    numbered, _ = number_identities({"train": bare, "val": with_tracks(8, 7)})
    assert numbered["train"] is bare
    assert numbered["val"].identities.tolist() == [1, 0]
    assert report_identities({"train": bare, "val": bare}, "track_id") == []


@pytest.mark.parametrize("data", [replace(TRAIN, identities=None), with_tracks(-1, -1)])
def test_without_any_identity_no_embedding_can_be_trained(data: Split) -> None:
    with pytest.raises(DataError, match=r"train: no object has a person_id.*data\.identity"):
        check_identities(data, "train", "person_id")
    check_identities(TRAIN, "train", "person_id")


def test_report() -> None:
    splits, _ = number_identities({"train": TRAIN, "val": with_tracks(5, 5, -1)})
    assert report_identities(splits, "track_id") == [
        "train: 3 identities with 1 to 3 objects each, 1 objects without one",
        "train: 1 identities have a single object: no other is like it",
        "val: 1 identities with 2 objects, all of them in train: a closed set",
    ]
    for tracks, line in (
        ((6, 8), "none of them in train: an open set, whose identity loss is 0"),
        ((5, 8), "1 of them in train: the others have no identity loss"),
    ):
        splits, _ = number_identities({"train": TRAIN, "val": with_tracks(*tracks)})
        assert (
            report_identities(splits, "track_id")[-1] == f"val: 2 identities with 2 objects, {line}"
        )
    alone, _ = number_identities({"val": with_tracks(5, 8)})
    assert report_identities(alone, "track_id") == ["val: 2 identities with 2 objects"]


@pytest.mark.parametrize("val", [replace(TRAIN, identities=None), with_tracks(-1, -1)])
def test_a_val_without_identities_is_said(val: Split) -> None:
    splits, _ = number_identities({"train": TRAIN, "val": val})
    lines = report_identities(splits, "person_id")
    assert lines[-1] == "val: no object has a person_id: nothing is recognized there"


def test_identities_in_the_data_of_a_run(tmp_path: Path) -> None:
    """Numbered for both splits, reported, in the batches; and under another key."""
    draw_identities(tmp_path, train=24, val=6, size=64)
    options = {"root": tmp_path, "format": "identities", "size": (64, 64), "workers": 0}
    data = DataModule(**options, batch_size=8, identities=(3, 2))
    data.setup("fit")
    train = data.splits["train"]
    assert data.count_identities() == len(np.unique(train.identities[train.identities >= 0]))
    assert any("a closed set" in line or "no identity loss" in line for line in data.report())
    for batch in data.train_dataloader():
        rows = [data.splits["train"].image_ids.tolist().index(i) for i in batch["image_ids"]]
        assert len(frequent(train, rows)) >= 3
        assert set(batch["identities"].flatten().tolist()) <= {-1, *range(data.count_identities())}
    halves = DataModule(**options, batch_size=4, identities=(3, 2))
    with pytest.raises(DataError, match="more than the 4 images of a batch"):
        halves.train_dataloader()
    halves.trainer = SimpleNamespace(global_rank=0, world_size=2, overfit_batches=0)  # type: ignore[assignment]
    halves.trainer.fit_loop = SimpleNamespace(epoch_progress=None)  # type: ignore[union-attr]
    assert len(halves.train_dataloader()) == len(data.train_dataloader())
    for part in ("train", "val"):
        path = tmp_path / "annotations" / f"instances_{part}.json"
        path.write_text(path.read_text().replace("track_id", "person"))
        assert "person" in json.loads(path.read_text())["annotations"][0]
    other = DataModule(**options | {"format": "coco"}, identity="person")
    other.setup("fit")
    assert other.splits["train"].identities.tolist() == train.identities.tolist()
    nobody = DataModule(**options | {"format": "coco"})
    nobody.setup("fit")
    with pytest.raises(DataError, match=r"train: no object has a track_id"):
        nobody.count_identities()


def annotate(root: Path, part: str, values: list[Any], **others: Any) -> None:
    """Gives the first annotations of a split these track_ids, and all others none."""
    path = root / "annotations" / f"instances_{part}.json"
    content = json.loads(path.read_text())
    for number, row in enumerate(content["annotations"]):
        row["track_id"] = values[number] if number < len(values) else None
        row.update(others if number < len(values) else {})
    path.write_text(json.dumps(content))


def drawn(root: Path, **options: Any) -> DataModule:
    return DataModule(root=root, format="coco", size=(64, 64), workers=0, **options)


def test_identities_as_annotated(tmp_path: Path) -> None:
    """Of any size and as text; what is no identity matters only where identities are needed."""
    draw_identities(tmp_path, train=4, val=4, size=64)
    annotate(tmp_path, "train", [2**63, "p17", "p17", 4])
    data = drawn(tmp_path)
    data.setup()
    assert data.count_identities() == 3
    assert data.identity_names[:3] == [4, 2**63, "p17"]
    annotate(tmp_path, "val", ["p17", 1.5])
    data = drawn(tmp_path)
    data.setup()
    assert sorted(data.splits["val"].identities.tolist())[-2:] == [-1, 2]
    line = r"val.json: annotation 2: the track_id 1\.5 is neither .* or name .* data\.identity"
    for refuse in (data.check_identities, data.count_identities):
        with pytest.raises(DataError, match=line):
            refuse()
    annotate(tmp_path, "val", ["p17", 1.5], iscrowd=1)
    data = drawn(tmp_path)
    data.setup()
    data.check_identities()  # a crowd is never matched
    assert data.splits["val"].identities.max() == -1


def test_crowds_have_no_identity(tmp_path: Path) -> None:
    draw_identities(tmp_path, train=4, val=4, size=64)
    annotate(tmp_path, "train", [3, 3], iscrowd=1)
    data = drawn(tmp_path)
    data.setup()
    with pytest.raises(DataError, match="train: no object has a track_id"):
        data.count_identities()


def test_joined_files_that_share_identities_are_said(tmp_path: Path) -> None:
    draw_identities(tmp_path, train=4, val=4, size=64)
    annotate(tmp_path, "train", [3, 4, 5, -1])
    annotate(tmp_path, "val", [-1, 4, 3, 3, [9]])
    data = drawn(tmp_path, train=["train", "val"], holdout=0.5)
    data.setup()
    line = "train: 2 values of track_id are in more than one of the files"
    assert [text for text in data.report() if text.startswith(line)]
    annotate(tmp_path, "val", [6, 7])
    data = drawn(tmp_path, train=["train", "val"], holdout=0.5)
    data.setup()
    assert not any("more than one of the files" in text for text in data.report())
