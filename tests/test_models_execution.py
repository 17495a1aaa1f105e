"""The networks under the conditions of fast training: memory format, precision, compilation, graph capture."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from models_examples import FAMILIES, example
from torch import Tensor

from distillery.models import build
from distillery.models.layers import conv, interleave, shuffle


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_channels_last_stays_channels_last(name: str) -> None:
    network, images = example(name)
    with torch.no_grad():
        want = network(images, preacts=True)
        network.to(memory_format=torch.channels_last)
        got = network(images.to(memory_format=torch.channels_last), preacts=True)
    torch.testing.assert_close(got.logits, want.logits, rtol=1e-11, atol=1e-11)
    for tap in (*got.maps, *got.preacts):
        assert tap.is_contiguous(memory_format=torch.channels_last)


# With torch's own convolution this aborts, or writes where nobody looks (uxlfoundation/oneDNN#6035).
MANY_GRADIENTS = """
import torch
from distillery.models.layers import conv

torch.set_num_threads(1)
for inputs in (1, 2, 3, 4, 6, 8, 12):
    layer = conv(inputs, 16, 1, stride=2).to(memory_format=torch.channels_last)
    for size in [8] * 60 + [64] * 10:
        layer.weight.grad = None
        images = torch.randn(8, inputs, size, size).to(memory_format=torch.channels_last).requires_grad_()
        given = torch.randn(8, 16, size // 2, size // 2)
        layer(images).backward(given)
        want = torch.einsum("nohw,nihw->oi", given.double(), images.detach()[:, :, ::2, ::2].double())
        torch.testing.assert_close(layer.weight.grad[:, :, 0, 0].double(), want, rtol=1e-3, atol=1e-2)
"""


def test_gradients_of_narrow_shortcuts_stay_within_their_memory() -> None:
    done = subprocess.run([sys.executable, "-c", MANY_GRADIENTS], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_narrow_shortcuts_are_strided_convolutions() -> None:
    narrow, images = conv(4, 6, 1, stride=2).double(), torch.randn(3, 4, 7, 5, dtype=torch.float64, requires_grad=True)
    usual = torch.nn.Conv2d(4, 6, 1, stride=2, bias=False).double()
    usual.load_state_dict(narrow.state_dict())
    given = torch.randn_like(want := usual(images))
    torch.testing.assert_close(narrow(images), want)
    for mine, theirs in zip(
        torch.autograd.grad(narrow(images), [images, narrow.weight], given),
        torch.autograd.grad(want, [images, usual.weight], given),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)
    assert type(conv(16, 32, 1, stride=2)) is torch.nn.Conv2d, "networks of the papers are as they were"


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_autocast_trains(name: str) -> None:
    # Not 16 for those that halve five times: of a strided convolution that sees one pixel, torch 2.15 computes the
    # gradient in bfloat16 from memory that nobody wrote, now and then NaN.
    network, images = example(name, size=32 if name.startswith("imagenet") else 16, batch=8)
    network, images = network.float(), images.float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rough = network(images, preacts=True).logits.float()
    exact = network(images).logits
    assert 0 < (rough - exact).norm() < 0.03 * exact.norm()
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(network.train()(images, preacts=True).logits, torch.arange(8) % 7)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_shuffle_and_interleave(layout: torch.memory_format) -> None:
    features = torch.arange(2 * 6 * 4 * 5.0).view(2, 6, 4, 5).contiguous(memory_format=layout)
    mixed = shuffle(features, 3)
    assert torch.equal(mixed, features[:, [0, 2, 4, 1, 3, 5]]) and mixed.is_contiguous(memory_format=layout)
    mixed = interleave(features[:, :3], features[:, 3:].contiguous(memory_format=layout))
    assert torch.equal(mixed, features[:, [0, 3, 1, 4, 2, 5]]) and mixed.is_contiguous(memory_format=layout)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wrn_16_1", "vgg8", "mobilenet_v2", "shufflenet_v2"])
def test_one_graph_without_breaks(name: str) -> None:
    torch.manual_seed(0)
    network, images = build(name, 7).eval(), torch.randn(2, 3, 8, 8)
    torch.compiler.reset()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(images, preacts=True).logits, network(images, preacts=True).logits)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", FAMILIES)
def test_training_step_is_captured_by_a_cuda_graph(name: str) -> None:
    torch.manual_seed(0)
    network = build(name, 7).cuda().to(memory_format=torch.channels_last)
    images = torch.randn(8, 3, 32, 32, device="cuda").to(memory_format=torch.channels_last)
    labels = torch.arange(8, device="cuda") % 7

    def step() -> Tensor:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            loss = F.cross_entropy(network(images).logits, labels)
            loss.backward()
        return loss

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            network.zero_grad(set_to_none=True)
            step()
    torch.cuda.current_stream().wait_stream(side)
    network.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    graph.replay()
    replayed = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad(set_to_none=True)
    torch.testing.assert_close(captured, step())
    for got, parameter in zip(replayed, network.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad, rtol=1e-3, atol=1e-4)
