"""`distillery export`: one student as a folder that stands alone, in the layout of Hugging Face's hub."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from distillery.data.photo_set import PhotoSet
from distillery.data.pictured import Pictured, open_pictured
from distillery.errors import DistilleryError, StaleInput
from distillery.errors.words import nearest
from distillery.evaluation.statistics import Summary, summarise
from distillery.pipeline.current import MISSING, Judge
from distillery.pipeline.job import Job
from distillery.pipeline.planner import PARAMS, current
from distillery.records import io as artifacts
from distillery.records.header import KEY, Header
from distillery.records.schema import Metrics, RunRecord, read
from distillery.students import formats
from distillery.students.card import card
from distillery.students.classifier import Student, load_student
from distillery.study.blocks import Recipe
from distillery.study.model import Study, expand_seeds
from distillery.task import Measure, task_of
from distillery.tasks.classification.training import ClassTraining
from distillery.training.device import set_up

WEIGHTS, CONFIG, PREPROCESSING, CARD = "model.safetensors", "config.json", "preprocessor_config.json", "README.md"
TOLERANCE = 0.3  # points by which an exported file may miss the table: rounding on another device
Program = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Exported:
    """What is known about an exported student, for its card.

    Attributes:
        measured: test accuracy in percent of this seed, by the table.
        cell: the accuracies of all seeds, summarised; `expected` is how many there should be.
        teachers: architecture and test accuracy of every teacher, by name.
        checked: test accuracy of every file that was written, measured again.
        provenance: where it comes from, in words and hashes.
    """

    header: Header
    label: str
    test_images: int
    measured: float
    cell: Summary
    expected: int
    teachers: dict[str, tuple[str, float]]
    checked: dict[str, float]
    provenance: dict[str, str]


def export(
    pair: str,
    method: str,
    seed: int,
    to: Path | None = None,
    onnx: bool = False,
    torch_export: bool = False,
    force: bool = False,
    params: Path = PARAMS,
) -> tuple[Path, dict[str, float]]:
    """Write one student of the study as a folder: weights, configuration, model card, and programs if asked for.

    Returns the folder, and the test accuracy (of another task: its main measure) of every file in it that was measured
    again.

    Raises:
        DistilleryError: if the study has no such student, the student is missing or stale, the folder is there
            already, a package is missing, or a written file misses the accuracy of the table.
    """
    if onnx:
        formats.have_onnx()
    study, plan = current(params)
    block = _block(study, pair, method, seed)
    measured = plan.job("evaluate", pair=pair, method=method, seed=block)
    trained = plan.job("distill", pair=pair, method=method, seed=block)
    judge = Judge(plan)
    verdict = judge.verdict(measured)
    if not verdict.current:
        state = "not there yet" if verdict.state == MISSING else "out of date"
        raise StaleInput(
            f"the student of {pair} by {method}, seed {seed}, is {state} ({verdict.why}): run the engine, then export"
        )
    record, weights = read(trained.record, RunRecord), trained.outputs["weights"]
    if artifacts.sha256_file(weights) != record.sha256(weights):
        raise StaleInput(f"{weights} is not the file that its record describes: delete it, then run the engine")
    folder = to or Path("exports") / "-".join((study.study, pair, method, str(seed)))
    asked = [name for name, wanted in ((formats.ONNX, onnx), (formats.TORCH, torch_export)) if wanted]
    _free(folder, force, asked)
    recipe = Recipe.model_validate(record.recipe)
    set_up(recipe)  # as it was measured
    if "export" in (task := task_of(study.task)).parts:
        [run] = [run for run in read(measured.record, Metrics).runs if run["seed"] == seed]
        with _filled(folder) as new:
            reached = task.part("export")(weights, seed, trained.reads["arrays"], recipe, new, asked)
            _same(next(iter(reached)), reached, run["last"][task.main.name], task.main)
        return folder, reached
    if not (task.main.name == "top1" and issubclass(task.part("training"), ClassTraining)):
        raise DistilleryError(f"students of the task {task.name} cannot be exported: their weights are in {weights}")
    student = load_student(weights, seed)
    with _filled(folder) as new:
        data = open_pictured(trained.reads["arrays"])
        _write(student, new, data)
        programs: dict[str, Program] = {WEIGHTS: load_student(new)}
        if onnx:
            formats.write_onnx(student, new / formats.ONNX)
            programs[formats.ONNX] = formats.open_onnx(new / formats.ONNX)
        if torch_export:
            formats.write_torch(student, new / formats.TORCH)
            programs[formats.TORCH] = formats.open_torch(new / formats.TORCH)
        checked = {name: _accuracy(program, data, name == WEIGHTS) for name, program in programs.items()}
        facts = _facts(study, judge, measured, student.metadata, checked, params)
        for name in checked:
            _same(name, checked, facts.measured, task.main)
        (new / CARD).write_text(card(facts), encoding="utf-8")
    return folder, checked


def _same(file: str, reached: Mapping[str, float], said: float, measure: Measure) -> None:
    """Refuse a file that misses the table's value."""
    if abs(reached[file] - said) > TOLERANCE:
        unit, digits = f" {measure.unit}" if measure.unit else "", measure.digits
        raise DistilleryError(
            f"{file} reaches {reached[file]:.{digits}f}{unit} and the table says {said:.{digits}f}{unit}, so it is not "
            "the same student: export it where it was evaluated, with the same packages"
        )


@contextmanager
def _filled(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside the one that was asked for, and put what it was filled with there."""
    with artifacts.scratch(folder) as new:
        try:
            new.mkdir()
        except FileNotFoundError as error:
            raise DistilleryError(f"cannot make {folder} there: name another folder by --to") from error
        yield new
        _put(new, folder)


def _put(new: Path, folder: Path) -> None:
    """Put an export into its folder: each file in the place of its earlier self. Whatever else is there stays."""
    if not folder.exists():
        new.replace(folder)
        return
    files = [path.relative_to(new) for path in sorted(new.rglob("*")) if path.is_file()]
    if taken := next((folder / file for file in files if (folder / file).is_dir()), None):
        raise DistilleryError(f"{taken} is a folder, and the export has a file of this name: move it away")
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (new / file).replace(folder / file)


def _block(study: Study, pair: str, method: str, seed: int) -> str:
    """The block that holds a seed. Raises DistilleryError for a name that the study does not have."""
    seeds = {s: str(block) for block in study.seeds for s in expand_seeds(block)}
    asked = (("pair", pair, list(study.pairs)), ("method", method, list(study.methods)))
    for option, value, known in (*asked, ("seed", str(seed), [str(s) for s in seeds])):
        if value not in known:
            raise DistilleryError(f"--{option} {value}: study {study.study!r} has none: {nearest(value, known)}")
    return seeds[seed]


def _free(folder: Path, force: bool, asked: Sequence[str]) -> None:
    """Refuse a folder that is there, or with `force` one that is no export, or whose programs would be another's."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not force:
        raise DistilleryError(f"{folder} is there already: name another folder by --to, or give --force to replace it")
    if folder.is_symlink() or not folder.is_dir() or (any(folder.iterdir()) and not _ours(folder / CONFIG)):
        raise DistilleryError(f"{folder} is no exported student, so --force does not replace it: name another folder")
    for name, option in ((formats.ONNX, "--onnx"), (formats.TORCH, "--torch-export")):
        if name not in asked and (folder / name).exists():
            raise DistilleryError(
                f"{folder / name} is of the student that was exported there before: give {option} to replace it too, "
                "or move it away"
            )


def _ours(config: Path) -> bool:
    """Whether `export` wrote this file."""
    try:
        return KEY in artifacts.read_json(config)
    except (DistilleryError, TypeError):
        return False


def _write(student: Student, folder: Path, data: Pictured) -> None:
    """Write weights and configuration, which says too how `data` are cut for a test."""
    header = student.metadata.model_copy(update={"kind": "student"})
    tensors = dict(student.network.state_dict())
    if student.objective is not None:
        tensors |= {f"objective.{k}": v for k, v in student.objective.state_dict().items()}
        tensors |= {f"teacher.{k}": v for k, v in student.teacher.state_dict().items()} if student.teacher else {}
        tensors["example"] = student.example
    artifacts.save_tensors(folder / WEIGHTS, tensors, header.metadata())
    names, (channels, height, width) = header.class_names, header.image
    config = {
        "model_type": "distillery",
        "architectures": [header.architecture],
        "num_labels": len(names),
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
        "num_channels": channels,
        "image_size": [height, width],
        KEY: header.model_dump(mode="json"),
    }
    artifacts.write_json(folder / CONFIG, config)
    # For programs that feed the bare network; a student loaded by load_student, model.onnx and model.pt2 do all this.
    whole = {"height": height, "width": width}
    cut: dict[str, Any] = {"size": whole}
    if isinstance(data, PhotoSet):
        cut = {"size": {"shortest_edge": data.short_side}, "do_center_crop": True, "crop_size": whole}
        cut["resample"] = Image.Resampling[data.interpolation.upper()].value
    preprocessing = {
        "do_resize": True,
        **cut,
        "do_rescale": True,
        "rescale_factor": 1 / header.scale,
        "do_normalize": True,
        "image_mean": list(header.mean),
        "image_std": list(header.std),
    }
    artifacts.write_json(folder / PREPROCESSING, preprocessing)


@torch.no_grad()
def _accuracy(program: Program, data: Pictured, raw: bool) -> float:
    """Test accuracy in percent; `raw` images are uint8, others float in [0, 1]. Batches are those of the evaluation."""
    hits = 0
    for images, labels in data.plain("test"):
        logits = program(images if raw else images / data.scale)
        hits += int((logits.argmax(1) == labels).sum())
    return hits / (len(data.test_labels) / 100)


def _facts(study: Study, judge: Judge, job: Job, header: Header, checked: dict[str, float], params: Path) -> Exported:
    [seed], record = header.seeds, read(job.record, Metrics)
    pair, method, block = job.keys
    scores: dict[int, float] = {}
    for p, m, other in study.cells():
        cell = judge.plan.job("evaluate", pair=p, method=m, seed=other)
        if (p, m) == (pair, method) and judge.verdict(cell).current:
            scores |= {run["seed"]: run["last"]["top1"] for run in read(cell.record, Metrics).runs}
    trained = read(judge.plan.job("distill", pair=pair, method=method, seed=block).record, RunRecord)
    return Exported(
        header=header,
        label=study.methods[method].label or method,
        test_images=record.test_images,
        measured=scores[seed],
        cell=summarise(list(scores.values())),
        expected=sum(len(expand_seeds(entry)) for entry in study.seeds),
        teachers={
            n: (t["architecture"], t["last"]["top1"]) for n, t in record.teachers.items() if n in header.teachers
        },
        checked=checked,
        provenance=_provenance(judge, trained, pair, method, block, params),
    )


def _provenance(judge: Judge, trained: RunRecord, pair: str, method: str, block: str, params: Path) -> dict[str, str]:
    noted = judge.plan.job("distill", pair=pair, method=method, seed=block).provenance
    revision = artifacts.read_json(noted).get("revision", "unknown") if noted.exists() else "not noted here"
    made = trained.environment
    command = ["distillery", "distill", "--pair", pair, "--method", method, "--seed", block]
    command += ["--params", str(params)] if params != PARAMS else []
    return {
        "study": judge.plan.layout.study,
        "revision of the code": revision,
        "hash of the job (code, parameters, inputs)": trained.spec_sha256,
        "hash of the parameters": str(artifacts.sha256_json(trained.spec["values"])),
        "hardware": f"{made.get('cuda_device') or made.get('cpu', 'unknown')}, {trained.device}, "
        f"{trained.threads} thread(s), {trained.ranks} process(es)",
        "software": ", ".join(f"{name} {made[name]}" for name in ("python", "torch", "numpy") if name in made),
        "command": shlex.join(command),
    }
