"""`python -m distillery ...`, the same as `distillery ...`."""

from __future__ import annotations

from typing import Any

from distillery.records.leaving import leave_at_once, leaving_in_order


def main() -> Any:
    """Run the command line; a signal ends it in one sentence, also while it is still importing."""
    try:
        with leaving_in_order():
            from distillery.cli import main as command_line

            return command_line()
    except SystemExit as end:
        leave_at_once(end)
        raise


if __name__ == "__main__":
    main()
