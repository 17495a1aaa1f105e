"""What a record says about the process that made it: software, hardware, code revision. Used through `artifacts`."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from distillery import settings

# What decides the results besides params.yaml, which has its own hash; results and locks that a run writes are not it.
_CODE = ("src", "workflow", "Snakefile", "dvc.yaml", "pyproject.toml", "requirements.lock")
_INSTRUCTIONS = {"avx2": "AVX2", "avx512f": "AVX-512", "amx_bf16": "AMX"}  # by which torch chooses its kernels


def environment(more: tuple[str, ...] = ()) -> dict[str, Any]:
    """Name the software and the processor of this process, `more` packages besides the usual ones.

    A job's GPU is chosen later, and added by `Work.on`.
    """
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _told_of_cpu("model name") or platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
    }
    if known := cpu_instructions():
        facts["cpu_instructions"] = ", ".join(known)
    for package in ("torch", "torchvision", "numpy", "pillow", *more):
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "absent"
    return facts


def cpu_instructions() -> list[str]:
    """The sets of instructions by which torch chooses its kernels: of the processor's those that it may use."""
    flags, kept = _told_of_cpu("flags").split(), settings.get("ATEN_CPU_CAPABILITY") == "avx2"
    return [name for flag, name in _INSTRUCTIONS.items() if flag in flags and (name == "AVX2" or not kept)]


def keep_to(instructions: str) -> None:
    """Keep this process, and those that it starts, to a study's `instructions`: before torch is loaded.

    On a processor without AVX2, as ARM's, nothing is done: torch would warn there, or crash.
    """
    if instructions == "avx2" and "AVX2" in cpu_instructions():
        settings.keep_to_avx2()


def _told_of_cpu(what: str) -> str:
    """What Linux says of the first processor, "" if nothing."""
    with suppress(OSError):
        found = re.search(rf"^{what}\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return ""


def revision(root: Path) -> str:
    """Name the git commit of the code, with "-dirty" where code or configuration differs from it.

    "unknown" without git or without a commit.
    """
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("-dirty" if _git(root, "status", "--porcelain", "--", *_CODE) else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
