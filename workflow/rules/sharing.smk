# Several runs in one Slurm job, side by side on one GPU: `group-components: {runs: 4}` in the profile.
# Snakemake has groups, but the executor runs their members one after another, stops at the first that fails, and then all
# outputs of the group are deleted. Three things are needed beside them.
import os
import shutil
from functools import cache


def sharing(wildcards):
    """Name the group of a run: the runs of one pair may share a job. None if the profile wants no sharing."""
    group, settings = f"runs_{wildcards.pair}", workflow.group_settings
    if not workflow.remote_exec:
        workflow.parent_groupids[group] = "runs"  # under this name the profile knows it
        return group if settings.group_components.get("runs", 1) > 1 else None
    if settings.local_groupid == "local":  # a job of one run
        return None
    # 1. Within the job all its runs are one group, whose members start at once.
    settings.group_components = {group: sys.maxsize}
    # 2. A finished run is kept, so that it returns at once if the group has to be repeated for another's failure.
    os.environ.update(DISTILLERY_KEEP="1")
    return group


@cache
def code_of(method):
    return code_files("distill", method=STUDY.methods[method])


def code_of_run(wildcards):
    """List the code of a run, and see to it that one failure does not stop the runs beside it."""
    if workflow.remote_exec:
        workflow.execution_settings.keep_going = True  # 3. which the executor does not pass on to its jobs
    return code_of(wildcards.method)


onsuccess:
    shutil.rmtree(AT.all_kept, ignore_errors=True)
