"""Device, threads, precision and determinism of a run: set once, recorded with the run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from distillery.data.views import seed_for
from distillery.study import Recipe


def set_up(recipe: Recipe) -> torch.device:
    """Choose the device and set threads, determinism and TF32 for this process.

    CUDA if there is one, else the CPU (DISTILLERY_DEVICE overrides). One thread unless OMP_NUM_THREADS says otherwise:
    two OpenMP threads beside another busy process were measured 10 to 30 times slower than one.
    """
    device = torch.device(os.environ.get("DISTILLERY_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if recipe.deterministic and device.type == "cuda":
        os.environ.setdefault(
            "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
        )  # cuBLAS is deterministic only with a fixed workspace
    torch.use_deterministic_algorithms(recipe.deterministic)
    torch.backends.cudnn.benchmark = not recipe.deterministic
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = recipe.precision == "tf32"
    torch.set_flush_denormal(True)  # subnormal activations of a dying network slow a CPU down tenfold
    return device


def dtype_of(recipe: Recipe) -> torch.dtype:
    """The type of weights and inputs (bfloat16 is autocast over float32 weights)."""
    return torch.float64 if recipe.precision == "float64" else torch.float32


def autocast(recipe: Recipe, device: torch.device) -> contextlib.AbstractContextManager:
    """bfloat16 autocast if the recipe asks for it, else nothing."""
    if recipe.precision == "bfloat16":
        # The weight cache would hold casts from before the update when a captured step is replayed.
        return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)
    return contextlib.nullcontext()


@contextlib.contextmanager
def seeded(*parts: object) -> Iterator[None]:
    """Run the body with torch's generators seeded by `parts` (network initialisation)."""
    torch.manual_seed(seed_for(*parts))
    yield
