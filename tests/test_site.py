"""The web site of the documentation: it builds without a warning, and no link within it leads nowhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow
REFERENCE = re.compile(r'\b(?:href|src)="([^"]+)"')


def test_the_site_builds_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert (tmp_path / "index.html") in pages
    assert len(pages) > len(list((ROOT / "docs").glob("*.md")))
    lost = []
    for page in pages:
        if page.name == "404.html" or page.name == "report.html":
            continue  # the first is shown anywhere, the second is whole in itself
        for link in REFERENCE.findall(page.read_text()):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or not parts.path:
                continue
            target = (page.parent / unquote(parts.path)).resolve()
            if not (target / "index.html" if target.is_dir() else target).is_file():
                lost.append(f"{page.relative_to(tmp_path)}: {link}")
    assert not lost, "\n".join(lost)
