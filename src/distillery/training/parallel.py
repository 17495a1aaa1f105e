"""Several processes train one student: each takes its share of every batch, and all end with the same weights.

`torchrun --nproc-per-node 4 -m distillery distill ...` starts them; without torchrun there is one process, and nothing
here does anything. The result is that of one process with the same batch size, up to rounding:

* The objective sees the whole batch. Every process gathers the networks' outputs, with gradient, and computes the same
  loss, so that losses that couple the images of a batch (relations, contrasts, correlations) are exact. Each then sends
  the gradient back through its own rows only.
* Batch normalisation takes its statistics over the whole batch (norm.py).
* The student's gradients are summed over the shares; those of the objective's own modules are equal everywhere.

What networks draw while they train (drop path, dropout) each process draws for its own rows, and mixup and cutmix mix
its own images: other numbers than those of one process. What the objective draws is the same everywhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from distillery import settings
from distillery.data.views import seed_for
from distillery.objectives.base import Batch
from distillery.records.io import DistilleryError, sha256_json

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)  # for a process that another one waits for; it may be copying data to its node


@dataclass(frozen=True)
class Ranks:
    """The processes that share a run, seen from one of them: its number `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @classmethod
    def launched(cls) -> Ranks:
        """Ask torchrun's environment; one process where there is none."""
        launched = settings.torchrun()
        return cls(launched["RANK"], launched["WORLD_SIZE"]) if launched else cls()

    @property
    def first(self) -> bool:
        """Whether this process writes what there is to write: outputs, records, checkpoints, progress."""
        return self.rank == 0

    def once(self, manager: AbstractContextManager[T]) -> AbstractContextManager[T | None]:
        """Return `manager` for the first process to enter, and for the others one that does nothing."""
        return manager if self.first else nullcontext()

    @contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """Be connected to the others: CUDA tensors by NCCL (gloo, where processes share one GPU), others by gloo.

        Raises DistilleryError if another process of the run dies meanwhile.
        """
        if self.size == 1:
            yield
            return
        shared = ":" in (settings.device() or "")
        backend = "gloo" if shared or device.type == "cpu" else "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, timeout=PATIENCE)
        yield
        dist.destroy_process_group()

    @contextmanager
    def own_draws(self, rows: Any, device: torch.device) -> Iterator[None]:
        """Draw for this process's part of a slice of rows; afterwards all processes go on alike.

        From the seed of the epoch, which checkpoints keep, and not from how much was drawn before.
        """
        if self.size == 1:
            yield
            return
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed_for(torch.initial_seed(), "rank", self.rank, rows.start))
            yield

    def share(self, rows: Any) -> Any:
        """Return this process's part of a slice of rows; parts differ by one row at most, and may be empty."""
        if self.size == 1:
            return rows
        start, count = rows.start, rows.stop - rows.start
        return slice(start + self._bound(count, self.rank), start + self._bound(count, self.rank + 1))

    def _bound(self, count: int, rank: int) -> int:
        return count * rank // self.size

    def gather(self, batch: Batch, rows: Any, needs: Collection[str]) -> Batch:
        """All-gather the batch of which every rank has a share of `rows`; of the taps only those in `needs`."""
        if self.size == 1:
            return batch
        bounds = [self._bound(rows.stop - rows.start, r) for r in range(self.size + 1)]

        def whole(own: Tensor) -> Tensor:
            return _Gather.apply(own, bounds, self.rank)

        found = batch.of_all(lambda outputs: outputs.only(needs).each(whole))
        return replace(found, targets=whole(batch.targets), index=whole(batch.index))

    def reduce(self, student: Iterable[Tensor], objective: Iterable[Tensor]) -> None:
        """Make gradients those of the whole batch, the same bits on every process."""
        if self.size == 1:
            return
        gradients = [p.grad for p in student if p.grad is not None]
        alike = [p.grad for p in objective if p.grad is not None]
        for gradient in alike:  # equal already, but for the last bit if the device is not deterministic: take the mean
            gradient /= self.size
        gradients += alike
        flat = self.total(torch.cat([g.reshape(-1) for g in gradients]))
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def total(self, values: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.size > 1:
            with _blaming_peers():
                dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Tell every process whether the flag is up on one of them."""
        return bool(self.total(torch.tensor(int(flag)))) if self.size > 1 else flag

    def agree(self, *facts: Any) -> None:
        """Raise DistilleryError unless every process says the same: they may see different files."""
        if self.size == 1:
            return
        number = int(sha256_json(facts)[:15], 16)
        extremes = torch.tensor([number, -number])
        with _blaming_peers():
            dist.all_reduce(extremes, dist.ReduceOp.MAX)
        if extremes.tolist() != [number, -number]:
            raise DistilleryError(
                "the processes of this run disagree about its inputs or its checkpoint: let every node see the same "
                "files and have the same hardware and packages, then start again"
            )


ALONE = Ranks()


class _Gather(torch.autograd.Function):
    """All-gather, in the order of ranks. Backward: slice this rank's rows from the full gradient."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, bounds: list[int], rank: int) -> Tensor:
        ctx.mine = slice(bounds[rank], bounds[rank + 1])
        sizes = [end - start for start, end in itertools.pairwise(bounds)]
        even = own.new_zeros(max(sizes), *own.shape[1:])  # collectives want equal shapes
        even[: len(own)] = own
        parts = [torch.empty_like(even) for _ in sizes]
        with _blaming_peers():
            dist.all_gather(parts, even)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0][ctx.mine], None, None


class Sum(torch.autograd.Function):
    """Sum over all processes, with gradient: what everybody computes from the sum comes back to every addend."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.clone()
        with _blaming_peers():
            dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return Sum.apply(gradients[0])


@contextmanager
def _blaming_peers() -> Iterator[None]:
    """A broken connection means that another process has ended: its own message is the one that counts."""
    try:
        yield
    except RuntimeError as error:
        raise DistilleryError(
            "another process of this run has ended or does not answer, so this one stops too: the first message above "
            "says why"
        ) from error
