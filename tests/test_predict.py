import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

import eval as evaluation
from data.datamodule import DataModule
from data.pictures import View
from detector.config.files import RECORD
from detector.config.resolve import load, save
from detector.evaluation.drawing import Marks, add_title
from detector.evaluation.formats import Seen
from detector.evaluation.sinks import Folder

Capture = pytest.CaptureFixture[str]
SCRIPT = Path(__file__).parents[1] / "scripts" / "predict.py"


EVERYTHING = ["--score", "0", "--postprocess.score_threshold", "0"]


def shape(path: Path) -> tuple[int, ...]:
    image = cv2.imread(str(path))
    assert image is not None
    return image.shape


@pytest.fixture(scope="module")
def predict() -> ModuleType:
    spec = importlib.util.spec_from_file_location("predict", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_folder_gives_pictures_and_rows_and_names_what_it_skips(
    predict: ModuleType, run: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name, size in (("wide.jpg", (60, 90, 3)), ("high.png", (90, 50, 3))):
        cv2.imwrite(str(folder / name), np.random.default_rng(0).integers(0, 255, size, np.uint8))
    (folder / "broken.jpg").write_text("no image")
    (folder / "notes.txt").write_text("no image at all")
    predict.main([str(run), str(folder), "--out", str(out), *EVERYTHING])
    names = {"wide.jpg", "high.png"}
    assert {path.name for path in out.iterdir()} == names | {"detections.json", RECORD}
    assert shape(out / "wide.jpg") == (420, 630, 3)  # 640 / 90 is about 7
    rows = json.loads((out / "detections.json").read_text())
    assert {row["file_name"] for row in rows} == names
    assert {tuple(row) for row in rows} == {("file_name", "category", "bbox", "score")}
    for row in rows:
        x, y, width, height = row["bbox"]
        limit = (90, 60) if row["file_name"] == "wide.jpg" else (50, 90)
        assert min(x, y, width, height) >= 0
        assert x + width <= limit[0] + 1e-3
        assert y + height <= limit[1] + 1e-3
    printed = capsys.readouterr()
    assert f"skipped: cannot decode the image {folder / 'broken.jpg'}" in printed.err
    assert "notes.txt" not in printed.err


def test_a_split_stands_beside_its_ground_truth(
    predict: ModuleType, run: Path, tmp_path: Path
) -> None:
    predict.main([str(run), "--split", "val", "--count", "3", "--out", str(tmp_path)])
    data = DataModule(**load(run / "config.yaml")["data"])
    data.setup("validate")
    files = list(data.file_names.values())
    expected = {files[0], files[2], files[5]}  # 0, 2.5 and 5 of the 6 images
    assert {path.name for path in tmp_path.glob("*.jpg")} == expected
    height, width, _ = shape(tmp_path / files[0])
    assert max(height - 24, (width - 6) // 2) == 480  # a caption above, a gap between
    assert (tmp_path / "sheet.png").is_file()


def test_rows_of_a_split_have_the_ids_of_the_data_set(
    predict: ModuleType, run: Path, tmp_path: Path
) -> None:
    words = ["--split", "val", "--count", "6", "--out", str(tmp_path)]
    predict.main([str(run), *words, *EVERYTHING])
    rows = json.loads((tmp_path / "detections.json").read_text())
    data = DataModule(**load(run / "config.yaml")["data"])
    data.setup("validate")
    names = {row["id"]: row["name"] for row in data.ground_truth()["categories"]}
    assert rows
    assert all(row["category"] == names[row["category_id"]] for row in rows)
    assert all(row["file_name"] == data.file_names[row["image_id"]] for row in rows)
    assert {row["image_id"] for row in rows} == set(data.file_names)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give images, folders of images or --split"),
        (["images", "--split", "val"], "one of them only"),
        (["missing"], "missing does not exist"),
        (["empty"], "empty holds no images"),
        (["images/broken.jpg"], "none of the 1 images can be read"),
        (["images", "--out", "images"], "exists and was not written"),
        (["images", "--checkpoint", "first"], "there is no checkpoint first"),
        (["images", "--scor", "0.5"], "did you mean '--score'"),
    ],
)
def test_mistakes_are_one_line(
    predict: ModuleType,
    run: Path,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("images").mkdir()
    Path("images/broken.jpg").write_text("no image")
    words = words if "--out" in words else [*words, "--out", "out"]
    with pytest.raises(SystemExit) as exit_status:
        predict.main([str(run.resolve()), *words])
    assert exit_status.value.code == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_the_best_score_is_that_of_the_evaluation_of_these_weights(
    predict: ModuleType, run: Path, tmp_path: Path, capsys: Capture
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("eval"))

    def last_line(*words: str) -> str:
        flags = ["--split", "val", "--count", "4", "--out", str(tmp_path / "out")]
        with pytest.raises(SystemExit):
            predict.main([str(copy), *flags, "--score", "best", *words])
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err.splitlines()[-1]

    assert f"there is no {copy / 'eval' / 'metrics.json'} yet: python eval.py" in last_line()
    evaluation.main([str(copy), "--score_threshold", "0.001"])
    best = json.loads((copy / "eval" / "metrics.json").read_text())["best_score"]
    out = tmp_path / "pictures"
    words = [str(copy), "--split", "val", "--count", "4", "--out", str(out), "--score", "best"]
    predict.main([*words, "--postprocess.score_threshold", "0.001"])
    assert f"score {best['threshold']:.3f}: the best on val" in capsys.readouterr().out
    scores = [row["score"] for row in json.loads((out / "detections.json").read_text())]
    assert min(scores) >= best["threshold"]
    line = last_line("--postprocess.nms", "diou")
    assert "is of postprocess.nms hard, not diou" in line
    assert "is of other weights than" in last_line("--checkpoint", "last")


def test_of_data_without_splits_train_is_what_was_trained_on(
    predict: ModuleType, run: Path, shapes: Path, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    shutil.copytree(shapes / "train", root / "images")
    shutil.copy(shapes / "annotations" / "instances_train.json", root / "images" / "all.json")
    flags = ["--data.root", str(root), "--data.format", "auto"]
    seen = {}
    for split in ("train", "val"):
        out = tmp_path / split
        predict.main([str(run), "--split", split, "--out", str(out), "--count", "99", *flags])
        seen[split] = {path.name for path in out.rglob("*.jpg")}
    assert len(seen["train"]) > len(seen["val"]) > 0
    assert not seen["train"] & seen["val"]
    assert len(seen["train"] | seen["val"]) == 16


def test_several_places_in_depth_without_what_was_written(
    predict: ModuleType, run: Path, tmp_path: Path, capsys: Capture
) -> None:
    """An image, and a folder with a folder, to which the pictures go as well."""
    folder = tmp_path / "in"
    for name in ("a.png", "deep/a.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.zeros((40, 40, 3), np.uint8))
    words = [str(run), str(folder / "a.png"), str(folder), "--out", str(folder / "out")]
    for _ in range(2):  # the second time its own pictures are there
        predict.main([*words, *EVERYTHING])
        assert "2 pictures with " in capsys.readouterr().out
        names = {path.name for path in (folder / "out").rglob("*.png")}
        assert names == {"a.png"}
        assert (folder / "out" / "deep" / "a.png").is_file()


def test_a_large_image_is_seen_in_tiles(
    predict: ModuleType, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tile has the size of the net's input, so nothing is shrunk; boxes are in pixels of the
    image."""
    size = load(run / "config.yaml")["data"]["size"]
    height, width = 2 * size[0] + 10, 3 * size[1]
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "large.png"), image)
    seen: list[tuple[int, ...]] = []
    original = predict.detect

    def watch(detector: object, views: list[View], *rest: object) -> object:
        seen.extend(view.small.shape for view in views)
        return original(detector, views, *rest)

    monkeypatch.setattr(predict, "detect", watch)
    words = [str(run), str(tmp_path / "large.png"), "--out", str(tmp_path / "out"), *EVERYTHING]
    predict.main([*words, "--tile", "--overlap", "0.25"])
    assert set(seen) == {(*size, 3)}
    assert len(seen) >= 6
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    right = max(row["bbox"][0] + row["bbox"][2] for row in rows)
    assert size[1] < right <= width + 1e-3
    with pytest.raises(SystemExit):
        predict.main([*words, "--tile", "--data.short", "64"])


def film(path: Path, frames: int, size: tuple[int, int] = (48, 64)) -> Path:
    """A video of noise that gets brighter from frame to frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, size[::-1])
    random = np.random.default_rng(0)
    for k in range(frames):
        writer.write(random.integers(0, 80, (*size, 3), np.uint8) + np.uint8(20 * k))
    writer.release()
    return path


def test_a_video_gives_a_video_and_the_number_of_every_frame(
    predict: ModuleType, run: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    film(folder / "deep" / "clip.avi", 7)
    cv2.imwrite(str(folder / "image.png"), np.zeros((40, 40, 3), np.uint8))
    (folder / "broken.mp4").write_text("no video")
    predict.main([str(run), str(folder), "--out", str(out), *EVERYTHING])
    assert f"skipped: {folder / 'broken.mp4'} is no video" in capsys.readouterr().err
    video = cv2.VideoCapture(str(out / "deep" / "clip.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 7
    assert video.get(cv2.CAP_PROP_FPS) == 10
    brightness = []
    while True:
        decoded, picture = video.read()
        if not decoded:
            break
        assert picture.shape == (480, 640, 3)  # 640 / 64 is 10
        brightness.append(float(np.median(picture)))
    assert brightness == sorted(brightness)
    assert len(brightness) == 7
    rows = json.loads((out / "detections.json").read_text())
    frames = [row["frame"] for row in rows if row["file_name"] == "deep/clip.avi"]
    assert frames == sorted(frames)
    assert set(frames) == set(range(7))
    assert all("frame" not in row for row in rows if row["file_name"] == "image.png")
    assert not list(out.rglob("*partial*"))


def test_a_camera_is_shown_frame_by_frame_until_it_ends(
    predict: ModuleType, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, opened = film(tmp_path / "clip.mp4", 3), cv2.VideoCapture

    def camera(place: str | int) -> cv2.VideoCapture:
        return opened(str(path)) if place == 2 else opened(str(place))

    batches, detect = [], predict.detect

    def count(detector: object, images: list[np.ndarray], *rest: object) -> object:
        batches.append(len(images))
        return detect(detector, images, *rest)

    monkeypatch.setattr(cv2, "VideoCapture", camera)
    monkeypatch.setattr(predict, "detect", count)
    predict.main([str(run), "camera:2", "--out", str(tmp_path / "out"), *EVERYTHING])
    assert batches == [1, 1, 1]
    assert opened(str(tmp_path / "out" / "camera_2.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_what_was_seen_before_ctrl_c_is_kept(
    predict: ModuleType, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, detect, out = film(tmp_path / "clip.mp4", 9), predict.detect, tmp_path / "out"
    done: list[int] = []

    def interrupt(detector: object, images: list[np.ndarray], *rest: object) -> object:
        if len(done) == 4:
            raise KeyboardInterrupt
        done.extend(range(len(images)))
        return detect(detector, images, *rest)

    monkeypatch.setattr(predict, "detect", interrupt)
    with pytest.raises(SystemExit) as ending:
        predict.main([str(run), str(path), "--out", str(out), *EVERYTHING])
    assert ending.value.code == 130
    assert cv2.VideoCapture(str(out / "clip.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 4
    rows = json.loads((out / "detections.json").read_text())
    assert {row["frame"] for row in rows} == {0, 1, 2, 3}


def test_rows_name_the_file_that_was_given(
    predict: ModuleType, run: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the picture that is written, which may need another name."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    encoded = cv2.imencode(".jpg", noise)[1].tobytes()
    for name in ("a/x.jpg", "b/x.jpg", "b/y.jpe", "b/sheet.png", "b/._y.jpg"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(encoded)
    Path("b/folder.jpg").mkdir()
    predict.main([str(run.resolve()), "a", "b", "--out", "out", *EVERYTHING])
    names = {"a/x.jpg", "b/x.jpg", "y.jpe", "sheet.png"}
    rows = json.loads(Path("out/detections.json").read_text())
    assert {row["file_name"] for row in rows} == names
    written = {path.relative_to("out").as_posix() for path in Path("out").rglob("*.*g")}
    assert written == {"a/x.jpg", "b/x.jpg", "y.png", "sheet_2.png"}
    assert "skipped" not in capsys.readouterr().err
    predict.main([str(run.resolve()), "a", "b", "--out", "-", *EVERYTHING])
    lines = capsys.readouterr().out.splitlines()
    assert {json.loads(line)["file_name"] for line in lines} == names


def test_what_an_earlier_command_wrote_is_not_looked_at(
    predict: ModuleType, run: Path, tmp_path: Path, capsys: Capture
) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), np.zeros((40, 40, 3), np.uint8))
    for name, kind in (("first", "json"), ("second", "csv")):
        predict.main([str(run), str(tmp_path), "--out", str(tmp_path / name), "--format", kind])
        assert "1 pictures with" in capsys.readouterr().out


def test_a_split_is_seen_as_evaluation_sees_it(
    predict: ModuleType, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large JPEGs, which data.reduce decodes smaller, and the run's precision."""
    root = tmp_path / "data"
    for part in ("images", "annotations"):
        (root / part).mkdir(parents=True)
    config = load(run / "config.yaml")
    images = []
    for k in range(2):
        noise = np.random.default_rng(k).integers(0, 255, (30, 41, 3), np.uint8)
        large = cv2.resize(noise, (410, 300), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(root / "images" / f"{k}.jpg"), large)
        images.append({"id": k + 1, "file_name": f"{k}.jpg", "width": 410, "height": 300})
    categories = [{"id": k + 1, "name": n} for k, n in enumerate(config["data"]["classes"])]
    row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 50]}
    truth = {"images": images, "annotations": [row], "categories": categories}
    (root / "annotations" / "instances_val.json").write_text(json.dumps(truth))
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    config["trainer"]["precision"] = "bf16-mixed"
    save(config, copy / "config.yaml")
    data = ["--data.root", str(root), "--data.format", "coco", "--data.images", "images"]
    flags = [*data, "--postprocess.score_threshold", "0", "--postprocess.max_detections", "20"]
    evaluation.main([str(copy), *flags])
    expected = json.loads((copy / "eval" / "detections.json").read_text())
    predict.main(
        [str(copy), "--split", "val", "--out", str(tmp_path / "out"), "--score", "0", *flags]
    )
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert len(rows) == len(expected) == 40
    for ours, theirs in zip(rows, expected, strict=True):
        assert ours["image_id"] == theirs["image_id"]
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-6)
        assert ours["bbox"] == pytest.approx(theirs["bbox"], abs=1e-3)


def test_scores_below_the_runs_threshold_are_named(
    predict: ModuleType, run: Path, tmp_path: Path, capsys: Capture
) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), np.zeros((40, 40, 3), np.uint8))
    words = [str(run), str(tmp_path / "one.png"), "--out", str(tmp_path / "out")]
    predict.main([*words, "--score", "0.001"])
    printed = capsys.readouterr().out
    assert "scores below 0.05 (postprocess.score_threshold) are left out: add --post" in printed
    predict.main([*words, "--score", "0.05"])
    assert "are left out" not in capsys.readouterr().out


def test_labels_of_two_images_are_not_mixed(
    predict: ModuleType, run: Path, tmp_path: Path, capsys: Capture
) -> None:
    for name in ("a.png", "a.jpg"):
        cv2.imwrite(str(tmp_path / name), np.zeros((40, 40, 3), np.uint8))
    words = [str(run), str(tmp_path), "--format", "yolo", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        predict.main(words)
    assert "labels/a.txt would be of two images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "a.png").unlink()
    film(tmp_path / "a.mp4", 2)  # whose labels have numbers
    predict.main(words)
    labels = {path.name for path in (tmp_path / "out" / "labels").iterdir()}
    assert labels == {"a.txt", "a_000000.txt", "a_000001.txt"}
    (tmp_path / "a.jpg").rename(tmp_path / "a_000001.jpg")
    with pytest.raises(SystemExit):
        predict.main([*words[:-1], str(tmp_path / "again")])
    assert "labels/a_000001.txt would be of two images" in capsys.readouterr().err


def test_detections_as_coco_and_yolo_are_data_sets_that_are_read(
    predict: ModuleType, run: Path, tmp_path: Path
) -> None:
    """Each table, with the images beside it, is read by the readers of data/."""
    folder = tmp_path / "in"
    for name in ("a.jpg", "deep/b.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(len(name)).integers(0, 255, (48, 64, 3), np.uint8)
        cv2.imwrite(str(folder / name), noise)
    found: dict[str, set[tuple[float, ...]]] = {}
    words = [str(run), str(folder), "--score", "0", "--postprocess.score_threshold", "0"]
    for kind in ("json", "coco", "yolo", "csv"):
        predict.main([*words, "--out", str(tmp_path / kind), "--format", kind])
    classes = load(run / "config.yaml")["data"]["classes"]
    rows = json.loads((tmp_path / "json" / "detections.json").read_text())
    assert rows
    for row in rows:
        values = (classes.index(row["category"]), *(round(x, 1) for x in row["bbox"]))
        found.setdefault(row["file_name"], set()).add(values)

    coco = tmp_path / "coco" / "detections.json"
    flags = {"format": "coco", "annotations": str(coco), "images": str(folder), "train": "x"}
    sets = [DataModule(root=folder, **{**flags, "val": "x"})]
    root = tmp_path / "as_yolo"
    shutil.copytree(folder, root / "images" / "val")
    shutil.copytree(tmp_path / "yolo" / "labels", root / "labels" / "val")
    shutil.copy(tmp_path / "yolo" / "classes.txt", root / "classes.txt")
    sets.append(DataModule(root=root, format="yolo"))
    for data in sets:
        data.setup("validate")
        assert data.classes == classes
        split = data.splits["val"]
        assert len(split) == 2
        for k in range(2):
            name = data.file_names[int(split.image_ids[k])].removeprefix("images/val/")
            boxes, labels = split.boxes[split.rows(k)], split.labels[split.rows(k)]
            for (left, top, right, bottom), label in zip(boxes.tolist(), labels, strict=True):
                box = np.array([left, top, right - left, bottom - top])
                near = [values for values in found[name] if values[0] == label]
                assert np.abs(np.array(near)[:, 1:] - box).max(1).min() < 0.1
        assert len(data.ground_truth()["annotations"]) == len(rows)

    text = (tmp_path / "csv" / "detections.csv").read_text().splitlines()
    assert text[0] == "file_name,frame,category,x,y,width,height,score"
    assert len(text) == len(rows) + 1
    first = text[1].split(",")
    assert first[:3] == [rows[0]["file_name"], "", rows[0]["category"]]
    assert [float(x) for x in first[3:]] == [*rows[0]["bbox"], rows[0]["score"]]


def test_crops_show_the_objects(predict: ModuleType, run: Path, tmp_path: Path) -> None:
    x, y = np.meshgrid(np.arange(90), np.arange(60))
    image = np.stack([2 * x, 4 * y, 0 * x], 2).astype(np.uint8)  # where a pixel was is its color
    path, out = tmp_path / "one.png", tmp_path / "out"
    cv2.imwrite(str(path), image)
    words = [str(run), str(path), "--out", str(out), "--crops", *EVERYTHING]
    predict.main(words)
    with pytest.raises(SystemExit):  # old ones would stay among the new
        predict.main(words)
    rows = json.loads((out / "detections.json").read_text())
    crops = sorted((out / "crops").rglob("*.jpg"), key=lambda file: file.name)
    assert len(crops) == len(rows)
    for number, (row, crop) in enumerate(zip(rows, crops, strict=True), 1):
        assert (crop.parent.name, crop.name) == (row["category"], f"one_{number:04d}.jpg")
        left, top, width, height = row["bbox"]
        corner = cv2.imread(str(crop))[0, 0, :2] / (2, 4)
        assert np.abs(corner - np.maximum((left - width / 10, top - height / 10), 0)).max() < 3
        high, wide, _ = shape(crop)
        assert min(90, width) - 2 <= wide <= 1.2 * width + 2
        assert min(60, height) - 2 <= high <= 1.2 * height + 2


def test_a_box_without_an_area_has_a_crop(tmp_path: Path) -> None:
    boxes = np.array([[10, 60, 50, 60], [90, 5, 90, 20], [0, 0, 90, 60]], np.float32)
    marks = Marks(boxes, np.zeros(3, int), np.ones(3))
    seen = Seen("a.png", (60, 90), marks, output="a.png")
    folder = Folder(tmp_path, [seen], ["x"], None, "json", crops=True)
    folder.add(seen, np.zeros((60, 90, 3), np.uint8))
    sizes = [shape(tmp_path / "crops" / "x" / f"a_000{k}.jpg")[:2] for k in (1, 2, 3)]
    assert sizes == [(1, 49), (19, 1), (60, 90)]  # rows 3.5 to 21.5, columns 6 to 54


def test_a_class_has_one_folder_of_crops_whatever_its_name(tmp_path: Path) -> None:
    """A crop of class a/b is not replaced by one of class a in the picture b/one.png."""
    marks = [Marks(np.array([[0, 0, 9, 9]]), np.array([k]), np.ones(1)) for k in (0, 1)]
    names = ("one.png", "b/one.png")
    both = [Seen(n, (9, 9), m, output=n) for n, m in zip(names, marks, strict=True)]
    folder = Folder(tmp_path, both, ["a/b", "a"], None, "json", crops=True)
    for seen in both:
        folder.add(seen, np.zeros((9, 9, 3), np.uint8))
    crops = {path.relative_to(tmp_path / "crops").as_posix() for path in tmp_path.rglob("*.jpg")}
    assert crops == {"a_b/one_0001.jpg", "a/b/one_0001.jpg"}


@pytest.mark.skipif(sys.platform != "linux", reason="others allow no such names")
def test_names_that_are_not_utf8(
    predict: ModuleType, run: Path, tmp_path: Path, capsys: Capture
) -> None:
    """As old archives unpack them; OpenCV crashes on them."""
    folder, name = tmp_path / "in", os.fsdecode(b"caf\xe9")
    film(tmp_path / "clip.mp4", 2)
    folder.mkdir()
    (tmp_path / "clip.mp4").rename(folder / f"{name}.mp4")
    image = cv2.imencode(".png", np.zeros((40, 40, 3), np.uint8))[1]
    (folder / f"{name}.png").write_bytes(image.tobytes())
    words = [str(run), str(folder), "--format", "csv", *EVERYTHING]
    predict.main([*words, "--out", str(tmp_path / "out")])
    assert "1 pictures with" in (printed := capsys.readouterr()).out
    assert "not UTF-8: rename it" in printed.err
    assert (tmp_path / "out" / f"{name}.png").is_file()
    assert b"caf\xe9.png," in (tmp_path / "out" / "detections.csv").read_bytes()
    assert add_title(np.zeros((9, 99, 3), np.uint8), name).shape == (33, 99, 3)


def test_lines_go_to_a_pipe_and_nothing_else(
    predict: ModuleType, run: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "one.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    flushed: list[int] = []
    monkeypatch.setattr(sys.stdout, "flush", lambda: flushed.append(1))
    predict.main([str(run.resolve()), str(path), "--out", "-", *EVERYTHING])
    assert flushed  # who reads the pipe does not wait for the end
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    predict.main([str(run.resolve()), str(path), "--out", "out", *EVERYTHING])
    assert rows == json.loads(Path("out/detections.json").read_text())
    assert "1 pictures with" in printed.err
    assert {path.name for path in tmp_path.iterdir()} == {"one.png", "out"}
    for words in (["--crops"], ["--format", "csv"]):
        with pytest.raises(SystemExit):
            predict.main([str(run.resolve()), str(path), "--out", "-", *words])
        assert "lines of JSON" in capsys.readouterr().err


def test_a_pipe_that_nobody_reads_is_no_error(run: Path, tmp_path: Path) -> None:
    for k in range(8):  # more lines than a pipe holds
        noise = np.random.default_rng(k).integers(0, 255, (60, 90, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{k}.png"), noise)
    words = [sys.executable, str(SCRIPT), str(run), str(tmp_path), "--out", "-", *EVERYTHING]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        error = process.stderr.read().decode()
    assert "Traceback" not in error
    assert "BrokenPipe" not in error
    assert process.returncode == 141  # as of a program that SIGPIPE ends
