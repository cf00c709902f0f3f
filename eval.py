"""Evaluate a run:  python eval.py RUN [--nms diou]

Prints COCO's twelve figures, VOC's two, the AP of every class and what kinds of errors there are;
writes them, the detections and a picture to runs/NAME/eval/, and to TensorBoard. --nms all compares
every suppression on the same candidates.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from detector.config.command_line import parse
from detector.config.errors import one_line_errors
from detector.config.files import RECORD, Outputs, check_writable, write_json
from detector.config.types import Draws, Option
from detector.run.folder import existing_run

USAGE = """python eval.py RUN [--checkpoint best|last|FILE] [--out FILE] [--key value ...]

  python eval.py runs/mine
  python eval.py mine --nms diou --beta 0.9 --iou_threshold 0.5
  python eval.py mine --nms all
  python eval.py mine --data.root datasets/other --data.val test --out detections.json
  python eval.py mine --iou_threshold 0.6 --score_threshold 0.01"""

Nms = Literal["hard", "diou", "soft", "all"]
PROGRAM_OPTIONS = {
    "run": Option(str, ..., "name of a run under runs/, or its path"),
    "--checkpoint": Option(str, "best", "best, last or a file"),
    "--out": Option(str | None, None, "write the detections there too, as COCO result json"),
    "--nms": Option(Nms | None, None, "suppression; all: a table of all, the net runs once"),
    "--draws": Option(Draws | Literal[0], 1000, "of images, for intervals; 0: none"),
}
# Arguments of the Trainer that may change what an evaluation finds
COMPUTING = ("precision", "limit_val_batches")
SHORT = {
    f"--{key}": f"--postprocess.{key}"
    for key in (
        "iou_threshold",
        "beta",
        "sigma",
        "class_agnostic",
        "score_threshold",
        "candidates",
        "max_detections",
    )
}


def parse_arguments(argv: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration of the run with what is changed in it, and the program's options."""
    config, options = parse(
        argv,
        usage=USAGE,
        program_options=PROGRAM_OPTIONS,
        base=lambda flags: existing_run(flags["run"]) / "config.yaml",
        short=SHORT,
        sections=("data", "postprocess", "trainer"),
    )
    if options["nms"] not in (None, "all"):
        config["postprocess"]["nms"] = options["nms"]
    return config, options


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Evaluates as the command line says; returns the twelve figures, or {} of --nms all."""
    with one_line_errors():
        config, options = parse_arguments(sys.argv[1:] if argv is None else argv)
        if options["nms"] == "all":
            compare_suppression(config, options)
            return {}
        return evaluate(config, options)


class Evaluation(NamedTuple):
    """What one pass over the validation data leaves: the callbacks with their figures (an
    Evaluator, an IdentityEvaluator, a ScoreMeter), and the DataModule."""

    evaluator: Any
    recognition: Any
    meter: Any
    data: Any


def evaluate(config: dict[str, Any], options: dict[str, Any]) -> dict[str, float]:
    """Writes and prints all figures of one suppression; returns the twelve of COCO."""
    folder = existing_run(options["run"]) / "eval"
    check_writable(folder)
    if options["out"]:
        Outputs(folder / RECORD).claim(options["out"])
    done = validate(config, options)
    evaluator, data = done.evaluator, done.data
    if evaluator.figures is None:  # not the first process
        return {}
    from detector.evaluation.report import print_tables
    from detector.evaluation.tide import explain

    rows = [{**row, "file_name": data.file_names[row["image_id"]]} for row in evaluator.results]
    most = config["postprocess"]["max_detections"]
    explanation = explain(evaluator.truth, rows, evaluator.image_ids, most)
    for path in (folder / "detections.json", options["out"]):
        if path:
            write_json(Path(path), rows)
    write_figures(folder, config, options, done, explanation)
    # after the files: a closed pipe must not cost them
    where = f"{options['run']} ({options['checkpoint']}) on {config['data']['val']}"
    title = f"{where}, {len(evaluator.image_ids)} images"
    threshold, identities = config["postprocess"]["score_threshold"], done.recognition.figures
    figures = evaluator.figures
    print_tables(title, figures, explanation, done.meter.figures, threshold, identities)
    print(f"\ndetections: {options['out'] or folder / 'detections.json'}")
    write_pictures(folder, title, options, done, explanation)
    summary: dict[str, float] = figures.summary
    return summary


def write_figures(
    folder: Path,
    config: dict[str, Any],
    options: dict[str, Any],
    done: Evaluation,
    explanation: Any,
) -> None:
    """metrics.json, and with an embedding head queries.json."""
    points, recognition = explanation.points, done.recognition
    result = {
        "checkpoint": options["checkpoint"],
        "data": config["data"],
        "postprocess": config["postprocess"],
        **done.evaluator.figures._asdict(),
        "errors": explanation.errors._asdict(),
        "calibration": explanation.calibration._asdict(),
        "scores": done.meter.figures,
        "best_score": points.best._asdict(),
        "best_score_per_class": {name: p._asdict() for name, p in points.per_class.items()},
        "curve_by_score": points.curve.sample(),
        "curves_by_score": {name: curve.sample() for name, curve in points.curves.items()},
        "confusion": points.confusion and points.confusion._asdict(),
        "made_from": made_from(config, options, done.data, done.evaluator.image_ids),
    }
    if recognition.figures is not None:
        result["identity"] = recognition.figures._asdict()
        write_json(folder / "queries.json", recognition.queries(done.data.identity_names))
    write_json(folder / "metrics.json", result)


def write_pictures(
    folder: Path, title: str, options: dict[str, Any], done: Evaluation, explanation: Any
) -> None:
    """Pictures, also for TensorBoard at the step of the checkpoint, and mistakes.json."""
    from detector.evaluation.mistakes import choose_mistakes, draw_mistakes
    from detector.evaluation.projector import write_projector
    from detector.evaluation.report import write_report
    from detector.run.folder import checkpoint_file
    from detector.run.weights import read_weights

    evaluator, names, read_image = done.evaluator, done.data.file_names, done.data.read_image
    mistakes = choose_mistakes(explanation.mistakes)
    shown = [mistake for group in mistakes.values() for mistake in group]
    named = [{**mistake._asdict(), "file_name": names[mistake.image_id]} for mistake in shown]
    write_json(folder / "mistakes.json", named)
    sheet = draw_mistakes(mistakes, evaluator.truth["annotations"], read_image)
    path = checkpoint_file(existing_run(options["run"]), options["checkpoint"])
    step = int(read_weights(path).get("global_step", 0))
    write_report(folder, title, evaluator.figures, explanation, sheet, step)
    objects, vectors = done.recognition.objects, folder / "vectors"
    if objects and write_projector(vectors, objects, done.data.identity_names, read_image):
        print(f"vectors: tensorboard --logdir {vectors}   (tab Projector)")


def validate(
    config: dict[str, Any], options: dict[str, Any], keep_candidates: bool = False
) -> Evaluation:
    """One pass over the validation data."""
    # imported here, so that a mistake on the command line is answered at once
    from data.datamodule import DataModule
    from detector.evaluation.evaluator import Evaluator
    from detector.evaluation.recognition import IdentityEvaluator
    from detector.evaluation.scores import ScoreMeter
    from detector.run.assemble import open_run
    from detector.training.quiet import quiet
    from detector.training.trainer import make_evaluation_trainer

    quiet()
    config, detector = open_run(options["run"], options["checkpoint"], config)
    data = DataModule(**config["data"], seed=config["seed"])
    data.setup("validate")
    if config["model"]["embedding_loss"]:
        data.check_identities()
    for line in data.warnings(config["postprocess"]["max_detections"]):
        print(line)
    labels = data.category_ids, data.classes
    evaluator = Evaluator(
        data.ground_truth(),
        *labels,
        full=True,
        max_detections=config["postprocess"]["max_detections"],
        keep_candidates=keep_candidates,
    )
    recognition, meter = IdentityEvaluator(full=True, draws=options["draws"]), ScoreMeter()
    trainer = make_evaluation_trainer(config["trainer"], [evaluator, recognition, meter])
    trainer.validate(detector, datamodule=data, verbose=False)
    return Evaluation(evaluator, recognition, meter, data)


def made_from(
    config: dict[str, Any], options: dict[str, Any], data: Any, image_ids: Iterable[int]
) -> dict[str, Any]:
    """What the figures of these images depend on."""
    from detector.evaluation.provenance import describe_origin, detection_settings
    from detector.run.folder import checkpoint_file

    split = data.splits["val"]
    files = dict(zip(split.image_ids.tolist(), split.paths, strict=True))
    settings = {
        **detection_settings(config),
        "trainer": {k: v for k, v in config["trainer"].items() if k in COMPUTING},
    }
    weights = checkpoint_file(existing_run(options["run"]), options["checkpoint"])
    truth, identity = data.ground_truth(), config["data"]["identity"]
    return describe_origin(weights, truth, image_ids, files, data.classes, settings, identity)


def compare_suppression(config: dict[str, Any], options: dict[str, Any]) -> None:
    """The table of --nms all. Candidates are kept in the run's eval/ and used again as long as
    checkpoint, data and what chooses candidates stay the same."""
    from data.datamodule import DataModule
    from detector.evaluation.compare_nms import compare_all, format_lines, load, save
    from detector.evaluation.provenance import digest
    from detector.run.assemble import make_suppression

    folder = existing_run(options["run"]) / "eval"
    check_writable(folder)
    data = DataModule(**config["data"], seed=config["seed"])
    data.setup("validate")
    origin = made_from(config, options, data, data.file_names)
    origin["settings"]["postprocess"] = {
        name: config["postprocess"][name] for name in ("candidates", "score_threshold")
    }
    key = {"made_from": digest(origin)}  # 1 batch is not 1.0, all of them, but equal in Python
    candidates = load(folder / "candidates.pt", key)
    if candidates is None:
        evaluator = validate(config, options, keep_candidates=True).evaluator
        if evaluator.figures is None:  # not the first process
            return
        candidates = evaluator.candidates
        save(folder / "candidates.pt", key, candidates)
    else:
        print(f"candidates of {folder / 'candidates.pt'}, the net is not run again")
    postprocess = config["postprocess"]
    truth, configured = data.ground_truth(), make_suppression(postprocess)
    lines = compare_all(candidates, truth, data.category_ids, configured, options["draws"])
    print(format_lines(lines))
    write_json(folder / "suppression.json", [line._asdict() for line in lines])


if __name__ == "__main__":
    main()
