"""Commands that start with torch in memory end, obey and see the machine as those do that users start."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import warm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere commands start as a user's do")


def started(program: str, folder: Path, **options: Any) -> subprocess.Popen[str]:
    """A program of Python, in a fork of the process that has torch."""
    script = folder / "script.py"
    script.write_text(program)
    at = warm.commands()
    command = [sys.executable, "-IS", warm.__file__, "ask", at / "socket", at, script, "one", "two words"]
    return subprocess.Popen(command, cwd=folder, stdout=-1, stderr=-1, text=True, **options)


def ended(program: str, folder: Path, **options: Any) -> tuple[int, str, str]:
    process = started(program, folder, **options)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_output_and_exit_code(tmp_path: Path) -> None:
    assert ended("import sys; print(sys.argv[1:], __name__); sys.exit(3)", tmp_path) == (
        3,
        "['one', 'two words'] __main__\n",
        "",
    )
    assert ended("import sys; sys.exit('a reason')", tmp_path) == (1, "", "a reason\n")
    code, _, err = ended("1 / 0", tmp_path)
    assert code == 1 and err.endswith("ZeroDivisionError: division by zero\n")
    assert ended("import os; os.kill(os.getpid(), 9)", tmp_path) == (-9, "", "")


def test_torch_is_there_and_nothing_of_the_repository(tmp_path: Path) -> None:
    program = "import sys; print('torch' in sys.modules, [m for m in sys.modules if m.startswith('distillery')])"
    assert ended(program, tmp_path) == (0, "True []\n", "")


def test_folder_environment_and_limits_are_those_of_who_asked(tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5, 5))

    program = (
        "import os, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); print(os.getcwd(), os.environ['HERE'])\n"
    )
    program += "with open('f', 'w') as file: file.write('123456')"
    code, out, err = ended(program, tmp_path, env=os.environ | {"HERE": "yes"}, preexec_fn=limited)
    assert code == 1 and out == f"{tmp_path} yes\n" and "File too large" in err


def test_what_is_done_at_the_end_is_done(tmp_path: Path) -> None:
    program = "import atexit, threading, time; atexit.register(print, 'last')\n"
    program += "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()"
    assert ended(program, tmp_path) == (0, "thread\nlast\n", "")


@pytest.mark.parametrize("number", warm.PASSED_ON)
def test_signals_reach_it(number: signal.Signals, tmp_path: Path) -> None:
    program = (
        "import signal, time\nsignal.signal(NUMBER, lambda *_: exit(5)); print('ready', flush=True); time.sleep(300)"
    )
    with started(program.replace("NUMBER", str(int(number))), tmp_path) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(300) == 5


def test_it_ends_with_who_asked(tmp_path: Path) -> None:
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(300)"
    with started(program, tmp_path) as process:
        assert process.stdout
        one = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 60
    while alive(one):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_it_leaves_in_the_background_goes_on(tmp_path: Path) -> None:
    program = "import subprocess\nprint(subprocess.Popen(['sleep', '300'], stdout=-3, stderr=-3).pid)"
    code, out, _ = ended(program, tmp_path)
    assert code == 0
    time.sleep(0.3)
    assert alive(int(out))
    os.kill(int(out), signal.SIGKILL)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("command", ["distillery methods kd", "distillery status", "python -m distillery -h", "dvc -V"])
def test_the_real_commands(command: str, tmp_path: Path) -> None:
    """What Python starts prints the same, and a user's mistake ends alike."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    real, forked = (
        subprocess.run(command.split(), cwd=tmp_path, env=os.environ | {"PATH": p}, capture_output=True, text=True)
        for p in (path, warm.first(path))
    )
    assert (forked.returncode, forked.stdout, forked.stderr) == (real.returncode, real.stdout, real.stderr)


def test_a_person_may_have_every_process_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLD", "1")
    assert warm.first("/bin") == "/bin"
