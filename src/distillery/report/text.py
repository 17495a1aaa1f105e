"""How numbers read, for every format alike: with a true minus, and a dash where there is none."""

from __future__ import annotations

from distillery.evaluation.statistics import ALPHA
from distillery.report.table import Entry

MISSING = "—"
MINUS = "−"  # noqa: RUF001


def number(value: float | None, digits: int, sign: bool = False) -> str:
    """A number with so many decimals; `sign`: with a plus, too."""
    if value is None:
        return MISSING
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", MINUS)


def decimals(values: list[float]) -> int:
    """So many that the largest of the values has three digits: a column's decimal points lie under each other."""
    largest = max((abs(value) for value in values), default=0.0)
    return next((digits for digits in range(5) if largest >= 10 ** (2 - digits)), 4)


def counted(n: int, word: str) -> str:
    return f"{n:,} {word}" + ("" if n == 1 else "s")


def listed(names: list[str], most: int = 6) -> str:
    """Names in a sentence, the first few of many."""
    shown = names if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return ", ".join(shown[:-1]) + (" and " if len(shown) > 1 else "") + shown[-1] if shown else ""


def count_text(entry: Entry) -> str:
    """The number of runs, with the number there should be if some are missing."""
    return f"({entry.n})" if entry.n == entry.expected else f"({entry.n} of {entry.expected})"


def score_text(entry: Entry) -> str:
    """`mean ± sd`; the mean alone for a single run; a dash without any."""
    mean = number(entry.mean, entry.digits)
    return mean if entry.mean is None or entry.sd is None else f"{mean} ± {number(entry.sd, entry.digits)}"


def p_text(p: float) -> str:
    """ "p = 0.012", with as many digits as keep it on its side of 0.05; "p < 1e-300" where floats end."""
    if p < 1e-300:
        return f"p < 1e{MINUS}300"
    if p < 0.001:
        return f"p = {p:.0e}".replace("-", MINUS)
    texts = (f"{p:.{digits}f}" for digits in range(3, 18))
    return f"p = {next(text for text in texts if (float(text) < ALPHA) == (p < ALPHA))}"
