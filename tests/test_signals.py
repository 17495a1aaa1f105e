"""Ctrl-C and SIGTERM at real processes: one sentence, the shell's exit code, no traceback, nothing half-made left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from synthetic_study import Synthetic, params

from distillery.records.files import lock
from distillery.records.leaving import SAID, Stopped, leaving_in_order

# Each makes the command reach a known point, write half a file, say so, and wait there.
HALT = """
import sys, time
from pathlib import Path
def halt(*_, **__):
    from distillery.records.io import atomic_path
    with atomic_path(Path("results/half.txt")) as temporary:
        temporary.write_text("half")
        Path("ready").touch()
        while True: time.sleep(0.01)
"""
WHERE = {
    "data": "import distillery.stages.data as m; m.prepare = halt",
    "tables": "import distillery.stages.tables as m; m._draw = halt",
    "status": "import distillery.status.states as m; m.ask = halt",
    "check": "import distillery.pipeline.check as m; m.load = halt",
    "methods": "class F:\n    def find_spec(self, name, *_): return halt() if name == 'distillery.cli' else None\n"
    "sys.meta_path.insert(0, F())",  # while the program is still being loaded
}
RUN = "\nfrom distillery.__main__ import main\nsys.argv[0] = 'distillery'; main()"


def ended(folder: Path, command: str, how: signal.Signals) -> tuple[int, str, str]:
    """Run a command until it halts, send the signal, and return its exit code and what it said."""
    code = HALT + WHERE[command] + RUN
    process = subprocess.Popen(
        [sys.executable, "-c", code, command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("SLURM")},
    )
    deadline = time.monotonic() + 300
    while not (folder / "ready").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(how)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def files(folder: Path) -> list[Path]:
    """Files of the pipeline but the plan, which every command may write."""
    made = (p for place in ("artifacts", "results") for p in (folder / place).rglob("*") if p.is_file())
    return sorted(p for p in made if "specs" not in p.parts and p.name not in ("plan.json", "settings.json"))


@pytest.mark.slow
@pytest.mark.parametrize("command", WHERE)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_every_command_leaves_in_order(
    tmp_path: Path, command: str, how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Synthetic(tmp_path, params())
    before = files(tmp_path)
    code, out, err = ended(tmp_path, command, how)
    assert code == 128 + how, out + err
    lines = out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"stopped by {SAID[how]}")
    assert lines[0].endswith(": the same command starts over") == (command in ("data", "tables"))
    assert err == ""
    assert files(tmp_path) == before


@pytest.mark.parametrize("kind", ["INT", "HUP"])
@pytest.mark.parametrize(
    "what", ["distillery.records.leaving import leaving_in_order", "distillery.training.loop import Stop"]
)
def test_a_job_in_the_background_of_a_shell_goes_on(kind: str, what: str) -> None:
    """A shell lets such jobs ignore Ctrl-C, which is meant for what runs in front, and nohup a closed terminal."""
    code = f"import signal; from {what}\nwith {what.split()[-1]}() as stop:\n"
    code += f"    signal.raise_signal(signal.SIG{kind}); print(getattr(stop, 'by', 0))"
    command = f'trap "" {kind}; exec "$0" -c "$1"'
    done = subprocess.run(["bash", "-c", command, sys.executable, code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


@pytest.mark.parametrize("program", ["-h", "methods"])
def test_what_is_to_be_done_at_the_end_is_done_and_modules_are_not_taken_apart(program: str, tmp_path: Path) -> None:
    code = "import atexit, sys\natexit.register(print, 'at the end')\n"
    code += "class Kept:\n    def __del__(self): print('taken apart')\nkept = Kept()" + RUN
    done = subprocess.run([sys.executable, "-c", code, program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("\nat the end\n"), done.stdout + done.stderr


def test_python_says_itself_why_it_ends_and_waits_for_threads() -> None:
    code = "import sys, threading, time\nfrom distillery.records.leaving import leave_at_once\n"
    code += "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()\n"
    code += "leave_at_once(SystemExit(0)); threading.enumerate()[-1].join()\n"
    code += "leave_at_once(SystemExit('why')); print('still here'); leave_at_once(SystemExit(3)); print('not here')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "thread\nstill here\n", "")


def test_a_job_is_done_though_its_terminal_is_gone(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from types import SimpleNamespace as N; from distillery.cli.logged import logged\n"
    )
    code += "logged(N(stage='cache', name='cache x', outputs={}), Path('x.log'), lambda: print('worked'))"
    ours, theirs = os.openpty()
    os.close(ours)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, stdout=theirs, stderr=subprocess.PIPE, text=True)
    os.close(theirs)
    assert (done.returncode, done.stderr, (tmp_path / "x.log").read_text()) == (0, "", "worked\n")


def test_a_second_signal_does_not_disturb_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Stopped) as stopped, leaving_in_order(), leaving_in_order("again"), lock(tmp_path / "x"):
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGTERM)
    assert stopped.value.code == 130
    assert capsys.readouterr().out == "stopped by Ctrl-C (SIGINT): again\n"
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
