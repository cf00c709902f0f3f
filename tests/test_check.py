"""What is wrong with data is a line that says so: an error where it cannot be meant."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data import DataError
from data.datamodule import DataModule

Content = dict[str, Any]
NAN = float("nan")


def save(root: Path, split: str, content: Content) -> None:
    """The annotations, and an image of 60 x 100 pixels for each, all of them different."""
    for name in ("annotations", split):
        (root / name).mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    for image in content["images"]:
        path = root / split / image["file_name"]
        pixels = np.full((60, 100, 3), sum(map(ord, f"{split}{path.stem}")) % 250, np.uint8)
        cv2.imwrite(str(path), pixels)


def content(prefix: str) -> Content:
    """Four images with two objects each, a cat and a dog."""
    names = [f"{prefix}{number}.png" for number in range(4)]
    size = {"height": 60, "width": 100}
    images = [{"id": key, "file_name": name, **size} for key, name in enumerate(names)]
    boxes = [[30, 4, 20, 30], [60, 20, 30, 25]]
    rows = [
        {"id": 0, "image_id": key, "category_id": kind, "bbox": list(boxes[kind]), "iscrowd": 0}
        for key in range(4)
        for kind in range(2)
    ]
    categories = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    return {"images": images, "annotations": rows, "categories": categories}


def rows(change: Callable[[Content, int], object]) -> Callable[[Content], None]:
    """A change of every annotation, which gets its number too."""

    def change_all(content: Content) -> None:
        for number, row in enumerate(content["annotations"]):
            change(row, number)

    return change_all


def boxes(change: Callable[..., list[float]], share: float = 1.0) -> Callable[[Content], None]:
    """A change of the boxes of a share of the annotations."""
    return rows(
        lambda row, number: row.update(
            bbox=change(*row["bbox"]) if number < share * 8 else row["bbox"]
        )
    )


def one_file_two_ids(content: Content) -> None:
    content["images"][1]["file_name"] = content["images"][0]["file_name"]


def no_dogs(content: Content) -> None:
    content["annotations"] = content["annotations"][::2]


def other_case(content: Content) -> None:
    content["categories"].append({"id": 2, "name": "Dog "})


def no_annotations(content: Content) -> None:
    content["annotations"] = []


def whole_images(row: Content, number: int) -> None:
    if number % 2:
        row.update(iscrowd=1, bbox=[1, 0, 99, 59])


ERRORS = {
    "shares of the image": (
        boxes(lambda x, y, w, h: [x / 100, y / 60, w / 100, h / 60]),
        "8 of 8 boxes end within the first pixel: if they are shares of the image",
    ),
    "most are shares": (boxes(lambda x, y, w, h: [0.1, 0.1, 0.5, 0.5], 0.7), "6 of 8 boxes end"),
    "x2 < x1": (boxes(lambda x, y, w, h: [x + w, y, -w, h]), "8 of 8 boxes have no area"),
    "sides of 0": (boxes(lambda x, y, w, h: [x, y, 0, 0], 0.7), "6 of 8 boxes have no area"),
    "of larger images": (
        boxes(lambda x, y, w, h: [10 * x, 10 * y, w, h]), "8 of 8 boxes lie off their images"
    ),
    "x1, y1, x2, y2": (
        boxes(lambda x, y, w, h: [x, y, x + w, y + h]),
        "4 of 8 boxes leave their images, and all would be inside if bbox were x1, y1, x2, y2",
    ),
    "crowds only": (rows(lambda row, number: row.update(iscrowd=1)), "all 8 are crowds"),
    "difficult only": (rows(lambda row, number: row.update(difficult="1")), "all 8 are crowds"),
    "none at all": (no_annotations, "has no objects to"),
    "none that is finite": (boxes(lambda x, y, w, h: [x, NAN, w, h]), "8 boxes not finite"),
    "crowds over all": (rows(whole_images), "a crowd covers nearly all of 4 of 4 images"),
    "one file, two ids": (one_file_two_ids, "has the ids 0 and 1"),
    "text as truth": (
        rows(lambda row, number: row.update(iscrowd="maybe")), "has iscrowd 'maybe': write 0 or 1"
    ),
    "text as area": (rows(lambda row, number: row.update(area="big")), "has the area 'big'"),
}  # fmt: skip
WARNINGS = {
    "some are shares": (
        boxes(lambda x, y, w, h: [0.1, 0.1, 0.5, 0.5], 0.2), "2 of 8 boxes end within"
    ),
    "some have no area": (boxes(lambda x, y, w, h: [x, y, w, 0], 0.2), "2 of 8 boxes have no"),
    "some are off": (boxes(lambda x, y, w, h: [x + 200, y, w, h], 0.2), "2 of 8 boxes lie off"),
    "a class of nothing": (no_dogs, "no object of 'dog': "),
    "case and blanks": (other_case, "the classes 'dog', 'Dog ' differ only in case or blanks"),
    "a crowd over one image": (
        rows(lambda row, number: whole_images(row, number) if number < 2 else None),
        "a crowd covers nearly all of 1 of 4 images",
    ),
    "negative areas": (rows(lambda row, number: row.update(area=-600)), "8 areas are below 0"),
    "tiny": (
        boxes(lambda x, y, w, h: [x, y, 1.5, 1.5], 0.2), "2 of 8 objects have less than 4 square"
    ),
}  # fmt: skip
QUIET = {
    "nothing": lambda content: None,
    "text that means 0": rows(lambda row, number: row.update(iscrowd="0", area="600")),
    "text that means false": rows(lambda row, number: row.update(iscrowd="False")),
    "a null": rows(lambda row, number: row.update(iscrowd=None, area=None)),
    "over the border": boxes(lambda x, y, w, h: [x, y, w + 30, h], 0.2),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        save(tmp_path, split, content(split))
    return tmp_path


def read(root: Path, **options: Any) -> DataModule:
    data = DataModule(root=root, size=(60, 100), workers=0, **options)
    data.setup("fit")
    return data


def warnings_of(data: DataModule) -> list[str]:
    return [line for line in data.report() if line.startswith("warning: ")]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_meant_is_an_error(root: Path, case: str, split: str) -> None:
    change, expected = ERRORS[case]
    changed = content(split)
    change(changed)
    save(root, split, changed)
    with pytest.raises(DataError) as caught:
        read(root)
    line = str(caught.value)
    assert expected in line
    assert f"instances_{split}.json" in line
    assert "\n" not in line


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("case", WARNINGS)
def test_what_may_be_meant_is_a_line(root: Path, case: str, split: str) -> None:
    change, expected = WARNINGS[case]
    changed = content(split)
    change(changed)
    save(root, split, changed)
    if case == "case and blanks":
        save(root, {"train": "val", "val": "train"}[split], changed)
    lines = warnings_of(read(root))
    assert any(expected in line for line in lines)
    follow = (expected, "no object of 'Dog '", "2 of 8 objects have less than 4 square")
    assert not [line for line in lines if not any(text in line for text in follow)]


@pytest.mark.parametrize("case", QUIET)
def test_what_is_right_says_nothing(root: Path, case: str) -> None:
    for split in ("train", "val"):
        changed = content(split)
        QUIET[case](changed)
        save(root, split, changed)
    data = read(root)
    assert not warnings_of(data)
    assert not data.splits["train"].ignore.any()
    for row in data.ground_truth()["annotations"]:
        assert not row["iscrowd"]
        assert row.get("area") in (None, 600.0, 750.0)


def test_images_in_both_splits_are_named_by_path_and_by_content(root: Path) -> None:
    assert not warnings_of(read(root))
    shutil.copy(root / "train" / "train2.png", root / "val" / "val1.png")
    (line,) = warnings_of(read(root))
    assert "1 of 4 val images are also in train, the first: " in line
    assert "val1.png" in line
    both = read(root, train=["train", "val"])
    (line,) = warnings_of(both)
    assert "4 of 4 val images are also in train" in line


def test_large_data_are_not_read_twice_while_training_starts(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(root / "train" / "train2.png", root / "val" / "val1.png")
    monkeypatch.setattr("data.check.QUICK", 7)
    assert not warnings_of(read(root))


def test_percent_is_suspected_where_no_box_of_large_images_goes_beyond_100(root: Path) -> None:
    for split in ("train", "val"):
        changed = content(split)
        for image in changed["images"]:
            image |= {"height": 600, "width": 1000}
        changed["annotations"] *= 3  # 24 boxes, which end at 90 and at 45
        save(root, split, changed)
    assert any("are these shares in percent?" in line for line in warnings_of(read(root)))
