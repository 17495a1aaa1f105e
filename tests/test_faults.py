"""Bad input, real kills, two at once, a full disk: one clear sentence, and nothing lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workbench import BEFORE, Workbench

from distillery.pipeline import engines
from distillery.pipeline.layout import Layout
from distillery.records.io import DistilleryError, sha256_file
from distillery.verify import record

pytestmark = pytest.mark.slow
AT = Layout("digits")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """A working copy in which everything before the students is done."""
    bench = Workbench(tmp_path_factory.mktemp("faults"))
    bench.tiny(epochs=6, seeds=(0, 1, 3, 7))
    bench.make(*BEFORE)
    return bench


def teacher(bench: Workbench) -> str:
    return next(iter(bench.params["teachers"]))


def pair(bench: Workbench) -> str:
    return next(iter(bench.params["pairs"]))


def distill(bench: Workbench, seed: str = "0", method: str = "kd") -> list[str]:
    return ["distillery", "distill", "--pair", pair(bench), "--method", method, "--seed", seed]


def students(bench: Workbench, seed: str = "0", method: str = "kd") -> Path:
    return bench.root / AT.students(pair(bench), method, seed)


def refused(bench: Workbench, *command: str) -> str:
    """Run a command that must fail with one sentence and no traceback; return the sentence."""
    done = bench.run(*command, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("distillery: ")
    return done.stderr


def test_names_that_are_not_in_the_study(bench: Workbench) -> None:
    said = refused(bench, "distillery", "distill", "--pair", "nobody", "--method", "kd", "--seed", "0")
    assert "--pair nobody: not in params.yaml" in said
    said = refused(bench, "distillery", "distill", "--pair", pair(bench), "--method", "kdd", "--seed", "0")
    assert "did you mean 'kd'?" in said
    assert "--seed one: not in params.yaml" in refused(bench, *distill(bench, "one"))
    before = bench.params
    bench.params = before | {"seeds": ["0-7"]}
    assert "--seed 3 is one of a block that is trained together: give --seed 0-7" in refused(
        bench, *distill(bench, "3")
    )
    bench.params = before
    assert "did you mean" in refused(bench, "distillery", "teacher", "--teacher", f"{teacher(bench)}x")
    said = refused(bench, "distillery", "study", "cifar10")
    assert "no ready-made study 'cifar10'" in said


def test_an_edited_study_is_not_overwritten(bench: Workbench) -> None:
    assert "params.yaml was edited" in refused(bench, "distillery", "study", "digits")


def test_the_code_that_engines_run_is_the_code_that_lies_here(bench: Workbench) -> None:
    """Also where the installed package is another working copy's, as in the folders of queued experiments."""
    source = bench.root / "src" / "distillery" / "cli" / "stages.py"
    before, data = source.read_text(), bench.root / AT.data
    source.write_text(before.replace("settings.check()", 'print("the code that lies here")'))
    try:
        bench.run("snakemake", "--cores", "1", "--forcerun", "data", "--", str(AT.data), PYTHONPATH="")
        assert "the code that lies here" in (bench.root / AT.log("data")).read_text()
        said = bench.run("dvc", "repro", "--single-item", "--force", "data", PYTHONPATH="").stdout
        assert "the code that lies here" in said
    finally:
        source.write_text(before)
    assert data.exists()


def test_both_engines_show_the_sentence(bench: Workbench) -> None:
    params = bench.params
    bench.params = params | {"methods": params["methods"] | {"kd": {"objective": "kd", "temprature": 2}}}
    try:
        for quiet in ([], ["--quiet", "all"]):
            done = bench.run("snakemake", "-n", *quiet, check=False)
            assert done.returncode
            assert "unknown key 'temprature': did you mean 'temperature'?" in done.stdout + done.stderr
    finally:
        bench.params = params


def test_missing_input_says_what_to_run(bench: Workbench) -> None:
    hidden = bench.root / AT.pair(pair(bench))
    hidden.rename(hidden.with_suffix(".hidden"))
    try:
        assert "run the stages before it" in refused(bench, *distill(bench))
    finally:
        hidden.with_suffix(".hidden").rename(hidden)


def test_truncated_table_and_swapped_teacher_are_noticed(bench: Workbench) -> None:
    table, weights = bench.root / AT.view_table(teacher(bench)), bench.root / AT.teacher(teacher(bench))
    content = table.read_bytes()
    table.write_bytes(content[: len(content) // 2])
    assert "run the cache stage again" in refused(bench, *distill(bench))
    table.write_bytes(content)
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-8] + bytes(8))
    assert "is not the teacher that the pair was made with" in refused(bench, *distill(bench))
    weights.write_bytes(kept)


def stopped(bench: Workbench, seed: str) -> subprocess.Popen[str]:
    """Start a run that stops (SIGSTOP) in the middle."""
    checkpoint = AT.checkpoint(pair(bench), "kd", seed)
    bench.pause(checkpoint)
    process, deadline = bench.start(*distill(bench, seed), **bench.pausing()), time.monotonic() + 600
    while not bench.paused(checkpoint):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def test_two_at_once(bench: Workbench) -> None:
    """The second of two equal commands says so and leaves; the first one finishes."""
    first = stopped(bench, "7")  # so that it surely is not done before the second has started
    try:
        assert "another process is already making" in refused(bench, *distill(bench, "7"))
    finally:
        os.killpg(first.pid, signal.SIGCONT)
        out, _ = first.communicate(timeout=600)
    assert first.returncode == 0, out
    assert students(bench, "7").exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_in_the_middle_and_run_again(bench: Workbench, how: signal.Signals) -> None:
    bench.run(*distill(bench, "1"))
    undisturbed = sha256_file(students(bench, "1"))
    students(bench, "1").unlink()
    process, checkpoint = stopped(bench, "1"), bench.root / AT.checkpoint(pair(bench), "kd", "1")
    os.killpg(process.pid, how)
    os.killpg(process.pid, signal.SIGCONT)
    said, _ = process.communicate(timeout=600)
    assert process.returncode, "the run was over before it could be killed"
    if how != signal.SIGKILL:
        assert process.returncode == 128 + how
        assert "the state is saved, the same command goes on from there" in said
        assert "Traceback" not in said
    assert not students(bench, "1").exists()
    assert checkpoint.exists()
    bench.run(*distill(bench, "1"))
    assert sha256_file(students(bench, "1")) == undisturbed
    assert not checkpoint.exists()


def test_results_that_cannot_be_written(bench: Workbench) -> None:
    """A read-only results folder. Root may write anywhere, so root gives that right up first."""
    folder = bench.root / "artifacts" / "digits"
    humble = [] if os.geteuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    mode = folder.stat().st_mode
    folder.chmod(0o500)
    try:
        assert "cannot write below" in refused(bench, *humble, *distill(bench))
    finally:
        folder.chmod(mode)


def test_full_disk(bench: Workbench) -> None:
    """The outputs of a run lie on a file system without room: one sentence; with room again, the same command works."""
    folder = students(bench, "3").parent
    folder.mkdir(parents=True)
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        said = refused(bench, *distill(bench, "3"))
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
    assert "No space left" in said or "disk" in said
    assert str(AT.students(pair(bench), "kd", "3")) in said
    bench.run(*distill(bench, "3"))
    assert students(bench, "3").exists()
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("module", "call"),
    [(engines, lambda: engines.dvc("version")), (record, lambda: record.recorded("HEAD", None))],  # type: ignore[arg-type]
    ids=["dvc", "git"],
)
def test_a_program_that_does_not_end_is_a_sentence(
    module: Any, call: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    with pytest.raises(DistilleryError, match=r"^`(dvc version|git rev-parse)` did not end in .*then run the command"):
        call()
