"""Losses, and the arguments of losses and of Lightning's Trainer, read from source with `ast`.

Importing them would load torch first, and a user would wait seconds to be told of a typo. Errors
are ValueErrors of one line. A loss that can be named is a public class without abstract methods
that derives from the contract of its slot.
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

from detector.config.types import Option, did_you_mean

FOLDER = Path(__file__).parents[2] / "losses"
# Slot, the option that names a loss -> contract, the class of losses/base.py it must derive from
CONTRACTS = {"model.class_loss": "ClassificationLoss", "model.box_loss": "BoxLoss"}
LISTS = {"model.embedding_loss": "EmbeddingLoss"}  # the same for slots of any number of losses
SLOTS = CONTRACTS | LISTS
# What annotations and defaults may be written with; values of other annotations are not checked
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
    lineages = {name: list(_lineage(node, library)) for name, node in library.items()}
    return {name: _arguments(x) for name, x in lineages.items() if _fits(x, slot)}


def loss_arguments(name: str, slot: str) -> dict[str, Option]:
    """The arguments of a loss: of a class of losses/, or module.Class of a module on the path."""
    module, _, class_name = name.rpartition(".")
    classes = _classes(_file(module)) if module else _library()
    lineage: list[ast.ClassDef] = []
    if class_name in classes:
        lineage = list(_lineage(classes[class_name], classes, _library()))
    if _fits(lineage, slot):
        return _arguments(lineage)
    others = [other for other in SLOTS if _fits(lineage, other)]
    if others:
        raise ValueError(f"{name} is a {SLOTS[others[0]]}; it belongs to {others[0]}")
    if lineage:
        raise ValueError(f"{name} is no {SLOTS[slot]} that can be constructed")
    if module:
        hint = did_you_mean(class_name, classes)
        raise ValueError(f"module {module} has no class '{class_name}'{hint}")
    choices = library_losses(slot)
    hint = did_you_mean(name, choices) or did_you_mean(f"{name}Loss", choices) or "."
    listed = ", ".join(choices)
    raise ValueError(f"no such loss: '{name}'{hint} Choices: {listed}, or your own as module.Class")


def module_of(name: str) -> str:
    """The module to import for a loss that `loss_arguments` knows."""
    module, _, class_name = name.rpartition(".")
    if module:
        return module
    return next(f"losses.{p.stem}" for p in FOLDER.glob("*.py") if class_name in _classes(p))


@cache
def trainer_arguments() -> dict[str, Option]:
    """The arguments of Lightning's Trainer; those of Lightning's own types accept every value."""
    package = importlib.util.find_spec("pytorch_lightning")  # finds a package without importing it
    if package is None or package.origin is None:
        raise ModuleNotFoundError(name="pytorch_lightning")
    classes = _classes(Path(package.origin).parent / "trainer" / "trainer.py")
    return _arguments([classes["Trainer"]])


@cache
def _classes(path: Path) -> Classes:
    """The classes that a file defines at its top level."""
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
    """The class and its ancestors, each looked up by its name in the first scope that has it."""
    yield node
    for base in node.bases:
        name = ast.unparse(base).rpartition(".")[2]
        # a user's FocalLoss may derive from losses.FocalLoss: a class is not its own ancestor
        candidates = [scope[name] for scope in scopes if name in scope]
        ancestors = [candidate for candidate in candidates if candidate is not node]
        if ancestors:
            yield from _lineage(ancestors[0], *scopes)


def _fits(lineage: list[ast.ClassDef], slot: str) -> bool:
    """Whether a class, the first of its lineage, can be constructed as a loss of the slot."""
    if not lineage or lineage[0].name.startswith("_"):
        return False
    abstract = any("abstractmethod" in ast.unparse(x) for x in _decorators(lineage[0]))
    return not abstract and SLOTS[slot] in [ancestor.name for ancestor in lineage[1:]]


def _decorators(node: ast.ClassDef) -> list[ast.expr]:
    methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
    return [decorator for method in methods for decorator in method.decorator_list]


def _arguments(lineage: list[ast.ClassDef]) -> dict[str, Option]:
    """Of the first `__init__` in the lineage, without self, *args and **kwargs."""
    for item in (item for node in lineage for item in node.body):
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            signature = item.args
            names = [*signature.posonlyargs, *signature.args]
            without_default = len(names) - len(signature.defaults)
            defaults = [None] * without_default + signature.defaults
            pairs = [*zip(names, defaults, strict=True)][1:]
            pairs += zip(signature.kwonlyargs, signature.kw_defaults, strict=True)
            return {
                name.arg: Option(_evaluate(name.annotation, Any), _evaluate(default, ...))
                for name, default in pairs
            }
    return {}


def _evaluate(node: ast.expr | None, otherwise: Any) -> Any:
    """An annotation or a default as Python would read it, if _NAMES suffice."""
    try:
        return eval(compile(ast.Expression(node), "", "eval"), dict(_NAMES)) if node else otherwise
    except Exception:
        return otherwise
