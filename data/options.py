"""The keys of `data.`, each with its default, and what must hold of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data import DataError
from data.noise import Kind

Splits = str | Sequence[str]  # the name of a split, or names of splits to join
FORMATS = ("auto", "coco", "voc", "yolo", "shapes", "identities")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a configuration says in its section `data`; `python train.py --help` explains each key.
    Raises DataError for values that make no sense."""

    root: str | Path
    format: str = "auto"
    train: Splits = "train"
    val: Splits = "val"
    annotations: str | None = None
    images: str | None = None
    classes: Sequence[str] | None = None
    single_class: bool = False
    holdout: float = 0.0
    size: Sequence[int] | int | None = (640, 640)
    short: Sequence[int] | int | None = None
    long: int = 1333
    hflip: float = 0.5
    vflip: float = 0.0
    color: float = 0.0
    zoom: float = 0.0
    class_weights: float = 0.0
    oversample: float = 0.0
    label_noise: float = 0.0
    noise_kind: Kind = "mixed"
    identity: str = "track_id"
    identities: Sequence[int] | None = None
    batch_size: int = 16
    workers: int = 2
    cache: bool = False
    reduce: bool = True

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise DataError(f"data.format must be one of {', '.join(FORMATS)}, not {self.format!r}")
        if self.batch_size < 1:
            raise DataError(f"data.batch_size must be at least 1, not {self.batch_size}")
        if self.workers < 0:
            raise DataError(f"data.workers must be at least 0, not {self.workers}")
        if self.oversample and self.identities:
            raise DataError(
                "data.oversample and data.identities both choose the images of a batch: leave out "
                "one of them"
            )
        if self.cache and self.short:
            raise DataError("data.cache needs one size for all images: give data.size, not short")
        if self.classes and len(set(self.classes)) < len(self.classes):
            raise DataError("data.classes names a class twice")
        if self.single_class and self.classes and len(self.classes) > 1:
            raise DataError(
                "data.single_class makes one class of all: data.classes can only give its name"
            )
