"""Random numbers that are a pure function of (key, epoch, image), drawn on the device without asking the host.

They come from a hash of a counter (SplitMix64: Steele, Lea and Flood, OOPSLA 2014) and not from a generator with a
state: any batch of any epoch can be drawn again, alone and in any order of images, whatever was drawn before. All of it
is tensor arithmetic of fixed shapes, so a captured CUDA graph replays it with the epoch and the images of the moment.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # as int64, whose products wrap
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64
_TRIES = 12  # of a rejection that takes 95 % and more: all fail once in 4e15


class Draw:
    """A stream of numbers for every image of a batch.

    Successive calls give independent numbers. What one image gets does not depend on the others in its batch.

    Args:
        key: 64 bits that name the purpose: a seed of the run and the name of the augmentation.
        epoch: a whole number, or a () tensor of it on the device of `index`.
        index: (B,) int64 positions in the training set.
    """

    def __init__(self, key: int, epoch: int | Tensor, index: Tensor) -> None:
        if not isinstance(epoch, Tensor):
            epoch = torch.full((), epoch, dtype=torch.int64, device=index.device)
        self.state = _hash(index * _GOLDEN + _hash(epoch.long() * _GOLDEN + key))
        self.at = 0

    def __len__(self) -> int:
        return len(self.state)

    def each(self) -> Draw:
        """The stream of every image, from where it is now."""
        return self.rows(slice(None))

    def first(self) -> Draw:
        """The stream of the batch as a whole, B = 1: that of its first image, which is first once in an epoch."""
        return self.rows(slice(0, 1))

    def pairs(self) -> Draw:
        """The same stream for the images i and B - 1 - i."""
        at = torch.arange(len(self), device=self.state.device)
        return self.rows(torch.minimum(at, at.flip(0)))

    def rows(self, keep: Tensor | slice) -> Draw:
        """The streams of some rows, from where these are now."""
        found = object.__new__(Draw)
        found.state, found.at = self.state[keep], self.at
        return found

    def bits(self, *shape: int) -> Tensor:
        """(B, *shape) int64, all 64 bits of them random."""
        count = math.prod(shape)
        counter = torch.arange(self.at + 1, self.at + count + 1, device=self.state.device)
        self.at += count
        return _hash(self.state[:, None] + counter * _GOLDEN).view(-1, *shape)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(B, *shape) float64 in [low, high)."""
        return low + (high - low) * (_upper(self.bits(*shape), 53).double() * 2.0**-53)

    def below(self, count: int | Tensor, *shape: int) -> Tensor:
        """(B, *shape) int64 in [0, count); `count` may be a tensor of that shape."""
        return (self.uniform(*shape) * count).floor().long()

    def normal(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """(B, *shape) of mean 0 and deviation 1 (Box and Muller; 32 bits each for radius and angle)."""
        bits = self.bits(*shape)
        radius = ((_upper(bits, 32) + 1).to(dtype) * 2.0**-32).clamp(max=1.0).log().mul(-2.0).sqrt()
        return radius * ((bits & 0xFFFFFFFF).to(dtype) * (2 * math.pi * 2.0**-32)).cos()

    def beta(self, alpha: float) -> Tensor:
        """(B,) float64 from Beta(alpha, alpha): a ratio of two Gamma variates, taken in logarithms."""
        return (self._log_gamma(alpha) - self._log_gamma(alpha)).sigmoid()

    def _log_gamma(self, alpha: float) -> Tensor:
        """Logarithm of a Gamma(alpha) variate (Marsaglia and Tsang 2000, for alpha + 1, times U ** (1 / alpha))."""
        d = alpha + 2 / 3
        x, u = self.normal(_TRIES), self.uniform(_TRIES)
        v = (1 + x / math.sqrt(9 * d)) ** 3
        log_v = v.clamp(min=1e-300).log()
        taken = (v > 0) & (u.log() < 0.5 * x**2 + d - d * v + d * log_v)
        found = log_v.gather(1, taken.int().argmax(1, keepdim=True)).squeeze(1)
        return math.log(d) + found + (1 - self.uniform()).log() / alpha


def _upper(bits: Tensor, count: int) -> Tensor:
    """The uppermost `count` of 64 bits."""
    return (bits >> (64 - count)) & ((1 << count) - 1)


def _hash(value: Tensor) -> Tensor:
    value = (value ^ _upper(value, 34)) * _FIRST
    value = (value ^ _upper(value, 37)) * _SECOND
    return value ^ _upper(value, 33)
