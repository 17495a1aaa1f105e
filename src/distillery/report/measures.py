"""Every scalar that was measured, run by run and cell by cell: the columns of runs.csv and of the report's tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distillery.evaluation.statistics import Summary, summarise
from distillery.report.results import Cell, Results

Getter = Callable[[dict[str, Any], dict[str, Any]], Any]


def _fidelity(name: str) -> Getter:
    """Of the first teacher, which is the only one outside ensembles."""
    return lambda run, facts: next((teacher[name] for teacher in run["fidelity"].values()), None)


# column -> (what it is, how to get it from a run and its cell's facts)
MEASURES: dict[str, tuple[str, Getter]] = {
    "top1_last": ("top-1 of the last epoch, %", lambda run, facts: run["last"]["top1"]),
    "top5_last": ("top-5 of the last epoch, %", lambda run, facts: run["last"]["top5"]),
    "top1_test_best": (
        "top-1 of the best epoch on the test set, %",
        lambda run, facts: run.get("test_best", {}).get("top1"),
    ),
    "epoch_test_best": ("that epoch", lambda run, facts: run.get("test_best", {}).get("epoch")),
    "top1_val_best": (
        "top-1 of the best epoch on held-out images, %",
        lambda run, facts: run.get("val_best", {}).get("top1"),
    ),
    "nll": ("negative log-likelihood, nats", lambda run, facts: run["nll"]),
    "ece": ("expected calibration error, points", lambda run, facts: run["ece"]),
    "entropy": ("mean entropy of the output, nats", lambda run, facts: run["entropy"]),
    "agreement": ("same prediction as the teacher, %", _fidelity("agreement")),
    "kl_teacher": ("KL(teacher || student), nats", _fidelity("kl")),
    "logit_correlation": ("correlation of standardised logits with the teacher's", _fidelity("logit_correlation")),
    "logit_mean": ("mean logit", lambda run, facts: run["logits"]["mean"]),
    "logit_std": ("standard deviation of an image's logits", lambda run, facts: run["logits"]["std"]),
    "logit_range": ("range of an image's logits", lambda run, facts: run["logits"]["range"]),
    "parameters": ("parameters of the student", lambda run, facts: facts["cost"]["parameters"]),
    "extra_parameters": ("parameters trained besides", lambda run, facts: facts["cost"]["extra_parameters"]),
    "macs": ("multiply-accumulates per image", lambda run, facts: facts["macs"]),
    "epochs": ("epochs", lambda run, facts: facts["cost"]["epochs"]),
    "images_seen": ("training images seen", lambda run, facts: facts["cost"]["images_seen"]),
    "teacher_forwards": ("teacher forwards while training", lambda run, facts: facts["cost"]["teacher_forwards"]),
    "device": ("device", lambda run, facts: facts["cost"]["device"]),
}
COLUMNS = ("pair", "method", "seed", *MEASURES)
SHOWN = (
    "top5_last",
    "nll",
    "ece",
    "entropy",
    "agreement",
    "kl_teacher",
    "logit_correlation",
    "logit_std",
    "logit_range",
)


def by_run(results: Results) -> list[dict[str, Any]]:
    """One dictionary per run with all measures."""
    return [
        {"pair": cell.pair, "method": cell.method, "seed": seed}
        | {name: get(run, cell.facts) for name, (_, get) in MEASURES.items()}
        for cell in results
        for seed, run in cell.runs.items()
    ]


def of_cell(cell: Cell, name: str) -> Summary:
    """Summarise one numeric measure over a cell's runs."""
    get = MEASURES[name][1]
    values = [get(run, cell.facts) for run in cell.runs.values()]
    return summarise([value for value in values if value is not None])
