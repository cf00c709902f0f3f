"""What a look into every file tells, and the page of scripts/check_data.py."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data.check import Finding
from data.check_files import Facts, check_counts, check_files, check_labels, check_likeness, inspect
from data.datamodule import DataModule
from scripts import check_data

SIZE = (120, 160)
BOXES = [[10, 10, 60, 50], [80, 40, 50, 70]]


def picture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Soft spots, which look alike when they are a little brighter or compressed."""
    random = np.random.default_rng(seed)
    spots = random.uniform(0, 255, (6, 8, 3)).astype(np.float32)
    return cv2.resize(spots, size[::-1], interpolation=cv2.INTER_CUBIC).clip(0, 255)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels.astype(np.uint8))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four images to train on and three to validate on, each with two objects."""
    for split, seeds in (("train", range(4)), ("val", range(4, 7))):
        images, rows = [], []
        for seed in seeds:
            save(tmp_path / split / f"{seed}.jpg", picture(seed))
            size = {"height": SIZE[0], "width": SIZE[1]}
            images.append({"id": seed, "file_name": f"{seed}.jpg", **size})
            for category, box in enumerate(BOXES):
                rows.append({"image_id": seed, "category_id": category, "bbox": box})
        categories = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
        content = {"images": images, "annotations": rows, "categories": categories}
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return tmp_path


def edit(root: Path, split: str, **changes: list) -> None:
    """More annotations."""
    path = root / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    content["annotations"] += changes["annotations"]
    path.write_text(json.dumps(content))


def read(root: Path) -> tuple[DataModule, dict[str, list[Facts]]]:
    data = DataModule(root=root, size=SIZE, workers=0)
    data.read(["train", "val"])
    return data, {part: inspect(split, part) for part, split in data.splits.items()}


def findings_of(root: Path) -> list[Finding]:
    data, facts = read(root)
    findings = []
    for part, split in data.splits.items():
        findings += check_files(part, split, facts[part]) + check_labels(part, split)
    train, val = data.splits["train"], data.splits["val"]
    return findings + check_likeness(train, facts["train"], val, facts["val"])


def test_nothing_is_said_of_data_in_order(root: Path) -> None:
    assert not findings_of(root)


def test_files_that_cannot_be_used_are_an_error(root: Path) -> None:
    (root / "train" / "1.jpg").write_bytes(b"no image")
    save(root / "train" / "2.jpg", picture(2, (100, 160)))
    (finding,) = findings_of(root)
    assert finding.level == "error"
    assert "2 images cannot be used, the first: cannot decode the image" in finding.line
    assert [Path(path).name for path in finding.images] == ["1.jpg", "2.jpg"]


def test_an_image_annotated_as_it_is_stored_is_named(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = picture(0).astype(np.uint8)
    Image.fromarray(pixels).save(root / "train" / "0.jpg", exif=exif)
    (finding,) = findings_of(root)
    assert "1 images are to be turned by their EXIF data, but are annotated as they" in finding.line


def test_copies_and_leaks_are_named_by_content(root: Path) -> None:
    shutil.copy(root / "train" / "0.jpg", root / "train" / "3.jpg")
    shutil.copy(root / "train" / "1.jpg", root / "val" / "5.jpg")
    copies, leaks = findings_of(root)
    assert "train: 1 images are copies of others, the first: " in copies.line
    assert [Path(path).name for path in copies.images] == ["0.jpg", "3.jpg"]
    assert leaks.line.startswith("1 of 3 val images are also in train, the first: ")
    assert [Path(path).name for path in leaks.images] == ["5.jpg"]


def test_an_image_that_looks_like_one_in_train_is_named(root: Path) -> None:
    pytest.importorskip("imagehash")
    save(root / "val" / "6.jpg", picture(2) * 0.9 + 12)  # paler
    (finding,) = findings_of(root)
    assert finding.line.startswith("1 of 3 val images look like one in train")
    assert [Path(path).parent.name + Path(path).stem for path in finding.images] == [
        "val6",
        "train2",
    ]


def test_odd_labels_are_named(root: Path) -> None:
    same, other, thin = (
        {"image_id": 2, "category_id": category, "bbox": box}
        for category, box in ((0, BOXES[0]), (0, BOXES[1]), (1, [5, 5, 1.5, 30]))
    )
    edit(root, "train", annotations=[same, other, thin])
    lines = [finding.line for finding in findings_of(root)]
    assert [line.partition(" (")[0] for line in lines] == [
        "train: 1 of 11 objects are there twice with the same class: remove one of each",
        "train: 1 of 11 objects are there twice with two classes: remove the wrong one",
        "train: 1 of 11 objects are under 2 pixels wide or high",
    ]
    assert all("train/2.jpg" in line for line in lines)


def test_boxes_around_whole_images_are_named(root: Path) -> None:
    row = {"image_id": 2, "category_id": 0, "bbox": [0, 0, 160, 120]}
    edit(root, "train", annotations=[row])
    (finding,) = findings_of(root)
    assert "1 of 9 objects cover a whole image" in finding.line


def test_more_objects_than_are_detected_are_named(root: Path) -> None:
    data, _ = read(root)
    assert not check_counts("train", data.splits["train"], 2)
    (finding,) = check_counts("train", data.splits["train"], 1)
    assert finding.line.startswith("train: 4 images have more than 1 objects, up to 2")


def test_the_page_says_what_was_found_and_the_files_hold_it(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(root / "train" / "1.jpg", root / "val" / "5.jpg")
    out = root.parent / "checked"
    words = ["--data.root", str(root), "--data.size", "[120, 160]", "--out", str(out)]
    assert check_data.main([*words, "--postprocess.max_detections", "1"]) == 0
    page = capsys.readouterr().out
    assert page.count("images are also in train") == 1
    # 60 x 50 and 50 x 70 at the size of the file: square roots 54.8 and 59.2
    assert ["train", *["55"] * 3, "57", "59", "59"] in [line.split() for line in page.splitlines()]
    assert ["cat", "4", "3"] in [line.split() for line in page.splitlines()]
    assert "4 images have more than 1 objects" in page
    assert page.endswith("0 errors, 3 warnings\n")
    assert (out / "report.txt").read_text() == page
    report = json.loads((out / "report.json").read_text())
    assert [finding["level"] for finding in report["findings"]] == ["warning"] * 3
    assert report["tables"][0][0] == {"objects": "cat", "train": 4, "val": 3}
    assert cv2.imread(str(out / "worst.jpg")) is not None


def test_objects_that_fit_no_anchor_are_counted(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The smallest anchors have 32 pixels, too many for a box of 6 in the middle of a cell."""
    row = {"image_id": 2, "category_id": 0, "bbox": [101, 13, 6, 6]}
    edit(root, "train", annotations=[row])
    words = ["--data.root", str(root), "--data.size", "[120, 160]"]
    assert check_data.main(words) == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if "fit no anchor" in x)
    assert "train: 1 of 9 objects in 4 images fit no anchor, and get one by force" in line
    check_data.main([*words, "--model.anchors.sizes", "[6, 32, 64, 128, 256]"])
    assert "fit no anchor" not in capsys.readouterr().out


def test_errors_are_the_exit_status(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "val" / "5.jpg").write_bytes(b"")
    assert check_data.main(["--data.root", str(root)]) == 1
    assert "error: val: 1 images cannot be used" in capsys.readouterr().out
    (root / "val" / "5.jpg").unlink()
    assert check_data.main(["--data.root", str(root)]) == 1
    assert "error: 1 of 3 images are missing" in capsys.readouterr().out


def test_a_file_of_another_is_not_overwritten(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root.parent / "report.txt").write_text("mine")
    with pytest.raises(SystemExit) as caught:
        check_data.main(["--data.root", str(root), "--out", str(root.parent)])
    assert caught.value.code == 2
    assert "report.txt exists" in capsys.readouterr().err
    assert (root.parent / "report.txt").read_text() == "mine"
