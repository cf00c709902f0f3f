"""The picture of the first batch: objects, and the anchors that were matched to them."""

import numpy as np
import torch

from detector.anchors import AnchorGenerator
from detector.evaluation.batch_picture import SIDE, draw_batch
from detector.evaluation.drawing import COLORS


def test_matched_anchors_and_objects_are_drawn() -> None:
    """An object of exactly an anchor's size on the corner of a cell, and an ignored one."""
    batch = {
        "images": torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
        "boxes": torch.tensor([[[16.0, 16, 48, 48], [50, 50, 60, 60]], [[0, 0, 0, 0]] * 2]),
        "labels": torch.tensor([[1, 0], [0, 0]]),
        "ignore": torch.tensor([[False, True], [False, False]]),
        "valid": torch.tensor([[True, True], [False, False]]),
        "sizes": torch.tensor([[64, 64], [64, 32]]),
    }
    generator = AnchorGenerator((32, 64, 128, 256, 512), (1.0,), 1)
    before = {name: value.clone() for name, value in batch.items()}
    matching = {"foreground": 0.5, "background": 0.4, "force": "object"}
    picture = draw_batch(batch, generator, matching, ["a", "b"])
    assert picture.dtype == np.uint8
    assert all(torch.equal(batch[name], value) for name, value in before.items())
    first = picture[10 + 24 :, 10 : 10 + SIDE]
    colored = (first == np.array(COLORS[1])).all(axis=2)
    edge = 16 * SIDE // 64
    assert colored[edge : 3 * edge, edge].all()  # the left side of the object
    # anchors one cell beside it overlap it by 0.6, those two cells beside it by 0.33
    assert colored[edge : 3 * edge, edge // 2].sum() > edge
    assert not colored[edge : 3 * edge, 4].any()
    assert not (first == np.array(COLORS[0])).all(axis=2).any()  # an ignored one matches none
