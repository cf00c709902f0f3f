"""Where training starts from: ImageNet, torchvision's RetinaNet, an earlier run. Says in a line
what was taken."""

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
from detector.runs.folder import checkpoint_file, run_path


def read_weights(path: Path) -> dict[str, Any]:
    """The content of a checkpoint or weights file, on the CPU; plain types only."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (
            str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        )
        raise UserError(f"{path} cannot be read as a checkpoint: {reason}") from error


def net_weights(content: dict[str, Any]) -> dict[str, Tensor]:
    """Of a checkpoint of ours the weights of the net, without `net.`; empty for any other
    content."""
    state = content.get("state_dict", {})
    return {key[4:]: value for key, value in state.items() if key.startswith("net.")}


State = dict[str, Tensor]
CLASS_OUTPUT = "class_head.output."
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


def start_from(
    net: RetinaNet, source: str, depth: int, classes: Sequence[str], category_ids: Sequence[int]
) -> str:
    """Load `source` into the net, as far as it fits, and say what was taken in one line.

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
    names: Sequence[str] = classes
    if (run / "config.yaml").is_file():
        path = checkpoint_file(run)
        names = load(run / "config.yaml")["data"]["classes"]
    else:
        path = Path(source)
        if not path.is_file():
            raise UserError(f"model.weights: {source} is neither 'imagenet', nor a file, nor a run")
    content = read_weights(path)
    if state := net_weights(content):
        return load_whole(net, state, str(path), anew=list(names) != list(classes))
    if any(key.startswith("head.classification_head.") for key in content):
        state, said = from_torchvision(content, net, classes, category_ids)
        return load_whole(net, state, str(path)) + said
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
    body = net.backbone.body
    fit({k: v for k, v in state.items() if not k.startswith("fc.")}, body, source)
    return f"weights: the ResNet of {source}; pyramid and heads are new"


def load_whole(net: RetinaNet, state: State, source: str, anew: bool = False) -> str:
    own = net.state_dict()
    output = CLASS_OUTPUT + "weight"
    anew = anew or output not in state or state[output].shape != own[output].shape
    if anew:
        state = state | {k: v for k, v in own.items() if k.startswith(CLASS_OUTPUT)}
    fit(state, net, source)
    return f"weights: {source}" + (
        "; other classes, so the last layer of the class head is new" if anew else ""
    )


def fit(state: State, module: nn.Module, source: str) -> None:
    """Load the state, forgiving the counters of BatchNorm only."""
    own = module.state_dict()
    counters = {k: v for k, v in own.items() if k.endswith("num_batches_tracked")}
    state = counters | {
        k: v for k, v in state.items() if k in own or not k.endswith("num_batches_tracked")
    }
    wrong = [k for k, v in own.items() if k not in state or state[k].shape != v.shape]
    wrong += [k for k in state if k not in own]
    if wrong:
        raise UserError(
            f"model.weights: {source} does not fit this model, {len(wrong)} of {len(own)} weights "
            f"differ, the first is {wrong[0]}; compare model.depth, width, norm, channels, convs, "
            "head_norm, p6 and anchors"
        )
    module.load_state_dict(state)


def from_torchvision(
    content: State, net: RetinaNet, classes: Sequence[str], category_ids: Sequence[int]
) -> tuple[State, str]:
    """torchvision's RetinaNet under our names, its 91 outputs reduced to the data's classes.

    An output is a class of the data where COCO's category of that id has the same name. Its
    published first weights were trained with frozen norms that added nothing to the variance; ours
    add 1e-5, so that is taken off the variance.
    """
    state = {}
    for key, value in content.items():
        for pattern, name in TORCHVISION:
            key = re.sub(pattern, name, key)
        # published files count convolutions and activations: 0, 2, 4, 6
        key = re.sub(r"_head\.conv\.(\d+)\.(weight|bias)$", _old_conv, key)
        state[key] = value
    if not any(key.endswith("num_batches_tracked") for key in content):
        for key in (k for k in state if k.endswith("running_var")):
            state[key] = state[key] - FROZEN_EPS
    own = net.class_head.output
    assert own.bias is not None
    cells = net.anchors.per_cell
    weight, bias = state[CLASS_OUTPUT + "weight"], state[CLASS_OUTPUT + "bias"]
    known = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    if len(weight) == len(own.weight) or len(weight) != cells * len(known):
        return state, ""
    pairs = zip(category_ids, classes, strict=True)
    rows = [i if i < len(known) and known[i] == name else None for i, name in pairs]
    new_weight = own.weight.detach().clone().view(cells, -1, *weight.shape[1:])
    new_bias = own.bias.detach().clone().view(cells, -1)
    old_weight, old_bias = weight.view(cells, len(known), *weight.shape[1:]), bias.view(cells, -1)
    for k, row in enumerate(rows):
        if row is not None:
            new_weight[:, k], new_bias[:, k] = old_weight[:, row], old_bias[:, row]
    state[CLASS_OUTPUT + "weight"], state[CLASS_OUTPUT + "bias"] = (
        new_weight.flatten(0, 1),
        new_bias.flatten(),
    )
    taken = sum(row is not None for row in rows)
    return state, f"; {taken} of {len(classes)} classes have an output there, the others are new"


def _old_conv(match: re.Match[str]) -> str:
    return f"_head.conv.{int(match[1]) // 2}.0.{match[2]}"
