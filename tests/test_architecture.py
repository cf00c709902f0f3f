"""The arrows of the house run one way: which part may import which."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
CORE = "detector"  # the files directly in that folder
ALLOWED = {  # part -> what it may import of ours, besides itself; nothing may import what is absent
    "losses": set(),
    "data": set(),
    CORE: {"losses"},
    "detector.config": set(),
    "detector.run": {CORE, "losses", "detector.config"},
    "detector.training": {CORE, "losses", "detector.config.errors", "detector.config.files"},
    "detector.evaluation": {CORE, "losses", "detector.config.errors", "detector.config.files"},
    "detector.ablation": {"detector.config", "detector.evaluation"},
}
# train.py, eval.py and scripts/ join the parts; only the scripts know ablations
JOINING = {"data", "losses", CORE, "detector.config", "detector.run", "detector.training"}
JOINING |= {"detector.evaluation"}
ALLOWED |= {"train": JOINING, "eval": JOINING}
ALLOWED |= {"scripts": JOINING | {"detector.ablation", "train", "eval"}}
OURS = {name.partition(".")[0] for name in ALLOWED}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """The part of the house that a module belongs to."""
    first, second = [*module.split("."), ""][:2]
    is_folder = (ROOT / first / second).is_dir() and second
    return f"{first}.{second}" if first == "detector" and is_folder else first


def sources(part: str) -> list[Path]:
    paths = [ROOT / f"{part}.py"] if part in ("train", "eval") else []
    paths = paths or sorted((ROOT / part.split(".")[0]).rglob("*.py"))
    return [path for path in paths if part_of(module_of(path)) == part]


def imported(path: Path) -> Iterator[str]:
    """Dotted names of all imported modules: at the top, in functions, and for type checking."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: write the whole name instead of a relative import"
            package = ROOT / (node.module or "").replace(".", "/")
            for name in (alias.name for alias in node.names):
                is_module = (package / f"{name}.py").is_file() or (package / name).is_dir()
                yield f"{node.module}.{name}" if is_module else str(node.module)


def wrong_arrows(part: str) -> list[str]:
    allowed = {part} | ALLOWED[part]
    return [
        f"{module_of(path)} imports {module}"
        for path in sources(part)
        for module in imported(path)
        if module.partition(".")[0] in OURS and not {module, part_of(module)} & allowed
    ]


@pytest.mark.parametrize("part", ALLOWED)
def test_a_part_imports_only_what_lies_below(part: str) -> None:
    assert sources(part)
    assert not wrong_arrows(part)


def test_every_folder_of_ours_has_its_row() -> None:
    folders = {path.parent for top in OURS for path in (ROOT / top).rglob("*.py")}
    assert {part_of(module_of(folder / "x.py")) for folder in folders} <= set(ALLOWED)


@pytest.mark.parametrize(
    ("line", "arrow"),
    [
        ("from detector.evaluation.coco import Figures", "detector.evaluation.coco"),
        ("from detector import evaluation", "detector.evaluation"),
        ("import detector.config.errors", "detector.config.errors"),
        ("def late():\n    from data.split import Split", "data.split"),
        (
            "if TYPE_CHECKING:\n    from detector.run.folder import run_path",
            "detector.run.folder",
        ),
    ],
)
def test_no_way_of_importing_is_overlooked(
    line: str, arrow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("detector/evaluation", "detector/config", "detector/run", "data"):
        (tmp_path / folder).mkdir(parents=True)
    path = tmp_path / "detector" / "boxes.py"
    path.write_text(line)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert wrong_arrows(CORE) == [f"detector.boxes imports {arrow}"]


def test_losses_need_torch_only() -> None:
    for path in sources("losses"):
        others = {module.split(".")[0] for module in imported(path)}
        others -= {"losses", "torch", "math", "abc", "collections", "typing"}
        assert not others, (path, others)


def test_albumentations_lives_in_one_file() -> None:
    users = {p.name for part in ALLOWED for p in sources(part) if "albumentations" in imported(p)}
    assert users == {"transforms.py"}


def test_a_command_line_is_read_without_torch() -> None:
    """All that the commands import before a mistake is answered, and all of detector/config."""
    modules = ["train", "eval", *(module_of(path) for path in sources("detector.config"))]
    assert not list(imported(ROOT / "detector" / "__init__.py"))
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_glossary_describes_the_batch_that_data_makes() -> None:
    import numpy as np

    import detector
    from data.dataset import collate

    sample = {
        "image": np.zeros((3, 8, 12), np.uint8),
        "boxes": np.zeros((2, 4), np.float32),
        **{name: np.zeros(2, np.int64) for name in ("labels", "identities")},
        "ignore": np.zeros(2, bool),
        "size": (8, 12),
        "original_size": (16, 24),
        "image_id": 7,
    }
    batch = collate([{**sample, "image": torch.from_numpy(sample["image"])}])
    letters = {"N": 1, "G": 16, "H": 8, "W": 12}
    lines = str(detector.__doc__).partition("A batch is")[2].splitlines()
    rows = [re.match(r"(\w+) +\(([^)]*)\) (\w+)", line) for line in lines]
    described = {row[1]: (row[2], row[3]) for row in rows if row}
    assert set(described) == set(batch)
    for name, (shape, dtype) in described.items():
        sizes = [letters.get(part) or int(part) for part in shape.strip(",").split(", ")]
        assert list(batch[name].shape) == sizes, name
        assert batch[name].dtype == getattr(torch, dtype), name


def test_bars_are_for_people_who_watch() -> None:
    """In a file, a job's output for one, a bar is thousands of characters in one line."""
    for path in (path for part in ALLOWED for path in sources(part)):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "tqdm":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("disable") == "None", f"{path}:{node.lineno}"
