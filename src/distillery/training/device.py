"""Device, threads, precision and determinism of a run: set once, recorded with the run."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

import torch

from distillery import settings
from distillery.data.views import seed_for
from distillery.records.io import DistilleryError
from distillery.study.blocks import Recipe
from distillery.training.parallel import Ranks


def set_up(recipe: Recipe, ranks: Ranks | None = None) -> torch.device:
    """Choose the device and set threads, determinism and TF32 for this process.

    CUDA if there is one, else the CPU (DISTILLERY_DEVICE overrides); under torchrun each of a node's processes takes a
    GPU of its own. One thread unless OMP_NUM_THREADS says otherwise: two OpenMP threads beside another busy process
    were measured 10 to 30 times slower than one.

    Raises DistilleryError under torchrun, unless the caller knows what to do with its `ranks`.
    """
    if ranks is None and Ranks.launched().size > 1:
        raise DistilleryError("this stage runs in one process: start it without torchrun")
    device, launched = chosen_device(), settings.torchrun()
    if launched and ranks and ranks.size > 1 and device == torch.device("cuda"):
        device = torch.device("cuda", launched["LOCAL_RANK"])
        if device.index >= torch.cuda.device_count():
            raise DistilleryError(f"--nproc-per-node: this node has {torch.cuda.device_count()} GPU(s), one a process")
    torch.set_num_threads(settings.threads())
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)  # streams and graphs are made on the current device
    if recipe.deterministic and device.type == "cuda":
        # cuBLAS is deterministic only with a fixed workspace
        settings.set_default("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if recipe.compile:
        torch.use_deterministic_algorithms(recipe.deterministic)  # tells torch's compiler too, and so imports it
    else:
        torch.set_deterministic_debug_mode("error" if recipe.deterministic else "default")
    # Or torch would first fill every new tensor with NaN, to expose programs that read what they never wrote: a tenth
    # of a CPU step (benchmarks/deterministic.py).
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not recipe.deterministic
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = recipe.precision == "tf32"
    torch.set_flush_denormal(True)  # subnormal activations of a dying network slow a CPU down tenfold
    _keep_freed_memory()
    return device


def chosen_device() -> torch.device:
    """The device that DISTILLERY_DEVICE names, else the first CUDA device, else the CPU.

    Raises DistilleryError if it names one that is not there.
    """
    name = settings.device()
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise settings.refuse(settings.DEVICE, "cpu on this machine, where torch finds no such device")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise settings.refuse(settings.DEVICE, "cpu on this machine, where torch finds no CUDA device or no driver")
        if (device.index or 0) >= count:
            raise settings.refuse(settings.DEVICE, f"cpu, cuda or cuda:N with N below {count} on this machine")
    return device


def _keep_freed_memory() -> None:
    """Tell glibc's malloc to keep up to 1 GiB of what is freed, as torch's allocator on CUDA does.

    Else every step gives its activations back to the system and faults them in again: 4 to 6 % of a CPU step.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    with contextlib.suppress(OSError, AttributeError):  # another C library keeps its own rules
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(trim_threshold, 2**30)
        libc.mallopt(mmap_threshold, 2**27)


def autocast(recipe: Recipe, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 autocast if the recipe asks for it, else nothing."""
    if recipe.precision == "bfloat16":
        # No cache of cast weights: a captured step must cast them anew in each replay, and an eager one casts each of
        # them once anyway (measured: no difference).
        return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)
    return contextlib.nullcontext()


@contextlib.contextmanager
def seeded(*parts: object) -> Iterator[None]:
    """Run the body with torch's generators seeded by `parts` (network initialisation)."""
    torch.manual_seed(seed_for(*parts))
    yield
