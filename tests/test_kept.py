"""Runs kept in git, without weights: tables take them where the artefacts are missing or of other code."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from synthetic_study import Synthetic, params

from distillery.cli import app
from distillery.pipeline import kept
from distillery.pipeline.current import Judge
from distillery.pipeline.layout import Layout
from distillery.pipeline.planner import resolve
from distillery.records.io import DistilleryError, read_json, write_json
from distillery.records.schema import sealed
from distillery.report import table

PLACE = Layout("digits").kept_metrics("a-b", "kd", "0-2")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Synthetic:
    """A study of which one cell of three is measured, and kept."""
    monkeypatch.chdir(tmp_path)
    made = Synthetic(tmp_path, params())
    made.cell("a-b", "kd", "0-2", [80.0, 81.0, 82.0])
    assert [job.name for job in kept.keep(made.plan)] == ["evaluate a-b kd 0-2"]
    return made


def cloned(made: Synthetic, content: dict[str, Any] | None = None) -> Synthetic:
    """What git holds is there, what it does not hold is not."""
    shutil.rmtree("artifacts")
    made.write_params(content or made.content)
    return made


def row(made: Synthetic, method: str) -> table.Entry:
    main = table.build(made.results)
    return next(row for row in main.rows if row.name == method).entries["a-b"]


def test_a_clone_shows_what_was_measured_elsewhere_and_says_so(made: Synthetic) -> None:
    before = row(made, "kd")
    assert row(cloned(made), "kd") == before
    made.tables()
    text = Path("results/digits/table.md").read_text()
    assert "Measured earlier, by the code of their records, and kept without weights: KD (seeds 0 to 2)." in text
    assert "a-b, ce, seeds 0 to 2: no result yet" in text


def test_the_next_hour_adds_to_the_same_table(made: Synthetic) -> None:
    made = cloned(made)
    made.cell("a-b", "ce", "0-2", [70.0, 71.0, 72.5])
    assert [job.keys[1] for job in kept.keep(made.plan)] == ["ce"]
    assert kept.keep(made.plan) == []
    made = cloned(made)
    assert (row(made, "kd").n, row(made, "ce").n, row(made, "kd_10").n) == (3, 3, 0)
    assert row(made, "ce").mark == "worse"


@pytest.mark.parametrize(
    ("seeds", "shown"),
    [(["0-4"], [0, 1, 2]), ([0, 1, 2], [0, 1, 2]), (["2-3", "0-1"], [2, 0, 1]), ([1], [1]), (["3-5"], [])],
)
def test_a_run_counts_in_whatever_block_its_seed_is_now(made: Synthetic, seeds: list[Any], shown: list[int]) -> None:
    """Grown, split, in another order, shrunk: the kept block is 0-2."""
    before = made.results.cells["a-b", "kd"].runs
    cell = cloned(made, params(seeds=seeds)).results.cells["a-b", "kd"]
    assert list(cell.runs) == list(cell.kept) == shown
    assert all(cell.runs[seed]["last"] == before[seed]["last"] for seed in shown)
    assert cell.missing == {seed: "no result yet" for seed in cell.expected if seed not in shown}
    assert list(cell.jobs) == ([str(PLACE)] if shown else [])
    made.tables()


def test_a_seed_that_was_kept_twice_is_taken_from_its_own_block(made: Synthetic) -> None:
    made.write_params(params(seeds=["2-10", 1]))
    made.cell("a-b", "kd", "2-10", [70.0 + seed for seed in range(9)])
    kept.keep(made.plan)
    cell = cloned(made).results.cells["a-b", "kd"]
    assert [run["last"]["top1"] for run in cell.runs.values()] == [70.0 + seed for seed in range(9)] + [81.0]
    assert [job["seeds"] for job in cell.jobs.values()] == ["2-10", "0-2"]


def test_runs_of_other_parameters_do_not_count_in_a_grown_block(made: Synthetic) -> None:
    content = params(seeds=["0-4"])
    content["teachers"]["resnet20_w8"]["seed"] = 7
    assert row(cloned(made, content), "kd").n == 0


def test_runs_made_here_come_before_kept_ones(made: Synthetic) -> None:
    made = cloned(made)
    made.cell("a-b", "kd", "0-2", [50.0, 51.0, 52.0])
    assert row(made, "kd").mean == 51.0
    assert not any(cell.kept for cell in made.results)


def test_runs_of_other_parameters_do_not_count_those_of_other_code_do(made: Synthetic) -> None:
    content = params()
    content["methods"]["kd"]["temperature"] = 3.0
    assert row(cloned(made, content), "kd").n == 0
    record = json.loads(PLACE.read_text())
    record["spec"]["code"] = "other"
    PLACE.write_text(json.dumps(sealed(record)))
    assert row(cloned(made, params()), "kd").n == 3


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.labelled", 0.5),
        ("data.test_fraction", 0.8),
        ("teachers.resnet20_w8.seed", 7),
        ("teachers.resnet20_w8.recipe", {"epochs": 50}),
        ("cache.dtype", "float16"),
    ],
)
def test_runs_of_other_data_labels_teachers_or_tables_do_not_count(made: Synthetic, path: str, value: Any) -> None:
    content = params()
    *parents, last = path.split(".")
    block: Any = content
    for key in parents:
        block = block[key]
    block[last] = value
    assert row(cloned(made, content), "kd").n == 0


def test_own_images_are_compared_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        Path("scans", name).mkdir(parents=True)
        for index in range(4):
            Image.new("L", (8, 8), 60 * index).save(Path("scans", name, f"{index}.png"))
    made = Synthetic(tmp_path, params(data={"source": "folder", "root": "scans", "size": 8}))
    made.cell("a-b", "kd", "0-2", [80.0, 81.0, 82.0])
    kept.keep(made.plan)
    assert row(cloned(made), "kd").n == 3
    shutil.rmtree("scans/b")
    Path("scans/a").rename("scans/b")
    made.write_params(made.content)
    assert row(made, "kd").n == 0
    shutil.rmtree("scans")
    made.plan = resolve(made.study)
    assert row(made, "kd").n == 3, "a clone without the images"


@pytest.mark.parametrize("stage", ["distill", "evaluate"])
def test_a_number_that_was_edited_by_hand_is_noticed(stage: str, made: Synthetic) -> None:
    """By whoever reads the record: engines make it anew."""
    plan = made.plan
    job = plan.job(stage, pair="a-b", method="kd", seed="0-2")
    record = read_json(job.record)
    edited = record | {"recipe": record["recipe"] | {"lr": 7.0}}
    job.record.write_text(json.dumps(edited))
    assert "was changed after it was made: delete it and run its stage again" in Judge(plan).verdict(job).why
    write_json(job.record, record, sort=False)
    assert Judge(plan).verdict(job).current


def test_tables_are_due_when_something_is_kept(made: Synthetic) -> None:
    before = made.plan.job("tables").sha256
    made = cloned(made)
    made.cell("a-b", "ce", "0-2", [70.0, 71.0, 72.0])
    kept.keep(made.plan)
    made.write_params(made.content)
    assert made.plan.job("tables").sha256 != before


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_damaged_files_are_refused_in_one_sentence(made: Synthetic, harm: str) -> None:
    arrays = PLACE.with_suffix(".safetensors")
    arrays.write_bytes(arrays.read_bytes()[:-1]) if harm == "cut" else arrays.unlink()
    with pytest.raises(DistilleryError, match=f"{arrays} is not the file that {PLACE} describes: take both from git"):
        row(cloned(made), "kd")


def test_damaged_files_are_replaced_where_the_run_is_here(made: Synthetic) -> None:
    arrays = PLACE.with_suffix(".safetensors")
    whole = arrays.read_bytes()
    arrays.write_bytes(whole[:-1])
    assert len(kept.keep(made.plan)) == 1
    assert arrays.read_bytes() == whole


def test_nothing_is_kept_of_what_is_out_of_date(made: Synthetic) -> None:
    shutil.rmtree("results")
    Layout("digits").students("a-b", "kd", "0-2").write_text("another")
    assert kept.keep(made.plan) == []
    assert not PLACE.exists()


def test_the_command_says_what_it_kept_and_what_is_due(made: Synthetic, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("results")
    held = f"digits: 3 more runs in {PLACE.parents[2]}, for git; `distillery tables` shows them\n"
    for expected in (held, "digits: no run is current here"):
        app(["keep"], standalone_mode=False)
        assert capsys.readouterr().out.startswith(expected)
    for method in ("ce", "kd_10"):
        made.cell("a-b", method, "0-2", [70.0, 71.0, 72.0])
    app(["keep"], standalone_mode=False)
    assert "; next: `distillery tables` shows them, then `distillery record`, or" in capsys.readouterr().out


def test_a_full_disk_is_one_sentence_and_nothing_is_half_kept(made: Synthetic, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree("results")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DistilleryError, match="the disk is full; free some space"):
        patch.setattr(Path, "write_bytes", full)
        kept.keep(made.plan)
    assert [path for path in Path("results").rglob("*") if path.is_file()] == []
    assert len(kept.keep(made.plan)) == 1
