"""What jobs on one machine share: GPUs, and what another study here has made already."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_study import STUDY, make, write

from distillery.cli.stages import run
from distillery.errors import DistilleryError
from distillery.pipeline.current import Judge
from distillery.pipeline.gpus import explained, gpu_for, gpus
from distillery.pipeline.job import Job
from distillery.pipeline.planner import current
from distillery.records.files import lock


def job(stage: str) -> Job:
    return Job("small", stage, (), {}, "", {}, {})


def machine(folder: Path, monkeypatch: pytest.MonkeyPatch, listed: str) -> None:
    """A machine whose `nvidia-smi -L` prints this."""
    slurm = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID")
    for name in ("CUDA_VISIBLE_DEVICES", "DISTILLERY_DEVICE", "DISTILLERY_PER_GPU", *slurm):
        monkeypatch.setenv(name, "")  # so that it is put back after the test
        monkeypatch.delenv(name)
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat <<'EOF'\n{listed}EOF\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))


TWO = "GPU 0: NVIDIA H100 (UUID: GPU-aa-0)\nGPU 1: NVIDIA H100 (UUID: GPU-bb-1)\n"
HOLD = """
import sys
from distillery.pipeline.gpus import gpu_for
from distillery.pipeline.job import Job
with gpu_for(Job("small", "distill", (), {}, "", {}, {})) as name:
    print(name, flush=True)
    sys.stdin.read()
"""


def holding() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_every_job_has_a_gpu_of_its_own_and_the_next_one_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, monkeypatch, TWO)
    first = holding()
    assert first.stdout and first.stdout.readline() == "GPU-aa-0\n"
    with gpu_for(job("distill")) as mine:
        assert (mine, os.environ["CUDA_VISIBLE_DEVICES"]) == ("GPU-bb-1", "GPU-bb-1")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        third = holding()
        assert third.stdout and third.stdout.readline() == "waiting for one of 2 GPU(s), which other jobs use\n"
        first.kill()  # without a word
        assert third.stdout.readline() == "GPU-aa-0\n"
        third.communicate("")
        first.communicate()


def test_several_jobs_on_one_gpu_if_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, monkeypatch, "GPU 0: NVIDIA A100 (UUID: GPU-aa)\n")
    monkeypatch.setenv("DISTILLERY_PER_GPU", "2")
    with gpu_for(job("teacher")) as one:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        with gpu_for(job("evaluate")) as two:
            assert one == two == "GPU-aa"


def test_a_divided_gpu_counts_by_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = "  MIG 1g.10gb Device 0: (UUID: MIG-cc-0)\n  MIG 1g.10gb Device 1: (UUID: MIG-cc-1)\n"
    whole = "GPU 1: NVIDIA A100 (UUID: GPU-bb)\n"
    machine(tmp_path, monkeypatch, "GPU 0: NVIDIA A100 (UUID: GPU-aa)\n" + parts + whole)
    assert gpus() == ["MIG-cc-0", "MIG-cc-1", "GPU-bb"]


@pytest.mark.parametrize(
    ("said", "seen"),
    [("3,5", ["3", "5"]), ("GPU-aa-0", ["GPU-aa-0"]), ("", []), ("-1", []), ("NoDevFiles", []), ("0, -1, 1", ["0"])],
)
def test_what_cuda_is_told_to_use_is_read_as_cuda_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, seen: list[str]
) -> None:
    machine(tmp_path, monkeypatch, TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert gpus() == seen


def test_an_allocation_shares_its_own_gpus_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has GPUs 0, 1, ... of its own: jobs of one wait for each other, never for those of another."""
    machine(tmp_path, monkeypatch, TWO)

    def given(job_id: str, step: str, devices: str) -> None:
        for name, value in (("JOB_ID", job_id), ("STEP_ID", step), ("PROCID", "0")):
            monkeypatch.setenv(f"SLURM_{name}", value)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)

    given("7", "", "0,1")
    with gpu_for(job("distill")) as one:
        given("7", "", "0,1")
        with gpu_for(job("distill")) as two:
            assert (one, two, os.environ["CUDA_VISIBLE_DEVICES"]) == ("0", "1", "1")
            for other in (("8", "", "0"), ("7", "1", "0")):
                given(*other)
                with gpu_for(job("distill")) as alone:
                    assert alone == "0"
            given("7", "", "0")
            third = holding()
            assert third.stdout and third.stdout.readline() == "waiting for one of 1 GPU(s), which other jobs use\n"
            third.kill()
            third.communicate()


@pytest.mark.parametrize(
    ("stage", "name", "value"),
    [("data", "SLURM_JOB_ID", ""), ("distill", "DISTILLERY_DEVICE", "cuda:1")],
)
def test_no_gpu_is_held_where_none_is_needed_or_somebody_else_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, name: str, value: str
) -> None:
    machine(tmp_path, monkeypatch, TWO)
    monkeypatch.setenv(name, value)
    with gpu_for(job(stage)) as found:
        assert found is None and "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.slow
def test_a_second_study_takes_over_what_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Data, teacher and view table, under other names; not a teacher of another seed, not what was edited by hand."""
    monkeypatch.chdir(tmp_path)
    short = STUDY | {"recipe": STUDY["recipe"] | {"epochs": 1, "milestones": []}}
    write(short)
    make()
    teachers = {"same": STUDY["teachers"]["t"], "another": STUDY["teachers"]["t"] | {"seed": 1}}
    pairs = {"p": {"teacher": "same", "student": "resnet8_w2"}, "q": {"teacher": "another", "student": "resnet8_w2"}}
    write(short | {"study": "second", "teachers": teachers, "pairs": pairs}, "second.yaml")

    def made(*key: str) -> str:
        run(Path("artifacts/second/specs", *key).with_suffix(".json"))
        return capsys.readouterr().out

    plan = current(Path("second.yaml"), write=True)[1]
    monkeypatch.setenv("DISTILLERY_SHARE", "0")
    assert "the same as" not in made("data")
    monkeypatch.setenv("DISTILLERY_SHARE", "1")
    assert "the same as artifacts/small/data/data.json" in made("data")
    assert "the same as artifacts/small/teachers/t/teacher.json" in made("teacher", "same")
    assert "the same as artifacts/small/cache/t/cache.json" in made("cache", "same")
    assert "epoch 1/1" in made("teacher", "another")
    judge = Judge(plan, thorough=True)
    found = {name: judge.verdict(plan.job(*name.split()[:1], teacher=name.split()[1])).current for name in
             ("teacher same", "cache same", "teacher another")}  # fmt: skip
    assert found == dict.fromkeys(found, True) and judge.verdict(plan.job("data")).current
    same, other = (Path("artifacts", *place, "model.safetensors").read_bytes() for place in
                   (("small", "teachers", "t"), ("second", "teachers", "same")))  # fmt: skip
    assert same == other

    shutil.rmtree("artifacts/second/teachers/same")
    weights = Path("artifacts/small/teachers/t/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    record = json.loads(weights.with_name("teacher.json").read_text())
    assert record["outputs"][str(weights)]["bytes"] == weights.stat().st_size
    assert "epoch 1/1" in made("teacher", "same"), "a file that is not what its record says is not taken over"


def test_nothing_is_copied_over_what_another_process_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its record would name one file, and the other one's lie there."""
    monkeypatch.chdir(tmp_path)
    jobs = []
    for study in ("first", "second"):
        write(STUDY | {"study": study}, f"{study}.yaml")
        jobs.append(current(Path(f"{study}.yaml"), write=True)[1].job("data"))
    run(jobs[0].path)
    with lock(jobs[1].locked), pytest.raises(DistilleryError, match="another process is already making"):
        run(jobs[1].path)
    assert not jobs[1].record.exists()
    run(jobs[1].path)
    assert not jobs[1].provenance.exists() and jobs[1].record.exists(), "it was copied"


@pytest.mark.slow
def test_a_grown_block_takes_over_whole_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    short = STUDY | {
        "recipe": STUDY["recipe"] | {"epochs": 1, "milestones": []},
        "methods": {"ce": {"objective": "ce"}},
    }
    write(short | {"tables": {}})
    make()
    folder = Path("artifacts/small/runs/t-s/ce")
    for name in ("nothing", "students.safetensors", "history.safetensors"):
        kept = (folder / "0" / name).read_bytes() if name != "nothing" else b""
        if kept:
            (folder / "0" / name).write_bytes(kept[:-1] + bytes([kept[-1] ^ 0x80]))
        write(short | {"tables": {}, "seeds": ["0-1"]})
        capsys.readouterr()
        make()
        assert ("seed 0: finished before" in capsys.readouterr().out) == (name == "nothing"), name
        if kept:
            (folder / "0" / name).write_bytes(kept)
        shutil.rmtree(folder / "0-1")


@pytest.mark.slow
@pytest.mark.parametrize(("theirs", "ours"), [(1e-6, 16), (16, 1e-6)])
def test_a_table_is_taken_over_within_this_studys_budget(
    theirs: float, ours: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    short = STUDY | {"recipe": STUDY["recipe"] | {"epochs": 1, "milestones": []}}

    def live(study: str, budget: float) -> str | None:
        write(short | {"study": study, "cache": {"budget_gb": budget}}, f"{study}.yaml")
        plan = current(Path(f"{study}.yaml"), write=True)[1]
        for stage in ("data", "teacher", "cache"):
            run(plan.job(stage, teacher="t").path)
        return json.loads(plan.job("cache", teacher="t").record.read_text()).get("live")

    for study, budget in (("first", theirs), ("second", ours)):
        assert bool(live(study, budget)) == (budget < 1)
    capsys.readouterr()
    live("third", ours)
    assert "the same as artifacts/second/cache/t/cache.json" in capsys.readouterr().out


def test_a_machine_that_is_too_small_or_not_exact_is_told_in_one_sentence() -> None:
    """What torch itself raises for it, but for CUDA's: there is no such device here."""
    before = torch.are_deterministic_algorithms_enabled()

    def too_large() -> None:
        torch.empty(2**50)

    def not_exact() -> None:
        torch.use_deterministic_algorithms(True)
        torch.zeros(4).put_(torch.tensor([0, 1]), torch.ones(2))

    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    def full_for_cublas() -> None:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    def single() -> None:
        torch.nn.BatchNorm1d(3)(torch.ones(1, 3))

    cases = (
        (single, "the last batch holds one image.*recipe.batch_size"),
        (too_large, "run fewer jobs"),
        (not_exact, "recipe.deterministic: false.*put_"),
        (full, "at_once.*20.00 GiB"),
        (full_for_cublas, "the GPU's memory is full"),
    )
    try:
        for fails, sentence in cases:
            with pytest.raises(DistilleryError, match=sentence) as told, explained():
                fails()
            assert "\n" not in str(told.value)
        with pytest.raises(RuntimeError, match="a mistake of ours") as ours, explained():
            raise RuntimeError("a mistake of ours")
        assert not isinstance(ours.value, DistilleryError)
    finally:
        torch.use_deterministic_algorithms(before)
