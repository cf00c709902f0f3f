"""From the output of the net to what is kept of every image, gathered from all ranks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed
from torch import Tensor

from detector.postprocess import Candidates, Detections

T = TypeVar("T")
Row = dict[str, Any]  # one detection as COCO writes it: image_id, category_id, bbox xywh, score


class ImageCandidates(NamedTuple):
    """Candidates of one image on the CPU, without padding: boxes (C, 4) in pixels of the net's
    input, scores (C,), labels (C,); its size (2,) in the net's input and originally (2,)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    size: Tensor
    original_size: Tensor


def to_results(
    detections: Detections,
    image_ids: Tensor | Sequence[int],
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
    ids = image_ids.tolist() if isinstance(image_ids, Tensor) else map(int, image_ids)
    rows = []
    for image_id, image in zip(ids, table, strict=True):
        for left, top, right, bottom, score, label in image[image[:, 5] >= 0].tolist():
            bbox = [left, top, right - left, bottom - top]
            category = int(category_ids[int(label)])
            row = {"image_id": image_id, "category_id": category, "bbox": bbox, "score": score}
            rows.append(row if file_names is None else {**row, "file_name": file_names[image_id]})
    return rows


def by_image(rows: Iterable[Row], image_ids: Iterable[int]) -> dict[int, list[Row]]:
    """The rows of every one of `image_ids`; an empty list for an image without detections."""
    groups: dict[int, list[Row]] = {int(image_id): [] for image_id in image_ids}
    for row in rows:
        groups[row["image_id"]].append(row)
    return groups


def split_candidates(
    candidates: Candidates, batch: Mapping[str, Tensor]
) -> dict[int, ImageCandidates]:
    """The candidates of a batch by image id."""
    boxes, scores, labels = (part.cpu() for part in candidates[:3])
    sizes, original_sizes = batch["sizes"].cpu(), batch["original_sizes"].cpu()
    images = {}
    for k, image_id in enumerate(batch["image_ids"].tolist()):
        real = scores[k] > 0
        parts = (boxes[k][real], scores[k][real], labels[k][real])
        images[image_id] = ImageCandidates(*parts, sizes[k], original_sizes[k])
    return images


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
    joined = {image_id: value for part in parts for image_id, value in part.items()}
    return dict(sorted(joined.items()))
