"""The Detector on batches made by hand: no files, no loaders."""

import math
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset

from detector.anchors import AnchorGenerator
from detector.backbone import Backbone
from detector.criterion import Criterion
from detector.module import Detector
from detector.nms import Suppression
from detector.postprocess import Postprocess
from detector.retinanet import RetinaNet
from detector.run.assemble import compile_parts
from detector.training.averaging import RampedEMA
from detector.training.callbacks import MAX_CONSECUTIVE, NonFiniteLoss, StepFigures
from losses import FocalLoss, SmoothL1Loss
from losses.overlaps import iou

K, SIDE = 2, 64
SGD = {"name": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4, "reference_batch": 0}
STEPS = {"name": "multistep", "warmup": 0, "milestones": [], "gamma": 0.1}


class Poisoned(FocalLoss):
    """Multiplied by `factor`, which a test sets to NaN."""

    factor = 1.0

    def forward(self, logits: Tensor, labels: Tensor, num_foreground: Tensor) -> Tensor:
        return super().forward(logits, labels, num_foreground) * self.factor


def detector(loss: FocalLoss | None = None, norm: str = "group", **optimizer: Any) -> Detector:
    torch.manual_seed(0)
    loss = loss or FocalLoss()
    net = RetinaNet(
        Backbone(10, width=8, norm=norm, channels=16),  # type: ignore[arg-type]
        AnchorGenerator((8, 16, 32, 64, 128), scales=1),
        loss.initial_bias(K, 0.01),
        convs=1,
    )
    criterion = Criterion(loss, SmoothL1Loss(), K)
    postprocess = Postprocess(loss.scores, Suppression(), score_threshold=0.05, top_k=1000)
    return Detector(net, criterion, postprocess, SGD | optimizer, STEPS, 2)


class Drawn(Dataset[dict[str, Tensor]]):
    """Squares on noise, a function of the index."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 60, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
        x, y, side = (int(torch.randint(4, 28, (), generator=generator)) for _ in range(3))
        image[index % 2, y : y + side, x : x + side] = 255
        row = torch.tensor([[x, y, x + side, y + side]], dtype=torch.float32)
        size = torch.tensor([SIDE, SIDE])
        return {
            "images": image,
            "boxes": torch.cat([row, torch.zeros(3, 4)]),
            "labels": torch.tensor([index % 2, 0, 0, 0]),
            "ignore": torch.zeros(4, dtype=torch.bool),
            "valid": torch.tensor([True, False, False, False]),
            "sizes": size,
            "original_sizes": size,
            "image_ids": torch.tensor(index + 1),
        }


class Data(pl.LightningDataModule):
    def __init__(self, count: int = 8) -> None:
        super().__init__()
        self.images = Drawn(count)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.images, batch_size=2)

    val_dataloader = train_dataloader


def trainer(tmp_path: Any, **options: Any) -> pl.Trainer:
    defaults = {"max_epochs": 1, "logger": False, "enable_checkpointing": False}
    defaults |= {"enable_progress_bar": False, "enable_model_summary": False}
    defaults |= {"accelerator": "cpu", "num_sanity_val_steps": 0, "log_every_n_steps": 1}
    return pl.Trainer(**defaults | options, default_root_dir=tmp_path)


class NoWaiting(TorchDispatchMode):
    """Refuses every operation that makes the host wait for the device."""

    waits = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique")
    waits += ("lift_fresh",)  # a tensor of numbers that the host has: a copy that waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert not name.startswith(self.waits), f"{name} waits for the device"
        if name in ("index", "index_put_"):
            masks = [i for i in args[1] if i is not None and i.dtype == torch.bool]
            assert not masks, "indexing by a mask waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_step_never_waits_for_the_device(norm: str, tmp_path: Any) -> None:
    model, data = detector(norm=norm), Data(2)
    batch = next(iter(data.train_dataloader()))
    loop = trainer(tmp_path, max_epochs=1, limit_val_batches=0)
    loop.fit(model, datamodule=data)  # attaches the trainer and its optimizer
    optimizer: Any = loop.optimizers[0]
    with NoWaiting():
        model.training_step(batch, 0).backward()
        model.on_after_backward()
        model.configure_gradient_clipping(optimizer, 10.0)
        optimizer.step()
    with pytest.raises(AssertionError, match="waits for the device"), NoWaiting():
        torch.ones(()).item()


def test_a_non_finite_loss_skips_its_update_and_only_its_update(tmp_path: Any, capsys: Any) -> None:
    class FirstBad(FocalLoss):
        """NaN at the first step."""

        steps = 0

        def forward(self, logits: Tensor, labels: Tensor, num_foreground: Tensor) -> Tensor:
            FirstBad.steps += 1
            factor = math.nan if FirstBad.steps == 1 else 1.0
            return super().forward(logits, labels, num_foreground) * factor

    model, data = detector(FirstBad()), Data(4)
    callbacks = [StepFigures()]
    trainer(tmp_path, limit_val_batches=0, callbacks=callbacks).fit(model, datamodule=data)
    printed = capsys.readouterr().out
    line = "skipped 1 updates, the last with a non-finite loss at images 1, 2"
    assert printed.count(line) == 1
    # the same as a run over the second batch alone
    expected, data.images = detector(), torch.utils.data.Subset(data.images, [2, 3])  # type: ignore[assignment]
    trainer(tmp_path, limit_val_batches=0).fit(expected, datamodule=data)
    start = detector().state_dict()
    for name, value in expected.net.state_dict().items():
        assert torch.equal(model.net.state_dict()[name], value), name
    moved = [name for name, p in expected.named_parameters() if not torch.equal(p, start[name])]
    assert len(moved) > 50


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_non_finite_activation_leaves_no_trace_in_batch_norm(
    accumulate: int, tmp_path: Any, capsys: Any
) -> None:
    """The first of three batches overflows in the stem, as float16 does beyond 65504."""

    def overflow(stem: Any, _: Any, output: Tensor) -> Tensor:
        handle.remove()
        return output + math.inf

    model, data = detector(norm="batch"), Data(6)
    handle = model.net.backbone.body.conv1.register_forward_hook(overflow)
    options: dict[str, Any] = {"limit_val_batches": 0, "accumulate_grad_batches": accumulate}
    trainer(tmp_path, callbacks=[StepFigures()], **options).fit(model, datamodule=data)
    assert capsys.readouterr().out.count("non-finite loss at images 1, 2\n") == 1
    # accumulated: the first two batches are one update, which is skipped, but the second is fine
    expected = detector(norm="batch")
    data.images = torch.utils.data.Subset(data.images, [2, 3, 4, 5])  # type: ignore[assignment]
    if accumulate == 1:
        trainer(tmp_path, limit_val_batches=0).fit(expected, datamodule=data)
    for name, value in model.net.state_dict().items():
        assert value.isfinite().all(), name
        if accumulate == 1 and not name.endswith("num_batches_tracked"):
            assert torch.equal(value, expected.net.state_dict()[name]), name


def test_an_infinite_loss_with_finite_gradients_is_skipped_too(tmp_path: Any) -> None:
    class Infinite(FocalLoss):
        def forward(self, logits: Tensor, labels: Tensor, num_foreground: Tensor) -> Tensor:
            return super().forward(logits, labels, num_foreground) + math.inf

    model = detector(Infinite())
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer(tmp_path, limit_val_batches=0).fit(model, datamodule=Data(2))
    assert all(torch.equal(p, start[name]) for name, p in model.named_parameters())


def test_many_in_a_row_stop_the_run(tmp_path: Any) -> None:
    Poisoned.factor = math.nan
    try:
        options = {"limit_val_batches": 0, "callbacks": [StepFigures()]}
        loop = trainer(tmp_path, max_epochs=10, **options)
        with pytest.raises(NonFiniteLoss, match=r"lower optimizer\.lr") as caught:
            loop.fit(detector(Poisoned()), datamodule=Data())
    finally:
        Poisoned.factor = 1.0
    assert loop.global_step == MAX_CONSECUTIVE
    assert "\n" not in str(caught.value)


def test_learning_rate_follows_the_effective_batch(tmp_path: Any) -> None:
    model = detector(lr=0.02, reference_batch=16)
    loop = trainer(tmp_path, accumulate_grad_batches=2, limit_val_batches=0)
    loop.fit(model, datamodule=Data())
    # 2 images x 2 micro-batches = 4 of 16: a quarter of 0.02
    assert model.learning_rate.images == 4
    assert loop.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.005)


def test_ema_ramps_and_is_what_is_validated_and_saved(tmp_path: Any) -> None:
    model, data = detector(norm="batch"), Data()
    saver = ModelCheckpoint(dirpath=tmp_path, filename="x")
    options = {"callbacks": [RampedEMA(0.999), saver], "enable_checkpointing": True}
    trainer(tmp_path, max_epochs=2, **options).fit(model, datamodule=data)
    saved = torch.load(tmp_path / "x.ckpt", weights_only=True)
    average, raw = saved["state_dict"], saved["current_model_state"]
    key = "net.class_head.output.weight"
    start = detector(norm="batch").state_dict()[key]
    assert not torch.equal(average[key], raw[key])
    # after 8 updates the decay is at most 9 / 18: the average is nearer to the end than the start
    assert (average[key] - raw[key]).norm() < (average[key] - start).norm()
    counts = [v for k, v in average.items() if k.endswith("num_batches_tracked")]
    assert counts
    assert all(count == 8 for count in counts)


def test_validation_reports_losses_and_returns_what_was_detected(tmp_path: Any) -> None:
    class Reader(pl.Callback):
        def on_validation_batch_end(self, *arguments: Any) -> None:
            outputs, batch = arguments[2:4]
            assert outputs["candidates"].scores.shape[0] == len(batch["images"]) == 2
            assert outputs["detections"].boxes.shape == (2, 100, 4)
            self.seen = True

    loop = trainer(tmp_path, callbacks=[reader := Reader()])
    loop.fit(detector(), datamodule=Data())
    assert reader.seen
    assert set(loop.callback_metrics) == {"val/class", "val/box"}


@pytest.mark.slow
@pytest.mark.parametrize("parts", ["losses", "all"])
def test_a_compiled_step_equals_an_eager_one(parts: Any) -> None:
    """Same loss, gradients and names of weights; every group of objects compiles once."""
    torch._dynamo.reset()
    eager, compiled = detector(), detector()
    compiled.load_state_dict(eager.state_dict())
    compile_parts(compiled, parts)
    assert list(compiled.state_dict()) == list(eager.state_dict())
    batch = next(iter(Data().train_dataloader()))
    for model in (eager, compiled):
        losses, _ = model.criterion(model.net(batch["images"], batch["sizes"]), batch)
        torch.stack(list(losses.values())).sum().backward()
    for (name, one), other in zip(eager.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, atol=1e-5, rtol=1e-3, msg=name)
    counters = torch._dynamo.utils.counters
    counters.clear()
    padding = {name: batch[name] for name in ("boxes", "labels", "ignore", "valid")}
    for times in (2, 4, 8, 16):
        larger = {name: torch.cat([value] * times, 1) for name, value in padding.items()}
        larger["valid"][:, padding["valid"].shape[1] :] = False
        with torch.no_grad():
            predictions = eager.net(batch["images"], batch["sizes"])
            one, _ = eager.criterion(predictions, {**batch, **larger})
            other, _ = compiled.criterion(predictions, {**batch, **larger})
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    assert counters["stats"]["unique_graphs"] <= 4


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_net_and_criterion_compile_into_one_graph(backend: str) -> None:
    """The backend "eager" finds the graph and runs it without writing kernels."""
    torch._dynamo.reset()
    model, batch = detector(), next(iter(Data().train_dataloader()))

    def step(batch: dict[str, Tensor]) -> Tensor:
        losses, _ = model.criterion(model.net(batch["images"], batch["sizes"]), batch)
        return torch.stack(list(losses.values())).sum()

    expected = step(batch)
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    value = torch.compile(step, fullgraph=True, backend=backend)(batch)
    value.backward()
    torch.testing.assert_close(value, expected)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], atol=1e-5, rtol=1e-3)


def test_it_memorizes_two_images() -> None:
    """tests/test_train.py has eight images, and the real program."""
    model = detector().train()
    batch = next(iter(Data().train_dataloader()))
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    totals = []
    for _ in range(60):
        optimizer.zero_grad()
        losses, _ = model.criterion(model.net(batch["images"], batch["sizes"]), batch)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < totals[0] / 20
    boxes, scores, labels, _ = model.eval()(batch)
    assert labels[:, 0].tolist() == batch["labels"][:, 0].tolist()
    assert (iou(boxes[:, 0], batch["boxes"][:, 0]) > 0.7).all()
    assert (scores[:, 0] > 0.5).all()
