"""Node-local copies: made once, verified, never a wrong one, never needed; hashes noted; one builder per view table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from workbench import BEFORE, Workbench

from distillery.pipeline.layout import Layout
from distillery.records import io as artifacts
from distillery.records import node_cache as nearby
from distillery.records.io import sha256_file

pytestmark = pytest.mark.slow
AT = Layout("digits")
TEACHER, PAIR = "resnet20_w8", "resnet20_w8-resnet8_w2"
DISTILL = ("distillery", "distill", "--pair", PAIR, "--method", "kd", "--seed", "0")
CACHE = ("distillery", "cache", "--teacher", TEACHER)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A file on the shared file system."""
    path = tmp_path / "shared" / "table.bin"
    path.parent.mkdir()
    path.write_bytes(os.urandom(100_000))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies go."""
    monkeypatch.setenv("DISTILLERY_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch" / f"distillery-{os.getuid()}"


def copies(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".json")


def test_processes_that_start_together_copy_once(shared: Path, folder: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from distillery.records import node_cache as nearby
copy = nearby._copy
def slowly(*args):
    print("copying", flush=True)
    time.sleep(1)
    copy(*args)
nearby._copy = slowly
print(nearby.nearby(Path(sys.argv[1]), sys.argv[2]))
"""
    command = [sys.executable, "-c", program, str(shared), sha256_file(shared)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    started = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=600)[0] for process in started]
    (copy,) = copies(folder)
    assert copy.read_bytes() == shared.read_bytes()
    assert sum("copying" in text for text in said) == 1, said
    assert all(text.endswith(f"{copy}\n") for text in said), said
    assert folder.stat().st_mode & 0o777 == 0o700


def test_only_the_right_and_whole_copy_is_taken(shared: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, digest = shared.read_bytes(), sha256_file(shared)
    copy = nearby.nearby(shared, digest)
    assert copy is not None
    first = copy.stat().st_ino
    assert nearby.nearby(shared, digest) == copy
    assert copy.stat().st_ino == first, "an intact copy was made again"

    for damage in (content[:-1], content[:-1] + bytes([content[-1] ^ 1])):  # cut short; one bit, and the time put back
        found = copy.stat()
        copy.write_bytes(damage)
        os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))
        assert nearby.nearby(shared, digest) == copy
        assert copy.read_bytes() == content

    ended = subprocess.Popen(["true"])
    ended.wait()
    partial = copy.with_name(f".{copy.name}.{ended.pid}@{os.uname().nodename}.tmp")
    partial.write_bytes(content[:100])
    copy.unlink()
    assert nearby.nearby(shared, digest) == copy
    assert copies(folder) == [copy], "what a killed copy left behind is still there"

    shared.write_bytes(content[::-1])  # the same name and size, another content
    other = nearby.nearby(shared, sha256_file(shared))
    assert other is not None
    assert other.read_bytes() == content[::-1]
    assert nearby.nearby(shared, "0" * 64) is None, "a copy of a file that is not the one wanted"
    assert copies(folder) == sorted([copy, other])
    assert not capsys.readouterr().out


def test_a_folder_that_cannot_be_used(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DISTILLERY_SCRATCH", raising=False)
    assert nearby.nearby(shared, sha256_file(shared)) is None
    assert not capsys.readouterr().out
    monkeypatch.setenv("DISTILLERY_SCRATCH", str(shared))  # a file
    assert nearby.nearby(shared, sha256_file(shared)) is None
    said = capsys.readouterr().out
    assert said.startswith(f"no copy of {shared} in DISTILLERY_SCRATCH (")
    assert said.count("\n") == 1


def test_a_content_is_hashed_once(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The note is believed only for the very file it was written for, and never for one that might still change."""
    note, hashed = tmp_path / "notes" / "table.bin.json", []

    def counting(path: Path) -> str:
        hashed.append(path)
        return sha256_file(path)

    monkeypatch.setattr(artifacts, "sha256_file", counting)
    first = nearby.sha256_once(shared, note)
    assert not note.exists(), "a small file is not worth a note"
    monkeypatch.setattr(nearby, "NOTED", 0)
    nearby.sha256_once(shared, note)
    assert not note.exists(), "a file that was just written may change again in the same tick of the clock"
    monkeypatch.setattr(nearby, "SETTLED", -1.0)
    hashed.clear()
    assert [nearby.sha256_once(shared, note) for _ in range(3)] == [first] * 3
    assert len(hashed) == 1

    found, content = shared.stat(), shared.read_bytes()
    shared.write_bytes(content[::-1])
    os.utime(shared, ns=(found.st_atime_ns, found.st_mtime_ns))  # size and time as before
    assert nearby.sha256_once(shared, note) == sha256_file(shared) != first
    replacement = shared.with_name("other")
    replacement.write_bytes(content)
    os.utime(replacement, ns=(found.st_atime_ns, found.st_mtime_ns))
    replacement.replace(shared)
    assert nearby.sha256_once(shared, note) == first
    note.write_text("{ cut sho")
    assert nearby.sha256_once(shared, note) == first


# --- the real commands ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """A working copy in which a student was trained without any scratch folder."""
    bench = Workbench(tmp_path_factory.mktemp("bench"))
    bench.tiny(methods=("kd",))
    bench.params = bench.params | {"pairs": {PAIR: {"teacher": TEACHER, "student": "resnet8_w2"}}}
    bench.make(*BEFORE, "distill")
    return bench


def test_the_same_weights_from_the_copies(bench: Workbench, tmp_path: Path) -> None:
    """Trained from the node's copies: the table's shared file may then even be unreadable."""
    students, table = bench.root / AT.students(PAIR, "kd", "0"), bench.root / AT.view_table(TEACHER)
    without, content = sha256_file(students), table.read_bytes()
    bench.run(*DISTILL, DISTILLERY_SCRATCH=str(tmp_path))
    assert sha256_file(students) == without
    names = [copy.name.partition("-")[2] for copy in copies(tmp_path)]
    assert sorted(names) == ["arrays.safetensors", "table.bin"]
    table.write_bytes(bytes(len(content)))
    try:
        assert bench.run(*DISTILL, check=False).returncode
        bench.run(*DISTILL, DISTILLERY_SCRATCH=str(tmp_path))
        assert sha256_file(students) == without
    finally:
        table.write_bytes(content)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for the arrays but not for the table."""
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]).returncode:
        pytest.skip("mounting a small file system needs root")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_full_scratch_folder_loses_nothing(bench: Workbench, small_disk: Path) -> None:
    students = bench.root / AT.students(PAIR, "kd", "0")
    without = sha256_file(students)
    said = bench.run(*DISTILL, DISTILLERY_SCRATCH=str(small_disk)).stdout
    sentence = (
        f"no copy of {AT.view_table(TEACHER)} in DISTILLERY_SCRATCH (No space left on device): it is read from where"
    )
    assert said.count(sentence) == 1, said
    assert sha256_file(students) == without
    assert [copy.name.partition("-")[2] for copy in copies(small_disk)] == ["arrays.safetensors"]


def test_one_builder_per_view_table(bench: Workbench) -> None:
    """Two jobs of a scheduler that build the same table: one builds, the other waits and takes what is there then."""
    table, record = bench.root / AT.view_table(TEACHER), bench.root / AT.view_table_record(TEACHER)
    content = table.read_bytes()
    table.unlink()
    record.unlink()
    first = bench.start(*CACHE, SLURM_JOB_ID="1")
    second = None
    try:
        held, deadline = table.with_name(f".{table.name}.lock"), time.monotonic() + 600
        while not held.exists() and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        os.killpg(first.pid, signal.SIGSTOP)  # so that it surely is not done before the second has come
        assert not table.exists()
        second = bench.start(*CACHE, SLURM_JOB_ID="2")
        assert second.stdout is not None
        waiting = second.stdout.readline()
    finally:
        os.killpg(first.pid, signal.SIGCONT)
        built = first.communicate(timeout=600)[0]
        rest = second.communicate(timeout=600)[0] if second else ""
    assert "waiting for another process" in waiting, waiting
    assert "view table of" in built
    assert "kept" in rest
    assert "view table of" not in rest
    assert table.read_bytes() == content
