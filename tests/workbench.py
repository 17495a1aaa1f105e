"""A throw-away working copy of the repository with a tiny study, for tests that run the engines for real."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any

import small_study
import warm
import yaml
from conftest import ROOT

from distillery.pipeline.job import STAGES
from distillery.pipeline.planner import current

BIN = Path(sys.executable).parent
BEFORE = ("data", "teacher", "cache", "pair")  # the stages before the students

# Every Python process imports this. A trainer stops (SIGSTOP) before a checkpoint gets its name, if a file beside it
# asks for that: not before its first epoch is over, so in the middle of its work, however busy the machine.
PAUSING = """import os, signal, sys


def pause(event, arguments):
    if event != "os.rename":
        return
    path = os.fsdecode(arguments[1])
    if "/checkpoints/" in path and path.endswith(".safetensors") and os.path.exists(path):
        with open(arguments[0], "rb") as file:
            if b'epoch\\\\": 0,' in file.read(1 << 20):
                return
        try:
            os.rename(f"{path}.pause", f"{path}.paused.{os.getpid()}")
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGSTOP)


sys.addaudithook(pause)
"""


class Workbench:
    """Files of the repository as they are now (committed or not), in a git repository of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        for name in listed.stdout.decode().split("\0"):
            source, target = ROOT / name, root / name
            if name and (source.exists() or source.is_symlink()) and not name.startswith(("results/", "tests/")):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)
        (root / "dvc.lock").unlink(missing_ok=True)
        self.git("init", "-q", "-b", "main")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "a working copy")

    @classmethod
    def at(cls, root: Path) -> Workbench:
        """A working copy that lies there already: a clone or a copy of another one."""
        bench = cls.__new__(cls)
        bench.root = root
        return bench

    def copy(self, root: Path) -> Workbench:
        """A copy of it, with what was made in it."""
        shutil.copytree(self.root, root, symlinks=True, dirs_exist_ok=True)
        return Workbench.at(root)

    def git(self, *args: str) -> str:
        return self.run("git", "-c", "user.name=tester", "-c", "user.email=tester@example.invalid", *args).stdout

    def env(self) -> dict[str, str]:
        """The environment of a user who activated the virtual environment and works in this copy."""
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("SNAKEMAKE", "DVC_", "DISTILLERY_"))}
        return keep | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.root / "src"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }

    def run(self, *command: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        done = self._run(command, self.env() | self._warm(command, env) | env)
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(command)} failed ({done.returncode}):\n{done.stdout}\n{done.stderr}\n{self.logs()}"
            )
        return done

    def _warm(self, command: tuple[str, ...], env: dict[str, str]) -> dict[str, str]:
        """What makes a command start with torch in memory, unless Python's start or fewer privileges matter to it."""
        matters = command[0] == "setpriv" or any(name.startswith(("PATH", "PYTHON", "LC_", "OMP_")) for name in env)
        return {} if matters else {"PATH": warm.first(self.env()["PATH"])}

    def _run(self, command: tuple[str, ...], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Run it to its end; after 20 minutes kill it and all that it started, and say what it had printed."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, cwd=self.root, env=env, text=True, start_new_session=True, **pipes) as process:
            try:
                said = process.communicate(timeout=1200)
            except BaseException:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
                print(f"{' '.join(command)}: stopped after saying\n{out}\n{err}")
                raise
        return subprocess.CompletedProcess(command, process.returncode, *said)

    def plan(self) -> None:
        """Plan the study in this process, which has torch, so that Snakemake reads the plan back.

        By itself it would take three seconds longer, and does wherever this is not called or the copy's code is edited.
        Not for own code in params.yaml: this process reads a file of code once.
        """
        if not self.git("status", "--short", "src"):
            with chdir(self.root):
                current(write=True)

    def make(self, *stages: str) -> None:
        """Make the study, or some stages of it, in this process, which has torch: for what a test begins with.

        Nine jobs take two seconds, and a quarter of a minute if each is a process of its own.
        """
        with chdir(self.root):
            small_study.make(tables=True, stages=stages or STAGES)

    def start(self, *command: str, **env: str) -> subprocess.Popen[str]:
        """Start a command in a process group of its own."""
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.env() | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def pausing(self) -> dict[str, str]:
        """An environment whose trainers write checkpoints all the time and stop where `pause` asks for it."""
        folder = self.root / "pausing"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(PAUSING)
        return {"PYTHONPATH": f"{self.root / 'src'}{os.pathsep}{folder}", "DISTILLERY_CHECKPOINT_SECONDS": "0"}

    def pause(self, checkpoint: Path) -> None:
        """Ask that the next trainer that works with this checkpoint stops in the middle."""
        path = self.root / f"{checkpoint}.pause"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def paused(self, checkpoint: Path) -> int | None:
        """The process that was asked to stop and has; told once."""
        for path in (self.root / checkpoint).parent.glob(f"{checkpoint.name}.paused.*"):
            pid = int(path.name.rpartition(".")[2])
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
                path.unlink()
                return pid
        return None

    def logs(self) -> str:
        return "\n".join(
            f"== {p}\n{p.read_text()[-2000:]}" for p in sorted(self.root.glob("artifacts/*/logs/**/*.log"))
        )

    @property
    def params(self) -> dict[str, Any]:
        return yaml.safe_load((self.root / "params.yaml").read_text())

    @params.setter
    def params(self, value: dict[str, Any]) -> None:
        (self.root / "params.yaml").write_text(yaml.safe_dump(value, sort_keys=False))

    def tiny(
        self, epochs: int = 2, methods: tuple[str, ...] = ("ce", "kd"), seeds: tuple[int | str, ...] = (0,)
    ) -> None:
        """Shrink the digits study to something that trains in a second."""
        params = small_study.digits()
        params["data"]["test_fraction"] = 0.5
        params["recipe"] |= {"epochs": epochs, "milestones": [epochs], "test_every": 1}
        for teacher in params["teachers"].values():
            teacher["recipe"] = {"epochs": 1, "milestones": [1]}
        params["methods"] = {m: params["methods"][m] for m in methods}
        params["seeds"] = list(seeds)
        params["tables"]["baseline"] = methods[0]
        self.params = params
        self.git("commit", "-qam", "a tiny study", "--allow-empty")
