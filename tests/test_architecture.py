"""The arrows of the house run one way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {"losses": {"losses"}, "data": {"data"}, "detector": {"detector", "losses"}}
OURS = {"losses", "data", "detector", "train", "eval", "scripts"}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_lies_below(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert imported(path) & OURS <= ALLOWED[package], path


def test_losses_need_torch_only() -> None:
    for path in (ROOT / "losses").glob("*.py"):
        others = imported(path) - {"losses", "torch", "math", "abc", "collections", "typing"}
        assert not others, (path, others)


def test_albumentations_lives_in_one_file() -> None:
    files = [path for package in ALLOWED for path in (ROOT / package).rglob("*.py")]
    users = [path.name for path in files if "albumentations" in imported(path)]
    assert users == ["transforms.py"]
