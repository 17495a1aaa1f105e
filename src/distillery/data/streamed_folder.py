"""Own images in folders, too many for arrays: listed as by the source `folder`, decoded anew in every epoch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from distillery.data.listing import FRACTION, Listing, list_folder
from distillery.data.rooted import Rooted
from distillery.data.streamed import Streamed


class StreamedFolder(Rooted, Streamed):
    """The files of the source `folder`: `listing.py` says how they are listed, `pictures.py` how they are read."""

    class Config(Streamed.Config):
        root: str
        """The folder; a relative path starts where the commands are run."""
        test: str | None = None
        """Name of the test folder in it, where it has several that might be it."""
        test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
        """Of each class, where there is no test folder; default 0.2."""

    config: Config

    def selection(self) -> dict[str, Any]:
        values = self.chosen()
        share = FRACTION if values["test_fraction"] is None else values["test_fraction"]
        return self.usual(values) | {"test_fraction": share}

    def listing(self) -> Listing:
        return list_folder(self.root, self.config.test, self.config.test_fraction)
