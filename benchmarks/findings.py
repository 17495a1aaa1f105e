"""The numbers of docs/findings.md, from the committed results of a study. Nothing is trained.

    python benchmarks/findings.py results/cifar100-small [--against kd_ls:kd_w9,dkd_ls:dkd] [--markdown]
    python benchmarks/findings.py results/cifar100-short --beside results/cifar100-weight --against kd_ls:kd_t2_w9

Four tables: chosen differences, paired by seed, with Holm's correction over them; what the best epoch on the test set
adds to the last one; how far seeds scatter, and how many it takes to see half a point; what the view table saved.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
from collections import defaultdict
from pathlib import Path

from tabulate import tabulate

from distillery.data.views import Views
from distillery.evaluation.statistics import holm, paired, seeds_needed
from distillery.pipeline import check
from distillery.records.io import DistilleryError
from distillery.study.model import Study

Runs = dict[str, dict[int, dict[str, str]]]  # method -> seed -> the row of runs.csv


def read(folder: Path) -> Runs:
    """Rows of runs.csv by method and seed. A study of several pairs keeps them apart by the name."""
    found: Runs = defaultdict(dict)
    with (folder / "runs.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    several = len({row["pair"] for row in rows}) > 1
    for row in rows:
        if row["seed"]:
            found[f"{row['pair']} {row['method']}" if several else row["method"]][int(row["seed"])] = row
    return found


def joined(runs: Runs, other: Runs) -> Runs:
    """Runs of two studies, to be paired by seed. Raises DistilleryError unless a method that both have shows that.

    A run is a function of its parameters and its seed: if one method's accuracies are equal, seed by seed, then data,
    teacher, recipe, network and machine were the same.
    """
    both = [method for method in runs if method in other]
    if not both or any(column(runs, m, "top1_last") != column(other, m, "top1_last") for m in both):
        raise DistilleryError("no method has the same accuracies in both studies: their seeds do not pair")
    return runs | other


def column(runs: Runs, method: str, name: str) -> dict[int, float]:
    return {seed: float(row[name]) for seed, row in runs[method].items()}


def differences(runs: Runs, chosen: list[tuple[str, str]]) -> list[list[object]]:
    """Last-epoch accuracy of one method minus that of another."""
    found = [paired(column(runs, a, "top1_last"), column(runs, b, "top1_last")) for a, b in chosen]
    tested = [d.p for d in found if d.p is not None]
    adjusted = iter(holm(tested))
    rows: list[list[object]] = []
    for (a, b), d in zip(chosen, found, strict=True):
        p = "" if d.p is None else f"{next(adjusted):.3f}"
        rows.append([f"{a} - {b}", f"{d.summary.mean:+.2f}", f"± {d.summary.ci95:.2f}" if d.summary.ci95 else "", p])
    return rows


def best_minus_last(runs: Runs) -> list[list[object]]:
    """What choosing the epoch on the test set adds, in points: smallest, median and largest over the runs."""
    gaps = {m: [float(r["top1_test_best"]) - float(r["top1_last"]) for r in rows.values()] for m, rows in runs.items()}
    rows = [[m, f"{min(g):.2f}", f"{statistics.median(g):.2f}", f"{max(g):.2f}"] for m, g in gaps.items()]
    every = [gap for g in gaps.values() for gap in g]
    return [*rows, ["all", f"{min(every):.2f}", f"{statistics.median(every):.2f}", f"{max(every):.2f}"]]


def spread(runs: Runs, baseline: str) -> list[list[object]]:
    """Standard deviation over seeds, of accuracies and of differences to the baseline; seeds to see 0.5 points."""
    rows: list[list[object]] = []
    theirs = column(runs, baseline, "top1_last")
    for method in runs:
        ours = column(runs, method, "top1_last")
        if len(ours) < 2:
            continue
        alone = statistics.stdev(ours.values())
        shared = [ours[s] - theirs[s] for s in ours if s in theirs]
        together = statistics.stdev(shared) if method != baseline and len(shared) > 1 else None
        needed = "" if together is None else seeds_needed(0.5, together)
        rows.append([method, f"{alone:.2f}", "" if together is None else f"{together:.2f}", needed])
    pooled = math.sqrt(statistics.mean(float(str(row[1])) ** 2 for row in rows))
    return [*rows, ["all, pooled", f"{pooled:.2f}", "", ""]]


def saved(runs: Runs, study: Study) -> list[list[object]]:
    """Teacher forwards that the study's view table made unnecessary."""
    rows = [row for by_seed in runs.values() for row in by_seed.values()]
    images = int(rows[0]["images_seen"]) // int(rows[0]["epochs"])
    cached = [r for r in rows if r["teacher_forwards"] == "0" and study.methods[r["method"]].objective != "ce"]
    used = sum(int(r["images_seen"]) for r in cached)
    augmentation = study.recipe.augmentation
    made = images * Views(augmentation.pad, augmentation.flip, 32).count
    numbers = {"runs that read the table": len(cached), "teacher outputs used": used, "teacher forwards made": made}
    return [[name, f"{number:,}"] for name, number in numbers.items()] + [["used per forward", f"{used / made:.0f}"]]


def main(argv: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("results", type=Path, help="results/<study>")
    options.add_argument("--beside", type=Path, help="results of a study whose runs pair with these: for --against")
    options.add_argument("--against", default="", help="method:method,... whose differences to print")
    options.add_argument("--baseline", default="kd")
    options.add_argument("--markdown", action="store_true")
    given = options.parse_args(argv)
    try:
        runs, study = read(given.results), check.load(Path("workflow/studies", f"{given.results.name}.yaml"))
        every = joined(runs, read(given.beside)) if given.beside else runs
    except (OSError, DistilleryError) as error:
        options.error(str(error))
    chosen = [tuple(pair.split(":")) for pair in given.against.split(",") if pair]
    unknown = {name for pair in chosen for name in pair} - set(every)
    if unknown or any(len(pair) != 2 for pair in chosen):
        options.error(f"--against: {', '.join(sorted(unknown)) or given.against} is not in {given.results}/runs.csv")
    tables = [("best minus last, points", ["method", "least", "median", "most"], best_minus_last(runs))]
    heads = ["method", "sd", f"sd of difference to {given.baseline}", "seeds for 0.5 points"]
    tables += [("spread over seeds, points", heads, spread(runs, given.baseline))]
    tables += [("the view table", ["", ""], saved(runs, study))]
    if chosen:
        rows = differences(every, [(a, b) for a, b in chosen])
        tables.insert(0, ("differences, points", ["", "mean", "95 %", "p, corrected"], rows))
    for title, heads, rows in tables:
        print(f"\n{title}\n")
        print(tabulate(rows, heads, "github" if given.markdown else "simple", disable_numparse=True))


if __name__ == "__main__":
    main()
