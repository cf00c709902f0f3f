"""Is one run really better?  python scripts/compare.py RUN_A RUN_B ...

Compares the average precision of runs that were evaluated on the same images (python eval.py RUN)
with the first of them, paired by image and by seed (in the order given): intervals for other images
and other seeds, p and verdict corrected for all comparisons that are printed.
"""

import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from detector.config.command_line import parse_options
from detector.config.errors import UserError, one_line_errors
from detector.config.files import read_json
from detector.config.resolve import load
from detector.config.types import Draws, Natural, Option
from detector.run.folder import existing_run

if TYPE_CHECKING:
    from detector.evaluation.matches import Matches

USAGE = """python scripts/compare.py RUN_A RUN_B ... [--draws 1000] [--seed 0]

  python scripts/compare.py runs/focal runs/ghm
  python scripts/compare.py focal_0,focal_1,focal_2 ghm_0,ghm_1,ghm_2    several seeds of each

Every run must have been evaluated: python eval.py RUN writes RUN/eval/detections.json."""
METRICS = ("AP", "AP50")
ONE_SEED = (
    "One run of each: the intervals are for other images, with these very weights. Whether another "
    "seed would order the methods alike needs several runs of each: a_0,a_1 b_0,b_1"
)
PROGRAM_OPTIONS = {
    "methods": Option(list[str], ..., "runs; with several seeds of a method RUN,RUN,..."),
    "--draws": Option(Draws, 1000, "of the images, for the intervals"),
    "--seed": Option(Natural, 0, "of the draws"),
}


def parse_arguments(argv: Sequence[str]) -> tuple[list[list[str]], int, int]:
    """The methods, each a list of runs, the number of draws and their seed."""
    options, _ = parse_options(argv, usage=USAGE, program_options=PROGRAM_OPTIONS, sections=())
    methods = [[run for run in word.split(",") if run] for word in options["methods"]]
    if len(methods) < 2 or not all(methods):
        raise UserError("give two runs or more; --help says how")
    if len({len(runs) for runs in methods}) > 1:
        raise UserError(
            "every method needs as many runs: "
            + ", ".join(f"{','.join(runs)} has {len(runs)}" for runs in methods)
        )
    return methods, options["draws"], options["seed"]


def read_evaluation(run: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The figures of a run with what they were made from, and its detections."""
    folder = existing_run(run) / "eval"
    for name in ("metrics.json", "detections.json"):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: python eval.py {run}")
    return read_json(folder / "metrics.json"), read_json(folder / "detections.json")


def matches_of(methods: Sequence[Sequence[str]]) -> "list[list[Mapping[int, Matches]]]":
    """Of every run of every method."""
    from tqdm import tqdm

    from data.datamodule import DataModule
    from detector.evaluation.matches import check_objects, match_all
    from detector.evaluation.provenance import check_comparable

    runs = list(dict.fromkeys(run for method in methods for run in method))
    evaluations = {run: read_evaluation(run) for run in runs}
    first = evaluations[runs[0]][0]["data"]
    data = DataModule(**first, seed=load(existing_run(runs[0]) / "config.yaml")["seed"])
    data.setup("validate")
    truth = data.ground_truth()
    ids = check_comparable({run: metrics for run, (metrics, _) in evaluations.items()}, truth)
    check_objects(truth)
    bar = tqdm(runs, "matching", disable=None, leave=False)
    matches = {run: match_all(truth, evaluations[run][1], ids) for run in bar}
    return [[matches[run] for run in method] for method in methods]


def compare(methods: list[list[str]], draws: int, seed: int) -> list[dict[str, Any]]:
    """Prints and returns a row for each method: AP and AP50, the mean over its runs, and after the
    first AP_difference and AP50_difference, `Comparison`s with it, corrected together."""
    import numpy as np

    from detector.ablation.effects import Sample, effect
    from detector.evaluation.bootstrap import bootstrap_ap, full_ap, holm, image_weights

    matches = matches_of(methods)
    images = len(next(iter(matches[0][0].values())).objects)
    weights = image_weights(images, draws, seed)
    figures = np.array([[full_ap(run) for run in runs] for runs in matches])  # (M, S, 2)
    sampled = np.array([[bootstrap_ap(run, weights) for run in runs] for runs in matches])
    rows: list[dict[str, Any]] = [{"runs": method} for method in methods]
    effects = []
    for k, metric in enumerate(METRICS):
        samples = [Sample(f[:, k], d[:, k]) for f, d in zip(figures, sampled, strict=True)]
        effects += [effect([(1, sample), (-1, samples[0])], images) for sample in samples[1:]]
        for row, sample in zip(rows, samples, strict=True):
            row[metric] = float(sample.figures.mean())
    corrected = iter(holm(effects))
    for metric in METRICS:
        for row in rows[1:]:
            row[f"{metric}_difference"] = next(corrected)
    print(f"{images} images, {draws} draws of them")
    print(format_rows(rows))
    if len(methods[0]) == 1:
        print(ONE_SEED)
    return rows


def format_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each method and metric."""
    from detector.evaluation.bootstrap import comparison_cells
    from detector.evaluation.table import Table

    heads = ["", "runs", "mean", "difference to the first (95 %)", "p", "verdict"]
    lines: list[list[Any]] = []
    for metric, row in itertools.product(METRICS, rows):
        cells = comparison_cells(row.get(f"{metric}_difference"), 4)
        lines.append([metric, ", ".join(row["runs"]), row[metric], *cells])
    return Table(heads, lines, ["", "", ".4f"]).render()


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    with one_line_errors():
        return compare(*parse_arguments(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    main()
