"""From the bytes of an image file to pixels of a given size, by Pillow.

What comes out equals torchvision's `Resize` (bilinear, antialiased) and `CenterCrop` on the image as a viewer shows it:

* the first frame of an animation or of several pages; turned as its EXIF orientation says;
* grey, palette and CMYK images become colour as Pillow converts them; colour profiles are not applied;
* what is transparent is laid on white;
* of 16 bits a channel the upper 8 count, in grey images too.

Refused, in one clause: empty, damaged and cut files, and other formats, whatever a file is called; pixels that are
fractions or beyond 16 bits; more than 89 million pixels; what is too narrow to be cropped.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from distillery.data.arrays import Bytes

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 89_478_485  # a quarter of a gigabyte of colours: where Pillow too begins to suspect an attack
MAX_RATIO = 50  # of the sides of an image that is cropped: what is resized before is that much longer than the crop
Resize = Literal["crop", "squash"]


class Unreadable(Exception):
    """Why bytes are no picture that can be used; one clause."""


def decode(content: bytes, size: tuple[int, int], resize: Resize = "crop", channels: int = 3) -> Bytes:
    """Decode an image file.

    Args:
        size: height and width of the result.
        resize: "crop" makes the image just cover `size`, keeping its proportions, and cuts out the centre (for a square
            `size`: the short side is resized to it); "squash" resizes each side.
        channels: 3, or 1 for grey.

    Returns:
        (height, width, channels) uint8.

    Raises:
        Unreadable: if it is no image of the known formats, or one that cannot be used.
    """
    with _in_one_clause():
        image = whole(content)
        if channels == 1:
            image = image.convert("L")
        image = squash(image, size) if resize == "squash" else crop(image, size)
        return np.asarray(image).reshape(*size, channels)


def whole(content: bytes, upright: bool = True) -> Image.Image:
    """Decode an image file to RGB, in its own size.

    Args:
        upright: as a viewer shows it, see above. Without, as torchvision's `ImageFolder` reads it: Pillow's plain
            conversion, whatever EXIF says of the orientation and whatever is transparent. Of 16 bits the upper 8 count
            in both, and fractions are refused: Pillow's conversion would make them white or black.

    Raises:
        Unreadable: if it is no image of the known formats, or one that cannot be used.
    """
    if not content:
        raise Unreadable("it is empty")
    with _in_one_clause():
        image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise Unreadable(f"it has {image.width} x {image.height} pixels, more than {MAX_PIXELS // 10**6} million")
        image.load()
        return _colours(_upright(image) if upright else image, upright)


def is_plain(content: bytes, upright: bool = True) -> bool:
    """Whether a readable file is a colour or grey JPEG that `whole` neither turns nor converts from other colours.

    Every decoder that uses libjpeg-turbo gives the same pixels for it.
    """
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    if image.format != "JPEG" or image.mode not in ("RGB", "L"):
        return False
    try:
        return not upright or image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    except Exception:  # damaged metadata says nothing about the orientation
        return True


@contextmanager
def _in_one_clause() -> Iterator[None]:
    """Turn whatever the decoders raise into Unreadable."""
    try:
        yield
    except Unreadable:
        raise
    except UnidentifiedImageError:
        raise Unreadable("it is no JPEG, PNG, WebP, BMP, GIF or TIFF") from None
    except Exception as error:  # whatever the decoders raise on damaged files
        said = " ".join(str(error).split()).rstrip(".")
        raise Unreadable(said[:100] or type(error).__name__) from None


@contextmanager
def quietly() -> Iterator[None]:
    """Keep Pillow's warnings about single files off the console: `decode` refuses what matters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def squash(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize to a height and width."""
    return image.resize(size[::-1], Image.Resampling.BILINEAR)


def crop(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize so that the image just covers a height and width, and cut out the centre."""
    (height, width), (wide, high) = size, image.size
    if max(wide, high) > MAX_RATIO * min(wide, high):
        raise Unreadable(f"it is {wide} x {high}, too narrow to be cropped")
    if wide * height >= high * width:
        covering = (height, max(width, int(height * wide / high)))
    else:
        covering = (max(height, int(width * high / wide)), width)
    image = squash(image, covering)
    top, left = (round((covering[i] - size[i]) / 2.0) for i in (0, 1))
    return image.crop((left, top, left + width, top + height))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata says nothing about the orientation
        return image


def _colours(image: Image.Image, upright: bool = True) -> Image.Image:
    """Bring any mode of Pillow's to RGB; `upright`: what is transparent is laid on white."""
    if image.mode == "F":
        raise Unreadable("its pixels are fractions: save it with 8 or 16 bits a channel")
    if image.mode.startswith("I"):  # 16 bits; "I" itself has 32
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65_535:
            raise Unreadable("its pixels have more than 16 bits: save it with 8 or 16 bits a channel")
        image = Image.fromarray((values >> 8).astype(np.uint8))
    elif upright and image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")
