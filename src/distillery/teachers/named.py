"""Released weights by name, of torchvision and timm, and what they were trained to see. Nothing is downloaded here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from distillery.errors import DistilleryError
from distillery.errors.words import explain, nearest
from distillery.models import NETWORKS
from distillery.models.foreign import import_timm
from distillery.records.preprocessing import Preprocessing
from distillery.registry import Unknown

HUB = "https://huggingface.co/{}/resolve/main/{}"
FILES = ("model.safetensors", "pytorch_model.bin")  # of a model on the hub
# With weights torchvision builds these so that they turn ImageNet's normalisation into this one by themselves
# (`transform_input`), which its transforms do not say; Distillery builds every network without weights.
TURNED = ("googlenet", "inception_v3")
VIT_SIZE = 224  # pixels that torchvision's vision transformers are built for where no weights are loaded
HALVES = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class Named:
    """What a package knows about weights of one of its networks.

    Attributes:
        urls: where they are, in order of preference.
        sha256: of the file, or its first digits, where the file's name says them.
        classes: width of their logits.
        licence: as the package states it.
        accuracy: top-1 in percent on the 50,000 validation images of ImageNet, as the package documents it.
    """

    urls: tuple[str, ...]
    sha256: str | None
    classes: int
    preprocessing: Preprocessing
    licence: str | None = None
    accuracy: float | None = None


def hub(name: str) -> tuple[str, ...]:
    """Addresses of the weights that the hub keeps as `OWNER/NAME`."""
    return tuple(HUB.format(name, file) for file in FILES)


def named(architecture: str, weights: str | None) -> Named:
    """Look up weights: an enum's member of torchvision (IMAGENET1K_V1), a tag of timm (deit_in1k).

    Raises DistilleryError for a name that the package does not know, with the nearest.
    """
    family, _, name = architecture.partition("/")
    return _torchvision(name, weights) if family == "torchvision" else _timm(name, weights)


def _torchvision(name: str, weights: str | None) -> Named:
    import torchvision.models

    try:
        enum = torchvision.models.get_model_weights(name)
    except ValueError:
        raise Unknown(
            f"unknown architecture 'torchvision/{name}': {nearest(name, torchvision.models.list_models())}"
        ) from None
    known = {member.name: member for member in enum}  # without DEFAULT, which changes from version to version
    if weights is None:
        raise DistilleryError(f"name the weights of torchvision/{name}: {', '.join(known)}, a file or an address")
    if weights not in known:
        raise Unknown(f"unknown weights {weights!r} of torchvision/{name}: {nearest(weights, known)}")
    found = known[weights]
    if side := _too_large(name, found):
        fit = [n for n, member in known.items() if not _too_large(name, member)]
        raise DistilleryError(
            f"weights {weights} of torchvision/{name} are for images of {side} pixels, and the network is built here "
            f"for {VIT_SIZE}: take {' or '.join(fit)}"
        )
    return Named(
        (found.url,),
        _digits(found.url),
        len(found.meta["categories"]),
        _of_transforms(name, found.transforms()),
        found.meta.get("license"),
        found.meta.get("_metrics", {}).get("ImageNet-1K", {}).get("acc@1"),
    )


def _timm(name: str, weights: str | None) -> Named:
    timm = import_timm()
    plain, _, tag = name.partition(".")
    if tag and weights and weights != tag:
        raise DistilleryError(f"timm/{name} and weights: {weights} name two sets of weights: drop one")
    known = [full.partition(".")[2] for full in timm.list_pretrained(f"{plain}.*")]
    if not (chosen := tag or weights):
        raise DistilleryError(f"name the weights of timm/{name}: {', '.join(known) or 'a file or an address'}")
    if chosen not in known:
        raise Unknown(f"unknown weights {chosen!r} of timm/{plain}: {nearest(chosen, known)}")
    cfg = timm.get_pretrained_cfg(f"{plain}.{chosen}")
    urls = (*(hub(cfg.hf_hub_id) if cfg.hf_hub_id else ()), *([cfg.url] if cfg.url else ()))
    return Named(urls, None, cfg.num_classes, of_cfg(cfg), cfg.license)


def carried(architecture: str) -> Preprocessing | None:
    """What a network's weights usually saw: as its package says, or attributes mean, std, size of the user's class.

    None for the networks of Distillery, and for a class that says nothing.
    """
    family, _, name = architecture.partition("/")
    if (component := NETWORKS[architecture]).placed:
        return _of_attributes(architecture, component.get())
    if family == "torchvision":
        return _of_transforms(name, usual(name).transforms())
    if family == "timm":
        cfg = import_timm().get_pretrained_cfg(name)
        return of_cfg(cfg) if cfg else None
    return None


def usually(architecture: str) -> str:
    """Which weights of a network of torchvision's or timm's `carried` speaks of."""
    family, _, name = architecture.partition("/")
    if family == "torchvision":
        return f"{architecture} with {usual(name).name}"
    cfg = import_timm().get_pretrained_cfg(name)
    return f"{architecture.partition('.')[0]}.{cfg.tag}" if cfg and cfg.tag else architecture


def usual(name: str) -> Any:
    """The weights of a torchvision network whose images a checkpoint of the user's is taken to have seen."""
    import torchvision.models

    enum = torchvision.models.get_model_weights(name)
    return next(member for member in (enum.DEFAULT, *enum) if not _too_large(name, member))


def _too_large(name: str, member: Any) -> int:
    """The side of the images that a vision transformer's weights are bound to, if it is not the one it is built for."""
    side: int = member.meta["min_size"][0]
    return side if name.startswith("vit_") and side != VIT_SIZE else 0


def _digits(url: str) -> str | None:
    """The beginning of the hash that torchvision puts into the names of its files: resnet34-b627a593.pth."""
    digits = url.rpartition("-")[2].partition(".")[0]
    return digits if len(digits) == 8 and not set(digits) - set("0123456789abcdef") else None


def _of_transforms(name: str, transforms: Any) -> Preprocessing:
    return Preprocessing(
        mean=HALVES if name in TURNED else tuple(transforms.mean),
        std=HALVES if name in TURNED else tuple(transforms.std),
        size=transforms.crop_size[0],
        short_side=transforms.resize_size[0],
        interpolation=_known(transforms.interpolation.value),
    )


def of_cfg(cfg: Any) -> Preprocessing:
    """What weights saw, by timm's configuration of them."""
    size = cfg.input_size[-1]
    return Preprocessing(
        mean=tuple(cfg.mean),
        std=tuple(cfg.std),
        size=size,
        short_side=max(size, math.floor(size / cfg.crop_pct)) if cfg.crop_mode == "center" else size,
        interpolation=_known(cfg.interpolation),
    )


def _of_attributes(architecture: str, kind: Any) -> Preprocessing | None:
    said = {key: getattr(kind, key, None) for key in Preprocessing.model_fields}
    if said["mean"] is None and said["std"] is None:
        return None
    given = {key: value for key, value in said.items() if value is not None}
    try:
        return Preprocessing.model_validate(given)
    except ValidationError as error:
        raise DistilleryError("\n".join(explain(Preprocessing, error, given, f"{architecture}: "))) from None


def _known(interpolation: str) -> Any:
    return "bicubic" if interpolation in ("bicubic", "lanczos", "random") else "bilinear"
