"""Images with boxes on their way to the step: batches of views, padded to one size, and the objects in them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor

from distillery import settings
from distillery.data.blob import Blob
from distillery.data.loader import Cached, Samples
from distillery.data.precision import dtype_of
from distillery.data.views import copied, normalise, order, seed_for
from distillery.study.blocks import Recipe
from distillery.tasks.detection.augment import SizeGated
from distillery.tasks.detection.data import BoxData, Split
from distillery.tasks.detection.detections import BOX, CLASS, COLUMNS, PADDED, SIZE, Pictures
from distillery.tasks.detection.gating import gate
from distillery.tasks.detection.views import Size, View, apply, draw, fitted

Made = tuple[Tensor, Tensor, Tensor, Tensor | None]  # image, classes, corners, adversarial twin
NOTHING = (torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))  # classes and corners of an image without objects


class BoxLoader:
    """A `Loader` of images that are decoded when they are needed, by threads one batch ahead.

    The last images of an epoch that do not fill a batch are left out, others in every epoch, as ViDT does: a batch that
    several processes share then has one for each of them.
    """

    static = False

    def __init__(self, data: BoxData, recipe: Recipe) -> None:
        self.data, self.device, self.size, self.dtype = data, data.device, recipe.batch_size, dtype_of(recipe)
        self.flip, count = recipe.augmentation.flip, len(data.train)
        self.view_seed = recipe.augmentation.view_seed
        self.count = count // self.size * self.size or count
        self.gate = next((part for part in recipe.augmentations() if isinstance(part, SizeGated)), None)
        self.most = data.train.most()
        self._blob: Blob | None = None
        self._pool: ThreadPoolExecutor | None = None

    @property
    def blob(self) -> Blob:
        if self._blob is None:
            self._blob = Blob(self.data.blob)
        return self._blob

    @property
    def pool(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max(1, settings.workers()))
        return self._pool

    def epoch(self, seed: int, epoch: int, strong: bool = False, cached: Cached | None = None) -> BoxEpoch:
        index = order(seed, epoch, len(self.data.train))[: self.count]
        return BoxEpoch(self, seed if self.view_seed is None else self.view_seed, epoch, index, strong)

    def view(self, seed: int, epoch: int, row: int) -> View:
        """What becomes of a training image in an epoch of a run."""
        data, size = self.data, self.data.train.size(row)
        number = int(data.rows[row])  # what is held out changes no view
        view = draw(seed, epoch, number, size, data.scales, data.max_side, data.crop, self.flip)
        if self.gate is None or epoch > self.gate.config.until:
            return view
        return gate(view, self.gate.config, data.train.objects(row)[1], size, seed_for(seed, epoch, number, "gate"))

    def splits(self) -> dict[str, BoxSplit]:
        return {n: BoxSplit(self, s) for n, s in (("test", self.data.test), ("val", self.data.val)) if len(s)}

    def inputs(self, images: list[Tensor], size: Size) -> Pictures:
        """Normalise images and pad them to a size."""
        whole = torch.zeros(len(images), 3, *size, dtype=torch.uint8)
        padding = torch.ones(len(images), *size, dtype=torch.bool)
        for i, image in enumerate(images):
            whole[i, :, : image.shape[1], : image.shape[2]] = image
            padding[i, : image.shape[1], : image.shape[2]] = False
        whole, padding = copied(whole, self.device), copied(padding, self.device)
        normal = normalise(whole, self.data.mean, self.data.std, 255.0, self.dtype)
        return Pictures(normal.masked_fill(padding[:, None], 0.0), padding)


@dataclass
class BoxEpoch:
    """One epoch in its order. What becomes of an image is drawn when it is asked for."""

    loader: BoxLoader
    seed: int
    epoch: int
    index: Tensor
    strong: bool
    ahead: tuple[slice, list[Future[Made]]] | None = None

    def tensors(self) -> list[Tensor]:
        return [self.index]

    def batch(self, rows: slice | Tensor) -> Samples:
        """Give some rows of one batch. All processes pad them to what the whole batch needs."""
        assert isinstance(rows, slice)
        if self.ahead is None or self.ahead[0] != rows:
            self.ahead = (rows, self._asked(rows))
        made = [future.result() for future in self.ahead[1]]
        step = self.loader.size  # the same share of the next batch
        then = slice(rows.start + step, min(rows.stop + step, len(self.index)))
        self.ahead = (then, self._asked(then))
        size, device = self._padded(rows), self.loader.device
        images, labels, corners, twins = zip(*made, strict=True)
        targets = torch.stack(
            [
                of_image(kinds, at, (i.shape[1], i.shape[2]), size, self.loader.most)
                for i, kinds, at in zip(images, labels, corners, strict=True)
            ]
        )
        return Samples(
            self.loader.inputs(list(images), size),
            copied(targets, device),
            copied(self.index[rows], device),
            strong=self.loader.inputs(list(twins), size) if self.strong else None,
        )

    def _asked(self, rows: slice) -> list[Future[Made]]:
        return [self.loader.pool.submit(self._make, at) for at in range(rows.start, rows.stop)]

    def _make(self, at: int) -> Made:
        data, row, view = self.loader.data, int(self.index[at]), self._view(at)
        image = data.image(self.loader.blob, data.train, row)
        labels, corners = data.train.objects(row)
        twin = None
        if self.strong:
            assert data.twins is not None
            twin = apply(view.clean(), data.twins.image(int(data.rows[row])), *NOTHING)[0]
        return *apply(view, image, labels, corners), twin

    def _padded(self, rows: slice) -> Size:
        first = rows.start // self.loader.size * self.loader.size
        sizes = [self._view(at).final for at in range(first, min(first + self.loader.size, len(self.index)))]
        return max(h for h, _ in sizes), max(w for _, w in sizes)

    def _view(self, at: int) -> View:
        return self.loader.view(self.seed, self.epoch, int(self.index[at]))


def of_image(labels: Tensor, corners: Tensor, size: Size, padded: Size, most: int) -> Tensor:
    """The objects of one image as targets: (most, 9), rows without an object last. See `detections.CLASS`."""
    found = torch.zeros(most, COLUMNS)
    found[:, CLASS] = -1.0
    found[: len(labels), CLASS] = labels.float()
    scale = torch.tensor([size[1], size[0]], dtype=torch.float32)
    low, high = corners[:, :2] / scale, corners[:, 2:] / scale
    found[: len(labels), BOX] = torch.cat([(low + high) / 2, high - low], dim=1)
    found[:, SIZE], found[:, PADDED] = torch.tensor(size).float(), torch.tensor(padded).float()
    return found


class BoxSplit:
    """A `Split` that is tested on: images resized to the short side, in canonical order."""

    def __init__(self, loader: BoxLoader, split: Split) -> None:
        self.loader, self.of, self.count = loader, split, len(split)

    def batches(self, size: int, rank: int = 0, ranks: int = 1) -> Iterator[tuple[Pictures, Tensor]]:
        """Give pictures and, as their targets, (B, 5): which images, their size as given, and as it was."""
        data, starts = self.loader.data, range(0, self.count, size)[rank::ranks]
        parts = [range(start, min(start + size, self.count)) for start in starts]
        ahead = self._asked(parts[0]) if parts else []  # a process may have no part of a small test set
        for rows, then in zip_longest(parts, parts[1:], fillvalue=range(0)):
            images = [future.result() for future in ahead]
            ahead = self._asked(then)
            most = (max(i.shape[1] for i in images), max(i.shape[2] for i in images))
            facts = [(row, *i.shape[1:], *self.of.size(row)) for row, i in zip(rows, images, strict=True)]
            yield self.loader.inputs(images, most), copied(torch.tensor(facts), data.device)

    def _asked(self, rows: range) -> list[Future[Tensor]]:
        return [self.loader.pool.submit(self._make, row) for row in rows]

    def _make(self, row: int) -> Tensor:
        data = self.loader.data
        size = fitted(self.of.size(row), data.short_side, data.max_side)
        return apply(View(False, None, None, size), data.image(self.loader.blob, self.of, row), *NOTHING)[0]
