"""Released teachers: fetched over real sockets from a server on loopback, judged by their accuracy on digits."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import pickle
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from conftest import ROOT
from torch import Tensor

from distillery import data, models
from distillery.artifacts import DistilleryError, load_tensors, read_json, sha256_file, write_json
from distillery.layout import Layout
from distillery.stages import teacher as stage
from distillery.study import Data, Study, Teacher
from distillery.teachers import download
from distillery.teachers.fetch import Fetched, NoMirror, fetch, verify
from distillery.teachers.released import RELEASED, Source, source_of
from distillery.validation import check

NAME = "resnet8_w4"
MEMBER = f"cifar_teachers/{NAME}_vanilla/ckpt_epoch_240.pth"
LAYOUT = Layout("digits")


# --- a mirror ---------------------------------------------------------------------------------------------------------


@dataclass
class Mirror:
    """A web server on loopback: what it holds, what it was asked for, how it misbehaves."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    status: dict[str, list[int]] = field(default_factory=dict)  # answers other than 200, first ones first
    cut: set[str] = field(default_factory=set)  # sends half of what it promises
    hold: threading.Event | None = None  # waits for it in the middle of a file

    def offer(self, name: str, content: bytes) -> str:
        self.files[name] = content
        return f"{self.url}/{name}"


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            state.asked.append(name)
            body = state.files.get(name)
            if answers := state.status.get(name):
                return self.send_error(answers.pop(0))
            if body is None:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            half = len(body) // 2
            self.wfile.write(body[:half])
            if state.hold:
                state.hold.wait(timeout=60)
            if name not in state.cut:
                self.wfile.write(body[half:])

        def log_message(self, *_: Any) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Mirror(f"http://127.0.0.1:{httpd.server_port}")
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def dead() -> str:
    """An address where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/teacher.pth"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, and no patience."""
    monkeypatch.setenv(download.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE", 0.01)
    return tmp_path / "cache"


def everything(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


# --- a teacher --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """A teacher trained by the stage itself in a working folder: its weights and what it reached."""

    folder: Path
    weights: dict[str, Tensor]
    accuracy: float


def study_of(**teacher: Any) -> dict[str, Any]:
    params = yaml.safe_load((ROOT / "workflow" / "studies" / "digits.yaml").read_text())
    params["recipe"] |= {"epochs": 3, "milestones": [2], "batch_size": 16}
    params["teachers"] = {NAME: {"architecture": NAME, "seed": 3, **teacher}}
    params["pairs"] = {f"{NAME}-{NAME}": {"teacher": NAME, "student": NAME}}
    return params


def run(folder: Path, **teacher: Any) -> dict[str, Any]:
    """Run the stage `teacher` in `folder` and return its record."""
    params = folder / "params.yaml"
    params.write_text(yaml.safe_dump(study_of(**teacher)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stage.run(Study.load(params), Path("params.yaml"), NAME)
        return read_json(LAYOUT.teacher_record(NAME))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "src").symlink_to(ROOT / "src")
    target = folder / LAYOUT.arrays.parent
    target.mkdir(parents=True)
    write_json(folder / LAYOUT.data, data.prepare("digits", {"test_fraction": 0.5}, target))
    record = run(folder, source="train")
    assert record["history"][-1]["test_top1"] > 50
    return Trained(folder, load_tensors(folder / LAYOUT.teacher(NAME)), record["history"][-1]["test_top1"])


@pytest.fixture
def place(trained: Trained, tmp_path: Path) -> Path:
    """A working folder with the data and without a teacher."""
    (tmp_path / "src").symlink_to(ROOT / "src")
    (tmp_path / "artifacts" / "digits").mkdir(parents=True)
    (tmp_path / LAYOUT.arrays.parent).symlink_to(trained.folder / LAYOUT.arrays.parent)
    return tmp_path


def released(weights: dict[str, Tensor]) -> bytes:
    """What a RepDistiller training of 2019 leaves: torch's old format, tensors on a GPU, an optimiser, no counters."""
    old = {k: t for k, t in weights.items() if not k.endswith("num_batches_tracked")}
    state = {0: {"momentum_buffer": torch.zeros(3)}}
    optimizer = {"state": state, "param_groups": [{"lr": 5e-5, "nesterov": False, "params": [0]}]}
    facts = {"epoch": 240, "model": old, "accuracy": torch.tensor(72.34), "best_acc": 72.5, "optimizer": optimizer}
    torch.save(facts, buffer := io.BytesIO(), _use_new_zipfile_serialization=False)
    content = buffer.getvalue()
    for here, there in (
        (b"ctorch\nFloatStorage\n", b"ctorch.cuda\nFloatStorage\n"),
        (b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"),
    ):
        assert content.count(here) == 1  # pickle names a thing once and refers to it after that
        content = content.replace(here, there)
    return content


def saved(content: Any) -> bytes:
    torch.save(content, buffer := io.BytesIO())
    return buffer.getvalue()


def archived(members: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            (info := tarfile.TarInfo(name)).size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Equal but for the counters, which old checkpoints lack."""
    names = [k for k in left if not k.endswith("num_batches_tracked")]
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in names)


# --- the stage --------------------------------------------------------------------------------------------------------


def test_a_released_archive_becomes_a_verified_teacher(
    trained: Trained, place: Path, mirror: Mirror, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = released(trained.weights)
    others = {f"cifar_teachers/{n}_vanilla/ckpt_epoch_240.pth": b"another teacher" for n in RELEASED}
    archive = archived({**others, MEMBER: content})
    url = mirror.offer("cifar_teachers.tar", archive)
    keys = {"source": "fetch", "urls": [url], "member": MEMBER, "accuracy": round(trained.accuracy, 2)}
    record = run(place, **keys, sha256=sha256(archive))
    weights = load_tensors(place / LAYOUT.teacher(NAME))
    assert same(weights, trained.weights)
    assert all(weights[k].dtype == t.dtype for k, t in trained.weights.items())
    fetched = record["fetched"]
    assert (fetched["url"], fetched["sha256"]) == (url, sha256(archive))
    assert (fetched["member"], fetched["member_sha256"]) == (MEMBER, sha256(content))
    assert fetched["test_top1"] == trained.accuracy
    assert fetched["published_top1"] == round(trained.accuracy, 2)
    assert record["sha256"] == sha256_file(place / LAYOUT.teacher(NAME))
    assert record["parameters"] == sum(p.numel() for p in models.build(NAME, 10, 1).parameters())
    assert "history" not in record
    said = capfd.readouterr().out
    assert f"fetch {NAME}: MB 1/1" in said
    assert f"{trained.accuracy:.2f} % measured, {trained.accuracy:.2f} % published, from {url}" in said
    assert run(place, **keys)["fetched"] == fetched  # from the cache, and the same record
    assert mirror.asked == ["cifar_teachers.tar"]
    assert everything(cache) == [download.kept(url).name]


def test_another_accuracy_than_the_published_is_refused(trained: Trained, place: Path, mirror: Mirror) -> None:
    url = mirror.offer("teacher.pth", released(trained.weights))
    for published in (trained.accuracy - 0.31, trained.accuracy + 0.31):
        with pytest.raises(DistilleryError) as caught:
            run(place, source="fetch", urls=[url], accuracy=published, fallback="train")
        told = str(caught.value)
        assert f"{url} reaches {trained.accuracy:.2f} %" in told
        assert f"its published {published:.2f} %" in told
        assert "\n" not in told
        assert not (place / LAYOUT.teacher(NAME)).exists()
    assert run(place, source="fetch", urls=[url], accuracy=trained.accuracy - 0.3)["fetched"]["url"] == url
    assert run(place, source="fetch", urls=[url])["fetched"]["published_top1"] is None


def test_damaged_weights_are_found_by_their_accuracy(trained: Trained, place: Path, mirror: Mirror) -> None:
    """They load, and yet they are not the teacher."""
    damaged = {**trained.weights, "conv1.weight": trained.weights["conv1.weight"].roll(1)}
    url = mirror.offer("teacher.pth", released(damaged))
    with pytest.raises(DistilleryError, match=f"reaches .* from its published {trained.accuracy:.2f} %"):
        run(place, source="fetch", urls=[url], accuracy=trained.accuracy)


def test_all_mirrors_dead_trains_if_the_study_says_so(trained: Trained, place: Path, mirror: Mirror, dead: str) -> None:
    keys = {"source": "fetch", "urls": [f"{mirror.url}/gone.tar", dead], "accuracy": trained.accuracy}
    with pytest.raises(NoMirror) as caught:
        run(place, **keys)
    told = str(caught.value)
    assert f"{mirror.url}/gone.tar (HTTP 404 Not Found); {dead} (Connection refused)" in told
    assert f"`teachers.{NAME}.urls`" in told
    assert "`fallback: train`" in told
    assert "\n" not in told
    assert not (place / LAYOUT.teacher(NAME)).exists()
    record = run(place, **keys, fallback="train")
    assert record["fallback"] == "trained here, because every mirror failed"
    assert record["mirrors"] == keys["urls"]
    assert record["history"][-1]["test_top1"] == trained.accuracy
    weights = load_tensors(place / LAYOUT.teacher(NAME))
    assert all(torch.equal(weights[k], t) for k, t in trained.weights.items())  # exactly what `source: train` gives
    volatile = read_json(place / LAYOUT.provenance(LAYOUT.teacher(NAME)))
    assert volatile["mirrors"][dead] == "Connection refused"


# --- mirrors ----------------------------------------------------------------------------------------------------------


def get(*urls: str, member: str | None = None, sha256: str | None = None) -> tuple[Fetched, dict[str, Tensor]]:
    """Fetch into a fresh network of ten classes; the weights it then holds."""
    network = models.build(NAME, 10, 1)
    found = fetch("t", network, Source(urls, member, sha256, None))
    return found, network.state_dict()


def refused(*urls: str, **keys: Any) -> str:
    """Fetch in vain; the one sentence why, and a network left as it was."""
    network = models.build(NAME, 10, 1)
    before = {k: t.clone() for k, t in network.state_dict().items()}
    with pytest.raises(NoMirror) as caught:
        fetch("t", network, Source(urls, keys.get("member"), keys.get("sha256"), None))
    assert all(torch.equal(t, before[k]) for k, t in network.state_dict().items())
    assert "\n" not in str(caught.value)
    assert list(caught.value.failures) == list(dict.fromkeys(urls))
    return str(caught.value)


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
def test_every_format_is_told_by_its_content(trained: Trained, mirror: Mirror, kind: str) -> None:
    content = FORMATS[kind](trained.weights)
    url = mirror.offer("download", content)
    found, weights = get(url)
    assert same(weights, trained.weights)
    assert found.sha256 == sha256(content)
    assert (found.member is not None) == ("archive" in kind)


def test_the_first_mirror_that_helps_is_taken(trained: Trained, mirror: Mirror, cache: Path, dead: str) -> None:
    good = released(trained.weights)
    bad = [
        f"{mirror.url}/gone.pth",
        dead,
        mirror.offer("page.pth", b"<html>This project has moved.</html>"),
        mirror.offer("another.pth", released(models.build("resnet14_w4", 10, 1).state_dict())),
        mirror.offer("hundred.pth", released(models.build(NAME, 100, 1).state_dict())),
        str(cache / "nowhere.pth"),
    ]
    url, later = mirror.offer("good.pth", good), mirror.offer("later.pth", good)
    found, weights = get(*bad, url, later)
    assert found.url == url
    assert same(weights, trained.weights)
    assert "later.pth" not in mirror.asked
    assert mirror.asked == ["gone.pth", "page.pth", "another.pth", "hundred.pth", "good.pth"]
    asked = len(mirror.asked)
    assert get(bad[0], dead, url)[0].url == url  # what is already here is tried first
    assert len(mirror.asked) == asked
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


def test_local_files_and_folders_are_mirrors(trained: Trained, tmp_path: Path, cache: Path) -> None:
    content = released(trained.weights)
    (tmp_path / "copy.tar").write_bytes(archived({MEMBER: content}))
    (tmp_path / "unpacked" / MEMBER).parent.mkdir(parents=True)
    (tmp_path / "unpacked" / MEMBER).write_bytes(content)
    for name in ("copy.tar", "unpacked", f"unpacked/{MEMBER}"):
        found, weights = get(str(tmp_path / name), member=MEMBER, sha256=sha256(content))
        assert found.url == str(tmp_path / name)
        assert same(weights, trained.weights)
    assert "name the checkpoint in it as `member`" in refused(str(tmp_path / "unpacked"))
    assert not cache.exists()


def test_hashes_are_of_the_file_or_of_its_member(trained: Trained, mirror: Mirror, cache: Path) -> None:
    content = released(trained.weights)
    archive = archived({MEMBER: content})
    urls = mirror.offer("a.tar", archive), mirror.offer("a.pth", content)
    for digest in (sha256(content), sha256(content).upper()):
        for url in urls:
            assert get(url, member=MEMBER, sha256=digest)[0].url == url
    assert get(*reversed(urls), member=MEMBER, sha256=sha256(archive))[0].url == urls[0]
    assert everything(cache) == [download.kept(urls[0]).name]  # the file with another hash is not kept
    told = refused(*urls, member=MEMBER, sha256="0" * 64)
    assert f"{urls[0]} (its sha256 is {sha256(archive)[:12]}..., not 000000000000...)" in told
    assert f"{urls[1]} (its sha256 is {sha256(content)[:12]}..., not 000000000000...)" in told
    assert everything(cache) == []


def test_a_kept_file_that_was_damaged_is_fetched_again(trained: Trained, mirror: Mirror) -> None:
    content = released(trained.weights)
    url = mirror.offer("a.pth", content)
    for damage in (content[:-1000], b"", bytes(len(content))):
        get(url, sha256=sha256(content))
        download.kept(url).write_bytes(damage)
        mirror.asked.clear()
        assert same(get(url, sha256=sha256(content))[1], trained.weights)
        assert mirror.asked == ["a.pth"]
        download.kept(url).write_bytes(damage)
        assert same(get(url)[1], trained.weights)  # no hash is needed to see it


def test_a_truncated_download_is_tried_again_and_never_kept(trained: Trained, mirror: Mirror, cache: Path) -> None:
    content = released(trained.weights)
    url = mirror.offer("a.pth", content)
    mirror.cut.add("a.pth")
    told = refused(url)
    assert f"broke off after {len(content) // 2:,} of {len(content):,} bytes, 3 times" in told
    assert len(mirror.asked) == 3
    assert everything(cache) == []
    mirror.cut.clear()
    assert same(get(url)[1], trained.weights)


def test_passing_failures_are_tried_again(trained: Trained, mirror: Mirror, cache: Path) -> None:
    url = mirror.offer("a.pth", released(trained.weights))
    mirror.status["a.pth"] = [503, 429]
    assert same(get(url)[1], trained.weights)
    assert len(mirror.asked) == 3
    mirror.status["b.pth"] = [500, 502, 504, 200]
    assert "HTTP 504 Gateway Timeout, 3 times" in refused(f"{mirror.url}/b.pth")
    mirror.status["c.pth"] = [403]
    mirror.asked.clear()
    assert "c.pth (HTTP 403 Forbidden)" in refused(f"{mirror.url}/c.pth")
    assert mirror.asked == ["c.pth"]


def test_a_silent_server_does_not_hold_us(trained: Trained, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    good = mirror.offer("good.pth", released(trained.weights))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        quiet = f"http://127.0.0.1:{silent.getsockname()[1]}/teacher.pth"
        assert get(quiet, good)[0].url == good
        assert f"{quiet} (timed out, 3 times)" in refused(quiet)


def test_addresses_that_are_none(dead: str) -> None:
    assert "http://[::1 (" in refused("http://[::1")
    assert "not a usable address" in refused("http://127.0.0.1:port/a.pth")
    assert "not a usable address" in refused("http://127.0.0.1:1/a b.pth")


def test_a_full_disk_is_not_a_dead_mirror(trained: Trained, mirror: Mirror, cache: Path) -> None:
    """With `fallback: train`, days of training must not follow from a folder that cannot be written."""
    url = mirror.offer("a.pth", released(trained.weights))
    cache.write_text("a file where the folder should be")
    with pytest.raises(DistilleryError, match=r"cannot write .*cache.* a part of the path is a file") as caught:
        get(url)
    assert not isinstance(caught.value, NoMirror)


def test_two_jobs_share_one_download(mirror: Mirror, cache: Path, tmp_path: Path) -> None:
    """The server stops half-way until one of two processes says that it waits for the other."""
    mirror.hold, content = threading.Event(), os.urandom(3_000_000)
    url = mirror.offer("cifar_teachers.tar", content)
    code = "import hashlib, sys; from distillery.teachers.download import opened; "
    code += "print(hashlib.file_digest(opened(sys.argv[1]), 'sha256').hexdigest())"
    outputs = [tmp_path / "a.log", tmp_path / "b.log"]
    jobs = []
    for output in outputs:
        with output.open("w") as file:
            jobs.append(subprocess.Popen([sys.executable, "-c", code, url], stdout=file, stderr=file))
    deadline = time.monotonic() + 30
    while not any("waiting for another process" in o.read_text() for o in outputs) and time.monotonic() < deadline:
        time.sleep(0.02)
    mirror.hold.set()
    assert [job.wait(timeout=30) for job in jobs] == [0, 0], [o.read_text() for o in outputs]
    said = [output.read_text().splitlines() for output in outputs]
    assert sorted(map(len, said)) == [1, 2], said
    assert [lines[-1] for lines in said] == [sha256(content)] * 2
    assert mirror.asked == ["cifar_teachers.tar"]
    assert everything(cache) == [download.kept(url).name]


def test_a_killed_download_leaves_nothing_that_counts(mirror: Mirror, cache: Path) -> None:
    mirror.hold, content = threading.Event(), os.urandom(3_000_000)
    url = mirror.offer("a.pth", content)
    code = "import sys; from distillery.teachers.download import opened; opened(sys.argv[1])"
    job = subprocess.Popen([sys.executable, "-c", code, url])
    deadline = time.monotonic() + 30
    while not any(p.stat().st_size for p in cache.rglob("*.tmp")) and time.monotonic() < deadline:
        time.sleep(0.02)
    job.kill()
    job.wait()
    assert not download.kept(url).exists()
    mirror.hold.set()
    assert download.opened(url).read() == content
    assert everything(cache) == [download.kept(url).name]


# --- hostile files ----------------------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch evil",)


class Plain:
    """Not dangerous, but not a checkpoint either."""


def test_a_pickle_that_runs_something_is_refused(
    trained: Trained, mirror: Mirror, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evil = {"model": trained.weights, "epoch": Evil()}
    torch.save(evil, old := io.BytesIO(), _use_new_zipfile_serialization=False)
    for content in (saved(evil), old.getvalue(), pickle.dumps(Evil(), protocol=2), archived({MEMBER: saved(evil)})):
        url = mirror.offer("evil.pth", content)
        assert "not a plain checkpoint: its pickle asks for posix.system, which was refused" in refused(url)
        assert everything(cache) == []
    assert "asks for test_fetch.Plain" in refused(mirror.offer("plain.pth", saved({"model": Plain()})))
    assert not (tmp_path / "evil").exists()
    os.system("touch evil")  # what it would have done
    assert (tmp_path / "evil").exists()


def test_members_that_lead_elsewhere_are_refused(trained: Trained, mirror: Mirror, tmp_path: Path) -> None:
    content = released(trained.weights)
    url = mirror.offer("a.tar", archived({"../../evil.pth": content, MEMBER: content}))
    assert "its member ../../evil.pth is unsafe" in refused(url, member="../../evil.pth")
    assert same(get(url, member=MEMBER)[1], trained.weights)  # only the wanted member is touched
    assert not list(tmp_path.parent.rglob("evil.pth"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, target in (
            ("out.pth", tarfile.SYMTYPE, "/etc/passwd"),
            ("in.pth", tarfile.SYMTYPE, "real.pth"),
            ("pipe.pth", tarfile.FIFOTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    links = mirror.offer("links.tar", buffer.getvalue())
    assert "its member out.pth is unsafe" in refused(links, member="out.pth")
    assert "its member in.pth is not a plain file" in refused(links, member="in.pth")
    assert "its member pipe.pth is unsafe" in refused(links, member="pipe.pth")


def test_archives_without_the_member_say_what_they_hold(trained: Trained, mirror: Mirror) -> None:
    content = released(trained.weights)
    url = mirror.offer("two.tar", archived({"a/x.pth": content, "b/x.pth": content, "b/notes.txt": b"-"}))
    assert "two.tar (has no member c/x.pth (it holds a/x.pth, b/x.pth))" in refused(url, member="c/x.pth")
    assert "name it as `member` (it holds a/x.pth, b/x.pth)" in refused(url)
    assert get(url, member="a/x.pth")[0].member == "a/x.pth"
    assert mirror.asked == ["two.tar"]  # a wrong name in the study does not cost the others their download


@pytest.mark.parametrize("content", [{}, {"model": {}}, {"model": [1]}, {"a": 1}, [torch.zeros(1)], torch.zeros(1), 3])
def test_files_without_a_state_dict_are_refused(mirror: Mirror, content: Any) -> None:
    assert "it holds no state dict" in refused(mirror.offer("a.pth", saved(content)))


def test_torn_files_are_refused(trained: Trained, mirror: Mirror, cache: Path) -> None:
    """Cut anywhere, by a server that does not say how long the file is."""
    files = [released(trained.weights), saved(trained.weights), safetensors.torch.save(trained.weights)]
    files += [archived({MEMBER: files[0]}), archived({MEMBER: files[0]}, "w:gz")]
    for number, whole in enumerate(files):
        for part in (0.01, 0.3, 0.9):
            url = mirror.offer(f"{number}-{part}", whole[: int(len(whole) * part)])
            assert f"{number}-{part} (not a " in refused(url)
    assert everything(cache) == []


# --- the released teachers --------------------------------------------------------------------------------------------


def test_the_six_released_teachers_need_no_urls(shared_dir: Path) -> None:
    protocol = (shared_dir / "reference" / "protocol.md").read_text()
    for name, known in RELEASED.items():
        assert name in models.NAMES
        source = source_of(Teacher(architecture=name, source="fetch"), Data(source="cifar100"))
        assert source == known
        folder = source.member.split("/")[1].removesuffix("_vanilla")
        assert f"{folder} {source.accuracy:.2f}" in protocol
        assert source.urls[0].endswith("/cifar_teachers.tar")
        assert source.urls[1] == f"http://shape2prog.csail.mit.edu/repo/{folder}_vanilla/ckpt_epoch_240.pth"
        assert folder.lower() == name
    assert len(RELEASED) == 6


def test_what_the_study_says_comes_first() -> None:
    cifar, mine = Data(source="cifar100"), {"architecture": "resnet32x4", "source": "fetch"}
    source = source_of(Teacher(**mine, urls=("/copy/cifar_teachers.tar",)), cifar)
    assert source == Source(("/copy/cifar_teachers.tar",), RELEASED["resnet32x4"].member, None, 79.42)
    own = {"urls": ("own.pth",), "member": "x", "sha256": "a" * 64, "accuracy": 80.0}
    assert source_of(Teacher(**mine, **own), cifar) == Source(("own.pth",), "x", "a" * 64, 80.0)
    assert source_of(Teacher(**mine), Data(source="digits")).urls == ()


def test_the_published_accuracy_is_compared_to_the_image() -> None:
    source, found = RELEASED["resnet56"], Fetched("u", "s", None, None)
    for measured in (72.04, 72.34, 72.64):
        verify("t", measured, source, found)
    for measured in (72.03, 72.65, 1.0):
        with pytest.raises(DistilleryError, match=f"reaches {measured:.2f} % .* published 72.34 %"):
            verify("t", measured, source, found)


def test_studies_are_checked() -> None:
    def told(teacher: dict[str, Any], source: str = "cifar100") -> str:
        params = study_of(**teacher)
        params["data"] = {"source": source}
        try:
            check(params)
        except DistilleryError as error:
            return str(error)
        return ""

    fetched = {"source": "fetch"}
    assert told({**fetched, "architecture": "resnet56"}) == ""
    assert "no urls are given, and the released teachers known here are resnet56," in told(
        {**fetched, "architecture": "resnet56"}, "digits"
    )
    assert "not resnet8_w4 for cifar100" in told(fetched)
    assert told({**fetched, "urls": ["http://a/b.pth", "~/b.pth", "b.pth"]}) == ""
    assert "'ftp://a/b.pth' is neither an http(s) address nor a path" in told({**fetched, "urls": ["ftp://a/b.pth"]})
    urls = {**fetched, "urls": ["b.tar"]}
    for member in ("../b.pth", "/b.pth", "a/../../b.pth"):
        assert f"member: {member!r} leads out of the archive" in told({**urls, "member": member})
    assert told({**urls, "member": "a..b/c.pth", "sha256": "0" * 64, "accuracy": 72.34}) == ""
    assert f"teachers.{NAME}.sha256" in told({**urls, "sha256": "0" * 63})
    assert f"teachers.{NAME}.accuracy" in told({**urls, "accuracy": 172.34})
    assert f"teachers.{NAME}.fallback" in told({**urls, "fallback": "pray"})


def test_the_table_of_released_teachers_comes_without_torch() -> None:
    code = "import sys, distillery.validation; print(json.dumps('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"import json; {code}"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False
