"""From detections to result rows of all images, gathered from all ranks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed

if TYPE_CHECKING:
    from detector.postprocess import Detections


T = TypeVar("T")
Row = dict[str, Any]  # one detection as COCO writes it: image_id, category_id, bbox xywh, score


def to_results(
    detections: "Detections",
    image_ids: torch.Tensor | Sequence[int],
    category_ids: Sequence[int],
    file_names: Mapping[int, str] | None = None,
) -> list[Row]:
    """COCO result rows of one batch, image by image, with plain numbers and original ids.

    `category_ids[label]` is the data set's id of that label; padding (label -1) gives no row. With
    `file_names` (image id -> name) every row also has a `file_name`.
    """
    # One tensor, so that a GPU is waited for once. float32 holds every label, but not every id.
    packed = (detections.boxes, detections.scores[..., None], detections.labels[..., None])
    table = torch.cat([part.float() for part in packed], dim=-1).cpu().numpy().astype(float)
    ids = image_ids.tolist() if isinstance(image_ids, torch.Tensor) else map(int, image_ids)
    rows = []
    for image_id, found in zip(ids, table, strict=True):
        for left, top, right, bottom, score, label in found[found[:, 5] >= 0].tolist():
            bbox = [left, top, right - left, bottom - top]
            category = int(category_ids[int(label)])
            row = {"image_id": image_id, "category_id": category, "bbox": bbox, "score": score}
            rows.append(row if file_names is None else {**row, "file_name": file_names[image_id]})
    return rows


def by_image(rows: Iterable[Row], image_ids: Iterable[int]) -> dict[int, list[Row]]:
    """The rows of every one of `image_ids`, also of those where nothing was found."""
    groups: dict[int, list[Row]] = {int(image_id): [] for image_id in image_ids}
    for row in rows:
        groups[row["image_id"]].append(row)
    return groups


def gather(rows: dict[int, T]) -> dict[int, T] | None:
    """What all ranks have by image id, on rank 0; None on the others. Every rank must call it.

    Each image counts once, although a distributed sampler repeats some to fill the last batch.
    The ids are sorted: what is written from them does not depend on the number of ranks.
    """
    parts: list[Any] = [rows]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        first = torch.distributed.get_rank() == 0
        parts = [None] * torch.distributed.get_world_size()
        torch.distributed.gather_object(rows, parts if first else None, dst=0)
        if not first:
            return None
    joined = {image_id: found for part in parts for image_id, found in part.items()}
    return dict(sorted(joined.items()))
