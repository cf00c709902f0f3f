"""The data of a run: reads the splits, checks that they fit together, and makes the loaders."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from data import DataError
from data.check import Finding, check, raise_errors
from data.check_files import check_counts
from data.content import Content, Source, class_ids, complete, restrict
from data.dataset import Images, collate
from data.identity_sampler import IdentityBatches
from data.layouts import read
from data.noise import with_noise
from data.options import Options
from data.sampler import Batches, repeat_factors
from data.split import Split, to_split
from data.tracks import (
    check_identities,
    number_identities,
    objects_per_identity,
    report_identities,
)
from data.transforms import Augmentation, InputSize, load_annotated


class DataModule(pl.LightningDataModule):
    """Training and validation data in COCO's, VOC's, YOLO's or the drawn shapes' layout.

    After `setup`: `format`, the layout that was found; `classes` and `category_ids` (the data set's
    id of each); `identity_names`, what the data set calls each identity; `file_names` of the
    validation split by image id, and `train_names`; `ground_truth()`; `report()`;
    `is_undivided`, whether the data set has no splits, so that one was set apart.
    `input_size` places bare images as validation does. With `holdout` that share of the training
    split is validated on, and not trained on, instead of `val`; label noise (see `data.noise`) is
    in training only. Everything that is wrong with the data is a DataError of one line.
    """

    def __init__(self, *, seed: int = 0, **options: Any) -> None:
        """`options` are those of `Options`, the keys of a configuration's section `data`."""
        super().__init__()
        if seed < 0:
            raise DataError(f"seed must not be negative, but is {seed}")
        self.seed, self.options = seed, (chosen := Options(**options))
        self.input_size = InputSize(chosen.size, chosen.short, chosen.long)
        self.augmentation = Augmentation(chosen.hflip, chosen.vflip, chosen.color, chosen.zoom)
        self.splits: dict[str, Split] = {}
        self.format = self.options.format
        self.lines: list[str] = []
        self.findings: list[Finding] = []
        self.noise: list[str] = []
        self.classes: list[str] = []
        self.category_ids: list[int] = []
        self.identity_names: list[int | str] = []
        self.file_names: dict[int, str] = {}
        self.train_names: dict[int, str] = {}
        self.is_undivided = False
        self._truth: Content = {}
        self._datasets: dict[str, Images] = {}

    def setup(self, stage: str | None = None) -> None:
        """Reads the validation split, and the training split unless `stage` is "validate" or
        "test". What was read is not read again."""
        parts = ["val"] if stage in ("validate", "test") else ["train", "val"]
        if all(part in self.splits for part in parts):
            return
        self.read(parts)
        raise_errors(self.findings)

    def read(self, parts: Sequence[str]) -> None:
        """Reads "train", "val" or both, and fills `findings` with what may be wrong with them."""
        reading = read(self.options, parts)
        self.format, self.classes, self.lines = reading.layout, reading.classes, reading.lines
        splits = {part: self._split(source) for part, source in reading.sources.items()}
        self.findings = [
            Finding("warning", "reading", f"{part}: {note}")
            for part, source in reading.sources.items()
            for note in source.notes
        ]
        self.findings += check(splits, self.classes, self.input_size)
        if "train" in splits and self.options.label_noise:
            splits["train"] = self._with_noise(splits["train"])
        self.splits, self.identity_names = number_identities(splits)
        self.is_undivided = any(source.undivided for source in reading.sources.values())
        source = reading.sources["val"]
        self._truth = complete(restrict(source.content, self.classes), self.classes)
        ids = class_ids(self._truth, source.where)
        self.category_ids = [ids[name] for name in self.classes]
        self.file_names = _names(self._truth)
        if "train" in reading.sources:
            self.train_names = _names(reading.sources["train"].content)

    def _split(self, source: Source) -> Split:
        arguments = (source.content, source.folder, self.classes, source.where)
        split = to_split(*arguments, self.options.identity)
        split.dropped["of other classes"] += source.left_out
        return split

    def _with_noise(self, split: Split) -> Split:
        rate, kind = self.options.label_noise, self.options.noise_kind
        noisy, line = with_noise(split, rate, kind, len(self.classes), self.seed)
        self.noise = [f"train: {line}"]
        before, after = (set(part.labels[~part.ignore].tolist()) for part in (split, noisy))
        if not after:
            error = f"train: {line}: none is left to train on; lower data.label_noise"
            self.findings.append(Finding("error", "objects", error))
        elif lost := ", ".join(self.classes[label] for label in sorted(before - after)):
            text = f"train: {line}: no object of {lost} is left, so their outputs learn nothing"
            self.findings.append(Finding("warning", "classes without objects", text))
        return noisy

    def ground_truth(self) -> Content:
        """The validation split as the content of a COCO file: the file's own, untouched (without
        the categories that `classes` leaves out), or what scripts/voc2coco.py writes."""
        return self._truth

    def read_image(self, image_id: int) -> np.ndarray:
        """The pixels of a validation image as it was annotated, RGB (H, W, 3)."""
        split = self.splits["val"]
        (row,) = np.flatnonzero(split.image_ids == image_id)
        height, width = split.sizes[row].tolist()
        return load_annotated(split.paths[row], (height, width))

    def report(self, max_detections: int | None = None) -> list[str]:
        """What was read and what was left out, and warnings, as short lines."""
        return [*self.describe(), *self.warnings(max_detections)]

    def warnings(self, max_detections: int | None = None) -> list[str]:
        """What may be wrong, one line each; images of val with more objects than are detected, too,
        where `max_detections` says how many that are."""
        findings = list(self.findings)
        if max_detections is not None:
            findings += check_counts("val", self.splits["val"], max_detections)
        return [f"warning: {finding.line}" for finding in findings]

    def describe(self) -> list[str]:
        """The same without warnings."""
        splits = self.splits.items()
        counts = [line for part, split in splits for line in split.report(part, self.classes)]
        identities = report_identities(self.splits, self.options.identity)
        lines = [*self.lines, *counts, *identities, *self.noise]
        if "train" in self.splits and (factors := self.repeat_factors()) is not None:
            more, most = int((factors > 1).sum()), factors.max()
            lines.append(
                f"train: {more} images have a class that is in less than a share of "
                f"{self.options.oversample:g} and come up to {most:.2g} times as often as others"
            )
        return lines

    def repeat_factors(self) -> np.ndarray | None:
        """How often each training image comes compared with others, or None for all alike."""
        if not (threshold := self.options.oversample):
            return None
        return repeat_factors(self.splits["train"], len(self.classes), threshold)

    def class_weights(self) -> list[float] | None:
        """Weights of the classes, (1 / objects of the class in train)^`class_weights`, of which the
        mean over all objects is 1; None where that is 0. A class without objects, of which there
        is nothing to weigh, has 1."""
        if not (exponent := self.options.class_weights):
            return None
        train = self.splits["train"]
        labels = train.labels[~train.ignore]
        counts = np.bincount(labels, minlength=len(self.classes))
        weights = (1 / counts.clip(min=1)) ** exponent
        weights /= np.average(weights, weights=counts)
        return np.where(counts > 0, weights, 1.0).tolist()  # type: ignore[no-any-return]

    def count_identities(self) -> int:
        """How many there are in the training split; DataError for none, as nothing could be
        recognized, and for one that cannot be read."""
        self.check_identities()
        check_identities(self.splits["train"], "train", self.options.identity)
        return len(objects_per_identity(self.splits["train"]))

    def check_identities(self) -> None:
        """Raises DataError for an identity that cannot be read, which does not matter unless there
        is an embedding."""
        for split in self.splits.values():
            if split.unread:
                raise DataError(split.unread)

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
        split, options = self.splits[part], self.options
        if part not in self._datasets:
            self._datasets[part] = Images(split, augmentation, self.seed, options.reduce)
        dataset = self._datasets[part]
        if options.cache and dataset.cache is None:
            height, width = split.sizes[0].tolist()
            dataset.fill_cache(self.input_size.shape_for(height, width), options.workers)
        order |= {"seed": self.seed}
        if trainer := self.trainer:  # which knows its processes before they are joined
            order["position"] = trainer.global_rank, trainer.world_size
        factors = self.repeat_factors() if part == "train" else None
        batches = Batches(
            split.sizes, self.input_size, options.batch_size, factors=factors, **order
        )
        if part == "train" and options.identities:
            per_batch, images = options.identities
            order |= {"per_batch": per_batch, "images": images}
            batches = IdentityBatches(split, self.input_size, options.batch_size, **order)
        return DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=options.workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=options.workers > 0,
            worker_init_fn=_start_worker,
        )


def _names(content: Content) -> dict[int, str]:
    return {image["id"]: image["file_name"] for image in content["images"]}


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # one process per core is enough
