"""What test_pretend_gpu.py runs in a process of its own: torch and the code remember that there was a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_study
import torch
from pretend_gpu import NAME, There, there_is_a_gpu
from small_studies import STUDIES, write

from distillery.pipeline.planner import current
from distillery.records.io import read_json


@pytest.mark.parametrize("kind", STUDIES)
def test_a_study_ends_in_tables(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILLERY_WORKERS", "0")
    write(kind, graph=False)  # nothing can be captured here
    with there_is_a_gpu():
        assert small_study.make(tables=True)[-1] == "tables"
    made, plan = current(Path("params.yaml"))
    assert f"cuda,{NAME}" in Path("results", made.study, "runs.csv").read_text()
    for job in plan:
        if job.stage in ("teacher", "distill", "evaluate"):
            assert read_json(job.record)["environment"]["cuda_device"] == NAME, job.name


def test_what_a_gpu_refuses_is_refused() -> None:
    with there_is_a_gpu():
        far, near = torch.zeros(3, device="cuda:0"), torch.ones(3)
        rows = torch.tensor([0, 2])
        for wrong in (
            lambda: far + near,
            lambda: torch.cat([far, near]),
            lambda: near[rows.to("cuda:0")],
            lambda: far.__setitem__(rows, near[:2]),
            lambda: torch.nn.functional.linear(far, near),
        ):
            with pytest.raises(RuntimeError, match="left on the CPU"):
                wrong()
        with pytest.raises(TypeError, match="numpy"):
            far.numpy()
        far[:] = near
        assert (far[rows] + torch.tensor(2.0)).cpu().tolist() == [3.0, 3.0]
        network = torch.nn.Linear(3, 1)
        weight = network.weight
        network.to("cuda:0")
        assert network.weight is weight and isinstance(weight, There) and weight.device.type == "cuda"
        network(far).sum().backward()
        assert isinstance(weight.grad, There) and weight.grad.cpu().tolist() == [[1.0, 1.0, 1.0]]
        assert not isinstance(network.to("cpu").weight, There)
