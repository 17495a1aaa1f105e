"""Training data that are decoded anew in every epoch, from one blob, by other processes: ImageNet and its like."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import TYPE_CHECKING, NamedTuple

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
from distillery.errors import StaleInput
from distillery.study.blocks import Recipe

if TYPE_CHECKING:
    from distillery.data.photo_set import Images, PhotoSet
    from distillery.data.strong import Strengths

GUARDED = 1000  # of so many images, one view in each epoch is summed: what tells cached outputs of other views
AT_LEAST = 8  # views summed in each epoch, of fewer images
AHEAD = 3  # batches that are asked for beforehand where each comes in two views
UNGUARDED = -1  # instead of the sum


class Stream:
    """A `Loader` of encoded images: every view is decoded, cropped and resized when it is needed.

    A view is a function of (view seed, epoch, image), whoever makes it. Processes make those of the next batches while
    the device works on this one; they live until `close`, or until this object or process ends.

    Args:
        crops: what is drawn; default: what the recipe's augmentation says, and as torchvision does where it is silent.
        workers: processes; default: `settings.workers()`. 0: this process makes the views, when they are asked for.
    """

    static = False

    def __init__(
        self,
        data: PhotoSet,
        recipe: Recipe,
        crops: Crops | None = None,
        workers: int | None = None,
    ) -> None:
        self.data, self.device, self.count = data, data.device, len(data.rows)
        self.batch_size, self.dtype, self.layout = recipe.batch_size, dtype_of(recipe), memory_format(recipe)
        said = recipe.augmentation.model_dump(include={"scale", "ratio", "flip"}, exclude_none=True)
        self.crops = Crops(**said) if crops is None else crops
        self.view_seed = recipe.augmentation.view_seed
        self.workers = settings.workers(len(data.train) + len(data.test)) if workers is None else workers
        self._cutter: Cutter | None = None
        self._read: dict[StreamEpoch, slice] = {}  # of unfinished epochs the last rows, the last one read at the end
        self.augment = Augmentations(recipe, data.num_classes, self.normalise, data.channels, data.scale)

    def epoch(self, seed: int, epoch: int, strong: bool = False, cached: Cached | None = None) -> StreamEpoch:
        """Lay out an epoch: an order, and a box for every image; with `strong` also what makes its strong view."""
        train, views = self.data.train, seed if self.view_seed is None else self.view_seed
        drawn = draw_crops(self.crops, views, epoch, train.height, train.width)
        index = order(seed, epoch, self.count).to(torch.int32)
        guarded = max(1, min(GUARDED, len(train) // AT_LEAST))
        second = self._strong(views, epoch) if strong else None
        return StreamEpoch(self, views, epoch, index, drawn, guarded, cached, second)

    def _strong(self, seed: int, epoch: int) -> Strong:
        from distillery.data.strong import Strengths, strong_generator

        train = self.data.train
        crops = draw_crops(self.crops, seed, epoch, train.height, train.width, "strong crops")
        return Strong(crops, Strengths.drawn(len(train), strong_generator(seed, epoch)))

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

    def after(self, epoch: StreamEpoch, rows: slice | Tensor) -> Iterator[Cuts]:
        """What will be asked for when these rows of an epoch are made: by students in turn, each from its own epoch.

        Made ahead for one student alone, it would be thrown away when the next one asks.
        """
        again = next(reversed(self._read), None) is epoch
        self._read.pop(epoch, None)
        if isinstance(rows, slice) and rows.start + self.batch_size < len(epoch.index):
            self._read[epoch] = rows
        turns = {epoch: rows} if again else self._read
        batches = zip_longest(*(each.following(last) for each, last in turns.items()), fillvalue=())
        return chain.from_iterable(chain.from_iterable(batches))

    def inputs(self, views: Tensor) -> Tensor:
        """What networks take, (B, 3, H, W), of uint8 views."""
        return self.normalise(views.to(self.device, non_blocking=True))

    def normalise(self, images: Tensor) -> Tensor:
        """Map uint8 (B, 3, H, W) images on the device to what networks train on."""
        data = self.data
        return normalise(images, data.mean, data.std, data.scale, self.dtype).contiguous(memory_format=self.layout)

    def close(self) -> None:
        """End the processes; they are started again when views are asked for."""
        self._read.clear()
        if self._cutter:
            self._cutter.close()
            self._cutter = None

    def _cutting(self) -> Cutter:
        if self._cutter is None:
            data = self.data
            workers = self.workers and Workers(data.blob, self.workers, data.size, self.batch_size)
            self._cutter = workers or Here(data.blob)
        return self._cutter


Drawn = tuple[NDArray[np.int32], NDArray[np.bool_]]  # (M, 4) boxes and (M,) flips, by place in the canonical order


class Strong(NamedTuple):
    """The strong views of an epoch: their crops, and what happens to them then."""

    crops: Drawn
    strengths: Strengths


@dataclass(eq=False)
class StreamEpoch:
    """One epoch laid out: 21 bytes an image, and 73 more with strong views.

    Attributes:
        seed: of the views.
        index: (N,) int32, the order: positions among the images that are trained on.
        crops: of all images.
        guarded: in this epoch the views of the images `epoch`, `epoch` + guarded, ... modulo that are summed.
    """

    loader: Stream
    seed: int
    epoch: int
    index: Tensor
    crops: Drawn
    guarded: int
    cached: Cached | None = None
    strong: Strong | None = None

    def tensors(self) -> list[Tensor]:
        return []

    def batch(self, rows: slice | Tensor) -> Samples:
        loader, device, index = self.loader, self.loader.device, self.index[rows].long()
        places = loader.data.rows[index]
        wanted = [self.cuts(places, drawn) for drawn in self._drawn()]
        after = [*islice(loader.after(self, rows), 2 * AHEAD)] if self.strong else loader.after(self, rows)
        views = loader.views(wanted[0], chain(wanted[1:], after))
        second = None
        if self.strong:
            again = copied(loader.views(wanted[1], after), device)
            second = loader.normalise(self.strong.strengths.apply(again, places))
        cached = self.cached(places, self.sums(places, views), self.epoch) if self.cached else []
        labels = copied(torch.from_numpy(loader.data.train.labels)[places], device)
        index = copied(index, device)
        images, targets = loader.augment(copied(views, device), labels, index, self.seed, self.epoch)
        return Samples(images, targets, index, [copied(c, device) for c in cached], second)

    def _drawn(self) -> list[Drawn]:
        return [self.crops, *([self.strong.crops] if self.strong else [])]

    def cuts(self, places: Tensor, drawn: Drawn) -> Cuts:
        """Views of images by their positions in the canonical order."""
        at, (boxes, flips) = places.numpy(), drawn
        return self.loader.data.crops(at, boxes[at], flips[at])

    def sums(self, places: Tensor, views: Tensor) -> Tensor:
        """CRC-32 of the bytes of each view, (B,) int64; UNGUARDED for all but the chosen ones."""
        found = torch.full((len(places),), UNGUARDED)
        for i in (places % self.guarded == self.epoch % self.guarded).nonzero().flatten().tolist():
            found[i] = zlib.crc32(views[i].numpy().tobytes())
        return found

    def following(self, rows: slice | Tensor) -> Iterator[list[Cuts]]:
        """The views of each batch that will be asked for next, if all are slices a batch apart."""
        if isinstance(rows, slice):
            size = rows.stop - rows.start
            for start in range(rows.start + self.loader.batch_size, len(self.index), self.loader.batch_size):
                places = self.loader.data.rows[self.index[start : start + size].long()]
                yield [self.cuts(places, drawn) for drawn in self._drawn()]


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
