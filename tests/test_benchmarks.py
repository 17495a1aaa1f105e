"""The benchmarks run, what they compare is the same training, and their arithmetic is right."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import synthetic_study
import torch
import warm
import yaml
from browser import CHROMIUM
from conftest import ROOT
from PIL import Image

from distillery import models
from distillery.data.resident import ResidentEpoch
from distillery.evaluation.macs import multiply_accumulates
from distillery.objectives import OBJECTIVES
from distillery.pipeline import check
from distillery.pipeline.planner import resolve
from distillery.study.blocks import Recipe
from distillery.teachers.source import LiveTeachers

TINY = ["--batch", "8", "--images", "16", "--rounds", "3", "--steps", "1"]
RUNS = {
    "reference": [*TINY, "--threads", "1", "--pairs", "resnet8:resnet8", "--workers", "0", "--random"],
    "limit": [*TINY, "--students", "resnet8"],
    "bench": [*TINY, "--pairs", "resnet8:resnet8", "--workers", "0", "--busy"],
    "deterministic": [*TINY, "--students", "resnet8"],
    "compile": [*TINY, "--students", "resnet8", "--backend", "eager"],
    "streaming": ["--images", "16", "--rounds", "3", "--batch", "8", "--size", "32"],
    "table": ["--images", "1", "--rounds", "3", "--teachers", "resnet8"],
    "precision": ["--seeds", "3", "--epochs", "1", "--teacher-epochs", "1"],
    "packing": [
        "--batch",
        "8",
        "--images",
        "16",
        "--rounds",
        "1",
        "--seconds",
        "0.2",
        "--student",
        "resnet8",
        "--processes",
        "1x1",
        "--graphs",
        "2",
    ],
}
RATIO = re.compile(r"\| *(\d+\.\d\d)(?: \((\d+\.\d\d)-(\d+\.\d\d)\))? *\|")


@pytest.fixture(autouse=True)
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import benchmarks by name, as their scripts do; undo what they set for the whole process."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("DISTILLERY_DEVICE", "cpu")
    cudnn, tf32 = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = cudnn, tf32
    torch.set_flush_denormal(False)
    torch.set_num_threads(1)
    importlib.import_module("side_by_side").clock = time.perf_counter  # --busy sets another


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_prints_a_table(name: str, bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Title, machine, and in every row of times a ratio that is a positive number within its own range."""
    bench(name).main([*RUNS[name], "--markdown"])
    out = capsys.readouterr().out
    assert out.startswith(f"### {name}: ")
    assert f"torch {torch.__version__}" in out
    rows = [line for line in out.splitlines() if line.startswith("|")][2:]
    assert rows
    if name == "precision":
        assert "± " in rows[0]
        assert "95 % interval" in rows[2] or "+0.00 " in rows[2]  # equal runs have none
        return
    for row in rows:
        ratios = [[float(n) for n in found if n] for found in RATIO.findall(row)]
        assert ratios, row
        for middle, *ends in ratios:
            assert middle > 0
            assert not ends or ends[0] <= middle <= ends[1]


@pytest.mark.slow
def test_a_page_is_measured_in_a_browser(
    bench: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row is there, no table is cut without a hint, and the pictures show something."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    pictures = tmp_path / "pictures"
    for name in ("IMAGES", "CLASSES"):
        monkeypatch.setattr(synthetic_study, name, getattr(synthetic_study, name))  # put back what it sets
    bench("page").main(["--pairs", "2", "--methods", "2", "--seeds", "2", "--into", str(pictures), "--markdown"])
    out = capsys.readouterr().out
    assert out.startswith("### page: the report of 2 pairs x 2 methods x 2 seeds")
    rows = dict(re.findall(r"^\| ([^|]+?) +\| ([^|]+?) +\|$", out, re.MULTILINE))
    assert float(rows["load event, median of 5"].removesuffix(" s")) > 0
    assert [rows[f"tables cut without a hint at {width} px"] for width in (400, 1280)] == ["0", "0"]
    assert [rows[f"sideways panning of the page at {width} px"] for width in (400, 1280)] == ["0 px", "0 px"]
    dark, light = (Image.open(pictures / f"400-{scheme}-folded.png").convert("L") for scheme in ("dark", "light"))
    assert np.asarray(dark).mean() < 100 < 200 < np.asarray(light).mean()
    assert (pictures / "paper.pdf").read_bytes().startswith(b"%PDF-")


@pytest.mark.slow
def test_a_study_is_repeated_with_one_thing_changed(
    bench: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Really trained, on a smaller scale; a second call finds it done, and prints the differences of its table."""
    roundings = bench("roundings")

    def small(params: dict[str, Any]) -> None:
        params["recipe"] |= {"epochs": 2, "milestones": [], "test_every": 2}
        params["teachers"]["resnet20_w8"]["recipe"] = {"epochs": 2, "milestones": []}
        params["methods"] = {name: params["methods"][name] for name in ("ce", "kd")}
        params["seeds"] = ["0-2"]
        for change in ("bfloat16", "instructions", "teacher"):
            roundings.CHANGES[change][0](params)

    monkeypatch.setitem(roundings.CHANGES, "small", (small, ()))
    monkeypatch.setenv("PATH", warm.first(os.environ["PATH"]))
    asked = ["--changes", "small", "--folder", str(tmp_path), "--markdown"]
    for _ in range(2):
        roundings.main(asked)
    first, second = re.findall(r"^\| small +\|(.*)\|$", capsys.readouterr().out, re.MULTILINE)
    assert first == second
    plan = (tmp_path / "small/artifacts/digits/specs/distill/resnet20_w8-resnet8_w8/kd/0-2.json").read_text()
    assert '"precision": "bfloat16"' in plan and "instructions" not in plan  # which digits has, and no other study
    table = (tmp_path / "small/results/digits/table.md").read_text()
    difference = first.split("|")[2].strip().replace("-", "\N{MINUS SIGN}")
    assert difference.split(" ± ")[0] in table and "KD" in first
    with pytest.raises(SystemExit):
        roundings.main(["--changes", "colour"])
    assert "colour is none of as it is, bfloat16, instructions, threads, teacher" in capsys.readouterr().err


@pytest.mark.slow
def test_a_study_is_compared_on_two_processors(
    bench: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an emulator of this very processor: a script that runs what it is given."""
    (emulator := tmp_path / "qemu-x86_64").write_text('#!/bin/sh\n[ "$1 $2" = "-cpu Mine" ] && shift 2 && exec "$@"\n')
    emulator.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    bench("processors").main(["--processors", "Mine", "--instructions", "avx2", "--methods", "ce", "--markdown"])
    [(same, of)] = re.findall(r"\| avx2 +\| Mine +\| (\d+) of (\d+)", capsys.readouterr().out)
    assert same == of and int(of) > 60


def test_the_floor_counts_every_product_once(bench: Any) -> None:
    """Forward, and twice as many backward, but for the gradient of the images, which nobody asks for."""
    found = bench("roofline").operations("resnet8", 2, "float32")
    network = models.build("resnet8", 100).eval()
    stem = 2 * 16 * 3 * 9 * 32 * 32 * 2
    macs = multiply_accumulates(network, torch.zeros(1, 3, 32, 32))
    assert sum(o.flops for o in found) == 3 * 2 * 2 * macs - stem
    weights = sum(p.numel() for p in network.parameters())
    assert found[-1].bytes == 20 * weights
    rough = bench("roofline").operations("resnet8", 2, "bfloat16")
    assert 0.45 < sum(o.bytes for o in rough[:-1]) / sum(o.bytes for o in found[:-1]) < 0.55
    rates = bench("roofline").Rates(flops=100.0, launch=1.0, copies={64: 16.0, 1024: 32.0})
    operation = bench("roofline").Operation
    assert [rates.seconds(operation(*work)) for work in [(0, 8), (500, 8), (0, 64), (0, 65), (0, 4096)]] == [
        *(1.0, 5.0, 4.0),
        *(65 / 32, 128.0),
    ]


def test_a_section_of_the_results_is_replaced_or_added(bench: Any) -> None:
    page = "# Results\n\n## bench: on cpu\n\nold\n\n## limit: other\n\nkept\n"
    new = bench("bench").replaced(page, "bench: on cpu", "### bench: on cpu\n\nnew\n")
    assert new == page.replace("old", "new")
    assert bench("bench").replaced(new, "bench: on cuda", "### bench: on cuda\n\nmore\n") == (
        new + "\n## bench: on cuda\n\nmore\n"
    )


@pytest.mark.slow
def test_a_lent_machine_trains_and_keeps_what_the_time_allows(
    bench: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study of two methods of an epoch: no time, then enough for the second one first, then nothing left to do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", shutil.which("python", path=warm.first(str(Path(sys.executable).parent))))
    content = {
        "study": "tiny",
        "data": {"source": "digits", "test_fraction": 0.9},
        "recipe": {"epochs": 1, "milestones": [], "batch_size": 32, "augmentation": {"pad": 0, "flip": False}},
        "teachers": {"big": {"architecture": "resnet8_w2"}},
        "pairs": {"big-small": {"teacher": "big", "student": "resnet8_w2"}},
        "methods": {"ce": {"objective": "ce"}, "other": {"objective": "ce"}},
        "seeds": ["0-1"],
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    said = []
    for minutes, methods in (("0.5", ""), ("5", "other,ce"), ("5", "")):
        study = ["--study", str(tmp_path / "tiny.yaml"), "--methods", methods]
        bench("device").main(["--minutes", minutes, "--parts", "", *study])
        said.append(capsys.readouterr().out)
        monkeypatch.chdir(tmp_path)
    assert "tiny: 0 more runs kept, 2 jobs left" in said[0]
    assert "tiny: 4 more runs kept, 0 jobs left" in said[1]
    assert said[1].index("distill big-small other") < said[1].index("distill big-small ce")
    assert "tiny: 0 more runs kept, 0 jobs left" in said[2]
    kept = tmp_path / "device-out" / "results" / "tiny" / "kept" / "big-small" / "ce"
    assert sorted(path.name for path in kept.iterdir()) == ["0-1.json", "0-1.origin.json", "0-1.safetensors"]
    with pytest.raises(SystemExit, match="tiny has no 'kd'; it has ce, other"):
        bench("device").main(["--parts", "", *study[:2], "--methods", "kd"])


@pytest.mark.slow
def test_kernels_are_told_by_kind_and_sum_up_to_the_step(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    module = bench("kernels")
    assert module.kind("sm90_xmma_wgrad_implicit_gemm_indexed_bf16") == "convolution, weights' gradient"
    assert module.kind("triton_per_fused__native_batch_norm_legit_3") == "fused by the compiler"
    assert module.kind("void at::native::unrolled_elementwise_kernel") == "elementwise and copies"
    module.main(["--batch", "8", "--images", "32", "--steps", "2", "--students", "resnet8"])
    lines = [line.rsplit(maxsplit=4) for line in capsys.readouterr().out.splitlines() if line.endswith("%")]
    took = {name.strip(): float(ms) for name, ms, *_ in lines}
    whole = took.pop("step")
    assert took["convolution and matrix product"] > 0
    assert sum(took.values()) >= 0.9 * whole  # what is between kernels is the rest


@pytest.mark.slow
def test_every_objective_is_measured_or_left_out_for_a_reason(
    bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = bench("objectives")
    monkeypatch.setattr(module, "SIZES", ((4, 10),))
    monkeypatch.setattr(module, "IMAGES", 400)
    module.main(["--seconds", "0"])
    shown = capsys.readouterr()
    measured = {line.split()[0] for line in shown.out.splitlines() if line[:1].isalpha()}
    left_out = {line.split()[1].rstrip(":") for line in shown.err.splitlines() if "left out" in line}
    assert left_out == {"deit", "vkd_tokens"} and set(OBJECTIVES) - measured == left_out


def test_parts_for_a_lent_machine_are_scripts_that_are_there(bench: Any) -> None:
    every = bench("device").parts()
    assert ",".join(every) == "checks,step,packing,table,layout,kernels,deterministic,objectives"
    for name, command, limit in (piece for pieces in every.values() for piece in pieces):
        assert limit > 0
        files = [Path(word) for word in command if word.endswith(".py")]
        assert files and all(file.is_file() for file in files), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_captured_step_keeps_what_it_reads(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its maker's tensors would otherwise be freed, and their memory given to others, while the graph reads it."""
    monkeypatch.delenv("DISTILLERY_DEVICE")
    total = torch.zeros((), device="cuda")

    def made() -> Any:
        ones = torch.ones(1000, device="cuda")
        return bench("side_by_side").captured(lambda: total.copy_(ones.sum()))

    replay = made()
    others = [torch.full((1000,), 7.0, device="cuda") for _ in range(100)]
    replay()
    assert total.item() == 1000 and len(others) == 100


def test_rounds_alternate_and_the_first_does_not_count(bench: Any) -> None:
    tools, order, seconds = bench("side_by_side"), [], iter([9.0, 9.0, 4.0, 2.0, 6.0, 2.0, 2.0, 2.0])

    def side(name: str) -> float:
        order.append(name)
        return next(seconds)

    times = tools.alternate({"slow": lambda: side("slow"), "fast": lambda: side("fast")}, 3)
    assert order == ["slow", "fast"] * 4
    assert times == {"slow": [4.0, 6.0, 2.0], "fast": [2.0, 2.0, 2.0]}
    assert tools.ratio(times["slow"], times["fast"]) == "2.00 (1.50-2.50)"
    assert tools.milliseconds(times["slow"], 2) == "2,000"


def test_classic_loop_and_ours_train_alike(bench: Any) -> None:
    """One step from the same weights on the same views: same loss, same weights after it."""
    ours_, reference = bench("ours"), bench("reference")
    data = ours_.pixels(8, None)
    ours = ours_.Ours("resnet8", data, ours_.random_table(8, 162, 100), Recipe(batch_size=8))
    torch.manual_seed(0)
    teacher, student = models.build("resnet14", 100), models.build("resnet8", 100)
    student.load_state_dict(ours.network.state_dict())
    classic = reference.Classic(teacher, student, data, 8, 0)
    index, view = torch.arange(8), torch.arange(8) * 20
    epoch = ResidentEpoch(ours.loader, 0, torch.tensor(1), index, view)
    seen = epoch.batch(slice(0, 8))
    classic.step(seen.inputs, seen.targets)

    ours.step.teach = LiveTeachers([teacher], ours.recipe).teach
    ours.step.begin(epoch, 1)
    ours.step(0, 8)
    assert ours.step.totals["loss"].item() / 8 == pytest.approx(classic.losses[0], rel=1e-5)
    assert ours.step.totals["seen_top1"].item() / 8 == classic.right[0][0]
    for mine, other in zip(ours.network.parameters(), student.parameters(), strict=True):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-6)


def test_classic_images_are_among_our_views(bench: Any) -> None:
    """What torchvision makes of an image is one of its 162 views, to rounding; and not always the same one."""
    ours_, reference = bench("ours"), bench("reference")
    data = ours_.pixels(2, None)
    ours = ours_.Ours("resnet8", data, ours_.random_table(2, 162, 100), Recipe(batch_size=1))
    epoch = ResidentEpoch(ours.loader, 0, torch.tensor(1), torch.zeros(162, dtype=torch.int64), torch.arange(162))
    views = epoch.batch(slice(0, 162)).inputs
    images, found = reference.Images(data), set()
    torch.manual_seed(0)
    for _ in range(5):
        image, label = images[0]
        distance = (views - image).abs().amax((1, 2, 3))
        assert distance.min() < 1e-5
        assert label == data.train_labels[0]
        found.add(int(distance.argmin()))
    assert len(found) > 1


def test_cost_adds_up(bench: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Runs, hours and bytes of the last row are those of the rows above it, and of the study."""
    params = yaml.safe_load((ROOT / "workflow/studies/cifar100-small.yaml").read_text())
    params["teachers"]["resnet20"]["architecture"] = params["pairs"]["resnet20-resnet8_w8"]["student"] = "resnet8"
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    bench("cost").main([str(tmp_path / "study.yaml"), "--steps", "1", "--markdown"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")][2:]
    pair, teacher, total = ([cell.strip() for cell in row.strip("|").split("|")] for row in rows)
    assert int(pair[1]) == int(total[1]) == 3 * len(params["methods"]), "the study has three seeds"
    subset = params["data"]["subset"]
    train, test = 100 * subset["train_per_class"], 10_000
    assert float(pair[4]) + float(teacher[4]) == pytest.approx(float(total[4]), abs=0.6)
    assert float(teacher[5]) == pytest.approx(2 * train * (100 + 64 * params["cache"]["pooled"]) * 4 / 1e9, abs=0.006)
    arrays = (train + test) * 3072 / 1e9
    assert float(pair[5]) + float(teacher[5]) + arrays == pytest.approx(float(total[5]), abs=0.06)


def test_findings_are_those_of_the_results(
    bench: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The differences are those of the study's own table (corrected over fewer tests), the gaps those of its runs."""
    monkeypatch.chdir(ROOT)
    bench("findings").main(["results/digits", "--against", "rld:kd", "--markdown"])
    out = capsys.readouterr().out
    shown = next(line for line in out.splitlines() if line.startswith("| rld - kd"))
    runs = [line.split(",") for line in (ROOT / "results/digits/runs.csv").read_text().splitlines()]
    last, best, method = (runs[0].index(name) for name in ("top1_last", "top1_test_best", "method"))
    mean = {m: statistics.mean(float(r[last]) for r in runs if r[method] == m) for m in ("rld", "kd")}
    assert f"{mean['rld'] - mean['kd']:+.2f}" in shown
    gaps = [float(r[best]) - float(r[last]) for r in runs[1:]]
    every = next(line for line in out.splitlines() if line.startswith("| all "))
    assert every.split()[3::2] == [f"{min(gaps):.2f}", f"{statistics.median(gaps):.2f}", f"{max(gaps):.2f}"]
    with pytest.raises(SystemExit):
        bench("findings").main(["results/digits", "--against", "rld:nobody"])
    assert "nobody is not in" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        bench("findings").main(["results/digits", "--beside", "results/cifar100-short"])
    assert "their seeds do not pair" in capsys.readouterr().err


@pytest.mark.slow
def test_scale_counts_what_a_study_takes(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    scale, folder = bench("scale"), ROOT / "workflow" / "studies"
    for name, expected in {"imagenet_r34-r18": (328, 207, 200), "imagenet_r50-mobilenet": (209, 74, 66)}.items():
        found = scale.units(check.load(folder / f"{name}.yaml"), 12, 3)[2]
        assert tuple(round(gmac) for gmac in found.values()) == expected, "reference: 12 methods, 3 seeds"
    digits = check.load(folder / "digits.yaml")
    assert scale.jobs(digits) == len(list(resolve(digits)))
    scale.main(["--images", "8", "--rounds", "1", "--markdown"])
    said = capsys.readouterr().out
    assert "cores for 5,000 images/s" in said and "512 GB a run of 100" in said and "209 GMAC" in said
