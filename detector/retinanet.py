"""RetinaNet: images -> predictions of all anchors. Knows of losses only how their logits start."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from detector.anchors import AnchorGenerator
from detector.backbone import Backbone, group_norm

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in [0, 1]


class Predictions(NamedTuple):
    """Of all anchors, levels concatenated, before suppression.

    logits (N, R, K or K + 1) · deltas (N, R, 4) · anchors (R, 4) xyxy pixels · level_sizes: anchors
    of each level · embeddings (N, cells, E) one vector for all anchors of a cell, None without such
    a head.
    """

    logits: Tensor
    deltas: Tensor
    anchors: Tensor
    level_sizes: Sequence[int]
    embeddings: Tensor | None = None


class Head(nn.Module):
    """A small convolutional net shared by all levels: (N, C, H, W) -> (N, H * W * A, outputs)."""

    def __init__(
        self, channels: int, convs: int, per_cell: int, outputs: int, norm: str = "none"
    ) -> None:
        super().__init__()
        norm_layer = group_norm if norm == "group" else None
        self.conv = nn.Sequential(
            *[Conv2dNormActivation(channels, channels, norm_layer=norm_layer) for _ in range(convs)]
        )
        self.output = nn.Conv2d(channels, per_cell * outputs, kernel_size=3, padding=1)
        self.outputs = outputs
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def add_outputs(self, outputs: int, per_cell: int) -> None:
        """Widen the head to `outputs` per anchor. The former ones keep their weights; neither these
        nor random numbers drawn afterwards depend on how many are added."""
        before, self.outputs = self.outputs, outputs
        old = self.output
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            self.output = nn.Conv2d(old.in_channels, per_cell * outputs, kernel_size=3, padding=1)
            nn.init.normal_(self.output.weight, std=0.01)
            new = self.output.weight.view(per_cell, outputs, *old.weight.shape[1:])
            new[:, :before] = old.weight.view(per_cell, before, *old.weight.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        x = self.output(self.conv(x))
        # channels are anchors x outputs, so channels last is already the wanted order
        return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, self.outputs)


class RetinaNet(nn.Module):
    """ResNet-FPN with a class head and a box head (Lin et al., "Focal Loss for Dense Object
    Detection", ICCV 2017, section 4).

    Args:
        backbone: images -> five levels of `backbone.channels` channels.
        anchors: generator for these five levels.
        initial_bias: (K,) or (K + 1,), what the logits of an untrained net are; see
            `ClassificationLoss.initial_bias`.
        num_classes: K, so that a net with a background logit starts with the same weights as one
            without; null for as many as logits.
        convs: hidden convolutions of each head.
        head_norm: "none", or "group" for GroupNorm in the heads (torchvision's v2).
        embedding_head: a third head, of vectors that tell objects apart.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        anchors: AnchorGenerator,
        initial_bias: Tensor,
        convs: int = 4,
        head_norm: str = "none",
        num_classes: int | None = None,
        embedding_head: Head | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.anchors = backbone, anchors
        cells, channels, logits = anchors.per_cell, backbone.channels, len(initial_bias)
        self.class_head = Head(channels, convs, cells, num_classes or logits, head_norm)
        self.box_head = Head(channels, convs, cells, 4, head_norm)
        if logits != self.class_head.outputs:
            self.class_head.add_outputs(logits, cells)
        with torch.no_grad():
            self.class_head.output.bias.copy_(initial_bias.repeat(cells))  # type: ignore[union-attr]
        self.embedding_head = embedding_head
        for name, value in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(value).view(1, 3, 1, 1), persistent=False)

    def normalize(self, images: Tensor, sizes: Tensor) -> Tensor:
        """uint8 images (N, 3, H, W) -> normalized floats, 0 outside of the content of `sizes` (N,
        2), height first."""
        x = (images.to(self.mean.dtype) / 255 - self.mean) / self.std
        rows = torch.arange(x.shape[2], device=x.device) < sizes[:, :1]
        columns = torch.arange(x.shape[3], device=x.device) < sizes[:, 1:]
        return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], x, 0.0)

    def forward(self, images: Tensor, sizes: Tensor) -> Predictions:
        """Predictions of uint8 images (N, 3, H, W), RGB, whose content of `sizes` (N, 2) sits at
        the top left."""
        features = self.backbone(self.normalize(images, sizes))
        logits = [self.class_head(feature) for feature in features]
        deltas = [self.box_head(feature) for feature in features]
        anchors = self.anchors(images.shape[-2:], [feature.shape[-2:] for feature in features])
        level_sizes = [level.shape[1] for level in logits]
        embeddings = None
        if self.embedding_head is not None:
            embeddings = torch.cat([self.embedding_head(feature) for feature in features], 1)
        joined = torch.cat(logits, 1), torch.cat(deltas, 1)
        return Predictions(*joined, anchors, level_sizes, embeddings)
