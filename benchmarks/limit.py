"""Our whole step against the least it can cost: forward, cross-entropy, backward, update on tensors already in place.

    python benchmarks/limit.py [--students resnet8x4,wrn_16_2] [--precision float32] [--threads 1] [--markdown]

Both sides have the same network, layout, precision, optimiser and settings; on CUDA both are captured graphs. What ours
adds is the data path (two gathers, normalisation, the table's rows), the KD loss and the sums for the history. The last
column is the data path alone, as a share of our step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from ours import Ours, pixels, random_table
from side_by_side import alternate, captured, device, milliseconds, now, parser, ratio, show, use_threads

from distillery.study.blocks import Recipe
from distillery.training.device import autocast
from distillery.training.step import GraphStep


def bare(ours: Ours) -> Callable[[int], float]:
    """A second student of the same kind that trains on one batch for ever; returns what runs some steps of it."""
    twin = Ours(ours.student, ours.data, ours.table, ours.recipe)
    size = twin.recipe.batch_size
    loader, first = twin.loader, torch.arange(size, device=device())
    images = loader.normalise(loader.views.take(loader.padded, first, torch.zeros_like(first)))
    labels = twin.data.train_labels[:size]

    def step() -> None:
        with autocast(twin.recipe, images.device):
            logits = twin.network(images).logits
        F.cross_entropy(logits.float(), labels).backward()
        twin.optimizer.step()

    def reset() -> None:
        twin.optimizer.zero_grad(set_to_none=True)

    def eager() -> None:
        reset()
        step()

    replay = captured(step, reset) if device().type == "cuda" and twin.recipe.graph else eager

    def run(steps: int) -> float:
        twin.prepare()
        start = now()
        for _ in range(steps):
            replay()
        return now() - start

    return run


def data_path(ours: Ours, steps: int) -> float:
    """Seconds of that many gathers of views, labels and teacher rows, with their share of laying out the epoch.

    Where our step is captured, so is this.
    """
    epoch, step, size = ours.step.epoch, ours.step, ours.recipe.batch_size
    assert epoch is not None

    def gather(rows: slice | torch.Tensor) -> None:
        samples = epoch.batch(rows)
        step.teach(samples.inputs, samples.cached)

    if isinstance(step, GraphStep):
        if ours.gathering is None:
            ours.gathering = captured(partial(gather, torch.arange(size, device=device())))
        start = now()
        for _ in range(steps):
            ours.gathering()
    else:
        start = now()
        for i in range(steps):
            gather(slice(i % ours.steps * size, (i % ours.steps + 1) * size))
    return now() - start + ours.layout_seconds * steps / ours.steps


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, rounds=9, steps=2, batch=64, images=10_000, threads=1)
    options.add_argument("--students", default="resnet8x4,wrn_16_2", help="student,...")
    options.add_argument("--precision", default="float32", help="of the recipe: float32, tf32, bfloat16")
    options.add_argument("--contiguous", action="store_true", help="without channels_last")
    given = options.parse_args(argv)
    use_threads(given.threads)
    recipe = Recipe(batch_size=given.batch, precision=given.precision, channels_last=not given.contiguous)
    data, table, rows = pixels(given.images, None), random_table(given.images, 162, 100), []
    for student in given.students.split(","):
        ours = Ours(student, data, table, recipe)
        sides = {"ours": partial(ours.run, given.steps), "bare": partial(bare(ours), given.steps)}
        sides["data"] = partial(data_path, ours, given.steps)
        times = alternate(sides, given.rounds)
        share = 100 * min(times["data"]) / min(times["ours"])
        shown = [milliseconds(times[side], given.steps) for side in ("bare", "ours")]
        rows.append([student, *shown, ratio(times["ours"], times["bare"]), f"{share:.1f} %"])
    note = f"Batch {given.batch}, {given.precision}, {given.threads} thread(s), {given.rounds} rounds of {given.steps} "
    note += "steps; in brackets the middle half of the rounds."
    heads = ["student", "bare, ms/step", "ours, ms/step", "ours / bare", "data path"]
    show("limit: our step against the bare student's", heads, rows, given.markdown, note)


if __name__ == "__main__":
    main()
