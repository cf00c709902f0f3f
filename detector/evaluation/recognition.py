"""The IdentityEvaluator: a Lightning callback that says how well objects are recognized."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
from torch import Tensor

from detector.evaluation.results import gather
from detector.evaluation.retrieval import (
    Figures,
    Objects,
    Ranking,
    identity_figures,
    rank_detections,
    rank_truth,
)
from detector.evaluation.table import Table

GALLERY_SCORE = 0.5  # of the detections that are searched, as the person search benchmarks have it


class ImageVectors(NamedTuple):
    """Of one image, in pixels of the original: true boxes (G, 4) x, y, width, height, identities
    (G,) and vectors (G, E); boxes (D, 4), scores (D,) and vectors (D, E) of detections."""

    boxes: np.ndarray
    identities: np.ndarray
    vectors: np.ndarray
    detected_boxes: np.ndarray
    scores: np.ndarray
    detected_vectors: np.ndarray


class IdentityEvaluator(pl.Callback):
    """Rank-1, rank-5, mAP and TPR at FAR of the validation images, logged as val/identity/mAP and
    so on; nothing where the data has no identities.

    It reads the "detections" and "vectors" that `Detector.validation_step` returns.

    Args:
        full: detections are searched as well, and there are intervals; else true boxes only, which
            is what training can afford.
        draws: samples of the images for the intervals.

    After a validation rank 0 has `figures`, `objects` (all with a true box), `detections` (the
    gallery, of scores from `GALLERY_SCORE`; only if `full`), and `images` by image id; they are
    empty on other ranks.
    """

    def __init__(self, *, full: bool = False, draws: int = 1000) -> None:
        self.full, self.draws = full, draws
        self.figures: Figures | None = None
        self.images: dict[int, ImageVectors] = {}
        self.objects: Objects | None = None
        self.detections: Objects | None = None

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.images, self.figures, self.objects, self.detections = {}, None, None, None

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if "vectors" in outputs and "identities" in batch:
            self.images |= split_vectors(outputs, batch)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        values: dict[str, float] = {}
        images = gather(self.images)
        self.images = images or {}
        if images:
            self.objects = true_objects(images)
            self.detections = searched_detections(images) if self.full else None
            draws = self.draws if self.full else 0
            self.figures = identity_figures(self.objects, self.detections, draws)
            values = self.figures.values
        for name, value in trainer.strategy.broadcast(values).items():
            if not np.isnan(value):
                pl_module.log(f"val/identity/{name}", value)

    def queries(self, names: Sequence[int | str]) -> list[dict[str, Any]]:
        """What became of every query, as plain values: its image, box and identity, as `names` has
        it by number, and its ranks and APs on true boxes ("rank1", "rank5", "mAP") and on
        detections ("search_mAP" ...)."""
        if self.objects is None or self.detections is None:
            return []
        truth = rank_truth(self.objects)
        search = rank_detections(self.objects, self.detections)
        return [
            {
                "image_id": int(self.objects.image_ids[row]),
                "bbox": self.objects.boxes[row].tolist(),
                "identity": names[self.objects.identities[row]],
                **_columns(truth, number, ""),
                **_columns(search, number, "search_"),
            }
            for number, row in enumerate(truth.rows)
        ]


def _columns(ranking: Ranking, number: int, prefix: str) -> dict[str, float]:
    names = ("rank1", "rank5", "mAP", "mAP_recall")
    columns = dict(zip(names, ranking[1:], strict=True))
    if not prefix:
        del columns["mAP_recall"]
    return {prefix + name: float(column[number]) for name, column in columns.items()}


def split_vectors(outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> dict[int, Any]:
    """What `validation_step` returned, by image id, on the CPU."""
    detections, scale = outputs["detections"], batch["original_sizes"] / batch["sizes"]
    tensors = (
        batch["boxes"] * scale.flip(-1).repeat(1, 2)[:, None],
        batch["identities"],
        outputs["vectors"].float(),
        batch["valid"] & ~batch["ignore"],
        detections.boxes,
        detections.scores,
        detections.vectors.float(),
        detections.labels >= 0,
    )
    images = {}
    columns = [tensor.cpu().numpy() for tensor in tensors]
    for image_id, *row in zip(batch["image_ids"].tolist(), *columns, strict=True):
        boxes, identities, vectors, known, found, scores, found_vectors, kept = row
        images[image_id] = ImageVectors(
            _xywh(boxes[known]),
            identities[known],
            vectors[known],
            _xywh(found[kept]),
            scores[kept],
            found_vectors[kept],
        )
    return images


def _xywh(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def true_objects(images: Mapping[int, ImageVectors]) -> Objects:
    """All objects of all images."""
    ids = [np.full(len(image.boxes), image_id) for image_id, image in images.items()]
    parts = [(image.vectors, image.identities, image.boxes) for image in images.values()]
    vectors, identities, boxes = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Objects(vectors, identities, np.concatenate(ids), boxes)


def searched_detections(
    images: Mapping[int, ImageVectors], least_score: float = GALLERY_SCORE
) -> Objects:
    """All detections of all images with this score or more."""
    chosen = [image.scores >= least_score for image in images.values()]
    ids = [np.full(mask.sum(), key) for key, mask in zip(images, chosen, strict=True)]
    pairs = list(zip(images.values(), chosen, strict=True))
    boxes = np.concatenate([image.detected_boxes[mask] for image, mask in pairs])
    vectors = np.concatenate([image.detected_vectors[mask] for image, mask in pairs])
    return Objects(vectors, np.full(len(boxes), -1), np.concatenate(ids), boxes)


def format_identities(figures: Figures) -> str:
    """The figures with their intervals as a table."""
    rows: Sequence[Sequence[Any]] = [
        (name, value, figures.margins.get(name)) for name, value in figures.values.items()
    ]
    heads = ("recognition", "value", "± 95 %")
    table = Table(heads, rows, ("", ".3f", ".3f")).render()
    return (
        f"{table}\n{figures.queries} queries, drawn by image against the same gallery for ±; "
        "search_: among detections of other images"
    )
