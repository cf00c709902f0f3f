"""Draw what a run detects:  python scripts/predict.py RUN IMAGE|FOLDER ... --out DIR

Beside the ground truth:  python scripts/predict.py RUN --split val --count 12 --out DIR
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from detector.config.command_line import parse
from detector.config.errors import UserError, one_line_errors
from detector.config.files import RECORD, Outputs, safe_name, write, write_json
from detector.config.types import Count, Fraction, Option, Threshold
from detector.run.folder import existing_run, is_exported

if TYPE_CHECKING:
    import numpy as np

    from data.pictures import Picture
    from data.transforms import InputSize
    from detector.evaluation.drawing import Marks
    from detector.module import Detector
    from detector.run.exported import Exported

USAGE = """python scripts/predict.py RUN IMAGE|FOLDER ... --out DIR [--score 0.3] [--tile]
       python scripts/predict.py RUN --split val [--count 12] --out DIR

Writes every image with its boxes, and detections.json: file_name, category, bbox (x, y, width,
height in pixels of the upright picture), score. With --split the ground truth is on the left,
sheet.png shows the first 24 pictures together, and detections.json has the data set's image_id and
category_id."""
PROGRAM_OPTIONS = {
    "run": Option(str, ..., "name of a run under runs/, its path, or a file of export.py"),
    "images": Option(list[str], [], "images, and folders of images in any depth"),
    "--out": Option(str, ..., "folder to write to"),
    "--split": Option(str | None, None, "val, train or another split, instead of images"),
    "--count": Option(Count, 12, "images of the split, evenly spaced"),
    "--checkpoint": Option(str, "best", "best, last or a file"),
    "--tile": Option(bool, False, "cut images into tiles of data.size, to find small objects"),
    "--overlap": Option(Threshold, 0.2, "share of a tile that neighbors see as well"),
    "--score": Option(Fraction | Literal["best"], 0.3, "lowest shown; best: eval.py's"),
}
ON_SHEET = 24
FIXED = ("data.classes", "data.size", "data.short")  # in an exported file
DETECTIONS, SHEET = "detections.json", "sheet.png"


def from_split(config: dict[str, Any], split: str, count: int) -> "tuple[list[Picture], list[int]]":
    """`count` images of a split with their objects, and the category id of every class."""
    import numpy as np

    from data.datamodule import DataModule
    from data.pictures import Picture
    from detector.evaluation.drawing import Marks

    name = config["data"][split] if split in ("train", "val") else split
    changed = {"val": name} | ({} if split == "val" else {"holdout": 0})
    data = DataModule(**{**config["data"], **changed}, seed=config["seed"])
    data.setup("validate")
    images, names = data.splits["val"], data.file_names
    if split == "train" and data.is_undivided:  # of one set, val is what training did not see
        data = DataModule(**{**config["data"], "label_noise": 0}, seed=config["seed"])
        data.setup("fit")
        images, names = data.splits["train"], data.train_names
    sources = []
    for index in np.unique(np.linspace(0, len(images) - 1, count).round().astype(int)):
        rows, image_id = images.rows(index), int(images.image_ids[index])
        truth = Marks(images.boxes[rows], images.labels[rows], ignore=images.ignore[rows])
        file, (height, width) = Path(images.paths[index]), images.sizes[index].tolist()
        name = safe_name(names[image_id])
        sources.append(Picture(file, name, image_id, truth, (height, width)))
    return sources, data.category_ids


def detect(
    detector: "Detector | Exported", images: "list[np.ndarray]", size: "InputSize", score: float
) -> "list[Marks]":
    """What is detected in images of one input shape with at least `score`, in pixels of each."""
    import torch

    from data.transforms import place
    from detector.evaluation.drawing import Marks

    placed = [place(image, size.shape_for(*image.shape[:2])) for image in images]
    batch = {
        "images": torch.stack([pixels for pixels, _ in placed]),
        "sizes": torch.tensor([content for _, content in placed]),
        "original_sizes": torch.tensor([image.shape[:2] for image in images]),
    }
    with torch.inference_mode():
        detections = detector({name: tensor.to(detector.device) for name, tensor in batch.items()})
    marks = []
    arrays = (part.cpu().numpy() for part in detections[:3])
    for boxes, scores, labels in zip(*arrays, strict=True):
        keep = (labels >= 0) & (scores >= score)
        marks.append(Marks(boxes[keep], labels[keep], scores[keep]))
    return marks


def detect_in_tiles(
    detector: "Detector | Exported",
    image: "np.ndarray",
    config: dict[str, Any],
    options: dict[str, Any],
    score: float,
) -> "Marks":
    """The same of an image that is cut into tiles of data.size, a batch of them at a time."""
    from data.transforms import InputSize
    from detector.evaluation.drawing import Marks
    from detector.run.assemble import make_suppression
    from detector.run.tiles import cut, detect_tiles

    data, size = config["data"], InputSize(config["data"]["size"])
    tiles = cut(image.shape[:2], data["size"], options["overlap"])
    boxes, scores, labels = detect_tiles(
        *(image, tiles, data["batch_size"], options["overlap"]),
        make_suppression(config["postprocess"]),
        lambda crops: detect(detector, crops, size, score),
    )
    return Marks(boxes, labels, scores)


def rows_of(
    source: "Picture", marks: "Marks", classes: Sequence[str], ids: Sequence[int] | None
) -> Iterator[dict[str, Any]]:
    """What detections.json says; with ids where the data set is known."""
    boxes, labels, scores = (part.tolist() for part in marks[:3] if part is not None)
    for (left, top, right, bottom), label, score in zip(boxes, labels, scores, strict=True):
        known = {} if ids is None else {"image_id": source.image_id, "category_id": ids[label]}
        bbox = [left, top, right - left, bottom - top]
        named = {"file_name": source.name, "category": classes[label]}
        yield known | named | {"bbox": bbox, "score": score}


def picture_of(
    source: "Picture", image: "np.ndarray", marks: "Marks", classes: Sequence[str]
) -> "np.ndarray":
    from detector.evaluation.drawing import draw, side_by_side

    if source.truth is None:
        return draw(image, marks, classes)
    return side_by_side(image, source.truth, marks, classes, title=source.name)


def encode(picture: "np.ndarray", suffix: str) -> bytes:
    """The content of an image file of that kind."""
    import cv2

    _, encoded = cv2.imencode(suffix, picture[..., ::-1])
    content: bytes = encoded.tobytes()
    return content


def choose_score(config: dict[str, Any], options: dict[str, Any]) -> float:
    """The number that --score is or stands for."""
    from detector.evaluation.provenance import read_best_score
    from detector.run.folder import checkpoint_file

    run, checkpoint, score = (options[name] for name in ("run", "checkpoint", "score"))
    if score != "best":
        return float(score)
    folder = existing_run(run)
    path, weights = folder / "eval" / "metrics.json", checkpoint_file(folder, checkpoint)
    command = f"python eval.py {run} --checkpoint {checkpoint}"
    score, split = read_best_score(path, weights, config, command)
    print(f"score {score:.3f}: the best on {split}, by {path}")
    return score


def predict(config: dict[str, Any], options: dict[str, Any]) -> None:
    import torch

    from data.pictures import choose_names, find_pictures, read_batches
    from data.transforms import InputSize
    from detector.evaluation.drawing import contact_sheet
    from detector.run.assemble import open_run
    from detector.run.exported import Exported

    exported = Exported(options["run"]) if is_exported(options["run"]) else None
    config = exported.configure(config) if exported else config
    out, data, ids = Path(options["out"]), config["data"], None
    if options["split"] is None:
        sources = find_pictures(options["images"], leave_out=out)
    else:
        sources, ids = from_split(config, options["split"], options["count"])
    sources = choose_names(sources, {DETECTIONS, SHEET})
    names = (*(source.name for source in sources), DETECTIONS, SHEET)
    Outputs(out / RECORD).claim(*(out / name for name in names))
    score = choose_score(config, options)
    detector = exported or open_run(options["run"], options["checkpoint"], config)[1].to(
        "cuda" if torch.cuda.is_available() else "cpu"
    )
    size, classes = InputSize(data["size"], data["short"], data["long"]), data["classes"]
    rows: list[dict[str, Any]] = []
    sheet: list[np.ndarray] = []
    seen = 0
    try:
        whole = None if options["tile"] else size
        for batch in read_batches(sources, whole, data["batch_size"] if whole else 1):
            images = [image for _, image in batch]
            if whole:
                detections = detect(detector, images, size, score)
            else:
                detections = [detect_in_tiles(detector, images[0], config, options, score)]
            for (source, image), marks in zip(batch, detections, strict=True):
                picture = picture_of(source, image, marks, classes)
                write(out / source.name, encode(picture, Path(source.name).suffix))
                rows += rows_of(source, marks, classes, ids)
                sheet += [picture] if source.truth is not None and len(sheet) < ON_SHEET else []
                seen += 1
    finally:  # what is detected so far is not lost to Ctrl-C
        rows.sort(key=lambda row: row["file_name"])
        write_json(out / DETECTIONS, rows)
    if not seen:
        raise UserError(f"none of the {len(sources)} images can be read")
    if sheet:
        write(out / SHEET, encode(contact_sheet(sheet), ".png"))
    none = "" if rows else f"; none has a score of {score:g} or more: see --score"
    print(f"{out}: {seen} pictures and detections.json with {len(rows)} objects{none}")


def configuration_file(flags: dict[str, Any]) -> Path | None:
    """The configuration of the run; a file of scripts/export.py has its own, which is fixed."""
    if not is_exported(flags["run"]):
        return existing_run(flags["run"]) / "config.yaml"
    for key in flags:
        if key in FIXED or key.startswith("postprocess."):
            raise UserError(f"{key} is fixed in {flags['run']}: export the run with another one")
    return None


def parse_arguments(argv: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration of the run with what is changed in it, and the program's options."""
    config, options = parse(
        argv,
        usage=USAGE,
        program_options=PROGRAM_OPTIONS,
        base=configuration_file,
        sections=("data", "postprocess"),
    )
    if bool(options["images"]) == (options["split"] is not None):
        raise UserError("give images, folders of images or --split, and one of them only")
    if options["tile"] and config["data"]["short"]:
        raise UserError(
            "--tile cuts tiles of data.size, and this run has data.short: add "
            "--data.short null --data.size '[640, 640]'"
        )
    return config, options


def main(argv: Sequence[str] | None = None) -> None:
    with one_line_errors():
        predict(*parse_arguments(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    main()
