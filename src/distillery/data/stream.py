"""Training data that are decoded anew in every epoch, from one blob, by other processes: ImageNet and its like."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillery import settings
from distillery.data.augment import Augmentations
from distillery.data.crops import Crops, draw_crops
from distillery.data.cutting import Cuts, Undecodable
from distillery.data.loader import Cached, Samples
from distillery.data.precision import dtype_of, memory_format
from distillery.data.views import copied, normalise, order
from distillery.data.workers import Cutter, Here, Workers
from distillery.errors import DistilleryError, StaleInput
from distillery.study.blocks import Recipe

if TYPE_CHECKING:
    from distillery.data.photo_set import Images, PhotoSet

GUARDED = 1000  # of so many images, one view in each epoch is summed: what tells cached outputs of other views
AT_LEAST = 8  # views summed in each epoch, of fewer images
UNGUARDED = -1  # instead of the sum


class Stream:
    """A `Loader` of encoded images: every view is decoded, cropped and resized when it is needed.

    A view is a function of (view seed, epoch, image), whoever makes it. Processes make those of the next batches while
    the device works on this one; they live until `close`, or until this object or process ends.

    Args:
        crops: what is drawn; default: as torchvision does, mirrored if the recipe's augmentation says so.
        view_seed: of the views, if not the run's: then all runs see the same ones.
        workers: processes; default: `settings.workers()`. 0: this process makes the views, when they are asked for.
    """

    static = False

    def __init__(
        self,
        data: PhotoSet,
        recipe: Recipe,
        crops: Crops | None = None,
        view_seed: int | None = None,
        workers: int | None = None,
    ) -> None:
        self.data, self.device, self.count = data, data.device, len(data.rows)
        self.batch_size, self.dtype, self.layout = recipe.batch_size, dtype_of(recipe), memory_format(recipe)
        self.crops = Crops(flip=recipe.augmentation.flip) if crops is None else crops
        self.view_seed, self.workers = view_seed, settings.workers() if workers is None else workers
        self._cutter: Cutter | None = None
        self.augment = Augmentations(recipe, data.num_classes, self.normalise, data.channels, data.scale)

    def epoch(self, seed: int, epoch: int, strong: bool = False, cached: Cached | None = None) -> StreamEpoch:
        """Lay out an epoch: an order, and a box for every image. DistilleryError if strong views are asked for."""
        if strong:
            raise DistilleryError("strong views of streamed images are not made: choose arrays, or another method")
        train, views = self.data.train, seed if self.view_seed is None else self.view_seed
        boxes, flips = draw_crops(self.crops, views, epoch, train.height, train.width)
        index = order(seed, epoch, self.count).to(torch.int32)
        guarded = max(1, min(GUARDED, len(train) // AT_LEAST))
        return StreamEpoch(self, seed, epoch, index, boxes, flips, guarded, cached)

    def splits(self) -> dict[str, StreamSplit]:
        return {name: StreamSplit(self, *of) for name, of in self.data.evaluation_splits().items()}

    def views(self, cuts: Cuts, then: Iterable[Cuts] = ()) -> Tensor:
        """Make views, (B, 3, H, W) uint8 on the CPU, in pinned memory if they go to CUDA.

        Raises DistilleryError for an image that cannot be decoded, and if a process ended by itself.
        """
        shape = (len(cuts), 3, *self.data.size)
        made = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        try:
            self._cutting().cut(cuts, made.numpy(), then)
        except Undecodable as error:
            raise StaleInput(self.data.describe(error.offset, error.why)) from None
        return made

    def inputs(self, views: Tensor) -> Tensor:
        """What networks take, (B, 3, H, W), of uint8 views."""
        return self.normalise(views.to(self.device, non_blocking=True))

    def normalise(self, images: Tensor) -> Tensor:
        """Map uint8 (B, 3, H, W) images on the device to what networks train on."""
        data = self.data
        return normalise(images, data.mean, data.std, data.scale, self.dtype).contiguous(memory_format=self.layout)

    def close(self) -> None:
        """End the processes; they are started again when views are asked for."""
        if self._cutter:
            self._cutter.close()
            self._cutter = None

    def _cutting(self) -> Cutter:
        if self._cutter is None:
            data = self.data
            workers = self.workers and Workers(data.blob, self.workers, data.size, self.batch_size)
            self._cutter = workers or Here(data.blob)
        return self._cutter


@dataclass
class StreamEpoch:
    """One epoch laid out: 21 bytes an image.

    Attributes:
        index: (N,) int32, the order: positions among the images that are trained on.
        boxes, flips: (M, 4) int32 and (M,) bool, by position in the canonical order.
        guarded: in this epoch the views of the images `epoch`, `epoch` + guarded, ... modulo that are summed.
    """

    loader: Stream
    seed: int
    epoch: int
    index: Tensor
    boxes: NDArray[np.int32]
    flips: NDArray[np.bool_]
    guarded: int
    cached: Cached | None = None

    def tensors(self) -> list[Tensor]:
        return []

    def batch(self, rows: slice | Tensor) -> Samples:
        loader, index = self.loader, self.index[rows].long()
        places = loader.data.rows[index]
        views = loader.views(self.cuts(places), self._following(rows))
        cached = self.cached(places, self.sums(places, views), self.epoch) if self.cached else []
        device = loader.device
        labels = copied(torch.from_numpy(loader.data.train.labels)[places], device)
        index = copied(index, device)
        images, targets = loader.augment(copied(views, device), labels, index, self.seed, self.epoch)
        return Samples(images, targets, index, [copied(c, device) for c in cached])

    def cuts(self, places: Tensor) -> Cuts:
        """The views of images by their positions in the canonical order."""
        at = places.numpy()
        return self.loader.data.crops(at, self.boxes[at], self.flips[at])

    def sums(self, places: Tensor, views: Tensor) -> Tensor:
        """CRC-32 of the bytes of each view, (B,) int64; UNGUARDED for all but the chosen ones."""
        found = torch.full((len(places),), UNGUARDED)
        for i in (places % self.guarded == self.epoch % self.guarded).nonzero().flatten().tolist():
            found[i] = zlib.crc32(views[i].numpy().tobytes())
        return found

    def _following(self, rows: slice | Tensor) -> Iterator[Cuts]:
        """The batches that will be asked for next, if all are slices a batch apart."""
        if isinstance(rows, slice):
            size = rows.stop - rows.start
            for start in range(rows.start + self.loader.batch_size, len(self.index), self.loader.batch_size):
                yield self.cuts(self.loader.data.rows[self.index[start : start + size].long()])


class StreamSplit:
    """A `Split` of encoded images."""

    def __init__(self, loader: Stream, images: Images, places: Tensor) -> None:
        self.loader, self.images, self.places, self.count = loader, images, places, len(places)

    def batches(self, size: int, rank: int = 0, ranks: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        loader, starts = self.loader, range(0, self.count, size)[rank::ranks]

        def cuts(start: int) -> Cuts:
            return loader.data.centres(self.images, self.places[start : start + size].numpy())

        for i, start in enumerate(starts):
            views = loader.views(cuts(start), map(cuts, starts[i + 1 :]))
            labels = torch.from_numpy(self.images.labels)[self.places[start : start + size]]
            yield loader.inputs(views), copied(labels, loader.device)
