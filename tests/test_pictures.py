"""Bytes to pixels: as torchvision does it, for every kind of file that Pillow reads; damaged ones in one clause."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms as T
from own_images import drawn
from PIL import Image

from distillery.data import pictures
from distillery.data.pictures import Unreadable, decode, quietly, whole


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG file written by hand, for what Pillow cannot write."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + body


@pytest.mark.parametrize("shape", [(40, 48), (48, 40), (31, 31), (64, 33), (7, 200), (300, 451)])
@pytest.mark.parametrize("size", [32, 25, 64])
def test_crop_equals_torchvision(shape: tuple[int, int], size: int) -> None:
    image = drawn(1, *shape)
    expected = T.Compose([T.Resize(size), T.CenterCrop(size)])(image)
    assert np.array_equal(decode(encoded(image), (size, size)), expected)


@pytest.mark.parametrize("size", [(32, 32), (20, 50), (50, 20)])
def test_squash_equals_torchvision_and_both_give_the_size(size: tuple[int, int]) -> None:
    image = drawn(2)
    assert np.array_equal(decode(encoded(image), size, "squash"), T.Resize(size)(image))
    assert decode(encoded(image), size).shape == (*size, 3)
    assert decode(encoded(image), size, channels=1).shape == (*size, 1)


def test_crop_of_any_size_cuts_the_centre_and_keeps_proportions() -> None:
    wide = Image.new("RGB", (90, 30), "red")
    wide.paste("blue", (30, 0, 60, 30))
    assert (decode(encoded(wide), (30, 30)) == (0, 0, 255)).all()
    found = decode(encoded(wide), (10, 20))
    assert (found[:, 6:14] == (0, 0, 255)).all() and (found[:, [0, -1]] == (255, 0, 0)).all()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG"])
def test_all_formats_are_read_whatever_they_are_called(kind: str) -> None:
    image = drawn(3, 32, 32)
    found = decode(encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {})), (32, 32))
    tolerance = {"JPEG": 60, "GIF": 60}.get(kind, 0)
    assert np.abs(found.astype(int) - np.asarray(image)).max() <= tolerance


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "RGBA", "CMYK", "YCbCr", "I;16", "I", "RGBX"])
def test_every_mode_becomes_colour_or_grey(mode: str) -> None:
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    if mode in ("I;16", "I"):
        kind = np.uint16 if mode == "I;16" else np.int32
        image = Image.fromarray((np.asarray(grey).astype(kind) * 257).astype(kind))
        assert image.mode == mode
    else:
        image = grey.convert("RGBA").convert("PA") if mode == "PA" else grey.convert(mode)
    found = pictures._colours(image)
    assert found.mode == "RGB"
    expected = (np.asarray(grey) >= 128) * 255 if mode == "1" else np.asarray(grey)
    if mode not in ("1", "P", "PA"):
        assert np.abs(np.asarray(found).astype(int) - expected[..., None]).max() <= 2
    assert np.array_equal(np.asarray(found.convert("L")), np.asarray(found)[..., 0])


def test_colours_survive_palette_cmyk_and_opaque_alpha() -> None:
    image = drawn(4, 16, 16)
    for other in (image.convert("RGBA"), image.convert("CMYK")):
        assert np.array_equal(pictures._colours(other), image)
    few = image.quantize(8)
    assert np.array_equal(decode(encoded(few), (16, 16)), few.convert("RGB"))
    assert (
        np.abs(decode(encoded(image.convert("CMYK"), "JPEG", quality=100), (16, 16)) - np.asarray(image, int)).max() < 9
    )


def test_what_is_transparent_is_white() -> None:
    image = drawn(5, 16, 16).convert("RGBA")
    image.putalpha(Image.fromarray(np.repeat([[0], [255]], 8, axis=0).astype(np.uint8) * np.ones((1, 16), np.uint8)))
    found = decode(encoded(image), (16, 16))
    assert (found[:8] == 255).all() and np.array_equal(found[8:], np.asarray(image)[8:, :, :3])
    palette = drawn(5, 16, 16).quantize(4)
    first = palette.getpixel((0, 0))
    found = decode(encoded(palette, transparency=first), (16, 16))
    assert (found[np.asarray(palette) == first] == 255).all()


def test_of_sixteen_bits_the_upper_eight_count() -> None:
    values = np.array([[0, 255], [256, 65535]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        assert decode(encoded(Image.fromarray(values), kind), (2, 2), channels=1)[..., 0].tolist() == [[0, 0], [1, 255]]
    colour = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values.repeat(3).reshape(2, 6))
    assert decode(png(2, 2, 16, 2, colour), (2, 2))[..., 0].tolist() == [[0, 0], [1, 255]]


@pytest.mark.parametrize("upright", [True, False])
@pytest.mark.parametrize("kind", [np.uint16, np.int32])
def test_sixteen_bits_and_fractions_are_read_alike_upright_or_not(kind: type, upright: bool) -> None:
    values = np.array([[0, 255], [256, 65535]], dtype=kind)
    found = np.asarray(whole(encoded(Image.fromarray(values), "TIFF"), upright))
    assert found.shape == (2, 2, 3) and found[..., 0].tolist() == [[0, 0], [1, 255]]
    with pytest.raises(Unreadable, match="fractions"):
        whole(encoded(Image.fromarray((values / 65535).astype(np.float32)), "TIFF"), upright)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = Image.new("RGB", (32, 48), "black")
    upright.paste("white", (0, 0, 8, 8))  # a mark at the top left
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("JPEG", "PNG", "WEBP"):
        found = decode(encoded(stored, kind, exif=exif), (48, 32))
        assert found[:6, :6].min() > 200 and found[12:].max() < 60 and found[:, 12:].max() < 60, kind


def test_damaged_exif_is_no_reason_to_refuse() -> None:
    content = bytearray(encoded(drawn(6), "JPEG", exif=b"Exif\0\0MM\0\x2a" + b"\xff" * 12))
    assert decode(bytes(content), (32, 32)).shape == (32, 32, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_counts(kind: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "green")]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (decode(content, (20, 20)) == (255, 0, 0)).all()


def bomb() -> bytes:
    return png(40_000, 40_000, 1, 0, b"")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"hello, this is no picture", "it is no JPEG, PNG, WebP, BMP, GIF or TIFF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "it is no JPEG"),
        (encoded(drawn(7), "PPM"), "it is no JPEG"),
        (encoded(drawn(7), "JPEG")[:-300], "image file is truncated"),
        (encoded(drawn(7), "PNG")[:-300], ""),
        (encoded(drawn(7), "GIF")[:-300], ""),
        (encoded(drawn(7), "WEBP")[:-300], ""),
        (encoded(drawn(7), "TIFF")[:-300], ""),
        (encoded(drawn(7), "BMP")[:-300], ""),
        (encoded(drawn(7), "JPEG")[:20], ""),
        (b"\xff\xd8\xff", ""),
        (encoded(drawn(7), "PNG")[:8], ""),
        (bomb(), "pixels"),
        (png(9_500, 9_500, 1, 0, b""), "it has 9500 x 9500 pixels, more than 89 million"),
        (encoded(Image.new("RGB", (3000, 2))), "it is 3000 x 2, too narrow to be cropped"),
        (encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "its pixels are fractions"),
        (encoded(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"), "its pixels have more than 16 bits"),
    ],
)
def test_bad_files_are_refused_in_one_clause(content: bytes, why: str) -> None:
    with quietly(), pytest.raises(Unreadable) as caught:
        decode(content, (32, 32))
    assert why in str(caught.value) and "\n" not in str(caught.value) and 0 < len(str(caught.value)) <= 100


def test_narrow_images_may_be_squashed() -> None:
    assert decode(encoded(Image.new("RGB", (3000, 2))), (32, 32), "squash").shape == (32, 32, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_random_damage_is_an_image_or_a_clause_but_nothing_else(kind: str) -> None:
    content, rng = encoded(drawn(8), kind), np.random.default_rng(0)
    with quietly():
        for _ in range(150):
            broken = bytearray(content)
            for place in rng.integers(0, len(broken), 3):
                broken[place] = int(rng.integers(256))
            broken = broken[: int(rng.integers(1, len(broken) + 1))] if rng.random() < 0.3 else broken
            try:
                assert decode(bytes(broken), (16, 16)).shape == (16, 16, 3)
            except Unreadable as error:
                assert str(error) and "\n" not in str(error)


def test_views_see_what_was_decoded() -> None:
    assert torch.from_numpy(decode(encoded(drawn(9)), (8, 8)).copy()).dtype == torch.uint8
