"""Every environment variable that Distillery reads: settings of a machine, not of a study. Nothing here imports torch.

An empty variable counts as one that is not set, but for CUDA's own. A value that cannot be meant is refused in one
sentence that names the variable, the value and what is accepted.
"""

from __future__ import annotations

import math
import os
import re
from itertools import takewhile
from pathlib import Path

from distillery.errors import DistilleryError

CIFAR100 = "DISTILLERY_CIFAR100"
CACHE = "DISTILLERY_CACHE"
DEVICE = "DISTILLERY_DEVICE"
LIVE = "DISTILLERY_LIVE"
PER_GPU = "DISTILLERY_PER_GPU"
SECONDS = "DISTILLERY_CHECKPOINT_SECONDS"
SCRATCH = "DISTILLERY_SCRATCH"
SHARE = "DISTILLERY_SHARE"
SOURCE = "DISTILLERY_SOURCE"  # set by `python -m distillery` for the process that takes its place
THREADS = "OMP_NUM_THREADS"
WORKERS = "DISTILLERY_WORKERS"
# What keeps torch, oneDNN and MKL to instructions that nearly all x86-64 processors of ten years have. MKL has one
# mode with equal bits on those of all makers, and uses less still in it: linear layers are all that it computes here.
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE"}


def check() -> None:
    """Refuse wrong values before any work is done, and spare libraries those that are empty."""
    device(), threads(), workers(), checkpoint_seconds(), cifar100(), cache(), scratch(), live(), per_gpu(), share()
    if get(THREADS) is None:
        os.environ.pop(THREADS, None)  # OpenMP, loaded with torch, would complain of an empty one


def get(name: str) -> str | None:
    """A variable's value without blanks around it; None if it is not set, or empty."""
    return os.environ.get(name, "").strip() or None


def refuse(name: str, accepted: str) -> DistilleryError:
    """The sentence about a wrong value."""
    return DistilleryError(
        f"the environment variable {name} is {os.environ.get(name, '')!r}, but must be {accepted}: change or unset it"
    )


def device() -> str | None:
    """The device to train on, as torch names it; None: the first CUDA device if there is one, else the CPU."""
    value = get(DEVICE)
    if value and not re.fullmatch(r"cpu|mps|cuda(:\d+)?", value):
        raise refuse(DEVICE, "cpu, cuda, cuda:N (a GPU by its number) or mps")
    return value


def threads() -> int:
    """Threads of torch. OpenMP allows a list with a number for each level of nesting, of which the first counts."""
    value = get(THREADS) or "1"
    first = value.partition(",")[0].strip()
    if not re.fullmatch(r"\d{1,5}", first) or int(first) < 1:
        raise refuse(THREADS, "a whole number of threads such as 1")
    return int(first)


def workers(images: int | None = None) -> int:
    """Processes that decode streamed images; 0: the training process does. Default: one for each core, at most 16.

    Under torchrun the processes of a node share its cores. Starting a process takes as long as decoding several hundred
    small images, so of so many `images` each is to have 256 at least.
    """
    value = get(WORKERS)
    if value is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        here = get("LOCAL_WORLD_SIZE") or "1"
        most = 16 if images is None else min(16, -(-images // 256))
        return max(1, min(cores // max(1, int(here) if torchrun() and here.isdecimal() else 1), most))
    if not re.fullmatch(r"\d{1,3}", value):
        raise refuse(WORKERS, "a whole number of processes such as 8")
    return int(value)


def checkpoint_seconds() -> float:
    """Seconds of work that a kill may cost."""
    value = get(SECONDS) or "60"
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise refuse(SECONDS, "a number of seconds such as 60 (0: after every epoch)")
    return seconds


def cifar100() -> Path | None:
    """Where CIFAR-100 lies on this machine."""
    return _folder(CIFAR100)


def cache() -> Path:
    """Where downloads are kept."""
    return _folder(CACHE) or (_folder("XDG_CACHE_HOME") or _expanded("the home folder", "~/.cache")) / "distillery"


def live() -> Path | None:
    """Where curves are written while training, for TensorBoard; None: nowhere."""
    return _folder(LIVE)


def per_gpu() -> int:
    """Jobs that may use one GPU of this machine at the same time."""
    value = get(PER_GPU) or "1"
    if not re.fullmatch(r"\d{1,3}", value) or int(value) < 1:
        raise refuse(PER_GPU, "a whole number of jobs such as 2")
    return int(value)


def share() -> bool:
    """Whether data, teachers and tables that another study made here are copied instead of made again."""
    value = get(SHARE) or "1"
    if value not in ("0", "1"):
        raise refuse(SHARE, "1 (copy what another study made here) or 0 (make everything again)")
    return value == "1"


def visible_gpus() -> list[str] | None:
    """The GPUs that CUDA is told to use, by number or identifier; None: all of them.

    Read as CUDA does: an empty value means none, and what follows a name that no GPU has (-1, Slurm's NoDevFiles) is
    not looked at.
    """
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    return [*takewhile(re.compile(r"\d+|(GPU|MIG)-.+").fullmatch, map(str.strip, value.split(",")))]


def use_gpu(name: str) -> None:
    """Let this process, before it loads torch, see one GPU alone."""
    os.environ["CUDA_VISIBLE_DEVICES"] = name


def scratch() -> Path | None:
    """A folder on the node's own disk."""
    return _folder(SCRATCH)


def _folder(name: str) -> Path | None:
    value = get(name)
    return None if value is None else _expanded(f"the environment variable {name}", value)


def _expanded(what: str, path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise DistilleryError(
            f"{what} leads to {path!r}, but there is no such user or no HOME here: write the whole path"
        ) from None


def slurm_job() -> str | None:
    """The number of the Slurm job that this process belongs to."""
    return get("SLURM_JOB_ID")


def slurm_task() -> str:
    """The job, step and task that Slurm started this process, or the one that it comes from, as; "" without Slurm."""
    return "-".join(filter(None, map(get, ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID"))))


def torchrun() -> dict[str, int] | None:
    """RANK, WORLD_SIZE and LOCAL_RANK as torchrun numbers its processes; None without torchrun."""
    if get("TORCHELASTIC_RUN_ID") is None:
        return None
    found = {name: get(name) or "" for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    for name, value in found.items():
        if not value.isdecimal():
            raise refuse(name, "the number that torchrun gives it beside TORCHELASTIC_RUN_ID")
    return {name: int(value) for name, value in found.items()}


def environment(**changes: str) -> dict[str, str]:
    """The whole environment, with some variables changed, for another process."""
    return {**os.environ, **changes}


def before(name: str, folder: Path) -> str:
    """The value of a variable that lists folders, such as PATH, with one more folder before the others."""
    return os.pathsep.join(filter(None, (str(folder), get(name))))


def keep_to_avx2() -> None:
    """Have libraries that this process loads later, and processes that it starts, use AVX2 at most."""
    os.environ.update(AVX2)


def set_default(name: str, value: str) -> None:
    """Set a variable for libraries that read it later in this process, unless it is set."""
    if get(name) is None:
        os.environ[name] = value
