"""What an ablation says, rendered for a terminal, as Markdown, as LaTeX, as one HTML file."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader

from detector.evaluation.table import Table


class Document(NamedTuple):
    """`tables`: heading -> table, the main one first; `fairness`: lines on what differs."""

    title: str
    notes: Sequence[str]
    tables: Mapping[str, Table]
    fairness: Sequence[str]
    command: str

    def to_text(self) -> str:
        tables = [table.render() for table in self.tables.values()]
        return "\n\n".join([*tables, "\n".join(self.notes)])

    def to_markdown(self) -> str:
        tables = [table.render("pipe") for table in self.tables.values()]
        code = "\n".join(["```", *self.fairness, "```"])
        return "\n\n".join([*tables, *self.notes, code, f"`{self.command}`"]) + "\n"

    def to_latex(self) -> str:
        """The main table, for \\usepackage{booktabs}."""
        return next(iter(self.tables.values())).render("latex_booktabs") + "\n"

    def to_html(self, pictures: Mapping[str, Path]) -> str:
        """One file that needs no other. `pictures`: heading -> PNG file."""
        environment = Environment(
            loader=PackageLoader("detector.ablation", "."),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        sources = {heading: _data_url(path) for heading, path in pictures.items()}
        values = {**self._asdict(), "fairness": "\n".join(self.fairness), "pictures": sources}
        return environment.get_template("page.html").render(values)


def _data_url(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
