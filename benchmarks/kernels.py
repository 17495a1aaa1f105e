"""Where a step's time goes: the kernels of our captured step, by kind, and what is left between them.

    python benchmarks/kernels.py [--students resnet8x4,vgg8] [--precision bfloat16] [--compile] [--most 12] [--markdown]

torch's profiler watches some steps after others that do not count. On CUDA it sees every kernel of the graph's replays;
what the step takes beyond their sum is gaps, in which the device waits. On the CPU it sees operations, each without
those that it calls.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ours import Ours, pixels, random_table
from side_by_side import device, now, parser, show, use_threads
from torch.profiler import ProfilerActivity, profile

from distillery.report.recipes import precision_of
from distillery.study.blocks import Recipe

# The first that a name matches; names of kernels are cuDNN's, cuBLAS's, inductor's and torch's own.
KINDS = {
    "convolution, weights' gradient": r"wgrad|dw_|backward_weight",
    "convolution, inputs' gradient": r"dgrad|backward_data|bprop",
    "layout": r"nchwTo|nhwcTo|transpose|permute",
    "convolution and matrix product": r"conv|xmma|implicit|gemm|cutlass|nvjet|fprop|mkldnn|dnnl|addmm|linear",
    "fused by the compiler": r"triton",
    "normalisation": r"batch_?norm|bn_|norm",
    "optimiser": r"multi_tensor|foreach|fused_sgd|sgd",
    "rows of images, labels, tables": r"gather|index|take|scatter",
    "reduction": r"reduce|sum|mean|softmax",
    "elementwise and copies": r"elementwise|vectorized|copy|memcpy|memset|fill|add|mul|div|clamp|cat|relu|threshold",
}


def kind(name: str) -> str:
    """What a kernel does, by its name."""
    return next((told for told, pattern in KINDS.items() if re.search(pattern, name, re.IGNORECASE)), "other")


def spent(ours: Ours, steps: int) -> tuple[float, dict[str, float], dict[str, float]]:
    """Milliseconds of a step, and by name of a kernel its milliseconds and its launches in a step."""
    ours.run(steps)
    on_cuda = device().type == "cuda"
    wall = ours.run(steps)
    with profile(activities=[ProfilerActivity.CUDA if on_cuda else ProfilerActivity.CPU]) as seen:
        ours.run(steps)
        now()
    times, launches = Counter[str](), Counter[str]()
    for event in seen.key_averages():
        taken = event.self_device_time_total if on_cuda else event.self_cpu_time_total
        if taken > 0:
            times[event.key] += taken / 1e3 / steps
            launches[event.key] += event.count / steps
    return 1e3 * wall / steps, times, launches


def by_kind(values: Mapping[str, float]) -> Counter[str]:
    """Sums over the kernels of each kind."""
    found = Counter[str]()
    for name, value in values.items():
        found[kind(name)] += value
    return found


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, steps=20, batch=64, images=10_000, threads=1)
    options.add_argument("--students", default="resnet8x4,vgg8", help="student,...")
    options.add_argument("--precision", default="float32", help="of the recipe: float32, tf32, bfloat16")
    options.add_argument("--compile", action="store_true", help="compile the student")
    options.add_argument("--most", type=int, default=12, help="kernels that are named; default 12")
    given = options.parse_args(argv)
    use_threads(given.threads)
    recipe = Recipe(batch_size=given.batch, precision=given.precision, channels_last=True, compile=given.compile)
    data, table = pixels(given.images, None), random_table(given.images, 162, 100)
    for student in given.students.split(","):
        step, times, launches = spent(Ours(student, data, table, recipe), given.steps)
        kinds, counts, busy = by_kind(times), by_kind(launches), sum(times.values())

        def row(what: str, taken: float, count: float, whole: float = step) -> list[Any]:
            return [what, f"{taken:.3f}", f"{count:.0f}", f"{100 * taken / whole:.0f} %"]

        rows = [row(name, taken, counts[name]) for name, taken in kinds.most_common()]
        rows += [row("between kernels", max(0.0, step - busy), 0), row("step", step, sum(launches.values()))]
        longest = sorted(times, key=times.__getitem__, reverse=True)[: given.most]
        named = "; ".join(f"{name[:60]} {times[name]:.3f} ms in {launches[name]:.0f}" for name in longest)
        precision = precision_of(recipe.effective())
        note = f"{student}, batch {given.batch}, {precision}, {given.steps} steps. Longest: {named}."
        heads = ["kind", "ms/step", "launches", "share"]
        show(f"kernels: {student} on {device().type}", heads, rows, given.markdown, note)


if __name__ == "__main__":
    main()
