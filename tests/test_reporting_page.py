"""The report page in a real browser, and the figures in it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from browser import CHROMIUM, Tab, chromium, opened
from synthetic_study import Synthetic, params

from distillery.errors import DistilleryError
from distillery.pipeline.layout import Layout
from distillery.report import results, table
from distillery.report.figures import FIGURES, curves
from distillery.report.page import amended
from distillery.report.sections.section import Head, Line, Section, Value
from distillery.tasks.classification import Classification

AXE = importlib.util.find_spec("axe_core_python")  # the accessibility checker, where it is installed


def full_params() -> dict[str, Any]:
    """Two pairs, one of which has a missing cell, and methods that differ in temperature only."""
    pairs = {n: {"teacher": "resnet20_w8", "student": "resnet8_w2"} for n in ("a-b", "a-c")}
    content = params(pairs=pairs)
    content["methods"]["kd_2"] = {"objective": "kd", "label": "KD <T=2> & $x$", "temperature": 2.0}
    return content


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synthetic]:
    """The study with its tables written; tests that change it put it back."""
    root = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        made = Synthetic(root, full_params())
        for i, pair in enumerate(("a-b", "a-c")):
            for j, method in enumerate(made.study.methods):
                if (pair, method) != ("a-c", "ce"):
                    made.cell(pair, method, "0-2", [70.0 + 5 * i + 3 * j, 71.0 + 5 * i + 3 * j, 71.75 + 5 * i + 3 * j])
        made.tables()
        yield made


@pytest.mark.slow
def test_every_figure_that_has_something_to_show_is_drawn(synthetic: Synthetic) -> None:
    files = list(Layout("digits").figures.iterdir())
    drawn = {path.stem for path in files if path.suffix == ".svg"}
    assert drawn == {
        *("differences", "improvement", "curves", "classwise", "disagreement", "logits", "reliability", "temperature")
    }
    assert {path.stem for path in files if path.read_bytes()[:5] == b"%PDF-"} == drawn
    assert drawn < set(FIGURES)  # all runs cost the same, and nothing was published about digits


def test_runs_of_different_cost_get_a_figure(synthetic: Synthetic) -> None:
    found = synthetic.results
    main = table.build(found)
    assert FIGURES["cost"][1](found, main) is None
    facts = found.cells["a-b", "kd_2"].facts
    facts["cost"] = facts["cost"] | {"images_seen": 2 * facts["cost"]["images_seen"]}
    assert FIGURES["cost"][1](found, main) is not None


@pytest.mark.slow
def test_figures_of_an_earlier_study_do_not_stay(synthetic: Synthetic) -> None:
    stray = Layout("digits").figures / "stray.svg"
    stray.write_text("<svg/>")
    synthetic.tables()
    assert not stray.exists()


def test_curves_are_the_mean_over_seeds(synthetic: Synthetic) -> None:
    rows = curves.points(synthetic.results)
    kd = [row for row in rows if (row["pair"], row["method"]) == ("a-b", "kd")]
    assert [row["epoch"] for row in kd] == [1, 3]  # epoch 2 was not tested
    assert kd[1]["mean"] == pytest.approx((70 + 71 + 71.75) / 3)
    assert kd[0]["mean"] == pytest.approx(kd[1]["mean"] / 2)


def test_long_curves_are_thinned_but_keep_their_ends() -> None:
    epochs = list(range(1, 241))
    run = {"curves": {"epoch": epochs, "test_top1": [float(e) for e in epochs]}}
    found, values = curves.curve(results.Cell("p", "m", "M", Classification.measures[0], (0, 1), {0: run, 1: run}))
    assert len(found) == curves.POINTS
    assert (found[0], found[-1]) == (1, 240)
    assert values.shape == (2, curves.POINTS)
    assert np.array_equal(values[0], found)


def test_the_page_needs_no_network(synthetic: Synthetic) -> None:
    text = Layout("digits").result_files()["report"].read_text(encoding="utf-8")
    loaded = re.findall(r"""src=["']?([^"' >]+)|url\(([^)]+)\)|@import|<link""", text)
    assert loaded and all((src or url).startswith(("data:", "%23")) for src, url in loaded)  # or a part of itself
    links = re.findall(r"""href=["']?([^"' >]+)""", text)
    assert all(link.startswith(("#", "%23", "data:", "https://arxiv.org/abs/")) for link in links)
    assert "https://arxiv.org/abs/1503.02531" in links


def test_figures_show_on_any_ground_and_take_little_of_the_page(synthetic: Synthetic) -> None:
    text = Layout("digits").result_files()["report"].read_text(encoding="utf-8")
    addresses = re.findall(r'<img src="data:image/svg\+xml,([^"]*)"', text)
    files = sorted(path.read_text(encoding="utf-8") for path in Layout("digits").figures.glob("*.svg"))
    assert len(addresses) == len(files) == 8
    assert all("fill: #ffffff" in file for file in files)  # GitHub's pages may be dark
    assert sum(map(len, addresses)) < 0.95 * sum(map(len, files))
    said = [re.findall(r"<text[^>]*>([^<]*)</text>", found) for found in (*files, *map(unquote, addresses))]
    assert sorted(said[:8]) == sorted(said[8:])


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[str]:
    """The address of a running browser."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with chromium(tmp_path / "profile") as address:
        yield address


ROWS = "[...document.querySelector('table.sortable').tBodies[0].rows].map(r => r.cells[0].innerText)"
CLICK = "document.querySelector('table.sortable').tHead.rows[0].cells[1].querySelector('button').click()"


@pytest.mark.slow
def test_the_page_works_in_a_browser(synthetic: Synthetic, browser: str) -> None:
    asyncio.run(visit(browser, Layout("digits").result_files()["report"]))


async def visit(browser: str, page: Path) -> None:
    async with opened(browser) as tab:
        await tab.visit(page)
        plain = await tab.screenshot()
        assert plain.std() > 10  # a blank page has none
        assert await tab.js("[...document.images].every(i => i.complete && i.naturalWidth > 100)")
        assert await tab.js("document.images.length") == 8
        assert '<li class="more" hidden>Click a number' in page.read_text(encoding="utf-8")  # without a script
        assert await tab.js("document.querySelector('.more').checkVisibility()")

        study = ["teacher", "student alone", "KD", "KD_10 & more", "KD <T=2> & $x$"]
        assert await tab.js(ROWS) == study
        await tab.js(CLICK)
        best_first = ["KD <T=2> & $x$", "KD_10 & more", "student alone", "KD"]
        assert await tab.js(ROWS) == ["teacher", *best_first]  # the teacher stays on top
        await tab.js(CLICK)
        assert await tab.js(ROWS) == ["teacher", *best_first[::-1]]
        second = CLICK.replace("cells[1]", "cells[2]")
        await tab.js(second)
        assert (await tab.js(ROWS))[-1] == "student alone"  # no result there: last in either order
        await tab.js(second)
        assert (await tab.js(ROWS))[-1] == "student alone"
        await tab.js(CLICK.replace("cells[1]", "cells[0]"))
        assert await tab.js(ROWS) == ["teacher", *sorted(best_first, key=str.lower)]  # from A to Z first

        assert await tab.js("[...document.querySelectorAll('details')].every(d => !d.open)")
        for name in await tab.js("[...document.querySelectorAll('details')].map(d => d.id)"):
            await tab.js(f"document.querySelector('nav a[href=\"#{name}\"]').click()")
            await asyncio.sleep(0.02)
            assert await tab.js(f"document.getElementById('{name}').open"), name
        await numbers_line_up(tab)

        assert not await tab.js("document.getElementById('provenance').open")
        await tab.js("document.querySelector('button[data-cell=\"a-b kd_10\"]').click()")
        assert await tab.js("document.getElementById('provenance').open")
        shown = await tab.js("document.getElementById('provenance-content').innerText")
        assert "artifacts/digits/metrics/a-b/kd_10/0-2.json" in shown
        assert "temperature: 10.0" in shown
        order = [shown.index(word) for word in ("Method", "Recipe", "Runs, by seed", "Cost", "Provenance", "sha256")]
        assert order == sorted(order)
        found = synthetic_hashes()
        assert found and all(sha256 in shown for sha256 in found)
        dialog = await tab.screenshot()
        assert (dialog != plain).mean() > 0.1
        await tab.js("document.querySelector('.close').click()")
        for cell in await tab.js("[...document.querySelectorAll('button[data-cell]')].map(b => b.dataset.cell)"):
            await tab.js(f"show({cell!r})")
            assert await tab.js("document.getElementById('provenance-content').innerText.length") > 20
            await tab.js("document.getElementById('provenance').close()")
        await fits_everywhere(tab)
        assert tab.troubles == []


def synthetic_hashes() -> list[str]:
    """The whole hashes of what one cell's metrics were made from."""
    record = json.loads(Layout("digits").metrics("a-b", "kd_10", "0-2").read_text())
    return [record["spec_sha256"], *record["inputs"].values()]


RIGHT = """[...document.querySelectorAll('#measures tbody tr, #results tbody tr')].map(r =>
  [...r.querySelectorAll('.v')].map(v => Math.round(v.getBoundingClientRect().right)))"""


async def numbers_line_up(tab: Tab) -> None:
    """In every column of the main table and of the measures, numbers end at the same place."""
    rows = [row for row in await tab.js(RIGHT) if row]
    for length in {len(row) for row in rows}:
        for column in zip(*(row for row in rows if len(row) == length), strict=True):
            assert max(column) - min(column) <= 1, column
    texts = await tab.js("[...document.querySelectorAll('.v')].map(v => v.textContent)")
    assert not any("-" in text for text in texts)  # a minus is a minus


async def fits_everywhere(tab: Tab) -> None:
    """No sideways panning on a telephone, nothing cut on paper, a dark page for those who want one."""
    background = "getComputedStyle(document.body).backgroundColor"
    assert await tab.js(background) == "rgb(255, 255, 255)"
    await tab.prefer("dark")
    assert await tab.js(background) == "rgb(20, 24, 30)"
    assert (await tab.screenshot()).mean() < 128
    await tab.call("Emulation.setEmulatedMedia", features=[])
    for width in (400, 1280):
        await tab.size(width, 900)
        assert await tab.js("document.documentElement.scrollWidth") <= width
        wrong = "[...document.querySelectorAll('.wide')].filter(w => w.previousElementSibling.matches('.hint') &&"
        wrong += " w.previousElementSibling.hidden === w.scrollWidth > w.clientWidth + 1).length"
        assert await tab.js(wrong) == 0  # a table that is cut says so, and no other does
    await tab.js("document.querySelectorAll('details').forEach(d => { d.open = false; })")
    await tab.size(1030, 700)
    await tab.call("Emulation.setEmulatedMedia", media="print")
    await tab.js("dispatchEvent(new Event('beforeprint'))")  # as the browser does
    assert await tab.js("[...document.querySelectorAll('details')].every(d => d.open)")
    assert await tab.js("document.documentElement.scrollWidth") <= 1030
    assert await tab.js("[...document.querySelectorAll('table')].every(t => t.getBoundingClientRect().right <= 1030)")
    await tab.call("Emulation.setEmulatedMedia", media="screen")
    if (axe := AXE and AXE.origin and Path(AXE.origin).with_name("axe.min.js")) and axe.exists():
        await tab.js(f"{axe.read_text(encoding='utf-8')}; 0")
        told = await tab.call(
            "Runtime.evaluate",
            expression="axe.run().then(found => found.violations.map(v => v.id + ': ' + v.nodes[0].html))",
            awaitPromise=True,
            returnByValue=True,
        )
        assert told["result"]["value"] == []


@pytest.mark.slow
def test_the_same_study_gives_the_same_page_and_figures(synthetic: Synthetic) -> None:
    layout = Layout("digits")
    files = [*layout.result_files().values(), *layout.figures.iterdir()]
    before = {path: path.read_bytes() for path in files}
    shutil.rmtree(layout.results)
    synthetic.tables()
    assert {path: path.read_bytes() for path in files} == before


def test_a_study_without_any_result_still_has_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = Synthetic(tmp_path, params())
    made.tables()
    layout = Layout("digits")
    assert "Missing: a-b, kd, seeds 0 to 2: no result yet" in layout.result_files()["report"].read_text()
    assert list(layout.figures.iterdir()) == []


def test_a_section_can_be_added_and_what_cannot_be_compared_is_folded(synthetic: Synthetic) -> None:
    page = Layout("digits").result_files()["report"].read_text(encoding="utf-8")
    rows = (Line((Value("KD"), Value("agrees"))), Line((Value("DKD"), Value(f"not comparable: {'x' * 120}")), "aside"))
    added = Section("more", "Even & more", (Head("method", False), Head("verdict", False)), rows)
    text = amended(page, [("Day", "<today>")], added)
    assert "<dt>Day</dt><dd>&lt;today&gt;</dd></dl>" in text
    assert '<li><a href="#more">Even &amp; more</a></li>' in text
    shown, _, folded = text.partition('<details id="more" open>')[2].partition('<details class="aside">')
    assert ">KD" in shown and "DKD" not in shown
    assert folded.startswith("<summary>1 not comparable, and why</summary>") and '<td class="longest"' in folded
    assert amended(page, [], None).count("<!--more") == 0
    with pytest.raises(DistilleryError, match="another version"):
        amended("<html></html>", [], None)


def test_a_label_may_hold_anything(synthetic: Synthetic) -> None:
    text = Layout("digits").result_files()["report"].read_text(encoding="utf-8")
    assert "KD &lt;T=2&gt; &amp; $x$" in text
    main = table.build(synthetic.results)
    assert table.Table.from_json(main.to_json()) == main
