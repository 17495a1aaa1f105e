"""Compiling LaTeX in tests, where the machine has it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = ("booktabs", "siunitx")
TWO_COLUMNS = """\\documentclass[twocolumn]{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs,siunitx}
\\begin{document}
Before. BODY After.
\\end{document}
"""


def compiled(text: str, folder: Path, packages: tuple[str, ...] = PACKAGES) -> str:
    """Compile a document with pdflatex and return its log, in which no box is too wide and no float too tall."""
    engine, find = shutil.which("pdflatex"), shutil.which("kpsewhich")
    if not engine or not find:
        pytest.skip("there is no pdflatex on this machine")
    for package in packages:
        if subprocess.run([find, f"{package}.sty"], capture_output=True).returncode:
            pytest.skip(f"there is no {package} on this machine")
    (folder / "t.tex").write_text(text, encoding="utf-8")
    command = [engine, "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def fits(log: str) -> bool:
    """Whether everything fits: no box that is too wide by more than a point, no float larger than a page."""
    return "Float too large" not in log and not [w for w in re.findall(r"Overfull \\hbox \((\d+)", log) if int(w) > 0]
