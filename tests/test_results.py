"""Result rows with their ids, and their gathering from several processes."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed

from detector.evaluation.results import by_image, gather, to_results
from detector.postprocess import Detections
from tests.test_coco_figures import box


def test_results_keep_large_and_sparse_ids() -> None:
    boxes = torch.tensor([[[1.5, 2, 11.5, 22], [0, 0, 0, 0]], [[3, 4, 5, 7], [3, 3, 9, 9]]])
    scores = torch.tensor([[0.5, 0.0], [0.25, 0.125]])
    labels = torch.tensor([[1, -1], [0, 1]])
    image_ids = [900100581904, 16777217]  # 2**24 + 1: the first that float32 does not hold
    expected = [
        {"image_id": 900100581904, "category_id": 16777219, "bbox": [1.5, 2, 10, 20], "score": 0.5},
        {"image_id": 16777217, "category_id": 7, "bbox": [3, 4, 2, 3], "score": 0.25},
        {"image_id": 16777217, "category_id": 16777219, "bbox": [3, 3, 6, 6], "score": 0.125},
    ]
    for ids in (torch.tensor(image_ids), image_ids):
        rows = to_results(Detections(boxes, scores, labels), ids, [7, 16777219])
        assert rows == expected
        assert json.loads(json.dumps(rows)) == expected  # nothing but plain numbers
    names = {900100581904: "a.jpg", 16777217: "b.jpg"}
    rows = to_results(Detections(boxes, scores, labels), image_ids, [7, 16777219], names)
    assert [row["file_name"] for row in rows] == ["a.jpg", "b.jpg", "b.jpg"]


def test_images_where_nothing_was_found_give_no_rows_but_an_empty_list() -> None:
    rows = [box(8, [0.0]), box(3, [1.0]), box(8, [2.0])]
    assert by_image(rows, [3, 5, 8]) == {3: rows[1:2], 5: [], 8: [rows[0], rows[2]]}
    none = torch.zeros(2, 0)
    assert to_results(Detections(none[..., None].expand(2, 0, 4), none, none), [4, 5], [1]) == []


ROWS = [{8: [box(8, [0.0])], 3: []}, {1: [box(1, [1.0]), box(1, [2.0])], 8: [box(8, [0.0])]}]
JOINED = {1: [box(1, [1.0]), box(1, [2.0])], 3: [], 8: [box(8, [0.0])]}


def test_gathering_counts_repeated_images_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gather(ROWS[0]) == ROWS[0]  # one process, nothing to gather

    def gather_object(rows: object, parts: list[object] | None, dst: int) -> None:
        if parts is not None:
            parts[:] = ROWS

    monkeypatch.setattr(torch.distributed, "gather_object", gather_object)
    joined = []
    for rank in (0, 1):
        for name, value in (("is_initialized", True), ("get_world_size", 2), ("get_rank", rank)):
            monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
        joined.append(gather(ROWS[rank]))
    assert joined == [JOINED, None]
    assert list(joined[0] or ()) == [1, 3, 8]  # sorted, whatever the number of processes


def gather_rows(rank: int) -> Any:
    return gather(ROWS[rank])


def test_two_processes_gather_on_the_first(two_processes: Callable[..., Any]) -> None:
    first, second = two_processes(gather_rows)
    assert [*first.items()] == [*JOINED.items()]  # in this order
    assert second is None
