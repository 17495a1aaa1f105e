"""DVC as a command of this environment; what goes wrong in it is one sentence here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from distillery import settings
from distillery.pipeline.internals import dvc_configurations
from distillery.records.io import DistilleryError

PATIENCE = 24 * 3600.0  # seconds for one command of DVC: terabytes are hashed and copied in less


class Busy(DistilleryError):
    """Another DVC process holds the lock."""


def dvc(*arguments: str) -> str:
    """Run DVC and return what it prints."""
    done = _run("dvc", *arguments)
    if not done.returncode:
        return done.stdout
    if "Unable to acquire lock" in done.stderr or " is busy" in done.stderr:
        holder = re.search(r"\((PID \d+)\)", done.stderr)
        raise Busy(
            f"another DVC command{f' ({holder[1]})' if holder else ''} is at work here: wait until it has ended, then "
            "run this one again"
        )
    errors = re.findall(r"^ERROR: (.*)", done.stderr, re.MULTILINE)
    raise DistilleryError(f"`dvc {arguments[0]}` failed{_last('; '.join(errors) or done.stderr)}")


def _run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    home = Path(sys.executable).parent
    if not (home / name).exists():
        raise DistilleryError(
            f"{name} is not installed in {home.parent}: install the environment again (`make setup`, or "
            "`pip install -r requirements.lock`)"
        )
    environment = settings.environment(PATH=settings.before("PATH", home))
    try:  # nobody could answer a question that it asks
        return subprocess.run(
            [str(home / name), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise DistilleryError(
            f"`{name} {arguments[0]}` did not end in {PATIENCE / 3600:g} hours and was stopped: see whether the disk "
            "of the DVC cache answers, then run the command again"
        ) from None


def _last(text: str) -> str:
    """How a sentence about a failure goes on: the last lines of what was printed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f": {' '.join(lines[-3:])}" if lines else " without a message"


def safe_links() -> None:
    """Refuse DVC link types through which a file of the cache can be rewritten. Cheap: reads a few small files.

    Raises:
        DistilleryError: if `cache.type` names hardlink or symlink, in any of DVC's four configuration files.
    """
    from configobj import ConfigObj  # DVC's own parser

    kinds, source = "", Path()
    for path in dvc_configurations():  # the last one that says anything counts
        if path.exists() and (value := ConfigObj(str(path)).get("cache", {}).get("type")):
            kinds, source = value if isinstance(value, str) else ",".join(value), path
    unsafe = [kind for kind in re.split(r"[,\s]+", kinds) if kind in ("hardlink", "symlink")]
    if unsafe:
        raise DistilleryError(
            f"{source} sets cache.type = {kinds}, and through a {unsafe[0]} whatever writes to an output writes into "
            "the DVC cache: run `dvc config cache.type reflink,copy`, then `dvc unprotect artifacts`"
        )
