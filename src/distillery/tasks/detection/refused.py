"""What is refused of images and boxes that fit each other not: then the boxes are of something else."""

from __future__ import annotations

from distillery.errors import DistilleryError
from distillery.tasks.detection.listing import Item


def see_turned(items: list[Item], heights: list[int], widths: list[int], turned: dict[str, int]) -> int:
    """Raise DistilleryError for images that EXIF turns, while they are read as stored: boxes may be elsewhere.

    Where annotations give the sides as they are stored, the boxes count as those of what is read: official data sets
    are annotated so. Returns how many images EXIF turns in a way that changes no side, of which that is only assumed.
    """
    assumed = 0
    for item, height, width in zip(items, heights, widths, strict=True):
        way = turned.get(str(item.path), 1)
        if way != 1 and item.size != (width, height):
            raise DistilleryError(
                f"{item.path} has the EXIF orientation {way}, so that its boxes may be those of the turned image: "
                "store it turned, without the orientation mark"
            )
        assumed += way != 1 and (way < 5 or width == height)  # from 5 on a quarter turn is in it
    return assumed


def see_sizes(items: list[Item], heights: list[int], widths: list[int]) -> None:
    """Raise DistilleryError for images of another size than their annotations say: their boxes are elsewhere.

    In the annotations of many a data set the sides are swapped, and the boxes right: where these fit, they count.
    """
    for item, height, width in zip(items, heights, widths, strict=True):
        said = item.size or (width, height)
        boxes = [found.box for found in item.objects]
        fit = all(x + w <= width + 1 and y + h <= height + 1 for x, y, w, h in boxes)
        if said != (width, height) and not (said == (height, width) and fit):
            then = "turn the image or the boxes" if said == (height, width) else "take the image that was annotated"
            raise DistilleryError(
                f"{item.path} has {width} x {height} pixels, but {said[0]} x {said[1]} in its annotations: {then}"
            )


def see_units(where: str, items: list[Item], heights: list[int], widths: list[int]) -> None:
    """Raise DistilleryError for boxes in units of the image, or of corners, where pixels, width and height are meant.

    A few boxes that reach far beyond their images are cut, and counted.
    """
    ends = [
        (x + w, y + h, width, height)
        for item, height, width in zip(items, heights, widths, strict=True)
        for x, y, w, h in (found.box for found in item.objects)
        if not item.relative
    ]
    if ends and all(max(right, bottom) <= 1 for right, bottom, _, _ in ends):
        raise DistilleryError(
            f"{where}: every box lies within one pixel: give boxes in pixels, not in shares of the image"
        )
    far = sum(right > width + 2 or bottom > height + 2 for right, bottom, width, height in ends)
    if far > max(2, len(ends) / 3):
        raise DistilleryError(
            f"{where}: {far:,} of {len(ends):,} boxes end outside of their images: give pixels of these, in COCO's "
            "format as left, top, width and height"
        )
