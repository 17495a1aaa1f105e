"""Whether torch.compile pays: our step with the student compiled against our step as it is.

    python benchmarks/compile.py [--students resnet8x4,wrn_16_2] [--precision float32] [--threads 1] [--markdown]

It needs a C++ compiler on a CPU. "Pays after" is the number of steps whose saved time makes up for compiling; a
CIFAR-100 student of 240 epochs has 187,680.
"""

from __future__ import annotations

import statistics
import time
from functools import partial

import torch
from ours import Ours, pixels, random_table
from side_by_side import alternate, milliseconds, parser, ratio, show, use_threads

from distillery.study.blocks import Recipe


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, rounds=9, steps=2, batch=64, images=1_000, threads=1)
    options.add_argument("--students", default="resnet8x4,wrn_16_2", help="student,...")
    options.add_argument("--precision", default="float32", help="of the recipe: float32, tf32, bfloat16")
    options.add_argument("--backend", default="inductor", help="of torch.compile; default inductor")
    given = options.parse_args(argv)
    use_threads(given.threads)
    data, table, rows = pixels(given.images, None), random_table(given.images, 162, 100), []
    recipe = Recipe(batch_size=given.batch, precision=given.precision, channels_last=True)
    for student in given.students.split(","):
        plain, compiled = Ours(student, data, table, recipe), Ours(student, data, table, recipe)
        compiled.step.see = torch.compile(compiled.network, backend=given.backend)
        start = time.perf_counter()
        compiled.run(1)
        compiling = time.perf_counter() - start
        sides = {"plain": partial(plain.run, given.steps), "compiled": partial(compiled.run, given.steps)}
        times = alternate(sides, given.rounds)
        saved = (statistics.median(times["plain"]) - statistics.median(times["compiled"])) / given.steps
        pays = f"{compiling / saved:,.0f} steps" if saved > 0 else "never"
        shown = [milliseconds(times[side], given.steps) for side in sides]
        rows.append([student, *shown, ratio(times["plain"], times["compiled"]), f"{compiling:.0f} s", pays])
    note = f"Batch {given.batch}, {given.precision}, {given.threads} thread(s), {given.rounds} rounds of {given.steps} "
    note += "steps; in brackets the middle half of the rounds."
    heads = ["student", "as it is, ms/step", "compiled, ms/step", "as it is / compiled", "compile time", "pays after"]
    show("compile: torch.compile of the student", heads, rows, given.markdown, note)


if __name__ == "__main__":
    main()
