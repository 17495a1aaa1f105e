"""docs/api.md, made of the docstrings of `distillery.api`."""

from __future__ import annotations

import inspect
import re
import typing
from typing import Any

from distillery import api

SECTIONS = {
    "A method": (
        ("Objective", "Batch", "Context", "Outputs", "Incompatible", "Transform", "Selector"),
        "An objective of your own: `objective: path/to/file.py:Class` in a method's block. A plug-in "
        "(`Transform`, `Selector`) combines with the objectives there are. "
        "[CONTRIBUTING.md](../CONTRIBUTING.md) has an example.",
    ),
    "Steps of losses": (
        (
            *("kl_rows", "tempered", "full_precision", "kl_rows_without", "one_against_rest", "binary_kl_rows"),
            *("correlation", "warmup", "stage_taps", "align"),
        ),
        "Finite for any finite logits, and so are their gradients.",
    ),
    "Settings": (
        ("Config", "Positive", "Weight", "Finite", "Fraction", "Share", "Count", "Epochs"),
        "The keys of a component's block, with the types that its numbers may have.",
    ),
    "A network": (
        ("Network", "StagedNetwork", "Stage"),
        "A network of your own: `architecture: path/to/file.py:Class`, called with `num_classes` and `in_channels`. "
        "The class is a `Network`, or any `torch.nn.Module` that gives logits: [networks.md](networks.md).",
    ),
    "A data source": (
        ("Source", "Arrays", "Shape"),
        "A source of your own: `data: {source: path/to/file.py:Class}`.",
    ),
    "A recipe": (
        ("Optimizer", "Schedule", "Falling", "Augment", "Draw"),
        "Parts of your own: `optimizer: {name: path/to/file.py:Class}`, `schedule: {name: ...}` and "
        "`augmentation: {then: [{name: ...}]}` in a recipe.",
    ),
    "A metric, a task": (
        (
            *("Task", "Measure", "Column", "Training", "Evaluation", "Trainee", "additive"),
            *("Classification", "ClassTraining", "ClassEvaluation"),
        ),
        "A task of your own, or the usual one with more measures: `task: path/to/file.py:Class`. "
        "[your-own.md](your-own.md) has both.",
    ),
    "Results": (
        ("load_student", "load_teacher", "Student", "Teacher", "Classifier", "Header", "export"),
        "Trained networks outside the pipeline; [results.md](results.md) has examples.",
    ),
    "A loop of your own": (
        ("build_network", "Method", "build_objective"),
        "Networks and losses as the pipeline builds them, for any training loop; [results.md](results.md) has one.",
    ),
    "Errors": (("DistilleryError",), "What a user's mistake raises."),
}


def public() -> set[str]:
    return {name for name in vars(api) if not name.startswith("_") and name != "annotations"}


def page() -> str:
    lines = ["# Names for your own code", "", inspect.cleandoc(api.__doc__ or ""), ""]
    for title, (names, about) in SECTIONS.items():
        lines += [f"## {title}", "", about, ""]
        for name in names:
            lines += [f"### `{name}`", "", *entry(name, getattr(api, name)), ""]
    return "\n".join(lines).rstrip() + "\n"


def entry(name: str, thing: Any) -> list[str]:
    if typing.get_origin(thing) is typing.Annotated:
        return [number(thing)]
    lines = []
    if inspect.isfunction(thing):
        lines += ["```python", f"{name}{signature(thing)}", "```", ""]
    lines += [block(thing)]
    if inspect.isclass(thing):
        lines += methods(thing)
    return lines


def number(thing: Any) -> str:
    kind, field, *_ = typing.get_args(thing)
    limits = {type(limit).__name__: limit for limit in field.metadata}
    words = {"Gt": "more than", "Ge": "at least", "Lt": "less than", "Le": "at most"}
    said = [f"{words[k]} {getattr(limit, k.lower())}" for k, limit in limits.items() if k in words]
    noun = "A whole number" if kind is int else "A number"
    return f"{noun}, {' and '.join(said)}." if said else f"{noun}, finite."


def block(thing: Any) -> str:
    """The docstring; what is indented in it (attributes, arguments, examples) as it is written."""
    text = inspect.cleandoc(thing.__doc__ or "")
    summary, _, rest = text.partition("\n\n")
    return f"{summary}\n\n```text\n{rest}\n```" if rest else summary


def methods(thing: type) -> list[str]:
    """The methods and properties that a class itself defines, by the first sentence about them."""
    lines = []
    for name, member in vars(thing).items():
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        documented = inspect.isfunction(function) and function.__doc__
        if name.startswith("_") or not documented:
            continue
        told = " ".join(inspect.cleandoc(function.__doc__ or "").partition("\n\n")[0].split())
        call = name if isinstance(member, property) else f"{name}{signature(function, short=True)}"
        lines.append(f"* `{call}`: {told}")
    return ["", *lines] if lines else []


def signature(function: Any, short: bool = False) -> str:
    found = inspect.signature(function)
    if short:
        return f"({', '.join(name for name in found.parameters if name not in ('self', 'cls'))})"
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(found))  # annotations are strings here
