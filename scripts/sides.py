"""The two sides of the benchmark: a training step of ours, and of torchvision's RetinaNet."""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.models import resnet
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detector.config.resolve import resolve
from detector.optimization import make_optimizer
from detector.runs.assemble import assemble
from scripts.time_losses import make_scene

Side = dict[str, Callable[[Any], Any]]  # part of a step -> what does it, given the part before
SIDES = ("torchvision", "ours")
PARTS = ("data", "network", "matching and losses", "backward", "optimizer")


class Work:
    """A batch as loaders hand it over, and what both sides make of it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.device = options, options.device
        side = options.size
        _, batch = make_scene(options.batch, side, options.classes, options.objects, "cpu")
        self.batch: dict[str, Tensor] = batch | {
            "images": torch.randint(
                0, 256, (options.batch, side, side, 3), dtype=torch.uint8
            ).movedim(-1, 1),
            "sizes": torch.tensor([[side, side]] * options.batch),
        }
        if options.device == "cuda":
            self.batch = {name: value.pin_memory() for name, value in self.batch.items()}
        self.batch["original_sizes"] = self.batch["sizes"]

    def autocast(self) -> Any:
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.options.precision == "bf16")

    def ours(self, compile_parts: str) -> Any:
        overrides = {"model.depth": self.options.depth, "model.norm": "batch"}
        overrides |= {"data.size": [self.options.size] * 2}
        overrides |= {"postprocess.score_threshold": 0, "postprocess.nms": "diou"}
        config = resolve([], overrides)
        config["data"]["classes"] = [str(k) for k in range(self.options.classes)]
        torch.manual_seed(0)
        detector = assemble(config).to(self.device)
        detector.compile_parts(compile_parts)  # type: ignore[arg-type]
        return detector

    def theirs(self) -> Any:
        body = getattr(resnet, f"resnet{self.options.depth}")(weights=None)
        pyramid = _resnet_fpn_extractor(
            body, 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)
        )
        side = self.options.size
        model = TorchvisionRetinaNet(
            pyramid, self.options.classes, min_size=side, max_size=side, score_thresh=0.0
        )
        return model.to(self.device, memory_format=torch.channels_last)

    def training(self, name: str) -> Side:
        """The parts of a step; each is given what the one before it returned."""
        model = self.ours(self.options.compile) if name == "ours" else self.theirs()
        model.train()
        optimizer_options = {"name": "sgd", "momentum": 0.9, "weight_decay": 1e-4}
        if name == "ours":
            optimizer = make_optimizer(model, optimizer_options, 1e-4, fused=True)
            parts = self.our_parts(model)
        else:
            optimizer = torch.optim.SGD(model.parameters(), 1e-4, 0.9, weight_decay=1e-4)
            parts = self.their_parts(model)

        def backward(total: Tensor) -> None:
            optimizer.zero_grad()
            total.backward()

        return {**parts, "backward": backward, "optimizer": lambda _: optimizer.step()}

    def our_parts(self, detector: Any) -> Side:
        def data(_: Any) -> dict[str, Tensor]:
            return {k: v.to(self.device, non_blocking=True) for k, v in self.batch.items()}

        def network(batch: dict[str, Tensor]) -> Any:
            with self.autocast():
                return detector.net(batch["images"], batch["sizes"]), batch

        def judge(given: Any) -> Tensor:
            with self.autocast():
                losses, _ = detector.criterion(*given)
            return losses["class"] + losses["box"]

        return dict(zip(PARTS, (data, network, judge), strict=False))

    def their_parts(self, model: Any) -> Side:
        rows = zip(self.batch["boxes"], self.batch["labels"], self.batch["valid"], strict=True)
        targets = [{"boxes": b[v], "labels": k[v]} for b, k, v in rows]

        def data(_: Any) -> Any:
            images = [x.to(self.device).float() / 255 for x in self.batch["images"]]
            return images, [{k: v.to(self.device) for k, v in one.items()} for one in targets]

        def network(given: Any) -> Any:  # the beginning of RetinaNet.forward
            with self.autocast():
                images, found = model.transform(*given)
                features = list(model.backbone(images.tensors).values())
                return found, model.head(features), model.anchor_generator(images, features)

        def judge(given: Any) -> Tensor:
            with self.autocast():
                losses = model.compute_loss(*given)
            return sum(losses.values())  # type: ignore[no-any-return]

        return dict(zip(PARTS, (data, network, judge), strict=False))

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def whole(self, side: Side) -> Callable[[], None]:
        def step() -> None:
            given = None
            for part in side.values():
                given = part(given)
            self.wait()

        return step
