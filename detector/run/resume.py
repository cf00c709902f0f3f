"""Going on with a run: what has to agree before anything of the run changes."""

from pathlib import Path
from typing import Any

from torch import Tensor

from detector.config.errors import UserError
from detector.config.resolve import load
from detector.module import Detector
from detector.run.folder import read_epochs
from detector.run.weights import check_finite, differing, net_weights, read_weights

PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step")


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
    others than those of the run.
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
    trained = sum(parameter.requires_grad for parameter in detector.parameters())
    known = sum(len(group["params"]) for group in content["optimizer_states"][0]["param_groups"])
    if names[0] != names[1] or trained != known:
        what = f"by {names[0]}" if names[0] != names[1] else f"with {known} trained weights"
        raise UserError(
            f"{run} was trained {what}, and an optimizer's state fits no other: start a new run "
            f"with --model.weights {run}"
        )
    return int(content["global_step"])


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
