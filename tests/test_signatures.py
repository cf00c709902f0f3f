"""Losses and their arguments are read from source, without importing it."""

import re
import sys
from pathlib import Path

import pytest

from detector.config.signatures import (
    library_losses,
    loss_arguments,
    module_of,
    trainer_arguments,
)

MODULE = """
import losses
from losses import BoxLoss, FocalLoss as Focal

class FocalLoss(losses.FocalLoss):
    "Named as the class it derives from."

class Sharper(FocalLoss):
    def __init__(self, sharp: float = 3.0, *, kind: "Kind" = None, size: int):
        raise SystemExit("imported")

class Plain:
    pass

raise SystemExit("imported")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"module_{tmp_path.name.replace('-', '_')}"  # sources are read once
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_a_users_class_may_have_the_name_of_its_ancestor(module: str) -> None:
    arguments = loss_arguments(f"{module}.FocalLoss", "model.class_loss")
    assert arguments == loss_arguments("FocalLoss", "model.class_loss")
    assert arguments["gamma"].kind is float
    assert module_of(f"{module}.FocalLoss") == module
    assert module_of("FocalLoss") == "losses.focal"


def test_arguments_are_read_without_importing(module: str) -> None:
    arguments = loss_arguments(f"{module}.Sharper", "model.class_loss")
    assert list(arguments) == ["sharp", "kind", "size"]
    assert arguments["sharp"].default == 3.0
    assert arguments["size"].default is ...  # has to be given
    assert module not in sys.modules


@pytest.mark.parametrize(
    ("name", "slot", "message"),
    [
        ("GIoULoss", "model.class_loss", "GIoULoss is a BoxLoss; it belongs to model.box_loss"),
        ("BoxLoss", "model.box_loss", "BoxLoss is no BoxLoss that can be constructed"),
        ("Focal", "model.class_loss", "no such loss: 'Focal'; did you mean 'FocalLoss'?"),
        ("{module}.Plain", "model.box_loss", "Plain is no BoxLoss that can be constructed"),
        ("{module}.Sharpr", "model.class_loss", "no class 'Sharpr'; did you mean 'Sharper'?"),
        ("no_such_module.A", "model.box_loss", "no module 'no_such_module' on the path"),
    ],
)
def test_what_cannot_be_the_loss_of_a_slot(module: str, name: str, slot: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        loss_arguments(name.format(module=module), slot)


def test_a_file_that_is_no_python_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module.py").write_text("x = 1\nclass Loss(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=r"broken_module\.py, line 2: invalid syntax"):
        loss_arguments("broken_module.Loss", "model.class_loss")


def test_all_losses_are_listed_once_and_by_their_slot() -> None:
    classes, boxes = library_losses("model.class_loss"), library_losses("model.box_loss")
    assert "GHMC" in classes
    assert "GHMR" in boxes
    assert not set(classes) & set(boxes)
    assert not [name for name in (*classes, *boxes) if name.startswith("_")]
    assert all("weight" in arguments for arguments in (*classes.values(), *boxes.values()))


def test_arguments_of_lightnings_trainer() -> None:
    arguments = trainer_arguments()
    assert arguments["max_epochs"].default is None
    assert "self" not in arguments
