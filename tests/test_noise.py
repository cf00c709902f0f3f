"""Wrong labels: as many as asked for, of the kinds asked for, the same for the same seed."""

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from data import DataError
from data.noise import Kind, with_noise
from data.split import Split

K = 4


def make_split(images: int = 400, each: int = 5) -> Split:
    random = np.random.default_rng(0)
    count = images * each
    corner, side = random.uniform(0, 150, (count, 2)), random.uniform(10, 50, (count, 2))
    return Split(
        paths=[f"{index}.jpg" for index in range(images)],
        image_ids=np.arange(images),
        sizes=np.full((images, 2), 200),
        boxes=np.concatenate([corner, corner + side], axis=1).astype(np.float32),
        labels=random.integers(0, K, count),
        ignore=random.random(count) < 0.1,
        identities=np.arange(count),  # say which object it was
        starts=np.arange(images + 1) * each,
        dropped={},
        clipped=0,
    )


def differences(split: Split, noisy: Split) -> dict[str, np.ndarray]:
    """Objects that are wrong in each way, by their identities."""
    kept = noisy.identities
    assert kept is not None
    classes = kept[noisy.labels != split.labels[kept]]
    shifted = kept[(noisy.boxes != split.boxes[kept]).any(axis=1)]
    missing = np.setdiff1d(np.arange(len(split.boxes)), kept)
    return {"class": classes, "missing": missing, "shifted": shifted}


@pytest.mark.parametrize("kind", ["class", "missing", "shifted", "mixed"])
def test_the_share_and_the_kinds_are_those_asked_for(kind: Kind) -> None:
    split = make_split()
    noisy, line = with_noise(split, 0.2, kind, K, seed=1)
    wrong = differences(split, noisy)
    total = sum(map(len, wrong.values()))
    assert total == pytest.approx(0.2 * (~split.ignore).sum(), rel=0.15)
    for name, objects in wrong.items():
        share = {"mixed": 1 / 3, name: 1}.get(kind, 0)
        assert len(objects) == pytest.approx(share * total, rel=0.2)
        assert not split.ignore[objects].any()
        assert share == 0 or f"{len(objects)} {name}" in line
    assert len(np.unique(np.concatenate([*wrong.values()]))) == total  # one error each


def test_rows_stay_with_their_images_and_boxes_inside() -> None:
    split = make_split()
    noisy, _ = with_noise(split, 0.9, "mixed", K, seed=2)
    assert noisy.identities is not None
    for index in range(len(split)):
        assert set(noisy.identities[noisy.rows(index)] // 5) <= {index}
    assert len(noisy.boxes) == noisy.starts[-1]
    assert (noisy.boxes >= 0).all()
    assert (noisy.boxes <= 200).all()
    assert (noisy.boxes[:, 2:] > noisy.boxes[:, :2]).all()
    assert noisy.labels.min() == 0
    assert noisy.labels.max() == K - 1


def test_shifted_boxes_are_no_longer_matches() -> None:
    split = make_split()
    noisy, _ = with_noise(split, 1.0, "shifted", K, seed=0)
    overlap = box_iou(torch.from_numpy(split.boxes), torch.from_numpy(noisy.boxes)).diag().numpy()
    cut = (noisy.boxes == 0).any(1) | (noisy.boxes == 200).any(1)
    whole, cut = overlap[~split.ignore & ~cut], overlap[~split.ignore & cut]
    assert whole.min() > 0.4**2 / (2 - 0.4**2)
    assert whole.max() < 0.7**2 / (2 - 0.7**2)
    assert whole.max() < cut.max() < 0.7**2


def test_every_other_class_and_every_direction_is_as_likely() -> None:
    split = make_split()
    objects, inside = ~split.ignore, (split.boxes > 40).all(1) & (split.boxes < 160).all(1)
    changed, _ = with_noise(split, 1.0, "class", K, seed=0)
    steps = np.bincount((changed.labels - split.labels)[objects] % K, minlength=K)
    assert steps[0] == 0
    assert steps[1:] / objects.sum() == pytest.approx(np.full(K - 1, 1 / (K - 1)), abs=0.04)
    shifted, _ = with_noise(split, 1.0, "shifted", K, seed=0)
    right, down = (shifted.boxes - split.boxes)[objects & inside, :2].T > 0
    for quarter in (right & down, right & ~down, ~right & down, ~right & ~down):
        assert quarter.mean() == pytest.approx(0.25, abs=0.06)


def test_a_seed_repeats_and_a_higher_rate_only_adds() -> None:
    split = make_split()
    few, again, other, many = (
        differences(split, with_noise(split, rate, "mixed", K, seed)[0])
        for rate, seed in ((0.1, 0), (0.1, 0), (0.1, 1), (0.4, 0))
    )
    for name, objects in few.items():
        assert np.array_equal(objects, again[name])
        assert not np.array_equal(objects, other[name])
        assert set(objects.tolist()) < set(many[name].tolist())


def test_no_noise_changes_nothing() -> None:
    split = make_split()
    noisy, _ = with_noise(split, 0.0, "mixed", K, seed=0)
    for name in ("boxes", "labels", "ignore", "starts"):
        assert np.array_equal(getattr(split, name), getattr(noisy, name))


def test_one_class_cannot_be_wrong() -> None:
    split = make_split()
    split.labels[:] = 0
    noisy, line = with_noise(split, 0.5, "mixed", 1, seed=0)
    assert not len(differences(split, noisy)["class"])
    assert "class" not in line
    with pytest.raises(DataError, match="needs two classes"):
        with_noise(split, 0.5, "class", 1, seed=0)
    wrong: Any = "typo"
    with pytest.raises(DataError, match="must be one of mixed, class, missing, shifted"):
        with_noise(split, 0.5, wrong, K, seed=0)
