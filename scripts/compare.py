"""Is one run really better?  python scripts/compare.py RUN_A RUN_B ...

Compares the average precision of runs that were evaluated on the same images (python eval.py RUN)
with the first of them: paired bootstrap over images, and over seeds where a method has several.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from detector.config import UserError, load, one_line_errors
from detector.options import Count, Natural, Option, fit

if TYPE_CHECKING:
    from detector.significance import Run

USAGE = """python scripts/compare.py RUN_A RUN_B ... [--draws 1000] [--seed 0]

  python scripts/compare.py runs/focal runs/ghm
  python scripts/compare.py focal_0,focal_1,focal_2 ghm_0,ghm_1,ghm_2    several seeds of each

Every run must have been evaluated: python eval.py RUN writes RUN/eval/detections.json."""
OPTIONS = {"--draws": Option(Count, 1000), "--seed": Option(Natural, 0)}


def words_of(argv: Sequence[str]) -> tuple[list[list[str]], dict[str, int]]:
    """The methods, each a list of runs, and the options."""
    methods: list[list[str]] = []
    options = {name: option.default for name, option in OPTIONS.items()}
    words = iter(argv)
    for word in words:
        if word in OPTIONS:
            value = next(words, "")
            number = int(value) if value.isdecimal() else value
            try:
                options[word] = fit(number, OPTIONS[word].kind)
            except ValueError as error:
                raise UserError(f"{word}: {error}") from None
        elif word.startswith("--"):
            raise UserError(f"there is no {word}; there are {', '.join(OPTIONS)}")
        else:
            methods.append([run for run in word.split(",") if run])
    if len(methods) < 2 or not all(methods):
        raise UserError("give two runs or more; --help says how")
    if len({len(runs) for runs in methods}) > 1:
        raise UserError(
            "every method needs as many runs: "
            + ", ".join(f"{','.join(runs)} has {len(runs)}" for runs in methods)
        )
    return methods, options


def detections(run: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a run was evaluated on (its data section), and its result rows."""
    from detector.run import existing_run

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
    from detector.matches import match_all
    from detector.run import existing_run

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

    from detector.significance import image_weights, interval, resampled, whole

    matches = matches_of(methods)
    images = len(next(iter(matches[0][0].values())).objects)
    weights = image_weights(images, draws, seed)
    rows: list[dict[str, Any]] = []
    first: tuple[np.ndarray, np.ndarray] | None = None
    for method, runs in zip(methods, matches, strict=True):
        figures, drawn = whole(runs), resampled(runs, weights, seed)
        row: dict[str, Any] = {"runs": method, "AP": figures[0], "AP50": figures[1]}
        if first is not None:
            for k, name in enumerate(("AP", "AP50")):
                row[f"{name}_difference"] = interval(
                    figures[k] - first[0][k], drawn[k] - first[1][k]
                )
        else:
            first = figures, drawn
        rows.append(row)
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
    words = sys.argv[1:] if argv is None else list(argv)
    if {"--help", "-h"} & set(words):
        print(USAGE)
        return []
    with one_line_errors():
        methods, options = words_of(words)
        return compare(methods, options["--draws"], options["--seed"])


if __name__ == "__main__":
    main()
