"""The model card of an exported student: what the Hub and a reader want to know, without a claim beyond the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from distillery.report.markdown import escape

if TYPE_CHECKING:
    from distillery.students.export import Exported

USAGE = """\
import torch
from distillery.api import load_student

student = load_student(".")  # this folder
images = torch.zeros(1, {shape}, dtype=torch.uint8)  # 0 to {scale:g}, or float in [0, 1]; a batch of any size
print(student.class_names[int(student(images).argmax())])
"""


def card(facts: Exported) -> str:
    """Return the text of README.md."""
    header = facts.header
    front = yaml.safe_dump(_front(facts), sort_keys=False, allow_unicode=True, width=1000)
    parts = [
        f"---\n{front}---\n",
        f"# {header.architecture}, trained by {escape(facts.label)} on {header.data['source']}\n",
        _lead(facts),
        f"## Usage\n\nWith Distillery installed, in this folder:\n\n```python\n{_usage(facts)}```\n\n{_files(facts)}",
        f"## Results\n\n{_results(facts)}",
        f"## Recipe\n\n{_table(_recipe(facts))}",
        f"## Provenance\n\n{_table(facts.provenance)}",
    ]
    return "\n".join(parts)


def _front(facts: Exported) -> dict[str, Any]:
    source = str(facts.header.data["source"])
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"type": source, "name": source, "split": "test"},
        "metrics": [
            {"type": "accuracy", "name": "test accuracy of this seed, percent", "value": round(facts.measured, 4)},
            {
                "type": "accuracy",
                "name": f"mean over {facts.cell.n} seed(s), percent",
                "value": _round(facts.cell.mean),
            },
        ],
    }
    return {
        "library_name": "distillery",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "knowledge-distillation"],
        "datasets": [source],
        "metrics": ["accuracy"],
        "model-index": [{"name": facts.header.title, "results": [result]}],
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _lead(facts: Exported) -> str:
    header = facts.header
    channels, height, width = header.image
    taught = " and ".join(f"{name} ({what}, {top1:.2f} %)" for name, (what, top1) in facts.teachers.items())
    return (
        f"It classifies {height} x {width} images with {channels} channel(s) into {len(header.class_names)} classes. "
        + (f"Its teacher is {taught}. " if taught else "It had no teacher. ")
        + f"Test accuracy: {facts.measured:.2f} % (seed {header.seeds[0]}, last epoch, {facts.test_images} images).\n"
    )


def _usage(facts: Exported) -> str:
    return USAGE.format(shape=", ".join(map(str, facts.header.image)), scale=facts.header.scale)


def _files(facts: Exported) -> str:
    said = {
        "model.onnx": "the same as an ONNX program: `images`, float in [0, 1], to `logits`",
        "model.pt2": "the same as a program for `torch.export.load(...).module()`: float images in [0, 1] to logits",
    }
    lines = [f"`{name}` is {what}." for name, what in said.items() if name in facts.checked]
    if ".py:" in facts.header.architecture:
        lines.append(
            f"The network is the author's own: `{facts.header.architecture}` has to lie below the folder "
            "where Python runs."
        )
    return "".join(f"{line}\n" for line in ["The student normalises images by itself.", *lines])


def _results(facts: Exported) -> str:
    cell, header = facts.cell, facts.header
    rows = {f"this student, seed {header.seeds[0]}": f"{facts.measured:.2f} %"}
    if cell.mean is not None:
        count = f"n = {cell.n}" + ("" if cell.n == facts.expected else f" of {facts.expected}")
        rows[f"mean over seeds ({count})"] = f"{cell.mean:.2f} %"
    if cell.sd is not None and cell.mean is not None and cell.ci95 is not None:
        rows["standard deviation"] = f"{cell.sd:.2f} points"
        rows["95 % interval of the mean"] = f"{cell.mean - cell.ci95:.2f} to {cell.mean + cell.ci95:.2f} %"
    rows |= {f"teacher {name} ({what})": f"{top1:.2f} %" for name, (what, top1) in facts.teachers.items()}
    rows |= {f"`{name}`, measured again at export": f"{top1:.2f} %" for name, top1 in facts.checked.items()}
    note = f"Test accuracy of the last epoch on {facts.test_images} images; test images chose nothing.\n"
    return f"{_table(rows)}\n{note}"


def _recipe(facts: Exported) -> dict[str, str]:
    header = facts.header
    rows = {"data": _plain(header.data), "training images": str(header.train_images)}
    rows["objective"] = _plain(header.objective)
    return rows | {key.replace("_", " "): _plain(value) for key, value in header.recipe.items()}


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _table(rows: dict[str, str]) -> str:
    def cell(text: str) -> str:
        return " ".join(text.replace("|", "\\|").split())

    lines = [f"| {cell(key)} | {cell(value)} |" for key, value in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *lines, ""])
