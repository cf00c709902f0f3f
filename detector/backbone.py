"""ResNet and feature pyramid: images -> P3..P7, of torchvision's parts under its names."""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, Self

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

Block = type[BasicBlock] | type[Bottleneck]

STAGES: dict[int, tuple[Block, tuple[int, int, int, int]]] = {
    10: (BasicBlock, (1, 1, 1, 1)),  # for small images; nobody publishes weights of it
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm of 32 groups, as in torchvision's heads, or fewer: of 4 equal channels or more."""
    return nn.GroupNorm(math.gcd(32, channels // 4, channels), channels)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "frozen": FrozenBatchNorm2d,
    "batch": nn.BatchNorm2d,
    "group": group_norm,
}


class ResNetBody(nn.Module):
    """A ResNet without its classifier: images (N, 3, H, W) -> C3, C4, C5 (strides 8, 16, 32).

    Args:
        depth: 10, 18, 34, 50, 101 or 152.
        width: channels of the stem; layer k has 2^(k-1) times as many (times 4 in bottlenecks). 64
            is the paper's.
        norm: key of `NORMS`.
    """

    def __init__(self, depth: int, width: int, norm: str) -> None:
        super().__init__()
        block, blocks = STAGES[depth]
        parts = ResNet(block, [1, 1, 1, 1], norm_layer=NORMS[norm])  # for its layer factory
        parts.inplanes = width
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = NORMS[norm](width)
        self.relu, self.maxpool = parts.relu, parts.maxpool
        for k, count in enumerate(blocks):
            layer = parts._make_layer(block, width * 2**k, count, stride=1 if k == 0 else 2)
            self.add_module(f"layer{k + 1}", layer)
        self.out_channels = [width * 2**k * block.expansion for k in (1, 2, 3)]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.get_submodule("layer1")(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        features = []
        for k in (2, 3, 4):
            x = self.get_submodule(f"layer{k}")(x)
            features.append(x)
        return features

    def freeze(self, stages: int) -> None:
        """Stop the training of the first `stages` of stem, layer1 .. layer4."""
        parts: list[nn.Module] = [nn.ModuleList([self.conv1, self.bn1])]
        parts += [self.get_submodule(f"layer{k}") for k in (1, 2, 3, 4)]
        for part in parts[:stages]:
            part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Training mode, but not of frozen parts, whose BatchNorm must not gather statistics."""
        super().train(mode)
        for part in self.children():
            if {parameter.requires_grad for parameter in part.parameters()} == {False}:
                part.eval()
        return self


class Backbone(nn.Module):
    """ResNet + FPN: images (N, 3, H, W) -> P3, P4, P5, P6, P7, each (N, channels, ceil(H / stride),
    ceil(W / stride)).

    Lin et al., "Feature Pyramid Networks", CVPR 2017; P6 and P7 as in the focal loss paper,
    section 4.

    Args:
        depth, width, norm: of the ResNet, see `ResNetBody`.
        channels: of every level.
        p6: P6 is a strided convolution of P5 (torchvision's first RetinaNet) or of C5 (the paper,
            detectron2).
        freeze: how many of stem, layer1 .. layer4 stay as they are, statistics of BatchNorm
            included.
    """

    def __init__(
        self,
        depth: int = 50,
        width: int = 64,
        norm: Literal["frozen", "batch", "group"] = "frozen",
        channels: int = 256,
        p6: Literal["p5", "c5"] = "p5",
        freeze: int = 0,
    ) -> None:
        super().__init__()
        self.body = ResNetBody(depth, width, norm)
        self.body.freeze(freeze)
        top = LastLevelP6P7(channels if p6 == "p5" else self.body.out_channels[-1], channels)
        top.use_P5 = p6 == "p5"  # torchvision guesses it from equal channel counts
        self.fpn = FeaturePyramidNetwork(self.body.out_channels, channels, extra_blocks=top)
        self.channels = channels

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.body(images)
        named = OrderedDict((str(k), feature) for k, feature in enumerate(features))
        return list(self.fpn(named).values())
