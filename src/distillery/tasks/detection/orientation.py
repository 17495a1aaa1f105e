"""How a viewer turns an image before it is shown, by its metadata."""

from __future__ import annotations

import io

from PIL import ExifTags, Image

from distillery.data.pictures import FORMATS

_MARKS = (b"eXIf", b"exif", b"Orientation")  # without one of them a PNG says nothing of it


def orientation(content: bytes) -> int:
    """EXIF's number, 1 for an image that is stored as it is shown, and for what is no image.

    TIFF files count as 1, since Pillow turns them when it decodes them.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.format == "TIFF" or (image.format == "PNG" and not any(mark in content for mark in _MARKS)):
            return 1  # of a PNG, Pillow would decode all pixels to find out
        way = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata says nothing about the orientation
        return 1
    return way if way in range(1, 9) else 1
