"""Losses, and the arguments of losses and of Lightning's Trainer, read from source with `ast`.

Importing them would load torch first and make a typo wait for seconds. Errors are ValueErrors with
one line. A loss is a public class without abstract methods that derives from the class of its slot.
"""

import ast
import importlib
import importlib.util
import math
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, Optional, Union

from detector.config.types import Option, near

FOLDER = Path(__file__).parents[2] / "losses"
# The option that names a loss -> the class in losses/base.py that such a loss derives from
CONTRACTS = {"model.class_loss": "ClassificationLoss", "model.box_loss": "BoxLoss"}
# What annotations and defaults may be written with; other annotations are not checked
_NAMES = {
    "__builtins__": {},
    **{kind.__name__: kind for kind in (bool, int, float, str, list, tuple)},
    **{"Any": Any, "Literal": Literal, "Optional": Optional, "Union": Union},
    **{"Sequence": Sequence, "math": math},
}
Classes = dict[str, ast.ClassDef]


def library_losses(slot: str) -> dict[str, dict[str, Option]]:
    """The losses of losses/ that fit the slot: name -> arguments."""
    library = _library()
    lines = {name: list(_lineage(node, library)) for name, node in library.items()}
    return {name: _arguments(line) for name, line in lines.items() if _fits(line, slot)}


def loss_arguments(name: str, slot: str) -> dict[str, Option]:
    """The arguments of a loss: a class of losses/, or module.Class of a module on the path."""
    module, _, class_name = name.rpartition(".")
    own = _classes(_file(module)) if module else {}
    scope = own if module else _library()
    line = list(_lineage(scope[class_name], own, _library())) if class_name in scope else []
    if _fits(line, slot):
        return _arguments(line)
    other = [known for known in CONTRACTS if known != slot and _fits(line, known)]
    if other:
        raise ValueError(f"{name} is a {CONTRACTS[other[0]]}; it belongs to {other[0]}")
    if line:
        raise ValueError(f"{name} is no {CONTRACTS[slot]} that can be constructed")
    if module:
        raise ValueError(f"module {module} has no class '{class_name}'{near(class_name, own)}")
    choices = library_losses(slot)
    listed = ", ".join(choices)
    hint = near(name, choices) or near(f"{name}Loss", choices) or "."
    raise ValueError(f"no such loss: '{name}'{hint} Choices: {listed}, or your own as module.Class")


def module_of(name: str) -> str:
    """The module to import for a loss that `loss_arguments` knows."""
    module, _, class_name = name.rpartition(".")
    if module:
        return module
    return next(f"losses.{p.stem}" for p in FOLDER.glob("*.py") if class_name in _classes(p))


@cache
def trainer_arguments() -> dict[str, Option]:
    """The arguments of Lightning's Trainer; those with types of Lightning's own are of any type."""
    package = importlib.util.find_spec("pytorch_lightning")  # finds a package without importing it
    if package is None or package.origin is None:
        raise ModuleNotFoundError(name="pytorch_lightning")
    classes = _classes(Path(package.origin).parent / "trainer" / "trainer.py")
    return _arguments([classes["Trainer"]])


@cache
def _classes(path: Path) -> Classes:
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}") from None
    return {node.name: node for node in body if isinstance(node, ast.ClassDef)}


def _library() -> Classes:
    return {k: v for path in sorted(FOLDER.glob("*.py")) for k, v in _classes(path).items()}


def _file(module: str) -> Path:
    """The source of a module, searched as `import` would, but without importing its packages."""
    parts = module.split(".")
    for folder in (*sys.path, os.getcwd()) if all(map(str.isidentifier, parts)) else ():
        path = Path(folder, *parts)
        for candidate in (path / "__init__.py", path.with_suffix(".py")):
            if candidate.is_file():
                return candidate
    raise ValueError(f"no module '{module}' on the path or in this folder")


def _lineage(node: ast.ClassDef, *scopes: Classes) -> Iterator[ast.ClassDef]:
    """The class and its ancestors, by name, the first scope first."""
    yield node
    for base in node.bases:
        name = ast.unparse(base).rpartition(".")[2]
        found = [scope[name] for scope in scopes if scope.get(name, node) is not node]
        if found:
            yield from _lineage(found[0], *scopes)


def _fits(line: list[ast.ClassDef], slot: str) -> bool:
    if not line or line[0].name.startswith("_"):
        return False
    abstract = any("abstractmethod" in ast.unparse(x) for x in _decorators(line[0]))
    return not abstract and CONTRACTS[slot] in [ancestor.name for ancestor in line[1:]]


def _decorators(node: ast.ClassDef) -> list[ast.expr]:
    return [
        x for item in node.body if isinstance(item, ast.FunctionDef) for x in item.decorator_list
    ]


def _arguments(line: list[ast.ClassDef]) -> dict[str, Option]:
    """Of the first `__init__` in the line, without self, *args and **kwargs."""
    for item in (item for node in line for item in node.body):
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            given = item.args
            names = [*given.posonlyargs, *given.args]
            defaults = [None] * (len(names) - len(given.defaults)) + given.defaults
            pairs = [*zip(names, defaults, strict=True)][1:]
            pairs += zip(given.kwonlyargs, given.kw_defaults, strict=True)
            return {
                name.arg: Option(_evaluate(name.annotation, Any), _evaluate(default, ...))
                for name, default in pairs
            }
    return {}


def _evaluate(node: ast.expr | None, otherwise: Any) -> Any:
    """An annotation or a default as Python would read it, from _NAMES alone."""
    try:
        return eval(compile(ast.Expression(node), "", "eval"), dict(_NAMES)) if node else otherwise
    except Exception:
        return otherwise
