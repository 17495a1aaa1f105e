"""Whatever happens to the jobs of a study on a real Slurm, its students are those of an undisturbed run, bit for bit.

Every cell (here: seed) of a small study is hit by a fault of its own while `snakemake --profile slurm` runs. A trainer
that has written a checkpoint is stopped (SIGSTOP) until it is its turn, so that every fault finds it in the middle.
"""

from __future__ import annotations

import getpass
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml
from slurm_cluster import SlurmCluster
from workbench import BEFORE, Workbench

from distillery.pipeline.layout import Layout
from distillery.records.io import load_tensors, read_json

pytestmark = pytest.mark.slow
AT = Layout("digits")
PAIR, METHOD, EPOCHS = "resnet20_w8-resnet8_w8", "kd", 4
FAILING = ("cancelled", "trainer killed", "time limit", "disk full")
DOUBLED = ("snakemake killed", "snakemake and job killed")
REQUEUED = ("preempted", "node crashed")
ARRAY = ("task of an array killed", "beside it in the array")
FAULTS = (*FAILING, *DOUBLED, "controller killed", *REQUEUED, *ARRAY)
SEED = {fault: str(seed) for seed, fault in enumerate(FAULTS)}
MEASURED = {"cancelled", "snakemake killed", "preempted", *ARRAY}  # evaluated too: what follows a job that was hit
ALL, UNDISTURBED = f"0-{len(SEED) - 1}", "undisturbed"


def target(fault: str) -> str:
    """What is asked of Snakemake for a cell."""
    return str((AT.metrics if fault in MEASURED else AT.students)(PAIR, METHOD, SEED[fault]))


class Ordeal:
    """A run of `snakemake --profile slurm` whose cells are named after the fault that will hit them."""

    def __init__(self, bench: Workbench, cluster: SlurmCluster, faults: tuple[str, ...]) -> None:
        self.bench, self.cluster, self.faults = bench, cluster, faults
        self.stopped: dict[str, int] = {}  # fault -> the trainer that waits for it
        self.wanted = set[str]()
        for fault in faults:
            self.want(fault)
        self.said: dict[str, str] = {}  # fault -> the last line of the log when the job was gone
        self.output = ""

    def __enter__(self) -> Ordeal:
        return self

    def __exit__(self, *_: object) -> None:
        """After a failure: leave nothing behind that other tests would meet."""
        if self.snakemake.poll() is None:
            os.killpg(self.snakemake.pid, signal.SIGKILL)
            self.snakemake.wait()
            self.cluster.run("scancel", f"--user={getpass.getuser()}")

    def want(self, fault: str) -> None:
        """Let the next trainer of a cell stop in the middle."""
        self.wanted.add(fault)
        self.bench.pause(self.checkpoint(fault))

    def start(self, *options: str, **env: str) -> None:
        self.out = (self.bench.root / "snakemake.out").open("w+")
        targets = map(target, self.faults)
        command = ["snakemake", "--profile", "slurm", "--quiet", "host", *options, "--", *targets]
        settings = self.bench.env() | self.cluster.env | self.bench.pausing() | env
        self.snakemake = subprocess.Popen(
            command, cwd=self.bench.root, env=settings, stdout=self.out, stderr=self.out, start_new_session=True
        )

    def finish(self) -> None:
        """Wait for Snakemake, which must have succeeded."""
        self.until(lambda: self.snakemake.poll() is not None, "Snakemake to finish", 1800)
        self.output = self.read()
        assert self.snakemake.returncode == 0, self.output + self.bench.logs()

    def read(self) -> str:
        """What Snakemake printed since it was last started."""
        return Path(self.out.name).read_text()

    def until(self, ready: Callable[[], object], what: str, seconds: float = 1200) -> None:
        """Wait, and meanwhile note every trainer that has stopped for a fault to come."""

        def look() -> object:
            for fault in tuple(self.wanted):
                if pid := self.bench.paused(self.checkpoint(fault)):
                    self.stopped[fault] = pid
                    self.wanted.remove(fault)
            return ready()

        try:
            self.cluster.wait(look, what, seconds)
        except (AssertionError, TimeoutError) as error:
            raise AssertionError(f"{error}\n{self.read()[-3000:]}\n{self.bench.logs()}") from None

    def caught(self, fault: str) -> int:
        """Wait until the trainer of a cell is stopped in the middle; return its process number."""
        self.until(lambda: fault in self.stopped, f"the trainer that is to be hit: {fault}")
        return self.stopped[fault]

    def job(self, fault: str) -> str:
        pid = self.caught(fault)
        return self.cluster.processes()[pid]

    def gone(self, fault: str) -> None:
        """Wait until the trainer of a cell has ended; remember what the user then finds in the log."""
        pid = self.stopped.pop(fault)
        self.until(lambda: not Path(f"/proc/{pid}").exists(), f"the end of the trainer that was hit: {fault}")
        self.said[fault] = self.log(fault).strip().rpartition("\n")[2]

    def release(self, fault: str) -> None:
        os.kill(self.stopped[fault], signal.SIGCONT)

    def log(self, fault: str) -> str:
        path = self.bench.root / AT.log("distill", PAIR, METHOD, SEED[fault])
        return path.read_text() if path.exists() else ""

    def checkpoint(self, fault: str) -> Path:
        return AT.checkpoint(PAIR, METHOD, SEED[fault])

    def jobs(self, fault: str) -> list[str]:
        """States of all Slurm jobs that ever trained this cell, oldest first."""
        comment = f"rule_distill_wildcards_{PAIR}_{METHOD}_{SEED[fault]}"
        listed = self.cluster.run("squeue", "-h", "-S", "i", "-o", "%T|%k", "--states=all").splitlines()
        return [line.split("|")[0] for line in listed if line.endswith(f"|{comment}")]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """A working copy in which everything before the students is done, and one undisturbed training of every cell."""
    bench = Workbench(tmp_path_factory.mktemp("ordeal"))
    bench.tiny(epochs=EPOCHS, methods=(METHOD,), seeds=(ALL,))
    path = bench.root / "workflow/profiles/slurm/config.yaml"
    profile = yaml.safe_load(path.read_text())
    profile |= {"slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 1, "latency-wait": 5}
    path.write_text(yaml.safe_dump(profile))
    bench.make(*BEFORE, "distill")
    (bench.root / AT.runs(PAIR, METHOD)).rename(bench.root / UNDISTURBED)  # or its runs would be taken over
    bench.params = bench.params | {"seeds": list(map(int, SEED.values()))}
    return bench


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Put a file system of 16 kB where `folder` is, until it is unmounted."""
    folder.mkdir(parents=True)
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        if folder.is_mount():
            unmount(folder)


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def first(bench: Workbench, slurm: SlurmCluster) -> Iterator[Ordeal]:
    """One run of Snakemake that sees its jobs fail, and tries them again. The node's own disk is full all the time."""
    outputs = bench.root / AT.students(PAIR, METHOD, SEED["disk full"]).parent
    scratch = bench.root / "scratch"
    with small_disk(outputs), small_disk(scratch), Ordeal(bench, slurm, FAILING) as run:
        run.wanted.remove("disk full")
        Path(f"{bench.root / run.checkpoint('disk full')}.pause").unlink()
        run.start(DISTILLERY_SCRATCH=str(scratch))
        slurm.run("scancel", run.job("cancelled"))
        run.gone("cancelled")
        os.kill(run.caught("trainer killed"), signal.SIGKILL)
        run.gone("trainer killed")
        run.until(lambda: "the disk is full" in run.log("disk full"), "the disk to be full")
        run.said["disk full"] = run.log("disk full").strip().rpartition("\n")[2]
        unmount(outputs)
        slurm.run(
            "scontrol", "update", f"jobid={run.job('time limit')}", "timelimit=2"
        )  # minutes: time for the warning
        run.gone("time limit")
        run.finish()
        yield run


@pytest.fixture(scope="module")
def second(bench: Workbench, slurm: SlurmCluster, first: Ordeal) -> Iterator[Ordeal]:
    """A run of Snakemake that outlives the controller, then is killed itself and started again."""
    with Ordeal(bench, slurm, (*DOUBLED, "controller killed")) as run:
        run.start()
        orphans = [run.caught(fault) for fault in DOUBLED]
        run.caught("controller killed")
        run.until(slurm.saved, "the controller to know on disk what runs")
        slurm.stop("slurmctld", signal.SIGKILL)
        slurm.start("slurmctld")
        run.release("controller killed")
        run.gone("controller killed")
        run.until(lambda: "1 of 4 steps" in run.read(), "Snakemake to learn that the job is done")

        os.killpg(run.snakemake.pid, signal.SIGKILL)
        run.snakemake.wait()
        bench.run("snakemake", "--unlock")
        run.start()
        for fault in DOUBLED:
            run.until(lambda f=fault: "waiting for another process" in run.log(f), f"the double of the job: {fault}")
        run.release("snakemake killed")
        os.kill(orphans[1], signal.SIGKILL)
        for fault in DOUBLED:
            run.gone(fault)
        run.finish()
        yield run


@pytest.fixture(scope="module")
def third(bench: Workbench, slurm: SlurmCluster, second: Ordeal) -> Iterator[Ordeal]:
    """A run of Snakemake whose jobs are put back into the queue by Slurm itself."""
    with Ordeal(bench, slurm, REQUEUED) as run:
        run.start()
        victims = [run.caught(fault) for fault in REQUEUED]
        slurm.run("sbatch", "--partition=urgent", "--gpus=4", "--output=/dev/null", "--wrap=true")
        for fault in REQUEUED:
            run.gone(fault)
        run.want("node crashed")
        assert run.caught("node crashed") not in victims
        slurm.crash_node()
        run.gone("node crashed")
        run.until(lambda: "down" in slurm.node_state(), "Slurm to miss the node")
        slurm.start("slurmd")
        run.finish()
        yield run


@pytest.fixture(scope="module")
def array(bench: Workbench, slurm: SlurmCluster, third: Ordeal) -> Iterator[Ordeal]:
    """Two runs are tasks of one array, and the trainer of one of them is killed."""
    with Ordeal(bench, slurm, ARRAY) as run:
        run.start("--slurm-array-jobs", "distill,evaluate")
        for fault in ARRAY:
            run.caught(fault)
        array, tasks = zip(*(number.split("_") for number in slurm.jobs("R")), strict=True)
        assert len({*array}) == 1 and {*tasks} == {"1", "2"}
        os.kill(run.stopped[ARRAY[0]], signal.SIGKILL)
        run.gone(ARRAY[0])
        run.release(ARRAY[1])
        run.gone(ARRAY[1])
        run.finish()
        yield run


def same_result(bench: Workbench, fault: str) -> None:
    """Weights, history and record are those of the undisturbed run; nothing is left over, nothing is there twice."""
    seed, made = SEED[fault], (bench.root / AT.students(PAIR, METHOD, SEED[fault])).parent
    for name in ("students.safetensors", "history.safetensors"):
        ours, undisturbed = load_tensors(made / name), load_tensors(bench.root / UNDISTURBED / ALL / name)
        expected = {key: tensor for key, tensor in undisturbed.items() if key.startswith(f"{seed}.")}
        assert expected
        assert ours.keys() == expected.keys()
        assert all(ours[key].numpy().tobytes() == tensor.numpy().tobytes() for key, tensor in expected.items())
    records = [read_json(folder / "runs.json") for folder in (made, bench.root / UNDISTURBED / ALL)]
    assert [record.pop("seeds") for record in records] == [[int(seed)], list(map(int, SEED.values()))]
    for record in records:
        spec = record.pop("spec")
        record |= {"values": spec["values"], "code": spec["code"]}
        del record["spec_sha256"], record["outputs"], record["seal"]
    assert records[0] == records[1]
    assert not (bench.root / AT.checkpoint(PAIR, METHOD, seed)).exists()
    if fault in MEASURED:
        measured = read_json(bench.root / AT.metrics(PAIR, METHOD, seed))["runs"]
        assert [run["seed"] for run in measured] == [int(seed)]
    left = [p.name for p in made.iterdir()]
    assert sorted(left) == ["history.safetensors", "runs.json", "students.safetensors"]


@pytest.mark.parametrize("fault", FAILING)
def test_a_job_that_fails_is_tried_again(bench: Workbench, first: Ordeal, fault: str) -> None:
    same_result(bench, fault)
    *failed, last = first.jobs(fault)
    assert last == "COMPLETED"
    assert failed == ["CANCELLED" if fault == "cancelled" else "FAILED"]
    # The user is shown the way to the log, and the log said what happened.
    log = AT.log("distill", PAIR, METHOD, SEED[fault])
    assert re.search(rf"Error in rule distill:\n(?: +.*\n)+? +log: {log}, \S+ \(check log file", first.output)
    if fault in ("cancelled", "time limit"):
        assert "by SIGTERM (cancelled, preempted or out of time): the state is saved" in first.said[fault]
    if fault == "disk full":
        assert re.match(r"distillery: cannot write .*: the disk is full; free some space", first.said[fault])
    said = first.log(fault)
    assert re.search(rf"^going on after \d+ of {EPOCHS} epochs", said, re.MULTILINE), "it began from nothing"
    assert "in DISTILLERY_SCRATCH (No space left on device): it is read from where it is" in said


@pytest.mark.parametrize("fault", DOUBLED)
def test_snakemake_is_killed_and_started_again(bench: Workbench, second: Ordeal, fault: str) -> None:
    """Its jobs live on, and meet their doubles."""
    same_result(bench, fault)
    log = second.log(fault)
    assert re.match(r"waiting for another process \(process \d+ on \S+, Slurm job \d+\) that is making ", log)
    if fault == "snakemake killed":
        assert second.jobs(fault) == ["COMPLETED", "COMPLETED"]
        assert "was made meanwhile by the process waited for: kept" in log
        assert "epoch" not in log, "the second one trained again"
    else:
        assert second.jobs(fault) == ["FAILED", "COMPLETED"]
        assert re.search(rf"going on after \d+ of {EPOCHS} epochs", log)


def test_the_controller_is_killed_and_started_again(bench: Workbench, second: Ordeal) -> None:
    """Neither the job nor Snakemake takes notice."""
    same_result(bench, "controller killed")
    assert second.jobs("controller killed") == ["COMPLETED"]
    assert "going on" not in second.log("controller killed"), "the job was started again"


@pytest.mark.parametrize("fault", REQUEUED)
def test_slurm_queues_the_job_again(bench: Workbench, third: Ordeal, fault: str) -> None:
    """That is no failure to Snakemake and costs none of its retries."""
    same_result(bench, fault)
    assert third.jobs(fault) == ["COMPLETED"]
    assert "Error in rule" not in third.output
    assert re.match(rf"going on after \d+ of {EPOCHS} epochs", third.log(fault))
    if fault == "preempted":
        assert "by SIGTERM (cancelled, preempted or out of time): the state is saved" in third.said[fault]


@pytest.mark.parametrize("fault", ARRAY)
def test_tasks_of_an_array_fail_alone(bench: Workbench, array: Ordeal, fault: str) -> None:
    same_result(bench, fault)
    assert ("going on after" in array.log(fault)) == (fault == ARRAY[0])


def test_nothing_is_left_to_do(bench: Workbench, array: Ordeal, slurm: SlurmCluster) -> None:
    said = bench.run("snakemake", "--profile", "slurm", "-n", "--", *map(target, FAULTS), **slurm.env)
    assert "Nothing to be done" in said.stdout + said.stderr
    assert not [p for p in (bench.root / AT.artifacts).rglob(".*") if p.suffix in (".lock", ".tmp")]
    with suppress(FileNotFoundError):
        assert not list((bench.root / AT.artifacts / "checkpoints" / PAIR).rglob("*.safetensors"))
