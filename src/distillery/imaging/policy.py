"""Another operation on every image of a batch: the engine of RandAugment, in both its readings, and of colour jitter.

The operations are those of Pillow, value for value. They fall into three families: tables, mixtures, affine maps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

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


def at_once(images: Tensor) -> bool:
    """Whether operations are done on all images and chosen from, not each on its own ones: everywhere but on a CPU.

    To know which rows an operation gets would be to wait for the device, and shapes that depend on the data cannot be
    captured in a graph.
    """
    return not images.is_cpu


def changed(images: Tensor, keep: Tensor, change: Callable[[Rows], Tensor]) -> Tensor:
    """Replace the images where the (B,) boolean `keep` holds by `change(rows)`, the changed images of some rows.

    These are the rows in question, or all of them where everything is done at once.
    """
    if at_once(images):
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

    def tables(names: list[str], rows: Rows) -> Tensor:
        some, which, value = images[rows], operation[rows], argument[rows]
        table = colour.levels(some)
        for name in names:
            table = torch.where((which == numbers[name])[:, None, None], TABLES[name](some, value), table)
        return colour.look_up(some, table)

    def mixtures(names: list[str], rows: Rows) -> Tensor:
        some, which = images[rows], operation[rows]
        base = some.int()
        for name in names:
            base = torch.where((which == numbers[name])[:, None, None, None], MIXTURES[name](some), base)
        return colour.blend(base, some, argument[rows])

    def maps(names: list[str], rows: Rows) -> Tensor:
        some, which, value = images[rows], operation[rows], argument[rows]
        matrix: list[Tensor | float] = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        for name in names:
            of_this = which == numbers[name]
            entries = zip(MAPS[name](value, *some.shape[-2:]), matrix, strict=True)
            matrix = [torch.where(of_this, new, old) for new, old in entries]
        return warp(some, matrix, rows) if warp else affine(some, matrix)

    together = [(list(TABLES), tables), (list(MIXTURES), mixtures), (list(MAPS), maps)]
    apart = [([name], change) for names, change in together[:2] for name in names]
    for names, change in together if at_once(images) else [*apart, together[2]]:
        mine = (operation >= numbers[names[0]]) & (operation <= numbers[names[-1]])
        images = changed(images, mine, partial(change, names))
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
