"""Which loss is better?  python scripts/ablate.py --config FILE --class_loss A B --seeds 0 1 2

Trains a grid of runs that differ in nothing but what is asked about, and says what they show:
tables (CSV, Markdown, LaTeX), pictures, one HTML page, TensorBoard.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from detector.ablation.grid import Axis, Cell, check_fairness, make_cells
from detector.ablation.tuning import best, candidates, tuned_keys
from detector.config.errors import UserError, one_line_errors
from detector.config.sources import COMMAND_LINE, Given, checked, typed
from detector.config.types import Count, Natural, near

USAGE = """python scripts/ablate.py --config FILE --class_loss A B ... [--seeds 0 1 2] [--out DIR]

  python scripts/ablate.py --config configs/shapes.yaml --class_loss FocalLoss GHMC --seeds 0 1 2
  python scripts/ablate.py --config configs/shapes.yaml --vary model.class_loss.gamma 0 1 2
  python scripts/ablate.py --config configs/shapes.yaml --box_loss L1Loss GIoULoss --tune --jobs 2
  python scripts/ablate.py --config configs/shapes.yaml --vary data.label_noise 0 0.2 \\
      --class_loss FocalLoss GHMC '{name: GHMC, bins: 10}' --trainer.max_epochs 6

--class_loss A B ...           short for --vary model.class_loss A B ...
--box_loss A B ...             short for --vary model.box_loss A B ...
--vary KEY VALUE VALUE ...     an axis: any key of a configuration; the first value is the baseline.
                               Keys of data. are conditions: methods are compared within each
--seeds 0 1 2                  one run of every point for each (default 0)
--out runs/ablation            folder of the ablation; the same command goes on where it stopped,
                               with more seeds or values what is there is kept
--tune                         first choose learning rate and loss weight of every point, on a fifth
                               of the training images set apart
--jobs 1                       cells at a time, each on a GPU or a share of the cores
--engine local                 local; slurm writes a script for sbatch; ray runs on a Ray cluster
--draws 300                    draws of the validation images for the intervals
--key value                    for all cells: any key of train.py --help

Results: FOLDER/{table.md, table.tex, results.csv, effects.png, index.html, cells/NAME/}, and
tensorboard --logdir FOLDER."""
ENGINES = ("local", "slurm", "ray")
SINGLE: dict[str, tuple[Any, Any]] = {
    "--out": (str, "runs/ablation"),
    "--jobs": (Count, 1),
    "--engine": (str, "local"),
    "--draws": (Count, 300),
    "--cell": (str, None),
}
SHORT = {"--class_loss": "model.class_loss", "--box_loss": "model.box_loss"}


def words_of(argv: Sequence[str]) -> tuple[dict[str, Any], list[Axis], list[int], list[str]]:
    """Options, axes, seeds, and the words that are for all cells."""
    options: dict[str, Any] = {name: default for name, (_, default) in SINGLE.items()}
    options["--tune"] = False
    axes: list[Axis] = []
    seeds: list[int] = [0]
    shared: list[str] = []
    groups: list[list[str]] = []
    for word in argv:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            groups.append([flag, value] if equals else [flag])
        elif groups:
            groups[-1].append(word)
        else:
            raise UserError(f"unexpected '{word}': options are typed as --key value")
    for flag, *values in groups:
        if flag in SHORT:
            axes.append(Axis(SHORT[flag], values))
        elif flag == "--vary":
            if not values:
                raise UserError("--vary needs a key and its values")
            axes.append(Axis(values[0], values[1:]))
        elif flag == "--seeds":
            seeds = [checked(flag, Given(typed(v, int), COMMAND_LINE), Natural) for v in values]
        elif flag == "--tune":
            options[flag] = True
            if values:
                raise UserError(f"--tune takes no value, not {' '.join(values)}")
        elif flag in SINGLE:
            if len(values) != 1:
                raise UserError(f"{flag} needs one value, not {len(values)}")
            kind = SINGLE[flag][0]
            options[flag] = checked(flag, Given(typed(values[0], kind), COMMAND_LINE), kind)
        elif "." not in flag and flag not in ("--config", "--seed", "--run", "--resume"):
            known = [*SHORT, "--vary", "--seeds", "--tune", *SINGLE]
            raise UserError(
                f"there is no {flag}{near(flag, known) or '; --help lists what there is'}"
            )
        elif flag in ("--seed", "--run", "--resume"):
            instead = {"--seed": "--seeds 0 1 2"}.get(flag, "--out FOLDER, again to go on")
            raise UserError(f"{flag}: an ablation takes {instead}")
        else:
            shared += [flag, *values]
    if options["--engine"] not in ENGINES:
        raise UserError(f"--engine is one of {', '.join(ENGINES)}, not {options['--engine']}")
    return options, axes, seeds, shared


def run(cells: Sequence[Cell], out: Path, options: dict[str, Any]) -> None:
    """Trains what is not done, by the engine that was asked for; ends the program where the rest is
    for others to do."""
    from detector.ablation.cells import outcome
    from detector.ablation.engines import run_all, run_ray, visible_gpus, write_slurm

    waiting = [cell for cell in cells if outcome(out, cell.name).state != "done"]
    if len(waiting) < len(cells):
        print(f"{len(cells) - len(waiting)} of {len(cells)} cells are done already")
    if not waiting:
        return
    if options["--engine"] == "slurm":
        script = write_slurm(out, cells, options["--jobs"])
        print(f"{len(waiting)} cells are waiting: sbatch {script}")
        print("then type the same command again for what comes next, or for the tables so far")
    elif options["--engine"] == "ray":
        run_ray(out, cells, options["--jobs"])
    else:
        run_all(out, cells, options["--jobs"], visible_gpus())


def tune(
    shared: Sequence[str], axes: Sequence[Axis], seed: int, out: Path, options: dict[str, Any]
) -> dict[str, list[str]]:
    """Runs the search and returns what it chose for every point; table in out/tuning/table.md."""
    from detector.ablation.cells import outcome, prepare
    from detector.ablation.tables import markdown, plain

    folder, keys = out / "tuning", tuned_keys(axes)
    cells, choices = candidates(shared, axes, seed, folder)
    print(f"tuning {', '.join(keys)}: {len(cells)} cells on images set apart")
    prepare(folder, {"axes": [axis.key for axis in axes], "tuned": keys}, cells)
    run(cells, folder, options)
    outcomes = {cell.name: outcome(folder, cell.name) for cell in cells}
    if options["--engine"] == "slurm" and any(o.state == "not yet run" for o in outcomes.values()):
        raise SystemExit(0)
    chosen, lines = best(cells, choices, outcomes)
    heads = ["point", *keys, "AP on the images set apart"]
    (folder / "table.md").write_text(markdown(heads, lines) + "\n")
    print(plain(heads, lines))
    for name, words in chosen.items():
        print(f"chosen for {name}: {' '.join(words)}")
    return chosen


def ground_truth(config: dict[str, Any]) -> dict[str, Any]:
    """What all cells are judged by."""
    from data.datamodule import DataModule

    data = DataModule(**config["data"], seed=config["seed"])
    data.setup("validate")
    return data.ground_truth()


def main(argv: Sequence[str] | None = None) -> None:
    words = sys.argv[1:] if argv is None else list(argv)
    if not words or {"--help", "-h"} & set(words):
        print(USAGE)
        return
    with one_line_errors():
        options, axes, seeds, shared = words_of(words)
        out = Path(options["--out"])
        if options["--cell"]:
            from detector.ablation.cells import run_cell

            found = run_cell(out, options["--cell"])
            print(f"{options['--cell']}: {found.state} {found.reason}")
            raise SystemExit(0 if found.state == "done" else 1)
        from detector.ablation.cells import prepare
        from detector.ablation.report import report

        tuned = tuned_keys(axes) if options["--tune"] else []
        cells = make_cells(shared, axes, seeds, out)
        check_fairness(cells, [cell.config for cell in cells])
        truth = ground_truth(cells[0].config)  # what is wrong with the data is told before training
        plan = {"axes": [axis.key for axis in axes], "tuned": tuned}
        if tuned:
            prepare(out, plan, [])
            cells = make_cells(shared, axes, seeds, out, tune(shared, axes, seeds[0], out, options))
        prepare(out, plan, cells)
        print(*check_fairness(cells, [cell.config for cell in cells], tuned), sep="\n", flush=True)
        run(cells, out, options)
        command = f"python scripts/ablate.py {shlex.join(words)}"
        report(truth, cells, axes, tuned, out, options["--draws"], options["--jobs"], command)


if __name__ == "__main__":
    main()
