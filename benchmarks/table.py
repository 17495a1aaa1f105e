"""Building the view table against the bare teacher forward on as many views, already in place.

    python benchmarks/table.py [--teachers resnet32x4,wrn_40_2] [--images 2] [--threads 1] [--rounds 5] [--markdown]

Ours is `teachers.view_table.build()` as the cache stage calls it: cut the views, normalise, forward, write, hash.
The bare side runs the same network on normalised views in the same layout and in batches of the same size, in memory.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import torch
from ours import pixels
from side_by_side import alternate, device, parser, ratio, show, use_threads

from distillery import models
from distillery.data.dataset import Dataset
from distillery.data.views import Views
from distillery.models.base import Network
from distillery.study.blocks import Cache, Recipe
from distillery.teachers.view_table import block_and_layout, build
from distillery.training.device import set_up


def every_view(data: Dataset, views: Views, cache: Cache) -> list[torch.Tensor]:
    """All views of all images, normalised, in batches of the size and layout that `build` uses."""
    count, where = len(data.train_labels), data.train_images.device
    index = torch.arange(count, device=where).repeat_interleave(views.count)
    view = torch.arange(views.count, device=where).repeat(count)
    images = data.normalise(views.take(views.pad(data.train_images), index, view))
    size, layout = block_and_layout(cache, views.count, where)
    return [batch.contiguous(memory_format=layout) for batch in images.split(size * views.count)]


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, rounds=5, images=2, threads=1)
    options.add_argument("--teachers", default="resnet32x4,wrn_40_2", help="teacher,...")
    given = options.parse_args(argv)
    use_threads(given.threads)
    where, cache, views, rows = set_up(Recipe()), Cache(), Views(4, True, 32), []
    data = pixels(given.images, None).to(where)
    batches = every_view(data, views, cache)
    for teacher in given.teachers.split(","):
        network = models.build(teacher, 100).to(where).eval()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "table.bin"
            sides = {"build": partial(build, network, data, views, cache, path, "key")}
            sides["forward"] = partial(forward, network, batches)
            times = alternate(sides, given.rounds)
        per_view = [f"{1e3 * min(times[side]) / (given.images * views.count):.3g}" for side in ("forward", "build")]
        rows.append([teacher, *per_view, ratio(times["build"], times["forward"])])
    note = f"{given.images} images, {given.images * views.count} views, float32, {given.threads} thread(s), "
    note += f"{given.rounds} rounds; in brackets the middle half of the rounds."
    heads = ["teacher", "forward, ms/view", "build, ms/view", "build / forward"]
    show(f"table: building the view table on {device().type}", heads, rows, given.markdown, note)


@torch.no_grad()
def forward(network: Network, batches: list[torch.Tensor]) -> None:
    for batch in batches:
        network(batch)


if __name__ == "__main__":
    main()
