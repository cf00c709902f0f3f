"""Batches in which identities meet again: what a loss that compares objects needs."""

from collections.abc import Iterator
from itertools import chain, cycle
from typing import Any

import numpy as np

from data import DataError
from data.sampler import Batches
from data.split import Split
from data.transforms import InputSize


class IdentityBatches(Batches):
    """Batches, of all ranks together, in which P identities or more are in K images each or more.

    As many as fill up with the images of each orientation, or a small one, and as in `Batches` a
    function of (seed, epoch); of the seed alone without `shuffle`. A batch begins with an image
    that was not in the epoch yet; images with an identity of it join, those not seen yet first, and
    so on until P identities have their K images. The rest of the batch is filled with images not
    seen yet, with or without identities. An image is in a batch once at most, but may come several
    times in an epoch, and another not at all.

    Args:
        split: the training images.
        per_batch: P.
        images: K.

    An orientation of which too few identities are in K images is left out, and said. Raises
    DataError where no other is left, and where P * K images are more than a batch.
    """

    def __init__(
        self,
        split: Split,
        input_size: InputSize,
        batch_size: int,
        *,
        per_batch: int,
        images: int,
        **order: Any,
    ) -> None:
        super().__init__(split.sizes, input_size, batch_size, **order)
        self.per_batch, self.images = per_batch, images
        if per_batch * images > self.joint:
            raise DataError(
                f"data.identities [{per_batch}, {images}]: {per_batch} identities in {images} "
                f"images each are more than the {self.joint} images of a batch (data.batch_size, "
                "times the number of processes)"
            )
        tracks = split.identities
        self.identities: list[list[int]] = []  # of every image
        for index in range(len(split)):
            rows = tracks[split.rows(index)] if tracks is not None else np.zeros(0, np.int64)
            self.identities.append(np.unique(rows[rows >= 0]).tolist())
        if not any(self.identities):
            raise DataError(
                f"data.identities [{per_batch}, {images}]: no object of train has an identity, "
                "whose key is data.identity"
            )
        self.images_of = [self._images_of(portrait) for portrait in (False, True)]
        known = [len(identities) for identities in self.images_of]
        if max(known) < per_batch:
            raise DataError(
                f"data.identities [{per_batch}, {images}]: {max(known)} identities are in {images} "
                "images or more that fit into one batch"
            )
        self.batches = []  # of each orientation
        for side, count in enumerate(np.bincount(self.portrait, minlength=2).tolist()):
            kept = known[side] >= per_batch
            self.batches.append(max(1, count // self.joint) if kept else 0)
            if count and not kept and self.rank == 0:
                kind = "portrait" if side else "landscape"
                print(
                    f"data.identities [{per_batch}, {images}]: {count} {kind} images are not "
                    f"trained on: {known[side]} of their identities are in {images} of them or more"
                )

    def __len__(self) -> int:
        return sum(self.batches)

    def _images_of(self, portrait: bool) -> dict[int, list[int]]:
        """Identity -> its images of one orientation, of those in K images or more."""
        members: dict[int, list[int]] = {}
        for index in np.flatnonzero(self.portrait == portrait).tolist():
            for identity in self.identities[index]:
                members.setdefault(identity, []).append(index)
        return {key: value for key, value in members.items() if len(value) >= self.images}

    def _joint_batches(self, epoch: int) -> Iterator[list[int]]:
        random = np.random.default_rng((self.seed, epoch if self.shuffle else 0))
        orders = [
            random.permutation(np.flatnonzero(self.portrait == side)).tolist() for side in (0, 1)
        ]
        unseen = [dict.fromkeys(order) for order in orders]  # an ordered set
        for side in random.permutation(np.repeat([0, 1], self.batches)).tolist():
            yield self._batch(random, orders[side], unseen[side], self.images_of[side])

    def _batch(
        self,
        random: np.random.Generator,
        order: list[int],
        unseen: dict[int, None],
        images_of: dict[int, list[int]],
    ) -> list[int]:
        chosen: dict[int, None] = {}
        done: set[int] = set()
        for first in chain(unseen, cycle(order)):  # the constructor saw P identities
            if len(done) == self.per_batch:
                break
            known = [key for key in self.identities[first] if key in images_of and key not in done]
            if not known:
                continue
            identity = known[random.integers(len(known))]
            members = random.permutation(images_of[identity]).tolist()
            # the one it began with, then those not seen yet
            members.sort(key=lambda i: (i != first, i not in unseen))
            chosen |= dict.fromkeys(members[: self.images])
            done.add(identity)
        for index in chain(unseen, order):
            if len(chosen) >= min(self.joint, len(order)):
                break
            chosen.setdefault(index)
        for index in chosen:
            unseen.pop(index, None)
        return list(chosen)
