"""The main table for a paper: LaTeX with the booktabs package."""

from __future__ import annotations

from distillery.report.table import Entry, Table
from distillery.report.tex import BEYOND, PREAMBLE, escape
from distillery.report.text import MISSING, aggregate_header, aggregate_rows, count_text

_MARKS = {"better": r"\,$\uparrow$", "worse": r"\,$\downarrow$", None: ""}


def latex(table: Table) -> str:
    """A table environment; below the tabular the notes, footnotes and missing runs. Wants \\usepackage{booktabs}.

    It compiles with pdflatex, XeLaTeX and LuaLaTeX, whatever the labels hold; `tex` says how.
    """
    columns = table.columns
    lines = [
        "% \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escape(table.title)}}}",
        f"\\label{{tab:{table.study}}}",
        f"\\begin{{tabular}}{{l{'r' * len(columns)}}}",
        "\\toprule",
        _line(["Teacher", *(escape(c.teacher) for c in columns)]),
        _line(["Student", *(escape(c.student) for c in columns)]),
    ]
    kind = ""
    for row in table.rows:
        if (row.kind == "method") != (kind == "method"):
            lines.append("\\midrule")
        kind = row.kind
        note = f"\\textsuperscript{{{row.footnote}}}" if row.footnote else ""
        lines.append(_line([escape(row.label) + note, *(_entry(row.entries[c.pair]) for c in columns)]))
    lines += ["\\bottomrule", "\\end{tabular}"]
    if table.aggregates:
        header = [escape(text) for text in aggregate_header(table)]
        lines += ["", "\\medskip", "\\begin{tabular}{lrr}", "\\toprule", _line(header), "\\midrule"]
        lines += [_line([escape(text) for text in row]) for row in aggregate_rows(table)]
        lines += ["\\bottomrule", "\\end{tabular}"]
    notes = [*table.notes, *table.footnotes, *(f"Missing: {line}" for line in table.missing)]
    lines += ["", "\\smallskip", "\\footnotesize\\raggedright", *(f"{escape(note)}\\par" for note in notes)]
    text = "\n".join([*lines, "\\end{table}"]) + "\n"
    return "\n".join([*PREAMBLE, text]) if BEYOND in text else text


def _entry(entry: Entry) -> str:
    if entry.mean is None:
        return f"{escape(MISSING)} {count_text(entry)}"
    mean = f"{entry.mean:.{entry.digits}f}"
    mean = f"\\textbf{{{mean}}}" if entry.best else mean
    spread = "" if entry.sd is None else f" $\\pm$ {entry.sd:.{entry.digits}f}"
    return f"{mean}{spread} {count_text(entry)}{_MARKS[entry.mark]}"


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"
