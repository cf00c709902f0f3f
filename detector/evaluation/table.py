"""Tables of everything that is printed or written: plain text, Markdown, LaTeX, HTML."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from tabulate import tabulate


class Table(NamedTuple):
    """`rows`: values of any type, fewer than there are `heads` where the last cells stay empty.

    `formats`: the format specification of each column (".3f"); a column with one is aligned to the
    right, one with "" (or none) holds text. None and nan are shown as "-".
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[Any]]
    formats: Sequence[str] = ()

    def cells(self) -> list[list[str]]:
        """The rows as text."""
        formats = [*self.formats, *[""] * (len(self.heads) - len(self.formats))]
        return [[_cell(*pair) for pair in zip(row, formats, strict=False)] for row in self.rows]

    def render(self, style: str = "plain") -> str:
        """`style`: a table format of tabulate: "plain" for a terminal, "pipe" for Markdown,
        "latex_booktabs" for \\usepackage{booktabs}."""
        aligns = [*("right" if f else "left" for f in self.formats)] if self.rows else []
        options: dict[str, Any] = {"tablefmt": style, "disable_numparse": True, "colalign": aligns}
        if style == "plain":  # as a row, heads are not made two characters wider than they are
            return tabulate([self.heads, *self.cells()] if self.heads else self.cells(), **options)
        text = tabulate(self.cells(), self.heads, **options)
        return text.replace("±", r"$\pm$") if style == "latex_booktabs" else text


def _cell(value: Any, spec: str) -> str:
    if isinstance(value, str):
        return value
    if value is None or math.isnan(value):
        return "-"
    return format(value, spec)
