"""How results read as plain text, for every format alike."""

from __future__ import annotations

from distillery.report.aggregate import Aggregate
from distillery.report.classwise import ClassEffect
from distillery.report.ledger import NOT_COMPARABLE, Comparison, tally
from distillery.report.table import Entry, Table

MISSING = "—"
MARKS = {"better": " ▲", "worse": " ▼", None: ""}
LEDGER_HEADER = ("method", "pair", "epoch", "ours", "published", "difference", "verdict", "source")


def count_text(entry: Entry) -> str:
    """The number of runs, with the number there should be if some are missing."""
    return f"({entry.n})" if entry.n == entry.expected else f"({entry.n} of {entry.expected})"


def score_text(entry: Entry, plus_minus: str = " ± ") -> str:
    """`mean ± sd`; the mean alone for a single run; a dash without any."""
    if entry.mean is None:
        return MISSING
    return f"{entry.mean:.{entry.digits}f}" + ("" if entry.sd is None else f"{plus_minus}{entry.sd:.{entry.digits}f}")


def difference_text(entry: Entry) -> str:
    """Difference to the baseline with its 95 % interval and the corrected p value, as far as they are known."""
    if entry.difference is None:
        return MISSING
    interval = "" if entry.difference_ci95 is None else f" ± {entry.difference_ci95:.{entry.digits}f}"
    return f"{entry.difference:+.{entry.digits}f}{interval}" + ("" if entry.p is None else f", p = {p_text(entry.p)}")


def p_text(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


def interval_text(value: float | None, interval: tuple[float, float] | None, digits: int) -> str:
    """A value with its interval in brackets, as far as they are known."""
    if value is None:
        return MISSING
    return f"{value:.{digits}f}" + (f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]" if interval else "")


def label_of(table: Table, method: str | None) -> str:
    return next((row.label for row in table.rows if row.name == method), method or "a baseline")


def aggregate_header(table: Table) -> list[str]:
    return ["method", "interquartile mean", f"probability of improvement on {label_of(table, table.baseline)}"]


def aggregate_rows(table: Table) -> list[list[str]]:
    """Lines of the table across pairs, after the header `aggregate_header`."""

    def row(a: Aggregate) -> list[str]:
        return [
            a.label,
            interval_text(a.iqm, a.iqm_interval, table.measure.digits),
            interval_text(a.improvement, a.improvement_interval, 2),
        ]

    return [row(a) for a in table.aggregates]


def _spread(mean: float, sd: float | None, digits: int) -> str:
    return f"{mean:.{digits}f}" + ("" if sd is None else f" ± {sd:.{digits}f}")


def ledger_row(table: Table, c: Comparison) -> list[str]:
    """One comparison as plain text under `LEDGER_HEADER`."""
    digits = table.measure.digits
    theirs = _spread(c.published.value, c.published.sd, digits)
    trials = "" if c.published.trials is None else f" ({c.published.trials})"
    ours = MISSING if c.mean is None else _spread(c.mean, c.sd, digits) + f" ({c.n})"
    difference = MISSING if c.difference is None else f"{c.difference:+.{digits}f}"
    verdict = f"{c.verdict}: {c.reason}" if c.reason else c.verdict
    source = f"{c.published.paper}, {c.published.table}"
    return [label_of(table, c.method), c.pair, c.convention, ours, theirs + trials, difference, verdict, source]


def classwise_header(table: Table) -> list[str]:
    """The columns of `classwise_row`. Against a single teacher the count is not the published #TC, nor called so."""
    against = {"#TC" if e.teachers > 1 else "against this one teacher" for e in table.classwise}
    counts = [f"{name} (after Holm)" for name in ("#SC", " or ".join(sorted(against)))]
    return [*counts, "differs from student alone, %", "differs from teacher, %"]


def classwise_row(e: ClassEffect) -> list[str]:
    """The class-wise effect of one cell under `classwise_header`."""
    counts = ((e.sc, e.sc_holm), (e.tc, e.tc_holm))
    rates = (e.alone_disagreement, e.teacher_disagreement)
    found = [MISSING if n is None else f"{n} ({holm})" for n, holm in counts]
    return found + [MISSING if rate is None else f"{rate:.1f}" for rate in rates]


def classwise_text(table: Table) -> str:
    """What the counts mean."""
    text = (
        f"#SC: classes of {table.classwise[0].classes} that changed significantly more or less than overall accuracy, "
        "against the student trained alone (Welch's test over the runs; arXiv 2410.08407)."
    )
    if any(e.teachers > 1 for e in table.classwise):
        text += " #TC: the same against several trainings of the teacher."
    if any(e.teachers < 2 for e in table.classwise):
        text += (
            " Against this one teacher: classes whose change from its own accuracies is significant. As those count "
            "as exact, this includes what sets one training apart from another; it is not the published #TC."
        )
    return text


def tally_text(table: Table) -> str:
    """The ledger in one or two sentences."""
    t = tally(list(table.published))
    tried = t["agrees"] + t["above"] + t["below"]
    return (
        f"{len(table.published)} published numbers for {t['cells']} cells: {tried} comparable, "
        f"of which {t['agrees']} agree, {t['above']} are exceeded and {t['below']} not reached; "
        f"{t[NOT_COMPARABLE]} not comparable. "
        f"{t['cells agreeing']} of {t['cells compared']} compared cells agree with every number."
    )
