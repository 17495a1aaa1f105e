"""Mirrors of a checkpoint: its formats, its hashes, downloads over real sockets and whatever goes wrong with them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
from checkpoints import MEMBER, NAME, TEACHER, archived, everything, get, refused, released, same, saved, sha256
from loopback import Server, nobody, silent
from torch import Tensor

from distillery import models
from distillery.records.io import DistilleryError
from distillery.teachers import download
from distillery.teachers.fetch import NoMirror

pytestmark = pytest.mark.usefixtures("downloads")

FORMATS: dict[str, Callable[[dict[str, Tensor]], bytes]] = {
    "released": released,
    "state dict alone": saved,
    "with prefix": lambda weights: saved({"model": {f"module.{k}": t for k, t in weights.items()}}),
    "safetensors": safetensors.torch.save,
    "archive of one": lambda weights: archived(
        {"x/README": b"-", "x/teacher.safetensors": safetensors.torch.save(weights)}
    ),
    "compressed archive": lambda weights: archived({"./teacher.pth": released(weights)}, "w:gz"),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_told_by_its_content(server: Server, kind: str) -> None:
    content = FORMATS[kind](TEACHER)
    url = server.offer("download", content)
    found, weights = get(url)
    assert same(weights, TEACHER)
    assert found.sha256 == sha256(content)
    assert (found.member is not None) == ("archive" in kind)


@pytest.mark.slow
def test_the_first_mirror_that_helps_is_taken(server: Server, downloads: Path) -> None:
    good, dead = released(TEACHER), f"{nobody()}/teacher.pth"
    bad = [
        f"{server.url}/gone.pth",
        dead,
        server.offer("page.pth", b"<html>This project has moved.</html>"),
        server.offer("another.pth", released(models.build("resnet14_w4", 10, 1).state_dict())),
        server.offer("hundred.pth", released(models.build(NAME, 100, 1).state_dict())),
        str(downloads / "nowhere.pth"),
    ]
    url, later = server.offer("good.pth", good), server.offer("later.pth", good)
    found, weights = get(*bad, url, later)
    assert found.url == url
    assert same(weights, TEACHER)
    assert "later.pth" not in server.asked
    assert server.asked == ["gone.pth", "page.pth", "another.pth", "hundred.pth", "good.pth"]
    asked = len(server.asked)
    assert get(bad[0], dead, url)[0].url == url  # what is already here is tried first
    assert len(server.asked) == asked
    told = refused(*bad)
    for why in (
        "HTTP 404 Not Found",
        "Connection refused",
        "not a checkpoint, or a damaged one",
        "unexpected: layer1.1.",
        "100x",
    ):
        assert why in told
    assert "No such file or directory" in told


def test_local_files_and_folders_are_mirrors(tmp_path: Path, downloads: Path) -> None:
    content = released(TEACHER)
    (tmp_path / "copy.tar").write_bytes(archived({MEMBER: content}))
    (tmp_path / "unpacked" / MEMBER).parent.mkdir(parents=True)
    (tmp_path / "unpacked" / MEMBER).write_bytes(content)
    for name in ("copy.tar", "unpacked", f"unpacked/{MEMBER}"):
        found, weights = get(str(tmp_path / name), member=MEMBER, sha256=sha256(content))
        assert found.url == str(tmp_path / name)
        assert same(weights, TEACHER)
    assert "name the checkpoint in it as `member`" in refused(str(tmp_path / "unpacked"))
    assert not downloads.exists()


def test_hashes_are_of_the_file_or_of_its_member(server: Server, downloads: Path) -> None:
    content = released(TEACHER)
    archive = archived({MEMBER: content})
    urls = server.offer("a.tar", archive), server.offer("a.pth", content)
    for digest in (sha256(content), sha256(content).upper()):
        for url in urls:
            assert get(url, member=MEMBER, sha256=digest)[0].url == url
    assert get(*reversed(urls), member=MEMBER, sha256=sha256(archive))[0].url == urls[0]
    assert everything(downloads) == [download.kept(urls[0]).name]  # the file with another hash is not kept
    told = refused(*urls, member=MEMBER, sha256="0" * 64)
    assert f"{urls[0]} (its sha256 is {sha256(archive)[:12]}..., not 000000000000...)" in told
    assert f"{urls[1]} (its sha256 is {sha256(content)[:12]}..., not 000000000000...)" in told
    assert everything(downloads) == []


def test_a_kept_file_that_was_damaged_is_fetched_again(server: Server) -> None:
    content = released(TEACHER)
    url = server.offer("a.pth", content)
    for damage in (content[:-1000], b"", bytes(len(content))):
        get(url, sha256=sha256(content))
        download.kept(url).write_bytes(damage)
        server.asked.clear()
        assert same(get(url, sha256=sha256(content))[1], TEACHER)
        assert server.asked == ["a.pth"]
        download.kept(url).write_bytes(damage)
        assert same(get(url)[1], TEACHER)  # no hash is needed to see it


def test_a_truncated_download_is_tried_again_and_never_kept(server: Server, downloads: Path) -> None:
    content = released(TEACHER)
    url = server.offer("a.pth", content)
    server.sends = lambda body: body[: len(body) // 2]
    told = refused(url)
    assert f"broke off after {len(content) // 2:,} of {len(content):,} bytes, 3 times" in told
    assert len(server.asked) == 3
    assert everything(downloads) == []
    server.sends = bytes
    assert same(get(url)[1], TEACHER)


def test_passing_failures_are_tried_again(server: Server, downloads: Path) -> None:
    url = server.offer("a.pth", released(TEACHER))
    server.status["a.pth"] = [503, 429]
    assert same(get(url)[1], TEACHER)
    assert len(server.asked) == 3
    server.status["b.pth"] = [500, 502, 504, 200]
    assert "HTTP 504 Gateway Timeout, 3 times" in refused(f"{server.url}/b.pth")
    server.status["c.pth"] = [403]
    server.asked.clear()
    assert "c.pth (HTTP 403 Forbidden)" in refused(f"{server.url}/c.pth")
    assert server.asked == ["c.pth"]


def test_a_silent_server_does_not_hold_us(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    good = server.offer("good.pth", released(TEACHER))
    with silent() as url:
        quiet = f"{url}/teacher.pth"
        assert get(quiet, good)[0].url == good
        assert f"{quiet} (timed out, 3 times)" in refused(quiet)


def test_addresses_that_are_none() -> None:
    assert "http://[::1 (" in refused("http://[::1")
    assert "not a usable address" in refused("http://127.0.0.1:port/a.pth")
    assert "not a usable address" in refused("http://127.0.0.1:1/a b.pth")


def test_a_full_disk_is_not_a_dead_mirror(server: Server, downloads: Path) -> None:
    """With `fallback: train`, days of training must not follow from a folder that cannot be written."""
    url = server.offer("a.pth", released(TEACHER))
    downloads.write_text("a file where the folder should be")
    with pytest.raises(DistilleryError, match=r"cannot write .*downloads.* a part of the path is a file") as caught:
        get(url)
    assert not isinstance(caught.value, NoMirror)


def test_two_jobs_share_one_download(server: Server, downloads: Path, tmp_path: Path) -> None:
    """The server stops half-way until one of two processes says that it waits for the other."""
    server.hold, content = threading.Event(), os.urandom(3_000_000)
    url = server.offer("cifar_teachers.tar", content)
    code = "import hashlib, sys; from distillery.teachers.download import opened; "
    code += "print(hashlib.file_digest(opened(sys.argv[1]), 'sha256').hexdigest())"
    outputs = [tmp_path / "a.log", tmp_path / "b.log"]
    jobs = []
    for output in outputs:
        with output.open("w") as file:
            jobs.append(subprocess.Popen([sys.executable, "-c", code, url], stdout=file, stderr=file))
    deadline = time.monotonic() + 600
    while not any("waiting for another process" in o.read_text() for o in outputs) and time.monotonic() < deadline:
        time.sleep(0.02)
    server.hold.set()
    assert [job.wait(timeout=600) for job in jobs] == [0, 0], [o.read_text() for o in outputs]
    said = [output.read_text().splitlines() for output in outputs]
    assert sorted(map(len, said)) == [1, 2], said
    assert [lines[-1] for lines in said] == [sha256(content)] * 2
    assert server.asked == ["cifar_teachers.tar"]
    assert everything(downloads) == [download.kept(url).name]


def test_a_killed_download_leaves_nothing_that_counts(server: Server, downloads: Path) -> None:
    server.hold, content = threading.Event(), os.urandom(3_000_000)
    url = server.offer("a.pth", content)
    code = "import sys; from distillery.teachers.download import opened; opened(sys.argv[1])"
    job = subprocess.Popen([sys.executable, "-c", code, url])
    deadline = time.monotonic() + 600
    while not any(p.stat().st_size for p in downloads.rglob("*.tmp")) and time.monotonic() < deadline:
        time.sleep(0.02)
    job.kill()
    job.wait()
    assert not download.kept(url).exists()
    server.hold.set()
    assert download.opened(url).read() == content
    assert everything(downloads) == [download.kept(url).name]
