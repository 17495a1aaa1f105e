"""What the tables say of methods: all their settings, and where formulas come from; and of tables of another day."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from synthetic_study import Synthetic, params

from distillery.errors import DistilleryError
from distillery.objectives.build import Loss
from distillery.pipeline import check, fingerprint, planner
from distillery.pipeline.current import fault_of_tables
from distillery.pipeline.layout import Layout
from distillery.records.io import read_json, write_json
from distillery.records.schema import sealed
from distillery.report import glossary, latex, markdown, notes, table
from distillery.report.sections import sections
from distillery.study.blocks import Method
from distillery.task import TASKS

OWN = '''"""Mine: somebody (arXiv:2401.00001)."""

from distillery.api import Objective, Transform
from distillery.objectives.kd import KD


'''


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def study(methods: dict[str, Any], **changes: Any) -> Synthetic:
    """A study of KD and these methods, nothing of which was run."""
    return Synthetic(Path.cwd(), params(methods={"kd": {"objective": "kd"}} | methods, **changes))


def told(made: Synthetic) -> dict[str, str]:
    """The settings of the section "The methods", by method."""
    found = made.results
    section = sections(found, table.build(found))[-1]
    assert section.header[-1].text == "settings"
    return {line.values[0].text: line.values[-1].text for line in section.rows}


def test_the_settings_are_those_of_all_parts_of_a_method_as_it_is_run() -> None:
    kd = "ce weight 0.1, temperature 4, kd weight 0.9"
    both = {"revise": {}, "select": {"fraction": 0.25}}
    made = study(
        {
            "both": {"objective": "kd", "plugins": both},
            "more": {"objective": "kd", "plugins": {"swap": {}}, "plus": {"dist": {"weight": 2}}},
        }
    )
    assert told(made) == {
        "kd": kd,
        "both": f"{kd}; revise: eta 0.8; select: score margin, fraction 0.25, keep highest, seed 0",
        "more": f"{kd}; swap; plus dist: weight 2, temperature 4, beta 1, gamma 1, kd weight 2",
    }


def test_settings_of_a_pair_of_its_own_are_told_by_pair() -> None:
    pairs = {n: {"teacher": "resnet20_w8", "student": "resnet8_w2"} for n in ("a-b", "a-c", "a-d")}
    made = study({"t": {"objective": "kd", "pairs": {"a-c": {"temperature": 2}}}}, pairs=pairs)
    kd = "ce weight 0.1, temperature {}, kd weight 0.9"
    assert told(made)["t"] == f"a-b and a-d: {kd.format(4)}. a-c: {kd.format(2)}"


def own(body: str) -> str:
    """A file with a class of one's own, and how a study names it."""
    Path("mine.py").write_text(OWN + body)
    return "mine.py:Mine"


@pytest.mark.parametrize(
    ("body", "basis"),
    [
        ("class Mine(Objective):\n    pass\n", "declared design"),
        ("class Mine(KD):\n    pass\n", "declared design"),  # another than the authors'
        ('class Mine(Objective):\n    basis = "reproduced"\n', "reproduced"),
        (
            'class Base(KD):\n    basis = "third-party reading"\n\n\nclass Mine(Base):\n    pass\n',
            "third-party reading",
        ),
    ],
)
def test_what_is_said_of_a_formula_of_ones_own(body: str, basis: str) -> None:
    name = own(body)
    (part,) = glossary.parts(Method.model_validate({"objective": name}))
    assert (part.about, part.link) == ("Mine: somebody (arXiv:2401.00001).", "https://arxiv.org/abs/2401.00001")
    assert part.basis == basis
    made = study({"mine": {"objective": name}})
    found = made.results
    main = table.build(found)
    sign = glossary.SIGNS.get(basis, "")
    assert [row.footnote for row in main.rows if row.name == "mine"] == [sign]
    text = latex.latex(sections(found, main), "x"), markdown.markdown(sections(found, main), {})
    assert (r"mine\textsuperscript{" in text[0], "mine<sup>" in text[1]) == (bool(sign), bool(sign))


def test_where_a_formula_comes_from_makes_only_the_tables_due() -> None:
    def planned(said: str) -> dict[str, str]:
        name = own(f"class Mine(Objective):\n    degree = 3\n{said}")
        for module in [name for name in sys.modules if name.startswith("distillery_file_")]:
            del sys.modules[module]  # as in a process of its own
        for cached in (fingerprint._module, fingerprint._closure):
            cached.cache_clear()
        methods = {"kd": {"objective": "kd"}, "mine": {"objective": name}}
        return planner.resolve(check.check(params(methods=methods))).specs()

    def due(said: str) -> set[str]:
        return {name.split()[0] for name, spec in planned(said).items() if spec != before[name]}

    before = planned("")
    assert due('    basis = "declared design"\n') == set()
    assert due('    basis = "third-party reading"\n') == {"tables"}
    polynomials = "\n\nclass Polynomials:\n    basis = {!r}\n"
    assert due(polynomials.format("legendre")) == {"distill", "evaluate"}, "this word is part of a formula"


@pytest.mark.parametrize("basis", ['"my own"', '"Reproduced"', "7", "None"])
@pytest.mark.parametrize("place", ["objective", "plus", "plugins"])
def test_an_unknown_basis_is_refused(basis: str, place: str) -> None:
    parent = "Transform" if place == "plugins" else "Objective"
    name = own(f"class Mine({parent}):\n    basis = {basis}\n")
    block = {"objective": name} if place == "objective" else {"objective": "kd", place: {name: {}}}
    with pytest.raises(DistilleryError) as refused:
        Loss(Method.model_validate(block))
    known = "write 'reproduced', 'third-party reading' or 'declared design'"
    assert f"'mine.py:Mine' has an unknown `basis`, {basis}: {known}".replace('"', "'") in str(refused.value)


def test_an_unknown_basis_is_refused_before_anything_is_trained() -> None:
    content = params(
        methods={
            "kd": {"objective": "kd"},
            "mine": {"objective": own('class Mine(Objective):\n    basis = "my own"\n')},
        }
    )
    with pytest.raises(DistilleryError, match=r"^params.yaml: methods.mine: objective 'mine.py:Mine' has an unknown"):
        check.rehearse(check.check(content))


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        (range(10), ["0 to 9"]),
        ([0, 1], ["0", "1"]),
        ([7, 2, 1, 0, 5], ["0 to 2", "5", "7"]),
        ([3, 4, 6, 7, 8], ["3", "4", "6 to 8"]),
        ([], []),
    ],
)
def test_seeds_in_a_row_are_a_range(seeds: list[int], said: list[str]) -> None:
    assert notes.ranges(seeds) == said


def test_a_caption_reads_as_a_sentence_with_any_unit() -> None:
    titles = {measure.title for task in TASKS for measure in TASKS[task].load().measures}
    assert {"test accuracy in percent", "excess log-loss in nats"} <= titles
    assert not any("," in title for title in titles)


@pytest.mark.parametrize(
    ("edit", "why", "then"),
    [
        (lambda spec: spec.update(code="x"), "its code changed", True),
        (lambda spec: spec["values"]["tables"].pop("pictures"), "tables.pictures changed, or not known then", True),
        (lambda spec: spec["values"]["tables"].update(pictures=[1]), "tables.pictures changed", True),
        (
            lambda spec: spec["values"]["teachers"]["resnet20_w8"].pop("classes"),
            "teachers.resnet20_w8.classes changed, or not known then",
            False,
        ),
        (lambda spec: spec["values"]["methods"]["kd"].update(temperature=2), "methods.kd.temperature changed", False),
    ],
)
def test_a_reader_of_a_clone_is_told_what_to_think_of_an_older_table(edit: Any, why: str, then: bool) -> None:
    made = study({})
    made.tables()
    shutil.rmtree("artifacts")
    path = Layout("digits").result_files()["table"]
    record = read_json(path)
    edit(record["spec"])
    write_json(path, sealed(record) if "seal" in record else record, sort=False)
    numbers = "its numbers are those that were measured then"
    more = ", and what differs is how a table is made of them" if then else ""
    assert fault_of_tables(made.plan).endswith(f"as it is now ({why}): {numbers}{more}")


def test_a_table_that_was_edited_in_a_clone_is_no_measurement() -> None:
    made = study({})
    made.tables()
    shutil.rmtree("artifacts")
    Layout("digits").result_files()["markdown"].write_text("KD: 99 %")
    assert fault_of_tables(made.plan).endswith("take it from git again")
