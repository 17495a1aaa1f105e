"""Small pictures with real pixels: pieces of the two photographs that scikit-learn brings along."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor


def photographs(count: int) -> Tensor:
    """The first `count` of 520 pieces, (count, 3, 32, 32) uint8, spread over both photographs.

    They range from flat colour to fine leaves: what operations on pixels have to be tried on.
    """
    pieces = []
    for picture in load_sample_images().images:
        rows, columns = picture.shape[0] // 32, picture.shape[1] // 32
        grid = picture[: 32 * rows, : 32 * columns].reshape(rows, 32, columns, 32, 3)
        pieces.append(grid.transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32))
    in_turn = np.stack(pieces, axis=1).reshape(-1, 3, 32, 32)
    # 77 and 520 have no common factor: no piece comes twice, and a small count is spread over both photographs.
    return torch.from_numpy(in_turn[np.arange(count) * 77 % len(in_turn)].copy())
