"""scripts/search.py on a run with made-up vectors: whose is the nearest?"""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data.identities import draw_identities
from detector.config.resolve import resolve, save
from scripts import search


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("identities")
    draw_identities(root, train=5, val=1, size=96)
    return root / "train"


EVERYTHING = ["--score", "0", "--postprocess.score_threshold", "0"]


def test_the_nearest_objects_of_other_images(headed: Path, pictures: Path, tmp_path: Path) -> None:
    query, *others = sorted(pictures.glob("*.jpg"))
    (pictures / "clip.mp4").write_text("a video, which is left out")
    words = [str(headed), "--query", str(query), "--gallery", str(pictures), *EVERYTHING]
    search.main([*words, "--out", str(tmp_path), "--box", "10", "20", "30", "40", "--count", "5"])
    content = json.loads((tmp_path / "search.json").read_text())
    assert content["query"] == {"file_name": query.name, "bbox": [10, 20, 30, 40]}
    nearest = content["nearest"]
    assert len(nearest) == 5
    cosines = [row["cosine"] for row in nearest]
    assert cosines == sorted(cosines, reverse=True)
    assert max(cosines) <= 1 + 1e-6
    assert {row["file_name"] for row in nearest} <= {path.name for path in others}
    assert {row["category"] for row in nearest} <= {"tile", "disk"}
    picture = cv2.imread(str(tmp_path / "search.png"))
    assert picture is not None
    assert picture.shape[1] > 3 * search.SIDE  # three in a row, the query first
    # the vector of a box is that of validation: in the query itself it would be found with 1
    copy = pictures / "copy.jpg"
    copy.write_bytes(query.read_bytes())
    out = tmp_path / "again"
    search.main([*words, "--out", str(out), "--count", "1"])
    content = json.loads((out / "search.json").read_text())
    copy.unlink()
    (first,) = content["nearest"]
    assert first["file_name"] == "copy.jpg"
    assert first["cosine"] == pytest.approx(1, abs=1e-5)
    assert np.allclose(first["bbox"], content["query"]["bbox"])
    assert content["query"]["category"] in ("tile", "disk")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--query", "none.jpg"], "--query none.jpg is not a file"),
        (["--box", "1", "2", "3"], "--box needs x, y, width and height"),
        (["--box", "1", "2", "3", "0"], "the last two above 0"),
        (["--score", "1"], "nothing is detected"),
        (["--box", "96", "0", "9", "9"], ".jpg, which is 96x96 pixels"),
        (["--box", "9", "9", "9", "9", "--score", "1"], "in 4 images of "),
    ],
)
def test_a_mistake_is_one_line(
    headed: Path, pictures: Path, tmp_path: Path, words: list[str], line: str, capsys: Any
) -> None:
    given = [] if "--query" in words else ["--query", str(next(pictures.glob("*.jpg")))]
    with pytest.raises(SystemExit) as caught:
        search.main(
            [str(headed), *given, "--gallery", str(pictures), "--out", str(tmp_path), *words]
        )
    assert caught.value.code == 2
    assert line in capsys.readouterr().err


def test_a_run_without_the_head_is_refused(headed: Path, pictures: Path, capsys: Any) -> None:
    plain = headed.parent / "plain"
    plain.mkdir()
    tree = resolve([headed.parent / "tiny.yaml"], {"data.classes": ["tile", "disk"]})
    save(tree, plain / "config.yaml")
    query = str(next(pictures.glob("*.jpg")))
    with pytest.raises(SystemExit):
        search.main([str(plain), "--query", query, "--gallery", str(pictures), "--out", "x"])
    assert "has no embedding head: train with" in capsys.readouterr().err


def test_without_a_best_checkpoint_the_last_is_taken_and_named(
    headed: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(headed, run)
    (run / "checkpoints" / "best.ckpt").rename(run / "checkpoints" / "last.ckpt")
    query = str(sorted(pictures.glob("*.jpg"))[0])
    words = [str(run), "--query", query, "--gallery", str(pictures), *EVERYTHING]
    search.main([*words, "--out", str(tmp_path / "out")])
    assert "has no best checkpoint yet" in capsys.readouterr().err
