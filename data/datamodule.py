"""The data of a run: reads the splits, checks that they fit together, and makes the loaders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from data import DataError, coco
from data.dataset import Images, collate
from data.layouts import Layout, read_coco, read_voc
from data.noise import Kind, with_noise
from data.sampler import Batches
from data.split import Split, to_split
from data.transforms import Augmentation, InputSize

FORMATS = ("coco", "voc", "shapes")


class DataModule(pl.LightningDataModule):
    """Training and validation data in COCO, VOC or the drawn shapes' layout (README: Data).

    After `setup`: `classes` and `category_ids` (the data set's id of each), `file_names` of the
    validation split by image id, `ground_truth()` and `report()`. `input_size` places bare images
    as validation does. With `holdout` that share of the training split is validated on, and not
    trained on, instead of `val`; label noise (see `data.noise`) is in training only. Everything
    that is wrong with the data is a DataError of one line.
    """

    def __init__(
        self,
        *,
        format: str,
        root: str | Path,
        train: str | Sequence[str],
        val: str | Sequence[str],
        annotations: str | None = None,
        images: str | None = None,
        classes: Sequence[str] | None = None,
        size: Sequence[int] | int | None = (640, 640),
        short: Sequence[int] | int | None = None,
        long: int = 1333,
        batch_size: int = 16,
        workers: int = 2,
        cache: bool = False,
        hflip: float = 0.5,
        vflip: float = 0.0,
        color: float = 0.0,
        zoom: float = 0.0,
        label_noise: float = 0.0,
        noise_kind: Kind = "mixed",
        holdout: float = 0.0,
        reduce: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if format not in FORMATS:
            raise DataError(f"data.format must be one of {', '.join(FORMATS)}, not {format!r}")
        for name, value, least in (("batch_size", batch_size, 1), ("workers", workers, 0)):
            if value < least:
                raise DataError(f"data.{name} must be at least {least}, not {value}")
        if cache and short:
            raise DataError(
                "data.cache needs one size for all images: give data.size, no data.short"
            )
        if seed < 0:
            raise DataError(f"seed must not be negative, but is {seed}")
        if classes and len(set(classes)) < len(classes):
            raise DataError("data.classes names a class twice")
        templates = {"annotations": annotations, "images": images}
        given = {name: template for name, template in templates.items() if template}
        self.layout = Layout(Path(root), **given)
        self.format, self.names = format, {"train": train, "val": train if holdout else val}
        self.label_noise, self.noise_kind, self.holdout = label_noise, noise_kind, holdout
        self.chosen = list(classes) if classes else None
        self.input_size = InputSize(size, short, long)
        self.augmentation = Augmentation(hflip, vflip, color, zoom)
        self.batch_size, self.workers, self.cache, self.seed = batch_size, workers, cache, seed
        self.reduce = reduce
        self.splits: dict[str, Split] = {}
        self.noise: list[str] = []
        self.classes: list[str] = []
        self.category_ids: list[int] = []
        self.file_names: dict[int, str] = {}
        self._truth: coco.Content = {}
        self._datasets: dict[str, Images] = {}

    def setup(self, stage: str | None = None) -> None:
        """Reads the validation split, and the training split unless `stage` is "validate" or
        "test". What was read is not read again."""
        parts = ["val"] if stage in ("validate", "test") else ["train", "val"]
        if all(part in self.splits for part in parts):
            return
        if self.format == "voc":
            # VOC has no list of classes: without one given, those of both splits count.
            needed = parts if self.chosen else ["train", "val"]
            splits = {part: self.names[part] for part in needed}
            self.classes, sources = read_voc(
                self.layout.root, splits, self.chosen, complete="train" in needed
            )
        else:
            if self.format == "shapes":
                self._draw()
            splits = {part: self.names[part] for part in parts}
            self.classes, sources = read_coco(self.layout, splits, self.chosen)
        for part in parts:
            where, folder, content, left_out = sources[part]
            if self.holdout:
                content = coco.set_apart(content, self.holdout, rest=part == "train")
                sources[part] = sources[part]._replace(content=content)
            split = to_split(content, folder, self.classes, where)
            split.dropped["of other classes"] += left_out
            if part == "train" and not len(split.boxes):
                raise DataError(f"{where} has no objects to train on")
            if part == "train" and self.label_noise:
                noise = (self.label_noise, self.noise_kind, len(self.classes), self.seed)
                split, line = with_noise(split, *noise)
                self.noise = [f"train: {line}"]
            self.splits[part] = split
        self._truth = coco.restrict(sources["val"].content, self.classes)
        ids = coco.class_ids(self._truth, sources["val"].where)
        self.category_ids = [ids[name] for name in self.classes]
        self.file_names = {image["id"]: image["file_name"] for image in self._truth["images"]}

    def _draw(self) -> None:
        """Draws the shapes where they are missing; processes that start together draw once."""
        layout = self.layout
        paths = [layout.path(layout.annotations, split) for split in self.names.values()]
        if all(path.is_file() for path in paths):
            return
        import fcntl  # Windows lacks it, and only this needs it

        from data.shapes import draw_dataset

        layout.root.mkdir(parents=True, exist_ok=True)
        with open(layout.root / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not all(path.is_file() for path in paths):
                draw_dataset(layout.root)

    def ground_truth(self) -> coco.Content:
        """The validation split as the content of a COCO file: the file's own, untouched (without
        the categories that `classes` leaves out), or what scripts/voc2coco.py writes."""
        return self._truth

    def report(self) -> list[str]:
        """What was read and what was left out, as short lines."""
        splits = self.splits.items()
        lines = [line for part, split in splits for line in split.report(part, self.classes)]
        return lines + self.noise

    def train_dataloader(self) -> DataLoader:
        """Shuffled and augmented. The order and every random draw are functions of (seed, epoch,
        index), so a resumed run goes on as if it had not been interrupted."""
        # Lightning sets the epoch only after it has made the first iterator.
        trainer: Any = self.trainer
        progress = trainer.fit_loop.epoch_progress if trainer else None
        epoch = (lambda: progress.current.processed) if progress else 0
        shuffle = not (trainer and trainer.overfit_batches)  # it wants the same ones every epoch
        return self._loader("train", self.augmentation, shuffle=shuffle, epoch=epoch)

    def val_dataloader(self) -> DataLoader:
        """In order, without augmentation, at the largest `short`."""
        return self._loader("val", None)

    def _loader(self, part: str, augmentation: Augmentation | None, **order: Any) -> DataLoader:
        if part not in self.splits:
            self.setup("fit" if part == "train" else "validate")
        split = self.splits[part]
        dataset = self._datasets.setdefault(
            part, Images(split, augmentation, self.seed, self.reduce)
        )
        if self.cache and dataset.cache is None:
            height, width = split.sizes[0].tolist()
            dataset.fill_cache(self.input_size.shape_for(height, width), self.workers)
        batches = Batches(split.sizes, self.input_size, self.batch_size, seed=self.seed, **order)
        return DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=self.workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.workers > 0,
            worker_init_fn=_start_worker,
        )


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # one process per core is enough
