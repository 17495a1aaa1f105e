"""Where every file lies. The only place that knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distillery.data.arrays import BLOB

DECIDES_RESULTS = False  # how jobs are run, not what they compute (see fingerprint.py)


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
    def specs(self) -> Path:
        """What every job is made from, one small file each, written by `distillery plan`."""
        return self.artifacts / "specs"

    def spec(self, stage: str, *key: str) -> Path:
        """An input of the job that it describes, in both engines."""
        return self.specs / f"{'/'.join((stage, *key))}.json"

    @property
    def arrays(self) -> Path:
        return self.artifacts / "data" / "arrays.safetensors"

    @property
    def blob(self) -> Path:
        """The encoded images of a streamed source, to which the arrays are the index; empty for other sources."""
        return self.artifacts / "data" / BLOB

    @property
    def data(self) -> Path:
        return self.artifacts / "data" / "data.json"

    def teacher(self, teacher: str) -> Path:
        return self.artifacts / "teachers" / teacher / "model.safetensors"

    def teacher_history(self, teacher: str) -> Path:
        return self.artifacts / "teachers" / teacher / "history.safetensors"

    def teacher_record(self, teacher: str) -> Path:
        return self.artifacts / "teachers" / teacher / "teacher.json"

    def view_table(self, teacher: str) -> Path:
        """The teacher's outputs for all views (stage `cache`); not to be confused with the result tables."""
        return self.artifacts / "cache" / teacher / "table.bin"

    def replayed(self, teacher: str) -> Path:
        """The teacher's outputs for the views of a run's epochs. Undeclared to both engines: filled on demand."""
        return self.artifacts / "replayed" / teacher

    @property
    def compiled(self) -> Path:
        """Kernels that torch.compile made, for all jobs of the study. Undeclared to both engines."""
        return self.artifacts / "compiled"

    def view_table_record(self, teacher: str) -> Path:
        return self.artifacts / "cache" / teacher / "cache.json"

    def pair(self, pair: str) -> Path:
        return self.artifacts / "pairs" / f"{pair}.json"

    def pair_teachers(self, pair: str) -> Path:
        return self.artifacts / "pairs" / f"{pair}.teachers.json"

    def pair_record(self, pair: str) -> Path:
        return self.artifacts / "pairs" / f"{pair}.record.json"

    def runs(self, pair: str, method: str) -> Path:
        """The folder of one cell: a folder in it for every block of seeds."""
        return self.artifacts / "runs" / pair / method

    def students(self, pair: str, method: str, seeds: str) -> Path:
        return self.runs(pair, method) / seeds / "students.safetensors"

    def history(self, pair: str, method: str, seeds: str) -> Path:
        return self.runs(pair, method) / seeds / "history.safetensors"

    def run_record(self, pair: str, method: str, seeds: str) -> Path:
        return self.runs(pair, method) / seeds / "runs.json"

    @property
    def all_metrics(self) -> Path:
        return self.artifacts / "metrics"

    def metrics(self, pair: str, method: str, seeds: str) -> Path:
        return self.all_metrics / pair / method / f"{seeds}.json"

    def predictions(self, pair: str, method: str, seeds: str) -> Path:
        """The bulk of the metrics: predicted classes, accuracies of classes, learning curves."""
        return self.all_metrics / pair / method / f"{seeds}.safetensors"

    @property
    def wholes(self) -> tuple[Path, ...]:
        """Folders of which dvc.yaml lets a job read all that lies there."""
        return self.artifacts / "teachers", self.artifacts / "cache", self.all_metrics

    def earlier(self, path: Path) -> Path:
        """Where an artefact goes that is of no job of the study any more; undeclared."""
        return self.artifacts / "earlier" / path.relative_to(self.artifacts)

    @property
    def kept(self) -> Path:
        """What was measured of runs whose weights are not here, in git; undeclared."""
        return self.results / "kept"

    def kept_metrics(self, pair: str, method: str, seeds: str) -> Path:
        return self.kept / pair / method / f"{seeds}.json"

    def checkpoint(self, *key: str) -> Path:
        """Undeclared to both engines: they delete declared outputs before a job, and a checkpoint must survive that."""
        return self.artifacts / "checkpoints" / Path(*key).with_suffix(".safetensors")

    @property
    def plan(self) -> Path:
        """What the specs were made from: parameters, code, the user's own files; undeclared."""
        return self.artifacts / "plan.json"

    @property
    def settings(self) -> Path:
        """Settings of the machine (budgets, batch sizes), which decide no result; undeclared."""
        return self.artifacts / "settings.json"

    @property
    def due(self) -> Path:
        """Touched when Snakemake starts: an input, younger than any output, of every job that is not current."""
        return self.artifacts / "due"

    def provenance(self, output: Path) -> Path:
        """What differs between two identical runs (times, host, revision) lies beside the outputs, undeclared."""
        within = next(p for p in (self.artifacts, self.results) if output.is_relative_to(p))
        return self.artifacts / "provenance" / output.relative_to(within).with_suffix(".json")

    def hash_note(self, path: Path) -> Path:
        """The hash of a large artefact, noted when it was last verified; undeclared."""
        return self.artifacts / "hashes" / path.relative_to(self.artifacts).with_suffix(f"{path.suffix}.json")

    @property
    def named_note(self) -> Path:
        """Hashes of the user's own files, noted when they were last read; undeclared."""
        return self.artifacts / "hashes" / "named.json"

    def log(self, stage: str, *key: str) -> Path:
        return self.artifacts / "logs" / Path(stage, *key or ("log",)).with_suffix(".log")

    def benchmark(self, stage: str, *key: str) -> Path:
        return self.artifacts / "benchmarks" / Path(stage, *key or ("benchmark",)).with_suffix(".tsv")

    def result_files(self) -> dict[str, Path]:
        """Files of the `tables` stage: for readers, for programs (table.json), for `dvc metrics` (summary.json)."""
        names = {"markdown": "table.md", "csv": "table.csv", "latex": "table.tex", "report": "report.html"}
        names |= {"runs": "runs.csv", "curves": "curves.csv", "ledger": "ledger.csv"}
        names |= {"table": "table.json", "summary": "summary.json"}
        return {key: self.results / name for key, name in names.items()}

    @property
    def figures(self) -> Path:
        """A folder, because which figures there are depends on what the study has to show."""
        return self.results / "figures"
