"""A module that knows nothing of Distillery, as a `Network`: hooks read its taps while it runs as it always does.

Logits, gradients, running statistics and state dict are those of the module alone.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from distillery.errors import DistilleryError
from distillery.models.anatomy import Anatomy, Tap, dissect, without_numbers
from distillery.models.base import Network, Outputs, anchor

USUAL = 224  # pixels on which a module is looked at first: there every stage has a size of its own
PATIENCE = 5.0  # seconds of silence


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Say what is being done if it takes long: some modules are slow on images that are larger than the data's."""
    timer = threading.Timer(PATIENCE, lambda: print(what, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Wrapped(Network):
    """One adapter for torchvision, timm and files of the user's.

    * logits: what the module returns.
    * pooled: the input of the linear layer that gives the logits, or else of the last one of their width.
    * maps: stem first, then the stages (`anatomy.dissect`); none for vision transformers.
    * preacts: the inputs of the ReLUs that close the stages, where every stage has one.
    * tail: the module, run on a stand-in image, with the output of the tap replaced; in evaluation mode, and only if
      nothing leads past the tap.

    Args:
        module: gives (B, C) logits for (B, channels, H, W) images.
        name: what to call it in a sentence.
        classes: C.
        channels: of the images that the module takes.
        given: channels of the data. Grey images are repeated for a module that takes three.
        taps: paths of modules whose outputs are the maps; found if there are none.
    """

    def __init__(
        self, module: nn.Module, name: str, classes: int, channels: int, given: int, taps: Sequence[str] = ()
    ) -> None:
        super().__init__()
        if given not in (1, channels):
            raise DistilleryError(
                f"{name} takes images of {channels} channel{'s' if channels > 1 else ''}, not of {given}"
            )
        self.module, self.name, self.classes, self.channels, self.taps = module, name, classes, channels, tuple(taps)
        self.repeated = given != channels
        self._size = (USUAL, USUAL)  # of the images last seen
        self._anatomy, _ = self._look(self._size)
        self._entered: set[int] = set()  # taps that the rest of the module depends on alone

    def forward(self, images: Tensor, preacts: bool = False) -> Outputs:
        """Map (B, channels, H, W) images to `Outputs`."""
        images = self._shown(images)
        found = self.anatomy(images)
        wanted = [*found.maps, *(found.preacts if preacts else ())]
        with self._tapping([*wanted, *([found.head] if found.head else [])]) as taps:
            logits = self.module(images)
        if not isinstance(logits, Tensor):
            raise DistilleryError(f"{self.name} gives a {type(logits).__name__} in training and not logits alone")
        maps = tuple(taps[tap] for tap in found.maps)
        before = (maps[0], *(taps[tap] for tap in found.preacts)) if preacts and found.preacts else ()
        return Outputs(logits, taps[found.head] if found.head else None, maps, before)

    @property
    def head(self) -> nn.Linear:
        """The linear layer that gives the logits, if one does."""
        found = self.anatomy()
        layer = self.module.get_submodule(found.head.module) if found.head and found.bare else None
        return layer if isinstance(layer, nn.Linear) else super().head

    def stage_norms(self) -> list[nn.BatchNorm2d]:
        """Of every stage the last batch normalisation before its closing ReLU, shortcuts left out."""
        found = [self.module.get_submodule(path) for path in self.anatomy().norms]
        if not found:
            raise ValueError(f"{self.name} has no batch normalisation before its stages' last activation")
        return [norm for norm in found if isinstance(norm, nn.BatchNorm2d)]

    def tail(self, features: Tensor, stage: int) -> Tensor:
        """Run the rest of the network from `maps[stage]` on and return the (B, C) logits."""
        maps = self.anatomy().maps
        if not maps or self.training:
            raise ValueError(f"{self.name} cannot be entered in the middle" + (" while it trains" if maps else ""))
        if not 0 <= stage < len(maps):
            raise ValueError(f"{self.name} has the stages 0 to {len(maps) - 1}, so it cannot start after {stage}")
        if stage not in self._entered and not features.is_meta:
            with torch.no_grad():
                one, other = (self._from(features[:1], maps[stage], value) for value in (0.0, 1.0))
            if not torch.equal(one, other):
                raise ValueError(f"{self.name} cannot be entered at {maps[stage].module}, which something leads past")
            self._entered.add(stage)
        return self._from(features, maps[stage], 0.0)

    def _from(self, features: Tensor, tap: Tap, value: float) -> Tensor:
        """Logits with the tap's output replaced. What comes before it runs on one image of one colour, for nothing."""
        image = torch.full((1, self.channels, *self._size), value, dtype=features.dtype, device=features.device)
        features = features.permute(0, 2, 3, 1) if tap.channels_last else features
        calls = count()

        def replace(module: nn.Module, given: Any, output: Tensor) -> Tensor:
            if next(calls) != tap.call:
                return output
            return features.clone() if tap.copied else features

        hook = self.module.get_submodule(tap.module).register_forward_hook(replace)
        try:
            logits: Tensor = self.module(image)
        finally:
            hook.remove()
        return logits

    def anatomy(self, images: Tensor | None = None) -> Anatomy:
        """The taps. A module that takes no images of the usual size is looked at when it gets the first ones."""
        if images is not None:
            self._size = (images.shape[-2], images.shape[-1])
        for numbers in (False, True):
            if self._anatomy is None:
                self._anatomy, why = self._look(self._size, numbers)
        if self._anatomy is None:
            raise DistilleryError(f"{self.name} fails on images of {self._size[0]}x{self._size[1]}: {why}")
        return self._anatomy

    def _look(self, size: tuple[int, int], numbers: bool = False) -> tuple[Anatomy | None, str]:
        """Look for the taps on images of a size, on a copy without numbers or on the module itself; or say what fails.

        Raises DistilleryError for what no other size would mend.
        """
        weight = anchor(self.module)
        try:
            module = self.module if numbers else without_numbers(self.module)
            device = weight.device if numbers else "meta"
            images = torch.zeros(1, self.channels, *size, device=device, dtype=weight.dtype)
            with _told(f"looking at {self.name} on an image of {size[0]}x{size[1]} pixels, which takes its time ..."):
                found = dissect(module, images, self.taps)
        except DistilleryError as error:
            raise DistilleryError(f"{self.name}: {error}") from None
        except Exception as error:  # whatever a module says to a size that it does not take
            return None, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if found.classes != self.classes:
            raise DistilleryError(f"{self.name} gives {found.classes} logits, and the data has {self.classes} classes")
        return found, ""

    def _shown(self, images: Tensor) -> Tensor:
        return images.expand(-1, self.channels, -1, -1) if self.repeated else images

    @contextmanager
    def _tapping(self, wanted: Sequence[Tap]) -> Iterator[dict[Tap, Tensor]]:
        """While entered, calls of the module fill what is returned. The hooks live no longer than that."""
        taps: dict[Tap, Tensor] = {}
        hooks = [self._hook(tap, taps) for tap in wanted]
        try:
            yield taps
        finally:
            for hook in hooks:
                hook.remove()

    def _hook(self, tap: Tap, taps: dict[Tap, Tensor]) -> Any:
        calls = count()

        def keep(module: nn.Module, given: tuple[Tensor, ...], output: Any = None) -> None:
            if next(calls) == tap.call:
                found = given[0] if tap.before else output
                found = found.permute(0, 3, 1, 2) if tap.channels_last else found
                taps[tap] = found.clone() if tap.copied else found

        module = self.module.get_submodule(tap.module)
        return module.register_forward_pre_hook(keep) if tap.before else module.register_forward_hook(keep)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The module's own, without a prefix."""
        found: dict[str, Any] = self.module.state_dict(*args, **kwargs)
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Fill the module."""
        return self.module.load_state_dict(state_dict, strict, assign)
