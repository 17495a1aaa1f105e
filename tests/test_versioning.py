"""`distillery record`, what both engines say about files that came from elsewhere, and docs/versioning.md, for real."""

from __future__ import annotations

import json
import os
import random
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
from small_study import STUDY, write
from workbench import Workbench

from distillery.pipeline import sync as versioning
from distillery.pipeline.check import load
from distillery.pipeline.layout import Layout
from distillery.pipeline.planner import current, resolve
from distillery.records.io import DistilleryError, StaleInput, read_json, sha256_file

pytestmark = pytest.mark.slow
AT = Layout("digits")
PARAMS = Path("params.yaml")
WHO = {f"GIT_{role}_{what}": f"tester@{what}.invalid" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """A finished study that `distillery record` recorded. Tests work on copies of it."""
    bench = Workbench(tmp_path_factory.mktemp("finished"))
    bench.tiny()
    bench.make()
    said = bench.run("distillery", "record").stdout
    assert re.search(r"recorded 9 stages with \d+ files in dvc.lock, [\d.]+ MB of them in the DVC cache", said), said
    assert "git add params.yaml dvc.lock results && git commit" in said
    assert not due_for_dvc(bench)
    bench.git("add", "-A")
    bench.git("commit", "-qm", "results")
    return bench


@pytest.fixture
def bench(finished: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """A copy of the finished study, and the working directory in it: what fails fast is called in this process."""
    bench = finished.copy(tmp_path)
    monkeypatch.chdir(bench.root)
    return bench


def cell(method: str = "kd") -> tuple[str, str, str]:
    return next(iter(load(PARAMS).pairs)), method, "0"


def edit(path: Path, byte: int = -3) -> None:
    """Change one bit of a file and keep its size and date."""
    facts, content = path.stat(), bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def same_values(one: bytes, other: bytes) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:  # the changed bit made it something else than JSON
        return False


def set_temperature(bench: Workbench, value: float) -> None:
    params = bench.params
    params["methods"]["kd"]["temperature"] = value
    bench.params = params


def due(bench: Workbench, planned: bool = True) -> set[str]:
    """What Snakemake would run, by stage and, of students, method; it makes its plan by itself unless `planned`."""
    if planned:
        bench.plan()
    said = bench.run("snakemake", "--dry-run", "--quiet", "host", "--cores", "1").stdout
    logs = re.findall(rf"^    log: {AT.artifacts}/logs/(\S+)\.log$", said, flags=re.MULTILINE)
    assert bool(logs) != ("Nothing to be done" in said), said
    return {" ".join(part for i, part in enumerate(log.split("/")) if i in (0, 2)) for log in logs}


KD = {"distill kd", "evaluate kd", "tables"}


def nothing_to_do(bench: Workbench, planned: bool = True) -> bool:
    return not due(bench, planned)


def due_for_dvc(bench: Workbench) -> set[str]:
    """The stages whose inputs or outputs are not those of dvc.lock. Planning always runs, and costs nothing."""
    return set(json.loads(bench.run("dvc", "status", "--json").stdout)) - {"plan"}


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
    """One changed bit in any recorded file, its date kept, is found; no file but those that are recorded is read.

    Of JSON, bits that change a value: the last of 17 digits may name the number that it named before.
    """
    _, plan = current(PARAMS)
    found = versioning._current(plan)
    stages = yaml.safe_load(Path("dvc.lock").read_text())["stages"]
    recorded = {out["path"] for name, stage in stages.items() if name != "plan" for out in stage["outs"]}
    files = recorded - {str(AT.figures)} | {str(f) for kind in ("svg", "pdf") for f in AT.figures.glob(f"*.{kind}")}
    assert set(map(str, found)) == files
    assert len(files) > 30
    for name in sorted(files):
        path = Path(name)
        if not (size := path.stat().st_size):  # the blob of a source that has none: one byte more is found
            path.write_bytes(b"1")
            with pytest.raises(DistilleryError, match=path.name):
                versioning._current(plan)
            path.write_bytes(b"")
            continue
        numbers = [m.start() for m in re.finditer(rb"(?<=\d)\d", path.read_bytes())] if path.suffix == ".json" else []
        before = path.read_bytes()
        for byte in {size - 3, size // 2, *random.Random(0).sample(numbers, min(3, len(numbers)))}:
            edit(path, byte)
            if path.suffix == ".json" and same_values(before, path.read_bytes()):
                edit(path, byte)
                continue
            with pytest.raises(DistilleryError) as caught:
                versioning._current(plan)
            assert name in str(caught.value) or str(path.parent) in str(caught.value)
            edit(path, byte)
    assert versioning._current(plan) == found


def test_cut_missing_and_linked_files_are_refused(bench: Workbench) -> None:
    study, plan = current(PARAMS)
    for path in (
        AT.view_table(next(iter(study.teachers))),
        AT.students(*cell()),
        AT.metrics(*cell()),
        AT.figures / "curves.svg",
    ):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(DistilleryError, match=re.escape(path.parts[2])):
            versioning._current(plan)
        path.unlink()
        with pytest.raises(StaleInput, match=r"is missing|is not current"):
            versioning._current(plan)
        path.write_bytes(content)
    (AT.figures / "of_yesterday.svg").write_text("<svg/>")
    with pytest.raises(StaleInput, match=r"results/digits/figures/of_yesterday.svg is described by no record: delete"):
        versioning._current(plan)
    (AT.figures / "of_yesterday.svg").unlink()
    os.link(AT.students(*cell()), "elsewhere")
    with pytest.raises(DistilleryError, match="is a link"):
        versioning._current(plan)


def test_stale_outputs_are_never_signed(bench: Workbench) -> None:
    """Edited parameters and code, an edited result that Snakemake cannot see, an unfinished study, a running engine."""
    set_temperature(bench, 3.0)
    said = refused(bench, "distillery", "record")
    assert f"{AT.run_record(*cell())} is not current: methods.kd.temperature changed" in said
    bench.run("snakemake", "--touch", "--forceall", "--cores", "1")  # the classic way to deceive oneself
    assert due(bench) == KD
    assert "methods.kd.temperature changed" in refused(bench, "distillery", "record")
    bench.git("checkout", "-q", "params.yaml")

    with (bench.root / "src/distillery/objectives/kd.py").open("a") as code:
        code.write("# a comment changes no result\n")
    assert nothing_to_do(bench)
    with (bench.root / "src/distillery/objectives/kd.py").open("a") as code:
        code.write("EDITED = True\n")
    assert "its code changed" in refused(bench, "distillery", "record")
    assert due(bench) == KD
    bench.git("checkout", "-q", "src")

    table = bench.root / AT.result_files()["markdown"]
    edit(table)
    assert nothing_to_do(bench)
    assert f"{AT.result_files()['markdown']} is not the file that" in refused(bench, "distillery", "record")
    edit(table)

    metrics = bench.root / AT.metrics(*cell())
    metrics.rename(metrics.with_suffix(".hidden"))
    assert f"{AT.metrics(*cell())} is missing" in refused(bench, "distillery", "record")
    metrics.with_suffix(".hidden").rename(metrics)

    (bench.root / ".snakemake/locks/0.output.lock").write_text("artifacts")
    assert "Snakemake is running here" in refused(bench, "distillery", "record")
    (bench.root / ".snakemake/locks/0.output.lock").unlink()
    bench.run("distillery", "record")
    assert not bench.git("status", "--porcelain")


def test_an_edit_while_recording_is_noticed(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the check and DVC's signature: parameters, an output, a failure. dvc.lock is put back each time."""
    lock, real, args = Path("dvc.lock").read_bytes(), versioning.dvc, []

    def meddle(action: Any, error: type[Exception] = StaleInput) -> None:
        def dvc(*arguments: str) -> str:
            args.append(arguments)
            action()
            return real(*arguments)

        monkeypatch.setattr(versioning, "dvc", dvc)
        with pytest.raises(error, match=r"meanwhile|while it was being recorded|the disk is full"):
            versioning.record()
        assert Path("dvc.lock").read_bytes() == lock

    def fail() -> None:
        Path("dvc.lock").write_text("half of it")
        raise DistilleryError("`dvc commit` failed: the disk is full")

    meddle(lambda: set_temperature(bench, 3.0))
    bench.git("checkout", "-q", "params.yaml")
    meddle(fail, DistilleryError)
    AT.students(*cell()).touch()  # DVC takes a file of the same size, date and inode for unchanged
    meddle(lambda: AT.students(*cell()).write_bytes(b"another student"))
    assert [a[0] for a in args] == ["commit", "commit", "commit"]


def test_where_the_engines_cannot_work(bench: Workbench) -> None:
    """No git, no DVC, an unused teacher, seeds as DVC cannot read them, another DVC process, unsafe links."""
    study = bench.params
    teacher = next(iter(study["teachers"]))
    bench.params = study | {"teachers": study["teachers"] | {"spare": study["teachers"][teacher]}}
    assert "teachers.spare is used by no pair" in refused(bench, "distillery", "record")
    bench.params = study | {"seeds": "0-1"}
    assert 'write `seeds: ["0-1"]` in params.yaml' in refused(bench, "distillery", "record")
    bench.git("checkout", "-q", "params.yaml")

    for name, sentence in ((".git", "is in no git repository"), (".dvc", "there is no .dvc folder")):
        (bench.root / name).rename(bench.root / "hidden")
        assert sentence in refused(bench, "distillery", "record")
        (bench.root / "hidden").rename(bench.root / name)

    for where in (".dvc/config.local", "elsewhere/config"):
        path = bench.root / where
        path.parent.mkdir(exist_ok=True)
        path.write_text("[cache]\n    type = reflink,symlink\n")
        said = refused(bench, "distillery", "record", DVC_GLOBAL_CONFIG_DIR="elsewhere")
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
        holder.communicate("\n", timeout=600)
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


def test_what_earlier_seeds_left_is_not_recorded(finished: Workbench, bench: Workbench) -> None:
    """DVC has the tables read all metrics, and a pair all teachers: a clone lacks those that are of no job any more."""
    left = AT.metrics(*cell()).with_name("7.json"), AT.teacher("another")
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_text("of a job that there was")
    assert "2 files of jobs that the study does not" in bench.run("distillery", "record").stdout
    assert Path("dvc.lock").read_bytes() == (finished.root / "dvc.lock").read_bytes()
    assert not due_for_dvc(bench)
    for path in left:
        assert not path.exists() and AT.earlier(path).read_text() == "of a job that there was"


def test_own_code_belongs_to_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `record` says to add, with helpers and data; what lies elsewhere is not in this repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    here, elsewhere = Path("own losses/other.py"), tmp_path.with_name(f"{tmp_path.name}-elsewhere.py")
    here.parent.mkdir()
    for path in (here, elsewhere):
        path.write_text("from distillery.api import Objective\n\n\nclass Other(Objective):\n    pass\n")
    methods = {name: {"objective": f"{path}:Other"} for name, path in (("one", here), ("two", elsewhere))}
    methods["three"] = {"objective": f"{here.resolve()}:Other"}
    Path("helper_of_other.py").touch()
    here.write_text("import helper_of_other\n" + here.read_text() + "    table = 'table.json'\n")
    here.with_name("table.json").touch()
    package = Path("package_of_others")
    package.mkdir()
    for name in ("__init__", "inner"):
        (package / f"{name}.py").write_text(elsewhere.read_text())
    methods["four"] = {"objective": "package_of_others.inner:Other"}
    write(STUDY | {"methods": STUDY["methods"] | methods})
    study = load(PARAMS)
    said = "params.yaml dvc.lock results helper_of_other.py 'own losses/other.py' 'own losses/table.json' "
    assert versioning.to_commit(study, resolve(study)) == f"{said}package_of_others"


# Files that came from elsewhere


def test_a_clone_with_the_files_of_dvc(finished: Workbench, tmp_path: Path) -> None:
    """`dvc checkout`, `dvc repro` after an edit, and back: Snakemake knows what is due, and nobody tells it."""
    finished.run("git", "clone", "-q", str(finished.root), str(tmp_path / "clone"))
    clone = Workbench.at(tmp_path / "clone")
    clone.run("dvc", "cache", "dir", "--local", str(finished.root / ".dvc/cache"))
    clone.run("dvc", "checkout")
    assert nothing_to_do(clone)
    set_temperature(clone, 2.0)
    assert due(clone, planned=False) == KD
    clone.run("dvc", "repro")
    assert nothing_to_do(clone)
    clone.run("distillery", "record")
    clone.git("checkout", "-q", ".")
    clone.run("dvc", "checkout")
    assert nothing_to_do(clone)
    assert not due_for_dvc(clone)


def test_a_copy_without_dates(finished: Workbench, tmp_path: Path) -> None:
    """As `cp -r` makes them, in any order; of this study Snakemake has no notes of its own either."""
    bench = Workbench.at(tmp_path / "copy")
    bench.root.parent.mkdir(exist_ok=True)
    finished.run("cp", "-r", str(finished.root), str(bench.root))
    assert not (bench.root / ".snakemake").exists()
    files = sorted(p for p in bench.root.rglob("*") if p.is_file() and ".git" not in p.parts)
    random.Random(0).shuffle(files)
    for age, path in enumerate(files):
        os.utime(path, (1.7e9 + age, 1.7e9 + age))
    assert nothing_to_do(bench)
    set_temperature(bench, 3.0)
    assert due(bench) == KD
    bench.git("checkout", "-q", "params.yaml")
    assert nothing_to_do(bench)
    params = bench.params
    params["tables"]["resolve"] = 0.25
    bench.params = params
    assert due(bench) == {"tables"}


def test_a_stage_by_hand_and_then_an_edit(bench: Workbench) -> None:
    """What was made by hand counts as long as it is what the study says, and is made again when it is not."""
    pair, method, seed = cell()
    set_temperature(bench, 3.0)
    bench.run("distillery", "distill", "--pair", pair, "--method", method, "--seed", seed)
    assert due(bench) == KD - {"distill kd"}
    set_temperature(bench, 5.0)
    assert due(bench) == KD
    bench.run("snakemake", "--cores", "1")
    assert read_json(AT.run_record(*cell()))["spec"]["values"]["objective"]["temperature"] == 5.0
    assert nothing_to_do(bench)


def test_a_deleted_run(bench: Workbench) -> None:
    """Snakemake, DVC and status want it made again, and what depends on it."""
    pair, method, _ = cell()
    shutil.rmtree(AT.runs(pair, method))
    assert due(bench) == KD
    assert due_for_dvc(bench) == {f"{stage}@{'-'.join(cell())}" for stage in ("distill", "evaluate")}
    said = bench.run("distillery", "status").stdout
    assert re.search(r"^distill +1 +1 +2 *$", said, re.MULTILINE), said
    assert "evaluate: 1, its distill is missing" in said
    assert "tables: 1, made from a stale evaluate" in said
    assert "is missing" in refused(bench, "distillery", "record")
    bench.run("snakemake", "--cores", "1")
    assert not due_for_dvc(bench), "other students than before"


def test_specs_of_another_commit_are_not_taken_for_the_plan(bench: Workbench) -> None:
    """DVC restores specs too, also beside parameters that had been planned before."""
    spec = AT.spec("distill", *cell())
    kept = spec.read_text()
    assert '"temperature": 4.0' in kept
    spec.write_text(kept.replace('"temperature": 4.0', '"temperature": 5.0'))
    assert nothing_to_do(bench, planned=False)
    assert spec.read_text() == kept
    spec.write_text(kept[:100])  # a damaged one
    assert nothing_to_do(bench, planned=False)


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
    bench = finished.copy(tmp_path / "kd" / "project")
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
    assert "then `distillery record`, or a clone" in follow("Add to a table")
    assert not due_for_dvc(bench)
    assert len(list((tmp_path / "kd/cache").rglob("*"))) > 13

    assert "Nothing to be done" in follow("See it elsewhere")
    reviewer = Workbench.at(bench.root / "reviewer")
    same_tables(reviewer, bench)
    params = reviewer.params
    params["methods"]["kd"]["temperature"] = 2.0
    reviewer.params = params
    assert due(reviewer) == KD
    shutil.rmtree(reviewer.root)

    follow("A remote on S3")
    bench.run("git", "clone", "-q", str(bench.root), str(tmp_path / "far"))
    far = Workbench.at(tmp_path / "far")
    far.run(
        "dvc", "cache", "dir", "--local", str(tmp_path / "far/.dvc/cache")
    )  # its own: all must come from the server
    assert due(far, planned=False) > KD  # and the plan is written, which `dvc pull` must find to be the recorded one
    assert "files fetched" in far.run("dvc", "pull").stdout
    assert nothing_to_do(far)

    said = follow("Compare parameters")
    assert re.search(r"\[warm-2\].*\|\s*2\s*\|", said), said
    assert re.search(r"\[warm-8\].*\|\s*8\s*\|", said), said
    assert bench.params["methods"]["kd"]["temperature"] == 2
    assert not due_for_dvc(bench)
    assert nothing_to_do(bench, planned=False)
    text = (ROOT / "docs/versioning.md").read_text()
    assert all(any(p.startswith(t) for t in done) for p in text.split("\n## ")[1:] if "```sh" in p)


def same_tables(clone: Workbench, origin: Workbench) -> None:
    """A clone prints every table, and makes the same bytes again from what it pulled."""
    assert "KD" in clone.run("distillery", "show").stdout
    clone.run("distillery", "tables")
    for path in AT.result_files().values():
        assert (clone.root / path).read_bytes() == (origin.root / path).read_bytes(), path
    assert not clone.git("status", "--porcelain", "--", "results")
    assert not due_for_dvc(clone)
