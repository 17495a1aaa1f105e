"""A plan is read back only where making it anew would give the same: order, own files, helpers, installed packages."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import small_study
import warm

from distillery.pipeline import meaning
from distillery.pipeline.planner import current
from distillery.pipeline.snakemake import STUDY, Jobs
from distillery.pipeline.work import Work
from distillery.records.io import DistilleryError, StaleInput, read_json

PARAMS = """\
study: again
data: {source: digits}
recipe: {epochs: 1, batch_size: 64, milestones: [], augmentation: {pad: 1, flip: false}}
teachers: {big: {architecture: resnet8_w4}}
pairs: {big-small: {teacher: big, student: resnet8_w2}}
methods:
  kd: {objective: kd}
  plus: {objective: kd, plus: {sp: {}, at: {}}}
  mine: {objective: method.py:Mine}
  packed: {objective: own.losses.mine:Mine}
  bought: {objective: bought:Mine}
seeds: [0]
"""
METHOD = """\
import json
from pathlib import Path

from distillery.api import Objective
from helper import SCALE

WEIGHTS = json.loads(Path(__file__).with_name("weights.json").read_text())
PRIOR = float(Path("data/prior.csv").read_text())


class Mine(Objective):
    needs = frozenset({"logits"})

    def distill(self, batch):
        return {"mine": SCALE * WEIGHTS["w"] * (batch.student.logits - batch.teacher.logits).square().mean()}
"""
FILES = {
    "params.yaml": PARAMS,
    "method.py": METHOD,
    "helper.py": "SCALE = 1.0\n",
    "weights.json": '{"w": 1.0}',
    "data/prior.csv": "1.0",
    "own/__init__.py": "",
    "own/losses/__init__.py": "",
    "own/losses/parts.py": "from distillery.objectives.kd import KD\n\nWEIGHT = 1.0\n",
    "own/losses/mine.py": "from .parts import KD, WEIGHT\n\n\nclass Mine(KD):\n    weight = WEIGHT\n",
    "site-packages/bought.py": "from distillery.objectives.kd import KD\n\n\nclass Mine(KD):\n    pass\n",
    "site-packages/bought-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: bought\nVersion: 1.0\n",
    "site-packages/bought-1.0.dist-info/RECORD": "bought.py,,\n",
}


def planned(*command: str) -> dict[str, str]:
    """Plan as a person does, by the installed command; return the hash of every job's spec."""
    path = warm.first(f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    env = os.environ | {
        "PATH": path,
        "PYTHONPATH": f"{meaning.PACKAGE.parent}{os.pathsep}{Path('site-packages').resolve()}",
    }
    subprocess.run(["distillery", "plan"], env=env, check=True, capture_output=True, text=True)
    specs = sorted(Path("artifacts/again/specs").rglob("*.json"))
    return {path.relative_to("artifacts/again/specs").as_posix(): path.read_text() for path in specs}


@pytest.mark.slow
def test_every_edit_is_noticed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (file := tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def due() -> set[str]:
        """The jobs that have another spec than before. A plan that is read back has none."""
        nonlocal before
        found = planned()
        changed, before = {name for name in found if found[name] != before[name]}, found
        return changed

    def edit(name: str, old: str, new: str) -> None:
        text = Path(name).read_text()
        assert text.count(old) == 1
        Path(name).write_text(text.replace(old, new))

    def cell(method: str) -> set[str]:
        return {f"{stage}/big-small/{method}/0.json" for stage in ("distill", "evaluate")}

    before = planned()
    assert due() == set()
    Path("artifacts/again/plan.json").unlink()
    assert due() == set(), "made anew it is another one"
    edit("params.yaml", "  kd: {objective: kd}\n", "")
    edit("params.yaml", "  mine:", "  kd: {objective: kd}\n  mine:")
    assert due() == {"tables.json"}
    # Edits of other methods are made at once: each makes its own jobs due.
    edit("params.yaml", "{sp: {}, at: {}}", "{at: {}, sp: {}}")
    edit("weights.json", "1.0", "2.0")
    assert due() == cell("plus") | cell("mine") | {"tables.json"}
    edit("data/prior.csv", "1.0", "2.0")
    edit("own/losses/parts.py", "1.0", "2.0")
    assert due() == cell("mine") | cell("packed")
    edit("helper.py", "1.0", "2.0")
    Path("site-packages/bought-1.0.dist-info").rename("site-packages/bought-2.0.dist-info")
    edit("site-packages/bought-2.0.dist-info/METADATA", "Version: 1.0", "Version: 2.0")
    assert due() == cell("mine") | cell("bought")


def test_every_python_finds_the_same_code(tmp_path: Path) -> None:
    """Syntax trees of later versions have more fields."""
    (file := tmp_path / "mine.py").write_text(
        "import os\n\n\nclass A(list):\n    '''Text.'''\n\n    def f(self, *, x: int = 3) -> str:\n"
        "        return f'{x!r:>{4}} and' ' more' if self else os.sep\n\n\nasync def g(a, /, *b, **c):\n"
        "    match a:\n        case [1, *_] | {'x': None}:\n            return lambda: (yield)\n"
    )
    digest, imported, _ = meaning.parsed(file, str(file))
    assert (digest[:16], imported) == ("fcd53ad952703bda", {"os"})


def test_a_job_without_the_environment_of_who_submitted_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STUDY, raising=False)
    with pytest.raises(DistilleryError, match="have Slurm pass that on"):
        Jobs(plans=False)


def test_a_spec_of_other_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC brings specs of other commits without a plan; run by other code, their record would not be true."""
    monkeypatch.chdir(tmp_path)
    small_study.write(small_study.STUDY)
    _, plan = current(write=True)
    job = dataclasses.replace(plan.job("data"), code="0" * 64)
    job.write()
    with pytest.raises(StaleInput, match=r"^data: the code changed after it was planned: start the engine again"):
        Work(job, plan.settings)


def test_a_damaged_plan_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_study.write(small_study.STUDY)
    plan = current(write=True)[1]
    places = plan.layout.settings, plan.layout.plan, plan.job("data").path
    for path, damage in product(places, ("{", "")):  # a power cut leaves nothing
        path.write_text(damage)
        assert current(write=True)[1].specs() == plan.specs() and read_json(path)
