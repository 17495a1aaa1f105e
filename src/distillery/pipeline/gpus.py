"""A GPU for a job on a workstation, or in an allocation: whoever starts more jobs than there are GPUs has them wait.

Each GPU has a few places (DISTILLERY_PER_GPU, one by default), each a locked file in the machine's temporary folder,
which the kernel lets go of however the process ends. What Slurm started is for itself: it has numbered GPUs of its own,
which its jobs share out among them. Nothing here imports torch: the GPU must be chosen before.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distillery import settings
from distillery.errors import DistilleryError
from distillery.pipeline.job import Job

DECIDES_RESULTS = False  # how jobs are run, not what they compute (see fingerprint.py)
STAGES = ("teacher", "cache", "distill", "evaluate")  # which use one
_PATIENCE = 0.5  # seconds between two looks for a free place


@contextmanager
def gpu_for(job: Job) -> Iterator[str | None]:
    """Hold a place on a GPU while the job is made, and let the process see this GPU alone. Yields its name.

    None, and nothing is held or hidden: where there is no GPU, where DISTILLERY_DEVICE names the device, and where
    torchrun gives GPUs to processes.
    """
    managed = settings.device() or settings.torchrun()
    known = [] if managed or job.stage not in STAGES else gpus()
    if not known:
        yield None
        return
    name, descriptor = _place(known)
    try:
        settings.use_gpu(name)
        yield name
    finally:
        os.close(descriptor)


_GPU_IS_FULL = (
    "the GPU's memory is full: lower `recipe.batch_size`, `cache.batch_size` or `at_once`, or DISTILLERY_PER_GPU where "
    "jobs share the GPU"
)
# What torch says of a job that this machine, or these settings, cannot do, and what its user can do.
_REMEDIES = {
    "out of memory": _GPU_IS_FULL,
    "STATUS_ALLOC_FAILED": _GPU_IS_FULL,  # of cuBLAS and cuDNN, which take memory of their own
    "allocate memory": "this machine's memory is full: lower `recipe.batch_size` or `cache.batch_size`, or run fewer "
    "jobs at once",
    "Expected more than 1 value per channel when training": "the last batch holds one image, and the network "
    "normalises over a single value there: choose another `recipe.batch_size`",
    "does not have a deterministic implementation": "network or method has an operation that never gives the same bits "
    "twice on this device: set `recipe.deterministic: false` for it, or take another one",
}


@contextmanager
def explained() -> Iterator[None]:
    """Make a sentence for the user of what torch says where machine or settings, not the program, are at fault."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        for said, remedy in _REMEDIES.items():
            if said in str(error):
                first = str(error).strip().partition("\n")[0].partition(", but you set")[0]
                raise DistilleryError(f"{remedy} ({first[:200]})") from error
        raise


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (visible := settings.visible_gpus()) is not None:
        return visible
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    # "GPU 0: NVIDIA H100 (UUID: GPU-6f...)"; of one that is divided, its parts: lines below it that begin with "MIG".
    return re.findall(r"UUID: (MIG-[\w/-]+|GPU-[\w-]+(?=\)(?!\s+MIG )))", listed)


def _place(known: list[str]) -> tuple[str, int]:
    """Wait for a free place; return the GPU, and the descriptor that holds the place."""
    whose = "-".join(filter(None, (str(os.getuid()), settings.slurm_task())))
    folder = Path(tempfile.gettempdir(), f"distillery-gpus-{whose}")
    folder.mkdir(mode=0o700, exist_ok=True)
    told = False
    while True:
        for number in range(settings.per_gpu()):
            for name in known:
                path = folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', name)}.{number}"
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return name, descriptor
                except BlockingIOError:
                    os.close(descriptor)
        if not told:
            print(f"waiting for one of {len(known)} GPU(s), which other jobs use", flush=True)
            told = True
        time.sleep(_PATIENCE)
