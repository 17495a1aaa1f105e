"""The report page in a real browser, and the figures in it."""

from __future__ import annotations

import asyncio
import base64
import io
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from PIL import Image
from synthetic_study import Synthetic, params

from distillery.pipeline.layout import Layout
from distillery.report import results, table
from distillery.report.figures import FIGURES, curves
from distillery.tasks.classification import Classification

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


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


def test_every_figure_that_has_something_to_show_is_drawn(synthetic: Synthetic) -> None:
    drawn = {path.stem for path in Layout("digits").figures.iterdir()}
    assert drawn == {"curves", "classwise", "disagreement", "logits", "reliability", "temperature"}
    assert drawn < set(FIGURES)  # all runs cost the same, and nothing was published about digits


def test_runs_of_different_cost_get_a_figure(synthetic: Synthetic) -> None:
    found = synthetic.results
    main = table.build(found)
    assert FIGURES["cost"][1](found, main) is None
    facts = found.cells["a-b", "kd_2"].facts
    facts["cost"] = facts["cost"] | {"images_seen": 2 * facts["cost"]["images_seen"]}
    assert FIGURES["cost"][1](found, main) is not None


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
    found, values = curves.curve(results.Cell("p", "m", Classification.measures[0], (0, 1), {0: run, 1: run}))
    assert len(found) == curves.POINTS
    assert (found[0], found[-1]) == (1, 240)
    assert values.shape == (2, curves.POINTS)
    assert np.array_equal(values[0], found)


def test_the_page_needs_no_network(synthetic: Synthetic) -> None:
    text = Layout("digits").result_files()["report"].read_text(encoding="utf-8")
    links = re.findall(r"""(?:src|href)=["']?([^"' >]+)|url\(([^)]+)\)|@import""", text)
    assert links
    assert all((src or url).startswith("data:") for src, url in links)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[str]:
    """A headless Chromium; gives the address of its debugging interface."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,1000", "about:blank"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"DevTools listening on ws://([^/]+)/", line):
                yield f"http://{found[1]}"
                break
        else:
            pytest.fail("Chromium did not start")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


class Tab:
    """One page, driven through Chromium's debugging protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self.count, self.troubles = socket, 0, list[str]()

    async def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        self.count += 1
        await self.socket.send_json({"id": self.count, "method": method, "params": arguments})
        while True:
            message = await self.socket.receive_json(timeout=600)
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
                self.troubles.append(str(message["params"]))
            if message.get("id") == self.count:
                assert "error" not in message, message
                found: dict[str, Any] = message["result"]
                return found

    async def js(self, expression: str) -> Any:
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def screenshot(self) -> np.ndarray:
        png = base64.b64decode((await self.call("Page.captureScreenshot"))["data"])
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


ROWS = "[...document.querySelector('table.sortable').tBodies[0].rows].map(r => r.cells[0].innerText)"
CLICK = "document.querySelector('table.sortable').tHead.rows[0].cells[1].querySelector('button').click()"


@pytest.mark.slow
def test_the_page_works_in_a_browser(synthetic: Synthetic, browser: str) -> None:
    page = Layout("digits").result_files()["report"].resolve().as_uri()
    asyncio.run(visit(browser, page))


async def visit(browser: str, page: str) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{browser}/json") as answer:
            target = next(t for t in await answer.json() if t["type"] == "page")
        async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            tab = Tab(socket)
            for domain in ("Runtime", "Log", "Page", "Network"):
                await tab.call(f"{domain}.enable")
            await tab.call("Page.navigate", url=page)
            for _ in range(100):
                if await tab.js("document.readyState === 'complete' && location.protocol === 'file:'"):
                    break
                await asyncio.sleep(0.1)

            plain = await tab.screenshot()
            assert plain.std() > 10  # a blank page has none
            assert await tab.js("[...document.images].every(i => i.complete && i.naturalWidth > 100)")
            assert await tab.js("document.images.length") == 6

            study = ["teacher", "student alone", "KD", "KD_10 & more", "KD <T=2> & $x$"]
            assert await tab.js(ROWS) == study
            await tab.js(CLICK)
            best_first = ["teacher", "KD <T=2> & $x$", "KD_10 & more", "student alone", "KD"]
            assert await tab.js(ROWS) == best_first
            await tab.js(CLICK)
            assert await tab.js(ROWS) == best_first[::-1]
            second = CLICK.replace("cells[1]", "cells[2]")
            await tab.js(second)
            assert (await tab.js(ROWS))[-1] == "student alone"  # no result there: last in either order
            await tab.js(second)
            assert (await tab.js(ROWS))[-1] == "student alone"

            assert not await tab.js("document.getElementById('provenance').open")
            await tab.js("document.querySelector('button[data-cell=\"a-b kd_10\"]').click()")
            assert await tab.js("document.getElementById('provenance').open")
            shown = await tab.js("document.getElementById('provenance-content').innerText")
            assert "artifacts/digits/metrics/a-b/kd_10/0-2.json" in shown
            assert "temperature: 10.0" in shown
            assert "76.0" not in shown.partition("Runs")[0]
            assert "sha256" in shown
            dialog = await tab.screenshot()
            assert (dialog != plain).mean() > 0.1
            await tab.js("document.querySelector('.close').click()")
            for cell in await tab.js("[...document.querySelectorAll('button[data-cell]')].map(b => b.dataset.cell)"):
                await tab.js(f"show({cell!r})")
                assert await tab.js("document.getElementById('provenance-content').innerText.length") > 20
                await tab.js("document.getElementById('provenance').close()")
            assert tab.troubles == []


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
    assert "Missing: a-b, kd, seeds 0, 1, 2: no result yet" in layout.result_files()["report"].read_text()
    assert list(layout.figures.iterdir()) == []


def test_a_label_may_hold_anything(synthetic: Synthetic) -> None:
    text = Layout("digits").result_files()["report"].read_text(encoding="utf-8")
    assert "KD &lt;T=2&gt; &amp; $x$" in text
    main = table.build(synthetic.results)
    assert table.Table.from_json(main.to_json()) == main
