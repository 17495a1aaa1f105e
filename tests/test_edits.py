"""Which jobs an edit makes due: the same for Snakemake, for DVC and for our own judge, and the right ones.

docs/edits.md is the table that this test makes; `DISTILLERY_WRITE_DOCS=1 pytest tests/test_edits.py` writes it anew.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from dvc.repo import Repo
from PIL import Image
from sklearn.datasets import load_digits
from workbench import Workbench

from distillery.pipeline.current import Judge
from distillery.pipeline.job import STAGES, Plan

pytestmark = pytest.mark.slow
PAGE = ROOT / "docs" / "edits.md"
STUDY: dict[str, Any] = {
    "study": "edits",
    "data": {"source": "folder", "root": "scans", "size": 8},
    "recipe": {
        "epochs": 1,
        "batch_size": 64,
        "lr": 0.02,
        "milestones": [],
        "augmentation": {"pad": 1, "flip": False},
        "channels_last": True,
    },
    "teachers": {
        "own": {"architecture": "resnet8_w4", "recipe": {"epochs": 2}},
        "same": {"architecture": "resnet8_w2", "seed": 1},
    },
    "pairs": {
        "own-resnet": {"teacher": "own", "student": "resnet8_w2"},
        "same-wrn": {"teacher": "same", "student": "wrn_16_1"},
    },
    "methods": {
        "ce": {"objective": "ce", "label": "alone"},
        "kd": {"objective": "kd", "label": "KD"},
        "ttm": {"objective": "ttm"},
    },
    "seeds": ["0-1"],
    "cache": {"budget_gb": 16},
    "tables": {"baseline": "kd"},
}
SOURCE = Path("src/distillery")
SCANS = 200  # images of the study's own folder


@dataclass(frozen=True)
class Edit:
    """An edit in words, how it is made, and the jobs that are due then (regular expressions of their names)."""

    words: str
    make: Callable[[Workbench], None]
    due: tuple[str, ...]

    @property
    def harmless(self) -> bool:
        return not self.due


def value(path: str, new: Any) -> Callable[[Workbench], None]:
    """Set one value of params.yaml."""

    def make(bench: Workbench) -> None:
        params: Any = bench.params
        block = params
        *parents, last = path.split(".")
        for key in parents:
            block = block.setdefault(key, {})
        block[last] = new
        bench.params = params

    return make


def text(old: str, new: str) -> Callable[[Workbench], None]:
    """Write a value of params.yaml in another way."""

    def make(bench: Workbench) -> None:
        file = bench.root / "params.yaml"
        before = file.read_text()
        assert before.count(old) == 1
        file.write_text(before.replace(old, new))

    return make


def code(name: str, old: str, new: str) -> Callable[[Workbench], None]:
    """Change a source file; one that is not there is written."""

    def make(bench: Workbench) -> None:
        file = bench.root / SOURCE / name
        if not file.exists():
            file.write_text(new)
            return
        before = file.read_text()
        assert old in before, (name, old)
        file.write_text(before.replace(old, new, 1))

    return make


def delete(pattern: str) -> Callable[[Workbench], None]:
    def make(bench: Workbench) -> None:
        [found] = bench.root.glob(pattern)
        shutil.rmtree(found) if found.is_dir() else found.unlink()

    return make


def copy(name: str, to: str) -> Callable[[Workbench], None]:
    def make(bench: Workbench) -> None:
        shutil.copyfile(bench.root / name, bench.root / to)

    return make


def by_hand(bench: Workbench) -> None:
    """Throw a student away and make it again without an engine."""
    delete("artifacts/edits/runs/own-resnet/kd")(bench)
    bench.run("distillery", "distill", "--pair", "own-resnet", "--method", "kd", "--seed", "0-1")


NOTHING: tuple[str, ...] = ()
TABLES = ("tables",)
STUDENTS = ("distill .*", "evaluate .*", *TABLES)
ALL = ("teacher .*", "cache .*", "pair .*", *STUDENTS)
KD = ("(distill|evaluate) .* kd 0-1", *TABLES)
TOY = "from distillery.objectives.base import Objective\n\n\nclass Toy(Objective):\n    pass\n"
EDITS = (
    Edit("a comment in a network", code("models/resnet.py", "\nclass ", "\n# A comment.\nclass "), NOTHING),
    Edit("a docstring of an objective", code("objectives/kd.py", '"""KD: ', '"""KD, or: '), NOTHING),
    Edit("an unused objective added", code("objectives/toy.py", "", TOY), NOTHING),
    Edit("an unused network added", code("models/toy.py", "", "WIDTH = 3\n"), NOTHING),
    Edit("an unused data source added", code("data/toy.py", "", "CLASSES = 3\n"), NOTHING),
    Edit(
        "a row added to the registry of objectives",
        code("objectives/__init__.py", '"adain"', '"toy": "toy:Toy",\n            "adain"'),
        NOTHING,
    ),
    Edit(
        "a row added to those of networks of other tasks",
        code("models/__init__.py", '"linear": (', '"toy": "toy:Toy",\n        "linear": ('),
        NOTHING,
    ),
    Edit("the progress bar", code("training/progress.py", "epoch", "Epoch"), NOTHING),
    Edit(
        "code of one objective",
        code("objectives/kd.py", "return temperature**2", "return 1.0 * temperature**2"),
        KD,
    ),
    Edit(
        "code of one network",
        code("models/wrn.py", "\nclass ", "\nTOUCHED = True\n\n\nclass "),
        ("(distill|evaluate) same-wrn .*", *TABLES),
    ),
    Edit(
        "code that all logit objectives share", code("objectives/soft.py", "\ndef ", "\nTOUCHED = True\n\n\ndef "), ALL
    ),
    Edit("code that every stage runs", code("records/io.py", "\ndef ", "\nTOUCHED = True\n\n\ndef "), ("data", *ALL)),
    Edit("code of the tables", code("report/markdown.py", "\ndef ", "\nTOUCHED = True\n\n\ndef "), TABLES),
    Edit(
        "code of what a study may say of its tables",
        code("study/model.py", "\nclass Tables", "\nTOUCHED = True\n\n\nclass Tables"),
        TABLES,
    ),
    Edit(
        "a column that the task declares",
        code("tasks/classification/__init__.py", "negative log-likelihood", "log-likelihood below zero"),
        TABLES,
    ),
    Edit(
        "which way of the task's main measure is better",
        code("task.py", "share=True)  # of classifiers", "share=True, higher_is_better=False)  # of classifiers"),
        ("evaluate .*", *TABLES),
    ),
    Edit("a published number of any task", code("tasks/ranking/published.json", "0.2511", "0.9999"), TABLES),
    Edit("a label", value("methods.kd.label", "Hinton KD"), TABLES),
    Edit("the baseline of the tables", value("tables.baseline", "ce"), TABLES),
    Edit("a default written out", value("recipe.momentum", 0.9), NOTHING),
    Edit("a method's default written out", value("methods.kd.temperature", 4), NOTHING),
    Edit("`2e-2` for `0.02`", text("lr: 0.02", "lr: 2e-2"), NOTHING),
    Edit("the budget of the view tables", value("cache.budget_gb", 32), NOTHING),
    Edit(
        "how often teachers are tested (`teachers.own.recipe.test_every`)",
        value("teachers.own.recipe.test_every", 2),
        NOTHING,
    ),
    Edit("a method's temperature", value("methods.kd.temperature", 2.0), KD),
    Edit(
        "a method's temperature for one pair",
        value("methods.kd.pairs", {"same-wrn": {"temperature": 3.0}}),
        ("(distill|evaluate) same-wrn kd 0-1", *TABLES),
    ),
    Edit(
        "the students' epochs, where one teacher has its own",
        value("recipe.epochs", 3),
        ("teacher same", "cache same", "pair same-wrn", *STUDENTS),
    ),
    Edit(
        "one pair's recipe",
        value("pairs.own-resnet.recipe", {"lr": 0.01}),
        ("(distill|evaluate) own-resnet .*", *TABLES),
    ),
    Edit(
        "a teacher's seed",
        value("teachers.same.seed", 2),
        ("teacher same", "cache same", "pair same-wrn", "(distill|evaluate) same-wrn .*", *TABLES),
    ),
    Edit("a CPU's `instructions`", value("instructions", "avx2"), ALL),
    Edit("all of a CPU's `instructions` written out", value("instructions", "native"), NOTHING),
    Edit("the split of the data", value("data.test_fraction", 0.4), ("data", *ALL)),
    Edit("a photo of the own folder removed", delete("scans/3/7.png"), ("data", *ALL)),
    Edit("a photo added", copy("scans/3/7.png", "scans/3/new.png"), ("data", *ALL)),
    Edit('`seeds: ["0-1"]` to `["0-1", 2]`', value("seeds", ["0-1", 2]), ("(distill|evaluate) .* 2", *TABLES)),
    Edit(
        '`seeds: ["0-1"]` to `["0-3"]` (finished seeds are taken over)',
        value("seeds", ["0-3"]),
        ("(distill|evaluate) .* 0-3", *TABLES),
    ),
    Edit("a method added", value("methods.rc", {"objective": "rc"}), ("(distill|evaluate) .* rc 0-1", *TABLES)),
    Edit(
        "a student's weights deleted",
        delete("artifacts/edits/runs/own-resnet/kd/0-1/students.safetensors"),
        ("(distill|evaluate) own-resnet kd 0-1", *TABLES),
    ),
    Edit(
        "the folder of a run deleted",
        delete("artifacts/edits/runs/own-resnet/kd"),
        ("(distill|evaluate) own-resnet kd 0-1", *TABLES),
    ),
    Edit("a student deleted and made again by hand", by_hand, NOTHING),
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """A finished study that DVC holds."""
    bench = Workbench(tmp_path_factory.mktemp("edits"))
    bench.params = STUDY
    for index, (scan, digit) in enumerate(zip(*load_digits(return_X_y=True), strict=True)):
        if index < SCANS:
            (folder := bench.root / "scans" / str(digit)).mkdir(parents=True, exist_ok=True)
            Image.fromarray((scan.reshape(8, 8) * 15).astype("uint8")).save(
                folder / f"{len(list(folder.iterdir()))}.png"
            )
    bench.git("add", "-A")
    bench.git("commit", "-qm", "a study")
    bench.make()
    bench.run("distillery", "record")
    bench.git("add", "-A")
    bench.git("commit", "-qm", "its results")
    return bench


@contextmanager
def undone(bench: Workbench) -> Iterator[None]:
    """Put sources, parameters and artefacts back afterwards."""
    kept = bench.root.with_name("kept")
    shutil.copytree(bench.root / "artifacts", kept)
    try:
        yield
    finally:
        shutil.rmtree(bench.root / "artifacts")
        kept.rename(bench.root / "artifacts")
        bench.git("checkout", "-q", "--", "src", "scans", "params.yaml", "results")
        bench.git("clean", "-fdq", "src", "scans")


def due_for_snakemake(bench: Workbench) -> set[str]:
    found, rule = set(), ""
    for line in bench.run("snakemake", "--dry-run", "--quiet", "host", "--cores", "1").stdout.splitlines():
        if named := re.match(r"(?:local)?rule (\w+):", line):
            rule = named[1]
            if STAGES.get(rule) == ():
                found.add(rule)
        elif line.strip().startswith("wildcards: "):
            keys = dict(re.findall(r"(\w+)=([^,\s]+)", line))
            found.add(" ".join((rule, *(keys[key] for key in STAGES[rule]))))
    return found


def due_for_dvc(bench: Workbench, plan: Plan) -> set[str]:
    """The jobs that `dvc status` finds changed, and those that come after them."""
    with Repo(str(bench.root)) as repo:
        changed = set(repo.status())
    names = {re.sub(r"^(\w+)@?", r"\1 ", stage).strip(): stage for stage in changed if stage != "plan"}
    jobs = {job.name.replace(" ", "-"): job for job in plan}
    direct = {jobs[name.replace(" ", "-")].name for name in names}
    found = set()
    for job in plan:
        if job.name in direct or any(earlier.name in found for earlier in plan.needs(job)):
            found.add(job.name)
    return found


def made(bench: Workbench, *edits: Edit) -> tuple[set[str], list[str]]:
    """Return the jobs that are due by the last of the edits, all of which are made, and who finds others."""
    with undone(bench):
        for edit in edits:
            edit.make(bench)
        bench.plan()
        by_snakemake = due_for_snakemake(bench)  # plans too, where code is edited
        plan = Plan.read("edits")
        right = {job.name for job in plan if any(re.fullmatch(pattern, job.name) for pattern in edits[-1].due)}
        judges = {
            "Snakemake": by_snakemake,
            "DVC": due_for_dvc(bench, plan),
            "the judge": {job.name for job in Judge(plan).due()},
        }
        faults = [
            f"{edits[-1].words}: {who} too many {sorted(found - right)}, missing {sorted(right - found)}"
            for who, found in judges.items()
            if found != right
        ]
    return right, faults


def test_every_edit_makes_the_right_jobs_due(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that make nothing due are made at once, and one by one only to see which of them does."""
    monkeypatch.chdir(bench.root)
    everything = {job.name for job in Plan.read("edits")}
    assert due_for_snakemake(bench) == set()
    due, faults = dict[str, set[str]](), list[str]()
    harmless = [edit for edit in EDITS if edit.harmless]
    if made(bench, *harmless)[1]:
        for edit in harmless:
            faults += made(bench, edit)[1]
        assert faults, f"together they make something due: {[edit.words for edit in harmless]}"
    for edit in EDITS:
        if not edit.harmless:
            due[edit.words], found = made(bench, edit)
            faults += found
    rows = [f"| {edit.words} | {words(due.get(edit.words, set()), everything)} |" for edit in EDITS]
    assert not faults, "\n".join(faults)
    assert due_for_snakemake(bench) == set()
    page = document(rows, len(everything))
    if os.environ.get("DISTILLERY_WRITE_DOCS"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page, "docs/edits.md is not the table of this test: see the docstring"


def words(right: set[str], everything: set[str]) -> str:
    if not right:
        return "none"
    if right == everything:
        return "all"
    counts = {stage: sum(name.split()[0] == stage for name in right) for stage in STAGES}
    of = {stage: sum(name.split()[0] == stage for name in everything) for stage in STAGES}
    parts = [stage if of[stage] == 1 else f"{n} of {of[stage]} {stage}" for stage, n in counts.items() if n]
    return ", ".join(parts) + (" (new ones)" if right - everything else "")


def document(rows: list[str], count: int) -> str:
    return "\n".join(
        [
            "# What an edit makes due",
            "",
            "A job is due if its parameters, code or inputs changed in meaning. `snakemake -n`, `dvc status`",
            "(after `distillery plan`) and `distillery status` agree, job by job: tests/test_edits.py makes each edit",
            f"in a study ({count} jobs) of an own folder of images, two teachers, two pairs, three methods, two seeds",
            "(one job), and this table.",
            "",
            "| edit | jobs due |",
            "| --- | --- |",
            *rows,
            "",
        ]
    )
