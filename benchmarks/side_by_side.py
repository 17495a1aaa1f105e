"""What the benchmarks share: sides timed in turn, the machine they ran on, one table of ratios.

A ratio is the median over the rounds of (time of one side / time of the other in the same round): a neighbour that
slows the machine down slows both. The range behind it holds the middle half of the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from tabulate import tabulate

from distillery.records.environment import environment
from distillery.training.device import chosen_device

Side = Callable[[], object]  # does some work; a float it returns is its seconds, else it is timed from outside
clock = time.perf_counter


def parser(doc: str | None, **defaults: int) -> argparse.ArgumentParser:
    """Command-line options that every benchmark has; `defaults` are those of --rounds, --steps, --batch."""
    made = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    made.add_argument("--markdown", action="store_true", help="print Markdown, to paste into benchmarks/results.md")
    made.add_argument(
        "--busy", action=_ProcessorTime, nargs=0, help="count processor seconds (busy machine, one thread)"
    )
    for name, value in defaults.items():
        made.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    return made


class _ProcessorTime(argparse.Action):
    """Count the seconds that this process was running, not those it waited while others had the processor."""

    def __call__(self, *_: object) -> None:
        global clock
        clock = time.process_time


def now() -> float:
    """Seconds on the clock in use, after all work on the device is done."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return clock()


def captured(step: Callable[[], object], reset: Callable[[], object] = lambda: None) -> Callable[[], None]:
    """A CUDA graph of `step`, on a stream of its own; `reset` comes before each warm-up and before the capture."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            reset()
            step()
    torch.cuda.current_stream().wait_stream(stream)
    reset()
    with torch.cuda.graph(graph, stream=stream):
        step()
    return partial(_replay, graph, step)


def _replay(graph: torch.cuda.CUDAGraph, step: object) -> None:
    """Replay a graph; the step is held because the graph reads the very tensors that it was made with."""
    graph.replay()


def device() -> torch.device:
    """The device that distillery trains on here (DISTILLERY_DEVICE overrides)."""
    return chosen_device()


def use_threads(count: int) -> None:
    """Set the OpenMP threads of this process, and of every later `set_up` in it."""
    os.environ["OMP_NUM_THREADS"] = str(count)
    torch.set_num_threads(count)


def alternate(sides: dict[str, Side], rounds: int) -> dict[str, list[float]]:
    """Run all sides in turn, `rounds` times after one round that does not count; return seconds by side and round."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, side in sides.items():
            start = now()
            taken = side()
            times[name].append(taken if isinstance(taken, float) else now() - start)
    return {name: seconds[1:] for name, seconds in times.items()}


def ratio(slow: Sequence[float], fast: Sequence[float]) -> str:
    """Median ratio of paired rounds, with the range of the middle half: "2.91 (2.85-2.97)"."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    if len(ratios) < 3:
        return f"{statistics.median(ratios):.2f}"
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{statistics.median(ratios):.2f} ({low:.2f}-{high:.2f})"


def milliseconds(seconds: Sequence[float], each: int = 1) -> str:
    """Median of some times, per step."""
    found = 1e3 * statistics.median(seconds) / each
    return f"{found:.3g}" if found < 100 else f"{found:,.0f}"


def machine() -> str:
    """One line: processor, cores, what helps bfloat16, load, versions, accelerator."""
    facts = environment()
    matrix = "with AMX" if "AMX" in facts.get("cpu_instructions", "") else "without AMX"
    parts = [f"{facts['cpu']} {matrix}", f"{facts['cpu_count']} cores"]
    parts.append(f"load average {os.getloadavg()[0]:.1f}")
    if device().type == "cuda":
        parts.append(torch.cuda.get_device_name())
    if clock is time.process_time:
        parts.append("busy: processor time, not wall time")
    return ", ".join([*parts, f"torch {torch.__version__}", time.strftime("%Y-%m-%d")])


def show(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]], markdown: bool, note: str = "") -> None:
    """Print title, machine, table and note."""
    print(f"### {title}\n" if markdown else title)
    print(machine() + ("\n" if markdown else ""))
    print(tabulate(rows, heads, "github" if markdown else "simple", disable_numparse=True))
    if note:
        print(f"\n{note}" if markdown else note)
