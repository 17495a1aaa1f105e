"""Environment variables: empty is unset, and a value that cannot be meant is one sentence, whatever reads it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import small_study
import torch
from conftest import ROOT

from distillery import settings
from distillery.cli import app, main
from distillery.errors import DistilleryError
from distillery.records import environment
from distillery.study.model import Recipe
from distillery.teachers import download
from distillery.training.checkpoint import Checkpoint
from distillery.training.device import chosen_device, set_up
from distillery.training.parallel import Ranks

READ = {
    "DISTILLERY_CIFAR100": settings.cifar100,
    "DISTILLERY_CACHE": settings.cache,
    "DISTILLERY_DEVICE": chosen_device,
    "DISTILLERY_CHECKPOINT_SECONDS": settings.checkpoint_seconds,
    "DISTILLERY_SCRATCH": settings.scratch,
    "DISTILLERY_LIVE": settings.live,
    "DISTILLERY_PER_GPU": settings.per_gpu,
    "DISTILLERY_SHARE": settings.share,
    "OMP_NUM_THREADS": settings.threads,
    "DISTILLERY_WORKERS": settings.workers,
    "XDG_CACHE_HOME": settings.cache,
    "SLURM_JOB_ID": settings.slurm_job,
    "SLURM_PROCID": settings.slurm_task,
    "TORCHELASTIC_RUN_ID": Ranks.launched,
}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in READ:
        monkeypatch.delenv(name, raising=False)


def test_few_images_take_few_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    assert [settings.workers(images) for images in (1, 256, 600, 10**6, None)] == [1, 1, 3, 8, 8]
    monkeypatch.setenv("DISTILLERY_WORKERS", "5")
    assert settings.workers(1) == 5


@pytest.mark.parametrize("name", READ)
def test_empty_is_unset(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    unset = READ[name]()
    for value in ("", " "):
        monkeypatch.setenv(name, value)
        assert READ[name]() == unset


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("OMP_NUM_THREADS", value) for value in ("all", "0", "-1", "2.5", ",4", "9" * 30)),
        *(("DISTILLERY_WORKERS", value) for value in ("all", "-1", "1.5", "1000")),
        *(("DISTILLERY_CHECKPOINT_SECONDS", value) for value in ("1m", "nan", "inf", "-1", "1,5")),
        *(("DISTILLERY_DEVICE", value) for value in ("gpu", "CUDA", "cuda:", "cuda:one", "0", "cuda:0,1")),
        *((name, "~no-such-user/x") for name in ("DISTILLERY_CIFAR100", "DISTILLERY_CACHE", "DISTILLERY_SCRATCH")),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main(["data"])
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert re.fullmatch(rf"distillery: the environment variable {name} .*{re.escape(repr(value))}.*\n", said), said


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "cuda:1"):
        monkeypatch.setenv("DISTILLERY_DEVICE", name)
        with pytest.raises(DistilleryError, match=f"DISTILLERY_DEVICE is '{name}', but must be cpu on this machine"):
            set_up(Recipe())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert chosen_device() == torch.device("cuda:1")
    monkeypatch.setenv("DISTILLERY_DEVICE", "cuda:2")
    with pytest.raises(DistilleryError, match="cuda:N with N below 2"):
        chosen_device()


def test_values_that_are_meant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for value, threads in (("4,2", 4), (" 3 ", 3), ("1", 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert settings.threads() == threads
    for value, seconds in (("0", 0.0), ("1e3", 1000.0), ("2.5", 2.5)):
        monkeypatch.setenv("DISTILLERY_CHECKPOINT_SECONDS", value)
        assert Checkpoint(tmp_path, "").seconds == seconds
    monkeypatch.setenv("DISTILLERY_SCRATCH", "~/disk")
    assert settings.scratch() == Path.home() / "disk"
    assert settings.cache() == Path.home() / ".cache" / "distillery"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert settings.cache() == Path("/x/distillery")
    monkeypatch.setenv("DISTILLERY_CACHE", "/y")
    assert download.kept("http://a/b.pth").is_relative_to("/y")


def test_torchrun_without_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DistilleryError, match="the environment variable RANK is '', but must be the number"):
        Ranks.launched()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Ranks.launched() == Ranks(1, 2)


def test_nothing_else_reads_the_environment_and_the_readme_lists_what_users_set() -> None:
    source = ROOT / "src" / "distillery"
    asked = {
        str(p.relative_to(source)) for p in source.rglob("*.py") if re.search(r"os\.(environ|getenv)", p.read_text())
    }
    assert asked <= {"settings.py", "pipeline/snakemake.py", "pipeline/work.py"}
    table = set(re.findall(r"^\| `([A-Z0-9_]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert table == {name for name in READ if name.startswith("DISTILLERY_")} | {"OMP_NUM_THREADS"}


def test_it_comes_without_torch() -> None:
    code = "import sys, distillery.settings; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"OMP_NUM_THREADS": "x"})


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with AVX-512, whatever this one is; variables of libraries as they were before, afterwards."""
    monkeypatch.setattr(environment, "_told_of_cpu", lambda what: "fma avx2 avx512f amx_bf16")
    for name in settings.AVX2:
        monkeypatch.setenv(name, "")


@pytest.mark.usefixtures("newer")
def test_a_study_keeps_to_the_instructions_of_older_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.cpu_instructions() == ["AVX2", "AVX-512", "AMX"]
    environment.keep_to("native")
    assert not any(settings.get(name) for name in settings.AVX2)
    environment.keep_to("avx2")
    assert {name: settings.get(name) for name in settings.AVX2} == settings.AVX2
    assert environment.cpu_instructions() == ["AVX2"]


@pytest.mark.usefixtures("newer")
def test_nothing_is_asked_of_a_processor_that_has_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_told_of_cpu", lambda what: "fp asimd sve")
    environment.keep_to("avx2")
    assert not any(settings.get(name) for name in settings.AVX2)


@pytest.mark.usefixtures("newer")
def test_instructions_that_come_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command makes its job within them; torch, which reads them once, is asked what it uses."""
    monkeypatch.chdir(tmp_path)
    small_study.write(small_study.STUDY | {"instructions": "avx2"})
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")  # as in a process of its own
    app(["data"], standalone_mode=False)
    app(["teacher", "--teacher", "t"], standalone_mode=False)
    record = json.loads(Path("artifacts/small/teachers/t/teacher.json").read_text())
    assert record["environment"]["cpu_instructions"] == "AVX2" and record["spec"]["values"]["instructions"] == "avx2"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    with pytest.raises(DistilleryError, match=r"^cache t: `instructions: avx2` comes too late .* process of its own"):
        app(["cache", "--teacher", "t"], standalone_mode=False)


def test_the_libraries_heed_them() -> None:
    """In a process of its own; names of variables may change with a release of torch."""
    if "AVX2" not in environment.cpu_instructions():
        pytest.skip("a processor without AVX2")
    code = (
        "from distillery.records.environment import keep_to; keep_to('avx2')\n"
        "import torch; x = torch.ones(64, 16, 8, 8)\n"
        "print(torch.backends.cpu.get_cpu_capability(), torch.conv2d(x, torch.ones(16, 16, 3, 3)).sum().item())\n"
        "x[0, 0] @ x[0, 0]\n"
    )
    env = os.environ | {"ONEDNN_VERBOSE": "1", "MKL_VERBOSE": "1", "OMP_NUM_THREADS": "1"}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert "AVX2 5308416.0" in said and "CNR:COMPATIBLE" in said
    assert re.search(r"isa:.*AVX2$", said, re.MULTILINE)
