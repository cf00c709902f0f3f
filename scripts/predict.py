"""Draw what a run detects:  python scripts/predict.py RUN IMAGE|FOLDER|VIDEO ... --out DIR

Beside the ground truth:  python scripts/predict.py RUN --split val --count 12 --out DIR
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from detector.config.command_line import parse
from detector.config.errors import UserError, one_line_errors
from detector.config.files import safe_name, was_written
from detector.config.types import Count, Fraction, Option, Threshold
from detector.run.folder import existing_run, is_exported

if TYPE_CHECKING:
    import numpy as np

    from data.pictures import Picture, View
    from data.transforms import InputSize
    from detector.evaluation.drawing import Marks
    from detector.evaluation.formats import Seen
    from detector.module import Detector
    from detector.run.exported import Exported

USAGE = """python scripts/predict.py RUN IMAGE|FOLDER|VIDEO ... --out DIR [--score 0.3] [--tile]
       python scripts/predict.py RUN IMAGE --out -
       python scripts/predict.py RUN --split val [--count 12] --out DIR

Writes every image and video with its boxes, and detections.json: file_name as it was given, frame
of a video, category, bbox (x, y, width, height in pixels of the upright picture), score. --out -
writes a line of JSON per object to a pipe instead, and nothing else. With --split the ground truth
is on the left, sheet.png shows the first 24 pictures together, and detections.json has the data
set's image_id and category_id. A camera (camera:0) ends with Ctrl-C."""
PROGRAM_OPTIONS = {
    "run": Option(str, ..., "name of a run under runs/, its path, or a file of export.py"),
    "images": Option(list[str], [], "images, videos, folders of them in any depth, camera:NUMBER"),
    "--out": Option(str, ..., "folder to write to; - for lines of JSON to a pipe"),
    "--format": Option(Literal["json", "coco", "yolo", "csv"], "json", "of the detections"),
    "--crops": Option(bool, False, "also every object as a picture, crops/CLASS/NAME_NUMBER.jpg"),
    "--split": Option(str | None, None, "val, train or another split, instead of images"),
    "--count": Option(Count, 12, "images of the split, evenly spaced"),
    "--checkpoint": Option(str, "best", "best, last or a file"),
    "--tile": Option(bool, False, "cut images into tiles of data.size, to find small objects"),
    "--overlap": Option(Threshold, 0.2, "share of a tile that neighbors see as well"),
    "--score": Option(Fraction | Literal["best"], 0.3, "lowest shown; best: eval.py's"),
}
FIXED = ("data.classes", "data.size", "data.short")  # in an exported file


def detect(
    detector: "Detector | Exported", views: "Sequence[View]", size: "InputSize", score: float
) -> "list[Marks]":
    """What is detected in images of one input shape with at least `score`, in pixels of each."""
    import torch

    from data.pictures import feed
    from detector.evaluation.drawing import Marks

    shapes = [view.image.shape for view in views]
    batch = feed([view.small for view in views], shapes, size, detector.device)
    with torch.inference_mode():
        detections = detector(batch)
    marks = []
    arrays = (part.cpu().numpy() for part in detections[:3])
    for boxes, scores, labels in zip(*arrays, strict=True):
        keep = (labels >= 0) & (scores >= score)
        marks.append(Marks(boxes[keep], labels[keep], scores[keep]))
    return marks


def detect_in_tiles(
    detector: "Detector | Exported",
    view: "View",
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
    tiles = cut(view.image.shape[:2], data["size"], options["overlap"])

    def look(crops: "list[np.ndarray]") -> "list[Marks]":
        views = [view._replace(image=crop, small=crop) for crop in crops]
        return detect(detector, views, size, score)

    boxes, scores, labels = detect_tiles(
        *(view.image, tiles, data["batch_size"], options["overlap"]),
        make_suppression(config["postprocess"]),
        look,
    )
    return Marks(boxes, labels, scores)


def choose_score(
    config: dict[str, Any], options: dict[str, Any], exported: "Exported | None"
) -> float:
    """The number that --score is or stands for."""
    from detector.evaluation.provenance import read_best_score
    from detector.run.folder import checkpoint_file

    run, checkpoint, score = (options[name] for name in ("run", "checkpoint", "score"))
    if score != "best":
        return float(score)
    if exported:
        score, split = exported.best_score()
        say(f"score {score:.3f}: the best on {split}, by {run}", options)
        return score
    folder = existing_run(run)
    path, weights = folder / "eval" / "metrics.json", checkpoint_file(folder, checkpoint)
    command = f"python eval.py {run} --checkpoint {checkpoint}"
    score, split = read_best_score(path, weights, config, command)
    say(f"score {score:.3f}: the best on {split}, by {path}", options)
    return score


def find_sources(
    config: dict[str, Any], options: dict[str, Any]
) -> "tuple[list[Picture], list[int] | None]":
    """What is looked at, each with an output of its own, and the category ids of a split."""
    from data.pictures import choose_names, find_pictures, of_split
    from detector.evaluation.sinks import SHEET

    ids = None
    if options["split"] is None:
        sources = find_pictures(options["images"], was_written)
    else:
        split, count = options["split"], options["count"]
        sources, ids = of_split(config["data"], config["seed"], split, count)
    sources = [source._replace(output=safe_name(source.name)) for source in sources]
    return choose_names(sources, {SHEET}), ids


def predict(config: dict[str, Any], options: dict[str, Any]) -> None:
    import torch

    from data.pictures import read_batches
    from data.transforms import InputSize
    from detector.evaluation.sinks import Folder, Lines
    from detector.run.assemble import as_evaluated, open_run
    from detector.run.exported import Exported

    exported = Exported(options["run"]) if is_exported(options["run"]) else None
    config = exported.configure(config) if exported else config
    out, data = options["out"], config["data"]
    score = choose_score(config, options, exported)
    sources, ids = find_sources(config, options)
    classes = data["classes"]
    table = (options["format"], options["crops"])
    expected = [seen_in(source, (1, 1)) for source in sources]
    sink = Lines(classes, ids) if out == "-" else Folder(Path(out), expected, classes, ids, *table)
    if score < (lowest := config["postprocess"]["score_threshold"]):
        how = "export it with" if exported else "add"
        more = f"{how} --postprocess.score_threshold {score:g} for more"
        say(f"scores below {lowest:g} (postprocess.score_threshold) are left out: {more}", options)
    detector = exported or open_run(options["run"], options["checkpoint"], config)[1].to(
        "cuda" if torch.cuda.is_available() else "cpu"
    )
    size = InputSize(data["size"], data["short"], data["long"])
    whole = None if options["tile"] else size
    batches = read_batches(sources, whole, data["batch_size"] if whole else 1, data["reduce"])
    try:
        for batch in batches:
            with as_evaluated(config, detector.device):
                if whole:
                    detections = detect(detector, batch, size, score)
                else:
                    detections = [detect_in_tiles(detector, batch[0], config, options, score)]
            for view, marks in zip(batch, detections, strict=True):
                sink.add(seen_in(view.picture, view.image.shape[:2], marks), view.image)
    finally:  # what is detected so far is not lost to Ctrl-C
        sink.close()
    if not sink.images:
        raise UserError(f"none of the {len(sources)} images can be read")
    none = "" if sink.objects else f"; none has a score of {score:g} or more: see --score"
    say(f"{out}: {sink.images} pictures with {sink.objects} objects{none}", options)


def seen_in(source: "Picture", size: tuple[int, int], marks: "Marks | None" = None) -> "Seen":
    """What was detected in a picture; without `marks` nothing, in the first frame of a video."""
    import numpy as np

    from data.video import is_video
    from detector.evaluation.drawing import Marks
    from detector.evaluation.formats import Seen

    frame, truth = source.frame, source.truth
    if marks is None:
        marks = Marks(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))
        frame = 0 if is_video(source.path) else None
    drawn = truth and Marks(truth.boxes, truth.labels, None, truth.ignore)
    return Seen(
        *(source.name, size, marks, frame, source.rate, source.image_id, drawn), source.output
    )


def say(line: str, options: dict[str, Any]) -> None:
    """A line for the user, beside the pipe where one is written to."""
    print(line, file=sys.stderr if options["out"] == "-" else sys.stdout)


def configuration_file(flags: dict[str, Any]) -> Path | None:
    """The configuration of the run; a file of scripts/export.py has its own, which is fixed."""
    if not is_exported(flags["run"]):
        return existing_run(flags["run"]) / "config.yaml"
    chosen = ["checkpoint"] if flags["checkpoint"] != "best" else []
    for key in [*chosen, *flags]:
        if key in (*FIXED, *chosen) or key.startswith("postprocess."):
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
    if options["out"] == "-" and (options["crops"] or options["format"] != "json"):
        raise UserError("--out - writes lines of JSON: leave out --crops and --format")
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
