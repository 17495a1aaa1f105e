"""Where every artefact lives, what each stage reads, and which parameters it depends on. The only place that knows.

Both engines are made from this page: the Snakefile imports it, `dvc.yaml` repeats it with `matrix:`, and a test derives
the jobs from each and compares them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillery.records.io import SOURCE_SUFFIXES

SOURCE = Path("src/distillery")

# Source files whose change makes a stage's outputs stale. Directories stand for all their modules.
CODE: dict[str, tuple[str, ...]] = {
    "data": ("data", "stages/data.py"),
    "teacher": (
        *("study", "data", "models", "training", "teachers"),
        *("objectives/base.py", "objectives/build.py", "objectives/ce.py", "objectives/soft.py", "stages/teacher.py"),
    ),
    "cache": ("data/views.py", "models", "teachers/view_table.py", "teachers/weights.py", "stages/cache.py"),
    "pair": ("teachers/pair.py", "stages/pair.py"),
    "distill": (
        *("study", "data", "models", "training", "objectives", "stages/distill.py"),
        *("teachers/pair.py", "teachers/source.py", "teachers/view_table.py", "teachers/weights.py"),
    ),
    "evaluate": (
        *("models", "evaluation", "objectives/build.py", "teachers/pair.py", "teachers/weights.py"),
        *("training/device.py", "training/trainee.py", "stages/evaluate.py"),
    ),
    "tables": ("evaluation", "report", "stages/tables.py"),
}

# Keys of params.yaml that a stage depends on; the wildcards are filled per job.
PARAMS: dict[str, tuple[str, ...]] = {
    "data": ("data",),
    "teacher": ("recipe", "teachers.{teacher}"),
    "cache": ("cache", "recipe.augmentation"),
    "pair": ("pairs.{pair}.teacher",),
    "distill": ("recipe", "cache", "pairs.{pair}", "methods.{method}"),
    "evaluate": (),
    "tables": ("pairs", "methods", "seeds", "tables"),
}


@dataclass(frozen=True)
class Layout:
    """Paths of one study, relative to the repository root. Arguments may be names or Snakemake wildcards."""

    study: str

    @property
    def artifacts(self) -> Path:
        """Heavy or per-run artefacts: versioned by DVC, never by git."""
        return Path("artifacts") / self.study

    @property
    def results(self) -> Path:
        """Final tables and figures: small files, kept in git."""
        return Path("results") / self.study

    @property
    def arrays(self) -> Path:
        return self.artifacts / "data" / "arrays.safetensors"

    @property
    def data(self) -> Path:
        return self.artifacts / "data" / "data.json"

    def teacher(self, teacher: str) -> Path:
        return self.artifacts / "teachers" / teacher / "model.safetensors"

    def teacher_record(self, teacher: str) -> Path:
        return self.artifacts / "teachers" / teacher / "teacher.json"

    def table(self, teacher: str) -> Path:
        return self.artifacts / "views" / teacher / "table.bin"

    def table_record(self, teacher: str) -> Path:
        return self.artifacts / "views" / teacher / "views.json"

    def pair(self, pair: str) -> Path:
        return self.artifacts / "pairs" / f"{pair}.json"

    def students(self, pair: str, method: str, seeds: str) -> Path:
        return self.artifacts / "runs" / pair / method / seeds / "students.safetensors"

    def runs(self, pair: str, method: str, seeds: str) -> Path:
        return self.artifacts / "runs" / pair / method / seeds / "runs.json"

    @property
    def all_metrics(self) -> Path:
        return self.artifacts / "metrics"

    def metrics(self, pair: str, method: str, seeds: str) -> Path:
        return self.all_metrics / pair / method / f"{seeds}.json"

    def checkpoint(self, *key: str) -> Path:
        """Undeclared to both engines: they delete declared outputs before a job, and a checkpoint must survive that."""
        return self.artifacts / "checkpoints" / Path(*key).with_suffix(".safetensors")

    @property
    def all_kept(self) -> Path:
        """Finished runs whose outputs an engine may delete, because another run of the same job failed; undeclared."""
        return self.artifacts / "kept"

    def kept(self, output: Path) -> Path:
        return self.all_kept / output.relative_to(self.artifacts)

    def provenance(self, output: Path) -> Path:
        """What differs between two identical runs (times, host, revision) lies beside the outputs, undeclared."""
        within = next(p for p in (self.artifacts, self.results) if output.is_relative_to(p))
        return self.artifacts / "provenance" / output.relative_to(within).with_suffix(".json")

    def hash_note(self, path: Path) -> Path:
        """The hash of a large artefact, noted when it was last verified; undeclared."""
        return self.artifacts / "hashes" / path.relative_to(self.artifacts).with_suffix(f"{path.suffix}.json")

    def log(self, stage: str, *key: str) -> Path:
        return self.artifacts / "logs" / Path(stage, *key or ("log",)).with_suffix(".log")

    def benchmark(self, stage: str, *key: str) -> Path:
        return self.artifacts / "benchmarks" / Path(stage, *key or ("benchmark",)).with_suffix(".tsv")

    def table_files(self) -> dict[str, Path]:
        """Files of the `tables` stage: for readers, for programs (table.json), for `dvc metrics` (summary.json)."""
        names = {"markdown": "table.md", "csv": "table.csv", "latex": "table.tex", "report": "report.html"}
        names |= {"runs": "runs.csv", "curves": "curves.csv", "ledger": "ledger.csv"}
        names |= {"table": "table.json", "summary": "summary.json"}
        return {key: self.results / name for key, name in names.items()}

    @property
    def figures(self) -> Path:
        """A folder, because which figures there are depends on what the study has to show."""
        return self.results / "figures"


def code_files(stage: str, root: Path = Path(), method: Any = None) -> list[str]:
    """List the source files that `stage` depends on."""
    found: set[Path] = set()
    for entry in CODE[stage]:
        path = root / SOURCE / entry
        files = [p for p in path.rglob("*") if p.suffix in SOURCE_SUFFIXES] if path.is_dir() else [path]
        found |= {p.relative_to(root) for p in files}
    return sorted(map(str, found))


def tracked(stage: str, params: dict[str, Any], **wildcards: str) -> str:
    """Return the parameters that `stage` depends on as canonical JSON: Snakemake compares its text."""
    values = {}
    for template in PARAMS[stage]:
        value: Any = params
        for part in template.split("."):
            value = value[part.format(**wildcards)]
        values[template.format(**wildcards)] = value
    return json.dumps(values, sort_keys=True)
