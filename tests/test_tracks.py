"""Identities: numbered, counted, checked."""

from dataclasses import replace

import pytest

from data import DataError
from data.split import Split
from data.tracks import (
    check_identities,
    number_identities,
    objects_per_identity,
    report_identities,
)
from tests.test_identity_sampler import of_tracks


def with_tracks(*tracks: int) -> Split:
    return of_tracks([list(tracks)])


TRAIN = with_tracks(70, 5, -1, 70, 900, 5, 70)


def test_identities_of_train_are_numbered_first() -> None:
    val = with_tracks(900, 6, -1, 5, 3, 6)
    numbered = number_identities({"val": val, "train": TRAIN})
    assert numbered["train"].identities.tolist() == [1, 0, -1, 1, 2, 0, 1]
    assert numbered["val"].identities.tolist() == [2, 4, -1, 0, 3, 4]
    assert objects_per_identity(numbered["train"]).tolist() == [2, 3, 1]


def test_splits_without_identities_stay_as_they_are() -> None:
    bare = replace(TRAIN, identities=None)
    numbered = number_identities({"train": bare, "val": with_tracks(8, 7)})
    assert numbered["train"] is bare
    assert numbered["val"].identities.tolist() == [1, 0]
    assert report_identities({"train": bare, "val": bare}) == []


@pytest.mark.parametrize("data", [replace(TRAIN, identities=None), with_tracks(-1, -1)])
def test_without_any_identity_no_embedding_can_be_trained(data: Split) -> None:
    with pytest.raises(DataError, match=r"train: no object has a person_id.*data\.identity"):
        check_identities(data, "train", "person_id")
    check_identities(TRAIN, "train", "person_id")


def test_report() -> None:
    splits = number_identities({"train": TRAIN, "val": with_tracks(5, 5, -1)})
    assert report_identities(splits) == [
        "train: 3 identities with 1 to 3 objects each, 1 objects without one",
        "train: 1 identities have a single object: no other is like it",
        "val: 1 identities with 2 objects, all of them in train: a closed set",
    ]
    for tracks, line in (
        ((6, 8), "none of them in train: an open set, whose identity loss is 0"),
        ((5, 8), "1 of them in train: the others have no identity loss"),
    ):
        splits = number_identities({"train": TRAIN, "val": with_tracks(*tracks)})
        assert report_identities(splits)[-1] == f"val: 2 identities with 2 objects, {line}"
    alone = number_identities({"val": with_tracks(5, 8)})
    assert report_identities(alone) == ["val: 2 identities with 2 objects"]
