"""The table of options agrees with what it configures."""

import inspect
from typing import Any, Literal, get_args, get_origin

import pytest

from data.dataset import Images
from data.options import FORMATS, Options
from data.transforms import Augmentation, InputSize
from detector.anchors import AnchorGenerator
from detector.backbone import Backbone
from detector.config.options import OPTIONS
from detector.config.types import coerce
from detector.matching import match
from detector.nms import Suppression
from detector.optimization import make_optimizer
from detector.postprocess import Postprocess
from detector.retinanet import RetinaNet
from detector.run.assemble import compile_parts

# What a configuration gives, and other names for its keys
RECEIVERS: list[tuple[Any, str, dict[str, str]]] = [
    (Options, "data", {}),
    (InputSize, "data", {}),
    (Augmentation, "data", {}),
    (Images, "data", {}),
    (Backbone, "model", {}),
    (RetinaNet, "model", {}),
    (AnchorGenerator, "model.anchors", {}),
    (match, "model.match", {}),
    (Suppression, "postprocess", {"kind": "nms"}),
    (Postprocess, "postprocess", {"top_k": "candidates"}),
    (compile_parts, "speed", {"parts": "compile"}),
    (make_optimizer, "optimizer", {}),
]


@pytest.mark.parametrize(("receiver", "section", "renamed"), RECEIVERS)
def test_defaults_and_choices_are_those_of_the_table(
    receiver: Any, section: str, renamed: dict[str, str]
) -> None:
    """A default that a signature repeats for those who call it without a configuration."""
    for name, parameter in inspect.signature(receiver, eval_str=True).parameters.items():
        key = f"{section}.{renamed.get(name, name)}"
        if key not in OPTIONS:
            continue
        option = OPTIONS[key]
        if parameter.default is not inspect.Parameter.empty:
            assert coerce(parameter.default, option.kind) == option.default, key
        if get_origin(parameter.annotation) is Literal:
            assert get_args(parameter.annotation) == get_args(option.kind), key


def test_the_keys_of_a_section_are_what_its_receiver_takes() -> None:
    for receiver, section in ((Options, "data"), (AnchorGenerator, "model.anchors")):
        keys = {key.rpartition(".")[2] for key in OPTIONS if key.startswith(f"{section}.")}
        assert keys == set(inspect.signature(receiver).parameters)
    assert set(FORMATS) == set(get_args(OPTIONS["data.format"].kind))
