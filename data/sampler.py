"""Which images make up which batch, as a function of (seed, epoch) and of nothing else."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from torch.utils.data import Sampler

from data.split import Split
from data.transforms import InputSize, Shape

# index of the image, number that its augmentation is drawn by, shape it is placed within
Key: TypeAlias = tuple[int, int, Shape]
COPY = 2**20  # more than any epoch: the k-th copy of an image is augmented as in epoch + k COPY


def repeat_factors(split: Split, num_classes: int, threshold: float) -> np.ndarray:
    """How often each image comes compared with one of frequent classes only, float64 (M,): of its
    classes the largest max(1, sqrt(threshold / f)), f being the share of images with the class.

    Gupta et al., LVIS (CVPR 2019), appendix B.2. Crowd and difficult objects do not count.
    """
    images = np.repeat(np.arange(len(split)), np.diff(split.starts))[~split.ignore]
    pairs = np.unique(images * num_classes + split.labels[~split.ignore])  # of image and class
    images, labels = np.divmod(pairs, num_classes)
    share = np.bincount(labels, minlength=num_classes) / max(1, len(split))
    factors = np.ones(len(split))
    np.maximum.at(factors, images, np.sqrt(threshold / share[labels]))
    return factors


class Batches(Sampler[list[Key]]):
    """Lists of keys, one list per batch; a whole batch has one shape.

    All ranks together see at every step the batch that one process with `batch_size` times as many
    images would see, and each has the same number of batches (a forward pass of DDP waits for the
    others even in validation). With `shuffle` (training) what is left over at the end is dropped,
    another part of the data in every epoch, unless the images of one orientation do not fill a
    single batch: they make a small one. Without it every image comes once, in order within its
    orientation. An image is repeated only where the last step has fewer images than ranks, and in
    training by `factors`: an epoch has as many images as without, an image comes in proportion to
    its factor (rounded up or down by chance), and each of its copies is augmented differently.
    """

    def __init__(
        self,
        sizes: np.ndarray,
        input_size: InputSize,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = False,
        epoch: int | Callable[[], int] = 0,
        position: tuple[int, int] = (0, 1),
        factors: np.ndarray | None = None,
    ) -> None:
        """`sizes` int (M, 2), the images' heights and widths; `factors` float64 (M,); `position` is
        the rank and the number of ranks; `epoch` may be a function that is asked when an epoch
        begins: a resume knows it only after the loaders are made."""
        self.sizes, self.input_size, self.seed, self.shuffle = sizes, input_size, seed, shuffle
        self.epoch, self.factors = epoch, factors
        self.rank, self.world = position
        self.joint = batch_size * self.world
        self.portrait = (sizes[:, 0] > sizes[:, 1]) & input_size.by_orientation

    @property
    def sampler(self) -> "Batches":
        """Itself: Lightning looks here for something with `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        if not callable(self.epoch):  # Lightning sets 0 before a resume knows better
            self.epoch = epoch

    def _left_over(self, count: int) -> bool:
        """Whether `count` images of one orientation end in a batch that is not full."""
        return count % self.joint > 0 and not (self.shuffle and count > self.joint)

    def __len__(self) -> int:
        counts = np.bincount(self.portrait, minlength=2).tolist()
        return sum(count // self.joint + self._left_over(count) for count in counts)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch = self.epoch() if callable(self.epoch) else self.epoch
        return self._keys(epoch)  # the epoch of now, not that of the first batch's reading

    def _keys(self, epoch: int) -> Iterator[list[Key]]:
        seen: Counter[int] = Counter()
        for number, indices in enumerate(self._joint_batches(epoch)):
            short = None
            if self.shuffle and len(self.input_size.shorts) > 1:
                # A fourth number, so that no augmentation (seed, epoch, index) draws the same.
                generator = np.random.default_rng((self.seed, epoch, number, 1))
                short = int(generator.choice(self.input_size.shorts))
            height, width = self.sizes[indices[0]].tolist()
            shape = self.input_size.shape_for(height, width, short)
            keys = [(index, epoch + COPY * _count(seen, index), shape) for index in indices]
            if len(keys) < self.world:
                keys = (keys * self.world)[: self.world]
            yield keys[self.rank :: self.world]

    def _repeat(self, order: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """As many images of each orientation, drawn by their factors: evenly spaced marks on a line
        on which every image has its factor as length."""
        assert self.factors is not None
        drawn = []
        for side in (False, True):
            group = order[self.portrait[order] == side]
            ends = self.factors[group].cumsum()
            marks = (random.random() + np.arange(len(group))) * (ends[-1:] / max(1, len(group)))
            drawn.append(group[np.searchsorted(ends[:-1], marks, side="right")])
        return random.permutation(np.concatenate(drawn))

    def _joint_batches(self, epoch: int) -> Iterator[list[int]]:
        order = np.arange(len(self.sizes))
        if self.shuffle:
            random = np.random.default_rng((self.seed, epoch))
            order = random.permutation(order)
            if self.factors is not None:
                order = self._repeat(order, random)
        waiting: tuple[list[int], list[int]] = ([], [])
        for index in order.tolist():
            group = waiting[int(self.portrait[index])]
            group.append(index)
            if len(group) == self.joint:
                yield list(group)
                group.clear()
        counts = np.bincount(self.portrait, minlength=2).tolist()
        for group, count in zip(waiting, counts, strict=True):
            if self._left_over(count):
                yield group


def _count(seen: Counter[int], index: int) -> int:
    """How often `index` was counted before."""
    seen[index] += 1
    return seen[index] - 1
