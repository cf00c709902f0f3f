"""Exported files: what they hold, that they give what the net gives; predict.py runs them."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import eval as evaluation
from detector.module import Batch
from detector.nms import Suppression
from detector.run import export as export_module
from detector.run import exported as exported_module
from detector.run.assemble import open_run
from detector.run.export import SuppressionInGraph, hard_nms_in_onnx, quiet, to_torch
from detector.run.exported import Comparison, Exported, compare_image
from scripts import export, predict
from tests import test_embedding

Capture = pytest.CaptureFixture[str]
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
needs_onnx = pytest.mark.skipif(not all(map(find_spec, PACKAGES)), reason="needs extra 'export'")
EASY = ["--postprocess.score_threshold", "0.001", "--postprocess.candidates", "40"]
SIDE = 96


def export_run(run: Path, out: Path, *words: str) -> object:
    """Its exit status."""
    try:
        export.main([str(run), "--out", str(out), "--images", "3", *EASY, *words])
    except SystemExit as ending:
        return ending.code
    return 0


def make_batch(images: int) -> Batch:
    """Noise that fills its place in part, of images twice as wide and three times as high."""
    random = torch.Generator().manual_seed(images)
    sizes = torch.tensor([[SIDE, SIDE - 8 * k] for k in range(images)])
    shape = images, 3, SIDE, SIDE
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
    return {"images": pixels, "sizes": sizes, "original_sizes": sizes * torch.tensor([3, 2])}


def assert_same_detections(run: Path, file: Path, *words: str) -> None:
    """For batches of several lengths, in pixels of the original images."""
    config, _ = export.parse_arguments([str(run), "--out", str(file), *EASY, *words])
    _, detector = open_run(str(run), config=config)
    exported = Exported(file)
    for images in (1, 3):
        with torch.inference_mode():
            expected, actual = detector(make_batch(images)), exported(make_batch(images))
        assert (expected.scores > 0).sum() > 20
        for image in zip(*expected[:3], *actual[:3], strict=True):
            tolerance = torch.tensor([1e-3, 1e-5])
            count, different, *_ = compare_image(image[:3], image[3:], tolerance)
            assert different == 0, (images, count)


@pytest.fixture(scope="module")
def sharp(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose scores differ clearly: of nearly equal ones rounding decides which is the last
    that is kept."""
    folder = tmp_path_factory.mktemp("runs") / "sharp"
    shutil.copytree(run, folder)
    path = folder / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["net.class_head.output.weight"] *= 100
    torch.save(checkpoint, path)
    return folder


@pytest.fixture(scope="module")
def onnx_file(sharp: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With hard suppression."""
    path = tmp_path_factory.mktemp("export") / "tiny.onnx"
    assert export_run(sharp, path) == 0
    return path


@needs_onnx
def test_onnx_gives_the_detections_of_the_run_for_any_number_of_images(
    sharp: Path, onnx_file: Path
) -> None:
    assert_same_detections(sharp, onnx_file)


@needs_onnx
def test_an_exported_file_has_the_best_score_of_the_evaluation(
    sharp: Path, tmp_path: Path, capsys: Capture
) -> None:
    run, image, file = tmp_path / "run", tmp_path / "one.png", tmp_path / "file.onnx"
    shutil.copytree(sharp, run)
    cv2.imwrite(str(image), np.zeros((40, 40, 3), np.uint8))
    words = [str(file), str(image), "--out", str(tmp_path / "out"), "--score", "best"]
    assert export_run(run, file) == 0
    with pytest.raises(SystemExit):
        predict.main(words)
    assert "evaluate the run with eval.py and export it again" in capsys.readouterr().err
    assert export_run(run, file) == 2  # the file is there
    assert f"{file} exists: choose another --out, or move it away" in capsys.readouterr().err
    evaluation.main([str(run), *EASY])
    best = json.loads((run / "eval" / "metrics.json").read_text())["best_score"]["threshold"]
    file.unlink()
    assert export_run(run, file) == 0
    predict.main(words)
    assert f"score {best:.3f}: the best on val, by {file}" in capsys.readouterr().out
    assert Exported(file).best_score() == (best, "val")
    with pytest.raises(SystemExit):
        predict.main([*words, "--checkpoint", "last"])
    assert "checkpoint is fixed in" in capsys.readouterr().err


@needs_onnx
def test_onnx_says_what_it_takes_and_gives(onnx_file: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["size"]) == [SIDE, SIDE]
    assert json.loads(metadata["classes"]) == Exported(onnx_file).classes
    assert (metadata["score_threshold"], metadata["suppression"]) == ("0.001", "hard")
    assert "0.485" in metadata["normalization"]
    shapes = {part.name: part.shape for part in [*session.get_inputs(), *session.get_outputs()]}
    assert shapes["images"] == ["batch", 3, SIDE, SIDE]
    assert shapes["boxes"] == ["batch", 100, 4]
    assert list(shapes) == ["images", "sizes", "boxes", "scores", "labels"]


@needs_onnx
def test_predict_runs_onnx_as_it_runs_the_run(
    sharp: Path, onnx_file: Path, tmp_path: Path, shapes: Path
) -> None:
    rows = []
    for model, words in ((sharp, EASY), (onnx_file, ["--data.root", str(shapes)])):
        out = tmp_path / model.name
        words = [*words, "--split", "val", "--count", "3", "--score", "0", "--out", str(out)]
        predict.main([str(model), *words])
        rows.append(json.loads((out / "detections.json").read_text()))
    assert len(rows[0]) == len(rows[1]) > 20
    for one, other in zip(*rows, strict=True):
        assert one.pop("bbox") == pytest.approx(other.pop("bbox"), abs=1e-3)
        assert one.pop("score") == pytest.approx(other.pop("score"), abs=1e-5)
        assert one == other


def test_torch_gives_candidates_from_which_other_suppression_chooses(
    sharp: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--format", "torch", "--postprocess.nms", "diou"]
    assert export_run(sharp, tmp_path / "a.pt2", *words) == 0
    printed = capsys.readouterr().out
    assert "the file gives candidates, from which predict.py chooses: torch.export" in printed
    assert "candidates equal the net's" in printed
    assert_same_detections(sharp, tmp_path / "a.pt2", *words)
    monkeypatch.setattr(exported_module, "TOLERANCE", -1.0)
    _, detector = open_run(str(sharp))
    assert not export.check(detector, Exported(tmp_path / "a.pt2"), [make_batch(2)], "noise")
    assert "candidates differ from the net's; of the others" in capsys.readouterr().out


class Suppress(nn.Module):
    def __init__(self, suppression: Suppression) -> None:
        super().__init__()
        self.suppression = suppression

    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.suppression(boxes, scores, labels)


@needs_onnx
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_suppression_in_onnx_is_hard_suppression(class_agnostic: bool) -> None:
    import onnxruntime

    random = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 200, 2, generator=random) * 60
    boxes = torch.cat([corners, corners + 20 + torch.rand(2, 200, 2, generator=random) * 20], -1)
    scores = torch.rand(2, 200, generator=random)
    scores[1, 30:] = 0  # no more boxes there
    labels = torch.randint(0, 3, (2, 200), generator=random)
    options = {"class_agnostic": class_agnostic, "iou_threshold": 0.4, "max_detections": 40}
    module = Suppress(SuppressionInGraph(**options, num_classes=3))
    table = {torch.ops.detector.hard_nms.default: hard_nms_in_onnx}
    inputs = {"boxes": boxes, "scores": scores, "labels": labels}
    with quiet():
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            input_names=list(inputs),
            dynamo=True,
            verbose=False,
            custom_translation_table=table,
        )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    places, kept = session.run(None, {name: part.numpy() for name, part in inputs.items()})
    expected = Suppression(**options)(boxes, scores, labels)
    assert 10 < (expected.scores[0] > 0).sum() < 200
    assert kept.tolist() == expected.scores.tolist()
    assert places[kept > 0].tolist() == expected.places[expected.scores > 0].tolist()


@pytest.mark.slow
def test_vectors_of_an_embedding_head_are_exported(tmp_path: Path) -> None:
    detector = test_embedding.detector().eval()
    batch = make_batch(2)
    path = tmp_path / "a.pt2"
    path.write_bytes(to_torch(detector, {}, batch["images"], batch["sizes"]))
    outputs = torch.export.load(path).module()(batch["images"], batch["sizes"])
    assert [len(output.shape) for output in outputs] == [3, 2, 2, 3]
    assert outputs[3].shape[:2] == outputs[1].shape


@pytest.mark.slow
def test_another_size_and_noise_where_no_images_are(
    run: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "a.pt2"
    words = ["--format", "torch", "--size", "[64, 80]", "--data.root", str(tmp_path / "gone")]
    assert export_run(run, out, *words) == 0
    assert "on noise, for want of validation images" in capsys.readouterr().out
    assert Exported(out).size == [64, 80]
    batch = {"images": torch.zeros(1, 3, 64, 96, dtype=torch.uint8)}  # sides are multiples of 32
    sizes = torch.tensor([[64, 80]])
    Exported(out)(batch | {"sizes": sizes, "original_sizes": sizes})


def test_a_difference_ends_with_status_1(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "export", lambda config, options: False)
    assert export_run(run, tmp_path / "a.onnx") == 1


def test_boxes_are_compared_in_any_order() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 20, 20], [0, 0, 0, 0]])
    first = boxes, torch.tensor([0.9, 0.8, 0.0]), torch.tensor([1, 0, -1])
    second = (
        torch.tensor([[5.0, 5, 20, 20.25], [0, 0, 10, 10], [0, 0, 10, 10]]),
        torch.tensor([0.8, 0.875, 0.75]),
        torch.tensor([0, 1, 1]),
    )
    # 20 and 20.25 is a quarter of a pixel; 0.9 and 0.875 is 0.025; 0.75 has no partner
    count, different, pixels, score = compare_image(first, second, torch.tensor([0.5, 0.03]))
    assert (count, different, pixels) == (2, 1, 0.25)
    assert score == pytest.approx(0.025)
    # now neither score is near enough: one of the two is missing, and two are too many
    assert compare_image(first, second, torch.tensor([0.5, 0.01]))[:2] == (2, 3)
    other_class = (second[0], second[1], torch.tensor([1, 1, 1]))
    assert compare_image(first, other_class, torch.tensor([0.5, 0.03]))[:2] == (2, 3)
    twice = tuple(part[[0, 0]] for part in first)
    assert compare_image([x[:1] for x in first], twice, torch.tensor([0.5, 0.03]))[:2] == (1, 1)


def test_a_comparison_of_nothing_shows_nothing() -> None:
    assert str(Comparison("detections", 0, 0, 0.0, 0.0)).startswith("no detections to compare")
    assert str(Comparison("detections", 0, 2, 0.0, 0.0)).startswith("2 of 0 detections differ")
    assert str(Comparison("candidates", 3, 0, 0.0, 0.0)).startswith("all 3 candidates equal")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "a.pt2"], "--out a.pt2: --format onnx ends in .onnx"),
        (["--out", "a.onnx", "--format", "onxn"], "did you mean 'onnx'"),
        (["--out", "there.onnx"], "there.onnx exists: choose another --out"),
        (
            ["--out", "a.onnx", "--suppression", "true", "--postprocess.nms", "diou"],
            "ONNX has an operator for hard suppression, none for postprocess.nms diou",
        ),
        (["--out", "a.onnx", "--data.short", "64"], "has one: give it by --size"),
        (["--out", "a.onnx", "--optimizer.lr", "1"], "only data, postprocess can be changed here"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str],
    message: str,
    run: Path,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.onnx").write_text("mine")
    with pytest.raises(SystemExit) as ending:
        export.main([str(run.resolve()), *words])
    assert ending.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert Path("there.onnx").read_text() == "mine"


def test_a_missing_package_is_one_line(
    run: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "find_spec", lambda name: None)
    assert export_run(run, tmp_path / "a.onnx") == 2
    message = capsys.readouterr().err
    assert all(part in message for part in ("onnx is not installed", "pip install -e '.[export]'"))


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("gone.onnx", [], "there is no file gone.onnx"),
        ("text.pt2", [], "text.pt2: torch.export cannot open it"),
        pytest.param("text.onnx", [], "text.onnx: onnxruntime cannot open it", marks=needs_onnx),
        ("text.onnx", ["--postprocess.nms", "diou"], "postprocess.nms is fixed in text.onnx"),
        ("text.pt2", ["--data.size", "[64, 64]"], "data.size is fixed in text.pt2"),
    ],
)
def test_predict_says_what_is_wrong_with_a_file(
    name: str,
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("text.pt2", "text.onnx"):
        Path(file).write_text("no graph")
    with pytest.raises(SystemExit) as ending:
        predict.main([name, ".", "--out", "out", *words])
    assert ending.value.code == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
