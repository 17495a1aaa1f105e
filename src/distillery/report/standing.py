"""Whether the written tables are those of what lies here, where not every run of the study does.

Then no judge of jobs finds them current: they are made of what there is, of runs that git keeps too.
"""

from __future__ import annotations

import json

from distillery.errors import DistilleryError
from distillery.pipeline import current
from distillery.pipeline.job import Plan
from distillery.records.schema import ResultRecord, read
from distillery.report import results, table
from distillery.study.model import Study

DECIDES_RESULTS = False


def fault_of_tables(study: Study, plan: Plan) -> str:
    """Say in one sentence why the written tables are not what `distillery tables` would write; "" if they are."""
    fault = current.fault_of_tables(plan)
    measured = plan.layout.all_metrics.exists()  # without, the tables' own record was all that could be looked at
    return "" if fault and measured and _made_of_what_there_is(study, plan) else fault


def _made_of_what_there_is(study: Study, plan: Plan) -> bool:
    job, judge = plan.job("tables"), current.Judge(plan, thorough=True)
    try:
        record = read(job.record, ResultRecord)
    except DistilleryError:
        return False
    if current.difference(record.spec, job) or judge.changed_output(job, record):
        return False
    made = json.loads(json.dumps(table.build(results.load(study, current.Judge(plan))).to_json()))
    return all(record.table.get(key) == value for key, value in made.items())
