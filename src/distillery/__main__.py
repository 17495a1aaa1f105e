"""`distillery ...` and `python -m distillery ...`: the code of the working copy one stands in.

An editable installation belongs to one working copy, but queued experiments of DVC and further clones have folders of
their own. Records and engines hash the source they see there, so that source must be the one that runs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from distillery import settings
from distillery.records.leaving import leaving_in_order


def main() -> Any:
    """Run the command line, with the package in ./src if there is one."""
    here, tried = Path("src/distillery").resolve(), settings.get(settings.SOURCE)
    if (here / "cli.py").exists() and here != Path(__file__).resolve().parent and tried != str(here):
        path = settings.before("PYTHONPATH", here.parent)
        found = settings.environment(PYTHONPATH=path, DISTILLERY_SOURCE=str(here))  # the second: never in a circle
        os.execve(sys.executable, [sys.executable, "-m", "distillery", *sys.argv[1:]], found)
    with leaving_in_order():
        from distillery.cli import main as command_line

        return command_line()


if __name__ == "__main__":
    main()
