"""How long does a browser take for the report of a study of full size, and is any of it cut without a hint?

    python benchmarks/page.py [--pairs 14] [--methods 25] [--seeds 5] [--page FILE] [--into FOLDER] [--markdown]

The study is made, not trained: metrics of the synthetic study of the tests, under other accuracies. `--page` measures
a page that is there. `--into` keeps the page and pictures of it: wide and narrow, light and dark, on paper. Timed is
from the navigation to the end of the load event, and to the first frame after it, in a Chromium without a cache; and,
as other processes cannot lengthen it, the processor's time of the page's main thread.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from side_by_side import show

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import synthetic_study
from browser import Tab, chromium, opened
from synthetic_study import Synthetic, params

from distillery.pipeline.layout import Layout
from distillery.records.io import load_arrays
from distillery.records.schema import Metrics, read

PAIRS = (
    *("resnet56-resnet20", "resnet110-resnet32", "resnet32x4-resnet8x4", "wrn_40_2-wrn_16_2", "wrn_40_2-wrn_40_1"),
    *("vgg13-vgg8", "vgg13-mobilenet_v2", "resnet50-mobilenet_v2", "resnet50-vgg8", "resnet32x4-shufflenet_v1"),
    *("resnet32x4-shufflenet_v2", "wrn_40_2-shufflenet_v1", "resnet32x4-wrn_16_2", "wrn_40_2-resnet8x4"),
)
METHODS = (
    *("ce", "kd", "ctkd", "dkd", "mlkd_single", "dist", "ttm", "wttm", "label_revision", "rc", "rld", "at", "crd"),
    *("itrd", "reviewkd", "simkd", "vkd", "nst", "pkt", "rkd", "sp", "vid", "cc", "fitnet", "ofd", "kdsvd", "clkd"),
)


def made(root: Path, pairs: int, methods: int, seeds: int) -> Path:
    """Make a study in the current folder, and return its page."""
    synthetic_study.IMAGES, synthetic_study.CLASSES = 10_000, 100
    blocks: dict[str, Any] = {}
    for name in PAIRS[:pairs]:
        teacher, _, student = name.partition("-")
        blocks[name] = {"teacher": teacher, "student": student}
    content = params(pairs=blocks, seeds=[f"0-{seeds - 1}"], tables={"convention": "last", "baseline": "kd"})
    content["data"] = {"source": "cifar100"}
    content["teachers"] = {block["teacher"]: {"architecture": block["teacher"]} for block in blocks.values()}
    content["methods"] = {name: {"objective": name, "label": name.upper()} for name in METHODS[:methods]}
    study = Synthetic(root, content)
    generator = np.random.default_rng(0)
    effects = dict(zip(content["methods"], np.linspace(-2, 2.5, len(content["methods"])), strict=True))
    for i, pair in enumerate(blocks):
        job = study.cell(pair, "kd", f"0-{seeds - 1}", [70.0 + 0.3 * seed for seed in range(seeds)])
        facts, bulk = read(job.record, Metrics), load_arrays(job.outputs["predictions"])
        for seed in range(seeds):
            bulk[f"run.{seed}.curves.epoch"] = np.arange(1.0, 241.0)
            bulk[f"run.{seed}.curves.test_top1"] = 72 - 50 * np.exp(-np.arange(240) / 40)
        for method, effect in effects.items():
            runs = []
            for run in facts.runs:
                top1 = float(round(68 + 0.7 * i + effect + generator.normal(0, 0.3), 2))
                runs.append(run | {"last": run["last"] | {"top1": top1}, "test_best": {"epoch": 3, "top1": top1 + 0.2}})
            study.evaluation(pair, method, f"0-{seeds - 1}", bulk, {"runs": runs, "teachers": facts.teachers})
    study.tables()
    return (root / Layout("digits").result_files()["report"]).resolve()


async def measured(browser: str, page: Path, into: Path | None) -> list[tuple[str, str]]:
    async with opened(browser) as found:
        await found.call("Network.setCacheDisabled", cacheDisabled=True)
        await found.call("Performance.enable", timeDomain="threadTicks")
        times = [await _time(found, page) for _ in range(5)]
        rows = [
            ("size of the file", f"{page.stat().st_size / 1e6:.1f} MB"),
            ("elements", f"{await found.js('document.querySelectorAll(`*`).length'):,}"),
            ("load event, median of 5", f"{np.median([load for load, *_ in times]):.2f} s"),
            ("first frame after it", f"{np.median([frame for _, frame, _ in times]):.2f} s"),
            ("processor's time till then, largest of 5", f"{max(spent for *_, spent in times):.2f} s"),
            ("opening every section", f"{await _opened(found) / 1000:.2f} s"),
        ]
        for width in (400, 1280):
            await found.size(width, 900)
            rows.append((f"tables cut without a hint at {width} px", str(await found.js(CUT))))
            panned = await found.js("document.documentElement.scrollWidth - innerWidth")
            rows.append((f"sideways panning of the page at {width} px", f"{max(0, panned)} px"))
        if into is not None:
            await _pictures(found, into)
        return rows


CUT = """[...document.querySelectorAll('.wide')].filter(w => w.previousElementSibling.matches('.hint') &&
  w.previousElementSibling.hidden === w.scrollWidth > w.clientWidth + 1).length"""


async def _time(found: Tab, page: Path) -> tuple[float, float, float]:
    """Seconds until the load event, until the first frame after it, and of the main thread until then."""
    await found.visit(page)
    load = await found.js("performance.getEntriesByType('navigation')[0].loadEventEnd")
    frame = await found.call(
        "Runtime.evaluate",
        expression="new Promise(done => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))",
        awaitPromise=True,
        returnByValue=True,
    )
    told = {m["name"]: m["value"] for m in (await found.call("Performance.getMetrics"))["metrics"]}
    return load / 1000, frame["result"]["value"] / 1000, told["TaskDuration"]


async def _opened(found: Tab) -> float:
    """Milliseconds of layout with nothing folded."""
    return float(
        await found.js(
            "(() => { const began = performance.now();"
            "document.querySelectorAll('details').forEach(d => { d.open = true; });"
            "document.body.offsetHeight; return performance.now() - began; })()"
        )
    )


async def _pictures(found: Tab, into: Path) -> None:
    for width, height in ((1280, 1000), (400, 900)):
        await found.size(width, height)
        for scheme in ("light", "dark"):
            await found.prefer(scheme)
            for folded in (True, False):
                await found.js(
                    f"document.querySelectorAll('details').forEach(d => {{ d.open = {str(not folded).lower()}; }})"
                )
                whole = min(await found.js("document.documentElement.scrollHeight"), 12_000)
                await found.size(width, height if folded else whole)
                Image.fromarray(await found.screenshot()).save(
                    into / f"{width}-{scheme}-{'folded' if folded else 'open'}.png"
                )
    await found.prefer("light")
    await found.size(1030, 12_000)  # A4, landscape
    await found.call("Emulation.setEmulatedMedia", media="print")
    Image.fromarray(await found.screenshot()).save(into / "paper.png")
    await found.call("Emulation.setEmulatedMedia", media="")
    paper = await found.call("Page.printToPDF", preferCSSPageSize=True)
    (into / "paper.pdf").write_bytes(base64.b64decode(paper["data"]))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=14)
    parser.add_argument("--methods", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--page", type=Path, help="a page that is there")
    parser.add_argument("--into", type=Path, help="folder for the page, and pictures of it")
    parser.add_argument("--markdown", action="store_true")
    chosen = parser.parse_args(arguments)
    into, named = (path.resolve() if path else None for path in (chosen.into, chosen.page))
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        root = Path(temporary)
        page = named or made(root, chosen.pairs, chosen.methods, chosen.seeds)
        if into is not None:
            into.mkdir(parents=True, exist_ok=True)
            shutil.copy(page, into / "report.html")
            if named is None:
                shutil.copytree(page.parent, into / "results", dirs_exist_ok=True)
        with chromium(root / "profile") as browser:
            rows = asyncio.run(measured(browser, page, into))
    of = named or f"{chosen.pairs} pairs x {chosen.methods} methods x {chosen.seeds} seeds"
    show(f"page: the report of {of}", ("what", "measured"), rows, chosen.markdown)


if __name__ == "__main__":
    main()
