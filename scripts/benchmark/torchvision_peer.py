"""torchvision's RetinaNet with the same backbone, pyramid and heads as ours."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.models import resnet
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

Part = Callable[[Any], Any]  # of a training step; it is given what the part before it returned


def make_retinanet(depth: int, size: int, classes: int) -> RetinaNet:
    """For square images of that size, which are not resized; without pretrained weights."""
    body = getattr(resnet, f"resnet{depth}")(weights=None)
    pyramid = _resnet_fpn_extractor(
        body, 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)
    )
    model = RetinaNet(pyramid, classes, min_size=size, max_size=size, score_thresh=0.0)
    return model.to(memory_format=torch.channels_last)


def make_targets(batch: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The objects of a batch as torchvision takes them, without padding."""
    rows = zip(batch["boxes"], batch["labels"], batch["valid"], strict=True)
    return [{"boxes": boxes[valid], "labels": labels[valid]} for boxes, labels, valid in rows]


def step_parts(model: RetinaNet, batch: dict[str, Tensor], device: str) -> tuple[Part, ...]:
    """Data, network, matching and losses; the last returns the total loss."""
    targets = make_targets(batch)

    def load(_: Any) -> Any:
        images = [image.to(device).float() / 255 for image in batch["images"]]
        return images, [{k: v.to(device) for k, v in target.items()} for target in targets]

    def predict(data: Any) -> Any:  # the first half of RetinaNet.forward
        images, resized = model.transform(*data)
        features = list(model.backbone(images.tensors).values())
        return resized, model.head(features), model.anchor_generator(images, features)

    def compute_loss(predictions: Any) -> Tensor:
        return torch.stack(list(model.compute_loss(*predictions).values())).sum()

    return load, predict, compute_loss
