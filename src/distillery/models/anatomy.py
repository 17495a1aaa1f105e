"""Where the taps of a foreign module lie: found by watching one forward pass without numbers.

torchdistill taps third-party models by hooks on module paths; here the paths are found too, unless the module's author
declares them. The rule for a module that nothing is known about: the last output before each spatial reduction.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distillery.errors import DistilleryError
from distillery.errors.words import nearest

# Module paths of families where the rule would miss the stem, which has the size of the first stage: by torchvision's
# name of the class.
_STAGES = ("features.0", "features.1", "features.3", "features.5", "features.7")
KNOWN = {"ConvNeXt": _STAGES, "SwinTransformer": _STAGES}
REDUCED = 1.5  # a map whose side is so many times smaller lies behind a reduction; unpadded convolutions are none
_SHORTCUT = re.compile(r"downsample|shortcut")


@dataclass(frozen=True, slots=True)
class Tap:
    """One tensor of a forward pass.

    Attributes:
        module: path of the module that gives it.
        call: in which of its calls, counted from 0 (a ReLU may serve several layers).
        before: whether the tap is the module's input, not its output.
        copied: whether later layers overwrite it, so that it is copied at once.
        channels_last: whether it is (B, H, W, channels), as in Swin.
    """

    module: str
    call: int
    before: bool = False
    copied: bool = False
    channels_last: bool = False


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Taps of a module.

    Attributes:
        maps: stem first, then one per stage; empty for a module that has no two sizes of maps (ViT).
        preacts: of every stage the input of its closing ReLU; empty unless every stage has one.
        norms: paths of the batch normalisations before those ReLUs; empty unless every stage has one.
        head: input of the linear layer that gives the logits; if none does (they are scaled, or a mean of two heads),
            of the last one of their width; None if there is none.
        bare: whether what that layer gives are the logits.
        classes: width of the logits.
    """

    maps: tuple[Tap, ...]
    preacts: tuple[Tap, ...]
    norms: tuple[str, ...]
    head: Tap | None
    bare: bool
    classes: int


@dataclass(frozen=True, slots=True, eq=False)
class _Event:
    """One call of a module, noted when it returns; `version` tells later whether its output was overwritten."""

    name: str
    module: nn.Module
    call: int
    given: Tensor | None
    output: Tensor
    version: int

    @property
    def is_map(self) -> bool:
        return self.output.dim() == 4

    @property
    def side(self) -> int:
        return side(self.output)

    def tap(self) -> Tap:
        return Tap(self.name, self.call, False, self.output._version > self.version, channels_last(self.output))


def channels_last(features: Tensor) -> bool:
    """Whether a map of a square image is (B, H, W, channels)."""
    _, a, b, c = features.shape
    return a == b != c


def side(features: Tensor) -> int:
    return features.shape[1] if channels_last(features) else features.shape[2]


def dissect(module: nn.Module, images: Tensor, taps: Sequence[str] = ()) -> Anatomy:
    """Find the taps of a module in evaluation mode.

    Args:
        images: (B, channels, H, H); their numbers do not matter, so they and the module may be on the meta device.
        taps: paths of the modules whose outputs are the maps, if its author declares them; stem first.

    Raises DistilleryError if the module gives no logits, or if a declared tap is no map.
    """
    events, logits = _watch(module, images)
    if not (isinstance(logits, Tensor) and logits.dim() == 2):
        kind = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise DistilleryError(f"its forward pass gives {kind} and not (images, classes) logits")
    heads = [e for e in events if isinstance(e.module, nn.Linear) and e.output.shape == logits.shape]
    heads = [e for e in heads if e.given is not None and e.given.dim() == 2]
    bare = [e for e in heads if e.output is logits and logits._version == e.version]
    heads = bare or heads
    taps = taps or _torchvision_taps(module) or _timm_taps(module)
    maps = _declared(events, taps) if taps else _before_reductions(events, images.shape[-1])
    if len(maps) < 2:
        maps = []
    relus = [_closing(events, e) for e in maps[1:]]
    norms = [_norm(events, *ends) for ends in zip(maps[:-1], relus, maps[1:], strict=True)]
    return Anatomy(
        maps=tuple(e.tap() for e in maps),
        preacts=tuple(Tap(r.name, r.call, True, getattr(r.module, "inplace", False)) for r in relus if r)
        if all(relus)
        else (),
        norms=tuple(n for n in norms if n) if all(norms) else (),
        head=Tap(heads[-1].name, heads[-1].call, before=True) if heads else None,
        bare=bool(bare),
        classes=logits.shape[1],
    )


def without_numbers(module: nn.Module) -> nn.Module:
    """A copy of the module on the meta device: shapes alone."""
    memo: dict[int, object] = {id(p): nn.Parameter(p.detach().to("meta"), False) for p in module.parameters()}
    memo |= {id(b): b.to("meta") for b in module.buffers()}
    return copy.deepcopy(module, memo)


@torch.no_grad()
def _watch(module: nn.Module, images: Tensor) -> tuple[list[_Event], object]:
    events: list[_Event] = []
    calls: Counter[str] = Counter()

    def noting(name: str):  # type: ignore[no-untyped-def]
        def note(called: nn.Module, given: tuple[object, ...], output: object) -> None:
            first = given[0] if given and isinstance(given[0], Tensor) else None
            if isinstance(output, Tensor):
                events.append(_Event(name, called, calls[name], first, output, output._version))
            calls[name] += 1

        return note

    hooks = [inner.register_forward_hook(noting(name)) for name, inner in module.named_modules() if name]
    training = {inner: inner.training for inner in module.modules()}
    try:
        return events, module.eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
        for inner, mode in training.items():
            inner.training = mode


def _declared(events: list[_Event], paths: Sequence[str]) -> list[_Event]:
    last = {e.name: e for e in events}
    for path in paths:
        if path not in last:
            raise DistilleryError(f"it has no layer {path!r} to tap: {nearest(path, last)}")
        if not last[path].is_map:
            raise DistilleryError(f"its layer {path!r} gives no (images, channels, height, width) maps to tap")
    return [last[path] for path in paths]


def _torchvision_taps(module: nn.Module) -> Sequence[str]:
    kind = type(module)
    return KNOWN.get(kind.__name__, ()) if kind.__module__.startswith("torchvision.") else ()


def _timm_taps(module: nn.Module) -> list[str]:
    """Paths of the stages as timm's models declare them: for convolutional networks, and Swin and its like."""
    info = getattr(module, "feature_info", ())
    stages = [stage for stage in getattr(info, "info", info) if isinstance(stage, dict) and "module" in stage]
    modules = dict(module.named_modules())
    sizes = {stage["reduction"] for stage in stages if "reduction" in stage}
    paths = [s["module"] for s in stages if s["module"] in modules and not _pools(modules[s["module"]])]
    if len(sizes) < 2 or len(paths) < 2:
        return []
    stem = next((name for name in ("stem", "patch_embed") if name in modules and name not in paths), None)
    return [stem, *paths] if stem and min(sizes) >= 4 else paths


def _pools(module: nn.Module) -> bool:
    return "Pool" in type(module).__name__


def _chain(events: list[_Event], parent: str, images: int) -> Iterator[_Event]:
    """The maps inside a module in order, as coarse as possible: what holds two reductions or more is opened."""
    called = {e.name for e in events}

    def owner(name: str) -> str:
        while name and (name := name.rpartition(".")[0]) and name not in called:
            pass
        return name

    for e in events:
        if owner(e.name) != parent:
            continue
        before = side(e.given) if e.given is not None and e.given.dim() == 4 else images
        opened = not e.is_map or (before > 2.5 * e.side and any(owner(other.name) == e.name for other in events))
        yield from _chain(events, e.name, before) if opened else [e]


def _before_reductions(events: list[_Event], images: int) -> list[_Event]:
    found: list[_Event] = []
    current: _Event | None = None
    for e in _chain(events, "", images):
        reduced = current is not None and REDUCED * e.side <= current.side
        if reduced:
            assert current is not None
            found.append(current)
            current = None
        if _pools(e.module) and not reduced and current is not None:
            continue  # 1x1 to 1x1
        if current is not None or (any(True for _ in e.module.parameters()) and not _pools(e.module)):
            current = e
    return [*found, current] if current else found


def _closing(events: list[_Event], tapped: _Event) -> _Event | None:
    """The ReLU whose output is this map."""
    return next((e for e in events if isinstance(e.module, nn.ReLU) and e.output is tapped.output), None)


def _norm(events: list[_Event], last: _Event, relu: _Event | None, tapped: _Event) -> str | None:
    """The last batch normalisation between a stage's begin and its closing ReLU, those of shortcuts left out."""
    if relu is None:
        return None
    for e in reversed(events[events.index(last) + 1 : events.index(relu)]):
        fits = isinstance(e.module, nn.BatchNorm2d) and e.module.num_features == tapped.output.shape[1]
        if fits and not _SHORTCUT.search(e.name):
            return e.name
    return None
