"""Accuracy with bfloat16 against float32 over several seeds, on the digits.

    python benchmarks/precision.py [--seeds 10] [--epochs 20] [--teacher-epochs 40] [--markdown]

Everything is `fit()`: a teacher is trained once, its view table is built, and every seed trains one KD student in
either precision, from the same first weights on the same views in the same order. Last-epoch test accuracy.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from ours import KD
from side_by_side import device, parser, show, use_threads

from distillery import data as sources
from distillery.data.dataset import Dataset
from distillery.data.views import Views
from distillery.evaluation.statistics import Summary, paired, summarise
from distillery.models.base import Network
from distillery.study.blocks import Cache, Method, Recipe
from distillery.tasks.classification.training import assemble
from distillery.teachers.source import TableTeachers
from distillery.teachers.view_table import ViewTable, build
from distillery.training.device import set_up
from distillery.training.loop import fit

# A short recipe on the digits, half of which are learnt from: not that of the study digits.
DIGITS = Recipe(epochs=20, batch_size=32, lr=0.02, milestones=(12, 16, 18), augmentation={"pad": 1, "flip": False})
TEACHER, STUDENT = "resnet20_w8", "resnet8_w4"


def scaled(recipe: Recipe, epochs: int, lr: float) -> Recipe:
    """The recipe stretched to so many epochs, tested only at the end."""
    milestones = tuple(max(1, m * epochs // recipe.epochs) for m in recipe.milestones)
    return recipe.updated({"epochs": epochs, "milestones": milestones, "lr": lr, "test_every": epochs})


def taught(data: Dataset, recipe: Recipe, folder: Path) -> tuple[Network, TableTeachers]:
    """Train the teacher and build its view table."""
    trainee = assemble(TEACHER, Method(objective="ce"), data, [], 0)
    fit(trainee, data.loader(recipe), None, recipe, 0)
    views = Views(recipe.augmentation.pad, recipe.augmentation.flip, data.train_images.shape[-2:])
    record = build(trainee.student, data, views, Cache(), folder / "table.bin", "key")
    return trainee.student, TableTeachers([ViewTable.open(folder / "table.bin", record).place(device())])


def accuracy(data: Dataset, teacher: Network, source: TableTeachers, recipe: Recipe, seed: int) -> float:
    set_up(recipe)
    trainee = assemble(STUDENT, KD, data, [teacher], seed)
    return fit(trainee, data.loader(recipe), source, recipe, seed)[-1]["test_top1"]


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, seeds=10, epochs=20)
    options.add_argument("--teacher-epochs", type=int, default=40, help="default 40")
    given = options.parse_args(argv)
    use_threads(1)
    recipe = scaled(DIGITS, given.epochs, DIGITS.lr)
    where = set_up(recipe)
    found: dict[str, dict[int, float]] = {"float32": {}, "bfloat16": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources.prepare("digits", {}, folder / "arrays.safetensors")
        data = Dataset.load(folder / "arrays.safetensors").to(where)
        teacher, source = taught(data, scaled(DIGITS, given.teacher_epochs, 0.05), folder)
        for seed in range(given.seeds):
            for precision, by_seed in found.items():
                by_seed[seed] = accuracy(data, teacher, source, recipe.updated({"precision": precision}), seed)
            print(f"seed {seed}: {found['float32'][seed]:.2f} {found['bfloat16'][seed]:.2f}", file=sys.stderr)
    rows = [[name, plus_minus(summarise(list(by_seed.values()))), given.seeds] for name, by_seed in found.items()]
    difference = paired(found["bfloat16"], found["float32"])
    s, p = difference.summary, difference.p
    interval = "" if s.ci95 is None else f", 95 % interval {s.mean - s.ci95:+.2f} to {s.mean + s.ci95:+.2f}"
    rows.append(["bfloat16 - float32", f"{s.mean:+.2f}{interval}{'' if p is None else f', p = {p:.2f}'}", s.n])
    note = (
        f"KD, {TEACHER} -> {STUDENT}, {given.epochs} epochs, last epoch; mean and standard deviation over the seeds, "
    )
    note += "difference paired by seed. One test image is 0.11 points."
    heads = ["precision", "test top-1, %", "seeds"]
    show("precision: bfloat16 against float32 on digits", heads, rows, given.markdown, note)


def plus_minus(s: Summary) -> str:
    return f"{s.mean:.2f}" + ("" if s.sd is None else f" ± {s.sd:.2f}")


if __name__ == "__main__":
    main()
