"""Cells, alignment and what is missing, in every style."""

import math

import numpy as np

from detector.evaluation.table import Table

TABLE = Table(
    ["loss", "AP", "n_%"],
    [["focal & co", 0.12345, 7], ["GHM-C ± 1", math.nan, None], ["not yet run"]],
    ["", ".3f", "d"],
)


def test_plain() -> None:
    assert TABLE.render().splitlines() == [
        "loss            AP  n_%",
        "focal & co   0.123    7",
        "GHM-C ± 1        -    -",
        "not yet run",
    ]


def test_markdown() -> None:
    lines = [line.replace(" ", "") for line in TABLE.render("pipe").splitlines()]
    assert lines == [
        "|loss|AP|n_%|",
        "|:------------|------:|------:|",
        "|focal&co|0.123|7|",
        "|GHM-C±1|-|-|",
        "|notyetrun|||",
    ]


def test_latex_is_escaped() -> None:
    lines = [" ".join(line.split()) for line in TABLE.render("latex_booktabs").splitlines()]
    assert lines == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"loss & AP & n\_\% \\",
        r"\midrule",
        r"focal \& co & 0.123 & 7 \\",
        r"GHM-C $\pm$ 1 & - & - \\",
        r"not yet run & & \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_numbers_of_numpy_and_text_in_a_column_of_numbers() -> None:
    table = Table(["x"], [[np.float32(0.25)], [np.int64(3)], ["none"]], [".1f"])
    assert table.cells() == [["0.2"], ["3.0"], ["none"]]


def test_without_rows_or_without_heads() -> None:
    assert Table(["a", "b"], [], ["", ".1f"]).render() == "a  b"
    assert Table([], [["AP", 0.5]], ["", ".1f"]).render() == "AP  0.5"
