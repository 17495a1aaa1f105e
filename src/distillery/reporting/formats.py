"""The main table as Markdown, CSV and LaTeX (booktabs). The same results give the same bytes."""

from __future__ import annotations

import csv
import io

from distillery.reporting.table import Entry, Table

MISSING = "—"


def cell_text(entry: Entry, plus_minus: str = " ± ") -> str:
    """Show an entry as `mean ± sd (n)`; `(n of expected)` where runs are missing; a dash where all are."""
    count = f"{entry.n}" if entry.n == entry.expected else f"{entry.n} of {entry.expected}"
    if entry.mean is None:
        return f"{MISSING} ({count})"
    spread = "" if entry.sd is None else f"{plus_minus}{entry.sd:.2f}"
    return f"{entry.mean:.2f}{spread} ({count})"


def markdown(table: Table) -> str:
    """GitHub-flavoured Markdown: title, table, notes, missing runs."""
    header = ["method"] + [f"{c.teacher} → {c.student}" for c in table.columns]
    rows = [[_escape(row.label)] + [cell_text(row.entries[c.pair]) for c in table.columns] for row in table.rows]
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    lines = [f"## {table.title}", "", _pipe(header, widths)]
    lines.append("| " + " | ".join(("-" * w if i == 0 else "-" * (w - 1) + ":") for i, w in enumerate(widths)) + " |")
    lines += [_pipe(row, widths) for row in rows]
    lines += ["", *(f"- {_escape(note)}" for note in table.notes)]
    if table.missing:
        lines += ["", "Missing runs:", "", *(f"- {_escape(line)}" for line in table.missing)]
    return "\n".join(lines) + "\n"


def _pipe(cells: list[str], widths: list[int]) -> str:
    padded = [cells[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
    return "| " + " | ".join(padded) + " |"


def _escape(text: str) -> str:
    return "".join("\\" + c if c in "\\|*_`<>" else c for c in text)


FIELDS = (
    *("pair", "teacher", "student", "method", "label", "kind", "convention"),
    *("mean", "sd", "n", "expected", "ci95", "difference", "seeds", "values"),
)


def comma_separated(table: Table) -> str:
    """One line per cell with the unrounded numbers; `seeds` and `values` hold one number per run."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        for column in table.columns:
            entry = row.entries[column.pair]
            numbers = {k: getattr(entry, k) for k in ("mean", "sd", "n", "expected", "ci95", "difference")}
            lists = {"seeds": " ".join(map(str, entry.seeds)), "values": " ".join(f"{v:.6g}" for v in entry.values)}
            names = {"pair": column.pair, "teacher": column.teacher, "student": column.student}
            names |= {"method": row.name, "label": row.label, "kind": row.kind, "convention": table.convention}
            writer.writerow(names | {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in numbers.items()} | lists)
    return text.getvalue()


_LATEX = {
    **{c: "\\" + c for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"—": "---", "→": r"$\to$", "±": r"$\pm$", "<": r"$<$", ">": r"$>$"},
}


def latex_text(text: str) -> str:
    """Escape plain text for LaTeX."""
    return "".join(_LATEX.get(c, c) for c in text)


def latex(table: Table) -> str:
    """A table environment for the booktabs package; notes and missing runs below it."""
    columns = table.columns
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{latex_text(table.title)}}}",
        f"\\label{{tab:{table.study}}}",
        f"\\begin{{tabular}}{{l{'r' * len(columns)}}}",
        "\\toprule",
        _ampersand(["Teacher", *(latex_text(c.teacher) for c in columns)]),
        _ampersand(["Student", *(latex_text(c.student) for c in columns)]),
        "\\midrule",
    ]
    for previous, row in zip([None, *table.rows], table.rows, strict=False):
        if previous is not None and row.kind == "method" and previous.kind != "method":
            lines.append("\\midrule")
        entries = [latex_text(cell_text(row.entries[c.pair])) for c in columns]
        lines.append(_ampersand([latex_text(row.label), *entries]))
    lines += ["\\bottomrule", "\\end{tabular}"]
    notes = [*table.notes, *(f"Missing: {line}" for line in table.missing)]
    lines += ["", "\\smallskip", "\\footnotesize", *(f"{latex_text(note)}\\par" for note in notes)]
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def _ampersand(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"
