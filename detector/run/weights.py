"""Where training starts from: ImageNet, torchvision's RetinaNet, an earlier run."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

from detector.config.errors import UserError
from detector.config.resolve import load
from detector.retinanet import RetinaNet
from detector.run.folder import checkpoint_file, run_path

CLASS_OUTPUT = "class_head.output."
EMBEDDING_HEAD = "embedding_head."
OTHER_CLASSES = "other classes, so the last layer of the class head is new"
FROZEN_EPS = 1e-5  # what FrozenBatchNorm2d adds to the variance
# torchvision's names -> ours; the second form is that of its published files, older than its
# present code
TORCHVISION = (
    (r"^head\.classification_head\.conv\.(\d+)\.(weight|bias)$", r"class_head.conv.\1.\2"),
    (r"^head\.classification_head\.conv\.", "class_head.conv."),
    (r"^head\.classification_head\.cls_logits\.", CLASS_OUTPUT),
    (r"^head\.regression_head\.conv\.(\d+)\.(weight|bias)$", r"box_head.conv.\1.\2"),
    (r"^head\.regression_head\.conv\.", "box_head.conv."),
    (r"^head\.regression_head\.bbox_reg\.", "box_head.output."),
)


State = dict[str, Tensor]


def read_weights(path: Path) -> dict[str, Any]:
    """The content of a checkpoint or weights file, on the CPU; plain types only, no code of it is
    ever run."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path} cannot be read as a checkpoint: {lines[0][:120]}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no weights, but a {type(content).__name__}")
    return content


def check_finite(weights: State, path: object) -> None:
    """UserError where a weight is infinite or NaN."""
    for key, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(
                f"{path} holds weights that are not finite, the first is {key}: training has "
                "diverged; use an earlier checkpoint, or train anew with a lower optimizer.lr"
            )


def net_weights(content: dict[str, Any]) -> State:
    """The weights of the net in a checkpoint of ours, without the prefix `net.`; empty for any
    other content."""
    state = content.get("state_dict", {})
    return {key[4:]: value for key, value in state.items() if key.startswith("net.")}


def begin(
    net: RetinaNet, model: dict[str, Any], classes: Sequence[str], category_ids: Sequence[int]
) -> list[str]:
    """Load the weights that the section `model` of a configuration names; lines to print."""
    if model["weights"]:
        return [start_from(net, model["weights"], model["depth"], classes, category_ids)]
    if model["freeze"]:
        return [
            f"model.freeze {model['freeze']} without model.weights: these layers stay as they were "
            "drawn by chance"
        ]
    return []


def start_from(
    net: RetinaNet, source: str, depth: int, classes: Sequence[str], category_ids: Sequence[int]
) -> str:
    """Load `source` into the net as far as it fits; returns a line about what was taken.

    Args:
        source: "imagenet", the file of a ResNet's, a torchvision RetinaNet's or our weights, or a
            run.
        depth: of the ResNet.
        classes, category_ids: of the data, by which torchvision's 91 outputs are chosen.

    Raises UserError where the source is missing, is none of these, or is of another architecture.
    """
    if source == "imagenet":
        return load_body(net, imagenet(depth), "ImageNet")
    run = run_path(source)
    source_classes: Sequence[str] = classes
    if (run / "config.yaml").is_file():
        path = checkpoint_file(run)
        source_classes = load(run / "config.yaml")["data"]["classes"]
    else:
        path = Path(source)
        if not path.is_file():
            raise UserError(f"model.weights: {source} is neither 'imagenet', nor a file, nor a run")
        home = path.parent.parent / "config.yaml"  # of a file in a run's folder
        if path.parent.name == "checkpoints" and home.is_file():
            source_classes = load(home)["data"]["classes"]
    content = read_weights(path)
    if state := net_weights(content):
        same_classes = list(source_classes) == list(classes)
        return load_net(net, state, str(path), same_classes)
    if any(key.startswith("head.classification_head.") for key in content):
        state, taken = choose_outputs(from_torchvision(content), net, classes, category_ids)
        return load_net(net, state, str(path)) + taken
    if "conv1.weight" in content and "layer1.0.conv1.weight" in content:
        return load_body(net, content, str(path))
    raise UserError(
        f"model.weights: {path} holds neither a ResNet, a RetinaNet of torchvision nor one of ours"
    )


def imagenet(depth: int) -> State:
    """torchvision's ImageNet weights (V1) of a ResNet: from its cache, or downloaded."""
    weights = get_model_weights(f"resnet{depth}")["IMAGENET1K_V1"]
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        place = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise UserError(
            f"the ImageNet weights cannot be downloaded ({error}); fetch {weights.url} elsewhere "
            f"and put it at {place}, or name a file by --model.weights, or train from scratch with "
            "--model.weights null --model.norm batch --model.freeze 0"
        ) from error


def load_body(net: RetinaNet, state: State, source: str) -> str:
    """Load a ResNet, less its classifier, into the backbone."""
    state = {k: v for k, v in state.items() if not k.startswith("fc.")}
    load_state(net.backbone.body, state, source)
    return f"weights: the ResNet of {source}; pyramid and heads are new"


def load_net(net: RetinaNet, state: State, source: str, same_classes: bool = True) -> str:
    """Load a whole net. The last layer of the class head stays as it is where the classes, or their
    number, are others, and the embedding head where the source has none, or another one."""
    present, notes = net.state_dict(), []
    for prefix, is_other, note in (
        (
            CLASS_OUTPUT,
            not same_classes,
            "other classes, so the last layer of the class head is new",
        ),
        (EMBEDDING_HEAD, False, "the embedding head is new"),
    ):
        kept = {k: v for k, v in present.items() if k.startswith(prefix)}
        given = {k: v for k, v in state.items() if k.startswith(prefix)}
        if is_other or differing(given, kept):
            state = {k: v for k, v in state.items() if k not in given} | kept
            notes += [note] if kept else []
    load_state(net, state, source)
    return "; ".join([f"weights: {source}", *notes])


def load_state(module: nn.Module, state: State, source: str) -> None:
    """Load all weights; only the counters of BatchNorm may be missing or superfluous."""
    present = module.state_dict()
    counters = {k: v for k, v in present.items() if k.endswith("num_batches_tracked")}
    superfluous = {k for k in state if k.endswith("num_batches_tracked")} - set(present)
    state = counters | {k: v for k, v in state.items() if k not in superfluous}
    if wrong := differing(state, present):
        raise UserError(
            f"model.weights: {source} does not fit this model, {len(wrong)} of {len(present)} "
            f"weights differ, the first is {wrong[0]}; compare model.depth, width, norm, channels, "
            "convs, head_norm, p6 and anchors"
        )
    check_finite(state, source)
    module.load_state_dict(state)


def differing(state: State, present: State) -> list[str]:
    """Names that only one of two state dicts has, or that have another shape in the other."""
    wrong = [k for k, v in present.items() if k not in state or state[k].shape != v.shape]
    return wrong + [k for k in state if k not in present]


def from_torchvision(content: State) -> State:
    """torchvision's RetinaNet under our names.

    Its published first weights were trained with frozen norms that added nothing to the variance;
    ours add 1e-5, so that is taken off the variance.
    """
    state = {}
    for key, value in content.items():
        for pattern, name in TORCHVISION:
            key = re.sub(pattern, name, key)
        # published files count convolutions and activations: 0, 2, 4, 6
        key = re.sub(
            r"_head\.conv\.(\d+)\.(weight|bias)$",
            lambda found: f"_head.conv.{int(found[1]) // 2}.0.{found[2]}",
            key,
        )
        state[key] = value
    if not any(key.endswith("num_batches_tracked") for key in content):
        for key in (k for k in state if k.endswith("running_var")):
            state[key] = state[key] - FROZEN_EPS
    return state


def choose_outputs(
    state: State, net: RetinaNet, classes: Sequence[str], category_ids: Sequence[int]
) -> tuple[State, str]:
    """Reduce torchvision's 91 outputs to the data's classes; returns the state and what was taken.

    An output is a class of the data where COCO's category of that id has the same name. A net of 91
    classes takes all outputs as they are.
    """
    output, cells = net.class_head.output, net.anchors.per_cell
    known = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    outputs = len(state[CLASS_OUTPUT + "weight"])
    if outputs == len(output.weight) or outputs != cells * len(known):
        return state, ""
    pairs = zip(category_ids, classes, strict=True)
    columns = [i if i < len(known) and known[i] == name else None for i, name in pairs]
    state = dict(state)
    for name, parameter in output.named_parameters():
        old = state[CLASS_OUTPUT + name].unflatten(0, (cells, len(known)))
        new = parameter.detach().clone().unflatten(0, (cells, -1))
        for k, column in enumerate(columns):
            if column is not None:
                new[:, k] = old[:, column]
        state[CLASS_OUTPUT + name] = new.flatten(0, 1)
    taken = sum(column is not None for column in columns)
    return state, f"; {taken} of {len(classes)} classes have an output there, the others are new"
