"""A progress bar on a terminal, plain lines in a log, and curves for who wants them live."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from distillery.training.live import Live

DECIDES_RESULTS = False  # an edit of this file makes no job due


class Progress:
    """Reports epochs (call it with a record of `fit`) or rows (`rows(done, total)`).

    On a terminal one bar; elsewhere a line for the first, the last, and otherwise at most one every `every` seconds.
    Seconds per epoch are kept in `volatile` for the provenance file.
    """

    def __init__(self, title: str, volatile: dict[str, Any] | None = None, every: float = 10.0) -> None:
        self.title, self.every, self.last = title, every, -every
        self.seconds: list[float] = []
        self.live = Live(title)
        if volatile is not None:
            volatile.setdefault("epoch_seconds", {})[title] = self.seconds
        self.bar = None
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Bar(*columns, TextColumn("{task.fields[note]}"))
            self.task = self.bar.add_task(title, total=None, note="")

    def __enter__(self) -> Progress:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()
        self.live.close()

    def __call__(self, record: dict[str, Any]) -> None:
        """Show a finished epoch."""
        self.seconds.append(round(record["seconds"], 4))
        self.live(record)
        accuracy = record.get("test_top1")
        note = f"loss {record['loss']:.4f}" + ("" if accuracy is None else f"  test top-1 {accuracy:.2f} %")
        self.show(record["epoch"], record["epochs"], "epoch", note)

    def rows(self, done: int, total: int) -> None:
        """Show finished images of a view table."""
        self.show(done, total, "image", "")

    def show(self, done: int, total: int, unit: str, note: str) -> None:
        if self.bar:
            self.bar.update(self.task, completed=done, total=total, note=note)
        elif done == total or time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            print(f"{self.title}: {unit} {done}/{total}  {note}".rstrip(), flush=True)
