# The pipeline for Snakemake: `snakemake --cores 2` here, `snakemake --profile slurm` on a cluster.
# Paths, dependencies and commands come from src/distillery/layout.py; dvc.yaml says the same to DVC.
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir, "src")))
# Jobs find `distillery` of this environment. `exec`: a shell in between would die of the scheduler's SIGTERM at once, the
# job would count as over, and the trainer would be killed before it had written its checkpoint.
shell.prefix('export PATH={sys.prefix:q}/bin:"$PATH"; exec ')

from snakemake.exceptions import WorkflowError

from distillery.records.io import DistilleryError
from distillery.pipeline.layout import Layout, code_files, tracked
from distillery.study.model import Study, read_params

try:
    STUDY = Study.load("params.yaml")
except DistilleryError as error:
    raise WorkflowError(str(error)) from None
RAW = read_params("params.yaml")
AT = Layout(STUDY.study)


wildcard_constraints:
    teacher="|".join(STUDY.teachers) or "none",
    pair="|".join(STUDY.pairs),
    method="|".join(STUDY.methods),
    seed="|".join(map(str, STUDY.seeds)),


# Where Snakemake itself runs: the download needs the internet, the others are seconds, and nothing waits for a GPU.
localrules:
    all,
    data,
    pair,
    tables,


rule all:
    input:
        list(AT.table_files().values()),
    default_target: True


include: "workflow/rules/teachers.smk"
include: "workflow/rules/sharing.smk"
include: "workflow/rules/students.smk"
include: "workflow/rules/tables.smk"
