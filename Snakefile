# The pipeline for Snakemake: `snakemake --cores 2` here, `snakemake --profile slurm` on a cluster.
# Which jobs there are, what they read and write, and which of them are due comes from src/distillery/pipeline; dvc.yaml
# says the same to DVC. Snakemake schedules.
import os
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir, "src")))

from snakemake.exceptions import WorkflowError

from distillery.errors import DistilleryError
from distillery.pipeline.internals import is_submitted
from distillery.pipeline.snakemake import Jobs

# Jobs run the code of this checkout in this environment. `exec`: a shell in between would die of the scheduler's SIGTERM
# at once, the job would count as over, and the trainer would be killed before it had written its checkpoint.
HERE, SOURCE = shlex.quote(str(Path(sys.executable).parent)), shlex.quote(str(Path(workflow.basedir, "src")))
PREFIX = f"export PATH={HERE}:$PATH PYTHONPATH={SOURCE}:$PYTHONPATH; exec "
shell.prefix(PREFIX.replace("{", "{{").replace("}", "}}"))  # which Snakemake would fill in

try:
    JOBS = Jobs(plans=not is_submitted(workflow))
except DistilleryError as error:
    raise WorkflowError(str(error)) from None
AT = JOBS.layout


wildcard_constraints:
    **JOBS.wildcard_constraints(),


# Where Snakemake itself runs: the download needs the internet, the others are seconds, and nothing waits for a GPU.
localrules:
    all,
    data,
    pair,
    tables,


rule all:
    input:
        JOBS.outputs(),
    default_target: True


include: "workflow/rules/teachers.smk"
include: "workflow/rules/students.smk"
include: "workflow/rules/tables.smk"
