"""Commands that start with torch in memory: a process that has loaded it forks for each of them.

A test that runs an engine starts some twenty processes, and each would load torch for two seconds to train for a tenth
of one. The commands are the real ones, and each loads the repository's code anew. They differ from processes of their
own in the session (a signal to a group does not reach them; Ctrl-C, SIGTERM and the end of who asked do) and in what
Python reads of the environment at its start. `COLD=1 make test` starts every process as a user does.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import resource
import runpy
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NoReturn

LOADED = (  # before any fork; nothing of this repository
    *("torch", "torch.utils.flop_counter", "torchvision.models", "safetensors.torch", "pydantic", "typer"),
    *("sklearn.datasets", "scipy.stats", "matplotlib.backends.backend_svg", "snakemake.cli", "dvc.cli"),
)
PASSED_ON = (signal.SIGINT, signal.SIGTERM)
LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
ASKING = 'exec {python} -IS {warm} ask {address} {here} {there}/{name} "$@"\n'
COMMANDS = {
    **dict.fromkeys(("distillery", "snakemake", "dvc"), ASKING),
    "python": '[ "$1 $2" = "-m distillery" ] || exec {python} "$@"\n' + ASKING,  # anything else starts by itself
}


@cache
def commands() -> Path:
    """A folder of such commands. Who forks for them ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="warm"))
    atexit.register(shutil.rmtree, folder)
    python, there, warm = (shlex.quote(str(p)) for p in (sys.executable, Path(sys.executable).parent, __file__))
    for name, lines in COMMANDS.items():
        asking = lines.format(python=python, warm=warm, address=folder / "socket", here=folder, there=there, name=name)
        (folder / name).write_text(f"#!/bin/sh\n{asking}")
        (folder / name).chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))
        listening.listen(64)
        server = subprocess.Popen(
            [sys.executable, "-P", __file__, "serve", str(listening.fileno())],
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[listening.fileno()],
        )
    atexit.register(server.communicate)
    return folder


def first(path: str) -> str:
    """PATH with such commands in front; as it was where they are not wanted, or not possible."""
    return path if os.environ.get("COLD") or sys.platform != "linux" else f"{commands()}{os.pathsep}{path}"


def ask(address: str, here: str, command: list[str]) -> NoReturn:
    """Have a command run with this process's files, folder, environment and limits; end as it ends."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        for number in PASSED_ON:
            signal.signal(number, lambda number, _: server.send(bytes([number])))
        request = {
            "command": command,
            "python": f"{here}/python",
            "folder": str(Path.cwd()),
            "environment": dict(os.environ),
            "limits": [resource.getrlimit(limit) for limit in LIMITS],
        }
        said = json.dumps(request).encode()  # what is no text in it is escaped
        socket.send_fds(server, [len(said).to_bytes(8, "big")], [0, 1, 2])
        server.sendall(said)
        answer = server.recv(8, socket.MSG_WAITALL)
    if not answer:
        sys.exit("warm.py: whoever runs the command is gone")
    ended = int.from_bytes(answer, "big", signed=True)
    if ended < 0:
        with suppress(OSError):  # SIGKILL has no handler
            signal.signal(-ended, signal.SIG_DFL)
        os.kill(os.getpid(), -ended)
    os._exit(ended)


def serve(listening: socket.socket) -> None:
    """Fork for whoever connects, until standard input, a pipe from who started this, is closed."""
    for name in LOADED:
        __import__(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that keep a command
    while 0 not in select.select([listening, 0], [], [])[0]:
        asking, _ = listening.accept()
        with asking:
            if not os.fork():
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                keep(asking)


def keep(asking: socket.socket) -> NoReturn:
    """Run a command in a fork, pass signals on to it, say how it ended. It ends with who asked, if not before."""
    head, files, *_ = socket.recv_fds(asking, 8, 3)
    request = json.loads(asking.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))
    process = os.fork()
    if not process:
        asking.close()
        become(files=files, **request)
    for file in files:
        os.close(file)
    ended = threading.Event()
    threading.Thread(target=say, args=(asking, process, ended)).start()
    while numbers := asking.recv(8):
        for number in numbers:
            with suppress(ProcessLookupError):
                os.kill(process, number)
    if not ended.is_set():
        for kill in (os.killpg, os.kill):
            with suppress(ProcessLookupError):
                kill(process, signal.SIGKILL)
    os._exit(0)


def say(asking: socket.socket, process: int, ended: threading.Event) -> None:
    """Tell who asked how the command ended."""
    _, status = os.waitpid(process, 0)
    ended.set()
    with suppress(BrokenPipeError):
        asking.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))


def become(
    *,
    files: list[int],
    command: list[str],
    python: str,
    folder: str,
    environment: dict[str, str],
    limits: list[tuple[int, int]],
) -> NoReturn:
    """Be the command that was asked for, from the first line of its program to its end."""
    os.setsid()
    for place, file in enumerate(files):
        os.dup2(file, place)
        os.close(file)
    sys.stdin = os.fdopen(0, closefd=False)  # each knows whether it is a pipe
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    for limit, value in zip(LIMITS, limits, strict=True):
        resource.setrlimit(limit, value)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.executable = python  # for the commands that this one starts
    module = command[2] if command[1:2] == ["-m"] else None
    sys.argv = command[2:] if module else command
    beside = folder if module else str(Path(command[0]).parent)
    sys.path[:0] = [beside, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    code: object = 0
    try:
        if module:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        traceback.print_exc()
        code = 130 if isinstance(error, KeyboardInterrupt) else 1
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit((code or 0) & 255)


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        ask(sys.argv[2], sys.argv[3], sys.argv[4:])
    serve(socket.socket(fileno=int(sys.argv[2])))
    os._exit(0)
