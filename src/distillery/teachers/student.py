"""A student of another study as a teacher: is it there, is it whole, and does it see and name the same things?"""

from __future__ import annotations

from pathlib import Path

from distillery.data.dataset import Dataset
from distillery.records.header import Header
from distillery.records.io import DistilleryError, sha256_file
from distillery.records.schema import RunRecord, read


def serves(teacher: str, path: Path, seed: int, architecture: str, data: Dataset) -> None:
    """Raise DistilleryError if a student cannot teach; one sentence says why and what to do.

    Args:
        teacher: its name in this study.
        path: its `students.safetensors`, below the `artifacts` folder of its own study.
        seed: which student of the file.
        architecture: what this study says it is.
        data: what it is to teach about.
    """
    study, _, pair, method, _, _ = path.parts[-6:]
    whose = f"teachers.{teacher}: the student of {pair} by {method}, seed {seed}, of study {study!r}"
    if not path.exists():
        raise DistilleryError(f"{whose} is not there ({path}): run study {study!r} first, then this one")
    record = read(path.with_name("runs.json"), RunRecord)
    if sha256_file(path) != record.sha256(path):
        raise DistilleryError(f"{whose} is not the one that its record describes: run study {study!r} again")
    header = Header.read(path)
    if seed not in header.seeds:
        raise DistilleryError(f"{whose} is not in {path}, which holds {', '.join(map(str, header.seeds))}")
    if header.architecture != architecture:
        raise DistilleryError(f"{whose} is a {header.architecture}: say so in teachers.{teacher}.architecture")
    if header.predicts:
        objective = header.objective["objective"]
        raise DistilleryError(
            f"{whose} predicts through modules of {objective}, which are no part of the network, so it cannot teach: "
            "choose a student of another method"
        )
    here = (data.class_names, data.scale, data.mean, data.std)
    if here != (header.class_names, header.scale, header.mean, header.std):
        raise DistilleryError(
            f"{whose} was trained on other classes or with another normalisation than this study has: it has to see "
            "the images as its own study shows them"
        )
