"""`distillery plots`: what `dvc plots` shows, as a page that needs no network.

DVC's own page loads Vega from a content delivery network. Snakemake ships the same scripts for its reports, and DVC
takes a template for the page: here one in which they are written out.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path

from distillery.errors import DistilleryError
from distillery.pipeline.engines import dvc
from distillery.study.reader import read_params

DECIDES_RESULTS = False
SCRIPTS = ("vega", "vega-lite", "vega-embed")
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{refresh_tag}
<title>DVC plots</title>
SCRIPTS
</head>
<body>
{plot_divs}
</body>
</html>
"""


def plots(revisions: Sequence[str], out: Path) -> Path:
    """Draw the plots of dvc.yaml, as they are here and in git revisions, and return the page.

    Raises DistilleryError with what DVC said if it cannot, or if Snakemake is without its scripts.
    """
    read_params("params.yaml")  # where no study is, there is more missing than plots
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "page.html"
        template.write_text(PAGE.replace("SCRIPTS", "\n".join(map(_script, SCRIPTS))), encoding="utf-8")
        dvc("plots", "diff" if revisions else "show", *revisions, "--html-template", str(template), "--out", str(out))
    page = out / "index.html"
    if not page.exists():
        raise DistilleryError(
            "there is nothing to plot yet: run the study to the end, or name revisions that have results"
        )
    return page


def _script(name: str) -> str:
    """A script's element; its text must not end it, nor hold what DVC's template replaces."""
    found = importlib.util.find_spec("snakemake")
    path = Path(found.origin if found and found.origin else "").parent / "assets" / "data" / name / f"{name}.js"
    if not path.is_file():
        raise DistilleryError(f"Snakemake is installed without {path}: install the environment again (`make setup`)")
    text = path.read_text(encoding="utf-8").replace("</script", "<\\/script")
    return f"<script>\n{text}\n</script>"
