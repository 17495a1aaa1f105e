"""`distillery verify`: a study against another copy of it. Copies are edited as machines and people would edit them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_study import STUDY, make, write
from typer.testing import CliRunner

from distillery.cli import app
from distillery.errors import DistilleryError
from distillery.pipeline import kept
from distillery.pipeline.current import fault_of_tables
from distillery.pipeline.planner import current
from distillery.records.io import load_tensors, md5_file, save_tensors, sha256_file
from distillery.records.schema import sealed
from distillery.verify.compare import ALIKE, DIFFERENT, EQUAL, MISSING, SAME, UNTESTED, Compared, Verification, compare
from distillery.verify.record import here, recorded
from distillery.verify.show import notes, verdict

RUNS = Path("artifacts/small/runs/t-s/kd/0-2/students.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three seeds, trained once for this file."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write(STUDY | {"seeds": ["0-2"], "recipe": STUDY["recipe"] | {"epochs": 1, "milestones": []}})
        make(tables=True)
    return root


@pytest.fixture
def copies(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two copies side by side; we are in one, and the path of the other is returned."""
    for name in ("ours", "theirs"):
        shutil.copytree(finished, tmp_path / name)
    monkeypatch.chdir(tmp_path / "ours")
    return tmp_path / "theirs"


def found(where: str | Path) -> Verification:
    plan = current()[1]
    return compare(plan, here(plan), recorded(str(where), plan))


def verdicts(found: Verification) -> dict[str, str]:
    return {cell.name: cell.verdict for cell in found.cells}


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a record as another machine would have written it: sealed."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(sealed(content)))


def by_hand(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a record as a person would: its seal stays."""
    content = json.loads(path.read_text())
    edit(path, change)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seal": content["seal"]}))


def shifted(by: tuple[float, ...], method: str = "kd") -> Callable[[dict[str, Any]], None]:
    """What a table would say had its students of one method other accuracies."""

    def change(record: dict[str, Any]) -> None:
        [row] = [row for row in record["table"]["rows"] if row["name"] == method]
        entry = row["entries"]["t-s"]
        entry["values"] = [value + more for value, more in zip(entry["values"], by, strict=False)]
        entry["seeds"], entry["mean"] = entry["seeds"][: len(by)], sum(entry["values"]) / len(entry["values"])
        record["inputs"] = {path: "another" if f"/{method}/" in path else h for path, h in record["inputs"].items()}

    return change


def mean_of(copy: Path, method: str) -> float:
    rows = json.loads((copy / "results/small/table.json").read_text())["table"]["rows"]
    return float(next(row for row in rows if row["name"] == method)["entries"]["t-s"]["mean"])


def git(*arguments: str) -> None:
    identity = ("-c", "user.name=tester", "-c", "user.email=tester@example.invalid")
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ((UNTESTED, UNTESTED), "nothing could be tested against B: A (p) +0.40 and A (p) +0.40"),
        (
            (SAME, UNTESTED),
            "reproduced against B: no difference found; of 2 cells 1 same bits, 1 cannot be tested: A (p) +0.40",
        ),
        ((ALIKE,), "reproduced against B: no difference found; of 1 cells 1 indistinguishable"),
        (
            (UNTESTED, DIFFERENT),
            "NOT reproduced against B: A (p) is different; of 2 cells 1 cannot be tested, 1 different",
        ),
    ],
)
def test_where_nothing_could_be_tested_nothing_is_reproduced(cells: tuple[str, ...], said: str) -> None:
    compared = tuple(Compared("p", "a", "A", name, 1.4, 1.0, 0.4) for name in cells)
    found = Verification("s", "B", compared, (), "%", 2)
    assert verdict(found) == said
    assert found.reproduced is said.startswith("reproduced")
    assert any("Cannot be tested: " in note for note in notes(found)) is (UNTESTED in cells)


@pytest.mark.parametrize(
    ("command", "suffixes"), [("show", r"\.html"), ("verify", r"\.html or \.md")], ids=["show", "verify"]
)
def test_a_page_of_another_kind_is_refused_at_once(command: str, suffixes: str, tmp_path: Path) -> None:
    with pytest.raises(DistilleryError, match=rf"^--page page\.txt: name a file that ends with {suffixes}$"):
        app([command, "--page", "page.txt", "--params", str(tmp_path / "no.yaml")], standalone_mode=False)


def test_without_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(STUDY)
    with pytest.raises(
        DistilleryError, match=r"^'HEAD' is no folder, and there is no git repository here .*: name a f"
    ):
        recorded("HEAD", current()[1])


@pytest.mark.slow
class TestAgainstAFolder:
    def test_the_same_bits(self, copies: Path) -> None:
        same = found(copies)
        assert verdicts(same) == dict.fromkeys(("teacher", "ce", "kd"), SAME)
        assert {cell.parted for cell in same.cells} == {""} and same.machines == ()
        assert verdict(same) == f"reproduced against {copies}: all 3 cells, bit for bit"

    def test_a_clone_has_nothing_to_compare(self, copies: Path) -> None:
        shutil.rmtree("artifacts")
        with pytest.raises(DistilleryError, match="nothing of small was measured here, and git's tables would be"):
            app(["verify", str(copies)], standalone_mode=False)

    def test_what_was_only_pulled_reproduces_nothing(self, copies: Path) -> None:
        """Notes of who trained are neither in git nor in DVC's cache."""
        notes = Path("artifacts/small/provenance/runs")
        notes.rename("notes")
        said = f"the files of small are bit for bit those of {copies}, but no student was trained here"
        with pytest.raises(DistilleryError, match=re.escape(said)):
            app(["verify", str(copies)], standalone_mode=False)
        Path("notes").rename(notes)
        app(["verify", str(copies)], standalone_mode=False)

    def test_a_copy_is_not_compared_with_itself(self, copies: Path) -> None:
        for name in (".", str(Path.cwd())):
            with pytest.raises(DistilleryError, match="is this copy itself: name a git revision, or the folder"):
                app(["verify", name], standalone_mode=False)

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("dvc.lock", b"<<<<<<< HEAD\nschema: '2.0'\n", "dvc.lock is damaged, or in the middle of a merge"),
            ("dvc.lock", b"stages: {data: {outs: [{path: artifacts/small/a}]}}\n", "dvc.lock is damaged, or not what"),
            ("results/small/runs.csv", b"\xff\xfe", "results/small/runs.csv is damaged: it is no text"),
            ("results/small/table.json", b"[" * 100_000, "results/small/table.json was written by another version"),
        ],
    )
    def test_a_copy_with_damaged_files(self, copies: Path, name: str, content: bytes, said: str) -> None:
        shutil.rmtree(copies / "artifacts")
        (copies / name).write_bytes(content)
        with pytest.raises(DistilleryError, match=re.escape(f"{copies}: {said}")):
            app(["verify", str(copies)], standalone_mode=False)

    def test_tables_that_were_edited_are_told(self, copies: Path) -> None:
        """Also where nothing else is there, and though engines, who look at sizes, find nothing to do."""
        plan = current()[1]
        assert fault_of_tables(plan) == ""
        by_hand(plan.job("tables").record, lambda record: record["table"].update(title="better"))
        for _ in ("with what was measured", "in a clone"):
            assert "table.json was changed after it was made" in fault_of_tables(plan)
            shutil.rmtree("artifacts", ignore_errors=True)

    def test_runs_that_are_kept_make_no_other_study(self, copies: Path) -> None:
        """They are compared too: in a clone, beside what was measured there, and not with themselves."""
        kept.keep(current()[1])
        assert "results/small/kept changed" in fault_of_tables(current(write=True)[1])
        app(["tables"], standalone_mode=False)
        assert CliRunner().invoke(app, ["verify", str(copies)]).exit_code == 0

        shutil.rmtree("artifacts")
        app(["tables"], standalone_mode=False)
        assert verdicts(found(copies)) == {"teacher": UNTESTED, "ce": SAME, "kd": SAME}
        said = CliRunner().invoke(app, ["verify", str(copies)])
        assert said.exit_code == 0 and "runs are here as git keeps them" in " ".join(said.stdout.split())
        git("init", "-q")
        git("add", "results")
        git("commit", "-qm", "kept")
        with pytest.raises(DistilleryError, match="compared with themselves, for HEAD keeps the same runs: name a"):
            app(["verify"], standalone_mode=False)

        shutil.copytree(copies / "artifacts", "artifacts", dirs_exist_ok=True)
        shutil.rmtree("artifacts/small/metrics/t-s/kd")
        assert "`distillery tables` makes it anew" in CliRunner().invoke(app, ["show"], env={"COLUMNS": "200"}).stdout
        app(["tables"], standalone_mode=False)
        assert "out of date" not in CliRunner().invoke(app, ["show"]).stdout
        result = CliRunner().invoke(app, ["verify", str(copies)], env={"COLUMNS": "200"})
        assert "all 3 cells, bit for bit" in result.stdout

    def test_a_study_with_more_seeds_is_the_same(self, copies: Path) -> None:
        """Compared are the seeds of both: bit for bit, or in another block by all that was measured of them."""
        recipe = STUDY["recipe"] | {"epochs": 1, "milestones": []}
        for seeds, verdict_of_students in ((["0-2", 3], SAME), (["0-3"], EQUAL)):
            write(STUDY | {"seeds": seeds, "recipe": recipe})
            make(tables=True)
            more = found(copies)
            assert verdicts(more) == {"teacher": SAME, "ce": verdict_of_students, "kd": verdict_of_students}
            assert {(c.ours, c.difference, c.parted, c.common, c.here) for c in more.cells if c.name == "kd"} == {
                (mean_of(copies, "kd"), 0.0, "", (0, 1, 2), (3,))
            }
            assert f"reproduced against {copies} in the seeds of both: " in verdict(more)
            assert "Compared, means too: seeds of both copies, 0 to 2; only here: 3 (2 cells)." in notes(more)
            assert CliRunner().invoke(app, ["verify", str(copies)]).exit_code == 0

        measured = copies / "results/small/runs.csv"
        measured.write_text(re.sub(r"^(t-s,kd,1,.*?,.*?),", r"\g<1>1,", measured.read_text(), flags=re.M))
        assert verdicts(found(copies)) == {"teacher": SAME, "ce": EQUAL, "kd": ALIKE}
        edit(copies / "results/small/table.json", shifted((0.0, 0.0)))
        assert verdicts(found(copies))["kd"] == UNTESTED
        edit(
            copies / "results/small/table.json", lambda r: r["table"]["rows"][2]["entries"]["t-s"].update(seeds=[7, 8])
        )
        [kd] = [cell for cell in found(copies).cells if cell.name == "kd"]
        assert (kd.verdict, kd.ours, kd.difference, kd.there) == (UNTESTED, None, None, (7, 8))
        assert "No common seed; only here: 0 to 3; only there: 7 and 8 (1 cell)." in notes(found(copies))

    def test_another_machine_gave_other_bits(self, copies: Path) -> None:
        """Only what comes after the first job that differs is not the same, and the reader is told which machine."""
        record = copies / RUNS.with_name("runs.json")
        edit(record, lambda r: r["outputs"][str(RUNS)].update(sha256="f" * 64))
        table = copies / "results/small/table.json"
        edit(table, shifted((0.4, -0.5, 0.2)))
        edit(table, lambda r: r["environment"].update(cpu="another one"))
        other = found(copies)
        assert verdicts(other) == {"teacher": SAME, "ce": SAME, "kd": ALIKE}
        [kd] = [cell for cell in other.cells if cell.name == "kd"]
        assert (kd.parted, kd.why) == ("distill t-s kd 0-2", "")
        assert kd.difference == pytest.approx(-0.1 / 3, abs=1e-9) and kd.interval and kd.interval > 0.5
        assert other.reproduced and [m for m in other.machines if "another one there" in m]

    def test_a_real_difference(self, copies: Path) -> None:
        edit(copies / "results/small/table.json", shifted((5.0, 5.2, 4.9)))
        assert verdicts(found(copies)) == {"teacher": SAME, "ce": SAME, "kd": DIFFERENT}
        result = CliRunner().invoke(app, ["verify", str(copies)], env={"COLUMNS": "200"})
        assert result.exit_code == 1
        assert "NOT reproduced" in result.stdout and "KD (t-s) is different" in result.stdout

    def test_the_report_with_the_verdict_as_a_section(self, copies: Path) -> None:
        """Beside the report, which stays the bytes that it was made of; a wrong place is refused in a sentence."""
        edit(copies / "results/small/table.json", shifted((5.0, 5.2, 4.9)))
        report = Path("results/small/report.html")
        before = report.read_bytes()
        result = CliRunner().invoke(app, ["verify", str(copies), "--page", "verified.html"], env={"COLUMNS": "200"})
        assert result.exit_code == 1 and "written: verified.html" in result.stdout
        page = Path("verified.html").read_text()
        assert '<a href="#verification">Reproduction</a>' in page
        told = page.partition('<details id="verification" open>')[2].partition("</details>")[0]
        assert (
            f"NOT reproduced against {copies}" in told
            and told.count(">different<") == 1
            and told.count(">same bits<") == 2
        )
        assert "−5.03" in told  # here minus there, with a true minus  # noqa: RUF001
        assert page.replace(told, "").count("<details") == before.decode().count("<details") + 1
        assert report.read_bytes() == before

        CliRunner().invoke(app, ["verify", str(copies), "--page", "verified.md"], env={"COLUMNS": "200"})
        section = Path("verified.md").read_text()
        assert (
            section.startswith("### Reproduction") and len(re.findall(r"^\| (?:teacher|alone|KD)", section, re.M)) == 3
        )
        result = CliRunner().invoke(app, ["verify", str(copies), "--page", str(report)])
        assert isinstance(result.exception, DistilleryError) and "stays as it was made" in str(result.exception)

    @pytest.mark.parametrize("by", [(5.0, 5.2), (0.5, 0.5, 0.5)], ids=["two runs", "equal differences"])
    def test_what_decides_nothing(self, copies: Path, by: tuple[float, ...]) -> None:
        edit(copies / "results/small/table.json", shifted(by))
        other = found(copies)
        [kd] = [cell for cell in other.cells if cell.name == "kd"]
        assert (kd.verdict, kd.p, kd.interval) == (UNTESTED, None, None) and other.reproduced
        assert kd.difference == pytest.approx(-sum(by) / len(by))
        assert f"2 same bits, 1 cannot be tested: KD (t-s) −{sum(by) / len(by):.2f}" in verdict(other)  # noqa: RUF001

    def test_a_teacher_without_the_measure_is_no_cell(self, copies: Path) -> None:
        for folder in (Path(), copies):
            edit(
                folder / "results/small/table.json", lambda r: r["table"]["rows"][0]["entries"]["t-s"].update(mean=None)
            )
        assert verdicts(found(copies)) == {"ce": SAME, "kd": SAME}
        edit(Path("results/small/table.json"), lambda r: r["table"]["rows"][0]["entries"]["t-s"].update(mean=50.0))
        assert verdicts(found(copies))["teacher"] == MISSING

    def test_a_method_that_is_not_there(self, copies: Path) -> None:
        def without(record: dict[str, Any]) -> None:
            record["table"]["rows"] = [row for row in record["table"]["rows"] if row["name"] != "kd"]

        edit(copies / "results/small/table.json", without)
        assert verdicts(found(copies))["kd"] == MISSING and not found(copies).reproduced

    def test_the_first_stage_where_they_part_comes_first(self, copies: Path) -> None:
        """Other data explain everything that comes after them; a colleague's other parameter is named."""
        arrays = "artifacts/small/data/arrays.safetensors"

        def otherwise(record: dict[str, Any]) -> None:
            record["outputs"][arrays]["sha256"] = "f" * 64
            record["spec"]["values"]["selection"]["test_fraction"] = 0.25

        edit(copies / "artifacts/small/data/data.json", otherwise)
        parted = {(cell.parted, cell.why) for cell in found(copies).cells}
        assert parted == {("data", "data.test_fraction changed")}

    def test_another_study_is_no_reproduction(self, copies: Path) -> None:
        """It is refused before anything is compared or written."""
        more = {"epochs": 7, "lr": 1, "momentum": 0, "nesterov": True, "batch_size": 9}
        edit(copies / "results/small/table.json", lambda r: r["spec"]["values"]["recipe"].update(more))
        result = CliRunner().invoke(app, ["verify", str(copies), "--page", "verified.html"])
        said = f"{copies} holds another study: recipe.batch_size is 32 here and 9 there; recipe.epochs is 1 here and"
        assert isinstance(result.exception, DistilleryError) and str(result.exception).startswith(said)
        assert ", and 2 more: name a revision or a folder that holds a record of this one" in str(result.exception)
        assert result.stdout == "" and not Path("verified.html").exists()

    def test_a_record_of_an_older_form(self, copies: Path) -> None:
        """A key that its Distillery did not know is told as one; a method that it lacks makes another study."""
        edit(copies / "results/small/table.json", lambda r: r["spec"]["values"]["recipe"].pop("momentum"))
        said = f"{copies} is of an older or newer form, by a Distillery that had other keys, or holds another study: "
        with pytest.raises(DistilleryError, match=re.escape(f"{said}recipe.momentum is 0.9 here and not set there: ")):
            app(["verify", str(copies)], standalone_mode=False)
        edit(copies / "results/small/table.json", lambda r: r["spec"]["values"]["methods"].pop("kd"))
        with pytest.raises(DistilleryError, match=f"^{re.escape(str(copies))} holds another study: methods.kd"):
            app(["verify", str(copies)], standalone_mode=False)

    @pytest.mark.parametrize("name", ["results/small/table.json", "artifacts/small/teachers/t/teacher.json"])
    def test_a_record_that_somebody_edited_proves_nothing(self, copies: Path, name: str) -> None:
        by_hand(copies / name, lambda record: record["environment"].update(cpu="mine"))
        with pytest.raises(DistilleryError, match=re.escape(f"{copies}: {name} was changed after it was made: ")):
            app(["verify", str(copies)], standalone_mode=False)

    def test_an_unfinished_copy(self, copies: Path) -> None:
        (copies / "results/small/table.json").unlink()
        with pytest.raises(DistilleryError, match="no finished study 'small'"):
            found(copies)

    def test_what_is_out_of_date_here_is_not_verified(self, copies: Path) -> None:
        write(STUDY | {"seeds": ["0-2"], "recipe": STUDY["recipe"] | {"epochs": 2, "milestones": []}})
        result = CliRunner().invoke(app, ["verify", str(copies)])
        assert isinstance(result.exception, DistilleryError) and "recipe.epochs changed" in str(result.exception)


@pytest.mark.slow
class TestAgainstGit:
    def lock(self) -> None:
        """What `dvc commit` writes, as far as it is read."""
        stages = {}
        for job in current()[1]:
            made = [p for p in job.outputs.values() if p.is_file()]
            entries = [[{"path": str(p), "md5": md5_file(p), "size": p.stat().st_size} for p in paths]
                       for paths in ([job.path], made)]  # fmt: skip
            stages[job.name] = {"deps": entries[0], "outs": entries[1]}
        Path("dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))

    def test_a_revision_and_where_the_study_parts_from_it(self, copies: Path) -> None:
        git("init", "-q")
        self.lock()
        git("add", "results", "dvc.lock", "params.yaml")
        git("commit", "-qm", "results")
        result = CliRunner().invoke(app, ["verify"], env={"COLUMNS": "200"})
        assert result.exit_code == 0 and "all 3 cells, bit for bit" in result.stdout

        weights = load_tensors(RUNS)  # another machine: other bits of the students
        save_tensors(RUNS, {name: tensor * 1.001 for name, tensor in weights.items()})
        edit(RUNS.with_name("runs.json"), lambda r: r["outputs"][str(RUNS)].update(sha256=sha256_file(RUNS)))
        [kd] = [cell for cell in found("HEAD").cells if cell.name == "kd"]
        assert (kd.verdict, kd.parted, kd.difference) == (ALIKE, "distill t-s kd 0-2", 0.0)

    def test_a_project_folder_within_a_repository(self, copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`make demo`: the study runs in a folder that git ignores, and the repository around it holds the record."""
        monkeypatch.chdir(copies.parent / "ours")
        git("init", "-q")
        git("add", "results")
        git("commit", "-qm", "results")
        shutil.move(copies, "demo")
        monkeypatch.chdir(Path("demo").resolve())
        assert {cell.verdict for cell in found("HEAD").cells if cell.name != "teacher"} == {SAME}
        with pytest.raises(DistilleryError, match="neither a folder, nor a git revision"):
            found("nonsense")
