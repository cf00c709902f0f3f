"""Train a detector:  python train.py --config configs/shapes.yaml

Parse, build, fit. The result is a run folder: config.yaml, checkpoints/best.ckpt and last.ckpt,
metrics.json and the events that TensorBoard reads.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detector.config.command_line import parse
from detector.config.errors import one_line_errors
from detector.config.files import write
from detector.config.resolve import save
from detector.runs.folder import checkpoint_file, existing_run, new_run

USAGE = """python train.py --config FILE [--config OVERLAY] [--key value ...]

  python train.py --config configs/shapes.yaml
  python train.py --config configs/shapes.yaml --model.class_loss GHMC --model.class_loss.bins 20
  python train.py --config configs/retinanet_r18.yaml --data.root datasets/mine --run mine
  python train.py --resume mine --trainer.max_epochs 24"""


def parse_arguments(argv: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The configuration, and the name of a run that is given none: that of the last file."""
    config, options = parse(argv, usage=USAGE, base=resumed_config)
    return config, Path(options["config"][-1]).stem if options["config"] else "run"


def resumed_config(flags: dict[str, Any]) -> Path | None:
    """The configuration of the run to resume, over which files and flags are laid."""
    return existing_run(flags["resume"]) / "config.yaml" if flags.get("resume") else None


def main(argv: Sequence[str] | None = None) -> Path:
    """Trains as the command line says; returns the run folder."""
    with one_line_errors():
        return train(*parse_arguments(sys.argv[1:] if argv is None else argv))


def train(config: dict[str, Any], stem: str) -> Path:
    # imported here, so that a mistake in the configuration is answered at once
    import pytorch_lightning as pl

    from data.datamodule import DataModule
    from detector.runs.assemble import assemble
    from detector.runs.weights import start_from
    from detector.training.callbacks import EpochLine, quiet

    quiet()
    first = is_first()
    if config["resume"]:
        run = existing_run(config["resume"])
    elif first:
        # processes that Lightning starts for further devices find the same folder
        run = new_run(config["run"], stem)
        os.environ["DETECTOR_RUN"] = str(run)
    else:
        run = Path(os.environ.get("DETECTOR_RUN") or config["run"] or f"runs/{stem}")
    resume = checkpoint_file(run, "last") if config["resume"] else None

    pl.seed_everything(config["seed"], workers=True, verbose=False)
    data = DataModule(**config["data"], seed=config["seed"])
    data.setup("fit")
    config["data"]["classes"] = list(data.classes)
    pl.seed_everything(
        config["seed"], workers=True, verbose=False
    )  # the same initial weights whatever the data drew
    detector = assemble(config)
    detector.compile_parts(config["speed"]["compile"])
    lines = list(data.report())
    if config["model"]["weights"] and not resume:
        model = config["model"]
        lines.append(
            start_from(
                detector.net, model["weights"], model["depth"], data.classes, data.category_ids
            )
        )
    if first:
        run.mkdir(parents=True, exist_ok=True)
        save({**config, "run": str(run), "resume": None}, run / "config.yaml")
        print(*lines, sep="\n")
        print(f"run: {run}   (tensorboard --logdir {run.parent})", flush=True)

    epochs = EpochLine(lambda line: add_metrics(run, line))
    trainer = make_trainer(config, run, epochs)
    trainer.fit(detector, datamodule=data, ckpt_path=resume, weights_only=True)
    if trainer.is_global_zero:
        best = json.loads((run / "metrics.json").read_text())["best"]
        if "val/AP" in best:
            print(
                f"best: epoch {best['epoch']}, AP {best['val/AP']:.3f}, AP50 {best['val/AP50']:.3f}"
            )
    return run


def is_first() -> bool:
    """Whether this is the process that prints and writes."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return int(next((os.environ[name] for name in names if name in os.environ), 0)) == 0


def make_trainer(config: dict[str, Any], run: Path, epochs: Any) -> Any:
    import pytorch_lightning as pl
    import yaml
    from pytorch_lightning.callbacks import ModelCheckpoint
    from pytorch_lightning.loggers import TensorBoardLogger

    from detector.training.callbacks import Bar, RampedEMA
    from detector.training.gradient_pictures import GradientPictures

    logger = TensorBoardLogger(run, name="", version="", default_hp_metric=False)
    text = yaml.safe_dump(config, sort_keys=False)
    if is_first():
        logger.experiment.add_text("config", f"```yaml\n{text}\n```", 0)
    shared: dict[str, Any] = {"dirpath": run / "checkpoints", "enable_version_counter": False}
    callbacks: list[Any] = [
        ModelCheckpoint(filename="best", monitor="val/AP", mode="max", **shared),
        ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **shared),
        epochs,
        GradientPictures(run),
    ]
    if config["ema"]["decay"]:
        callbacks.append(RampedEMA(config["ema"]["decay"]))
    options: dict[str, Any] = {
        "enable_progress_bar": sys.stderr.isatty(),
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    options |= config["trainer"]
    if options["enable_progress_bar"]:
        callbacks.append(Bar(refresh_rate=options["log_every_n_steps"]))
    return pl.Trainer(
        **options,
        default_root_dir=run,
        logger=logger,
        callbacks=callbacks,
        use_distributed_sampler=False,
    )


def add_metrics(run: Path, line: dict[str, float]) -> None:
    """metrics.json: the best epoch and one entry for each, those of before a resume included."""
    path = run / "metrics.json"
    before = json.loads(path.read_text())["epochs"] if path.is_file() else []
    epochs = [other for other in before if other["epoch"] < line["epoch"]] + [line]
    best = max(epochs, key=lambda other: other.get("val/AP", -1))
    write(path, json.dumps({"best": best, "epochs": epochs}, indent=1))


if __name__ == "__main__":
    main()
