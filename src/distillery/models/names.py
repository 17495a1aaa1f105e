"""Every network by name. A new member of a family is one row here; nothing in this file needs torch."""

from __future__ import annotations

import difflib
from typing import Any

STAGES_VGG = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}

# name -> (module of distillery.models, class in it, its constructor's options)
NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    **{
        f"resnet{depth}": ("resnet", "ResNet", {"depth": depth, "widths": (16, 16, 32, 64)})
        for depth in (8, 14, 20, 32, 44, 56, 110)
    },
    "resnet8x4": ("resnet", "ResNet", {"depth": 8, "widths": (32, 64, 128, 256)}),
    "resnet32x4": ("resnet", "ResNet", {"depth": 32, "widths": (32, 64, 128, 256)}),
    # Ours, for small images such as 8 x 8 digits; the benchmark has no such networks.
    **{
        f"resnet{depth}_w{width}": (
            "resnet",
            "ResNet",
            {"depth": depth, "widths": (width, width, 2 * width, 4 * width)},
        )
        for depth in (8, 14, 20)
        for width in (2, 4, 8)
    },
    **{
        f"wrn_{depth}_{factor}": ("wrn", "WideResNet", {"depth": depth, "factor": factor})
        for depth, factor in ((16, 1), (16, 2), (40, 1), (40, 2), (16, 4), (28, 2), (28, 4))
    },
    **{f"vgg{depth}": ("vgg", "VGG", {"convolutions": row}) for depth, row in STAGES_VGG.items()},
    "resnet18": ("resnet_four_stage", "FourStageResNet", {"block": "basic", "depths": (2, 2, 2, 2)}),
    "resnet50": ("resnet_four_stage", "FourStageResNet", {"block": "bottleneck", "depths": (3, 4, 6, 3)}),
    "mobilenet_v2": ("mobilenet_v2", "MobileNetV2", {}),
    "shufflenet_v1": ("shufflenet_v1", "ShuffleNetV1", {}),
    "shufflenet_v2": ("shufflenet_v2", "ShuffleNetV2", {}),
}

NAMES = tuple(NETWORKS)


def lookup(name: str) -> tuple[str, str, dict[str, Any]]:
    """Return the row of `NETWORKS` for a name; ValueError naming the nearest known name if there is none."""
    if name not in NETWORKS:
        nearest = difflib.get_close_matches(str(name).lower(), NAMES, n=1, cutoff=0.0)[0]
        raise ValueError(f"there is no network called {name!r}; did you mean {nearest!r}?")
    return NETWORKS[name]
