"""The identity of the code that a job runs: computed, never listed.

It is the hash of the syntax trees of all modules that the job's own components (its stage, networks, objective,
plug-ins, data source) import, directly or through others. Comments and docstrings are no part of a syntax tree's
meaning, nor are imports that only type checkers see, nor what a class says of its formula's origin (`basis`), and a
registry's rows load nothing (see `meaning`): so an edited comment, or a file that the job does not use, changes
nothing, and a change in a shared helper changes every job that imports it.

A name that comes from `distillery.api` counts as imported from where that has it from.

A module that says `DECIDES_RESULTS = False` (the progress bar) is left out, with what only it imports. So is the
declaration of a task, but for the tables, which show its measures, columns and sections.

Followed are this package's modules, and what a study names itself by its place: files (`path/to/file.py:Class`), and
packages (`package.module:Class`) that are not installed, with what they import from below the project's folder. Of a
package that is installed, the version counts. Others are not followed: the record of every job names the versions of
those that decide results. Every version of Python finds the same hash.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import sys
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from distillery.data import SOURCES
from distillery.errors import DistilleryError
from distillery.models import FOREIGN, NETWORKS
from distillery.objectives import OBJECTIVES
from distillery.objectives.plugins import PLUGINS
from distillery.pipeline.meaning import DATA, PACKAGE, parsed
from distillery.recipe import recipe_components
from distillery.registry import Component
from distillery.task import TASKS, task_of

DECIDES_RESULTS = False  # how jobs are run, not what they compute (see fingerprint.py)
DECLARATIONS = {"distillery.task", *(TASKS[name].module for name in TASKS)}


class Module(NamedTuple):
    """What counts of one module.

    Attributes:
        digest: hash of its meaning; "" if it decides no result, or is no module of ours to follow.
        imported: the modules that it may import.
        files: it and the files that it names, if they are the user's.
    """

    digest: str
    imported: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


def fingerprint(stage: str, values: dict[str, Any]) -> str:
    """Hash the code of one job: of `distillery.stages.STAGE` and of every component that its values name."""
    return _code(stage, values)[0]


def own_files(stage: str, values: dict[str, Any]) -> frozenset[Path]:
    """The user's files that the hash is made of: modules, and files that these name."""
    return _code(stage, values)[1]


def installed(stage: str, values: dict[str, Any]) -> dict[str, str]:
    """The installed packages that a job's components come from, with their versions, which count in the hash."""
    packages = {c.module.partition(".")[0] for c in components(stage, values) if not c.file and not ours(c)}
    return {package: version(package) for package in sorted(packages)}


def ours(component: Component) -> bool:
    """Whether a component's code is of this package."""
    return not component.file and component.module.partition(".")[0] == PACKAGE.name


def _code(stage: str, values: dict[str, Any]) -> tuple[str, frozenset[Path]]:
    roots, named = [f"distillery.stages.{stage}"], []
    for component in components(stage, values):
        roots.append(component.module)
        named.append(f"{component.module}:{component.attribute} {sorted(component.options.items())}")
    named += [f"{package} {said}" for package, said in installed(stage, values).items()]
    if stage == "evaluate":  # which chooses the best epoch
        main = task_of(values["task"]).main
        named.append(f"best {main.name}: the {'highest' if main.higher_is_better else 'lowest'}")
    return _closure(tuple(sorted({*roots})), tuple(sorted({*named})))


def components(stage: str, values: dict[str, Any]) -> list[Component]:
    """The components whose code a job runs, by the names in its spec's values."""
    match stage:
        case "data":
            return [SOURCES[values["source"]]]
        case "teacher":
            task, trained = task_of(values["task"]), recipe_components(values["recipe"]) if "recipe" in values else []
            used = [OBJECTIVES[task.plain], task.component("training")]
            return [*_network(values["architecture"]), *used, *trained]
        case "cache":
            return [*_network(values["architecture"]), task_of(values["task"]).component("cache")]
        case "distill" | "evaluate":
            networks = [values["student"], *(teacher["architecture"] for teacher in values["teachers"].values())]
            trained = recipe_components(values["recipe"]) if stage == "distill" else []
            used = [component for name in networks for component in _network(name)]
            task = task_of(values["task"])
            used += [task.component(part) for part in ("training", *(["evaluation"] if stage == "evaluate" else []))]
            return [*used, *loss_components(values["objective"]), *trained]
        case "tables":
            return [TASKS[values["task"]["name"]]]
    return []


def _network(architecture: str) -> list[Component]:
    """A network's own code and, if it is named by its place, the code that adapts it."""
    found = NETWORKS[architecture]
    return [found, dataclasses.replace(found, module=FOREIGN, attribute="adopt")] if found.placed else [found]


def loss_components(block: dict[str, Any]) -> list[Component]:
    """The objectives and plug-ins that a method's block names."""
    losses = [OBJECTIVES[name] for name in (block["objective"], *block.get("plus", {}))]
    return losses + [PLUGINS[name] for name in block.get("plugins", {})]


def own_source(component: Component) -> Path | None:
    """The file of the user's, or the folder of a package, that a component's code lies in; None if it is installed."""
    if component.file:
        return Path(component.module)
    package = component.module.partition(".")[0]
    return None if package == PACKAGE.name else _own(package)


@cache
def _own(package: str) -> Path | None:
    """Where a package that is not installed lies: its folder, or its one file."""
    where = ""
    with suppress(ImportError, ValueError):  # no such name
        if found := importlib.util.find_spec(package):
            where = next(iter(found.submodule_search_locations or ()), found.origin or "")
    installed = {"site-packages", "dist-packages"} & {*Path(where).parts}
    return Path(where) if where and Path(where).exists() and not installed else None


@cache
def version(package: str) -> str:
    """The version of an installed package, by the name that is imported. Looks through all that are installed."""
    names = metadata.packages_distributions().get(package, ())
    return ", ".join(f"{name} {metadata.version(name)}" for name in sorted({*names}))


def tree_state() -> str:
    """Hash of all source files as they are, comments included: cheap, for noticing that nothing was edited at all."""
    digest = hashlib.sha256()
    for path in sorted(p for p in PACKAGE.rglob("*") if p.suffix == ".py" or p.suffix in DATA):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@cache
def _closure(roots: tuple[str, ...], named: tuple[str, ...]) -> tuple[str, frozenset[Path]]:
    files: set[Path] = set()
    seen: dict[str, str] = {} if "distillery.stages.tables" in roots else dict.fromkeys(DECLARATIONS, "")
    todo = [name for root in roots for name in _with_parents(root)]
    packages = {root.partition(".")[0] for root in roots}
    while todo:
        name = todo.pop()
        if name not in seen and (name.endswith(".py") or name.partition(".")[0] in packages):
            module = _module(name)
            seen[name] = module.digest
            todo += module.imported
            files |= {*module.files}
            if module.files:  # the user's own: with their helpers
                packages |= {first for n in module.imported if _beside(first := n.partition(".")[0])}
    lines = [*named, *(f"{name} {digest}" for name, digest in sorted(seen.items()) if digest)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest(), frozenset(files)


def _beside(package: str) -> bool:
    """Whether own code that imports this name gets a module of the project's folder."""
    place = None if package in sys.stdlib_module_names else _own(package)
    return place is not None and place.resolve().is_relative_to(Path.cwd())


@cache
def _module(name: str) -> Module:
    path = _file(name)
    if path is None:
        return Module("")
    try:
        digest, imported, named = parsed(path, name)
    except (OSError, SyntaxError, ValueError) as error:
        raise DistilleryError(f"cannot read the code in {path}: {error}") from None
    files = () if path.is_relative_to(PACKAGE) else (path, *named)
    return Module(digest, tuple(parent for module in sorted(imported) for parent in _with_parents(module)), files)


def _with_parents(module: str) -> list[str]:
    """A module and the packages around it, whose `__init__` runs when it is imported."""
    if module.endswith(".py"):
        return [module]
    parts = module.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _file(module: str) -> Path | None:
    """Where a module's source is; None if it is not ours to follow (or no module: a name imported from one)."""
    if module.endswith(".py"):
        return Path(module)
    first, *rest = module.split(".")
    if first == PACKAGE.name and not rest:
        return None
    folder = PACKAGE if first == PACKAGE.name else _own(first)
    if folder is None or folder.is_file():
        return None if rest else folder
    place = folder.joinpath(*rest)
    return next((p for p in (place / "__init__.py", place.with_suffix(".py")) if p.is_file()), None)
