"""RetinaNet on a feature pyramid, of torchvision's parts: the convolutional host of FGD, MGD and IKD.

Lin et al., "Focal loss for dense object detection" (arXiv:1708.02002, ICCV 2017). The small networks are ours: basic
residual blocks with group normalisation, which keeps no statistics, so that a second view moves none; the released ones
of mmdetection freeze batch normalisation, as `frozen` does here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from distillery.objectives.soft import full_precision
from distillery.tasks.detection.detections import Detections, Detector, Pictures

STAGES = ("layer2", "layer3", "layer4")  # strides 8, 16 and 32; the pyramid adds 64 and 128


def _groups(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels // 4), channels)


class RetinaNet(Detector):
    """RetinaNet.

    Args:
        num_classes: C.
        block, depths, groups, base: of the ResNet below.
        width: of the pyramid.
        norm: frozen batch normalisation, for released weights, or group normalisation, to train from scratch.
        anchor: side of the smallest anchors in pixels at stride 8; on each further level twice as long.
    """

    def __init__(
        self,
        num_classes: int,
        block: Literal["basic", "bottleneck"] = "bottleneck",
        depths: Sequence[int] = (3, 4, 6, 3),
        groups: int = 1,
        base: int = 64,
        width: int = 256,
        norm: Literal["frozen", "groups"] = "frozen",
        anchor: int = 32,
    ) -> None:
        super().__init__()
        kind, normal = (
            (Bottleneck if block == "bottleneck" else BasicBlock),
            (FrozenBatchNorm2d, _groups)[norm == "groups"],
        )
        self.body = ResNet(kind, list(depths), groups=groups, width_per_group=base, norm_layer=normal)
        del self.body.fc, self.body.avgpool
        widths = [64 * 2**i * kind.expansion for i in (1, 2, 3)]
        self.fpn = FeaturePyramidNetwork(widths, width, LastLevelP6P7(width, width))
        sides = [anchor * 2**i for i in range(5)]
        sizes = tuple((s, int(s * 2 ** (1 / 3)), int(s * 2 ** (2 / 3))) for s in sides)
        self.anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
        layer: Any = None if norm == "frozen" else _groups
        self.heads = RetinaNetHead(width, 9, num_classes, norm_layer=None if layer is None else partial(layer))

    def forward(self, pictures: Pictures, preacts: bool = False) -> Detections:  # type: ignore[override]
        body, x = self.body, pictures.images
        x = body.maxpool(body.relu(body.bn1(body.conv1(x))))
        x, found = body.layer1(x), OrderedDict[str, Tensor]()
        for name in STAGES:
            found[name] = x = getattr(body, name)(x)
        maps = list(self.fpn(found).values())
        out = self.heads(maps)
        size = (pictures.images.shape[-2], pictures.images.shape[-1])
        like = [full_precision(m) for m in maps]  # anchors have their type, and bfloat16 counts pixels up to 256 only
        anchors = torch.stack(self.anchors(ImageList(pictures.images, [size] * len(x)), like))
        return Detections(
            torch.cat([out["cls_logits"], out["bbox_regression"], anchors], dim=-1), maps=tuple(maps), head="anchors"
        )
