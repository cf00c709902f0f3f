import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

import eval as evaluation
from data.datamodule import DataModule
from detector.config.files import RECORD
from detector.config.resolve import load

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
        assert "2 pictures and detections.json" in capsys.readouterr().out
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

    def watch(detector: object, images: list[np.ndarray], *rest: object) -> object:
        seen.extend(image.shape for image in images)
        return original(detector, images, *rest)

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
