"""A verification in words: a table of cells, one sentence with the verdict, and what may explain a difference."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from distillery.report.notes import ranges
from distillery.report.text import counted, listed, number
from distillery.verify.compare import ALIKE, DIFFERENT, EQUAL, MISSING, SAME, UNTESTED, Compared, Verification

DECIDES_RESULTS = False
HEADER = ("method", "pair", "here", "there", "difference", "verdict", "parts at")
_STYLES = dict.fromkeys((SAME, EQUAL, ALIKE), "green") | {UNTESTED: "yellow"}
_STYLES |= dict.fromkeys((DIFFERENT, MISSING), "bold red")


def parting(cell: Compared) -> str:
    """The first job whose outputs differ, in words."""
    return {None: "not recorded", "": "nowhere"}.get(cell.parted, cell.parted or "")


def _row(cell: Compared, digits: int) -> tuple[str, ...]:
    means = (number(value, digits) for value in (cell.ours, cell.theirs))
    shift = number(cell.difference, digits, sign=True) + (
        f" ± {number(cell.interval, digits)}" if cell.interval else ""
    )
    return cell.label, cell.pair, *means, shift, cell.verdict, parting(cell)


def verdict(found: Verification) -> str:
    """The whole comparison in one sentence."""
    total, against = len(found.cells), f"against {found.theirs}"
    if any(cell.here or cell.there for cell in found.cells):
        against += " in the seeds of both"
    order = (SAME, EQUAL, ALIKE, UNTESTED, DIFFERENT, MISSING)
    counts = f"of {total} cells " + ", ".join(f"{n} {name}" for name in order if (n := found.count(name)))
    if failed := [cell for cell in found.cells if cell.verdict in (DIFFERENT, MISSING)]:
        return f"NOT reproduced {against}: {failed[0].label} ({failed[0].pair}) is {failed[0].verdict}; {counts}"
    untested = [_named(cell, found.digits) for cell in found.cells if cell.verdict == UNTESTED]
    if len(untested) == total:
        return f"nothing could be tested {against}: {listed(untested)}"
    if found.count(SAME) == total:
        return f"reproduced {against}: all {total} cells, bit for bit"
    return f"reproduced {against}: no difference found; {counts}" + (f": {listed(untested)}" if untested else "")


def _named(cell: Compared, digits: int) -> str:
    """A cell that cannot be tested, with its difference."""
    shift = f" {number(cell.difference, digits, sign=True)}" if cell.difference else ""
    return f"{cell.label} ({cell.pair}){shift}"


def notes(found: Verification) -> list[str]:
    """What a reader must know: where the copies part and why, on what machines, how cells were compared."""
    said = []
    partings = Counter((cell.parted, cell.why) for cell in found.cells if cell.parted)
    for (job, why), count in partings.most_common(3):
        cause = why or "same parameters, code and inputs, so it is the machine or a version"
        said.append(f"First job that differs, of {count} cell(s): {job} ({cause}).")
    if len(partings) > 3:
        said.append(f"... and {len(partings) - 3} other jobs.")
    said += [*_about_seeds(found), *(f"Differs: {clause}." for clause in found.machines)]
    if found.count(EQUAL):
        said.append(
            "Same numbers: all that runs.csv says was measured of every common seed. The seeds were trained in other "
            "blocks, so that no file can be compared bit for bit."
        )
    if found.count(ALIKE, DIFFERENT):
        said.append(
            "Difference: here minus there, mean over the common seeds with its 95 % interval, that of each cell alone. "
            "Cells are different if p < 0.05 in a t-test paired by seed, Holm-corrected over these cells, else "
            f"{ALIKE}."
        )
    if any(cell.parted is None for cell in found.cells):
        said.append("Not recorded: the other copy has no hashes of its files, or runs are here as git keeps them.")
    if found.count(UNTESTED):
        said.append("Cannot be tested: fewer than three common seeds, or the same difference in every run.")
    return said


def _about_seeds(found: Verification) -> list[str]:
    """Which seeds both copies have, and which only one has."""
    groups = Counter((cell.common, cell.here, cell.there) for cell in found.cells if cell.here or cell.there)
    said = []
    for (common, here, there), count in groups.most_common(3):
        alone = "; ".join(f"only {where}: {listed(ranges(s))}" for where, s in (("here", here), ("there", there)) if s)
        both = f"Compared, means too: seeds of both copies, {listed(ranges(common))}" if common else "No common seed"
        said.append(f"{both}; {alone} ({counted(count, 'cell')}).")
    return said


def show(found: Verification, console: Console | None = None) -> None:
    """Print the cells, the notes and the verdict."""
    console = console or Console()
    table = RichTable(title=f"{found.study}: here and {found.theirs}", title_style="bold")
    for i, name in enumerate(HEADER):
        table.add_column(name, justify="right" if 1 < i < 5 else "left", overflow="fold")
    for cell in found.cells:
        texts = _row(cell, found.digits)
        table.add_row(*map(Text, texts[:5]), Text(texts[5], style=_STYLES[cell.verdict]), Text(texts[6]))
    console.print(table)
    for note in notes(found):
        console.print(note, style="dim", highlight=False, markup=False, emoji=False)
    style = "bold green" if found.reproduced else "bold red"
    console.print(verdict(found), style=style, highlight=False, markup=False, emoji=False)
