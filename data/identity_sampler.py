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

    As many batches as `Batches` has, of one orientation each, and as there a function of (seed,
    epoch). A batch begins with an image that was not in the epoch yet; images with an identity of
    it join, those not seen yet first, and so on until P identities have their K images. The rest
    of the batch is filled with images not seen yet, with or without identities. An image is in a
    batch once at most, but may come several times in an epoch, and another not at all.

    Args:
        split: the training images.
        per_batch: P.
        images: K.

    Raises DataError where P * K images are more than a batch, or too few identities are in K images
    of an orientation.
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
        self.images_of = [self._images_of(portrait) for portrait in (False, True)]

    def _images_of(self, portrait: bool) -> dict[int, list[int]]:
        """Identity -> its images of one orientation, of those in K images or more."""
        members: dict[int, list[int]] = {}
        for index in np.flatnonzero(self.portrait == portrait).tolist():
            for identity in self.identities[index]:
                members.setdefault(identity, []).append(index)
        members = {key: value for key, value in members.items() if len(value) >= self.images}
        if len(members) < self.per_batch and (self.portrait == portrait).any():
            raise DataError(
                f"data.identities [{self.per_batch}, {self.images}]: {len(members)} identities are "
                f"in {self.images} images or more that fit into one batch"
            )
        return members

    def _joint_batches(self, epoch: int) -> Iterator[list[int]]:
        random = np.random.default_rng((self.seed, epoch))
        counts = np.bincount(self.portrait, minlength=2).tolist()
        batches = [max(1, count // self.joint) if count else 0 for count in counts]
        orders = [
            random.permutation(np.flatnonzero(self.portrait == side)).tolist() for side in (0, 1)
        ]
        unseen = [dict.fromkeys(order) for order in orders]  # an ordered set
        for side in random.permutation(np.repeat([0, 1], batches)).tolist():
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
