"""Is one run really better?  python scripts/compare.py RUN_A RUN_B ...

Compares the average precision of runs that were evaluated on the same images (python eval.py RUN)
with the first of them: paired bootstrap over images, and where a method has several seeds, in the
order given, the spread of their paired differences; then corrected for the number of methods.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from detector.config.command_line import parse_options
from detector.config.errors import UserError, one_line_errors
from detector.config.resolve import load
from detector.config.types import Count, Natural, Option
from detector.runs.folder import existing_run

if TYPE_CHECKING:
    from detector.evaluation.bootstrap import Run

USAGE = """python scripts/compare.py RUN_A RUN_B ... [--draws 1000] [--seed 0]

  python scripts/compare.py runs/focal runs/ghm
  python scripts/compare.py focal_0,focal_1,focal_2 ghm_0,ghm_1,ghm_2    several seeds of each

Every run must have been evaluated: python eval.py RUN writes RUN/eval/detections.json."""
PROGRAM_OPTIONS = {
    "methods": Option(list[str], ..., "runs; with several seeds of a method RUN,RUN,..."),
    "--draws": Option(Count, 1000, "of the images, for the intervals"),
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


def detections(run: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a run was evaluated on (its data section), and its result rows."""
    folder = existing_run(run) / "eval"
    for name in ("metrics.json", "detections.json"):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: python eval.py {run}")
    data = json.loads((folder / "metrics.json").read_text())["data"]
    return data, json.loads((folder / "detections.json").read_text())


def same_data(runs: Sequence[str], sections: Sequence[dict[str, Any]]) -> None:
    for run, section in zip(runs, sections, strict=True):
        for name in ("format", "root", "val", "annotations", "images", "classes", "holdout"):
            if section[name] != sections[0][name]:
                raise UserError(
                    f"{runs[0]} and {run} were evaluated on different data: data.{name} is "
                    f"{sections[0][name]} and {section[name]}"
                )


def matches_of(methods: Sequence[Sequence[str]]) -> "list[list[Run]]":
    from tqdm import tqdm

    from data.datamodule import DataModule
    from detector.evaluation.matches import match_all

    runs = list(dict.fromkeys(run for method in methods for run in method))
    found = {run: detections(run) for run in runs}
    same_data(runs, [section for section, _ in found.values()])
    first = found[runs[0]][0]
    data = DataModule(**first, seed=load(existing_run(runs[0]) / "config.yaml")["seed"])
    data.setup("validate")
    truth = data.ground_truth()
    bar = tqdm(runs, "matching", disable=None, leave=False)
    matches = {run: match_all(truth, found[run][1]) for run in bar}
    return [[matches[run] for run in method] for method in methods]


def compare(methods: list[list[str]], draws: int, seed: int) -> list[dict[str, Any]]:
    """One row for each method: AP and AP50, and those after the first the interval of each
    difference."""
    import numpy as np

    from detector.ablation.effects import Sample, effect, holm
    from detector.evaluation.bootstrap import image_weights, interval, resampled, whole

    matches = matches_of(methods)
    images = len(next(iter(matches[0][0].values())).objects)
    weights = image_weights(images, draws, seed)
    figures = np.array([[whole(run) for run in runs] for runs in matches])  # (M, S, 2)
    drawn = np.array([[resampled(run, weights) for run in runs] for runs in matches])
    rows: list[dict[str, Any]] = [
        {"runs": method, "AP": mean[0], "AP50": mean[1]}
        for method, mean in zip(methods, figures.mean(axis=1), strict=True)
    ]
    for k, name in enumerate(("AP", "AP50")):
        gained: list[Any]
        if len(methods[0]) > 1:  # the luck of training is known, too
            samples = [Sample(f[:, k], d[:, k]) for f, d in zip(figures, drawn, strict=True)]
            gained = holm([effect([(1, one), (-1, samples[0])]) for one in samples[1:]])
        else:
            gaps, moved = figures[1:, 0, k] - figures[0, 0, k], drawn[1:, 0, k] - drawn[0, 0, k]
            gained = [interval(*pair) for pair in zip(gaps, moved, strict=True)]
        for row, one in zip(rows[1:], gained, strict=True):
            row[f"{name}_difference"] = one
    seeds = f", {len(methods[0])} seeds" if len(methods[0]) > 1 else ""
    print(f"{images} images{seeds}, {draws} draws; differences to the first, 95 % intervals")
    width = max(len(", ".join(method)) for method in methods)
    for row in rows:
        line = f"{', '.join(row['runs']):<{width}}"
        for name in ("AP", "AP50"):
            line += f"  {name} {row[name]:.4f}"
            if f"{name}_difference" in row:
                found = row[f"{name}_difference"]
                line += f" {found.difference:+.4f} ({found.low:+.4f} to {found.high:+.4f})"
                line += f" {found.verdict}"
        print(line)
    return rows


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    with one_line_errors():
        return compare(*parse_arguments(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    main()
