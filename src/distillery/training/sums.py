"""Running sums of an epoch, by name, in one vector on the device, to which a step adds in few kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Sums:
    """Float64 sums that grow by what a step counts. A name that was not there before starts at zero."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.names: list[str] = []
        self.vector = torch.zeros(0, dtype=torch.float64, device=device)
        self._places: dict[tuple[str, ...], slice | Tensor] = {}

    def add(self, names: Sequence[str], values: Tensor) -> None:
        """Add (n,) values, of any type, to the sums of n different names. The vector stays the same once all are known.

        Where the names lie side by side, as they do in all steps of a method whose terms do not vary, it is one kernel.
        """
        key = tuple(names)
        if key not in self._places:
            self._places[key] = self._find(key)
        place = self._places[key]
        if isinstance(place, slice):
            self.vector[place] += values
        else:
            self.vector.index_add_(0, place, values.to(self.vector.dtype))

    def _find(self, key: tuple[str, ...]) -> slice | Tensor:
        if new := [name for name in key if name not in self.names]:
            self.names += new
            self.vector = torch.cat([self.vector, self.vector.new_zeros(len(new))])
        at = [self.names.index(name) for name in key]
        if at == list(range(at[0], at[0] + len(at))):
            return slice(at[0], at[0] + len(at))
        return torch.tensor(at, device=self.device)

    def clear(self) -> None:
        self.vector.zero_()

    def by_name(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.vector.unbind(), strict=True))

    def load(self, sums: dict[str, Tensor]) -> None:
        """Go on from these."""
        self.names, self._places = list(sums), {}
        self.vector = torch.stack([*sums.values()]).to(self.device, torch.float64) if sums else self.vector[:0]
