"""What the pipeline needs besides the package: Snakefile, rules, profiles, ready-made studies; a folder of one's own.

A checkout has these files at its root; a wheel carries them inside the package (setup.py puts them there).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distillery.errors import DistilleryError
from distillery.errors.words import nearest
from distillery.records.files import atomic_path

DECIDES_RESULTS = False
_WITHIN = Path(__file__).parent / "project_files"  # in a wheel
_CHECKOUT = Path(__file__).parents[2]
STUDIES, PROFILES = Path("workflow/studies"), Path("workflow/profiles")
_SNAKEFILE = """\
# The pipeline for the study in params.yaml: `snakemake --cores 2`. Rules and code are those of the installed package.
from distillery.project import snakefile


include: snakefile()


localrules:
    study,


rule study:
    default_target: True
    input:
        rules.all.input,
"""
_COPIED = ("dvc.yaml", ".dvcignore", "workflow/plots/curves.json")
_IGNORED = (
    "/artifacts\n/data/\n/.snakemake/\n/.dvc-remote/\n/exports/\n/dvc_plots/\n.snakemake_timestamp\n__pycache__/\n"
)


def root() -> Path:
    """The folder that holds the files. Raises DistilleryError where the package was installed without them."""
    for folder in (_WITHIN, _CHECKOUT):
        if (folder / "Snakefile").is_file():
            return folder
    raise DistilleryError(
        "the workflow's files are not beside the package: install the wheel again, or work in a checkout"
    )


def snakefile() -> str:
    """Where the Snakefile is that a project's own one includes."""
    return str(root() / "Snakefile")


def studies() -> dict[str, Path]:
    """The ready-made studies by name: those in the current folder, then those that come with Distillery."""
    found = sorted(STUDIES.glob("*.yaml")) + sorted((root() / STUDIES).glob("*.yaml"))
    return dict(sorted({path.stem: path for path in reversed(found)}.items()))


def study(name: str) -> Path:
    """Where a ready-made study is. Raises DistilleryError, with the nearest known name."""
    known = studies()
    if name not in known:
        raise DistilleryError(f"no ready-made study {name!r}: {nearest(name, list(known))}")
    return known[name]


def content(path: Path) -> bytes:
    """What is in a ready-made study. Raises DistilleryError if it cannot be read: a link to nothing, a folder."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DistilleryError(f"{path} cannot be read ({error.strerror}): put a study there, or remove it") from None


def chosen(config: Mapping[str, Any]) -> Path:
    """The study that `snakemake --config study=NAME` or `--config params=PATH` names; params.yaml without either.

    Raises DistilleryError for any other key: a study's parameters are set in its file, where DVC sees them too.
    """
    if unknown := [key for key in config if key not in ("study", "params")]:
        raise DistilleryError(
            f"--config {unknown[0]}=...: only study=NAME and params=PATH are known; parameters are set in params.yaml"
        )
    if len(config) == 2:
        raise DistilleryError("--config study=... and params=... were both given: drop one")
    if "params" in config:
        return Path(str(config["params"]))
    return study(str(config["study"])) if "study" in config else Path("params.yaml")


@dataclass
class Started:
    """What `start` did, by path within the folder: files that it wrote, and files that were there and differ."""

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def start(folder: Path, name: str, force: bool = False) -> Started:
    """Make a folder in which a study can be run: params.yaml, a Snakefile, profiles, what DVC and git need.

    A file that is there stays as it is, unless `force`. Raises DistilleryError in a checkout of Distillery itself.
    """
    source, chosen, did = root(), study(name), Started()
    if folder.resolve() == source.resolve():
        raise DistilleryError(
            f"{folder} is the checkout of Distillery, which is a project already: name another folder"
        )
    contents = {"Snakefile": _SNAKEFILE.encode(), "params.yaml": content(chosen), ".gitignore": _IGNORED.encode()}
    contents |= {path: (source / path).read_bytes() for path in _COPIED}
    for name in ("default", "slurm"):  # where Snakemake looks for them: beside the Snakefile
        contents[f"profiles/{name}/config.yaml"] = (source / PROFILES / name / "config.yaml").read_bytes()
    for path, text in contents.items():
        target = folder / path
        _room_for(target)
        if not target.is_file() or target.read_bytes() != text:
            (did.kept if os.path.lexists(target) and not force else did.written).append(path)
    new = {parent for path in did.written for parent in (folder / path).parents if not parent.exists()}
    try:
        with ExitStack() as all_or_none:
            for path in did.written:
                all_or_none.enter_context(atomic_path(folder / path)).write_bytes(contents[path])
    except BaseException:
        for parent in sorted(new, reverse=True):
            with suppress(OSError):  # not even made
                parent.rmdir()
        raise
    link = folder / "slurm"  # so that `snakemake --profile slurm` works in the folder
    if link.is_symlink() and not link.exists():  # to nothing
        if force:
            link.unlink()
        else:
            did.kept.append("slurm")
    if not os.path.lexists(link):
        try:
            link.symlink_to(Path("profiles/slurm"), target_is_directory=True)
        except OSError:  # a file system without links
            shutil.copytree(folder / "profiles" / "slurm", link)
        did.written.append("slurm")
    return did


def _room_for(target: Path) -> None:
    """Refuse a folder where a file of the project belongs, and a file where a folder does."""
    if target.is_dir():
        raise DistilleryError(f"{target} is a folder, and a project has a file of this name: move it away")
    for parent in target.parents:
        if os.path.lexists(parent) and not parent.is_dir():
            raise DistilleryError(f"{parent} is no folder, and a project needs one there: move it away")
