"""Another operation on every image of a batch: the engine of RandAugment, in both its readings, and of colour jitter.

The operations are those of Pillow, value for value. They fall into three families (tables, mixtures, affine maps), and
each family is computed once for all its images, whichever operation of it they get.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distillery.imaging import colour
from distillery.imaging.draw import Draw
from distillery.imaging.geometry import Colour, Matrix, affine, affine_smooth, rotation

Rows = Tensor | slice
Warp = Callable[[Tensor, Matrix, Rows], Tensor]

TABLES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "autocontrast": lambda images, _: colour.autocontrast(images),
    "equalise": lambda images, _: colour.equalise(images),
    "invert": lambda images, _: colour.invert(images),
    "posterise": colour.posterise,
    "solarise": colour.solarise,
    "solarise_add": colour.solarise_add,
}
MIXTURES: dict[str, Callable[[Tensor], Tensor]] = {
    "brightness": colour.black,
    "colour": colour.grey,
    "contrast": colour.mean_grey,
    "sharpness": colour.smooth,
}
MAPS: dict[str, Callable[[Tensor, int, int], list[Tensor | float]]] = {
    "rotate": rotation,
    "shear_x": lambda v, height, width: [1.0, v, 0.0, 0.0, 1.0, 0.0],
    "shear_y": lambda v, height, width: [1.0, 0.0, 0.0, v, 1.0, 0.0],
    "translate_x": lambda v, height, width: [1.0, 0.0, v * width, 0.0, 1.0, 0.0],
    "translate_y": lambda v, height, width: [1.0, 0.0, 0.0, 0.0, 1.0, v * height],
}
NAMES = ("identity", *TABLES, *MIXTURES, *MAPS)


def changed(images: Tensor, keep: Tensor, change: Callable[[Rows], Tensor]) -> Tensor:
    """Replace the images where the (B,) boolean `keep` holds by `change(rows)`, the changed images of some rows.

    On a CPU these are just the rows in question. Elsewhere they are all rows: to know which would be to wait for the
    device, and shapes that depend on the data cannot be captured in a graph.
    """
    if not images.is_cpu:
        return torch.where(keep.view(-1, 1, 1, 1), change(slice(None)), images)
    rows = keep.nonzero().squeeze(1)
    if not len(rows):
        return images
    images = images.clone()
    images[rows] = change(rows)
    return images


def perform(images: Tensor, operation: Tensor, argument: Tensor, warp: Warp | None = None) -> Tensor:
    """Do `NAMES[operation[i]]` to image i.

    Args:
        images: (B, 3, H, W) uint8.
        operation: (B,) int64.
        argument: (B,) float64: bits that are kept; threshold; what is added; factor of a mixture; degrees; shear;
            translation of the grid that is fetched, as a share of width or height. Not read for the others.
        warp: (images, matrix, rows) -> images, for operations of `MAPS`; the nearest pixel, zeros outside.
    """
    numbers = {name: number for number, name in enumerate(NAMES)}

    def tables(rows: Rows) -> Tensor:
        some, which, value = images[rows], operation[rows], argument[rows]
        table = colour.levels(some)
        for name, make in TABLES.items():
            table = torch.where((which == numbers[name])[:, None, None], make(some, value), table)
        return colour.look_up(some, table)

    def mixtures(rows: Rows) -> Tensor:
        some, which = images[rows], operation[rows]
        base = some.int()
        for name, make in MIXTURES.items():
            base = torch.where((which == numbers[name])[:, None, None, None], make(some), base)
        return colour.blend(base, some, argument[rows])

    def maps(rows: Rows) -> Tensor:
        some, which, value = images[rows], operation[rows], argument[rows]
        matrix: list[Tensor | float] = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        for name, make in MAPS.items():
            of_this = which == numbers[name]
            entries = zip(make(value, *some.shape[-2:]), matrix, strict=True)
            matrix = [torch.where(of_this, new, old) for new, old in entries]
        return warp(some, matrix, rows) if warp else affine(some, matrix)

    for family, change in ((TABLES, tables), (MIXTURES, mixtures), (MAPS, maps)):
        first, last = (numbers[name] for name in (next(iter(family)), list(family)[-1]))
        images = changed(images, (operation >= first) & (operation <= last), change)
    return images


def choose(options: dict[str, Tensor | float], number: Tensor) -> tuple[Tensor, Tensor]:
    """Of some operations with their arguments, (B,) or one value each, take `number`[i] for image i.

    Returns what `perform` takes: operations and arguments, (B,) each.
    """
    known = torch.stack([torch.full_like(number, NAMES.index(name)) for name in options], 1)
    blank = torch.zeros(len(number), dtype=torch.float64, device=number.device)
    values = torch.stack([blank + value for value in options.values()], 1)
    return tuple(table.gather(1, number[:, None]).squeeze(1) for table in (known, values))  # type: ignore[return-value]


def interpolating(cubic: Tensor | bool, fill: Colour) -> Warp:
    """Interpolate between pixels, bicubic or bilinear, with a colour outside."""

    def warp(images: Tensor, matrix: Matrix, rows: Rows) -> Tensor:
        kind = cubic[rows] if isinstance(cubic, Tensor) else cubic
        return affine_smooth(images, matrix, kind, fill)

    return warp


def colour_jitter(images: Tensor, draw: Draw, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Change brightness, contrast and saturation, in random order, by factors from [max(0, 1 - v), 1 + v)."""
    spans = {"brightness": brightness, "contrast": contrast, "colour": saturation}
    options: dict[str, Tensor | float] = {
        name: draw.uniform(low=max(0.0, 1 - span), high=1 + span) for name, span in spans.items()
    }
    order = draw.uniform(len(options)).argsort(1)
    for number in order.unbind(1):
        images = perform(images, *choose(options, number))
    return images
