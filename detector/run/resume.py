"""Going on with a run: what has to agree before anything of the run changes."""

from pathlib import Path
from typing import Any

from torch import Tensor

from detector.config.errors import UserError
from detector.config.resolve import load
from detector.module import Detector
from detector.optimization import group_parameters
from detector.run.folder import read_epochs
from detector.run.weights import check_finite, differing, net_weights, read_weights

PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step")
NO_OTHER = "and an optimizer's state fits no other: start a new run with --model.weights"


def last_checkpoint(run: Path) -> Path | None:
    """The checkpoint that a run is resumed from; None where it was interrupted before its first
    epoch was over, so that it begins anew."""
    path = run / "checkpoints" / "last.ckpt"
    if path.is_file():
        return path
    # of the first epoch best.ckpt is written before last.ckpt: a kill or a full disk between them
    if (run / "checkpoints" / "best.ckpt").is_file() and len(read_epochs(run)) > 1:
        raise UserError(f"{path} is missing: copy best.ckpt there to go on from the best epoch")
    return None


def check_resume(path: Path, run: Path, config: dict[str, Any], detector: Detector) -> int:
    """Make sure that training can go on from the checkpoint `path` as `config` says; returns the
    number of updates that it has seen.

    `detector` is the untrained detector of `config`. Raises UserError where the file is damaged or
    holds no training, where its weights are not finite, and where classes, net or optimizer are
    others than those of the run, or losses learn for another number of identities.
    """
    content = read_weights(path)
    missing = [name for name in PARTS if name not in content]
    if missing:
        raise UserError(
            f"{path} is no checkpoint of a training, it lacks {', '.join(missing)}: start a new "
            f"run with --model.weights {path}"
        )
    read_epochs(run)
    before = load(run / "config.yaml")
    check_classes(run, before, config, f"start a new run with --model.weights {run}")
    check_weights(net_weights(content), detector, path, f"start a new run --model.weights {run}")
    names = before["optimizer"]["name"], config["optimizer"]["name"]
    if names[0] != names[1]:
        raise UserError(f"{run} was trained by {names[0]}, {NO_OTHER} {run}")
    check_optimizer(content["optimizer_states"][0], detector, run)
    return int(content["global_step"])


def check_optimizer(state: dict[str, Any], detector: Detector, run: Path) -> None:
    """UserError unless the optimizer's state is of weights of the same number and shapes: torch
    does not compare them, and a fused update of others writes where no weight is."""
    trained = [p for g in group_parameters(detector, detector.optimizer) for p in g["params"]]
    known = [index for group in state["param_groups"] for index in group["params"]]
    if len(trained) != len(known):
        raise UserError(f"{run} was trained with {len(known)} trained weights, {NO_OTHER} {run}")
    names = {parameter: name for name, parameter in detector.named_parameters()}
    for index, parameter in zip(known, trained, strict=True):
        for key, value in state["state"].get(index, {}).items():
            if key != "step" and value.shape != parameter.shape:
                raise UserError(
                    f"{run} was trained with other identities or losses, {names[parameter]} is "
                    f"{list(value.shape)} there and {list(parameter.shape)} here: keep its data "
                    f"and losses, or start a new run with --model.weights {run}"
                )


def check_classes(run: Path, before: dict[str, Any], config: dict[str, Any], remedy: str) -> None:
    """UserError unless `config` has the classes of the run's own configuration, `before`, in their
    order: an output knows its class by its place alone."""
    trained, asked = before["data"]["classes"], config["data"]["classes"]
    if trained != asked:
        raise UserError(
            f"{run} was trained on the classes {', '.join(trained)}, in this order, not on "
            f"{', '.join(asked or ['those of the data'])}: {remedy}"
        )


def check_weights(weights: dict[str, Tensor], detector: Detector, path: Path, remedy: str) -> None:
    """UserError unless the weights are those of the detector's net and finite."""
    if wrong := differing(weights, detector.net.state_dict()):
        raise UserError(
            f"{path} is of another model than its configuration describes: {len(wrong)} weights "
            f"differ, the first is net.{wrong[0]}; {remedy}"
        )
    check_finite(weights, path)
