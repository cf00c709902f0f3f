"""A training step and its parts, peak memory and inference, beside torchvision's RetinaNet."""

import statistics
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from detector.config.resolve import resolve
from detector.module import Detector
from detector.nms import Suppression
from detector.optimization import make_optimizer
from detector.postprocess import suppress
from detector.run.assemble import assemble, compile_parts
from detector.training.callbacks import peak_memory
from scripts.benchmark.timing import (
    Times,
    call_in_process,
    choose_device,
    describe_machine,
    make_batch,
    print_table,
    print_times,
    take_turns,
)
from scripts.benchmark.torchvision_peer import Part, make_retinanet, step_parts

SIDES = ("torchvision", "ours")
PARTS = ("data", "network", "matching and losses", "backward", "optimizer")
GPU: dict[str, Any] = {"depth": 50, "size": 640, "batch": 32, "rounds": 20}
GPU |= {"precision": "bf16-mixed", "compile": "all"}
CPU: dict[str, Any] = {"depth": 18, "size": 320, "batch": 8, "rounds": 5}
CPU |= {"precision": "32-true", "compile": "losses"}
SGD = {"name": "sgd", "momentum": 0.9, "weight_decay": 1e-4}
PRODUCT = {"cuda": 8192, "cpu": 2048}  # rows of a large matrix
Parts = dict[str, Part]


class Setting(NamedTuple):
    """What both sides have in common, and how ours is compiled."""

    depth: int
    size: int
    batch: int
    classes: int
    objects: int
    rounds: int
    device: str
    precision: str
    compile: Literal["none", "losses", "all"]

    def make_batch(self) -> dict[str, Tensor]:
        """A batch as a loader hands it over, in pinned memory where there is a GPU."""
        batch = make_batch(self.batch, self.size, self.classes, self.objects)
        if self.device.startswith("cuda"):
            batch = {name: value.pin_memory() for name, value in batch.items()}
        return batch

    def autocast(self) -> torch.autocast:
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bf16-mixed")

    def make_detector(self) -> Detector:
        """Ours, not compiled."""
        config = resolve(
            overrides={
                "model.depth": self.depth,
                "model.norm": "batch",
                "data.size": [self.size, self.size],
                "data.classes": [str(k) for k in range(self.classes)],
                "postprocess.score_threshold": 0,
            }
        )
        torch.manual_seed(0)
        return assemble(config).to(self.device)

    def make_peer(self) -> Any:
        """torchvision's."""
        model = make_retinanet(self.depth, self.size, self.classes)
        return model.to(self.device)


def our_parts(detector: Detector, batch: dict[str, Tensor], device: str) -> tuple[Part, ...]:
    """As `torchvision_peer.step_parts`."""

    def load(_: Any) -> dict[str, Tensor]:
        return {name: value.to(device, non_blocking=True) for name, value in batch.items()}

    def predict(data: dict[str, Tensor]) -> Any:
        return detector.net(data["images"], data["sizes"]), data

    def compute_loss(predictions: Any) -> Tensor:
        losses, _ = detector.criterion(*predictions)
        return torch.stack(list(losses.values())).sum()

    return load, predict, compute_loss


def training_parts(side: str, setting: Setting) -> Parts:
    """All parts of a training step of one side."""
    batch = setting.make_batch()
    if side == "ours":
        model: Any = setting.make_detector().train()
        compile_parts(model, setting.compile)
        optimizer = make_optimizer(model, SGD, 1e-4, fused=True)
        forward = our_parts(model, batch, setting.device)
    else:
        model = setting.make_peer().train()
        optimizer = torch.optim.SGD(model.parameters(), 1e-4, 0.9, weight_decay=1e-4)
        forward = step_parts(model, batch, setting.device)

    def backward(total: Tensor) -> None:
        optimizer.zero_grad()
        total.backward()

    def update(_: Any) -> None:
        optimizer.step()

    cast = setting.autocast()
    return dict(zip(PARTS, (*map(cast, forward), backward, update), strict=True))


def run_step(parts: Parts) -> None:
    value = None
    for part in parts.values():
        value = part(value)


def time_training(setting: Setting) -> tuple[Times, Times]:
    """Seconds of whole steps, and of their parts, "side: part", which are timed in steps of their
    own: waiting for a GPU between parts slows it down."""
    sides = {side: training_parts(side, setting) for side in SIDES}
    wholes = {side: partial(run_step, parts) for side, parts in sides.items()}
    steps = take_turns(wholes, setting.rounds, setting.device)
    values: dict[str, Any] = {}

    def run_part(side: str, part: str) -> None:
        values[side] = sides[side][part](values.get(side))

    calls = {f"{side}: {part}": partial(run_part, side, part) for part in PARTS for side in SIDES}
    return steps, take_turns(calls, setting.rounds, setting.device)


def time_inference(setting: Setting) -> Times:
    """Seconds from images on the device to detections, with every side's suppression. The nets are
    untrained and no score is too low, so that all candidates are suppressed."""
    detector, peer = setting.make_detector().eval(), setting.make_peer().eval()
    batch = {name: value.to(setting.device) for name, value in setting.make_batch().items()}
    images = [image.float() / 255 for image in batch["images"]]
    sizes = batch["sizes"]

    @torch.inference_mode()
    def run_peer() -> None:
        with setting.autocast():
            peer(images)

    @torch.inference_mode()
    def run_ours(suppression: Suppression) -> None:
        with setting.autocast():
            candidates = detector.postprocess.choose(detector.net(batch["images"], sizes), sizes)
        suppress(candidates, suppression, sizes, batch["original_sizes"])

    hard = detector.postprocess.suppression
    calls: dict[str, Any] = {
        "torchvision": run_peer,
        "ours, diou": partial(run_ours, replace(hard, kind="diou")),
        "ours, hard": partial(run_ours, hard),
    }
    return take_turns(calls, setting.rounds, setting.device)


def measure_memory(side: str, setting: Setting) -> float:
    """GiB at most in three training steps: of tensors on the GPU, or of the process."""
    parts = training_parts(side, setting)
    for _ in range(3):
        run_step(parts)
    return peak_memory(torch.device(setting.device))


def measure_peak(setting: Setting) -> float:
    """Operations a second of a large matrix product."""
    rows = PRODUCT[torch.device(setting.device).type]
    kind = torch.bfloat16 if setting.precision == "bf16-mixed" else torch.float32
    a, b = (torch.randn(rows, rows, device=setting.device, dtype=kind) for _ in range(2))
    times = take_turns({"product": lambda: a @ b}, 10, setting.device)
    return 2 * rows**3 / min(times["product"])


def count_operations(setting: Setting) -> float:
    """Of a training step: 2 x the multiply-adds of the forward pass, x 3 with backward."""
    load, predict, _ = our_parts(setting.make_detector(), setting.make_batch(), setting.device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        predict(load(None))
    return 3.0 * counter.get_total_flops()


def print_training(steps: Times, parts: Times, setting: Setting) -> None:
    print_times("training step", steps, setting.batch)
    rows = []
    for part in PARTS:
        theirs, ours = (1000 * statistics.median(parts[f"{side}: {part}"]) for side in SIDES)
        rows.append([part, theirs, ours, ours / theirs])
    heads = ["", "torchvision, ms", "ours, ms", "of torchvision"]
    print_table("parts of it", heads, rows, ["", ".2f", ".2f", ".2f"])
    rate, peak = count_operations(setting) / statistics.median(steps["ours"]), measure_peak(setting)
    print(
        f"\nour step computes {rate / 1e12:.2f} TFLOP/s, {rate / peak:.0%} of the "
        f"{peak / 1e12:.2f} TFLOP/s of a large matrix product"
    )


def run(parts: list[str], device: str | None, **options: Any) -> dict[str, Any]:
    """Options that are None are chosen by the kind of device."""
    device = choose_device(device)
    defaults = GPU if device.startswith("cuda") else CPU
    given = {name: value for name, value in options.items() if value is not None}
    setting = Setting(**{**defaults, **given, "device": device})
    print(
        f"{describe_machine(device)}: R{setting.depth}-FPN, {setting.size} x {setting.size}, batch "
        f"{setting.batch}, {setting.classes} classes, {setting.objects} objects an image, "
        f"{setting.precision}; ours compiled: {setting.compile}"
    )
    measured: dict[str, Any] = {}
    if "training" in parts:
        measured["steps"], measured["parts"] = time_training(setting)
        print_training(measured["steps"], measured["parts"], setting)
    if "memory" in parts:
        memory = {side: call_in_process(measure_memory, side, setting) for side in SIDES}
        rows = [[side, peak, peak / memory["torchvision"]] for side, peak in memory.items()]
        heads = ["", "GiB", "of torchvision"]
        print_table("peak memory in training", heads, rows, ["", ".2f", ".2f"])
        measured["memory"] = memory
    if "inference" in parts:
        few = setting._replace(batch=min(8, setting.batch))
        measured["inference"] = time_inference(few)
        print_times(f"inference, {few.batch} images", measured["inference"], few.batch)
    return measured
