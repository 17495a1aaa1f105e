"""What a training step costs on this machine, in one run: ours, the bare student's, the classic loop's, the floor.

    distillery bench [--pairs resnet32x4:resnet8x4,...] [--sides float32,bfloat16+compile] [--rounds 3] [--into FILE]

All sides take turns, so that a ratio is between times of the same minutes. Ours is the step of `fit()` with a view
table (`ours.py`), the bare step is the same student on one batch that is in place already (`limit.py`), the classic
loop has a live teacher and a DataLoader (`reference.py`), the floor is the roofline of the student's operations
(`roofline.py`), at rates measured in the same round. On CUDA ours and the bare step are captured graphs.
`--into benchmarks/results.md` puts the table in the place of the one that was there for this kind of device.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from limit import bare, data_path
from ours import MIRROR, Ours, pixels, random_table
from reference import Classic
from roofline import Operation, measured, operations
from side_by_side import alternate, device, milliseconds, parser, ratio, show, use_threads

from distillery import models
from distillery.records.files import atomic_path
from distillery.study.blocks import Recipe

CPU, CUDA = "float32", "float32,tf32,bfloat16,bfloat16+compile"
HEADS = ["pair", "step", "classic, ms", "ours, ms", "bare, ms", "floor, ms", "classic / ours", "ours / bare"]
HEADS += ["ours / floor", "data path", "GFLOP, MB, launches"]


def recipe_of(side: str, batch: int) -> Recipe:
    """PRECISION or PRECISION+compile."""
    precision, _, compiled = side.partition("+")
    return Recipe(batch_size=batch, precision=precision, channels_last=True, compile=compiled == "compile")


def floor(found: Sequence[Operation], precision: str, steps: int) -> float:
    """Seconds that so many steps take at least, at the rates of this moment."""
    rates = measured(precision)
    return steps * sum(rates.seconds(operation) for operation in found)


def main(argv: list[str] | None = None) -> None:
    on_cuda = device().type == "cuda"
    options = parser(__doc__, rounds=3, steps=200 if on_cuda else 1, batch=64, images=10_000, threads=1, workers=2)
    options.add_argument("--pairs", default="resnet32x4:resnet8x4,wrn_40_2:wrn_16_2", help="teacher:student,...")
    options.add_argument("--sides", default=CUDA if on_cuda else CPU, help="PRECISION or PRECISION+compile, several")
    options.add_argument("--into", type=Path, help="a Markdown file whose table for this kind of device is replaced")
    given = options.parse_args(argv)
    use_threads(given.threads)
    data = pixels(given.images, MIRROR if MIRROR.is_dir() else None)
    table, rows = random_table(given.images, 162, 100), []
    for pair in given.pairs.split(","):
        teacher, _, student = pair.partition(":")
        if not student:
            options.error(f"--pairs: {pair!r} is no TEACHER:STUDENT")
        networks = (models.build(name, 100) for name in (teacher, student))
        sides = {"classic": partial(Classic(*networks, data, given.batch, given.workers).run, given.steps)}
        counted = {}
        for side in given.sides.split(","):
            recipe = recipe_of(side, given.batch)
            mine = Ours(student, data, table, recipe)
            counted[side] = operations(student, given.batch, recipe.precision)
            sides[f"{side} ours"] = partial(mine.run, given.steps)
            sides[f"{side} bare"] = partial(bare(mine), given.steps)
            sides[f"{side} data"] = partial(data_path, mine, given.steps)
            sides[f"{side} floor"] = partial(floor, counted[side], recipe.precision, given.steps)
        times = alternate(sides, given.rounds)
        for side, found in counted.items():
            ours, plain, least = (times[f"{side} {name}"] for name in ("ours", "bare", "floor"))
            shown = [milliseconds(t, given.steps) for t in (times["classic"], ours, plain, least)]
            ratios = [ratio(times["classic"], ours), ratio(ours, plain), ratio(ours, least)]
            share = f"{100 * min(times[f'{side} data']) / min(ours):.1f} %"
            work = f"{sum(o.flops for o in found) / 1e9:.1f}, {sum(o.bytes for o in found) / 1e6:,.0f}, {len(found)}"
            rows.append([pair.replace(":", " -> "), side, *shown, *ratios, share, work])
    note = (
        f"KD, batch {given.batch}, {given.threads} thread(s), {given.workers} loader workers, {given.rounds} rounds of "
    )
    note += (
        f"{given.steps} steps; in brackets the middle half of the rounds. The last column is what the bare step asks "
    )
    note += "of the machine; its floor is taken operation by operation."
    title, text = f"bench: a training step on {device().type}", io.StringIO()
    with contextlib.redirect_stdout(text):
        show(title, HEADS, rows, given.markdown or given.into is not None, note)
    print(text.getvalue(), end="")
    if given.into:
        page = replaced(given.into.read_text(), title, text.getvalue())
        with atomic_path(given.into) as temporary:
            temporary.write_text(page)


def replaced(page: str, title: str, section: str) -> str:
    """The page with the section of this title replaced, or put at its end."""
    section = section.replace("### ", "## ", 1).rstrip() + "\n"
    old = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if old.search(page):
        return old.sub(lambda _: section + "\n", page).rstrip() + "\n"
    return f"{page.rstrip()}\n\n{section}"


if __name__ == "__main__":
    main()
