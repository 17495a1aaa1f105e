"""Runs that were finished in another block of seeds: `seeds: ["0-4"]` grown to `["0-9"]` trains five more, not ten."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from distillery.pipeline.work import Work, decisive
from distillery.records import io as artifacts
from distillery.records.io import DistilleryError
from distillery.records.schema import RunRecord, read
from distillery.training.history import load_history


class Finished:
    """Looks for the runs of one job in the other blocks of its cell, whose folders lie beside its own.

    A run is taken over if it was trained with the same values, code and inputs, by the same packages, on the same kind
    of device. The job's own block is never looked at, so a forced repetition really trains.
    """

    def __init__(self, work: Work, hardware: dict[str, Any]) -> None:
        self.work, self.hardware = work, hardware

    def identity(self, seed: int) -> str:
        """Hash of all that determines one run, whatever block it is in: a checkpoint of another one is thrown away."""
        return artifacts.sha256_json([self._determining(self.work.head), self.hardware, seed])

    def run(self, seed: int) -> tuple[dict[str, Tensor], list[dict[str, Any]]] | None:
        """Return the weights and history of a seed, if it was finished elsewhere."""
        for folder, record in self._blocks.items():
            if seed in record.seeds:
                tensors = artifacts.load_tensors(folder / self.work.job.outputs["weights"].name)
                history = load_history(folder / self.work.job.outputs["history"].name)[str(seed)]
                print(f"seed {seed}: finished before, taken from {folder}", flush=True)
                self.work.volatile.setdefault("taken", {})[str(seed)] = str(folder)
                return {k: v for k, v in tensors.items() if k.startswith(f"{seed}.")}, history
        return None

    @cached_property
    def _blocks(self) -> dict[Path, RunRecord]:
        own, found = self.work.job.record, {}
        for path in sorted(own.parent.parent.glob(f"*/{own.name}")):
            if path == own:
                continue
            try:
                record = read(path, RunRecord)
                same = self._determining(record.model_dump()) == self._determining(self.work.head)
                whole = same and all(artifacts.sha256_file(Path(p)) == c.sha256 for p, c in record.outputs.items())
            except (DistilleryError, OSError):
                continue
            if whole and all(getattr(record, key) == value for key, value in self.hardware.items()):
                found[path.parent] = record
        return found

    def _determining(self, record: dict[str, Any]) -> Any:
        """What of a record two blocks of one cell have in common, if their runs are the same."""
        return [record["spec"]["values"], record["spec"]["code"], record["inputs"], decisive(record["environment"])]
