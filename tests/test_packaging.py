"""pyproject.toml and the papers beside it say what is so: dependencies, version, licence. Also the help of commands."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner
from workbench import Workbench

import distillery
from distillery.cli import app

ROOT = Path(__file__).resolve().parents[1]

# Declared, but never imported: why.
EXTRAS = ("onnx", "timm", "detection", "generation", "live")  # what src/ imports where it is asked for
RUN_NOT_IMPORTED = {
    "faster-coco-eval": "asked for by name in tasks/detection, so that a machine without it is told in a sentence",
    "tensorboard": "torch.utils.tensorboard writes with it",
    "onnx": "torch.onnx.export writes with it",
    "onnxscript": "torch.onnx.export writes with it",
    "snakemake-executor-plugin-slurm": "loaded by Snakemake, named in workflow/profiles/slurm",
    "pytest-xdist": "the option -n of `make test`",
    "ruff": "`make lint`",
    "mypy": "`make lint`",
}


def canonical(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]).lower()


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def declared(*extras: str) -> set[str]:
    groups = [project()["dependencies"], *(project()["optional-dependencies"][extra] for extra in extras)]
    return {canonical(requirement) for group in groups for requirement in group}


def imported(*folders: str) -> set[str]:
    """Distributions that the Python files of the folders import, at the top or inside functions."""
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    own = {"distillery", "benchmarks"} | {path.stem for path in files if "src" not in path.parts}
    names = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                modules = [node.module]
            names |= {module.partition(".")[0] for module in modules}
    known = packages_distributions()
    return {canonical(known[name][0]) for name in names - own - set(sys.stdlib_module_names)}


def test_src_imports_what_is_declared_and_no_more() -> None:
    found = imported("src")
    assert found - declared(*EXTRAS) == set(), "imported, but neither in [project] dependencies nor in an extra"
    idle = declared(*EXTRAS) - found - set(RUN_NOT_IMPORTED)
    assert idle == set(), "declared, but neither imported nor given a reason here"


@pytest.mark.slow
def test_tests_and_benchmarks_import_what_is_declared() -> None:
    found = imported("src", "tests", "benchmarks")
    assert found - declared("dev", "s3", *EXTRAS) == set()
    assert declared("dev") - found - set(RUN_NOT_IMPORTED) == set()


def test_every_reason_is_needed() -> None:
    assert set(RUN_NOT_IMPORTED) <= declared("dev", *EXTRAS) - imported("src")


def test_engines_have_an_upper_bound() -> None:
    bounds = {canonical(r): r.partition("<")[2] for r in project()["dependencies"]}
    assert (bounds["snakemake"], bounds["snakemake-executor-plugin-slurm"], bounds["dvc"]) == ("10", "3", "4")


def test_every_dependency_is_locked() -> None:
    locked = {canonical(line) for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line}
    assert declared("dev", "s3", *EXTRAS) <= locked


def test_one_version_everywhere() -> None:
    cited = YAML(typ="safe").load(ROOT / "CITATION.cff")
    assert distillery.__version__ == version("distillery")
    assert cited["license"] == project()["license"] == "Apache-2.0"
    dated = re.search(rf"^## {re.escape(cited['version'])} - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert dated and dated[1] == cited["date-released"]
    assert "Copyright 2026 The Distillery developers" in (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize("argument", ["-h", "--help"])
def test_every_command_answers_the_short_help_too(argument: str) -> None:
    commands = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    assert "check" in commands
    for arguments in ([argument], *([command, argument] for command in commands)):
        result = CliRunner().invoke(app, arguments, prog_name="distillery")
        assert result.exit_code == 0 and f"Usage: {' '.join(['distillery', *arguments[:-1]])} " in result.stdout


def test_prints_its_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"distillery {distillery.__version__}\n"


def versions(root: Path) -> Callable[[], str]:
    """What setup.py makes of a folder that holds no more than it needs."""
    spec = importlib.util.spec_from_file_location("setup_of_distillery", ROOT / "setup.py")
    assert spec and spec.loader
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    (root / "CITATION.cff").write_text("version: 0.1.0\n")
    return lambda: str(setup.version(root))


def test_the_version_comes_from_tags(tmp_path: Path) -> None:
    found = versions(tmp_path)
    assert found() == "0.1.0", "a folder without git"

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=tester", "-c", "user.email=tester@example.invalid")
        return subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q")
    git("add", "CITATION.cff")
    git("commit", "-qm", "one")
    assert found() == f"0.1.0+g{git('rev-parse', '--short', 'HEAD')}", "no tag"
    git("tag", "v0.2.0")
    assert found() == "0.2.0"
    git("commit", "-qm", "two", "--allow-empty")
    assert found() == f"0.2.1.dev1+g{git('rev-parse', '--short', 'HEAD')}"
    (tmp_path / "CITATION.cff").write_text("version: 0.3.0\n")
    assert found().endswith(".dirty")
    (tmp_path / "PKG-INFO").write_text("Metadata-Version: 2.4\nName: distillery\nVersion: 9.8.7\n")
    assert found() == "9.8.7", "an unpacked sdist"


@pytest.mark.slow
def test_sdist_and_wheel_install_and_run_elsewhere(tmp_path: Path) -> None:
    """From a checkout an sdist, from that a wheel, from that a new environment: a project can be started and run there.

    The packages that Distillery needs are those of this environment; nothing is downloaded.
    """
    checkout = Workbench(tmp_path / "checkout")
    made = checkout.run(sys.executable, "-c", "from setuptools import build_meta as b; print(b.build_sdist('made'))")
    sdist = checkout.root / "made" / made.stdout.split()[-1]
    pip = (sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check")
    checkout.run(*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(tmp_path), str(sdist))
    [wheel] = tmp_path.glob("*.whl")
    home = tmp_path / "environment"
    checkout.run(sys.executable, "-m", "venv", "--without-pip", str(home))
    [packages] = home.glob("lib/python*/site-packages")
    install = (*pip, "--python", str(home / "bin/python"), "install", "--no-deps", "--no-index", str(wheel))
    checkout.run(*install, PYTHONPATH="")
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib"))  # whose own .pth files are not followed
    shutil.rmtree(checkout.root)

    def run(*command: str, folder: str) -> str:
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith("DISTILLERY_")}
        env |= {"PATH": f"{home / 'bin'}{os.pathsep}{env['PATH']}", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tmp_path / folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert str(home) in run("python", "-c", "import distillery; print(distillery.__file__)", folder=".")
    assert run("distillery", "--version", folder=".").split()[1] in wheel.name
    assert "cifar100-small" in run("distillery", "study", folder=".")
    run("distillery", "init", "project", folder=".")
    run("python", "-m", "snakemake", "--cores", "1", "--", "artifacts/digits/data/data.json", folder="project")
    assert "1 of 19 jobs done" in run("distillery", "status", folder="project")
