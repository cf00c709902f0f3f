import json
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from data import DataError
from data import shapes as shapes_module
from data.datamodule import DataModule
from data.scenes import CATEGORIES, VISIBLE_PIXELS, VISIBLE_SHARE, Scene, draw_scene
from data.shapes import MARKER, draw_dataset, main

ANCHOR_SIZES = (12, 24, 48, 96, 160)  # P3 to P7 of configs/shapes.yaml


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """300 images, drawn as those of the training split are."""
    return [draw_scene(np.random.default_rng([0, 0, index])) for index in range(300)]


def objects(scenes: list[Scene]) -> list[dict]:
    return [row for scene in scenes for row in scene.annotations if not row["iscrowd"]]


def contents(root: Path) -> dict[str, bytes]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


# The difficulties that the data set promises. They are not to be eased.


def test_the_rarest_of_at_least_five_classes_is_ten_times_rarer(scenes: list[Scene]) -> None:
    counts = Counter(row["category_id"] for row in objects(scenes))
    assert counts.keys() == CATEGORIES.keys()
    assert len(counts) >= 5
    assert max(counts.values()) >= 10 * min(counts.values())


def test_a_fifth_of_the_objects_is_hidden_by_more_than_three_tenths(scenes: list[Scene]) -> None:
    occlusion = np.array([row["occlusion"] for row in objects(scenes)])
    assert (occlusion > 0.3).mean() >= 0.2


def test_a_tenth_of_the_images_has_no_annotations(scenes: list[Scene]) -> None:
    assert np.mean([not scene.annotations for scene in scenes]) >= 0.1


def test_some_images_have_a_crowd(scenes: list[Scene]) -> None:
    assert np.mean([any(row["iscrowd"] for row in s.annotations) for s in scenes]) >= 0.05


def test_every_pyramid_level_has_objects(scenes: list[Scene]) -> None:
    sizes = np.sqrt([row["area"] for row in objects(scenes)])
    nearest = np.abs(np.log(sizes[:, None] / ANCHOR_SIZES)).argmin(axis=1)
    shares = np.bincount(nearest, minlength=len(ANCHOR_SIZES)) / len(sizes)
    assert (shares >= 0.01).all()


def test_images_are_square_landscape_and_portrait(scenes: list[Scene]) -> None:
    counts = Counter(scene.image.shape for scene in scenes)
    assert counts.keys() == {(160, 160, 3), (120, 160, 3), (160, 120, 3)}
    assert min(counts.values()) >= 30


# What is recorded is what was drawn.


def test_occlusion_is_the_share_of_a_mask_under_later_masks(scenes: list[Scene]) -> None:
    for scene in scenes:
        covered = np.zeros(scene.image.shape[:2], bool)
        for row, mask in zip(scene.annotations[::-1], scene.masks[::-1], strict=True):
            hidden = np.count_nonzero(mask & covered) / np.count_nonzero(mask)
            assert row["occlusion"] == pytest.approx(hidden, abs=1e-4)
            seen = np.count_nonzero(mask & ~covered)
            assert seen >= max(VISIBLE_PIXELS, VISIBLE_SHARE * np.count_nonzero(mask))
            covered |= mask


def test_boxes_are_the_extents_of_the_masks(scenes: list[Scene]) -> None:
    for scene in scenes:
        for row, mask in zip(scene.annotations, scene.masks, strict=True):
            y, x = np.nonzero(mask)
            width, height = int(x.max() - x.min()) + 1, int(y.max() - y.min()) + 1
            assert row["bbox"] == [x.min(), y.min(), width, height]
            assert row["area"] == width * height


def test_an_object_alone_stands_out_from_what_surrounds_it(scenes: list[Scene]) -> None:
    contrasts = []
    for scene in scenes:
        if len(scene.masks) == 1 and not scene.annotations[0]["iscrowd"]:
            mask = scene.masks[0]
            inside, outside = scene.image[mask].mean(axis=0), scene.image[~mask].mean(axis=0)
            contrasts.append(np.linalg.norm(inside - outside))
    assert contrasts
    assert min(contrasts) > 20  # of 442; colors are drawn at least 70 apart, then shaded
    assert np.median(contrasts) > 50


# The folder.


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        draw_dataset(tmp_path / name, train=4, val=3, size=64, seed=seed)
    first, again, other = (contents(tmp_path / name) for name in "abc")
    assert first == again
    assert len(first) == 4 + 3 + 2 + 1  # images, annotation files and the marker
    assert first.keys() == other.keys()
    assert not any(first[name] == other[name] for name in first.keys() - {MARKER})


def test_train_and_val_share_no_image_and_no_id(tmp_path: Path) -> None:
    draw_dataset(tmp_path, train=6, val=6, size=64)
    pictures = [path.read_bytes() for path in tmp_path.rglob("*.jpg")]
    assert len(set(pictures)) == 12
    assert len({path.name for path in tmp_path.rglob("*.jpg")}) == 12


def test_the_annotation_file_is_complete_and_fits_the_images(tmp_path: Path) -> None:
    draw_dataset(tmp_path, train=12, val=1, size=64)
    content = json.loads((tmp_path / "annotations" / "instances_train.json").read_text())
    assert content.keys() == {"info", "licenses", "images", "annotations", "categories"}
    assert {row["id"]: row["name"] for row in content["categories"]} == CATEGORIES
    ids = [image["id"] for image in content["images"]]
    assert len(set(ids)) == 12
    assert max(ids) - min(ids) > 11  # with gaps
    assert [row["id"] for row in content["annotations"]] == list(
        range(1, len(content["annotations"]) + 1)
    )
    extents = {}
    for image in content["images"]:
        picture = cv2.imread(str(tmp_path / "train" / image["file_name"]))
        assert picture.shape == (image["height"], image["width"], 3)
        extents[image["id"]] = image["width"], image["height"]
    for row in content["annotations"]:
        x, y, width, height = row["bbox"]
        assert min(x, y) >= 0
        assert min(width, height) >= 3
        assert x + width <= extents[row["image_id"]][0]
        assert y + height <= extents[row["image_id"]][1]


def test_a_saved_image_has_the_colors_that_were_drawn(tmp_path: Path) -> None:
    draw_dataset(tmp_path, train=1, val=1, size=64)
    drawn = draw_scene(np.random.default_rng([0, 0, 0]), 64).image  # seed, split, index
    saved = cv2.imread(str(next((tmp_path / "train").iterdir())))[..., ::-1]
    assert np.abs(saved.mean(axis=(0, 1)) - drawn.mean(axis=(0, 1))).max() < 2  # JPEG rounds


def test_an_interrupted_drawing_is_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_dataset(tmp_path / "complete", train=3, val=2, size=64)
    calls = []

    def interrupted(rng: np.random.Generator, size: int) -> Scene:
        calls.append(size)
        if len(calls) == 5:  # the second validation image
            raise KeyboardInterrupt
        return draw_scene(rng, size)

    monkeypatch.setattr(shapes_module, "draw_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_dataset(tmp_path / "cut", train=3, val=2, size=64)
    assert not (tmp_path / "cut" / "annotations" / "instances_val.json").exists()
    draw_dataset(tmp_path / "cut", train=3, val=2, size=64)
    assert len(calls) == 5 + 2  # validation again, training not
    assert contents(tmp_path / "cut") == contents(tmp_path / "complete")


def test_what_is_there_is_neither_drawn_again_nor_overwritten(tmp_path: Path) -> None:
    draw_dataset(tmp_path, train=2, val=2, size=64)
    path = tmp_path / "annotations" / "instances_train.json"
    before = path.stat().st_mtime_ns
    draw_dataset(tmp_path, train=2, val=2, size=64)
    assert path.stat().st_mtime_ns == before
    with pytest.raises(DataError, match=r"instances_train\.json holds other data"):
        draw_dataset(tmp_path, train=2, val=2, size=64, seed=1)
    path.write_text("[]")
    with pytest.raises(DataError, match=r"instances_train\.json holds other data"):
        draw_dataset(tmp_path, train=2, val=2, size=64)


def other_data(root: Path, kind: str) -> None:
    """A folder that nobody may draw into."""
    drawn = "annotations/instances_val.json"
    if kind == "mixed with drawn ones":
        draw_dataset(root, train=2, val=2, size=64)
        (root / MARKER).unlink()
        (root / drawn).unlink()
        kind = "images of our names"
    files = {
        "images of our names": "train/000011.jpg",
        "Roboflow": "train/_annotations.coco.json",
        "a part of COCO": "annotations/instances_train2017.json",
        "VOC": "Annotations/deep/down/a.xml",
    }
    path = root / files[kind]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"mine")


KINDS = ["images of our names", "Roboflow", "a part of COCO", "VOC", "mixed with drawn ones"]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_drawn_into_a_folder_of_other_data(tmp_path: Path, kind: str) -> None:
    other_data(tmp_path, kind)
    before = contents(tmp_path)
    for start in (
        lambda: draw_dataset(tmp_path, train=2, val=2, size=64),
        lambda: DataModule(format="shapes", root=tmp_path, train="train", val="val").setup("fit"),
    ):
        with pytest.raises(DataError, match=r"holds other data.* give --data\.format auto"):
            start()
        assert contents(tmp_path) == before


def test_a_set_drawn_before_there_was_a_marker_is_completed(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "new", train=3, val=2, size=64)
    draw_dataset(tmp_path / "old", train=3, val=2, size=64)
    (tmp_path / "old" / ".lock").touch()
    (tmp_path / "old" / MARKER).unlink()
    shutil.rmtree(tmp_path / "old" / "val")
    (tmp_path / "old" / "annotations" / "instances_val.json").unlink()
    draw_dataset(tmp_path / "old", train=3, val=2, size=64)
    (tmp_path / "old" / ".lock").unlink()
    assert contents(tmp_path / "old") == contents(tmp_path / "new")


def test_a_complete_set_is_read_where_nothing_can_be_written(tmp_path: Path) -> None:
    draw_dataset(tmp_path, train=2, val=2, size=64)
    (tmp_path / MARKER).unlink()
    draw_dataset(tmp_path, train=2, val=2, size=64)
    assert not (tmp_path / MARKER).exists()


def test_drawn_shapes_have_two_splits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the splits train and val, not 'test'"):
        DataModule(format="shapes", root=tmp_path / "new", train="train", val="test").setup("fit")
    assert not (tmp_path / "new").exists()


def test_the_command_line_draws_and_reports_mistakes_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(tmp_path), "--train", "2", "--val", "1", "--size", "64", "--seed", "5"])
    assert len(list((tmp_path / "train").iterdir())) == 2
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), "--size", "10"])
    assert stopped.value.code == 2
    assert "size 10" in capsys.readouterr().err.splitlines()[-1]
