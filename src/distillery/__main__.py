"""`python -m distillery ...`, the same as `distillery ...`."""

from __future__ import annotations

from distillery.cli import main

if __name__ == "__main__":
    main()
