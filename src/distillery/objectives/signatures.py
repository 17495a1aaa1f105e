"""The hyper-parameters of every objective and plug-in, read from the source without importing torch.

Engines parse the study at every start; importing torch there would cost seconds. So names, types and defaults of
hyper-parameters are taken from the syntax tree of the one public class in each file: its keyword-only arguments.
"""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

HERE = Path(__file__).parent
ROOTS = {"Objective": HERE, "Plugin": HERE / "plugins", "Selector": HERE / "plugins"}


@dataclass(frozen=True)
class Signature:
    """One objective or plug-in: class name, hyper-parameters as {name: (annotation, default)}, docstring, source."""

    name: str
    cls: str
    kind: str
    hyper: dict[str, tuple[str, Any]]
    needs: frozenset[str]
    doc: str
    path: Path

    def mistakes(self, values: dict[str, Any], where: str = "") -> list[str]:
        """Return one sentence for each unknown key or ill-typed value."""
        from distillery.study.check import nearest

        problems = []
        for key, value in values.items():
            if key not in self.hyper:
                problems.append(f"unknown key {where + key!r}: {nearest(key, list(self.hyper))}")
                continue
            annotation, _ = self.hyper[key]
            try:
                adapter = TypeAdapter(eval(annotation, {"Literal": Literal, "__builtins__": _TYPES}))
                adapter.validate_python(value, strict=not isinstance(value, int) or isinstance(value, bool))
            except ValidationError as error:
                problem = error.errors()[0]["msg"].removeprefix("Input should be ")
                problems.append(f"{where}{key}: {problem}, not {value!r}")
        return problems


_TYPES = {t.__name__: t for t in (int, float, bool, str, list, tuple, dict)}


def _is_root(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> str | None:
    """Return which root class `node` descends from, looking through the classes of the same file."""
    for base in node.bases:
        name = base.id if isinstance(base, ast.Name) else getattr(base, "attr", "")
        root = name if name in ROOTS else _is_root(classes[name], classes) if name in classes else None
        if root:
            return root
    return None


@functools.cache
def _read(path: Path) -> Signature | None:
    classes = {n.name: n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef)}
    found = [(n, root) for n in classes.values() if not n.name.startswith("_") and (root := _is_root(n, classes))]
    if not found or path.name == "base.py":
        return None
    if len(found) > 1:
        raise ValueError(f"{path} defines {len(found)} public objectives or plug-ins; one file holds one")
    node, root = found[0]
    hyper: dict[str, tuple[str, Any]] = {"ce_weight": ("float", 1.0)} if root == "Objective" else {}
    needs = frozenset({"logits"}) if root == "Objective" else frozenset()
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            arguments = zip(item.args.kwonlyargs, item.args.kw_defaults, strict=True)
            hyper = {
                a.arg: (ast.unparse(a.annotation) if a.annotation else "float", ast.literal_eval(d) if d else None)
                for a, d in arguments
            }
        targets = [item.target] if isinstance(item, ast.AnnAssign) else getattr(item, "targets", [])
        if any(getattr(t, "id", "") == "needs" for t in targets):
            value = item.value  # type: ignore[attr-defined]
            needs = frozenset(str(c.value) for c in ast.walk(value) if isinstance(c, ast.Constant))
    module = ast.get_docstring(ast.parse(path.read_text())) or ""
    return Signature(path.stem, node.name, root, hyper, needs, module, path)


def objectives() -> dict[str, Signature]:
    """All objectives by name."""
    return {s.name: s for p in sorted(HERE.glob("*.py")) if (s := _read(p)) and s.kind == "Objective"}


def plugins() -> dict[str, Signature]:
    """All plug-ins and selectors by name."""
    return {s.name: s for p in sorted((HERE / "plugins").glob("*.py")) if (s := _read(p))}


def check(method: Any) -> list[str]:
    """Return the mistakes in a method block: unknown objective, plug-in, partner or key, each with the nearest name."""
    from distillery.study.check import nearest

    known, extras = objectives(), plugins()
    if method.objective not in known:
        return [f"unknown objective {method.objective!r}: {nearest(method.objective, list(known))}"]
    problems = known[method.objective].mistakes(method.hyper)
    for name, values in method.plugins.items():
        if name in extras:
            problems += extras[name].mistakes(values, f"plugins.{name}.")
        else:
            problems.append(f"unknown plug-in {name!r}: {nearest(name, list(extras))}")
    for name, values in method.plus.items():
        if name in known:
            rest = {k: v for k, v in values.items() if k != "weight"}
            problems += known[name].mistakes(rest, f"plus.{name}.")
        else:
            problems.append(f"plus: unknown objective {name!r}: {nearest(name, list(known))}")
    return problems


def needs(method: Any) -> frozenset[str]:
    """What the method asks of networks and views, partners included (see `Objective.needs`)."""
    known = objectives()
    return frozenset().union(*(known[n].needs for n in (method.objective, *method.plus)))


def sources(method: Any) -> list[Path]:
    """Return the files in this package that the method's code consists of, imports followed.

    Only these are inputs of the method's runs: adding or changing another method's file re-runs nothing.
    """
    known, extras = objectives(), plugins()
    todo = [known[n].path for n in (method.objective, *method.plus)] + [extras[n].path for n in method.plugins]
    todo += [HERE / "build.py", HERE / "base.py"]
    seen: set[Path] = set()
    while todo:
        path = todo.pop()
        if path in seen or not path.exists():
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            module = getattr(node, "module", None) or "" if isinstance(node, ast.ImportFrom) else ""
            if module.startswith("distillery.objectives."):
                todo.append(HERE.joinpath(*module.split(".")[2:]).with_suffix(".py"))
    return sorted(seen)
