"""The golden vectors of the networks, and their deterministic weights and images (section 2 of vectors/README.md)."""

from __future__ import annotations

import json
from functools import cache

import golden
import numpy as np
import torch
from torch import Tensor, nn

RELEASED_NAMES = {
    "resnet18": "ResNet18",
    "resnet50": "ResNet50",
    "mobilenet_v2": "MobileNetV2",
    "shufflenet_v1": "ShuffleNetV1",
    "shufflenet_v2": "ShuffleNetV2",
}
CHUNK = 1 << 16  # elements filled at once; arrays of this size stay in the cache


@cache
def facts(name: str) -> dict:
    """What the released code says of a network: keys, shapes, taps, arithmetic."""
    file = f"{RELEASED_NAMES.get(name, name)}.json"
    found = golden.folder("architectures") / file
    # A set with further outputs of known networks need not repeat what is known of them.
    return json.loads((found if found.is_file() else golden.VECTORS / "architectures" / file).read_text())


def has_outputs(name: str) -> bool:
    return (golden.folder("architectures") / f"{RELEASED_NAMES.get(name, name)}.npz").is_file()


def arrays(name: str) -> dict[str, np.ndarray]:
    """The outputs of a network with the weights below."""
    path = golden.folder("architectures") / f"{RELEASED_NAMES.get(name, name)}.npz"
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def uniform(size: int, k: int) -> np.ndarray:
    """The hash u(i, k) for i = 0 ... size - 1, in (0, 1)."""
    out = np.empty(size)
    offset = np.uint32((k * 40503 + 12345) % 2**32)
    for start in range(0, size, CHUNK):
        h = np.arange(start, min(start + CHUNK, size), dtype=np.uint32)
        h *= np.uint32(2654435761)
        h += offset
        h ^= h >> np.uint32(16)
        h *= np.uint32(2246822519)
        h ^= h >> np.uint32(13)
        h *= np.uint32(3266489917)
        h ^= h >> np.uint32(16)
        out[start : start + CHUNK] = (h + 0.5) / 2**32
    return out


def values(tag: str, kind: str, shape: tuple[int, ...], k: int) -> np.ndarray:
    """The float64 values of the k-th state-dict entry; `kind` as in the golden JSON."""
    size = int(np.prod(shape))
    phase = 0.7 * k + 0.013 * np.arange(size)
    slow = 0.3 * k + 0.017 * np.arange(size)
    match kind:
        case "bn_weight":
            flat = 1 + 0.1 * np.cos(phase)
        case "bn_bias":
            flat = 0.1 * np.sin(phase)
        case "running_mean":
            flat = 0.1 * np.sin(slow)
        case "running_var":
            flat = 1 + 0.2 * np.cos(slow) ** 2
        case "zero":
            flat = np.zeros(size)
        case "weight" if tag == "formula":
            flat = 0.05 * np.cos(phase)
        case "weight" if len(shape) > 1:
            flat = np.sqrt(6 / np.prod(shape[1:])) * (2 * uniform(size, k) - 1)
        case "weight":
            flat = 0.1 * (2 * uniform(size, k) - 1)
        case _:
            raise ValueError(f"the golden vectors have no entries of kind {kind!r}")
    return flat.reshape(shape)


def fill(network: nn.Module, tag: str, entries: list[dict]) -> None:
    """Give a network the golden weights `tag` ("formula" or "hash"); entries: the golden JSON's "state_dict"."""
    network.load_state_dict(
        {e["key"]: torch.from_numpy(values(tag, e["kind"], tuple(e["shape"]), k)) for k, e in enumerate(entries)}
    )


def images(tag: str, count: int = 4) -> Tensor:
    """The (count, 3, 32, 32) float64 golden input that goes with the weights `tag`."""
    if tag == "hash":
        return torch.from_numpy(np.sqrt(3) * (2 * uniform(count * 3072, 7) - 1)).reshape(count, 3, 32, 32)
    n, c, h, w = np.indices((count, 3, 32, 32))
    return torch.from_numpy(np.sin(0.1 * n + 0.5 * c + 0.2 * h + 0.3 * w))
