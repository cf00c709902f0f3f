"""Evaluate a run:  python eval.py runs/NAME [--checkpoint best|last|FILE] [--data.val SPLIT] [--out
detections.json]

Prints COCO's twelve figures and the AP of every class, and writes them to runs/NAME/eval/.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detector.config import one_line_errors, parse
from detector.options import Option

USAGE = """python eval.py RUN [--checkpoint best|last|FILE] [--out FILE] [--key value ...]

  python eval.py runs/mine
  python eval.py mine --data.root datasets/other --data.val test --out detections.json
  python eval.py mine --iou_threshold 0.6 --score_threshold 0.01"""

OWN = {
    "run": Option(str, ..., "name of a run under runs/, or its path"),
    "--checkpoint": Option(str, "best", "best, last or a file"),
    "--out": Option(str | None, None, "write the detections there, as COCO result json"),
}
SHORT = {
    key: f"postprocess.{key}"
    for key in ("nms", "iou_threshold", "score_threshold", "candidates", "max_detections")
}


def run_config(flags: dict[str, Any]) -> Path:
    from detector.run import existing_run

    return existing_run(flags["run"]) / "config.yaml"


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Evaluate as the command line says; returns the twelve figures."""
    with one_line_errors():
        config, own = parse(
            sys.argv[1:] if argv is None else argv,
            usage=USAGE,
            own=OWN,
            base=run_config,
            short=SHORT,
            sections=("data", "postprocess", "trainer"),
        )
        return evaluate(config, own)


def evaluate(config: dict[str, Any], own: dict[str, Any]) -> dict[str, float]:
    # imported here, so that a mistake on the command line is answered at once
    import pytorch_lightning as pl

    from data.datamodule import DataModule
    from detector.callbacks import quiet
    from detector.evaluation import format_table
    from detector.run import existing_run, open_run

    quiet()
    config, detector = open_run(own["run"], own["checkpoint"], config)
    data = DataModule(**config["data"], seed=config["seed"])
    data.setup("validate")
    options: dict[str, Any] = {
        "enable_progress_bar": sys.stderr.isatty(),
        "logger": False,
        "enable_checkpointing": False,
    }
    options |= for_evaluation(config["trainer"])
    trainer = pl.Trainer(**options, use_distributed_sampler=False)
    trainer.validate(detector, datamodule=data, verbose=False)
    if not trainer.is_global_zero:
        return {}
    rows = [{**row, "file_name": data.file_names[row["image_id"]]} for row in detector.results]
    figures = detector.figures
    assert figures is not None
    split = config["data"]["val"]
    print(
        format_table(
            figures, f"{own['run']} ({own['checkpoint']}) on {split}, {len(data.file_names)} images"
        )
    )

    folder = existing_run(own["run"]) / "eval"
    folder.mkdir(exist_ok=True)
    result = {
        "checkpoint": own["checkpoint"],
        "data": config["data"],
        "postprocess": config["postprocess"],
    }
    (folder / "metrics.json").write_text(json.dumps(result | figures.plain(), indent=1))
    if own["out"]:
        Path(own["out"]).parent.mkdir(parents=True, exist_ok=True)
        Path(own["out"]).write_text(json.dumps(rows))
        print(f"detections: {own['out']}")
    return figures.summary


def for_evaluation(trainer: dict[str, Any]) -> dict[str, Any]:
    """Of the run's Trainer arguments those that say where and how to compute."""
    kept = ("accelerator", "devices", "num_nodes", "strategy", "precision", "limit_val_batches")
    return {key: trainer[key] for key in kept if key in trainer}


if __name__ == "__main__":
    main()
