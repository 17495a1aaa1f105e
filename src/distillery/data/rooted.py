"""Sources that are one folder of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Rooted:
    """Goes before `Photos` or `Streamed`: what is read lies in `data.root`, and where that is decides nothing."""

    config: Any

    @property
    def root(self) -> Path:
        """The folder."""
        return Path(self.config.root).expanduser()

    def files(self) -> list[Path]:
        """What is read, by content."""
        return [self.root]

    def chosen(self) -> dict[str, Any]:
        """The options that decide what is made of it."""
        values: dict[str, Any] = self.config.effective()
        return {key: value for key, value in values.items() if key != "root"}
