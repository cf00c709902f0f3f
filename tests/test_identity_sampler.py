"""Batches in which identities meet again."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from data import DataError
from data.identity_sampler import IdentityBatches
from data.split import Split
from data.transforms import InputSize

P, K, B = 3, 2, 8


def of_tracks(images: list[list[int]], sizes: np.ndarray | None = None) -> Split:
    """Images of objects with these identities."""
    total = sum(map(len, images))
    return Split(
        paths=[f"{index}.jpg" for index in range(len(images))],
        image_ids=np.arange(len(images)),
        sizes=np.tile([[48, 64]], (len(images), 1)) if sizes is None else sizes,
        boxes=np.zeros((total, 4), np.float32),
        labels=np.zeros(total, np.int64),
        ignore=np.zeros(total, bool),
        identities=np.array([track for image in images for track in image], np.int64),
        starts=np.cumsum([0, *map(len, images)]),
        dropped={},
        clipped=0,
    )


def split(images: int = 60, identities: int = 12, portrait: bool = False, seed: int = 0) -> Split:
    """Images of two to four objects, of which a quarter has no identity; every fifth has none."""
    random = np.random.default_rng(seed)
    tracks = []
    for index in range(images):
        count = 0 if index % 5 == 4 else random.integers(2, 5)
        row = random.integers(0, identities, count)
        tracks.append(np.where(random.random(count) < 0.25, -1, row).tolist())
    sizes = np.tile([[48, 64]], (images, 1))
    return of_tracks(tracks, random.permuted(sizes, axis=1) if portrait else sizes)


def sampler(data: Split, batch_size: int = B, size: Any = None, **order: Any) -> IdentityBatches:
    order = {"seed": 1, "shuffle": True, "per_batch": P, "images": K} | order
    return IdentityBatches(data, size or InputSize([64, 64], None, 64), batch_size, **order)


def frequent(data: Split, batch: list[int]) -> list[int]:
    """Identities that are in K images of the batch or more."""
    counts: Counter[int] = Counter()
    for index in batch:
        counts.update(set(data.identities[data.rows(index)].tolist()) - {-1})
    return [identity for identity, count in counts.items() if count >= K]


def indices(batches: IdentityBatches) -> list[list[int]]:
    return [[index for index, _, _ in batch] for batch in batches]


@pytest.mark.parametrize("seed", range(3))
def test_every_batch_has_the_identities_it_promises(seed: int) -> None:
    data = split(seed=seed)
    batches = indices(sampler(data, epoch=seed))
    assert len(batches) == len(sampler(data)) == 60 // B
    for batch in batches:
        assert len(set(batch)) == len(batch) == B
        assert len(frequent(data, batch)) >= P


def test_most_images_are_in_an_epoch_and_all_in_a_few() -> None:
    data = split()
    seen: set[int] = set()
    for epoch in range(6):
        batches = indices(sampler(data, epoch=epoch))
        assert len({index for batch in batches for index in batch}) > 0.7 * 7 * B
        seen |= {index for batch in batches for index in batch}
    assert seen == set(range(60))  # those without an identity, too


def test_it_is_a_function_of_seed_and_epoch() -> None:
    data = split()
    first = indices(sampler(data, epoch=2))
    assert first == indices(sampler(data, epoch=2))
    assert first != indices(sampler(data, epoch=3))
    assert first != indices(sampler(data, epoch=2, seed=9))


def test_ranks_share_the_joint_batch() -> None:
    data = split()
    joint = indices(sampler(data, batch_size=B))
    parts = [indices(sampler(data, batch_size=B // 2, position=(rank, 2))) for rank in (0, 1)]
    for both, one, other in zip(joint, *parts, strict=True):
        assert sorted(one + other) == sorted(both)
        assert len(one) == len(other) == B // 2


def test_identities_may_share_their_only_images() -> None:
    """Three identities in the same two images, which all batches need, seen or not."""
    data = of_tracks([[0, 1, 2], [0, 1, 2], *[[]] * 14])
    batches = indices(sampler(data))
    assert [sorted(frequent(data, batch)) for batch in batches] == [[0, 1, 2]] * 2


def test_a_batch_has_one_orientation() -> None:
    data = split(images=120, portrait=True)
    size = InputSize(None, 32, 64)
    batches = indices(sampler(data, size=size))
    assert len(batches) == len(sampler(data, size=size))
    sides = [{bool(data.sizes[i, 0] > data.sizes[i, 1]) for i in batch} for batch in batches]
    assert all(len(side) == 1 for side in sides)
    assert {True, False} == set.union(*sides)
    assert all(len(frequent(data, batch)) >= P for batch in batches)


@pytest.mark.parametrize("images", [60, 20, 5])
def test_without_shuffle_epochs_are_alike(images: int) -> None:
    data = of_tracks([[0, 1, 2]] * images)
    first, other = (sampler(data, epoch=epoch, shuffle=False) for epoch in (0, 3))
    assert indices(first) == indices(other)
    assert len(indices(first)) == len(first) == max(1, images // B)


def test_an_orientation_that_cannot_keep_the_promise_is_left_out(capsys: Any) -> None:
    """A single portrait; and where by_orientation is off all images fit into one batch."""
    tracks = [[0, 1, 2]] * 17
    sizes = np.array([[64, 48], *[[48, 64]] * 16])
    data = of_tracks(tracks, sizes)
    batches = sampler(data, size=InputSize(None, 32, 64))
    assert {index for batch in indices(batches) for index in batch} == set(range(1, 17))
    assert len(indices(batches)) == len(batches) == 2
    line = "data.identities [3, 2]: 1 portrait images are not trained on: 0 of their identities are"
    assert capsys.readouterr().out.startswith(line)
    sampler(data, size=InputSize(None, 32, 64), batch_size=B // 2, position=(1, 2))
    sampler(data)
    assert not capsys.readouterr().out


@pytest.mark.parametrize("tracks", [[], [-1]])
def test_data_without_identities_are_refused_by_the_name_of_their_key(tracks: list[int]) -> None:
    data = of_tracks([tracks] * 20)
    with pytest.raises(DataError, match=r"no object of train has an identity.*data\.identity$"):
        sampler(data)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"per_batch": 5}, "5 identities in 2 images each are more than the 8 images of a batch"),
        ({"per_batch": 2, "images": 4, "identities": 40}, "0 identities are in 4 images or more"),
    ],
)
def test_what_cannot_be_promised_is_refused(options: dict[str, Any], line: str) -> None:
    data = split(identities=options.pop("identities", 12), images=12)
    with pytest.raises(DataError, match=line):
        sampler(data, **options)
