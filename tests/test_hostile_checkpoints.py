"""Files that are not the checkpoint they should be: refused before they run, write or replace anything."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from checkpoints import MEMBER, TEACHER, archived, everything, get, refused, released, same, saved
from loopback import Server

pytestmark = pytest.mark.usefixtures("downloads")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch evil",)


class Plain:
    """Not dangerous, but not a checkpoint either."""


def test_a_pickle_that_runs_something_is_refused(
    server: Server, downloads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evil = {"model": TEACHER, "epoch": Evil()}
    torch.save(evil, old := io.BytesIO(), _use_new_zipfile_serialization=False)
    for content in (saved(evil), old.getvalue(), pickle.dumps(Evil(), protocol=2), archived({MEMBER: saved(evil)})):
        url = server.offer("pickled.pth", content)
        assert "not a plain checkpoint: its pickle asks for posix.system, which was refused" in refused(url)
        assert everything(downloads) == []
    assert f"asks for {__name__}.Plain" in refused(server.offer("plain.pth", saved({"model": Plain()})))
    assert not (tmp_path / "evil").exists()
    os.system("touch evil")  # what it would have done
    assert (tmp_path / "evil").exists()


@pytest.mark.parametrize("python", ["3.11.4", "3.11.0"])
def test_members_that_lead_elsewhere_are_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    if python == "3.11.0":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    content = released(TEACHER)
    url = server.offer("a.tar", archived({"../../evil.pth": content, MEMBER: content}))
    assert "its member ../../evil.pth is unsafe" in refused(url, member="../../evil.pth")
    assert same(get(url, member=MEMBER)[1], TEACHER)  # only the wanted member is touched
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
    links = server.offer("links.tar", buffer.getvalue())
    assert "its member out.pth is unsafe" in refused(links, member="out.pth")
    assert "its member in.pth is not a plain file" in refused(links, member="in.pth")
    assert "its member pipe.pth is unsafe" in refused(links, member="pipe.pth")


def test_archives_without_the_member_say_what_they_hold(server: Server) -> None:
    content = released(TEACHER)
    url = server.offer("two.tar", archived({"a/x.pth": content, "b/x.pth": content, "b/notes.txt": b"-"}))
    assert "two.tar (has no member c/x.pth (it holds a/x.pth, b/x.pth))" in refused(url, member="c/x.pth")
    assert "name it as `member` (it holds a/x.pth, b/x.pth)" in refused(url)
    assert get(url, member="a/x.pth")[0].member == "a/x.pth"
    assert server.asked == ["two.tar"]  # a wrong name in the study does not cost the others their download


@pytest.mark.parametrize("content", [{}, {"model": {}}, {"model": [1]}, {"a": 1}, [torch.zeros(1)], torch.zeros(1), 3])
def test_files_without_a_state_dict_are_refused(server: Server, content: Any) -> None:
    assert "it holds no state dict" in refused(server.offer("a.pth", saved(content)))


def test_torn_files_are_refused(server: Server, downloads: Path) -> None:
    """Cut anywhere, by a server that does not say how long the file is."""
    files = [released(TEACHER), saved(TEACHER), safetensors.torch.save(TEACHER)]
    files += [archived({MEMBER: files[0]}), archived({MEMBER: files[0]}, "w:gz")]
    for number, whole in enumerate(files):
        for part in (0.01, 0.3, 0.9):
            url = server.offer(f"{number}-{part}", whole[: int(len(whole) * part)])
            assert f"{number}-{part} (not a " in refused(url)
    assert everything(downloads) == []
