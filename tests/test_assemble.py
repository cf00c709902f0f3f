"""From a configuration to a detector: what the data decides about losses."""

from typing import Any

import pytest
import torch

from detector.config.resolve import resolve
from detector.run.assemble import assemble

TINY = {
    "model.depth": 10,
    "model.width": 8,
    "model.channels": 16,
    "model.convs": 0,
    "model.norm": "group",
    "data.classes": ["rare", "common"],
}


def config(**changes: Any) -> dict[str, Any]:
    return resolve([], {**TINY, **{key.replace("__", "."): v for key, v in changes.items()}})


@pytest.mark.parametrize(
    "loss", ["FocalLoss", "SigmoidCrossEntropy", "BalancedCrossEntropy", "SoftmaxCrossEntropy"]
)
def test_weights_of_the_data_are_those_of_the_loss(loss: str) -> None:
    detector = assemble(config(model__class_loss=loss), class_weights=[2.0, 0.5])
    weights = detector.criterion.class_loss.class_weights
    assert isinstance(weights, torch.Tensor)
    assert weights.tolist() == [2.0, 0.5]


def test_a_head_for_embeddings_changes_no_other_initial_weight() -> None:
    states = []
    for size, losses in ((0, []), (8, ["ArcFaceLoss", "CenterLoss"])):
        settings = config(model__embedding_loss=losses, model__embedding__size=size)
        torch.manual_seed(0)
        states.append(assemble(settings, num_identities=5).state_dict())
        states[-1]["the next draw"] = torch.rand(3)
    plain, headed = states
    more = {name for name in headed if "embedding" in name}
    assert more
    assert headed.keys() - more == plain.keys()
    assert all(torch.equal(headed[name], value) for name, value in plain.items())
