"""Commands about results: look at them, compare them, keep them, take them elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from distillery.cli.base import DAILY, PARAMS, MethodName, Pair, Params, app
from distillery.errors import DistilleryError


def _ends_with(*suffixes: str) -> Callable[[Path | None], Path | None]:
    """Refuse a file of another kind before anything is done."""

    def accepted(page: Path | None) -> Path | None:
        if page is not None and page.suffix not in suffixes:
            raise DistilleryError(f"--page {page}: name a file that ends with {' or '.join(suffixes)}")
        return page

    return accepted


@app.command(rich_help_panel=DAILY)
def show(
    page: Annotated[
        Path | None,
        typer.Option(
            help="Also write the report with date and revision of the training: FILE.html.",
            callback=_ends_with(".html"),
        ),
    ] = None,
    params: Params = PARAMS,
) -> None:
    """Print the study's result table."""
    from distillery.pipeline.planner import current
    from distillery.report.standing import fault_of_tables
    from distillery.report.terminal import show as print_tables

    study, found = current(params)
    print_tables(study, fault_of_tables(study, found))
    if page is not None:
        from distillery.report.dated import write

        write(found, page)
        print(f"written: {page}")


@app.command(rich_help_panel=DAILY)
def compare(
    everything: Annotated[bool, typer.Option("--all", help="Also list what cannot be compared, and why.")] = False,
    params: Params = PARAMS,
) -> None:
    """Print the reproduction ledger: the study's cells against published numbers."""
    from distillery.pipeline.planner import current
    from distillery.report.standing import fault_of_tables
    from distillery.report.terminal import compare as print_ledger

    study, found = current(params)
    print_ledger(study, fault_of_tables(study, found), everything)


@app.command(rich_help_panel=DAILY)
def verify(
    against: Annotated[str, typer.Argument(help="A git revision, a DVC experiment, or a folder.")] = "HEAD",
    page: Annotated[
        Path | None,
        typer.Option(
            help="Also write the study's report with this as a section: FILE.html, or the section as FILE.md.",
            callback=_ends_with(".html", ".md"),
        ),
    ] = None,
    params: Params = PARAMS,
) -> None:
    """Compare the finished study with recorded results of it, cell by cell; exit code 1 unless reproduced."""
    from distillery.pipeline.planner import current
    from distillery.report.standing import fault_of_tables
    from distillery.verify.compare import compare as compare_copies
    from distillery.verify.compare import refuse_another, refuse_pulled
    from distillery.verify.page import write
    from distillery.verify.record import here, recorded, refuse_itself
    from distillery.verify.show import show as print_verdict

    study, plan = current(params)
    refuse_itself(against, plan)
    ours, theirs = here(plan), recorded(against, plan)
    if fault := fault_of_tables(study, plan):
        raise DistilleryError(fault.replace("the table below", f"{plan.layout.result_files()['markdown']}"))
    refuse_another(ours, theirs)
    found = compare_copies(plan, ours, theirs)
    refuse_pulled(found, plan)
    print_verdict(found)
    if page is not None:
        write(found, plan, page)
        print(f"written: {page}")
    if not found.reproduced:
        raise typer.Exit(1)


@app.command(rich_help_panel=DAILY)
def plots(
    revisions: Annotated[
        list[str] | None, typer.Argument(help="Git revisions to compare; a single one is compared with what is here.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder of the page.")] = Path("dvc_plots"),
) -> None:
    """Draw learning curves, here or of other revisions, as a page that needs no network, unlike that of `dvc plots`."""
    from distillery.pipeline.plots import plots as draw

    print(draw(revisions or (), out))


@app.command(rich_help_panel=DAILY)
def record() -> None:
    """After Snakemake: check that every output is current, then record all of them in dvc.lock and the DVC cache."""
    from distillery.pipeline import sync

    sync.record()


@app.command(rich_help_panel=DAILY)
def keep(params: Params = PARAMS) -> None:
    """Keep in git what was measured here, without weights: later tables take it where the artefacts are missing."""
    from distillery.pipeline import kept
    from distillery.pipeline.planner import current

    study, found = current(params, write=True)
    new = kept.keep(found)
    if not new:
        print(f"{study.study}: no run is current here that is not kept already")
        return
    _, plan = current(params, write=True)
    runs = sum(len(job.seeds) for job in new)
    print(f"{study.study}: {runs} more runs in {found.layout.kept}, for git; {kept.due(plan)}")


@app.command(rich_help_panel=DAILY)
def export(
    pair: Pair,
    method: MethodName,
    seed: Annotated[int, typer.Option(help="The seed of the student.")],
    to: Annotated[Path | None, typer.Option(help="The folder; exports/STUDY-PAIR-METHOD-SEED by default.")] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write model.onnx.")] = False,
    torch_export: Annotated[bool, typer.Option("--torch-export", help="Also write model.pt2 (torch.export).")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the student that was exported there; other files stay.")
    ] = False,
    params: Params = PARAMS,
) -> None:
    """Write a student as a folder that stands alone: weights, configuration, model card; ONNX if asked for."""
    from distillery.students.export import export as write

    folder, checked = write(pair, method, seed, to, onnx, torch_export, force, params)
    print(f"{folder}: " + ", ".join(f"{name} {top1:.2f} %" for name, top1 in checked.items()) + " on the test set")
