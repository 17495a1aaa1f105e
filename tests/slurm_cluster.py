"""A real Slurm cluster of one node on loopback: munge, controller and node daemon, four stand-ins for GPUs.

No systemd, no cgroups, no root: every daemon runs in the foreground as a child of this process, in a folder of its own.
Nothing of the machine's own Slurm configuration is read or changed.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "squeue", "scontrol")
SBIN = ("/usr/sbin", "/usr/local/sbin")
# A GPU's device file must be a character device, and each one another.
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")
HOST = socket.gethostname().split(".")[0]

# cred_expire: so long a requeued job waits (else two minutes). JobRequeue=0: a job must ask for being requeued.
# Jobs of the partition `urgent` take the node from those of the others.
CONFIGURATION = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={root}/run/munge.sock,cred_expire=10
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
GresTypes=gpu
ReturnToService=2
JobRequeue=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
MinJobAge=3600
KillWait={kill_wait}
UnkillableStepTimeout=180
SlurmdTimeout=5
MailProg=/bin/true
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd.pid
StateSaveLocation={root}/controller
SlurmdSpoolDir={root}/spool
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=256000 Gres=gpu:4 State=UNKNOWN
PartitionName=gpu Nodes={host} Default=YES MaxTime=INFINITE DefMemPerCPU=500 State=UP
PartitionName=cpu Nodes={host} MaxTime=INFINITE DefMemPerCPU=500 State=UP
PartitionName=urgent Nodes={host} PriorityTier=10 DefMemPerCPU=500 State=UP
"""


def missing() -> list[str]:
    """Programs of Slurm that this machine lacks."""
    return [name for name in DAEMONS if not _find(name)]


def _find(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join((os.environ["PATH"], *SBIN)))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class SlurmCluster:
    """Start it as a context manager; `env` is what a shell needs to talk to it."""

    def __init__(self, kill_wait: int = 5) -> None:
        # Not pytest's folder: munged refuses a socket below a folder that others may not enter.
        self.root = Path(tempfile.mkdtemp(prefix="slurm."))
        self.root.chmod(0o755)
        self.kill_wait = kill_wait
        self.conf = self.root / "slurm.conf"
        # The Snakemake plugin drops SLURM_CONF before its inner srun; a wrapper, first in PATH, gives it back.
        path = os.pathsep.join((f"{self.root}/bin", str(Path(sys.executable).parent), os.environ["PATH"]))
        self.env = {"SLURM_CONF": str(self.conf), "PATH": path}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.commands: dict[str, list[str]] = {}

    def __enter__(self) -> SlurmCluster:
        try:
            self._write()
            self._munge()
            self.start("slurmctld", "-D", "-f", str(self.conf))
            self.start("slurmd", "-D", "-f", str(self.conf), "-N", HOST)
            self.wait_idle()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel what runs, stop every daemon, and kill whatever still knows this cluster."""
        with suppress(AssertionError, TimeoutError, subprocess.TimeoutExpired):
            if "slurmctld" in self.daemons:
                self.run("scancel", f"--user={getpass.getuser()}")
                self.wait(lambda: not self.run("squeue", "-h", "--states=PD,R,CG,S").strip(), "the queue to empty", 60)
        for name in reversed(list(self.daemons)):
            self.stop(name)
        self._kill_leftovers()
        shutil.rmtree(self.root, ignore_errors=True)

    def _write(self) -> None:
        for folder in ("controller", "spool", "log", "run", "munge", "bin"):
            (self.root / folder).mkdir()
        ports = {"controller_port": _free_port(), "node_port": _free_port()}
        facts = {"root": self.root, "host": HOST, "user": getpass.getuser(), "kill_wait": self.kill_wait}
        self.conf.write_text(CONFIGURATION.format(**facts, **ports))
        (self.root / "gres.conf").write_text(f"NodeName={HOST} Name=gpu File={','.join(DEVICES)}\n")
        wrapper = self.root / "bin" / "srun"
        wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self.conf} exec {_find("srun")} "$@"\n')
        wrapper.chmod(0o755)

    def _munge(self) -> None:
        at = self.root / "munge"
        at.chmod(0o700)
        key = at / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        run = self.root / "run"
        files = {"key": key, "socket": run / "munge.sock", "pid": run / "munged.pid", "seed": at / "seed"}
        options = [f"--{name}{'' if name == 'socket' else '-file'}={path}" for name, path in files.items()]
        self.start("munged", "--foreground", *options, f"--log-file={at}/log", "--num-threads=10")
        self.wait(files["socket"].exists, "munge's socket")

    def start(self, name: str, *options: str) -> None:
        """Start a daemon; without options, with those it had before."""
        if options:
            self.commands[name] = [_find(name) or name, *options]
        with (self.root / "log" / f"{name}.out").open("ab") as out:
            self.daemons[name] = subprocess.Popen(
                self.commands[name],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ | self.env,
                start_new_session=True,
            )

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        daemon = self.daemons.pop(name)
        daemon.send_signal(how)
        try:
            daemon.wait(60)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def run(self, *command: str) -> str:
        """Run a Slurm command and return what it prints."""
        done = subprocess.run(
            command,
            env=os.environ | self.env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,  # Slurm's own commands give up on a lost controller after a minute
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}{self.log()}"
        return done.stdout

    def jobs(self, *states: str) -> dict[str, str]:
        """Job number -> comment (rule and wildcards of a Snakemake job), of the jobs in these states, oldest first."""
        listed = self.run("squeue", "-h", "-S", "i", "-o", "%i|%k", f"--states={','.join(states) or 'all'}")
        return dict(line.split("|", 1) for line in listed.splitlines())

    def wait(self, ready: Callable[[], object], what: str, seconds: float = 600) -> None:
        """Wait until `ready()`. Raises TimeoutError, or AssertionError if a daemon that should run died."""
        deadline = time.monotonic() + seconds
        while not ready():
            for name, daemon in self.daemons.items():
                assert daemon.poll() is None, f"{name} died: {self.log()}"
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds:.0f} s for {what}\n{self.log()}")
            time.sleep(0.1)

    def wait_idle(self) -> None:
        self.wait(lambda: self.node_state() == "idle", "an idle node")

    def node_state(self) -> str:
        done = subprocess.run(
            ["sinfo", "-h", "-p", "gpu", "-o", "%T"],
            env=os.environ | self.env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.stdout.strip()

    def saved(self) -> bool:
        """Whether the controller has written what it knows: at the latest five seconds after anything changed."""
        return time.time() - (self.root / "controller" / "job_state").stat().st_mtime > 6

    def log(self) -> str:
        """The end of every daemon's log."""
        return "".join(f"\n== {p.name}\n{p.read_text()[-1500:]}" for p in sorted((self.root / "log").iterdir()))

    def processes(self, *words: str, job: str | None = None) -> dict[int, str]:
        """Process number -> job number, of the processes of jobs whose command line has all these words."""
        found = {}
        for pid, arguments, environment in self._mine():
            number = environment.get("SLURM_JOB_ID")
            if number and job in (None, number) and set(words) <= set(arguments):
                found[pid] = number
        return found

    def crash_node(self) -> None:
        """Kill the node daemon and all that runs below it at once, as a power cut would."""
        self.daemons["slurmd"].send_signal(signal.SIGSTOP)  # it must not report the deaths of the others
        for pid, arguments, environment in self._mine():
            if "SLURM_JOB_ID" in environment or arguments[0].startswith("slurmstepd"):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.stop("slurmd", signal.SIGKILL)

    def _mine(self) -> Iterator[tuple[int, list[str], dict[str, str]]]:
        """Number, command line and environment of every process that knows this cluster, but for this one.

        The first task of an array has no SLURM_CONF: Snakemake's plugin takes it away, and no srun gives it back.
        """
        ours = {str(self.conf), f"{self.root}/bin"}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                lines = (process / "environ").read_bytes().decode(errors="replace").split("\0")
                environment = dict(line.split("=", 1) for line in lines if "=" in line)
                known = environment.get("SLURM_CONF"), *environment.get("PATH", "").split(os.pathsep)
                if process.name != str(os.getpid()) and not ours.isdisjoint(known):
                    arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    yield int(process.name), arguments, environment

    def _kill_leftovers(self) -> None:
        for pid, _, _ in self._mine():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
