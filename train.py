"""Train a detector:  python train.py --config configs/shapes.yaml

Parse, build, fit. The result is a run folder: config.yaml, checkpoints/best.ckpt and last.ckpt,
metrics.json and the events that TensorBoard reads.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from detector.config.command_line import parse
from detector.config.errors import UserError, one_line_errors
from detector.config.resolve import save
from detector.run.folder import add_epoch, best_epoch, choose_run, existing_run

USAGE = """python train.py --config FILE [--config OVERLAY] [--key value ...]
  python train.py --config configs/shapes.yaml --model.class_loss GHMC --model.class_loss.bins 20
  python train.py --config configs/retinanet_r18.yaml --data.root datasets/mine --run mine
  python train.py --resume mine --trainer.max_epochs 80"""


def parse_arguments(argv: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The configuration, and the name of a run that is given none: that of the last file."""
    config, options = parse(argv, usage=USAGE, base=resumed_config)
    return config, Path(options["config"][-1]).stem if options["config"] else "run"


def resumed_config(flags: dict[str, Any]) -> Path | None:
    """The configuration of the run to resume, over which files and flags are laid."""
    if flags.get("resume") and flags.get("run"):
        raise UserError("run: --resume goes on in the run's own folder; leave out --run")
    return existing_run(flags["resume"]) / "config.yaml" if flags.get("resume") else None


def main(argv: Sequence[str] | None = None) -> Path:
    """Trains as the command line says; returns the run folder."""
    with one_line_errors():
        return train(*parse_arguments(sys.argv[1:] if argv is None else argv))


def train(config: dict[str, Any], stem: str) -> Path:
    """Train what a resolved configuration describes; `stem` begins the name of a run without one.
    Returns the run folder."""
    # imported here, so that a mistake in the configuration is answered at once
    from pytorch_lightning.utilities import rank_zero_only

    from detector.run.assemble import compile_parts
    from detector.run.resume import check_resume, last_checkpoint
    from detector.run.weights import begin
    from detector.training import trainer as training
    from detector.training.quiet import quiet

    quiet()
    first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    run = choose_run(config["resume"], config["run"], stem, first)
    resume = last_checkpoint(run) if config["resume"] else None
    precision = config["trainer"]["precision"]
    config["trainer"]["precision"] = training.choose_precision(config["trainer"])
    data = read_data(config)
    detector, lines = make_detector(config, data)
    updates = check_resume(resume, run, config, detector) if resume else None
    compile_parts(detector, config["speed"]["compile"])
    if precision == "auto":
        lines.append(f"precision: {config['trainer']['precision']}, by what the device computes in")
    if config["resume"] and not resume:
        lines.append(f"{run} has no checkpoint yet, so it begins anew")
    if not resume:
        lines += begin(detector.net, config["model"], data.classes, data.category_ids)
    evaluators = make_evaluators(config, run, data)
    trainer = training.make_trainer(config, run, evaluators, partial(add_epoch, run), updates)
    data.trainer = trainer  # a batch is that of all its processes
    batches = len(data.train_dataloader()), len(data.val_dataloader())
    training.check_batches(config["trainer"], *batches)
    if first:
        run.mkdir(parents=True, exist_ok=True)
        save({**config, "run": str(run), "resume": None}, run / "config.yaml")
        print(*lines, f"run: {run}   (tensorboard --logdir {run.parent})", sep="\n", flush=True)

    training.log_config(trainer, config)
    with training.one_line_failures():
        trainer.fit(detector, datamodule=data, ckpt_path=resume, weights_only=True)
    if first and trainer.global_step == updates:
        limits = " and ".join(training.reached_limits(trainer, config["trainer"]))
        print(f"nothing was left to train: to go on give a larger {limits}")
    if trainer.is_global_zero and (best := best_epoch(run)).get("val/AP") is not None:
        print(f"best: epoch {best['epoch']}, AP {best['val/AP']:.3f}, AP50 {best['val/AP50']:.3f}")
    return run


def read_data(config: dict[str, Any]) -> Any:
    """The DataModule; writes into the configuration what it found: format and classes."""
    import pytorch_lightning as pl

    from data.datamodule import DataModule

    pl.seed_everything(config["seed"], workers=True, verbose=False)
    data = DataModule(**config["data"], seed=config["seed"])
    data.setup("fit")
    config["data"] |= {"format": data.format, "classes": list(data.classes)}
    # the same initial weights whatever the data drew
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    return data


def make_detector(config: dict[str, Any], data: Any) -> tuple[Any, list[str]]:
    """The untrained Detector, and lines about data and losses for the user."""
    from detector.run.assemble import assemble

    lines = data.report(config["postprocess"]["max_detections"])
    identities = data.count_identities() if config["model"]["embedding_loss"] else None
    weights = data.class_weights()
    criterion = (detector := assemble(config, identities, weights)).criterion
    if weights:
        pairs = (f"{name} {weight:.3g}" for name, weight in zip(data.classes, weights, strict=True))
        lines.append(f"class weights: {', '.join(pairs)}")
    if criterion.embedding is not None:
        lines += criterion.embedding.report()
    losses = criterion.class_loss, criterion.box_loss
    return detector, lines + [loss.advice for loss in losses if loss.advice]


def make_evaluators(config: dict[str, Any], run: Path, data: Any) -> list[Any]:
    """Callbacks that look at data and detections."""
    from detector.evaluation.batch_picture import BatchPicture
    from detector.evaluation.evaluator import Evaluator
    from detector.evaluation.recognition import IdentityEvaluator

    evaluator = Evaluator(data.ground_truth(), data.category_ids, data.classes)
    identities = [IdentityEvaluator()] if config["model"]["embedding_loss"] else []
    return [evaluator, BatchPicture(run, data.classes), *identities]


if __name__ == "__main__":
    main()
