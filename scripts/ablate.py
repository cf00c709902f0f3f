"""Which loss is better?  python scripts/ablate.py --config FILE --class_loss A B --seeds 0 1 2

Trains a grid of runs that differ in nothing but what is asked about, and says what they show:
tables (CSV, Markdown, LaTeX), pictures, one HTML page, TensorBoard.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from detector.ablation.grid import (
    RECOGNITION,
    Axis,
    Cell,
    Metric,
    Shared,
    check_fairness,
    make_axis,
    make_cells,
    point_name,
)
from detector.ablation.tuning import (
    choose,
    describe_choice,
    make_candidates,
    search_metric,
    tuned_keys,
    unsettled,
    widen,
)
from detector.config.command_line import parse_options
from detector.config.errors import UserError, one_line_errors
from detector.config.files import write
from detector.config.signatures import SLOTS
from detector.config.types import Count, Draws, Natural, Option, did_you_mean

if TYPE_CHECKING:
    from detector.ablation.cells import Ablation

USAGE = """python scripts/ablate.py --config FILE --class_loss A B ... [--seeds 0 1 2] [--out DIR]

  python scripts/ablate.py --config configs/shapes.yaml --class_loss FocalLoss GHMC --seeds 0 1 2
  python scripts/ablate.py --config configs/shapes.yaml --vary model.class_loss.gamma 0 1 2
  python scripts/ablate.py --config configs/shapes.yaml --box_loss L1Loss GIoULoss --tune --jobs 2
  python scripts/ablate.py --config configs/shapes.yaml --vary data.label_noise 0 0.2 \\
      --class_loss FocalLoss GHMC '{name: GHMC, bins: 10}' --trainer.max_epochs 6

The first value of an axis is the baseline. Keys of data. are conditions: methods are compared
within each. The same command goes on where it stopped, and with more seeds or values what is
there is kept. Results: DIR/{table.md, table.tex, results.csv, effects.png, index.html,
cells/NAME/}, and tensorboard --logdir DIR."""
PROGRAM_OPTIONS = {
    "--vary": Option(list[list[str]], [], "KEY VALUE VALUE ...: an axis, any key below"),
    "--seeds": Option(list[Natural], [0], "one run of every point for each"),
    "--out": Option(str, "runs/ablation", "folder of the ablation"),
    "--tune": Option(
        bool, False, "first choose learning rate and loss weight of each, on images set apart"
    ),
    "--jobs": Option(Count, 1, "cells at a time, each on a GPU or a share of the cores"),
    "--engine": Option(Literal["local", "slurm"], "local", "slurm writes a script for sbatch"),
    "--metric": Option(Metric, "AP", "what methods are compared by"),
    "--draws": Option(Draws, 300, "draws of the validation images, for the intervals"),
    "--cell": Option(str | None, None, "run this cell of an ablation in --out, nothing else"),
}
SHORT = {f"--{slot.rpartition('.')[2]}": f"--vary {slot}" for slot in SLOTS}
INSTEAD = {"seed": "--seeds 0 1 2", "run": "--out DIR", "resume": "--out DIR, again to go on"}


def parse_arguments(argv: Sequence[str]) -> tuple[dict[str, Any], list[Axis], Shared]:
    """The program's options, the axes in the order typed, and what all cells share."""
    options, overrides = parse_options(
        argv, usage=USAGE, program_options=PROGRAM_OPTIONS, short=SHORT
    )
    for key in INSTEAD:
        if key in overrides:
            raise UserError(f"--{key}: an ablation takes {INSTEAD[key]}")
    axes = [make_axis(key, words) for key, *words in options["vary"]]
    return options, axes, Shared(options["config"], overrides)


def run(ablation: "Ablation", options: dict[str, Any]) -> None:
    """Trains and evaluates what is not done, or writes the script that does."""
    from detector.ablation.engines import run_all, visible_gpus, write_slurm

    total, waiting = len(ablation.cells), len(ablation.waiting())
    if waiting < total:
        print(f"{total - waiting} of {total} cells are done already")
    if not waiting:
        return
    if options["engine"] == "slurm":
        script = write_slurm(ablation, options["jobs"])
        print(f"{waiting} cells are waiting: sbatch {script}")
        print("then type the same command again for what comes next, or for the tables so far")
        if waiting == total:  # no figures to report, and nothing is wrong
            raise SystemExit(0)
    else:
        run_all(ablation, options["jobs"], visible_gpus(ablation.cells))


def tune(
    shared: Shared, axes: Sequence[Axis], out: Path, options: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Runs the search and returns what it chose for every point; table in out/tuning/table.md."""
    from detector.ablation.cells import Ablation, prepare
    from detector.evaluation.table import Table

    folder, keys, metric = out / "tuning", tuned_keys(axes), search_metric(axes)
    cells: list[Cell] = []
    newest = make_candidates(shared, axes, options["seeds"][0], folder)
    print(f"tuning {', '.join(keys)}: {len(newest)} cells on images set apart")
    while newest:
        cells += newest
        search = Ablation(folder, axes, cells, keys)
        prepare(search)
        outcomes = {cell.name: search.outcome(cell) for cell in cells}
        if left := [cell for cell in unsettled(cells, outcomes) if cell in newest]:
            run(search._replace(cells=left), options)
            outcomes = {cell.name: search.outcome(cell) for cell in cells}
        if any(outcome.state == "not yet run" for outcome in outcomes.values()):
            if options["engine"] == "slurm":
                raise SystemExit(0)
            raise UserError("the search is not over: type the same command again to go on with it")
        newest = [
            cell
            for cell in widen(shared, axes, cells, outcomes, metric)
            # points whose comparison has begun keep the search, and so the choice, that they had
            if not any((out / "configs").glob(f"{point_name(cell.point)}_seed*.yaml"))
            or (folder / "configs" / f"{cell.name}.yaml").is_file()
        ]
        if newest:
            print(f"better may lie beyond: {len(newest)} cells more around the best")
    chosen, rows = choose(cells, outcomes, metric)
    table = Table(["point", *keys, f"{metric} on the images set apart", ""], rows)
    lines = describe_choice(cells, chosen)
    write(folder / "table.md", "\n".join([table.render("pipe"), "", "```", *lines, "```", ""]))
    print(table.render(), *lines, sep="\n")
    return chosen


def ground_truth(config: dict[str, Any], tune: bool) -> dict[str, Any]:
    """The objects that all cells are evaluated against. UserError where tuning would see them."""
    from data.datamodule import DataModule
    from detector.evaluation.matches import check_objects

    data = DataModule(**config["data"], seed=config["seed"])
    data.setup("validate")
    if tune and (data.options.holdout or data.is_undivided):
        raise UserError(
            "--tune would choose on the images that the methods are then compared on: without a "
            "split of their own (data.val) they are set apart from train, as those of --tune are"
        )
    truth = data.ground_truth()
    check_objects(truth)
    return truth


def run_one(out: Path, name: str) -> None:
    """Runs one cell, as a job of an engine; the exit status is 0 if it is done."""
    from detector.ablation.cells import run_cell

    known = [path.stem for path in (out / "configs").glob("*.yaml")]
    if name not in known:
        hint = did_you_mean(name, known) if known else ", and no other: is --out right?"
        raise UserError(f"--cell {name}: {out} has no such cell{hint}")
    outcome = run_cell(out, name)
    print(f"{name}: {outcome.state} {outcome.reason}")
    raise SystemExit(0 if outcome.state == "done" else 1)


def main(argv: Sequence[str] | None = None) -> None:
    words = sys.argv[1:] if argv is None else list(argv)
    with one_line_errors():
        options, axes, shared = parse_arguments(words)
        out, seeds = Path(options["out"]), options["seeds"]
        if options["cell"]:
            run_one(out, options["cell"])
        cells = make_cells(shared, axes, seeds, out)
        heads = [cell.config["model"]["embedding_loss"] for cell in cells]
        if options["metric"] in RECOGNITION and not any(heads):
            raise UserError(
                f"--metric {options['metric']}: no cell has an embedding head: give "
                "--embedding_loss and --model.embedding.size 128"
            )
        tuned = tuned_keys(axes) if options["tune"] else []
        check_fairness(cells, [cell.config for cell in cells])
        from detector.ablation.cells import Ablation, prepare
        from detector.ablation.report import report

        # what is wrong with the data is told before training
        truth = ground_truth(cells[0].config, options["tune"])
        if tuned:
            prepare(Ablation(out, axes, [], tuned))
            cells = make_cells(shared, axes, seeds, out, tune(shared, axes, out, options))
        ablation = Ablation(out, axes, cells, tuned)
        prepare(ablation)
        print(*check_fairness(cells, [cell.config for cell in cells], tuned), sep="\n", flush=True)
        run(ablation, options)
        command = f"python scripts/ablate.py {shlex.join(words)}"
        report(ablation, truth, options["draws"], options["jobs"], command, options["metric"])


if __name__ == "__main__":
    main()
