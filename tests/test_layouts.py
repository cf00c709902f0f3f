"""Data sets as other tools write them are read rightly: what was drawn is what is learned.

Every case writes the same four scenes, two to train and two to validate on, in another form. A box
of a class's color lies where the annotations must say that it is, so that the images themselves
are the truth; and predictions made of that truth get AP 1 by the ground truth that is evaluated.
"""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from PIL import Image

from data import DataError
from data.datamodule import DataModule
from detector.evaluation.coco import coco_figures

HEIGHT, WIDTH = 60, 80
COLORS = {"cat": (250, 20, 20), "dog": (20, 20, 250)}
NAMES = list(COLORS)
Box = tuple[int, int, int, int]  # left, top, width, height


class Scene(NamedTuple):
    name: str  # without suffix
    objects: list[tuple[str, Box]]


SCENES = {
    "train": [
        Scene("a", [("cat", (10, 5, 20, 30)), ("dog", (40, 20, 30, 25))]),
        Scene("b", [("dog", (4, 8, 24, 16))]),
    ],
    "val": [
        Scene("c", [("cat", (30, 12, 36, 40))]),
        Scene("d", [("dog", (12, 30, 18, 22)), ("cat", (44, 2, 26, 26))]),
    ],
}
EMPTY = Scene("e", [])


def draw(path: Path, scene: Scene, orientation: int = 1) -> None:
    """A gray image with a rectangle of its class's color for each object."""
    pixels = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    for name, (left, top, width, height) in scene.objects:
        pixels[top : top + height, left : left + width] = COLORS[name]
    if orientation == 6:  # stored lying on its side, to be turned clockwise
        pixels = np.rot90(pixels)
    if orientation == 3:
        pixels = pixels[::-1, ::-1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    best = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}
    options: dict[str, Any] = best.get(path.suffix, {})
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, exif=exif, **options)


def draw_all(
    root: Path, place: str, suffix: str = ".png", orientation: int = 1, **more: list[Scene]
) -> None:
    """`place` is a folder in which {split} stands for the split's name."""
    for split, scenes in {**SCENES, **more}.items():
        for scene in scenes:
            draw(root / place.format(split=split) / f"{scene.name}{suffix}", scene, orientation)


def coco(scenes: list[Scene], suffix: str = ".png", prefix: str = "") -> dict[str, Any]:
    images, rows = [], []
    for number, scene in enumerate(scenes, start=1):
        file_name = f"{prefix}{scene.name}{suffix}"
        images.append({"id": number, "file_name": file_name, "height": HEIGHT, "width": WIDTH})
        for name, box in scene.objects:
            row = {"id": len(rows) + 1, "image_id": number, "category_id": NAMES.index(name) + 1}
            rows.append({**row, "bbox": list(box), "area": box[2] * box[3], "iscrowd": 0})
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)]
    return {"images": images, "annotations": rows, "categories": categories}


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def standard(root: Path, change: Callable[[dict[str, Any]], object], **options: Any) -> None:
    """annotations/instances_{split}.json and images in {split}, after a change of the content."""
    draw_all(root, "{split}", **options)
    for split, scenes in SCENES.items():
        content = coco(scenes, options.get("suffix", ".png"))
        change(content)
        write_json(root / "annotations" / f"instances_{split}.json", content)


def xml(scene: Scene, suffix: str = ".png", size: bool = True, attributes: str = "") -> str:
    text = f"<annotation{attributes}><filename>{scene.name}{suffix}</filename>"
    if size:
        text += f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    for name, (left, top, width, height) in scene.objects:
        text += f"<object><name>{name}</name><difficult>0</difficult><bndbox>"
        text += f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin>"
        text += f"<xmax>{left + width}</xmax><ymax>{top + height}</ymax></bndbox></object>"
    return text + "</annotation>"


def write(path: Path, text: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding)


def voc(root: Path, lines: Callable[[str], str] = str, suffix: str = ".jpg", **named: Any) -> None:
    """The layout of the devkit; `lines` is how a name is written in the lists."""
    draw_all(root, "JPEGImages", suffix)
    encoding = named.pop("encoding", "utf-8")
    for split, scenes in SCENES.items():
        text = "".join(f"{lines(scene.name)}\n" for scene in scenes)
        write(root / "ImageSets" / "Main" / f"{split}.txt", text, encoding)
        for scene in scenes:
            write(root / "Annotations" / f"{scene.name}.xml", xml(scene, suffix, **named))


def labels(scene: Scene, polygons: bool = False) -> str:
    text = ""
    for name, (left, top, width, height) in scene.objects:
        x = [share / WIDTH for share in (left, left + width)]
        y = [share / HEIGHT for share in (top, top + height)]
        numbers = [(x[0] + x[1]) / 2, (y[0] + y[1]) / 2, x[1] - x[0], y[1] - y[0]]
        if polygons:  # two more points than corners, none of them beyond the box
            numbers = [x[0], y[0], x[1], y[0], x[1], y[1], sum(x) / 2, y[1], x[0], y[1]]
        text += f"{NAMES.index(name)} {' '.join(f'{number:.8f}' for number in numbers)}\n"
    return text


def yolo(root: Path, images: str, places: str, suffix: str = ".jpg", **options: Any) -> None:
    draw_all(root, images, suffix, options.pop("orientation", 1))
    for split, scenes in SCENES.items():
        for scene in scenes:
            text = labels(scene, **options)
            write(root / places.format(split=split) / f"{scene.name}.txt", text)


def describe(root: Path, name: str = "data.yaml", **content: Any) -> None:
    write(root / name, yaml.safe_dump(content))


# Data sets of other tools. Each writes a folder; what it returns are further options.


def every_id_is_text(root: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for row in content["images"] + content["categories"]:
            row["id"] = str(row["id"])
        for row in content["annotations"]:
            row |= {key: str(row[key]) for key in ("id", "image_id", "category_id", "area")}
            row |= {"iscrowd": "0", "bbox": [str(side) for side in row["bbox"]]}

    standard(root, change)


def ids_are_floats_and_sizes_are_missing(root: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for row in content["images"]:
            row["id"] = float(row["id"])
            del row["width"], row["height"]
        for row in content["annotations"]:
            row |= {"image_id": float(row["image_id"]), "category_id": float(row["category_id"])}
            del row["area"], row["iscrowd"]

    standard(root, change)


def annotation_ids_are_all_0_and_areas_negative(root: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for row in content["annotations"]:
            row |= {"id": 0, "area": -row["area"]}

    standard(root, change)


def ids_begin_at_0_and_classes_are_in_another_order_in_val(root: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        is_val = content["images"][0]["file_name"].startswith("c")
        for row in content["images"] + content["categories"]:
            row["id"] = row["id"] - 1
        for row in content["annotations"]:
            row |= {"image_id": row["image_id"] - 1, "category_id": row["category_id"] - 1}
            if is_val:
                row["category_id"] = 1 - row["category_id"]
        if is_val:
            content["categories"] = [{"id": 0, "name": "dog"}, {"id": 1, "name": "cat"}]

    standard(root, change)


def roboflow_coco(root: Path) -> None:
    for split, folder in (("train", "train"), ("val", "valid")):
        content = coco(SCENES[split], ".jpg")
        content["info"] = {"description": "Exported from roboflow.com"}
        write_json(root / folder / "_annotations.coco.json", content)
        for scene in SCENES[split]:
            draw(root / folder / f"{scene.name}.jpg", scene)


def cvat_coco(root: Path) -> None:
    """One folder of images for both, whose names have the split's folder in them."""
    draw_all(root, "images/{split}")
    for split, scenes in SCENES.items():
        content = coco(scenes, prefix=f"{split}/")
        write_json(root / "annotations" / f"instances_{split}.json", content)


def label_studio_coco(root: Path) -> dict[str, Any]:
    """One file without splits, and names as Windows writes them."""
    draw_all(root, "images")
    scenes = [scene for scenes in SCENES.values() for scene in scenes]
    write_json(root / "result.json", coco(scenes, prefix="images\\"))
    return {"holdout": 0.5}


def coco_of_the_year_2017(root: Path) -> None:
    draw_all(root, "{split}2017")
    for split, scenes in SCENES.items():
        write_json(root / "annotations" / f"instances_{split}2017.json", coco(scenes))
        captions = {"images": [], "annotations": [], "categories": []}
        write_json(root / "annotations" / f"captions_{split}2017.json", captions)


def a_folder_of_another_name(root: Path) -> None:
    draw_all(root, "pictures")
    for split, scenes in SCENES.items():
        write_json(root / "labels_coco" / f"{split}.json", coco(scenes))


def fiftyone_coco(root: Path) -> None:
    draw_all(root, "{split}/data")
    for split, scenes in SCENES.items():
        write_json(root / split / "labels.json", coco(scenes))


def names_of_a_mac(root: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for row in content["images"]:
            row["file_name"] = unicodedata.normalize("NFC", f"é{row['file_name']}")

    standard(root, change)
    for path in [*root.glob("train/*"), *root.glob("val/*")]:
        path.rename(path.with_name(unicodedata.normalize("NFD", f"é{path.name}")))


def absolute_names(root: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for row in content["images"]:
            split = "train" if row["file_name"][0] in "ab" else "val"
            row["file_name"] = str(root / split / row["file_name"])

    standard(root, change)


def several_files_are_joined(root: Path) -> dict[str, Any]:
    draw_all(root, "{split}")
    for split, scenes in SCENES.items():
        for scene in scenes:  # each numbers its images, objects and classes anew
            part = f"{split}_{scene.name}"
            content = coco([scene])
            write_json(root / "annotations" / f"instances_{part}.json", content)
    return {"train": ["train_a", "train_b"], "val": ["val_c", "val_d"]}


def coco_in_utf16(root: Path) -> None:
    draw_all(root, "{split}")
    for split, scenes in SCENES.items():
        text = json.dumps(coco(scenes))
        write(root / "annotations" / f"instances_{split}.json", text, "utf-16")


def phone_pictures_in_coco(root: Path) -> None:
    standard(root, lambda content: None, suffix=".jpg", orientation=6)


def phone_pictures_upside_down(root: Path) -> None:
    standard(root, lambda content: None, suffix=".jpg", orientation=3)


def voc_of_the_devkit(root: Path) -> None:
    voc(root, lambda name: f"{name}  1")


def voc_lists_with_suffixes_and_a_mark(root: Path) -> None:
    voc(root, lambda name: f"{name}.jpg", encoding="utf-8-sig")


def voc_lists_with_quotes_and_paths(root: Path) -> None:
    voc(root, lambda name: f'"JPEGImages/{name}.jpg"', encoding="utf-16")


def voc_of_namespaces(root: Path) -> None:
    voc(root, attributes=' xmlns="http://example.org/voc"')


def voc_in_gbk(root: Path) -> None:
    voc(root, size=False)
    for path in (root / "Annotations").iterdir():
        text = path.read_text().replace("<filename>", "<filename>图")
        text = f'<?xml version="1.0" encoding="gbk"?>\n{text}'
        path.write_bytes(text.encode("gbk"))


def voc_of_webp(root: Path) -> None:
    voc(root, suffix=".webp")


def voc_of_tif(root: Path) -> None:
    voc(root, suffix=".TIF")


def voc_of_roboflow(root: Path) -> None:
    for split, folder in (("train", "train"), ("val", "valid")):
        for scene in SCENES[split]:
            draw(root / folder / f"{scene.name}.jpg", scene)
            write(root / folder / f"{scene.name}.xml", xml(scene, ".jpg"))


def voc_in_folders_of_splits(root: Path) -> None:
    draw_all(root, "images/{split}")
    for split, scenes in SCENES.items():
        for scene in scenes:
            write(root / "annotations" / split / f"{scene.name}.xml", xml(scene))


def labelimg(root: Path) -> dict[str, Any]:
    """xml files beside the images, no splits, and one image that has no objects and no file."""
    draw_all(root, "", empty=[EMPTY])
    for scenes in SCENES.values():
        for scene in scenes:
            write(root / f"{scene.name}.xml", xml(scene))
    return {"holdout": 0.4}


def yolo_of_ultralytics(root: Path) -> None:
    yolo(root, "images/{split}", "labels/{split}")
    describe(root, path=str(root), train="images/train", val="images/val", names=NAMES)


def yolo_of_another_machine(root: Path) -> None:
    yolo(root, "images/{split}", "labels/{split}")
    places = {split: f"/content/datasets/mine/images/{split}" for split in SCENES}
    describe(root, path="../datasets/mine", names=dict(enumerate(NAMES)), nc=2, **places)


def yolo_of_roboflow(root: Path) -> None:
    yolo(root, "{split}/images", "{split}/labels", polygons=True)
    (root / "val").rename(root / "valid")
    describe(root, train="../train/images", val="../valid/images", names=NAMES, nc=2)


def yolo_of_lists(root: Path) -> None:
    yolo(root, "data/images", "data/labels")
    for split, scenes in SCENES.items():
        text = "".join(f"./data/images/{scene.name}.jpg\n" for scene in scenes)
        write(root / f"{split}.txt", text)
    describe(root, "custom.yaml", train="train.txt", val=["val.txt"], names=NAMES)


def yolo_of_cvat(root: Path) -> None:
    """obj.data, obj.names, and lists of images whose labels lie beside them."""
    yolo(root, "obj_{split}_data", "obj_{split}_data")
    for split, name in (("train", "train"), ("val", "valid")):
        lines = [f"data/obj_{split}_data/{scene.name}.jpg\n" for scene in SCENES[split]]
        write(root / f"{name}.txt", "".join(lines))
    text = "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n"
    write(root / "obj.data", f"{text}backup = backup/\n")
    write(root / "obj.names", "cat\ndog\n")


def yolo_of_label_studio(root: Path) -> dict[str, Any]:
    """classes.txt, no data.yaml and no splits; an image without objects has no file."""
    yolo(root, "images", "labels")
    draw(root / "images" / "e.jpg", EMPTY)
    write(root / "classes.txt", "cat\ndog\n")
    return {"holdout": 0.4}


def yolo_in_folders_that_the_user_names(root: Path) -> dict[str, Any]:
    yolo(root, "pixels/{split}/camera", "boxes/{split}/camera")
    write(root / "helm.yaml", "a: [")  # is broken, and about something else
    write(root / "boxes" / "classes.txt", "cat\ndog\n")
    return {"images": "pixels/{split}", "annotations": "boxes/{split}", "format": "yolo"}


def yolo_of_keypoints(root: Path) -> None:
    yolo(root, "images/{split}", "labels/{split}")
    for path in root.glob("labels/*/*.txt"):
        lines = path.read_text().splitlines()
        path.write_text("".join(f"{line} 0.1 0.2 2.0 0.3 0.4 2.0\n" for line in lines))
    places = {split: f"images/{split}" for split in SCENES}
    describe(root, names=NAMES, kpt_shape=[2, 3], **places)


def yolo_of_phone_pictures(root: Path) -> None:
    yolo(root, "images/{split}", "labels/{split}", orientation=6)
    write(root / "labels" / "classes.txt", "cat\ndog\n")


CASES = [
    every_id_is_text,
    ids_are_floats_and_sizes_are_missing,
    annotation_ids_are_all_0_and_areas_negative,
    ids_begin_at_0_and_classes_are_in_another_order_in_val,
    roboflow_coco,
    cvat_coco,
    label_studio_coco,
    coco_of_the_year_2017,
    a_folder_of_another_name,
    fiftyone_coco,
    names_of_a_mac,
    absolute_names,
    several_files_are_joined,
    coco_in_utf16,
    phone_pictures_in_coco,
    phone_pictures_upside_down,
    voc_of_the_devkit,
    voc_lists_with_suffixes_and_a_mark,
    voc_lists_with_quotes_and_paths,
    voc_of_namespaces,
    voc_in_gbk,
    voc_of_webp,
    voc_of_tif,
    voc_of_roboflow,
    voc_in_folders_of_splits,
    labelimg,
    yolo_of_ultralytics,
    yolo_of_another_machine,
    yolo_of_roboflow,
    yolo_of_lists,
    yolo_of_cvat,
    yolo_of_label_studio,
    yolo_in_folders_that_the_user_names,
    yolo_of_keypoints,
    yolo_of_phone_pictures,
]


def open_data(root: Path, **options: Any) -> DataModule:
    size = {"size": (HEIGHT, WIDTH), "hflip": 0.0, "batch_size": 8, "workers": 0}
    data = DataModule(root=root, **size, **options)
    data.setup("fit")
    return data


def seen(data: DataModule, part: str) -> list[tuple[str, Box]]:
    """The objects that a batch shows, by what is painted in its images: the class of the color in
    every box, and the extent of that color."""
    loader = data.train_dataloader() if part == "train" else data.val_dataloader()
    objects = []
    for batch in loader:
        for image, boxes, labels_, valid in zip(
            *(batch[key] for key in ("images", "boxes", "labels", "valid")), strict=True
        ):
            for box, label in zip(boxes[valid].tolist(), labels_[valid].tolist(), strict=True):
                color = np.array(COLORS[data.classes[label]])
                near = np.abs(image.permute(1, 2, 0).numpy().astype(int) - color).max(2) < 90
                left, top, right, bottom = (round(side) for side in box)
                extent = np.pad(near, 1)[top : bottom + 2, left : right + 2]
                assert extent[1:-1, 1:-1].mean() > 0.97, "the box is not full of its color"
                edges = (extent[0], extent[-1], extent[:, 0], extent[:, -1])
                assert max(edge.mean() for edge in edges) < 0.1, "the color goes on outside"
                objects.append((data.classes[label], (left, top, right - left, bottom - top)))
    return sorted(objects)


def perfect_results(data: DataModule) -> list[dict[str, Any]]:
    """What a detector would say that sees what validation sees."""
    split = data.splits["val"]
    images = np.repeat(split.image_ids, np.diff(split.starts)).tolist()
    results = []
    for image_id, label, box in zip(images, split.labels, split.boxes.tolist(), strict=True):
        bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
        row = {"image_id": image_id, "category_id": data.category_ids[label], "score": 0.9}
        results.append({**row, "bbox": bbox})
    return results


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_what_other_tools_write_is_read_as_it_is_meant(
    tmp_path: Path, case: Callable[[Path], dict[str, Any] | None]
) -> None:
    data = open_data(tmp_path, **(case(tmp_path) or {}))
    assert data.classes == NAMES
    objects = {part: seen(data, part) for part in ("train", "val")}
    expected = {part: sorted(o for scene in SCENES[part] for o in scene.objects) for part in SCENES}
    if data.options.holdout:  # other images in each part, but the same ones in both together
        objects, expected = ({"all": sorted(x["train"] + x["val"])} for x in (objects, expected))
    assert objects == expected

    truth = data.ground_truth()
    split = data.splits["val"]
    perfect = []
    for index, image_id in enumerate(split.image_ids.tolist()):
        for box, label in zip(
            split.boxes[split.rows(index)].tolist(),
            split.labels[split.rows(index)].tolist(),
            strict=True,
        ):
            bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            row = {"image_id": image_id, "category_id": data.category_ids[label]}
            perfect.append({**row, "bbox": bbox, "score": 0.9})
    assert coco_figures(truth, perfect, full=False).summary["AP"] == pytest.approx(1)


def two_formats(root: Path) -> tuple[str, ...]:
    roboflow_coco(root)
    yolo(root, "images/{split}", "labels/{split}")
    describe(root, train="images/train", val="images/val", names=NAMES)
    return "COCO (train/_annotations.coco.json)", "YOLO (data.yaml)", "data.format coco|yolo"


def two_files_of_a_split(root: Path) -> tuple[str, ...]:
    draw_all(root, "images")
    for name in ("train_old", "train_new", "val"):
        write_json(root / f"{name}.json", coco(SCENES["train"]))
    return "train_new.json", "train_old.json", "data.annotations"


def two_files_without_a_split(root: Path) -> tuple[str, ...]:
    draw_all(root, "images")
    for name in ("first", "second"):
        write_json(root / f"{name}.json", coco(SCENES["train"]))
    return "first.json", "second.json", "data.annotations"


def two_folders_of_images(root: Path) -> tuple[str, ...]:
    standard(root, lambda content: None)
    for size in ("small", "large"):
        draw_all(root, size)
    for split in SCENES:
        (root / split).rename(root / f"{split}.old")
    for path in root.glob("*.old/*"):
        path.unlink()
    return "large", "small", "data.images"


def two_images_of_a_line(root: Path) -> tuple[str, ...]:
    voc(root, lambda name: f"{name} 1")
    for stem in ("a", "a 1"):
        draw(root / "JPEGImages" / f"{stem}.jpg", EMPTY)
    return "'a 1'", "the image 'a' or 'a 1'", "rename"


def two_images_of_a_name(root: Path) -> tuple[str, ...]:
    voc(root)
    draw(root / "JPEGImages" / "a.png", EMPTY)
    return "a.jpg", "a.png", "could both be meant"


def two_label_files(root: Path) -> tuple[str, ...]:
    yolo(root, "images/{split}", "labels/{split}")
    write(root / "images" / "train" / "a.txt", "")
    write(root / "classes.txt", "cat\ndog\n")
    return "images/train/a.txt", "labels/train/a.txt", "could both be meant"


def two_descriptions(root: Path) -> tuple[str, ...]:
    yolo(root, "images/{split}", "labels/{split}")
    for name in ("data.yaml", "other.yaml"):
        describe(root, name, train="images/train", val="images/val", names=NAMES)
    return "data.yaml", "other.yaml", "data.annotations"


def another_split(root: Path) -> tuple[str, ...]:
    voc_in_folders_of_splits(root)
    (root / "images" / "val").rename(root / "images" / "test")
    return "no images of the split 'val'", "there are: test, train"


def folders_of_lists(root: Path) -> tuple[str, ...]:
    voc(root / "VOC2007")
    return "train.txt is missing", "VOC2007/train, VOC2007/val"


def one_split_in_yaml(root: Path) -> tuple[str, ...]:
    yolo(root, "images/{split}", "labels/{split}")
    describe(root, train="images/train", names=NAMES)
    return "data.yaml has no split 'val'; there are: train", "data.holdout"


def nothing(root: Path) -> tuple[str, ...]:
    draw_all(root, "pictures")
    return "no annotations of COCO", "it has pictures", "data.root", "--data.format shapes"


UNCLEAR = [
    two_formats,
    two_files_of_a_split,
    two_files_without_a_split,
    two_folders_of_images,
    two_images_of_a_line,
    two_images_of_a_name,
    two_label_files,
    two_descriptions,
    another_split,
    folders_of_lists,
    one_split_in_yaml,
    nothing,
]


def error_of(root: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        open_data(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("case", UNCLEAR, ids=lambda case: case.__name__)
def test_what_could_mean_two_things_is_one_line_with_both(
    tmp_path: Path, case: Callable[[Path], tuple[str, ...]]
) -> None:
    expected = case(tmp_path)
    line = error_of(tmp_path)
    for text in expected:
        assert text in line


def test_a_file_for_both_splits_is_refused_unless_a_share_is_set_apart(tmp_path: Path) -> None:
    standard(tmp_path, lambda content: None)
    options = {"annotations": "annotations/instances_train.json", "images": "train"}
    assert "{split}" in (line := error_of(tmp_path, **options))
    assert "data.holdout" in line
    assert len(open_data(tmp_path, holdout=0.5, **options).splits["val"]) == 1


@pytest.mark.parametrize("text", ["{0}", "$PARENT/{1}", "~/{1}", "${{PARENT}}/{1}"])
def test_home_and_variables_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    roboflow_coco(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    monkeypatch.setenv("PARENT", str(tmp_path.parent))
    root = text.format(tmp_path, tmp_path.name)
    assert len(open_data(root).splits["train"]) == 2  # type: ignore[arg-type]


def test_a_missing_folder_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = error_of(Path("mine"))
    assert f"the data folder {tmp_path / 'mine'} is missing" in line
    assert "'mine'" in line
    assert "--data.format shapes draws images there" in line
    assert "shapes" not in error_of(Path("mine"), format="voc")
    (tmp_path / "data.yaml").touch()
    assert "is a file: give its folder" in error_of(tmp_path / "data.yaml")


def test_all_objects_can_be_of_one_class(tmp_path: Path) -> None:
    roboflow_coco(tmp_path)
    data = open_data(tmp_path, single_class=True)
    assert data.classes == ["object"]
    assert data.splits["train"].labels.tolist() == [0, 0, 0]
    assert [row["category_id"] for row in data.ground_truth()["annotations"]] == [1, 1, 1]
    again = open_data(tmp_path, single_class=True, classes=["object"])  # as a run remembers it
    assert again.ground_truth() == data.ground_truth()
    assert open_data(tmp_path, single_class=True, classes=["animal"]).classes == ["animal"]


def test_a_run_finds_the_same_images_set_apart_again(tmp_path: Path) -> None:
    labelimg(tmp_path)
    data = open_data(tmp_path)
    assert any("no splits there, so 20% of the images" in line for line in data.report())
    assert len(data.splits["val"]) == 1  # of 5
    names = {Path(path).name for split in data.splits.values() for path in split.paths}
    assert len(names) == 5
    alone = DataModule(root=tmp_path, classes=data.classes, workers=0)
    alone.setup("validate")
    assert alone.splits["val"].paths == data.splits["val"].paths


def test_validation_data_may_lack_a_class_but_not_have_another_instead(tmp_path: Path) -> None:
    standard(tmp_path, lambda content: None)
    path = tmp_path / "annotations" / "instances_val.json"
    content = coco(SCENES["val"])
    content["annotations"] = [row for row in content["annotations"] if row["category_id"] == 1]
    del content["categories"][1]
    write_json(path, content)
    data = open_data(tmp_path)
    assert (data.classes, data.category_ids) == (NAMES, [1, 2])
    assert len(data.ground_truth()["categories"]) == 2
    content["categories"].append({"id": 2, "name": "Dog"})
    write_json(path, content)
    line = error_of(tmp_path)
    assert "'dog'" in line
    assert "'Dog'" in line
