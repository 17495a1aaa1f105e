"""A network that sees images in a normalisation and size of its own, whatever those of the data are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillery.errors import DistilleryError
from distillery.models.base import Network, Outputs
from distillery.records.preprocessing import Preprocessing


class Seeing(Network):
    """A network with its own preprocessing before it. Everything else, the names of its weights too, is the network's.

    Images arrive normalised as the data are, x = (raw - mean) / std. The network gets
    ((x * std + mean) - own.mean) / own.std, by one product and one sum, then, where its size is another one, resized by
    antialiased interpolation; the whole image, so without the crop of an evaluation on ImageNet. Only teachers see in
    their own way, and only those whose weights were fetched: what is trained here, every student too, sees the data's
    normalisation and size.

    Args:
        own: mean and std in units of full brightness, side in pixels.
        mean, std: per channel, of the data, in the same units. Grey images become as many channels as `own` has.
    """

    def __init__(self, network: Network, own: Preprocessing, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) not in (1, len(own.mean)):
            raise DistilleryError(f"preprocessing is of {len(own.mean)} channels, and the images have {len(mean)}")
        self.network, self.own = network, own
        wide = [values if len(values) == len(own.mean) else [*values] * len(own.mean) for values in (mean, std)]
        columns = list(zip(*wide, own.mean, own.std, strict=True))
        self.gain = tuple(s / own_std for _, s, _, own_std in columns)
        self.offset = tuple((m - own_mean) / own_std for m, _, own_mean, own_std in columns)

    def forward(self, images: Tensor, preacts: bool = False) -> Outputs:
        """Map (B, channels, H, W) images, normalised as the data are, to the network's `Outputs`."""
        outputs: Outputs = self.network(self.seen(images), preacts=preacts)
        return outputs

    def seen(self, images: Tensor) -> Tensor:
        """What the network gets: (B, channels, H, W) -> (B, channels, size, size)."""
        gain, offset = _constants(self.gain, self.offset, images.dtype, images.device)
        images, size = images * gain + offset, self.own.size
        if size is None or images.shape[-2:] == (size, size):
            return images
        return F.interpolate(images, (size, size), mode=self.own.interpolation, antialias=True)

    @property
    def head(self) -> nn.Linear:
        """The network's classifier."""
        return self.network.head

    def stage_norms(self) -> list[nn.BatchNorm2d]:
        """The network's."""
        return self.network.stage_norms()

    def tail(self, features: Tensor, stage: int) -> Tensor:
        """The network's."""
        return self.network.tail(features, stage)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The network's own, without a prefix."""
        found: dict[str, Any] = self.network.state_dict(*args, **kwargs)
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Fill the network."""
        return self.network.load_state_dict(state_dict, strict, assign)


def see(network: Network, own: Preprocessing | None, mean: Sequence[float], std: Sequence[float]) -> Network:
    """The network with its own preprocessing before it, if it has one."""
    return network if own is None else Seeing(network, own, mean, std)


@cache  # without bound: captured graphs read these very tensors
def _constants(
    gain: tuple[float, ...], offset: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # the cached tensors outlive a caller in inference mode
        wide = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (gain, offset))
        first, second = (values.to(device, dtype) for values in wide)
        return first, second
