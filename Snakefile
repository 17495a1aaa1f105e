# The pipeline for Snakemake: `snakemake --cores 2` here, `snakemake --profile slurm` on a cluster. The study is params.yaml,
# or with `--config study=NAME` a ready-made one, or with `--config params=PATH` any file.
# Which jobs there are, what they read and write, and which of them are due comes from src/distillery/pipeline; dvc.yaml
# says the same to DVC. Snakemake schedules.
import gc
import os
import shlex
import sys
import time
from pathlib import Path

# The code of this checkout, whatever is installed; this file as part of the installed package has no such folder.
if (SOURCE := Path(workflow.current_basedir.get_path_or_uri(secret_free=False), "src")).is_dir():
    sys.path.insert(0, str(SOURCE))
gc.set_threshold(10_000)  # planning imports torch, which makes objects and no garbage

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

import distillery
from distillery.errors import DistilleryError
from distillery.pipeline.internals import LOCKED, Refusals, is_locked, is_silent, is_submitted, obey_signals
from distillery.pipeline.snakemake import Jobs
from distillery.project import chosen
from distillery.status.show import failures

# Jobs run the same code in this environment. `exec`: a shell in between would die of the scheduler's SIGTERM
# at once, the job would count as over, and the trainer would be killed before it had written its checkpoint.
HERE = shlex.quote(str(Path(sys.executable).parent))
SOURCE = shlex.quote(str(Path(distillery.__file__).parents[1]))
PREFIX = f"export PATH={HERE}:$PATH PYTHONPATH={SOURCE}:$PYTHONPATH; exec "
shell.prefix(PREFIX.replace("{", "{{").replace("}", "}}"))  # which Snakemake would fill in

try:
    JOBS = Jobs(plans=not is_submitted(workflow), params=chosen(config))
except DistilleryError as error:
    if is_silent(workflow):
        print(f"distillery: {error}", file=sys.stderr)
    raise WorkflowError(str(error)) from None
if is_silent(workflow) and is_locked(workflow):  # which Snakemake would not say either
    print(LOCKED, file=sys.stderr)
AT = JOBS.layout
BEGAN = time.time()
REFUSED = Refusals()


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


onstart:
    if not is_submitted(workflow):  # there Slurm warns the job itself, and this Snakemake waits for it
        obey_signals()
        logger.addHandler(REFUSED)


# Which jobs failed or were stopped, and the sentence of each one's log that says why.
onerror:
    if not is_submitted(workflow):
        refused = [f"Slurm refused jobs ({said}): correct the profile's lines marked <-" for said in REFUSED.reasons]
        print("\n".join([*refused, *failures(JOBS.plan, BEGAN)]), file=sys.stderr)


include: "workflow/rules/teachers.smk"
include: "workflow/rules/students.smk"
include: "workflow/rules/tables.smk"
