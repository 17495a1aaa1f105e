"""`distillery record` and `distillery adopt`, and the walk-through in docs/versioning.md, run for real."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from moto.server import ThreadedMotoServer
from workbench import Workbench

from distillery.pipeline import sync as versioning
from distillery.pipeline.layout import Layout
from distillery.records import gate
from distillery.records.io import DistilleryError, StaleInput, sha256_file
from distillery.study.model import Study

pytestmark = pytest.mark.slow
AT = Layout("digits")
PARAMS = Path("params.yaml")
WHO = {f"GIT_{role}_{what}": f"tester@{what}.invalid" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """A study that Snakemake finished and `distillery record` recorded. Tests work on copies of it."""
    bench = Workbench(tmp_path_factory.mktemp("finished"))
    bench.tiny()
    bench.run("snakemake", "--cores", "2")
    said = bench.run("distillery", "record").stdout
    assert re.search(r"recorded 9 stages with \d+ files in dvc.lock, [\d.]+ MB of them in the DVC cache", said), said
    assert "git add params.yaml dvc.lock results && git commit" in said
    assert "up to date" in bench.run("dvc", "status").stdout
    bench.git("add", "-A")
    bench.git("commit", "-qm", "results")
    return bench


def copied(bench: Workbench, root: Path) -> Workbench:
    shutil.copytree(bench.root, root, symlinks=True, dirs_exist_ok=True)
    return Workbench.at(root)


@pytest.fixture
def bench(finished: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """A copy of the finished study, and the working directory in it: what fails fast is called in this process."""
    bench = copied(finished, tmp_path)
    monkeypatch.chdir(bench.root)
    return bench


def cell(method: str = "kd") -> tuple[str, str, str]:
    return next(iter(Study.load(PARAMS).pairs)), method, "0"


def edit(path: Path, byte: int = -3) -> None:
    """Change one bit of a file and keep its size and date."""
    facts, content = path.stat(), bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def set_temperature(bench: Workbench, value: float) -> None:
    params = bench.params
    params["methods"]["kd"]["temperature"] = value
    bench.params = params


def nothing_to_do(bench: Workbench) -> bool:
    done = bench.run("snakemake", "--dry-run", "--cores", "1")
    return "Nothing to be done" in done.stdout + done.stderr


def refused(bench: Workbench, *command: str, **env: str) -> str:
    """Run a command that must fail with one sentence and leave dvc.lock alone; return the sentence."""
    lock = (bench.root / "dvc.lock").read_bytes()
    done = bench.run(*command, check=False, **env)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("distillery: ")
    assert "Traceback" not in done.stderr
    assert (bench.root / "dvc.lock").read_bytes() == lock
    return done.stderr


def test_every_file_of_the_study_is_looked_at(bench: Workbench) -> None:
    """One changed bit in any recorded file, its date kept, is found; no file but those that are recorded is read."""
    study = Study.load(PARAMS)
    found = gate.current(study, PARAMS)
    stages = yaml.safe_load(Path("dvc.lock").read_text())["stages"].values()
    recorded = {out["path"] for stage in stages for out in stage["outs"]}
    files = recorded - {str(AT.figures)} | set(map(str, AT.figures.glob("*.svg")))
    assert set(found) == files
    assert len(files) > 20
    for name in sorted(files):
        path = Path(name)
        edit(path)
        with pytest.raises(DistilleryError) as caught:
            gate.current(study, PARAMS)
        assert name in str(caught.value) or str(path.parent) in str(caught.value)
        edit(path)
    gate.current(study, PARAMS)


def test_cut_missing_and_linked_files_are_refused(bench: Workbench) -> None:
    study = Study.load(PARAMS)
    for path in (
        AT.table(next(iter(study.teachers))),
        AT.students(*cell()),
        AT.metrics(*cell()),
        AT.figures / "curves.svg",
    ):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(DistilleryError, match=re.escape(path.parts[2])):
            gate.current(study, PARAMS)
        path.unlink()
        with pytest.raises(StaleInput, match=r"is missing|is not current"):
            gate.current(study, PARAMS)
        path.write_bytes(content)
    (AT.figures / "of_yesterday.svg").write_text("<svg/>")
    with pytest.raises(StaleInput, match="results/digits/figures is not current: no record describes it"):
        gate.current(study, PARAMS)
    (AT.figures / "of_yesterday.svg").unlink()
    os.link(AT.students(*cell()), "elsewhere")
    with pytest.raises(DistilleryError, match="is a link"):
        gate.current(study, PARAMS)


def test_stale_outputs_are_never_signed(bench: Workbench) -> None:
    """Edited parameters and code, an edited result that Snakemake cannot see, an unfinished study, a running engine."""
    set_temperature(bench, 3.0)
    said = refused(bench, "distillery", "record")
    assert "runs/" in said
    assert "params changed" in said
    bench.run("snakemake", "--touch", "--forceall", "--cores", "1")  # the classic way to deceive oneself
    assert nothing_to_do(bench)
    assert "methods.kd.temperature changed" in refused(bench, "distillery", "record")
    bench.git("checkout", "-q", "params.yaml")
    bench.run("snakemake", "--touch", "--forceall", "--cores", "1")

    with (bench.root / "src/distillery/objectives/kd.py").open("a") as code:
        code.write("# edited\n")
    assert "updated input files" in refused(bench, "distillery", "record")
    assert "src/distillery/objectives modified" in refused(bench, "distillery", "adopt")
    bench.git("checkout", "-q", "src")

    table = bench.root / AT.table_files()["markdown"]
    edit(table)
    assert nothing_to_do(bench)
    assert f"{AT.table_files()['markdown']} is not current" in refused(bench, "distillery", "record")
    edit(table)

    metrics = bench.root / AT.metrics(*cell())
    metrics.rename(metrics.with_suffix(".hidden"))
    assert "metrics/" in refused(bench, "distillery", "record")
    metrics.with_suffix(".hidden").rename(metrics)

    (bench.root / ".snakemake/locks/0.output.lock").write_text("artifacts")
    assert "Snakemake is running here" in refused(bench, "distillery", "record")
    (bench.root / ".snakemake/locks/0.output.lock").unlink()
    bench.run("distillery", "record")
    assert not bench.git("status", "--porcelain")


def test_an_edit_while_recording_is_noticed(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the check and DVC's signature: parameters, code, an output. dvc.lock is put back each time."""
    lock, real, args = Path("dvc.lock").read_bytes(), versioning.dvc, []

    def meddle(action: Any) -> None:
        def dvc(*arguments: str) -> str:
            args.append(arguments)
            action()
            return real(*arguments)

        monkeypatch.setattr(versioning, "dvc", dvc)
        with pytest.raises(StaleInput, match=r"meanwhile|while it was being recorded"):
            versioning.record()
        assert Path("dvc.lock").read_bytes() == lock

    meddle(lambda: set_temperature(bench, 3.0))
    bench.git("checkout", "-q", "params.yaml")
    AT.students(*cell()).touch()  # DVC takes a file of the same size, date and inode for unchanged
    meddle(lambda: AT.students(*cell()).write_bytes(b"another student"))
    assert [a[0] for a in args] == ["commit", "commit"]


def test_where_the_engines_cannot_work(bench: Workbench) -> None:
    """No git, no DVC, an ensemble, an unused teacher, another DVC process, unsafe links: one sentence each."""
    study = bench.params
    teacher, pair = next(iter(study["teachers"])), next(iter(study["pairs"]))
    bench.params = study | {"pairs": {pair: study["pairs"][pair] | {"teacher": [teacher, teacher]}}}
    assert "has a list of teachers, which dvc.yaml cannot express" in refused(bench, "distillery", "record")
    bench.params = study | {"teachers": study["teachers"] | {"spare": study["teachers"][teacher]}}
    assert "teachers.spare is used by no pair" in refused(bench, "distillery", "record")
    bench.git("checkout", "-q", "params.yaml")

    for name, sentence in ((".git", "is in no git repository"), (".dvc", "there is no .dvc folder")):
        (bench.root / name).rename(bench.root / "hidden")
        assert sentence in refused(bench, "distillery", "record")
        (bench.root / "hidden").rename(bench.root / name)

    for where in (".dvc/config.local", "elsewhere/config"):
        path = bench.root / where
        path.parent.mkdir(exist_ok=True)
        path.write_text("[cache]\n    type = reflink,symlink\n")
        for command in ("record", "adopt"):
            said = refused(bench, "distillery", command, DVC_GLOBAL_CONFIG_DIR="elsewhere")
            assert f"{where} sets cache.type = reflink,symlink" in said
        path.unlink()

    holding = "from zc.lockfile import LockFile; held = LockFile('.dvc/tmp/lock'); print('held', flush=True); input()"
    holder = subprocess.Popen(
        ["python", "-c", holding], env=bench.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert "another DVC command is at work here" in refused(bench, "distillery", "record")
    finally:
        holder.communicate("\n", timeout=60)
    moved = bench.root.with_name(f"{bench.root.name}-scratch")
    (bench.root / "artifacts").rename(moved)
    (bench.root / "artifacts").symlink_to(moved)
    assert "artifacts is a link" in refused(bench, "distillery", "record")
    shutil.rmtree(moved)


def cached(bench: Workbench) -> dict[str, str]:
    return {str(p): sha256_file(p) for p in (bench.root / ".dvc/cache/files").rglob("*") if p.is_file()}


def test_a_rerun_never_modifies_the_cache(bench: Workbench) -> None:
    """Snakemake and `dvc repro` train again with other parameters, and a hand writes in place: the cache stays."""
    before, students = cached(bench), AT.students(*cell())
    assert len(before) >= 13
    recorded = sha256_file(students)
    set_temperature(bench, 2.0)
    bench.run("snakemake", "--cores", "1", str(students))
    assert sha256_file(students) != recorded
    assert cached(bench) == before
    set_temperature(bench, 8.0)
    bench.run("dvc", "repro", f"distill@{'-'.join(cell())}")
    after = cached(bench)
    assert after.items() > before.items()
    for path in bench.root.glob("artifacts/digits/**/*.*"):
        if path.is_file():
            with path.open("r+b") as file:
                file.write(b"scribble")
    assert cached(bench) == after
    bench.git("checkout", "-q", ".")
    bench.run("dvc", "checkout", "--force")
    assert sha256_file(students) == recorded


# The walk-through


def section(title: str) -> str:
    """The shell blocks of a section of docs/versioning.md."""
    text = (ROOT / "docs/versioning.md").read_text()
    part = next(p for p in text.split("\n## ") if p.startswith(title))
    blocks = re.findall(r"^```sh\n(.*?)^```", part, flags=re.MULTILINE | re.DOTALL)
    assert blocks
    return "\n".join(blocks)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3-compatible server on loopback with the document's bucket; the address is yielded."""
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="kd-lab")
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def test_the_walk_through(finished: Workbench, tmp_path: Path, s3: str) -> None:
    """Every command of docs/versioning.md, in its order; what the document promises about them holds."""
    bench = copied(finished, tmp_path / "kd" / "project")
    done = set()

    def follow(title: str) -> str:
        script = section(title).replace("/shared/kd", str(tmp_path / "kd")).replace("https://s3.example.org", s3)
        done.add(title)
        ran = bench.run("bash", "-euo", "pipefail", "-c", script, **WHO)
        return ran.stdout + ran.stderr

    bench.run("rm", "-rf", ".dvc/cache", "results", "dvc.lock")
    bench.git("commit", "-qam", "nothing recorded")
    follow("Once per project")
    assert "recorded 9 stages" in follow("Record a finished study")
    assert "up to date" in bench.run("dvc", "status").stdout
    assert len(list((tmp_path / "kd/cache").rglob("*"))) > 13

    assert "Nothing to be done" in follow("See it elsewhere")
    reviewer = Workbench.at(bench.root / "reviewer")
    same_tables(reviewer, bench)
    params = reviewer.params
    params["methods"]["kd"]["temperature"] = 2.0
    reviewer.params = params
    plan = reviewer.run("snakemake", "--dry-run", "--cores", "1").stdout
    made = re.findall(r"^    output: (.+)$", plan, flags=re.MULTILINE)
    assert len(made) == 3
    assert not any("/ce/" in line for line in made)
    shutil.rmtree(reviewer.root)

    follow("A remote on S3")
    bench.run("git", "clone", "-q", str(bench.root), str(tmp_path / "far"))
    far = Workbench.at(tmp_path / "far")
    far.run(
        "dvc", "cache", "dir", "--local", str(tmp_path / "far/.dvc/cache")
    )  # its own: all must come from the server
    assert "13 files fetched" in far.run("dvc", "pull").stdout
    far.run("distillery", "adopt")
    assert nothing_to_do(far)

    said = follow("Compare parameters")
    assert re.search(r"\[warm-1\].*\|\s*2\s*\|", said), said
    assert re.search(r"\[warm-2\].*\|\s*8\s*\|", said), said
    assert bench.params["methods"]["kd"]["temperature"] == 2
    assert "up to date" in bench.run("dvc", "status").stdout
    assert nothing_to_do(bench)
    text = (ROOT / "docs/versioning.md").read_text()
    assert all(any(p.startswith(t) for t in done) for p in text.split("\n## ")[1:] if "```sh" in p)


def same_tables(clone: Workbench, origin: Workbench) -> None:
    """A clone prints every table, and makes the same bytes again from what it pulled."""
    assert "KD" in clone.run("distillery", "show").stdout
    clone.run("distillery", "tables")
    for path in AT.table_files().values():
        assert (clone.root / path).read_bytes() == (origin.root / path).read_bytes(), path
    assert not clone.git("status", "--porcelain", "--", "results")
    assert "up to date" in clone.run("dvc", "status").stdout
    assert not json.loads(clone.run("dvc", "status", "--json").stdout)
