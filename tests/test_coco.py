import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data import DataError
from data.content import difference
from data.datamodule import DataModule
from data.split import Split, to_split
from detector.evaluation.coco import coco_figures
from tests.conftest import REAL, needs_real_data

CATEGORIES = [{"id": 90, "name": "dog"}, {"id": 7, "name": "cat"}, {"id": 13, "name": "bird"}]
CLASSES = ["cat", "bird", "dog"]  # in the order of the ids 7, 13, 90


def annotation(bbox: list[float], image: int = 1, category: int = 7, **more: Any) -> dict[str, Any]:
    return {"id": 5, "image_id": image, "category_id": category, "bbox": bbox, **more}


def content(*annotations: dict[str, Any], ids: tuple[int, ...] = (1, 2)) -> dict[str, Any]:
    """Images of 60 x 100 pixels (height, width)."""
    images = [{"id": i, "file_name": f"{i}.png", "height": 60, "width": 100} for i in ids]
    return {"images": images, "annotations": list(annotations), "categories": CATEGORIES}


def write(root: Path, name: str, what: dict[str, Any]) -> None:
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(what))
    (root / name).mkdir(exist_ok=True)
    for image in what.get("images", []):
        pixels = np.full((60, 100, 3), 128, np.uint8)
        cv2.imwrite(str(root / name / image["file_name"]), pixels)


def split_of(tmp_path: Path, what: dict[str, Any], classes: list[str] = CLASSES) -> Split:
    write(tmp_path, "x", what)
    return to_split(what, tmp_path / "x", classes, "here.json")


def module(root: Path, **options: Any) -> DataModule:
    default = {"format": "coco", "root": root, "train": "train", "val": "val", "workers": 0}
    return DataModule(**{**default, **options})


def error_of(root: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        module(root, **options).setup("fit")
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("train", "val"):
        write(tmp_path, name, content(annotation([10, 10, 20, 20])))
    return tmp_path


def test_sparse_category_ids_become_labels_in_the_order_of_the_ids(root: Path) -> None:
    data = module(root)
    data.setup("fit")
    assert data.classes == CLASSES
    assert data.category_ids == [7, 13, 90]


def test_boxes_are_grouped_by_image_whatever_their_order(tmp_path: Path) -> None:
    rows = [
        annotation([50, 20, 10, 5], image=2, category=90),
        annotation([0, 0, 1.5, 2.5], image=1, category=13),
        annotation([1, 2, 3, 4], image=2, category=7, iscrowd=1),
    ]
    split = split_of(tmp_path, content(*rows, ids=(1, 3, 2)))
    assert split.image_ids.tolist() == [1, 3, 2]
    assert [split.rows(index) for index in range(3)] == [slice(0, 1), slice(1, 1), slice(1, 3)]
    assert split.boxes.tolist() == [[0, 0, 1.5, 2.5], [50, 20, 60, 25], [1, 2, 4, 6]]
    assert split.labels.tolist() == [1, 2, 0]
    assert split.ignore.tolist() == [False, False, True]
    assert split.sizes.tolist() == [[60, 100]] * 3
    assert split.identities is None


def test_boxes_that_cannot_be_learned_are_dropped_and_counted(tmp_path: Path) -> None:
    nan, inf = float("nan"), float("inf")
    rows = [
        annotation([10, 10, 0, 5]),
        annotation([10, 10, 5, -5]),
        annotation([10, nan, 5, 5]),
        annotation([10, 10, inf, 5]),
        annotation([100, 10, 5, 5]),  # begins where the image ends
        annotation([-9, 10, 5, 5]),
        annotation([90, 50, 40, 40]),  # 10 x 10 of it are inside
        annotation([99.5, 0, 0.7, 5]),  # over the border by less than a pixel
        annotation([1, 1, 5, 5], category=90),
    ]
    split = split_of(tmp_path, content(*rows), ["cat"])
    assert split.boxes.tolist() == [[90, 50, 100, 60], [99.5, 0, 100, 5]]
    assert split.clipped == 1
    assert split.dropped == {
        "without area": 2, "not finite": 2, "off the image": 2, "of other classes": 1
    }  # fmt: skip
    lines = split.report("train", ["cat"])
    assert lines[0] == "train: 2 images (1 without boxes), 2 objects, 0 crowd or difficult"
    assert "2 without area" in lines[-1]
    assert "clipped 1" in lines[-1]


def test_an_area_lost_by_rounding_to_float32_is_none(tmp_path: Path) -> None:
    assert len(split_of(tmp_path, content(annotation([50, 10, 1e-9, 5]))).boxes) == 0


def test_tracks_become_identities_and_large_ids_survive(tmp_path: Path) -> None:
    large = 900100581904
    rows = [
        annotation([1, 1, 5, 5], image=large, track_id=16777217),
        annotation([1, 1, 5, 5], image=large),
        annotation([1, 1, 0, 5], image=large, track_id=3),
    ]
    split = split_of(tmp_path, content(*rows, ids=(large,)))
    assert split.image_ids.tolist() == [large]
    assert split.identities is not None
    assert split.identities.tolist() == [16777217, -1]


def test_a_size_that_is_not_annotated_is_read_from_the_file(tmp_path: Path) -> None:
    what = content(annotation([1, 1, 5, 5]))
    del what["images"][0]["height"]
    what["images"][1]["width"] = 0
    assert split_of(tmp_path, what).sizes.tolist() == [[60, 100]] * 2


def test_the_ground_truth_is_the_file_untouched(tmp_path: Path) -> None:
    crowd = annotation([10, 10, 0, 5], id=0, iscrowd=1, area=3.5, more="text")
    truth = content(crowd, annotation([1, 2, 3, 4]))
    truth["info"] = {"year": 2017}
    write(tmp_path, "train", content(annotation([10, 10, 20, 20])))
    write(tmp_path, "val", truth)
    data = module(tmp_path)
    data.setup("validate")
    assert data.ground_truth() == truth
    assert data.file_names == {1: "1.png", 2: "2.png"}


def test_difficult_objects_are_crowds_to_training_and_evaluation_alike(root: Path) -> None:
    rows = [annotation([10, 10, 20, 20], difficult=1), annotation([40, 10, 20, 20], iscrowd=0)]
    rows[1]["id"] = 6
    write(root, "val", content(*rows))
    data = module(root)
    data.setup("validate")
    assert data.splits["val"].ignore.tolist() == [True, False]
    assert [row["iscrowd"] for row in data.ground_truth()["annotations"]] == [1, 0]
    assert any("1 difficult objects without iscrowd" in line for line in data.report())
    # one that is found, and one of which nothing is known: the only object is found, AP is 1
    found = {"image_id": 1, "category_id": 7, "bbox": [40, 10, 20, 20], "score": 0.5}
    wrong = {**found, "bbox": [10, 10, 20, 20], "score": 0.9}
    assert coco_figures(data.ground_truth(), [wrong, found]).summary["AP"] == 1


def test_a_subset_of_classes_leaves_the_others_out(tmp_path: Path) -> None:
    rows = [annotation([10, 10, 20, 20], category=key) for key in (7, 13, 90, 90)]
    for name in ("train", "val"):
        write(tmp_path, name, content(*rows))
    data = module(tmp_path, classes=["dog", "cat"])
    data.setup("fit")
    assert data.classes == ["dog", "cat"]
    assert data.category_ids == [90, 7]
    assert sorted(data.splits["train"].labels.tolist()) == [0, 0, 1]
    truth = data.ground_truth()
    assert {row["category_id"] for row in truth["annotations"]} == {7, 90}
    assert {row["id"] for row in truth["categories"]} == {7, 90}
    assert "1 of other classes" in " ".join(data.report())


def test_an_unknown_class_is_named_with_the_choices(root: Path) -> None:
    message = error_of(root, classes=["cat", "dgo"])
    assert "only in data.classes: 'dgo'" in message
    assert "'bird', 'dog'" in message


def test_classes_that_differ_between_the_splits_are_named(root: Path) -> None:
    other = content()
    other["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "cow"}]
    write(root, "val", other)
    message = error_of(root)
    assert "instances_train.json: 'bird', 'dog'" in message
    assert "instances_val.json: 'cow'" in message


def test_the_splits_may_number_the_same_classes_differently(root: Path) -> None:
    other = content(annotation([1, 1, 5, 5], category=1))
    names = ["dog", "cat", "bird"]
    other["categories"] = [{"id": key, "name": name} for key, name in enumerate(names)]
    write(root, "val", other)
    data = module(root)
    data.setup("fit")
    assert data.classes == CLASSES
    assert data.category_ids == [1, 2, 0]
    assert data.splits["val"].labels.tolist() == [0]


def test_only_the_validation_split_is_needed_to_validate(root: Path) -> None:
    (root / "annotations" / "instances_train.json").unlink()
    data = module(root)
    data.setup("validate")
    assert data.classes == CLASSES
    assert list(data.splits) == ["val"]


def test_templates_may_be_absolute_or_without_a_split(root: Path, tmp_path: Path) -> None:
    (root / "annotations" / "instances_train.json").rename(tmp_path / "all.json")
    data = module(tmp_path, annotations=str(tmp_path / "all.json"), images="train")
    data.setup("validate")
    assert len(data.splits["val"]) == 2


BROKEN = {
    "not JSON": ("{", "not a whole JSON file"),
    "a list": ([], "no list 'images'"),
    "no annotations": ({"images": [], "categories": []}, "no list 'annotations'"),
    "no images": (content(ids=()), "no images"),
    "no objects": (content(), "no objects to train on"),
    "no categories": ({**content(), "categories": []}, "no categories"),
    "unknown image": (content(annotation([1, 1, 2, 2], image=9)), "image_id 9"),
    "unknown category": (content(annotation([1, 1, 2, 2], category=1)), "category_id 1"),
    "image id twice": (content(ids=(4, 4)), "the id 4 occurs twice"),
    "text as image id": (content(ids=("a",)), "'a' is not a whole number"),  # type: ignore[arg-type]
    "short bbox": (content(annotation([1, 2, 3])), "needs a bbox"),
    "text in bbox": (content(annotation([1, 2, 3, "4 px"])), "needs a bbox"),  # type: ignore[list-item]
    "nothing in bbox": (content(annotation([1, 2, 3, None])), "needs a bbox"),  # type: ignore[list-item]
    "bbox of lists": (content(annotation([[1], [2], [3], [4]])), "needs a bbox"),  # type: ignore[list-item]
    "list as image": (content(annotation([1, 1, 2, 2], image=[1])), "image_id [1]"),  # type: ignore[arg-type]
    "no bbox": (content({"id": 1, "image_id": 1, "category_id": 7}), "needs bbox, category_id"),
    "name twice": (
        {**content(), "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]},
        "have the name 'a'",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_annotations_are_one_clear_line(root: Path, case: str) -> None:
    what, expected = BROKEN[case]
    text = what if isinstance(what, str) else json.dumps(what)
    (root / "annotations" / "instances_train.json").write_text(text)
    for name in ("4", "a"):
        cv2.imwrite(str(root / "train" / f"{name}.png"), np.zeros((60, 100, 3), np.uint8))
    message = error_of(root)
    assert expected in message
    assert "instances_train.json" in message


def test_missing_things_are_named(root: Path) -> None:
    assert "nowhere is missing (see data.root)" in error_of(root / "nowhere")
    assert "instances_val2.json" in error_of(root, val="val2")
    assert "image folder" in error_of(root, images="pictures_{split}")
    (root / "train" / "2.png").unlink()
    message = error_of(root)
    assert "1 of 2 images are missing" in message
    assert "2.png" in message


def test_the_difference_of_equal_classes_is_none() -> None:
    assert difference(["a", "b"], "x", ["b", "a"], "y") is None
    assert difference(["a", "b"], "x", ["b", "c"], "y") == "only in x: 'a'; only in y: 'c'"


@needs_real_data
def test_real_coco_counts() -> None:
    data = module(REAL / "coco256", train="train2017", val="val2017")
    data.setup("fit")
    truth = data.ground_truth()
    assert (len(data.classes), data.classes[0], data.classes[-1]) == (80, "person", "toothbrush")
    assert data.category_ids[-1] == 90
    assert [len(split) for split in data.splits.values()] == [128, 128]
    assert len(data.splits["train"].boxes) + sum(data.splits["train"].dropped.values()) == 929
    assert len(truth["annotations"]) == 898


@needs_real_data
def test_real_tracks_become_identities() -> None:
    folders = {"annotations": "annotations/{split}.json", "images": "images"}
    data = module(REAL / "pets09", **folders)
    data.setup("fit")
    identities = data.splits["train"].identities
    assert identities is not None
    assert len(identities) == 2858
    assert identities.min() >= 0
