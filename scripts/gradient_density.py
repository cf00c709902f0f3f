"""How wrong is a run, and what would losses make of it?  python scripts/gradient_density.py RUN

Counts the gradient norms of a run's checkpoint over a split and draws them: their density, and from
where cross-entropy, balanced cross-entropy, focal loss and GHM would take their gradient.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from detector.config.command_line import parse
from detector.config.errors import one_line_errors
from detector.config.files import RECORD, Outputs, check_writable
from detector.config.types import Count, Option
from detector.run.folder import existing_run

if TYPE_CHECKING:
    from detector.training.gradient_density import GradientCounts

USAGE = """python scripts/gradient_density.py RUN [--split train] [--out FILE.png]

  python scripts/gradient_density.py runs/first
  python scripts/gradient_density.py runs/first --checkpoint last --split val"""
PROGRAM_OPTIONS = {
    "run": Option(str, ..., "name under runs/, or a path"),
    "--checkpoint": Option(str, "last", "best, last or a file"),
    "--split": Option(Literal["train", "val"], "train", "train is with its augmentation"),
    "--batches": Option(Count, 50, "so many at most"),
    "--out": Option(str | None, None, "picture; null: gradients.png in the run's folder"),
}


def parse_arguments(argv: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration of the run with what is changed in it, and the program's options."""
    return parse(
        argv,
        usage=USAGE,
        program_options=PROGRAM_OPTIONS,
        base=lambda flags: existing_run(flags["run"]) / "config.yaml",
        sections=("data", "trainer"),
    )


def main(argv: Sequence[str] | None = None) -> str:
    """Draws the picture and returns the table that is printed."""
    with one_line_errors():
        return count(*parse_arguments(sys.argv[1:] if argv is None else argv))


def count(config: dict[str, Any], options: dict[str, Any]) -> str:
    import torch
    from tqdm import tqdm

    from data.datamodule import DataModule
    from detector.run.assemble import open_run
    from detector.training.gradient_density import GradientCounts
    from detector.training.gradient_pictures import save_gradients

    out = Path(options["out"] or existing_run(options["run"]) / "gradients.png")
    check_writable(out.parent)
    if options["out"]:
        Outputs(existing_run(options["run"]) / RECORD).claim(out)
    config, detector = open_run(options["run"], options["checkpoint"], config)
    data = DataModule(**config["data"], seed=config["seed"])
    data.setup("fit")
    loader = data.train_dataloader() if options["split"] == "train" else data.val_dataloader()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    detector.to(device)
    counts = GradientCounts().to(device)
    total = min(options["batches"], len(loader))
    bar = tqdm(zip(range(total), loader, strict=False), "counting", total, disable=None)
    with torch.no_grad():
        for _, batch in bar:
            batch = {name: value.to(device) for name, value in batch.items()}
            predictions = detector.net(batch["images"], batch["sizes"])
            _, targets = detector.criterion(predictions, batch)
            counts.add(detector.criterion.class_loss, predictions, targets)
    text = format_shares(counts.cpu())
    print(text)
    loss = config["model"]["class_loss"]["name"]
    title = f"{options['run']} ({options['checkpoint']}, trained with {loss}), {options['split']}"
    try:
        save_gradients(out, counts, title)
        print(f"picture: {out}")
    except ModuleNotFoundError:
        print("picture: needs matplotlib, pip install matplotlib")
    return text


def format_shares(counts: "GradientCounts") -> str:
    """Regions of gradient norms as rows, what losses would take from each as columns."""
    from detector.evaluation.table import Table
    from detector.training.gradient_density import REGIONS, shares

    results = shares(counts.examples, counts.errors)
    rows = [
        [r, results.counts[r], *(loss[r] for loss in results.regions.values())] for r in REGIONS
    ]
    formats = ["", ",.0f", *[".1%"] * len(results.regions)]
    return Table(["region", "examples", *results.regions], rows, formats).render()


if __name__ == "__main__":
    main()
