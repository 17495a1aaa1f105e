"""A project folder of one's own, which study Snakemake takes, and what it says of a job."""

from __future__ import annotations

import errno
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from small_study import STUDY, make, write
from typer.testing import CliRunner, Result

from distillery import project
from distillery.cli import app
from distillery.cli.logged import outcome
from distillery.errors import DistilleryError
from distillery.pipeline.job import Job
from distillery.pipeline.layout import Layout
from distillery.pipeline.planner import current
from distillery.records.files import lock
from distillery.records.io import write_json
from distillery.training.history import save_history

AT = Layout("small")


def call(*command: str, answer: str = "") -> Result:
    return CliRunner().invoke(app, [*command], input=answer, env={"COLUMNS": "200"})


def test_init_makes_what_a_study_needs_and_replaces_nothing_unasked(tmp_path: Path) -> None:
    did = project.start(tmp_path / "mine", "cifar100-small")
    folder = tmp_path / "mine"
    assert {"params.yaml", "Snakefile", "dvc.yaml", "profiles/default/config.yaml"} <= {*did.written} and not did.kept
    assert (folder / "params.yaml").read_bytes() == (ROOT / "workflow/studies/cifar100-small.yaml").read_bytes()
    assert (folder / "slurm" / "config.yaml").read_bytes() == (ROOT / "slurm" / "config.yaml").read_bytes()
    for template in re.findall(r"template: (\S+)", (folder / "dvc.yaml").read_text()):
        assert (folder / template).is_file()
    assert project.start(folder, "cifar100-small") == project.Started([], []), "nothing to do"
    (folder / "params.yaml").write_text("study: mine\n")
    assert project.start(folder, "digits") == project.Started([], ["params.yaml"])
    assert (folder / "params.yaml").read_text() == "study: mine\n"
    assert project.start(folder, "digits", force=True) == project.Started(["params.yaml"], [])


def test_init_refuses_the_checkout_and_an_unknown_study(tmp_path: Path) -> None:
    with pytest.raises(DistilleryError, match="is a project already"):
        project.start(ROOT, "digits")
    with pytest.raises(DistilleryError, match="no ready-made study 'digit': did you mean 'digits'"):
        project.start(tmp_path, "digit")
    assert list(tmp_path.iterdir()) == []


def tree(folder: Path) -> dict[str, str]:
    """All that is in a folder, and what its files say."""
    return {str(p.relative_to(folder)): p.read_text() if p.is_file() else "" for p in folder.rglob("*")}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("there", "to", "sentence"),
    [
        ("mine", "mine", "mine is no folder, and a project needs one there: move it away"),
        ("mine", "mine/sub", "mine is no folder"),
        ("mine/profiles", "mine", "mine/profiles is no folder"),
        ("mine/Snakefile/", "mine", "mine/Snakefile is a folder, and a project has a file of this name"),
        ("mine/params.yaml/", "mine", "mine/params.yaml is a folder"),
    ],
)
def test_init_makes_no_half_of_a_project(
    there: str, to: str, sentence: str, force: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if there.endswith("/"):
        Path(there).mkdir(parents=True)
    else:
        Path(there).parent.mkdir(exist_ok=True)
        Path(there).write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(DistilleryError, match=sentence):
        project.start(Path(to), "digits", force)
    assert tree(tmp_path) == before


def full_disk(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A file of this name gets half of what it should."""
    write = Path.write_bytes

    def half(path: Path, content: bytes) -> int:
        if f".{name}." not in str(path):
            return write(path, content)
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)


def test_init_and_study_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    project.start(Path("old"), "digits")
    Path("old/Snakefile").write_text("mine")
    before = tree(tmp_path)
    full_disk(monkeypatch, "params.yaml")
    for folder in ("old", "new/er"):
        with pytest.raises(DistilleryError, match=r"cannot write .*params\.yaml: the disk is full"):
            project.start(Path(folder), "cifar100-small", force=True)
    monkeypatch.chdir("old")
    assert "cannot write params.yaml: the disk is full" in str(call("study", "cifar100-small").exception)
    assert tree(tmp_path) == before


def test_init_where_slurm_leads_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slurm").symlink_to("nowhere")
    assert project.start(tmp_path, "digits").kept == ["slurm"]
    assert project.start(tmp_path, "digits", force=True) == project.Started(["slurm"], [])
    assert (tmp_path / "slurm" / "config.yaml").is_file()
    monkeypatch.chdir(tmp_path)
    assert "next: cd 'my study'; distillery check" in call("init", "my study").stdout, "to be pasted"


def test_a_study_is_put_in_the_place_of_a_link_and_not_of_what_it_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("workflow/studies").mkdir(parents=True)
    own = Path("workflow/studies/own.yaml")
    write(STUDY, str(own))
    content, params = own.read_bytes(), Path("params.yaml")
    params.symlink_to(own)
    assert call("study", "own").exit_code == 0 and params.is_symlink(), "it is that study already"
    assert call("study", "digits").exit_code == 0 and own.read_bytes() == content
    assert not params.is_symlink() and params.read_bytes() == project.study("digits").read_bytes()
    own.rename("elsewhere.yaml")
    for target in ("elsewhere.yaml", "nowhere.yaml"):
        params.unlink()
        params.symlink_to(target)
        assert "was edited" in str(call("study", "digits").exception) and params.is_symlink()
        assert call("study", "digits", "--force").exit_code == 0 and not params.is_symlink()
    assert Path("elsewhere.yaml").read_bytes() == content
    params.unlink()
    params.mkdir()
    assert "params.yaml is a folder here" in str(call("study", "digits", "--force").exception)


def test_studies_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("workflow/studies")
    (folder / "folder.yaml").mkdir(parents=True)
    (folder / "link.yaml").symlink_to("nowhere")
    (folder / "latin.yaml").write_bytes("# caf\u00e9\n".encode("latin-1"))
    assert call("study", "digits").exit_code == 0, "others are none of its business"
    before, listed = Path("params.yaml").read_bytes(), call("study").stdout
    assert "real 8x8 scans" in listed
    for name, why in (("folder", "Is a directory"), ("link", "No such file"), ("latin", "UTF-8")):
        assert re.search(rf"^{name} +{folder}/{name}.yaml cannot be read \(.*{why}", listed, re.MULTILINE), listed
        error = call("study", name).exception
        assert isinstance(error, DistilleryError) and f"{name}.yaml" in str(error) and why in str(error)
    assert Path("params.yaml").read_bytes() == before


def test_a_wheel_carries_all_that_a_project_needs() -> None:
    """What setup.py carries is what distillery.project looks for."""
    carried = re.findall(
        r'"([\w./]+)"', (ROOT / "setup.py").read_text().partition("CARRIED = ")[2].partition("\n\n")[0]
    )
    files = [*project._COPIED, "Snakefile", str(project.PROFILES), str(project.STUDIES), "workflow/rules"]
    assert all(any(Path(file).is_relative_to(name) for name in carried) for file in files)


def test_ready_made_studies_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "cifar100-small" in call("study").stdout
    own = Path("workflow/studies/digits.yaml")
    own.parent.mkdir(parents=True)
    own.write_text("study: mine\n")
    assert project.study("digits") == own, "one's own of that name comes first"


def test_which_study_snakemake_takes(tmp_path: Path) -> None:
    assert project.chosen({}) == Path("params.yaml")
    assert project.chosen({"study": "digits"}).name == "digits.yaml"
    assert project.chosen({"params": "my/own.yaml"}) == Path("my/own.yaml")
    for config, sentence in (
        ({"epochs": 3}, "only study=NAME and params=PATH are known"),
        ({"study": "digits", "params": "x"}, "both given"),
        ({"study": "digit"}, "did you mean 'digits'"),
    ):
        with pytest.raises(DistilleryError, match=sentence):
            project.chosen(config)


def test_clean_names_the_study_and_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(STUDY)
    assert "nothing to remove" in call("clean").stdout
    for folder in (AT.artifacts, AT.results, Layout("other").artifacts):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x" * 1000)
    said = call("clean", answer="n\n").stdout
    assert "Remove study 'small': 1 files, 0.0 MB in artifacts/small?" in said and said.endswith("kept\n")
    assert AT.artifacts.exists()
    assert "removed" in call("clean", answer="y\n").stdout
    assert not AT.artifacts.exists() and AT.results.exists() and Layout("other").artifacts.exists()
    kept, note = AT.kept_metrics("t-s", "kd", "0"), AT.results / "file"
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert "nothing to remove" in call("clean", "--results").stdout, "a note of the user's, and what was kept"
    AT.figures.mkdir()
    for made in (*AT.result_files().values(), AT.figures / "curves.svg"):
        made.touch()
    assert f"{len(AT.result_files()) + 1} files, 0.0 MB in {AT.results}\n" in call("clean", "--yes", "--results").stdout
    assert {*AT.results.iterdir()} == {AT.kept, note} and kept.exists(), "it may lie nowhere else"
    shutil.rmtree(AT.kept)
    note.rename(AT.result_files()["table"])
    call("clean", "--yes", "--results")
    assert not AT.results.exists()

    elsewhere = tmp_path / "large"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("x")
    AT.artifacts.symlink_to(elsewhere)
    assert f"1 files, 0.0 MB in artifacts/small, a link to {elsewhere}" in call("clean", "--yes").stdout
    assert not elsewhere.exists() and not AT.artifacts.is_symlink()


@pytest.mark.parametrize("planned", [True, False])
def test_clean_leaves_a_job_at_work_alone(planned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(STUDY)
    if planned:
        current(Path("params.yaml"), write=True)
    weights = AT.teacher("t")
    with lock(weights):
        AT.arrays.parent.mkdir()
        AT.arrays.write_text("x")
        said = call("clean", "--yes").exception
        assert isinstance(said, DistilleryError) and AT.arrays.exists()
        assert str(said).startswith("the job teacher t is running" if planned else f"the job that makes {weights}")
    (left := weights.with_name(f".{weights.name}.lock")).write_text(f"process 999999999 on {socket.gethostname()}")
    assert left.exists() and "removed" in call("clean", "--yes").stdout, "it was killed"


@pytest.mark.slow
def test_check_says_what_will_be_trained_and_what_it_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(STUDY | {"seeds": ["0-2"]})
    lines = call("check").stdout.splitlines()
    assert lines[1].strip() == "teacher t: resnet8_w8, trained for 5 epochs"
    assert "2 methods x 3 seeds of resnet8_w4, 5,142 parameters, 0.05 M multiply-accumulates" in lines[2]
    # 2 methods x 3 seeds x 5 epochs x 899 images x 49,568 multiply-accumulates x 2 operations x 3 passes
    assert "30 epochs in all, 8.0 GFLOP" in lines[3]
    assert lines[4].strip().startswith("time: not known yet")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({}, "trained"),
        ({"fetched": {"url": "a.pth"}}, "fetched"),
        ({"fetched": {"test_top1": 0.0}}, "fetched, test accuracy 0.00 %"),
    ],
)
def test_a_teacher_without_a_history_was_fetched_or_is_a_formula(
    record: dict[str, Any], said: str, tmp_path: Path
) -> None:
    outputs = {name: tmp_path / name for name in ("history", "record")}
    save_history(outputs["history"], {"teacher": []})
    write_json(outputs["record"], record)
    assert outcome(Job("small", "teacher", ("t",), {"task": {"name": "classification"}}, "", {}, outputs)) == said


@pytest.mark.slow
def test_one_line_of_a_job_for_the_terminal_and_the_rest_in_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(STUDY | {"recipe": STUDY["recipe"] | {"epochs": 2, "milestones": []}, "seeds": ["0-1"]})
    make()
    job = current(Path("params.yaml"), write=True)[1].job("distill", pair="t-s", method="kd", seed="0-1")

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "distillery", "run", str(job.path), "--log", str(job.log)]
        return subprocess.run(command, capture_output=True, text=True)

    done = run()
    assert re.fullmatch(r"done    distill t-s kd 0-1: test accuracy \d+\.\d\d  \d+\.\d\d % \(\d+ s\)\n", done.stdout)
    assert done.stderr == "" and "epoch 2/2" in job.log.read_text()

    AT.arrays.write_bytes(b"no arrays")
    done = run()
    assert done.returncode == 1 and done.stderr == ""
    sentence = job.log.read_text().splitlines()[-1].removeprefix("distillery: ")
    assert done.stdout == f"FAILED  distill t-s kd 0-1: {sentence}  ({job.log})\n" and str(AT.arrays) in sentence
