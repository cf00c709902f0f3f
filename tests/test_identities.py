"""The drawn identities: what tells them apart, what does not, and the folder."""

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.identities import (
    CATEGORIES,
    GROUP,
    IDENTITIES,
    draw_identities,
    draw_identities_scene,
    identities,
    main,
)
from data.scenes import Scene


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [
        draw_identities_scene(np.random.default_rng([0, 1, index]), 160, "val")
        for index in range(80)
    ]


def tiles(scene: Scene) -> list[dict]:
    return [row for row in scene.annotations if "track_id" in row]


# The difficulty that the data set promises. It is not to be eased.


def rank1(vectors: np.ndarray, tracks: np.ndarray, images: np.ndarray) -> float:
    """Share of objects whose nearest neighbor in another image has the same identity; `vectors`
    have length 1."""
    similarity = vectors @ vectors.T
    similarity[images[:, None] == images] = -np.inf
    return float((tracks[similarity.argmax(1)] == tracks).mean())


def histogram(crop: np.ndarray, bins: int) -> np.ndarray:
    counts, _ = np.histogramdd(crop.reshape(-1, 3), bins, [(0, 256)] * 3)
    return np.sqrt(counts.ravel() / counts.sum())


def pattern(crop: np.ndarray) -> np.ndarray:
    """The crop at 12 x 12 pixels, without its mean color and contrast."""
    small = cv2.resize(crop, (12, 12), interpolation=cv2.INTER_AREA).astype(float)
    small -= small.mean((0, 1))
    return (small / np.linalg.norm(small)).ravel()


def test_colors_do_not_solve_it_and_patterns_do(scenes: list[Scene]) -> None:
    crops, inner, tracks, images, hidden = [], [], [], [], []
    for number, scene in enumerate(scenes):
        for row in tiles(scene):
            x, y, w, h = row["bbox"]
            crops.append(scene.image[y : y + h, x : x + w])
            inner.append(scene.image[y + h // 5 : y + h - h // 5, x + w // 5 : x + w - w // 5])
            tracks.append(row["track_id"])
            images.append(number)
            hidden.append(row["occlusion"])
    where = np.array(tracks), np.array(images)
    for bins in (3, 4, 6, 8):  # with and without what surrounds a turned tile
        for pixels in (crops, inner):
            assert rank1(np.array([histogram(crop, bins) for crop in pixels]), *where) < 0.3
    vectors, seen = np.array([pattern(crop) for crop in crops]), np.array(hidden) < 0.1
    assert rank1(vectors, *where) > 0.7  # a fifth is hidden too far to be told
    assert rank1(vectors[seen], where[0][seen], where[1][seen]) > 0.85


def test_look_alikes_differ_in_a_quarter_of_their_cells_or_in_half() -> None:
    everyone = identities()
    assert len(everyone) == 2 * IDENTITIES
    looks = {(one.colors.tobytes(), one.cells.tobytes()) for one in everyone}
    assert len(looks) == len(everyone)
    for number, one in enumerate(everyone):
        assert one.cells.sum() == 8  # half of 16: all histograms are equal
        assert (one.cells == one.cells[:, ::-1]).all()  # a mirrored tile is the same
        base = everyone[number - number % GROUP]
        assert (one.colors == base.colors).all()
        assert (one.cells != base.cells).sum() == (4 if number % GROUP else 0)
        group = everyone[number - number % GROUP :][:GROUP]
        assert {(one.cells != other.cells).sum() for other in group} <= {0, 4, 8}
    shared = Counter(one.colors.tobytes() for one in everyone[:IDENTITIES])
    assert set(shared.values()) == {8}


def test_an_image_has_several_identities_none_twice_and_objects_without(
    scenes: list[Scene],
) -> None:
    counts = Counter()
    for scene in scenes:
        tracks = [row["track_id"] for row in tiles(scene)]
        assert len(set(tracks)) == len(tracks)
        assert all(
            row["category_id"] == (1 if "track_id" in row else 2) for row in scene.annotations
        )
        counts.update(tracks)
    assert counts.keys() == set(range(IDENTITIES))
    assert np.mean([len(tiles(scene)) > 1 for scene in scenes]) > 0.9
    assert sum(len(scene.annotations) - len(tiles(scene)) for scene in scenes) > 40


# The folder.


def content(root: Path, split: str) -> dict:
    return json.loads((root / "annotations" / f"instances_{split}.json").read_text())


def read(root: Path, split: str) -> list[dict]:
    return content(root, split)["annotations"]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        draw_identities(tmp_path / name, train=3, val=2, size=64, seed=seed)
    files = [sorted((tmp_path / name).rglob("*.*g")) for name in "abc"]
    first, again, other = ([path.read_bytes() for path in paths] for paths in files)
    assert len(first) == 5
    assert first == again
    assert not set(first) & set(other)
    assert read(tmp_path / "a", "train") == read(tmp_path / "b", "train")
    assert content(tmp_path / "a", "val")["categories"] == [
        {"id": key, "name": name} for key, name in CATEGORIES.items()
    ]


def test_identities_of_val_are_those_of_train_or_unseen(tmp_path: Path) -> None:
    for name, unseen in (("closed", False), ("open", True)):
        draw_identities(tmp_path / name, train=40, val=20, size=64, unseen=unseen)
        train, val = (
            {row["track_id"] for row in read(tmp_path / name, split) if "track_id" in row}
            for split in ("train", "val")
        )
        assert bool(train & val) != unseen
        assert (min(val) >= IDENTITIES) == unseen
        assert max(train) < IDENTITIES


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path / "a"), "--train", "1", "--val", "1", "--size", "64", "--unseen"])
    assert "unseen" in content(tmp_path / "a", "val")["info"]["description"]
    with pytest.raises(SystemExit):  # what is there has another recipe
        main([str(tmp_path / "a"), "--train", "1", "--val", "1", "--size", "64"])
    assert "holds other data than asked for" in capsys.readouterr().err
