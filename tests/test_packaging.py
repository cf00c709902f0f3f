"""What pip installs, and what git keeps: every file of the packages."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("detector", "losses", "data", "scripts")
SOURCES = ("pyproject.toml", "requirements.txt", "README.md", "LICENSE", "train.py", "eval.py")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
# Isolated (-I) and without .pth files (-S), which lead an editable installation to the checkout.
IMPORT = """
import importlib, sys
folder, names, *paths = sys.argv[1:]
sys.path[:0] = [folder, *paths]
for name in names.split(","):
    path = importlib.import_module(name).__file__
    assert path.startswith(folder), f"{name} comes from {path}"
import train
train.main(["--help"])  # reads the sources of the losses
"""


def package_files() -> list[str]:
    """Every file of the packages in the checkout, as a path that starts at the root."""
    paths = [path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file()]
    return sorted(str(p.relative_to(ROOT)) for p in paths if p.parent.name != "__pycache__")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the sources, unpacked: setuptools writes where it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    copy, built, unpacked = (folder / name for name in ("sources", "built", "unpacked"))
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in SOURCES:
        shutil.copy(ROOT / name, copy)
    built.mkdir()
    command = [sys.executable, "-c", BUILD, str(built)]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (path,) = built.glob("*.whl")
    zipfile.ZipFile(path).extractall(unpacked)
    return unpacked


def test_the_wheel_has_every_file_of_the_packages(wheel: Path) -> None:
    expected = {*package_files(), "train.py", "eval.py"}
    content = {str(path.relative_to(wheel)) for path in wheel.rglob("*") if path.is_file()}
    others = {name for name in content - expected if ".dist-info/" not in name}
    assert (expected - content, others) == (set(), set())


def test_every_module_is_imported_from_the_wheel_alone(wheel: Path) -> None:
    files = [Path(name).with_suffix("") for name in package_files() if name.endswith(".py")]
    modules = ["train", "eval"]
    modules += [".".join(path.parts).removesuffix(".__init__") for path in files]
    paths = [path for path in sys.path if path and ROOT not in (p := Path(path), p.parent)]
    command = [sys.executable, "-I", "-S", "-c", IMPORT, str(wheel), ",".join(modules), *paths]
    done = subprocess.run(command, cwd=wheel, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "FocalLoss" in done.stdout


def test_git_ignores_no_file_of_the_packages() -> None:
    """A pattern such as `build/` without a leading slash ignores such folders everywhere."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "check-ignore", "--no-index", "--stdin"]
    text = "\n".join(package_files())
    done = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")  # 1: none of them
