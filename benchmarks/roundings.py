"""Does a study's verdict hang on the last bits? The study again and again, each time with one thing changed.

    python benchmarks/roundings.py [--study digits] [--changes teacher,bfloat16] [--folder DIR] [--cores 1] [--markdown]

`as it is`, `bfloat16`, `instructions` (`native` for `avx2`, or the other way around), `threads` (two for each job, on a
machine that does nothing else: sums in another order), `teacher` (another seed). Each is the whole pipeline in a folder
of its own; with --folder they are kept, and a stopped run goes on. The numbers are those of the tables.
"""

from __future__ import annotations

import csv
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from side_by_side import parser, show

THREADS = ("--set-threads", "teacher=2", "distill=2")


def as_declared(params: dict[str, Any]) -> None:
    """Change nothing."""


def bfloat16(params: dict[str, Any]) -> None:
    params["recipe"]["precision"] = "bfloat16"


def instructions(params: dict[str, Any]) -> None:
    params["instructions"] = "native" if params.get("instructions") == "avx2" else "avx2"


def teacher(params: dict[str, Any]) -> None:
    for block in params["teachers"].values():
        block["seed"] = block.get("seed", 0) + 1


# name -> what it does to params.yaml, to Snakemake's options
CHANGES: dict[str, tuple[Callable[[dict[str, Any]], None], tuple[str, ...]]] = {
    "as it is": (as_declared, ()),
    "bfloat16": (bfloat16, ()),
    "instructions": (instructions, ()),
    "threads": (as_declared, THREADS),
    "teacher": (teacher, ()),
}


def table(study: str, change: str, folder: Path, cores: int) -> list[dict[str, str]]:
    """Run the study with one change; return the rows of its table.csv."""
    edit, options = CHANGES[change]
    if not (folder / "params.yaml").exists():
        subprocess.run(["distillery", "init", str(folder), "--study", study], check=True, stdout=subprocess.DEVNULL)
        params = yaml.safe_load((folder / "params.yaml").read_text())
        edit(params)
        (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    run = ["snakemake", "--cores", str(max(cores, 2) if options else cores), "--quiet", "all", *options]
    subprocess.run(run, cwd=folder, check=True)
    with (folder / "results" / study / "table.csv").open() as lines:
        return list(csv.DictReader(lines))


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, cores=1)
    options.add_argument("--study", default="digits", help="a ready-made study, default digits")
    options.add_argument("--changes", default=",".join(CHANGES), help="change,...; default all")
    options.add_argument("--folder", type=Path, help="where to keep the runs; default: nowhere")
    given = options.parse_args(argv)
    changes, rows = given.changes.split(","), []
    if unknown := set(changes) - set(CHANGES):
        options.error(f"--changes: {', '.join(sorted(unknown))} is none of {', '.join(CHANGES)}")
    with tempfile.TemporaryDirectory() as own:
        for change in changes:
            for row in table(given.study, change, (given.folder or Path(own)) / change, given.cores):
                if row["kind"] == "method" and row["p"]:
                    difference, width, p = (float(row[name]) for name in ("difference", "difference_ci95", "p"))
                    shown = [f"{difference:+.2f} ± {width:.2f}", f"{p:.1g}", row["mark"]]
                    rows.append([change, row["pair"], row["label"], *shown])
    note = "Differences to the baseline, paired by seed, with 95 % intervals; p corrected over the table (Holm)."
    heads = ["change", "pair", "method", "difference, points", "p", "significantly"]
    show(f"roundings: the study {given.study} with one change at a time", heads, rows, given.markdown, note)


if __name__ == "__main__":
    main()
