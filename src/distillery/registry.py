"""Components by name: objectives, plug-ins, networks, data sources. A name costs nothing until its class is asked for.

A registry is a table `name -> "package.module:Class"` (as in lm-evaluation-harness). What is in no table can be named
by its place, `path/to/file.py:Class` or `package.module:Class`, so that nobody needs to edit this package.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from distillery.errors import DistilleryError
from distillery.errors.words import nearest


class Unknown(DistilleryError):
    """There is no component of this name."""


@dataclass(frozen=True)
class Component:
    """One row of a registry, or a class named by its place.

    Attributes:
        name: as a study says it.
        module: dotted name, or the path of a Python file.
        attribute: the class in it.
        options: arguments of the class that the name stands for (depth and width of a network).
    """

    kind: str
    name: str
    module: str
    attribute: str
    base: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> bool:
        """Whether the class lies in a file of the user's and not in an installed package."""
        return self.module.endswith(".py")

    @property
    def task(self) -> str:
        """The task in whose folder it lies; "" for what lies in none, as all that takes images and gives classes."""
        found = self.module.split(".")[:3]
        return found[2] if found[:2] == ["distillery", "tasks"] and len(found) == 3 else ""

    @property
    def placed(self) -> bool:
        """Whether it is named by its place, not by a row of a registry."""
        return self.name == f"{self.module}:{self.attribute}"

    def get(self) -> Any:
        """Import and return whatever the name stands for. Raises DistilleryError if it cannot be imported."""
        module = self._import()
        try:
            return getattr(module, self.attribute)
        except AttributeError:
            classes = [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__]
            raise Unknown(f"{self.module} has no {self.attribute!r}: {nearest(self.attribute, classes)}") from None

    def load(self) -> Any:
        """Import and return the class. Raises DistilleryError if it cannot be imported or is of another kind."""
        found = self.get()
        package, _, name = self.base.partition(":")
        wanted = getattr(importlib.import_module(package), name)
        if not (isinstance(found, type) and issubclass(found, wanted)):
            raise DistilleryError(f"{self.module}:{self.attribute} is no {self.kind}: derive it from {package}.{name}")
        return found

    def _import(self) -> ModuleType:
        try:
            return _from_file(Path(self.module)) if self.file else importlib.import_module(self.module)
        except DistilleryError:
            raise
        except Exception as error:  # whatever the author's code raises
            raise self.fault(f"importing {self.module}", error) from error
        except SystemExit as error:
            if type(error) is not SystemExit:  # a signal to this program
                raise
            raise DistilleryError(
                f"{self.kind} {self.name!r}: importing {self.module} ends the program{_line_in(error, self.module)}: "
                "put what calls sys.exit or reads arguments under `if __name__ == '__main__':`"
            ) from None

    def fault(self, doing: str, error: Exception) -> DistilleryError:
        """The sentence for an exception that the author's code raised."""
        said = " ".join(str(error).split())[:300]
        line = _line_in(error, self.module)
        return DistilleryError(f"{self.kind} {self.name!r}: {doing} raises {type(error).__name__}: {said}{line}")


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise Unknown(f"there is no file {path} here{_unknown_to_git(path)}")
    name = f"distillery_file_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # before it runs, as `import` does: dataclasses and pydantic look it up
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _unknown_to_git(path: Path) -> str:
    """A hint, if a file is missing in a copy of a project that DVC made for an experiment, and the project has it."""
    project = next((folder.parent for folder in Path.cwd().parents if folder.name == ".dvc"), None)
    if project is None or not (project / path).is_file():
        return ""
    return f": DVC copies what git knows of {project}: `git add {path}` there, then repeat"


def _line_in(error: BaseException, module: str) -> str:
    """Where in the author's file an exception came from, as " (line 3)"."""
    if isinstance(error, SyntaxError):
        return ""  # its message names the line
    trace, line = error.__traceback__, ""
    while trace:
        if Path(trace.tb_frame.f_code.co_filename).name == Path(module).name:
            line = f" (line {trace.tb_lineno})"
        trace = trace.tb_next
    return line


class Registry(Mapping[str, Component]):
    """Components of one kind by name.

    Args:
        kind: what to call one of them in a sentence.
        base: "package.module:Class" that all of them derive from; checked when one is loaded.
        rows: name -> "package.module:Class", or a pair of that and the options that the name stands for.
        families: prefix -> "package.module:Class" that knows every `prefix/NAME` and gets NAME as the option `name`.
        elsewhere: rows of other tasks than classification. They are found by name, but not listed: whoever goes through
            a registry goes through components that take images and classes.
    """

    def __init__(
        self,
        kind: str,
        base: str,
        rows: Mapping[str, str | tuple[str, Mapping[str, Any]]],
        families: Mapping[str, str] = {},
        elsewhere: Mapping[str, str | tuple[str, Mapping[str, Any]]] = {},
    ) -> None:
        self.kind, self.base, self.families, self._listed = kind, base, families, tuple(rows)
        self.elsewhere = tuple(elsewhere)
        self._rows: dict[str, Component] = {}
        for name, row in {**rows, **elsewhere}.items():
            target, options = row if isinstance(row, tuple) else (row, {})
            module, _, attribute = target.partition(":")
            self._rows[name] = Component(kind, name, module, attribute, base, options)

    def __getitem__(self, name: str) -> Component:
        """Return a component, imported or not. Raises Unknown, with the nearest known name."""
        if name in self._rows:
            return self._rows[name]
        module, colon, attribute = str(name).rpartition(":")
        if colon and module and attribute.isidentifier():
            return Component(self.kind, name, module, attribute, self.base)
        family, slash, rest = str(name).partition("/")
        if slash and family in self.families:
            module, _, attribute = self.families[family].partition(":")
            return Component(self.kind, name, module, attribute, self.base, {"name": rest})
        raise Unknown(f"unknown {self.kind} {name!r}: {nearest(name, self._rows)}")

    @property
    def names(self) -> tuple[str, ...]:
        """All names, those of other tasks too."""
        return tuple(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)

    def __contains__(self, name: object) -> bool:
        return name in self._rows
