import dataclasses
import gc
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from data import DataError
from data.datamodule import DataModule
from data.dataset import collate
from data.layouts import DRAWN
from data.options import Options
from data.sampler import Batches, repeat_factors
from data.transforms import InputSize, load_image, place
from detector.config.options import OPTIONS
from detector.config.types import coerce

Batch = dict[str, torch.Tensor]
SHAPES = [(40, 60), (60, 40), (48, 48)]  # landscape, portrait, square
BIG = 900100581904  # float32 does not hold it


def write(root: Path, split: str, count: int, objects: int = 2) -> Path:
    """`count` images in turn of SHAPES, every third without objects; a red rectangle each."""
    rng = np.random.default_rng(count)
    images: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    (root / split).mkdir(parents=True)
    for index in range(count):
        height, width = SHAPES[index % 3]
        name = f"{index}.png"
        picture = rng.integers(0, 90, (height, width, 3), np.uint8)
        picture[10:30, 8:28] = (0, 0, 255)  # red, as OpenCV orders colors
        cv2.imwrite(str(root / split / name), picture)
        size = {"height": height, "width": width}
        images.append({"id": BIG + index, "file_name": name, **size})
        for number in range(objects if index % 3 else 0):
            row = {"id": len(rows) + 1, "image_id": BIG + index, "category_id": 5 + number % 2}
            rows.append({**row, "bbox": [8, 10, 20, 20], "iscrowd": int(number == 1)})
    categories = [{"id": 5, "name": "red"}, {"id": 6, "name": "crowd"}]
    what = {"images": images, "annotations": rows, "categories": categories}
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(what))
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write(folder, "train", 14)
    return write(folder, "val", 7)


def module(root: Path, **options: Any) -> DataModule:
    default = {"format": "coco", "root": root, "train": "train", "val": "val", "size": (64, 96)}
    return DataModule(**{**default, "batch_size": 4, "workers": 0, **options})


def batches(data: DataModule, epoch: int = 0) -> list[Batch]:
    loader = data.train_dataloader()
    loader.batch_sampler.set_epoch(epoch)
    return list(loader)


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)
        for a, b in zip(left, right, strict=True)
    )


def keys(sizes: np.ndarray, input_size: InputSize, **options: Any) -> list[list[Any]]:
    return list(Batches(sizes, input_size, **options))


def test_a_batch_has_the_shapes_and_types_agreed_upon(root: Path) -> None:
    batch = next(iter(module(root).val_dataloader()))
    types = {key: (tuple(value.shape), value.dtype) for key, value in batch.items()}
    assert types == {
        "images": ((4, 3, 64, 96), torch.uint8),
        "boxes": ((4, 16, 4), torch.float32),
        "labels": ((4, 16), torch.int64),
        "ignore": ((4, 16), torch.bool),
        "valid": ((4, 16), torch.bool),
        "sizes": ((4, 2), torch.int64),
        "original_sizes": ((4, 2), torch.int64),
        "image_ids": ((4,), torch.int64),
    }
    assert batch["image_ids"].tolist() == [BIG, BIG + 1, BIG + 2, BIG + 3]
    assert batch["valid"].sum(dim=1).tolist() == [0, 2, 2, 0]
    assert batch["ignore"].sum(dim=1).tolist() == [0, 1, 1, 0]
    assert batch["labels"][1, :3].tolist() == [0, 1, 0]  # the last is padding
    assert (batch["boxes"][~batch["valid"]] == 0).all()
    assert batch["original_sizes"].tolist() == [[40, 60], [60, 40], [48, 48], [40, 60]]
    # Within 64 x 96: min(64 / 40, 96 / 60) = 1.6; 64 / 60 * 40 = 42.7; 64 / 48 * 48 = 64
    assert batch["sizes"].tolist() == [[64, 96], [64, 43], [64, 64], [64, 96]]


def test_boxes_follow_the_resizing_axis_by_axis(root: Path) -> None:
    batch = next(iter(module(root).val_dataloader()))
    # Image 1 is 60 x 40 -> 64 x 43: x times 43 / 40, y times 64 / 60
    expected = [8 * 1.075, 10 * 64 / 60, 28 * 1.075, 30 * 64 / 60]
    assert batch["boxes"][1, 0].tolist() == pytest.approx(expected, rel=1e-6)
    back = batch["boxes"][1, 0].reshape(2, 2) * torch.tensor([40 / 43, 60 / 64])
    assert back.flatten().tolist() == pytest.approx([8, 10, 28, 30], rel=1e-6)


def test_images_decoded_smaller_are_placed_alike(tmp_path: Path) -> None:
    """A JPEG of 96 x 128 with a box of red, brought within 48 x 64: half of it is decoded."""
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        picture = np.zeros((96, 128, 3), np.uint8)
        picture[16:64, 32:96] = (0, 0, 255)
        cv2.imwrite(str(tmp_path / split / "a.jpg"), picture)
        row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [32, 16, 64, 48]}
        what = {
            "images": [{"id": 1, "file_name": "a.jpg", "height": 96, "width": 128}],
            "annotations": [row],
            "categories": [{"id": 1, "name": "red"}],
        }
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(what))
    small, full = (
        next(iter(module(tmp_path, size=(48, 64), reduce=reduce).val_dataloader()))
        for reduce in (True, False)
    )
    for name in ("boxes", "sizes", "original_sizes"):
        assert torch.equal(small[name], full[name])
    difference = (small["images"].int() - full["images"].int()).abs().float()
    assert difference.mean() < 3
    assert small["images"][0, 0, 10:30, 18:46].float().mean() > 245  # inside of the box
    assert small["images"].is_contiguous(memory_format=torch.channels_last)


def test_content_lies_at_the_top_left_and_zeros_elsewhere(root: Path) -> None:
    for batch in [*batches(module(root, zoom=0.3)), *module(root).val_dataloader()]:
        for image, (height, width) in zip(batch["images"], batch["sizes"].tolist(), strict=True):
            assert (image[:, height:] == 0).all()
            assert (image[:, :, width:] == 0).all()
            assert image[:, height - 1].any()
            assert image[:, :, width - 1].any()


def test_red_pixels_are_in_their_boxes_in_the_batch(root: Path) -> None:
    for batch in batches(module(root, vflip=0.5, zoom=0.4)):
        for row in range(len(batch["images"])):
            image = batch["images"][row].int()
            ys, xs = torch.nonzero((image[0] > 150) & (image[1] < 60), as_tuple=True)
            for box in batch["boxes"][row][batch["valid"][row]]:
                extent = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
                assert box.tolist() == pytest.approx([int(side) for side in extent], abs=1.6)


def test_a_bare_image_is_placed_as_in_validation(root: Path) -> None:
    data = module(root)
    batch = next(iter(data.val_dataloader()))
    image = load_image(root / "val" / "1.png")
    canvas, size = place(image, data.input_size.shape_for(*image.shape[:2]))
    assert torch.equal(canvas, batch["images"][1])
    assert list(size) == batch["sizes"][1].tolist()


def test_many_objects_are_padded_to_powers_of_two() -> None:
    def sample(count: int) -> dict[str, Any]:
        rows = {"boxes": np.ones((count, 4), np.float32), "labels": np.ones(count, np.int64)}
        rows |= {"ignore": np.zeros(count, bool), "identities": np.arange(count)}
        sizes = {"size": (8, 8), "original_size": (8, 8), "image_id": 1}
        return {"image": torch.zeros(3, 8, 8, dtype=torch.uint8), **rows, **sizes}

    for count, padded in ((0, 16), (16, 16), (17, 32), (65, 128)):
        batch = collate([sample(count), sample(0)])
        assert batch["boxes"].shape == (2, padded, 4)
        assert batch["valid"].sum(dim=1).tolist() == [count, 0]
        assert batch["identities"][0].tolist() == [*range(count), *[-1] * (padded - count)]


def test_runs_repeat_and_workers_change_nothing(root: Path) -> None:
    options = {"color": 0.5, "zoom": 0.3}
    alone = batches(module(root, **options), epoch=1)
    torch.manual_seed(5)
    np.random.seed(5)
    assert same(alone, batches(module(root, workers=2, **options), epoch=1))
    assert not same(alone, batches(module(root, **options), epoch=0))
    assert not same(alone, batches(module(root, seed=1, **options), epoch=1))


def test_persistent_workers_see_the_epoch(root: Path) -> None:
    loader = module(root, workers=1, color=1.0).train_dataloader()
    seen = []
    for epoch in (0, 1, 0):
        loader.batch_sampler.sampler.set_epoch(epoch)
        seen.append(list(loader))
    assert same(seen[0], seen[2])
    assert not same(seen[0], seen[1])


def test_an_image_is_augmented_anew_in_every_epoch(root: Path) -> None:
    data = module(root, color=1.0)
    dataset = data.train_dataloader().dataset
    images = [dataset[1, epoch, (64, 96)]["image"] for epoch in range(3)]
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[1], images[2])
    assert torch.equal(dataset[1, 0, (64, 96)]["image"], images[0])


def test_a_cache_changes_no_batch(root: Path) -> None:
    data = module(root, cache=True, zoom=0.3, workers=2)
    assert same(batches(module(root, zoom=0.3)), batches(data))
    assert same(list(module(root).val_dataloader()), list(data.val_dataloader()))


def test_validation_shows_every_image_once_in_order(root: Path) -> None:
    ids = [batch["image_ids"].tolist() for batch in module(root).val_dataloader()]
    assert ids == [[BIG, BIG + 1, BIG + 2, BIG + 3], [BIG + 4, BIG + 5, BIG + 6]]


def test_training_drops_what_does_not_fill_a_batch_another_part_each_epoch() -> None:
    sizes = np.full((10, 2), 8)
    batch_sampler = Batches(sizes, InputSize(), 4, shuffle=True)
    assert len(batch_sampler) == 2
    dropped = set()
    for epoch in range(6):
        batch_sampler.set_epoch(epoch)
        seen = [key[0] for keys_ in batch_sampler for key in keys_]
        assert len(seen) == len(set(seen)) == 8
        dropped |= set(range(10)) - set(seen)
    assert len(dropped) > 4


def test_a_function_says_the_epoch_when_it_begins_and_nothing_else_does() -> None:
    epoch = 4
    asked = Batches(np.full((10, 2), 8), InputSize(), 5, shuffle=True, epoch=lambda: epoch)
    asked.set_epoch(0)  # as Lightning does before a resume knows better
    for epoch in (4, 5):
        told = Batches(np.full((10, 2), 8), InputSize(), 5, shuffle=True, epoch=epoch)
        assert list(asked) == list(told)


def test_fewer_images_than_a_batch_still_make_one() -> None:
    assert [len(batch) for batch in Batches(np.full((3, 2), 8), InputSize(), 16, shuffle=True)] == [
        3
    ]


def test_a_batch_has_one_shape_and_keeps_to_one_orientation() -> None:
    sizes = np.array([SHAPES[index % 3] for index in range(30)])  # 20 landscape, 10 portrait
    input_size = InputSize(None, short=[64, 96], long=120)
    batch_sampler = Batches(sizes, input_size, 6, shuffle=True)
    assert len(batch_sampler) == 3 + 1  # of 20 and of 10 images
    shorts, shapes = set(), set()
    for epoch in range(3):
        batch_sampler.set_epoch(epoch)
        lists = list(batch_sampler)
        assert len(lists) == len(batch_sampler)
        for batch in lists:
            assert len({shape for _, _, shape in batch}) == 1
            height, width = batch[0][2]
            shorts.add(min(height, width))
            for index, of_epoch, _ in batch:
                assert (sizes[index, 0] > sizes[index, 1]) == (height > width)
                assert of_epoch == epoch
            shapes.add((height, width))
    assert shorts == {64, 96}
    assert shapes <= {(64, 120), (120, 64), (96, 120), (120, 96)}  # each is compiled once


def test_validation_in_two_orientations_shows_every_image_once_at_the_largest_size(
    root: Path,
) -> None:
    data = module(root, short=[32, 64], long=90, size=None, batch_size=2)
    shown = list(data.val_dataloader())
    assert len(shown) == len(data.val_dataloader())
    ids = torch.cat([batch["image_ids"] for batch in shown])
    assert sorted(ids.tolist()) == [BIG + index for index in range(7)]
    assert {tuple(batch["images"].shape[2:]) for batch in shown} == {(64, 96), (96, 64)}


def test_multi_scale_batches_repeat(root: Path) -> None:
    options = {"short": [32, 48, 64], "long": 96, "size": None, "batch_size": 2}
    first, second = (batches(module(root, **options), epoch=3) for _ in range(2))
    assert same(first, second)
    assert len({tuple(batch["images"].shape) for batch in first}) > 1


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("count", [1, 2, 7, 23, 24])
@pytest.mark.parametrize("short", [None, [32, 64]])
def test_ranks_together_see_the_batches_of_one_process(
    count: int, shuffle: bool, short: list[int] | None
) -> None:
    sizes = np.array([SHAPES[index % 2] for index in range(count)])
    input_size = InputSize(short=short, long=100)
    options: dict[str, Any] = {"seed": 3, "shuffle": shuffle, "epoch": 2}
    joint = keys(sizes, input_size, batch_size=6, **options)
    ranks = [
        keys(sizes, input_size, batch_size=2, position=(rank, 3), **options) for rank in range(3)
    ]
    assert [len(rank) for rank in ranks] == [len(joint)] * 3  # or one would wait for ever
    for number, batch in enumerate(joint):
        parts = [rank[number] for rank in ranks]
        assert all(parts)
        assert {key for part in parts for key in part} == set(batch)
        if len(batch) >= 3:
            assert sum(map(len, parts)) == len(batch)


class Recorder(pl.LightningModule):
    """Notes which images, and which pixels, every training step got."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[tuple[int, list[int], int]] = []

    def training_step(self, batch: Batch) -> torch.Tensor:
        total = int(batch["images"].long().sum())
        self.seen.append((self.current_epoch, batch["image_ids"].tolist(), total))
        return self.layer(torch.ones(1, 1)).mean()

    def validation_step(self, batch: Batch) -> None:
        assert batch["images"].dtype == torch.uint8

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(data: DataModule, epochs: int, checkpoint: Path | None = None, **options: Any) -> Recorder:
    recorder = Recorder()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        **quiet,
        **options,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*(does not have many workers|LeafSpec|log_every).*")
        trainer.fit(recorder, data, ckpt_path=checkpoint)
    if checkpoint is None:
        trainer.save_checkpoint(Path(data.options.root) / f"{epochs}.ckpt")
    return recorder


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(root: Path, workers: int) -> None:
    options: dict[str, Any] = {"workers": workers, "color": 1.0}
    uninterrupted = fit(module(root, **options), 3).seen
    fit(module(root, **options), 1)
    resumed = fit(module(root, **options), 3, root / "1.ckpt").seen
    assert resumed == uninterrupted[3:]
    assert [epoch for epoch, _, _ in uninterrupted] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert uninterrupted[0][1] != uninterrupted[3][1]


def test_overfitting_batches_keeps_to_the_same_images(root: Path) -> None:
    seen = fit(module(root), 2, overfit_batches=1).seen
    assert seen[0][1] == seen[1][1]


def test_nothing_is_read_twice(root: Path) -> None:
    data = module(root)
    data.setup("fit")
    split = data.splits["train"]
    data.setup("fit")
    data.setup("validate")
    assert data.splits["train"] is split


def test_the_report_counts_what_was_read(root: Path) -> None:
    data = module(root)
    data.setup("fit")
    # 14 images: 0, 3, 6, 9 and 12 are empty; the others have an object and a crowd each
    places = "annotations/instances_{}.json, images in {}"
    assert data.report()[:3] == [
        f"data: COCO in {root}; train: {places.format('train', 'train')}; "
        f"val: {places.format('val', 'val')}",
        "train: 14 images (5 without boxes), 9 objects, 9 crowd or difficult",
        "train: red 9, crowd 0",
    ]
    assert data.report()[3] == "val: 7 images (3 without boxes), 4 objects, 4 crowd or difficult"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch gives a worker 5 s to end after an error."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    yield
    gc.collect()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_worker_arrives_as_one_with_the_message_last(
    tmp_path: Path, workers: int
) -> None:
    root = write(write(tmp_path, "train", 4), "val", 4)
    (root / "val" / "2.png").write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        list(module(root, workers=workers).val_dataloader())
    last = str(caught.value).strip().splitlines()[-1]
    assert "cannot decode the image" in last
    assert str(root / "val" / "2.png") in last


@pytest.mark.parametrize("cache", [False, True])
def test_an_image_of_another_size_than_annotated_is_an_error(tmp_path: Path, cache: bool) -> None:
    root = write(write(tmp_path, "train", 4), "val", 4)
    cv2.imwrite(str(root / "val" / "1.png"), np.zeros((40, 60, 3), np.uint8))
    with pytest.raises(DataError, match=r"1\.png is 60x40 pixels, but its annotations say 40x60"):
        list(module(root, cache=cache).val_dataloader())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"format": "csv"}, "one of auto, coco, voc, yolo, shapes, identities, not 'csv'"),
        ({"single_class": True, "classes": ["a", "b"]}, "data.single_class"),
        ({"batch_size": 0}, "data.batch_size"),
        ({"workers": -1}, "data.workers"),
        ({"seed": -1}, "seed"),
        ({"cache": True, "short": 64}, "data.cache"),
        ({"classes": ["a", "a"]}, "data.classes"),
        ({"size": [64]}, "data.size"),
        ({"hflip": 2}, "data.hflip"),
    ],
)
def test_options_that_make_no_sense_are_one_clear_line(
    root: Path, options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(DataError) as caught:
        module(root, **options)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_defaults_are_those_of_the_configuration() -> None:
    fields = {f"data.{field.name}": field.default for field in dataclasses.fields(Options)}
    table = {key: option for key, option in OPTIONS.items() if key.startswith("data.")}
    assert fields.keys() == table.keys()
    for key, default in fields.items():
        if default is not dataclasses.MISSING:
            assert coerce(default, table[key].kind) == table[key].default, key


def test_shapes_are_drawn_where_they_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Path] = []

    def draw(root: Path) -> None:
        drawn.append(root)
        write(write(root, "train", 4), "val", 4)

    monkeypatch.setitem(DRAWN, "shapes", draw)
    folder = tmp_path / "shapes"
    for _ in range(2):
        module(folder, format="shapes").setup("fit")
    assert drawn == [folder]


def test_a_share_of_train_is_set_apart_and_validated_on(root: Path) -> None:
    every, data = module(root), module(root, holdout=0.3)
    for each in (every, data):
        each.setup("fit")
    apart = data.splits["val"].image_ids.tolist()
    assert len(apart) == round(0.3 * 14)
    ids = every.splits["train"].image_ids.tolist()
    assert sorted(apart + data.splits["train"].image_ids.tolist()) == ids
    assert apart != ids[: len(apart)]  # not the first ones
    assert {row["image_id"] for row in data.ground_truth()["annotations"]} <= set(apart)
    alone = module(root, holdout=0.3, seed=5)
    alone.setup("validate")
    assert alone.splits["val"].image_ids.tolist() == apart  # whatever the seed


def test_label_noise_is_in_training_only(root: Path) -> None:
    clean, noisy = module(root), module(root, label_noise=0.5, noise_kind="missing")
    for data in (clean, noisy):
        data.setup("fit")
    (before, kept) = ((~data.splits["train"].ignore).sum() for data in (clean, noisy))
    assert 0 < kept < before
    assert len(clean.splits["val"].boxes) == len(noisy.splits["val"].boxes)
    assert any(f"label noise 0.5: {before - kept} missing" in line for line in noisy.report())


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_label_noise_that_leaves_no_object_is_refused(root: Path, power: float) -> None:
    data = module(root, label_noise=1.0, noise_kind="missing", class_weights=power)
    with pytest.raises(DataError, match=r"none is left to train on; lower data\.label_noise"):
        data.setup("fit")


def test_a_class_that_label_noise_leaves_without_objects_is_named(root: Path) -> None:
    clean, noisy = module(root), module(root, label_noise=1.0, noise_kind="class")
    for data in (clean, noisy):
        data.setup("fit")
    (line,) = set(noisy.warnings()) - set(clean.warnings())
    assert "of 18 objects: no object of red is left, so their outputs learn nothing" in line


def test_class_weights_are_inverse_frequencies_to_a_power(root: Path) -> None:
    plain, half, full = (module(root, class_weights=power) for power in (0.0, 0.5, 1.0))
    for data in (plain, half, full):
        data.setup("fit")
    assert plain.class_weights() is None
    train = half.splits["train"]
    objects = train.labels[~train.ignore].tolist()
    counts = [objects.count(k) for k in range(len(half.classes))]
    assert 0 in counts
    for data, power in ((half, 0.5), (full, 1.0)):
        weights = data.class_weights()
        assert weights is not None
        present = [k for k, count in enumerate(counts) if count]
        ratios = [(counts[0] / counts[k]) ** power for k in present]
        assert [weights[k] / weights[0] for k in present] == pytest.approx(ratios)
        assert {weights[k] for k, count in enumerate(counts) if not count} == {1.0}
        mean = sum(w * n for w, n in zip(weights, counts, strict=True)) / sum(counts)
        assert mean == pytest.approx(1)


def rare_split(root: Path) -> tuple[DataModule, np.ndarray]:
    """Of 14 images 9 have objects (red, and crowd); one of them is made the only one with green."""
    data = module(root, oversample=0.5, size=(64, 96), hflip=0.5, color=0.5)
    data.setup("fit")
    return data, data.splits["train"].labels


def test_repeat_factors_are_those_of_lvis(root: Path) -> None:
    data, labels = rare_split(root)
    split = data.splits["train"]
    first = split.rows(1)  # of red and a crowd object
    labels = labels.copy()
    labels[first.start] = 2
    factors = repeat_factors(dataclasses.replace(split, labels=labels), 3, 0.5)
    # by hand: red is in 8 of 14 images, more than half of them; green in 1: sqrt(0.5 / (1 / 14))
    expected = [1.0] * 14
    expected[1] = 7**0.5
    assert factors.tolist() == pytest.approx(expected)
    assert repeat_factors(split, 2, 1.0)[2] == pytest.approx((14 / 9) ** 0.5)  # red, in 9
    assert repeat_factors(split, 2, 1.0)[0] == 1  # no object
    crowd = dataclasses.replace(split, ignore=np.ones_like(split.ignore))
    assert repeat_factors(crowd, 2, 1.0).tolist() == [1] * 14  # crowd does not count


def test_rare_images_come_more_often_in_epochs_of_the_same_length() -> None:
    sizes = np.array([SHAPES[index % 3] for index in range(60)])  # 40 landscape, 20 portrait
    input_size = InputSize(None, short=[64], long=120)
    factors = np.ones(60)
    factors[:6] = 3.0  # 4 of 40 and 2 of 20
    plain = Batches(sizes, input_size, 5, shuffle=True)
    batch_sampler = Batches(sizes, input_size, 5, shuffle=True, factors=factors)
    times, epochs = np.zeros(60), 200
    for epoch in range(epochs):
        batch_sampler.set_epoch(epoch)
        lists = list(batch_sampler)
        assert len(lists) == len(batch_sampler) == len(plain) == 12
        keys = [key for batch in lists for key in batch]
        assert len(set(keys)) == len(keys)  # a copy is augmented by another number
        counts = np.bincount([key[0] for key in keys], minlength=60)
        assert set(counts[:6]) <= {2, 3}  # 3 * 40 / 48 = 2.5
        assert set(counts[6:]) <= {0, 1}
        times += counts
    assert times[:6] / epochs == pytest.approx(2.5, abs=0.25)
    assert times[6:] / epochs == pytest.approx(2.5 / 3, abs=0.12)
    assert list(batch_sampler) == list(batch_sampler)
    parts = [
        Batches(sizes, input_size, 5, shuffle=True, factors=factors, epoch=7, position=(rank, 2))
        for rank in (0, 1)
    ]
    joint = Batches(sizes, input_size, 10, shuffle=True, factors=factors, epoch=7)
    for a, b, both in zip(*parts, joint, strict=True):
        assert sorted(a + b) == sorted(both)


def test_copies_of_an_image_in_an_epoch_are_augmented_differently(root: Path) -> None:
    data, _ = rare_split(root)
    loader = data.train_dataloader()
    assert isinstance(loader.batch_sampler, Batches)
    assert loader.batch_sampler.factors is not None
    assert loader.batch_sampler.factors.tolist() == data.repeat_factors().tolist()  # type: ignore[union-attr]
    loader.batch_sampler.factors = np.eye(14)[1] * 50 + 1  # of landscape ones the second
    shown: dict[int, list[torch.Tensor]] = {}
    for batch in loader:
        for image_id, image in zip(batch["image_ids"].tolist(), batch["images"], strict=True):
            shown.setdefault(image_id, []).append(image)
    copies = shown[BIG + 1]
    assert len(copies) > 5
    assert len({image.numpy().tobytes() for image in copies}) == len(copies)


def test_oversampling_is_told_and_belongs_to_training(root: Path) -> None:
    data = module(root, oversample=1.0)
    data.setup("fit")
    assert "train: 9 images have a class" in "\n".join(data.report())
    alone = module(root, oversample=1.0)
    alone.setup("validate")
    assert "come up to" not in "\n".join(alone.report())
    ids = [i for batch in alone.val_dataloader() for i in batch["image_ids"].tolist()]
    assert ids == [BIG + i for i in range(7)]
    with pytest.raises(DataError, match="leave out one of them"):
        module(root, oversample=0.5, identities=[2, 2])


def test_an_image_is_read_by_its_id(root: Path) -> None:
    data = module(root)
    data.setup("validate")
    image_id = int(data.splits["val"].image_ids[2])
    image = data.read_image(image_id)
    assert image.shape[:2] == tuple(data.splits["val"].sizes[2])
    assert image[20, 20].tolist() == [255, 0, 0]  # the red rectangle, RGB
