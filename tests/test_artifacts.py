"""Files, hashes and locks: what is under a final name is whole, and what goes wrong is one sentence."""

from __future__ import annotations

import errno
import importlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_study import STUDY, make, write

from distillery.pipeline.current import Judge
from distillery.pipeline.planner import current
from distillery.pipeline.work import Work
from distillery.records import files
from distillery.records import io as artifacts
from distillery.records.io import DistilleryError, atomic_path, lock, read_json, write_json
from distillery.status.locks import holder


def run(code: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=-1, text=True, **options)


def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_torch_is_not_imported() -> None:
    code = "import distillery.records.io, distillery.data, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- atomic_path


def test_atomic_path_replaces_only_on_success(tmp_path: Path) -> None:
    final = tmp_path / "new folder" / "a.txt"
    with atomic_path(final) as temporary:
        assert temporary.parent == final.parent
        temporary.write_text("one")
        assert not final.exists()
    assert final.read_text() == "one"
    for failure in (KeyboardInterrupt, RuntimeError):
        with pytest.raises(failure), atomic_path(final) as temporary:
            temporary.write_text("two")
            raise failure
    assert final.read_text() == "one"
    assert names(final.parent) == ["a.txt"]


def test_files_obey_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", {})
        artifacts.save_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(1)})
    finally:
        os.umask(before)
    assert {p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {0o640}


def test_leftovers_of_the_dead_are_swept_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    host = files.socket.gethostname()
    final = tmp_path / "a.txt"
    dead, living, far, old = (
        tmp_path / f".a.txt.{who}.tmp" for who in (f"{dead_pid()}@{host}", f"1@{host}", "1@elsewhere", "2@elsewhere")
    )
    other = tmp_path / f".b.txt.{dead_pid()}@{host}.tmp"
    for file in (dead, living, far, old, other):
        file.touch()
    os.utime(old, (0, 0))
    with atomic_path(final) as temporary:
        temporary.touch()
    assert names(tmp_path) == sorted([living.name, far.name, other.name, final.name])


def test_scratch_folder_is_removed(tmp_path: Path) -> None:
    with artifacts.scratch(tmp_path / "archive") as folder:
        folder.mkdir()
        (folder / "part").touch()
    assert names(tmp_path) == []


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"old": 1})
    code = """
import sys, time
from distillery.records.io import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half"); print("ready", flush=True); time.sleep(600)
"""
    writer = run(code, tmp_path / "a.json")
    assert writer.stdout and writer.stdout.readline() == "ready\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert read_json(tmp_path / "a.json") == {"old": 1}
    assert len(names(tmp_path)) == 2
    write_json(tmp_path / "a.json", {"new": 1})
    assert names(tmp_path) == ["a.json"]


# --- places that cannot be written


def test_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DistilleryError, match=r"cannot write .*a\.txt: the disk is full; free some space"):  # noqa: SIM117
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.touch()
            with Path("/dev/full").open("wb", buffering=0) as file:
                file.write(b"x")
    assert names(tmp_path) == []


def test_file_size_limit_is_one_sentence(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(DistilleryError, match=r"cannot write .*a\.safetensors: the file grew over"):
            artifacts.save_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(1000)})
        with artifacts.scratch(tmp_path / "figures") as folder:
            folder.mkdir()
            with pytest.raises(DistilleryError) as found:
                artifacts.save_tensors(folder / "a.safetensors", {"x": torch.zeros(1000)})
        assert f"cannot write {tmp_path}/figures/a.safetensors: the file" in str(found.value)  # where it would lie
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == []


def test_read_only_folder_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    user = os.geteuid()
    if user == 0:  # root may write anywhere
        os.seteuid(65534)
    try:
        for attempt in (lambda: write_json(tmp_path / "a.json", {}), lambda: lock(tmp_path / "a.json").__enter__()):
            with pytest.raises(DistilleryError, match=r"cannot write .*a\.json: permission denied; make the folder"):
                attempt()
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o700)


def test_file_in_the_place_of_a_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file/a.json", "file/folder/a.json"):
        with pytest.raises(DistilleryError, match=r"cannot write .*a\.json: a part of the path is a file"):
            write_json(tmp_path / name, {})
    (tmp_path / "b.json").mkdir()
    with pytest.raises(DistilleryError, match=r"cannot write .*b\.json: a folder has this name"):
        write_json(tmp_path / "b.json", {})
    assert names(tmp_path) == ["b.json", "file"]


def test_errors_about_other_files_are_not_blamed_on_the_output(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), atomic_path(tmp_path / "a.txt"):
        (tmp_path / "input").mkdir()
        (tmp_path / "input").read_text()


# --- JSON


def test_json_round_trip_is_sorted_and_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, 0.1], "a": "é"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "a": "é",\n "b": [\n  1,\n  0.1\n ]\n}\n'
    assert read_json(tmp_path / "a.json") == {"a": "é", "b": [1, 0.1]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_what_is_not_finite_and_says_where(tmp_path: Path, value: float) -> None:
    with pytest.raises(DistilleryError, match=rf"a\.json: history\[1\]\.loss = {value} is not a finite number"):
        write_json(tmp_path / "a.json", {"history": [{"loss": 1.0}, {"loss": value}]})
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "content", [b"", b'{"a": ', b"\xff\xfe{}", b"[" * 100_000], ids=["none", "cut", "utf16", "deep"]
)
@pytest.mark.parametrize(
    ("place", "damaged", "missing"),
    [
        ("artifacts/s/a.json", "delete it and run its stage again", "run the stage that makes it first"),
        ("results/s/a.json", "take it from git again", "take it from git again"),
        ("params.yaml", "a JSON file is expected there", "check the path"),
        ("../artifacts/s/a.json", "a JSON file is expected there", "check the path"),
    ],
)
def test_damaged_and_missing_json_is_one_sentence_that_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, place: str, damaged: str, missing: str
) -> None:
    """Only what a stage makes is to be deleted."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for path in (Path(place), Path(place).resolve()):
        path.parent.mkdir(parents=True, exist_ok=True)
        with pytest.raises(DistilleryError, match=rf"{path} is missing; {missing}"):
            read_json(path)
        path.write_bytes(content)
        with pytest.raises(DistilleryError, match=rf"{path} is .*damaged or cut short .*[;:] {damaged}") as found:
            read_json(path)
        assert ("delete" in str(found.value)) == place.startswith("artifacts")
        path.unlink()


def test_unreadable_json_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DistilleryError, match=r"cannot read .*: Is a directory; check the path"):
        read_json(tmp_path)


# --- tensors

TENSORS = {
    "images": torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4).permute(0, 2, 1),  # not contiguous
    "f64": torch.linspace(0, 1, 5, dtype=torch.float64),
    "bf16": torch.linspace(-1, 1, 7).to(torch.bfloat16),
    "f16": torch.linspace(-1, 1, 3).half(),
    "scalar": torch.tensor(3, dtype=torch.int64),
    "flags": torch.tensor([True, False, True]),
    "empty": torch.zeros(0, 3),
    "parameter": torch.nn.Parameter(torch.ones(2, 2)),
}


def test_tensors_round_trip_also_through_the_library(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    artifacts.save_tensors(path, TENSORS, {"key": "value", "another": "é"})
    for loaded in (artifacts.load_tensors(path), load_file(path)):
        assert loaded.keys() == TENSORS.keys()
        for name, tensor in TENSORS.items():
            assert loaded[name].dtype == tensor.dtype
            assert torch.equal(loaded[name], tensor)
    assert artifacts.read_metadata(path) == {"key": "value", "another": "é"}
    artifacts.save_tensors(path, {"x": torch.zeros(1)})
    assert artifacts.read_metadata(path) == {}


def test_arrays_are_written_as_tensors_are(tmp_path: Path) -> None:
    tensors = {k: v.detach() for k, v in TENSORS.items() if v.dtype != torch.bfloat16}
    artifacts.save_tensors(tmp_path / "a", tensors)
    artifacts.save_tensors(tmp_path / "b", {k: v.numpy() for k, v in tensors.items()})
    artifacts.save_tensors(tmp_path / "c", {k: v.numpy().copy(order="F") for k, v in tensors.items()})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_tensor_files_have_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    code = """
import sys, numpy
from distillery.records.io import save_tensors
save_tensors(sys.argv[1], {k: numpy.arange(5) for k in "cab"}, {k: k for k in "zyxwvu"})
"""
    for i in range(3):
        assert run(code, tmp_path / str(i), env={**os.environ, "PYTHONHASHSEED": str(i)}).wait() == 0
    assert len({artifacts.sha256_file(p) for p in tmp_path.iterdir()}) == 1


def test_damaged_tensor_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    artifacts.save_tensors(path, {"x": torch.arange(100)})
    whole = path.read_bytes()
    for content in (b"", whole[:5], whole[:40], whole[:-1], whole + b"x", b"PK" + whole[2:]):
        path.write_bytes(content)
        for read in (artifacts.load_tensors, artifacts.read_metadata):
            with pytest.raises(DistilleryError, match=r"a\.safetensors is no safetensors file, or is damaged"):
                read(path)
    path.unlink()
    for read in (artifacts.load_tensors, artifacts.read_metadata, artifacts.sha256_file):
        with pytest.raises(DistilleryError, match=r"a\.safetensors is missing; check the path"):
            read(path)


# --- hashes


def test_known_hashes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert artifacts.sha256_file(tmp_path / "a") == known
    assert artifacts.sha256_json({"b": 1, "a": [1, 2]}) == artifacts.sha256_json({"a": (1, 2), "b": 1})
    assert artifacts.sha256_json({"a": 1}) != artifacts.sha256_json({"a": 2})


def test_tree_hash_follows_source_code_only(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "__pycache__").mkdir(parents=True)
    (source / "a.py").write_text("a = 1")
    (source / "b.yaml").write_text("b: 1")
    (single := tmp_path / "single.py").write_text("c = 1")
    first = artifacts.sha256_tree([source, single])
    assert artifacts.sha256_tree([single, source]) == first
    (source / "notes.md").write_text("text")
    (source / "__pycache__" / "a.pyc").write_bytes(b"x")
    assert artifacts.sha256_tree([source, single]) == first
    (source / "a.py").rename(source / "z.py")
    assert (renamed := artifacts.sha256_tree([source, single])) != first
    (source / "z.py").write_text("a = 2")
    assert artifacts.sha256_tree([source, single]) not in (first, renamed)
    with pytest.raises(DistilleryError, match="is missing"):
        artifacts.sha256_tree([tmp_path / "nothing"])


# --- lock

HOLD = """
import sys, time
from distillery.records.io import lock
with lock(sys.argv[1]):
    print("ready", flush=True); time.sleep(600)
"""


def test_a_full_disk_leaves_no_lock_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one would look as if somebody were about to begin; one that is left all the same does for a moment."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(DistilleryError, match="the disk is full"), lock(tmp_path / "a"):
            raise AssertionError("held")
    assert not [*tmp_path.iterdir()]
    (empty := tmp_path / ".a.lock").touch()
    assert (young := holder(tmp_path / "a")) and young.alive
    os.utime(empty, (0, 0))
    assert (old := holder(tmp_path / "a")) and not old.alive


def test_second_holder_is_refused_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    holder = run(HOLD, path)
    assert holder.stdout and holder.stdout.readline() == "ready\n"
    refusal = rf"another process is already making {path} \(process {holder.pid} on .*\); wait for it or stop it"
    with pytest.raises(DistilleryError, match=refusal), lock(path):
        raise AssertionError("two holders")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    for _ in range(2):
        with lock(path):
            pass
    assert names(tmp_path) == []


def test_lock_is_released_by_errors_and_is_not_reentrant(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), lock(tmp_path / "a"):
        raise RuntimeError
    with lock(tmp_path / "a"), lock(tmp_path / "b"), pytest.raises(DistilleryError), lock(tmp_path / "a"):
        pass
    assert names(tmp_path) == []


@pytest.mark.slow
def test_lock_never_has_two_holders(tmp_path: Path) -> None:
    """Threads take and drop the lock as fast as they can: the file's removal must not open a gap."""
    inside, most, turns, until = [0], [0], [0], time.monotonic() + 600
    guard = threading.Lock()

    def compete() -> None:
        while turns[0] < 200 and time.monotonic() < until:
            try:
                with lock(tmp_path / "a"):
                    with guard:
                        inside[0] += 1
                        most[0] = max(most[0], inside[0])
                        turns[0] += 1
                    time.sleep(0)
                    with guard:
                        inside[0] -= 1
            except DistilleryError:
                pass

    threads = [threading.Thread(target=compete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1 and turns[0] >= 200


# --- provenance


def test_environment_names_versions() -> None:
    facts = artifacts.environment()
    assert facts["torch"] == torch.__version__.split("+")[0] or facts["torch"] == torch.__version__
    assert facts["numpy"] == np.__version__
    assert facts["cpu"] and facts["cpu_count"] == os.cpu_count()
    if (used := torch.backends.cpu.get_cpu_capability()) in ("AVX2", "AVX512"):  # two processors of one name may differ
        assert used.replace("512", "-512") in facts["cpu_instructions"]
    artifacts.sha256_json(facts)


def test_revision(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        return subprocess.check_output(["git", *identity, "-C", str(tmp_path), *arguments], text=True).strip()

    git("init", "-q")
    assert artifacts.revision(tmp_path) == "unknown"
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("a = 1")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")
    assert artifacts.revision(tmp_path) == commit
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "table.md").touch()  # what a run writes is not code
    assert artifacts.revision(tmp_path) == commit
    (tmp_path / "src" / "b.py").touch()
    assert artifacts.revision(tmp_path) == commit + "-dirty"
    assert artifacts.revision(tmp_path / "nowhere") == "unknown"


# --- the record of what is made anew


class Killed(BaseException):
    """Stands for kill -9: nothing that a stage catches."""


@pytest.mark.slow
def test_a_kill_leaves_no_record_beside_an_output_that_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new output may have the size of the old one, by which engines judge. Before it is there, nothing is lost."""
    monkeypatch.chdir(tmp_path)
    write(STUDY)
    make(tables=True)
    _, plan = current(Path("params.yaml"))

    def dies_before(path: Path) -> None:
        raise Killed

    def dies_behind(path: Path) -> None:  # the folder is synced when the file has been renamed
        if path in folders:
            raise Killed

    for job in plan:
        folders = {path.parent for path in job.outputs.values()}
        stage = importlib.import_module(f"distillery.stages.{job.stage}")
        for dies, left in ((dies_before, True), (dies_behind, False)):
            with monkeypatch.context() as patched, pytest.raises(Killed):
                patched.setattr(files, "_sync", dies)
                stage.run(Work(job, plan.settings))
            assert job.record.exists() is left, job.name
        stage.run(Work(job, plan.settings))
        assert Judge(plan).verdict(job).current, job.name
