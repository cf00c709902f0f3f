import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from data import DataError
from data.datamodule import DataModule
from data.voc import voc_to_coco
from tests.conftest import REAL, needs_real_data

Row = tuple[str, tuple[object, ...], int]  # name, xmin ymin xmax ymax, difficult


def xml(*rows: Row, size: tuple[int, int] | None = (60, 100)) -> str:
    """`size` is height and width."""
    text = "<annotation><filename>a lie.jpg</filename>"
    if size:
        text += f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    for name, box, difficult in rows:
        sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        text += f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>"
        text += "".join(f"<{side}>{value}</{side}>" for side, value in sides)
        # A body part has a name and a box of its own, which are not the object's.
        text += "</bndbox><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
    return text + "</annotation>"


def write(folder: Path, split: str, extension: str = ".jpg", **images: str) -> None:
    for name in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    lines = [f"{stem}  -1\n" for stem in images]
    (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(lines) + "\n")
    for stem, text in images.items():
        (folder / "Annotations" / f"{stem}.xml").write_text(text)
        path = folder / "JPEGImages" / f"{stem}{extension}"
        cv2.imwrite(str(path), np.full((60, 100, 3), 90, np.uint8))


def module(root: Path, **options: Any) -> DataModule:
    return DataModule(
        **{"format": "voc", "root": root, "train": "train", "val": "val", "workers": 0, **options}
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    cat, dog = ("cat", (1, 1, 20, 30), 0), ("dog", (11, 21, 50, 60), 1)
    write(tmp_path, "train", b=xml(cat, dog), a=xml(cat), c=xml())
    write(tmp_path, "val", ".PNG", d=xml(cat))
    return tmp_path


def test_boxes_start_one_pixel_earlier_than_the_xml_says(root: Path) -> None:
    data = module(root)
    data.setup("fit")
    split = data.splits["train"]
    # "1" is the first pixel: its left edge is 0, and the right edge of the pixel "20" is 20.
    assert split.boxes[0].tolist() == [0, 0, 20, 30]
    assert split.boxes[1].tolist() == [10, 20, 50, 60]
    assert split.ignore.tolist() == [False, True, False]
    assert split.image_ids.tolist() == [1, 2, 3]
    assert [Path(path).stem for path in split.paths] == ["b", "a", "c"]  # the list's order
    assert split.dropped["without area"] == 0


def test_classes_are_those_of_both_splits_sorted(root: Path) -> None:
    write(root, "val", e=xml(("ant", (1, 1, 5, 5), 0)))
    data = module(root)
    data.setup("validate")
    assert data.classes == ["ant", "cat", "dog"]
    assert data.category_ids == [1, 2, 3]
    assert list(data.splits) == ["val"]


def test_chosen_classes_keep_their_order_and_leave_the_others_out(root: Path) -> None:
    data = module(root, classes=["cat"])
    data.setup("fit")
    assert data.classes == ["cat"]
    assert len(data.splits["train"].boxes) == 2
    assert data.splits["train"].dropped["of other classes"] == 1
    assert data.ground_truth() == voc_to_coco(root, "val", ["cat"])


def test_chosen_classes_that_do_not_occur_are_named(root: Path) -> None:
    with pytest.raises(
        DataError, match=r"only in data.classes: 'dgo'; only in the data: 'cat', 'dog'$"
    ):
        module(root, classes=["dgo"]).setup("fit")
    with pytest.raises(DataError, match="dgo"):
        module(root, classes=["dgo"]).setup("validate")


def test_a_validation_split_may_lack_a_class(root: Path) -> None:
    data = module(root, classes=["dog", "cat"])
    data.setup("validate")  # "val" has cats only
    assert data.category_ids == [1, 2]


def test_roots_are_joined_in_order(tmp_path: Path) -> None:
    cat = ("cat", (1, 1, 5, 5), 0)
    write(tmp_path / "VOC2007", "trainval", x=xml(cat))
    write(tmp_path / "VOC2012", "trainval", ".png", x=xml(cat, cat), y=xml())
    content = voc_to_coco(tmp_path, ["VOC2012/trainval", "VOC2007/trainval"])
    names = ["VOC2012/JPEGImages/x.png", "VOC2012/JPEGImages/y.png", "VOC2007/JPEGImages/x.jpg"]
    assert [image["file_name"] for image in content["images"]] == names
    assert [image["id"] for image in content["images"]] == [1, 2, 3]
    assert [row["image_id"] for row in content["annotations"]] == [1, 1, 3]
    joined = ["VOC2007/trainval", "VOC2012/trainval"]
    data = module(tmp_path, train=joined, val="VOC2007/trainval", batch_size=3)
    assert next(iter(data.train_dataloader()))["images"].shape[0] == 3


@pytest.mark.parametrize("size", [None, (0, 0)])
def test_a_size_that_the_xml_lacks_is_read_from_the_file(
    tmp_path: Path, size: tuple[int, int] | None
) -> None:
    write(tmp_path, "train", a=xml(size=size))
    image = voc_to_coco(tmp_path, "train")["images"][0]
    assert (image["height"], image["width"]) == (60, 100)


def test_converted_data_loads_in_pycocotools(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "train.json"
    script = Path(__file__).parents[1] / "scripts" / "voc2coco.py"
    command = [sys.executable, str(script), str(root), "train", "val", "--out", str(out)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "4 images, 4 annotations, 2 categories" in result.stdout
    loaded = COCO(str(out))
    assert [row["id"] for row in loaded.loadCats(loaded.getCatIds())] == [1, 2]
    dog = loaded.loadAnns(loaded.getAnnIds(catIds=[2]))
    # 11..50 is 40 pixels wide, 21..60 is 40 high: 1600 pixels
    expected = {"bbox": [10, 20, 40, 40], "area": 1600, "iscrowd": 1, "difficult": 1, "id": 2}
    assert dog == [{"image_id": 1, "category_id": 2, **expected}]
    assert json.loads(out.read_text()) == voc_to_coco(root, ["train", "val"])
    data = module(root, format="coco", annotations=str(out), images=".")
    data.setup("validate")
    assert len(data.splits["val"].boxes) == 4


def test_the_script_names_what_is_missing_in_one_line(root: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "scripts" / "voc2coco.py"
    command = [sys.executable, str(script), str(root), "tset", "--out", str(tmp_path / "x.json")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "tset.txt is missing; there are: train, val" in result.stderr


def test_missing_and_broken_files_are_one_clear_line(root: Path) -> None:
    def message() -> str:
        with pytest.raises(DataError) as caught:
            module(root).setup("fit")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    path = root / "Annotations" / "a.xml"
    for text, expected in (
        ("<annotation><object>", "no element found"),
        ("<annotation><object><name>cat</name></object></annotation>", "its bndbox"),
        (xml(("cat", ("left", 1, 2, 3), 0)), "['left', '1', '2', '3']"),
    ):
        path.write_text(text)
        assert expected in (line := message())
        assert str(path) in line
    path.unlink()
    assert f"cannot read the annotations {path}" in message()
    (root / "JPEGImages" / "b.jpg").unlink()
    assert "1 of 3 images are missing" in (line := message())
    assert "the first: b" in line
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\na\n")
    assert "names the image a twice" in message()
    (root / "ImageSets" / "Main" / "train.txt").write_text("\n")
    assert "(train) has no images" in message()
    (root / "ImageSets" / "Main" / "train.txt").unlink()
    assert "train.txt is missing; there are: val" in message()


def test_a_missing_folder_of_images_is_named(root: Path) -> None:
    (root / "JPEGImages").rename(root / "elsewhere")
    with pytest.raises(DataError, match=r"image folder .*JPEGImages is missing"):
        voc_to_coco(root, "train")


@needs_real_data
@pytest.mark.parametrize(
    ("name", "val", "images", "boxes", "classes"),
    [
        ("bccd", "test", 72, 945, ["Platelets", "RBC", "WBC"]),
        ("neu_det", "val", 360, 883, None),
    ],
)
def test_real_voc_counts(
    name: str, val: str, images: int, boxes: int, classes: list[str] | None
) -> None:
    root = REAL / name
    content = voc_to_coco(root, val)
    assert len(content["images"]) == images
    # Counted independently: the objects in the text of the xml files.
    stems = (root / "ImageSets" / "Main" / f"{val}.txt").read_text().split()
    texts = [(root / "Annotations" / f"{stem}.xml").read_text() for stem in stems]
    assert len(content["annotations"]) == sum(text.count("<object>") for text in texts) == boxes
    if classes:
        assert [row["name"] for row in content["categories"]] == classes
    assert all(min(row["bbox"][2:]) > 0 and row["bbox"][0] >= 0 for row in content["annotations"])
