"""What `deterministic: true` costs: our step with it against our step without.

    python benchmarks/deterministic.py [--students resnet8x4,wrn_16_2] [--precision float32] [--threads 1] [--markdown]

The third side is torch's own default for deterministic programs, which fills every new tensor with NaN before use;
`set_up` switches that off, because it guards against reading what was never written and changes no result.
"""

from __future__ import annotations

from functools import partial

import torch
from ours import Ours, pixels, random_table
from side_by_side import alternate, milliseconds, parser, ratio, show, use_threads

from distillery.study.blocks import Recipe


class Filling(Ours):
    """Ours, with new memory filled as torch does by default."""

    def prepare(self) -> torch.device:
        where = super().prepare()
        torch.utils.deterministic.fill_uninitialized_memory = True
        return where


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, rounds=9, steps=2, batch=64, images=1_000, threads=1)
    options.add_argument("--students", default="resnet8x4,wrn_16_2", help="student,...")
    options.add_argument("--precision", default="float32", help="of the recipe: float32, tf32, bfloat16")
    given = options.parse_args(argv)
    use_threads(given.threads)
    data, table, rows = pixels(given.images, None), random_table(given.images, 162, 100), []
    recipe = Recipe(batch_size=given.batch, precision=given.precision, channels_last=True)
    for student in given.students.split(","):
        sides = {
            "off": Ours(student, data, table, recipe.updated({"deterministic": False})),
            "on": Ours(student, data, table, recipe),
            "filling": Filling(student, data, table, recipe),
        }
        times = alternate({name: partial(side.run, given.steps) for name, side in sides.items()}, given.rounds)
        shown = [milliseconds(times[side], given.steps) for side in sides]
        rows.append([student, *shown, *(ratio(times[side], times["off"]) for side in ("on", "filling"))])
    note = f"Batch {given.batch}, {given.precision}, {given.threads} thread(s), {given.rounds} rounds of {given.steps} "
    note += "steps; in brackets the middle half of the rounds."
    heads = ["student", "off, ms/step", "on, ms/step", "on and filling, ms/step", "on / off", "on and filling / off"]
    show("deterministic: what exact repeatability costs", heads, rows, given.markdown, note)


if __name__ == "__main__":
    main()
