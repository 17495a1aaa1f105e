"""Networks of torchvision, of timm and of files that are no part of this package.

What they need is imported here.
The version of torchvision and timm is no part of a job's identity; the record of every job names it.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from distillery.errors import DistilleryError
from distillery.errors.words import nearest
from distillery.models.base import Network
from distillery.models.wrap import Wrapped
from distillery.registry import Component, Unknown

RGB = 3  # what the networks of both packages take


class Torchvision(Wrapped):
    """`torchvision/NAME`: a classifier of torchvision.models."""

    def __init__(self, num_classes: int, in_channels: int, name: str) -> None:
        import torchvision.models

        known = torchvision.models.list_models(module=torchvision.models)
        full = _known(f"torchvision/{name}", [f"torchvision/{k}" for k in known])
        module = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
        super().__init__(module, full, num_classes, RGB, in_channels)


class Timm(Wrapped):
    """`timm/NAME` or `timm/NAME.TAG`: a model of timm; the tag names its released weights."""

    def __init__(self, num_classes: int, in_channels: int, name: str) -> None:
        timm = import_timm()
        full = f"timm/{name}"
        plain, dot, _ = name.partition(".")
        _known(f"timm/{plain}", [f"timm/{k}" for k in timm.list_models()])
        if dot:
            _known(full, [f"timm/{k}" for k in timm.list_pretrained(f"{plain}.*")])
        module = timm.create_model(name, pretrained=False, num_classes=num_classes)
        super().__init__(module, full, num_classes, RGB, in_channels)

    def spread_drop_path(self, rate: float) -> None:
        """Put timm's `DropPath` modules where it has them for this `drop_path_rate`, with its rates."""
        timm = import_timm()
        _, _, name = self.name.partition("/")
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            try:
                twin = timm.create_model(name, pretrained=False, drop_path_rate=rate or 0.5)  # at 0 it has none
            except TypeError:  # an architecture that does not know the argument
                return
        for path, module in twin.named_modules():
            if type(module).__name__ == "DropPath":
                parent, _, own = path.rpartition(".")
                setattr(self.module.get_submodule(parent), own, timm.layers.DropPath(module.drop_prob if rate else 0.0))


def import_timm() -> Any:
    """Import timm. Raises DistilleryError if it is not installed."""
    try:
        import timm
    except ImportError as error:
        raise DistilleryError(f"networks of timm need the extra: pip install 'distillery[timm]' ({error})") from None
    return timm


def _known(name: str, known: list[str]) -> str:
    if name not in known:
        raise Unknown(f"unknown architecture {name!r}: {nearest(name, known)}")
    return name


def adopt(found: Component, num_classes: int, in_channels: int) -> Network:
    """Build a network that is named by its place: a `Network`, or a plain module that is wrapped.

    A plain module's class, or a function that makes one, takes `num_classes` and, if it likes, `in_channels`. The
    attribute `taps = ("stem", "layer1", ...)` of class or module names the layers whose outputs are the maps.
    """
    kind = found.get()
    if not callable(kind):
        raise DistilleryError(f"{found.name} is no architecture: it is neither a torch.nn.Module nor makes one")
    arguments: dict[str, int] = {"num_classes": num_classes}
    if _takes(kind, "in_channels"):
        arguments["in_channels"] = in_channels
    if not _takes(kind, "num_classes"):
        raise DistilleryError(f"architecture {found.name!r}: its constructor must take `num_classes`")
    try:
        module = kind(**arguments)
    except DistilleryError:
        raise
    except Exception as error:  # whatever the author's code raises
        raise found.fault("building it", error) from error
    if isinstance(module, Network):
        return module
    if not isinstance(module, nn.Module):
        raise DistilleryError(f"architecture {found.name!r} makes a {type(module).__name__}, not a torch.nn.Module")
    taps = getattr(module, "taps", getattr(kind, "taps", ()))
    if not (isinstance(taps, list | tuple) and all(isinstance(tap, str) for tap in taps)):
        raise DistilleryError(f"architecture {found.name!r}: `taps` must be names of layers, not {taps!r}")
    return Wrapped(module, found.name, num_classes, arguments.get("in_channels", RGB), in_channels, taps)


def _takes(kind: Any, argument: str) -> bool:
    parameters = inspect.signature(kind).parameters
    return argument in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
