"""What pyproject.toml cannot say: the version comes from git's tags, and a wheel carries the workflow's files."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
CARRIED = ("Snakefile", "dvc.yaml", ".dvcignore", "workflow/plots", "workflow/profiles", "workflow/rules")
CARRIED += ("workflow/studies",)


def version(root: Path = ROOT) -> str:
    """The version: of the tag `vX.Y.Z`, with a development number and the commit if it is not just that tag.

    In an unpacked sdist it is the one noted there. Without git or a tag it is the release that CITATION.cff names.
    """
    if (noted := root / "PKG-INFO").exists():
        return re.findall(r"^Version: (\S+)$", noted.read_text(), re.MULTILINE)[0]
    described = _git(root, "describe", "--tags", "--long", "--dirty", "--match", "v[0-9]*")
    if found := re.fullmatch(r"v(\d+)\.(\d+)\.(\d+)-(\d+)-g(\w+)(-dirty)?", described):
        major, minor, patch, after, commit, dirty = found.groups()
        if after == "0" and not dirty:
            return f"{major}.{minor}.{patch}"
        return f"{major}.{minor}.{int(patch) + 1}.dev{after}+g{commit}{'.dirty' if dirty else ''}"
    released = re.findall(r"^version: (\S+)$", (root / "CITATION.cff").read_text(), re.MULTILINE)[0]
    commit = _git(root, "rev-parse", "--short", "HEAD")
    return f"{released}+g{commit}" if commit else released


def _git(root: Path, *arguments: str) -> str:
    if not (root / ".git").exists():  # in a repository of somebody else's, perhaps
        return ""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=60)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout.strip()


class Build(build_py):
    """Puts the workflow's files where `distillery.project` looks for them. A checkout has them at its root."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "distillery" / "project_files"
        shutil.rmtree(target, ignore_errors=True)
        for name in CARRIED:
            source = ROOT / name
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target / name) if source.is_dir() else shutil.copyfile(source, target / name)


if __name__ == "__main__":
    setup(version=version(), cmdclass={"build_py": Build})
