"""Networks by name, all with one interface: `build(name, ...)(images) -> Outputs`. A new member of a family is one row.

Importing this package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from distillery.registry import Registry

if TYPE_CHECKING:
    from distillery.models.base import Network

__all__ = ["NETWORKS", "build"]

_DETECTORS = "distillery.tasks.detection.networks"
NETWORKS = Registry(
    "architecture",
    "distillery.models.base:Network",
    {
        **{
            f"resnet{depth}": ("distillery.models.resnet:ResNet", {"depth": depth, "widths": (16, 16, 32, 64)})
            for depth in (8, 14, 20, 32, 44, 56, 110)
        },
        "resnet8x4": ("distillery.models.resnet:ResNet", {"depth": 8, "widths": (32, 64, 128, 256)}),
        "resnet32x4": ("distillery.models.resnet:ResNet", {"depth": 32, "widths": (32, 64, 128, 256)}),
        # Ours, for small images such as 8 x 8 digits; the benchmark has no such networks.
        **{
            f"resnet{depth}_w{width}": (
                "distillery.models.resnet:ResNet",
                {"depth": depth, "widths": (width, width, 2 * width, 4 * width)},
            )
            for depth in (8, 14, 20)
            for width in (2, 4, 8)
        },
        **{
            f"wrn_{depth}_{factor}": ("distillery.models.wrn:WideResNet", {"depth": depth, "factor": factor})
            for depth, factor in ((16, 1), (16, 2), (40, 1), (40, 2), (16, 4), (28, 2), (28, 4))
        },
        **{
            f"vgg{depth}": ("distillery.models.vgg:VGG", {"convolutions": convolutions})
            for depth, convolutions in {
                8: (1, 1, 1, 1, 1),
                11: (1, 1, 2, 2, 2),
                13: (2, 2, 2, 2, 2),
                16: (2, 2, 3, 3, 3),
                19: (2, 2, 4, 4, 4),
            }.items()
        },
        "resnet18": (
            "distillery.models.resnet_four_stage:FourStageResNet",
            {"block": "basic", "depths": (2, 2, 2, 2)},
        ),
        "resnet50": (
            "distillery.models.resnet_four_stage:FourStageResNet",
            {"block": "bottleneck", "depths": (3, 4, 6, 3)},
        ),
        **{
            f"imagenet_resnet{depth}": (
                "distillery.models.resnet_four_stage:FourStageResNet",
                {"block": block, "depths": depths, "imagenet": True},
            )
            for depth, block, depths in (
                (18, "basic", (2, 2, 2, 2)),
                (34, "basic", (3, 4, 6, 3)),
                (50, "bottleneck", (3, 4, 6, 3)),
            )
        },
        "mobilenet_v1": "distillery.models.mobilenet_v1:MobileNetV1",
        "mobilenet_v2": "distillery.models.mobilenet_v2:MobileNetV2",
        "shufflenet_v1": "distillery.models.shufflenet_v1:ShuffleNetV1",
        "shufflenet_v2": "distillery.models.shufflenet_v2:ShuffleNetV2",
        "deit_ti": ("distillery.models.deit:DeiT", {"width": 192, "heads": 3}),
        "deit_ti_distilled": ("distillery.models.deit:DeiT", {"width": 192, "heads": 3, "distilled": True}),
        "vkd_deit_ti": ("distillery.models.deit:VkDDeiT", {"width": 192, "heads": 3}),
        "vkd_deit_s": ("distillery.models.deit:VkDDeiT", {"width": 384, "heads": 6}),
        # Ours, two blocks, so that a laptop runs studies of DeiT: on images of 64 pixels, and on the 8 x 8 digits.
        "vkd_deit_w48": (
            "distillery.models.deit:VkDDeiT",
            {"width": 48, "heads": 3, "depth": 2, "image_size": 64},
        ),
        "deit_w48_p2": (
            "distillery.models.deit:DeiT",
            {"width": 48, "heads": 3, "depth": 2, "distilled": True, "patch": 2, "image_size": 8},
        ),
        "pit_ti": (
            "distillery.models.pit:PiT",
            {"widths": (64, 128, 256), "heads": (2, 4, 8), "depths": (2, 6, 4)},
        ),
        "t2t_vit_7": ("distillery.models.t2t:T2TViT", {"width": 256, "heads": 4, "depth": 7}),
        "pvt_ti": (
            "distillery.models.pvt:PVT",
            {
                "widths": (64, 128, 320, 512),
                "heads": (1, 2, 5, 8),
                "ratios": (8, 8, 4, 4),
                "reductions": (8, 4, 2, 1),
                "depths": (2, 2, 2, 2),
            },
        ),
    },
    {"torchvision": "distillery.models.foreign:Torchvision", "timm": "distillery.models.foreign:Timm"},
    elsewhere={
        **{
            f"{name}_d{dim}": (f"distillery.tasks.ranking.models:{kind}", {"dim": dim})
            for name, kind in (("bprmf", "BPRMF"), ("lightgcn", "LightGCN"))
            for dim in (4, 10, 20, 50, 100, 200)
        },
        # Bayes' rule of the source gaussian: exact, too sure, with an error of its own.
        **{
            name: ("distillery.models.bayes:Bayes", {"sharpness": sharpness, "noise": noise})
            for name, sharpness, noise in (
                ("bayes", 1.0, 0.0),
                ("bayes_sharp3", 3.0, 0.0),
                ("bayes_flat3", 1 / 3, 0.0),
                ("bayes_noise1", 1.0, 1.0),
            )
        },
        # For rows of features: one pixel, as many channels.
        "linear": ("distillery.models.mlp:MLP", {"width": 0, "depth": 0}),
        **{
            f"mlp{depth}_w{width}": ("distillery.models.mlp:MLP", {"width": width, "depth": depth})
            for depth in (1, 2)
            for width in (2, 4, 8, 16, 64, 128, 256)
        },
        # For clips, whose frames are the channels of an image: grey ones, and those of colour.
        **{
            f"resnet3d_{depth}_w{width}{suffix}": (
                "distillery.models.resnet3d:ResNet3d",
                {"depth": depth, "widths": (width, width, 2 * width, 4 * width), "colours": colours},
            )
            for depth in (8, 14)
            for width in (2, 4, 8, 16)
            for suffix, colours in (("", 1), ("_rgb", 3))
        },
        **{
            f"{name}{suffix}": (
                "distillery.models.torchvision_video:TorchvisionVideo",
                {"name": name, "colours": colours},
            )
            for name in ("r3d_18", "mc3_18", "r2plus1d_18")
            for suffix, colours in (("", 3), ("_grey", 1))
        },
        "vidt_nano": (f"{_DETECTORS}.vidt:ViDT", {"width": 48}),
        "vidt_tiny": (f"{_DETECTORS}.vidt:ViDT", {"width": 96, "drop_path": 0.2}),
        "vidt_small": (f"{_DETECTORS}.vidt:ViDT", {"width": 96, "depths": (2, 2, 18, 2), "drop_path": 0.3}),
        "vidt_base": (
            f"{_DETECTORS}.vidt:ViDT",
            {"width": 128, "depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32), "drop_path": 0.3},
        ),
        # Ours, for images of about 160 pixels on a CPU.
        **{
            f"vidt_w{width}": (
                f"{_DETECTORS}.vidt:ViDT",
                {
                    **{"width": width, "depths": (1, 1, 2, 1), "heads": heads, "tokens": 40, "inner": 64},
                    **{"layers": 2, "hidden": 256, "decoder_heads": 4, "dropout": 0.0},
                },
            )
            for width, heads in ((24, (2, 4, 8, 16)), (48, (3, 6, 12, 24)))
        },
        "retinanet_r50": f"{_DETECTORS}.retinanet:RetinaNet",
        "retinanet_rx101": (
            f"{_DETECTORS}.retinanet:RetinaNet",
            {"depths": (3, 4, 23, 3), "groups": 64, "base": 4},
        ),
        # Ours, likewise.
        **{
            f"retinanet_{name}_w64": (
                f"{_DETECTORS}.retinanet:RetinaNet",
                {"block": "basic", "depths": (blocks,) * 4, "width": 64, "norm": "groups", "anchor": 16},
            )
            for name, blocks in (("r10", 1), ("r18", 2))
        },
        **{
            f"biggan_ch{width}": ("distillery.tasks.generation.biggan:Discriminator", {"width": width})
            for width in (2, 4, 8, 16, 32, 64)
        },
        "clip_vit_b32": "distillery.tasks.generation.clip:CLIP",
        "clip_vit_b32_texts": ("distillery.tasks.generation.clip:CLIP", {"texts": True}),
        "openclip_vit_b32": ("distillery.tasks.generation.clip:CLIP", {"quick": False}),
    },
)
FOREIGN = "distillery.models.foreign"  # builds what is named by its place; a string, so that others do not depend on it


def is_formula(name: str) -> bool:
    """Whether an architecture is Bayes' rule, which nobody trains; False for a name that nobody knows."""
    return name in NETWORKS and NETWORKS[name].module == "distillery.models.bayes"


def build(name: str, num_classes: int, in_channels: int = 3) -> Network:
    """Build a freshly initialised network.

    Args:
        name: one that `distillery models` lists, `torchvision/NAME`, `timm/NAME`, or `path/to/file.py:Class`, where
            the class is a `Network` or any torch module; Unknown (a DistilleryError) otherwise.
        num_classes: C, the width of the logits.
        in_channels: channels of the images, 1 for grey.
    """
    found = NETWORKS[name]
    if found.placed:
        adopted: Network = importlib.import_module(FOREIGN).adopt(found, num_classes, in_channels)
        return adopted
    network: Network = found.load()(num_classes=num_classes, in_channels=in_channels, **found.options)
    return network
