"""Curves while training, for TensorBoard: off unless DISTILLERY_LIVE names a folder. The extra `live` installs it.

    DISTILLERY_LIVE=live snakemake --cores 2 &      tensorboard --logdir live

One run of TensorBoard is one training; what `fit` reports of an epoch (loss, rate, test measures) is one point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distillery import settings
from distillery.errors import DistilleryError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

DECIDES_RESULTS = False  # an edit of this file makes no job due


class Live:
    """Writes the epochs of one training; does nothing where nobody asked for it.

    Args:
        title: what is trained: "pair method seed 0". Its words are folders.
    """

    def __init__(self, title: str) -> None:
        root = settings.live()
        self.folder = root.joinpath(*title.split()) if root else None
        self.writer: SummaryWriter | None = None

    def __call__(self, record: dict[str, Any]) -> None:
        """Write an epoch. Raises DistilleryError if TensorBoard is not installed."""
        if self.folder is None:
            return
        if self.writer is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise DistilleryError(
                    f"{settings.LIVE} is set, and TensorBoard is not installed: `pip install 'distillery[live]'`, or "
                    "unset the variable"
                ) from None
            # What a killed process wrote after its last checkpoint is of epochs that are trained again.
            self.writer = SummaryWriter(str(self.folder), purge_step=record["epoch"])
        for name, value in record.items():
            if name != "epoch" and isinstance(value, int | float):
                self.writer.add_scalar(name, value, record["epoch"])
        self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
