"""Hooks of mkdocs.yml: README as the first page, and what pages link to outside docs/ taken along."""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import join, normpath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)")  # to a file: no web address, no anchor alone
FIRST = "index.md"
BESIDE = "repository"  # the folder of the site that holds what lies outside docs/


def on_files(files: Files, config: Any) -> Files:
    """Add README as the first page, and the files outside docs/ that it and the others link to."""
    files.append(File.generated(config, FIRST, content=(ROOT / "README.md").read_text()))
    linked = {path for page in files.documentation_pages() for path in _links(page.src_uri, page.content_string)}
    for path in sorted(linked):
        if not path.startswith("docs/") and path != "README.md" and (ROOT / path).is_file():
            files.append(File.generated(config, _place(path), content=(ROOT / path).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn the links of a page to where on_files put what they mean."""
    source = page.file.src_uri
    if source.startswith(f"{BESIDE}/"):
        return LINK.sub("](#)", markdown)  # what they link to in turn stays in the repository
    up = "../" * source.count("/")
    return LINK.sub(lambda m: f"]({up}{_place(_meant(source, m[1]))}{m[2] or ''})", markdown)


def _links(source: str, text: str) -> set[str]:
    return {_meant(source, match[1]) for match in LINK.finditer(text)}


def _meant(source: str, link: str) -> str:
    """The path in the repository that a link on a page means."""
    return normpath(join("" if source == FIRST else join("docs", source, ".."), link))


def _place(path: str) -> str:
    """Where a file of the repository lies in the site's sources."""
    if path == "README.md":
        return FIRST
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"{BESIDE}/{path}" + ("" if Path(path).suffix else ".txt")  # as text: LICENSE, Dockerfile
