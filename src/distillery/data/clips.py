"""Clips as images: the frames are the channels. numpy only.

A clip of T frames is an image of T * C channels, the C colours of the first frame, then those of the second, and so on:
(H, W, T * C). Crops, tables, caches and records then hold for clips as they do for images; networks that know of
time (`distillery.models.resnet3d`) take the channels apart again.
"""

from __future__ import annotations

import numpy as np

from distillery.data.arrays import Bytes
from distillery.data.pixels import mean_and_std


def stacked(frames: Bytes) -> Bytes:
    """Lay the frames of (..., T, H, W, C) clips behind one another in the channels: (..., H, W, T * C)."""
    moved = np.moveaxis(frames, -4, -2)
    return np.ascontiguousarray(moved.reshape(*moved.shape[:-2], -1))


def constants_of(clips: Bytes, frames: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each colour over all frames of (N, H, W, T * C) clips, once for every channel.

    One pair for all frames, so that normalising makes no difference between one moment and another.
    """
    mean, std = mean_and_std(
        clips.reshape(*clips.shape[:-1], frames, -1).reshape(len(clips), -1, 1, clips.shape[-1] // frames)
    )
    return mean * frames, std * frames
