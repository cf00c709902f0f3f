"""Files of TensorBoard's projector."""

from pathlib import Path

import numpy as np

from detector.evaluation.projector import CROP, crop, write_projector
from detector.evaluation.retrieval import Objects


def test_a_crop_shows_the_box() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:20, 30:50] = 200
    assert (crop(image, np.array([30, 10, 20, 10])) == 200).all()
    assert crop(image, np.array([-5, 30, 100, 100])).shape == (CROP, CROP, 3)
    assert crop(image, np.array([59.5, 39.5, 0.2, 0.2])).shape == (CROP, CROP, 3)


def test_vectors_identities_and_pictures_lie_side_by_side(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    objects = Objects(
        random.normal(size=(6, 4)),
        np.array([3, -1, 5, 3, 5, 8]),
        np.array([2, 1, 1, 1, 2, 2]),
        np.tile([4.0, 4.0, 10.0, 10.0], (6, 1)),
    )
    images = {1: np.full((20, 20, 3), 50, np.uint8), 2: np.full((20, 20, 3), 150, np.uint8)}
    names = [*"abcdefgh", 900]
    for _ in range(2):  # what was there is replaced
        write_projector(tmp_path / "out", objects, names, images.__getitem__, most=4)
    (config,) = (tmp_path / "out").rglob("projector_config.pbtxt")
    (vectors,) = (tmp_path / "out").rglob("tensors.tsv")
    (labels,) = (tmp_path / "out").rglob("metadata.tsv")
    assert "sprite" in config.read_text()
    # of the five with an identity four: rows 0, 2, 4, 5; by their images 2 (0, 4, 5) and 1 (2)
    assert labels.read_text().split() == ["d", "f", "900", "f"]
    table = np.array([line.split("\t") for line in vectors.read_text().splitlines()], float)
    expected = objects.vectors[[0, 4, 5, 2]]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(table, expected, atol=1e-6)


def test_without_identities_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()  # of an evaluation of other data
    nobody = Objects(np.ones((2, 4)), np.array([-1, -1]), np.array([1, 2]), np.ones((2, 4)))
    image = np.zeros((9, 9, 3), np.uint8)
    assert not write_projector(tmp_path / "out", nobody, [], lambda _: image)
    assert not (tmp_path / "out").exists()
