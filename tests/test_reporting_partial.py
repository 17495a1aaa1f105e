"""Whatever subset of a study is finished: tables, figures, page, `show` and `compare` work, and say what is missing."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from synthetic_study import Synthetic, params

from distillery.pipeline.layout import Layout
from distillery.report.terminal import compare, show

PAIRS = {"a-b": {"teacher": "r", "student": "resnet8x4"}, "a-c": {"teacher": "t2", "student": "resnet8_w4"}}
METHODS = ("kd", "ce", "kd_10")


def declared() -> dict[str, Any]:
    """Two pairs, a teacher each, three methods, a block of three seeds; of the first pair numbers were published."""
    content = params(pairs=PAIRS, data={"source": "cifar100"})
    content["teachers"] = {"r": {"architecture": "resnet32x4"}, "t2": {"architecture": "resnet20_w8"}}
    return content


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Synthetic, dict[tuple[str, str], bytes]]]:
    """The study, and the metrics of all its cells, none of which lies in its place."""
    root = tmp_path_factory.mktemp("partial")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        made, content = Synthetic(root, declared()), {}
        for i, pair in enumerate(PAIRS):
            for j, method in enumerate(METHODS):
                made.cell(pair, method, "0-2", [70.0 + 5 * i + 3 * j, 71.0 + 5 * i + 3 * j, 71.75 + 5 * i + 3 * j])
                path = Layout("digits").metrics(pair, method, "0-2")
                content[pair, method] = path.read_bytes()
                path.unlink()
        yield made, content


def printed(made: Synthetic) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    show(made.study, "", console)
    compare(made.study, "", True, console)
    return console.export_text()


def reported(made: Synthetic, content: dict[tuple[str, str], bytes], finished: set[tuple[str, str]]) -> None:
    """Write what is finished, run the stage, and look at all that it says about what is not."""
    layout = Layout("digits")
    for cell, bytes_ in content.items():
        path = layout.metrics(*cell, "0-2")
        path.unlink(missing_ok=True)
        if cell in finished:
            path.write_bytes(bytes_)
    made.tables()
    files = {name: path.read_text(encoding="utf-8") for name, path in layout.result_files().items()}
    summary, unfinished = json.loads(files["summary"]), content.keys() - finished
    assert {(p, m) for p in summary for m in summary[p] if m != "teacher" and not summary[p][m]["n"]} == unfinished
    assert files["markdown"].partition("###")[0].count("— (0 of 3)") == len(unfinished)
    assert files["latex"].count("--- (0 of 3)") == len(unfinished)
    assert len(re.findall(r"—</span><span[^>]*> \(0 of 3\)", files["report"])) == len(unfinished)
    assert printed(made).count("— (0 of 3)") == len(unfinished)
    for pair, method in unfinished:
        for name in ("markdown", "report"):
            told = files[name].replace("\\_", "_")
            assert f"{pair}, {method}, seeds 0 to 2: no result yet" in told


@pytest.mark.slow
def test_every_subset_of_the_cells_of_a_pair(whole: tuple[Synthetic, dict[tuple[str, str], bytes]]) -> None:
    cells = [cell for cell in whole[1] if cell[0] == "a-b"]
    for finished in chain.from_iterable(combinations(cells, n) for n in range(len(cells))):
        reported(*whole, whole[1].keys() - set(cells) | set(finished))


@pytest.mark.slow
def test_few_or_nearly_all_of_the_cells(whole: tuple[Synthetic, dict[tuple[str, str], bytes]]) -> None:
    cells = list(whole[1])
    for finished in chain.from_iterable(combinations(cells, n) for n in (0, 1, len(cells) - 1, len(cells))):
        reported(*whole, set(finished))


@pytest.mark.parametrize("convention", ["last", "best"])
def test_runs_that_have_no_seed_in_common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, convention: str) -> None:
    """A job for each seed; the baseline has finished one that no other method has."""
    monkeypatch.chdir(tmp_path)
    made = Synthetic(tmp_path, params(seeds=[0, 1, 2], tables={"convention": convention, "baseline": "kd"}))
    made.cell("a-b", "kd", "0", [80.0])
    made.cell("a-b", "ce", "1", [79.0])
    made.cell("a-b", "ce", "2", [78.0])
    made.tables()
    text = printed(made)
    assert "(1 of 3)" in text and "(2 of 3)" in text and "— (0 of 3)" in text
    assert "a-b, kd, seeds 1, 2: no result yet" in text
