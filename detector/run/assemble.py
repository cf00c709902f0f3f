"""A resolved configuration -> the Detector that it describes."""

import dataclasses
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from detector.anchors import AnchorGenerator
from detector.backbone import Backbone
from detector.config.errors import UserError
from detector.config.resolve import load
from detector.config.signatures import module_of
from detector.criterion import Criterion
from detector.embedding import EmbeddingCriterion, EmbeddingHead
from detector.module import Detector
from detector.nms import Suppression
from detector.postprocess import Postprocess
from detector.retinanet import RetinaNet
from detector.run.folder import checkpoint_file, existing_run
from detector.run.resume import check_classes, check_weights
from detector.run.weights import net_weights, read_weights


def load_class(name: str) -> type:
    """The class of a loss: a name of losses/, or module.Class of a module on the path or in the
    present folder."""
    module, class_name = module_of(name), name.rpartition(".")[2]
    if os.getcwd() not in sys.path:  # `python folder/train.py` has that folder there instead
        sys.path.append(os.getcwd())
    loss: type = getattr(importlib.import_module(module), class_name)
    return loss


def make_loss(spec: Mapping[str, Any]) -> Any:
    """The loss of {name: FocalLoss, gamma: 2.0}, constructed. Imports torch."""
    arguments = {key: value for key, value in spec.items() if key != "name"}
    return load_class(spec["name"])(**arguments)


def assemble(
    config: dict[str, Any],
    num_identities: int | None = None,
    class_weights: Sequence[float] | None = None,
) -> Detector:
    """The untrained detector that a resolved configuration describes; `data.classes` must be filled
    in. Without `num_identities` an embedding head has no losses, as in evaluation. `class_weights`:
    of the data, for the classification loss."""
    model = config["model"]
    num_classes = len(config["data"]["classes"])
    class_loss = _loss(config, "class_loss", class_weights)
    box_loss = _loss(config, "box_loss")
    body = {key: model[key] for key in ("depth", "width", "norm", "channels", "p6", "freeze")}
    embedding_head = None
    if model["embedding_loss"]:
        size = model["embedding"]["size"]
        embedding_head = EmbeddingHead(model["channels"], model["convs"], size, model["head_norm"])
    fast = config["speed"]["channels_last"]
    layout = torch.channels_last if fast else torch.contiguous_format
    net = RetinaNet(
        Backbone(**body),
        AnchorGenerator(**model["anchors"]),
        class_loss.initial_bias(num_classes, model["prior"]),
        convs=model["convs"],
        head_norm=model["head_norm"],
        num_classes=num_classes,
        embedding_head=embedding_head,
    )
    embedding = None
    if num_identities is not None and model["embedding_loss"]:
        embedding = make_embedding(config, num_identities)
    criterion = Criterion(class_loss, box_loss, num_classes, embedding, **model["match"])
    criterion.register_load_state_dict_pre_hook(keep_what_fits)
    return Detector(
        net.to(memory_format=layout),
        criterion,
        make_postprocess(config["postprocess"], class_loss.scores),
        config["optimizer"],
        config["schedule"],
        config["data"]["batch_size"],
    )


def keep_what_fits(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Of a checkpoint of other losses, what those learned or counted is dropped, and the present
    losses start anew. `state` is a copy that torch's `load_state_dict` made."""
    present = {prefix + name: value for name, value in module.state_dict().items()}
    for name in [name for name in state if name.startswith(prefix)]:
        if name not in present or state[name].shape != present[name].shape:
            del state[name]
    for name, value in present.items():
        state.setdefault(name, value)


def compile_parts(detector: Detector, parts: Literal["none", "losses", "all"]) -> None:
    """Let torch write kernels for matching and losses, or for the net as well. Names of weights
    stay. Every shape is compiled once, which takes its time: those of images are few (one, or two
    for each `data.short`), and objects come in groups of 16, 32, 64, ..."""
    torch._dynamo.config.recompile_limit = 64  # with more shapes it would silently not compile
    if parts != "none":
        detector.criterion.compile(dynamic=False)
    if parts == "all":
        detector.net.compile(dynamic=False)


def as_evaluated(config: Mapping[str, Any], device: torch.device) -> torch.autocast:
    """A context in which a net computes as eval.py lets it: in the run's `trainer.precision`. What
    a GPU trained in 16-mixed, a CPU computes in float32."""
    kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    dtype = kinds.get(config["trainer"].get("precision", "32-true"))
    if dtype is torch.float16 and device.type == "cpu":
        dtype = None
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def make_embedding(config: Mapping[str, Any], num_identities: int) -> EmbeddingCriterion:
    """What trains the embedding head of a resolved configuration."""
    options, losses = config["model"]["embedding"], []
    for spec in config["model"]["embedding_loss"]:
        try:
            losses.append(make_loss(spec))
        except ValueError as error:
            raise UserError(f"model.embedding_loss: {spec['name']}: {error}") from error
        name = type(losses[-1]).__name__
        if name in [type(loss).__name__ for loss in losses[:-1]]:
            raise UserError(
                f"model.embedding_loss: {name} is there twice, and figures would have one name for "
                "both: leave one out"
            )
        losses[-1].setup(num_identities, options["size"])
        if losses[-1].needs_positives and min(config["data"]["identities"] or [0]) < 2:
            raise UserError(
                f"{spec['name']} compares objects of one identity in a batch, which hardly meet by "
                "chance: give --data.identities '[P, K]', P identities in K images each, 2 or more"
            )
    return EmbeddingCriterion(losses, num_identities, options["samples"])


def make_suppression(options: Mapping[str, Any]) -> Suppression:
    """The suppression that the section `postprocess` of a configuration describes."""
    names = {field.name for field in dataclasses.fields(Suppression)} & set(options)
    return Suppression(kind=options["nms"], **{name: options[name] for name in names})


def make_postprocess(options: Mapping[str, Any], scores: Callable[[Tensor], Tensor]) -> Postprocess:
    suppression = make_suppression(options)
    return Postprocess(scores, suppression, options["score_threshold"], options["candidates"])


def _loss(config: dict[str, Any], slot: str, class_weights: Sequence[float] | None = None) -> Any:
    spec = config["model"][slot]
    if class_weights is not None:
        spec = {**spec, "class_weights": class_weights}
    try:
        loss = make_loss(spec)
        loss.setup(len(config["data"]["classes"]), config["model"]["channels"])
    except ValueError as error:
        raise UserError(f"model.{slot}: {error}") from error
    return loss


def open_run(
    name: str, checkpoint: str = "best", config: dict[str, Any] | None = None
) -> tuple[dict[str, Any], Detector]:
    """The configuration of a run and its trained detector in evaluation mode.

    `config` replaces the run's own config.yaml, for flags that change how it is evaluated. Says so
    where last.ckpt stands in for best.ckpt. Raises UserError where the run has other classes, or
    the checkpoint does not fit.
    """
    run = existing_run(name)
    before = load(run / "config.yaml")
    config = config or before
    check_classes(run, before, config, "leave out data.classes")
    detector = assemble(config)
    path = checkpoint_file(run, checkpoint)
    weights = net_weights(read_weights(path))
    check_weights(weights, detector, path, "name another --checkpoint")
    if checkpoint == "best" != path.stem:
        print(f"{run} has no best checkpoint yet: {path} is taken", file=sys.stderr)
    detector.net.load_state_dict(weights)
    return config, detector.eval()
