"""Vision transformers: any image size, stochastic depth, two heads, and the weights that others release."""

from __future__ import annotations

import io

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
import vision_golden as golden
from torch import Tensor

from distillery.errors import DistilleryError
from distillery.models import build
from distillery.models.drop_path import set_drop_path
from distillery.models.official import identify, load_official
from distillery.models.vit import Block, DropPath, positions
from distillery.teachers.foreign import read_weights

pytestmark = pytest.mark.slow

SMALLEST = {"deit_ti": 16, "vkd_deit_w48": 15, "pit_ti": 16, "t2t_vit_7": 3, "pvt_ti": 32, "deit_w48_p2": 2}
TOKENS = {"deit_ti": (12,), "vkd_deit_w48": (12,), "pit_ti": (35, 12, 4), "t2t_vit_7": (12,)}
TOKENS |= {"pvt_ti": (192, 48, 12, 2), "deit_w48_p2": (24 * 32,)}


@pytest.mark.parametrize("name", SMALLEST)
def test_images_of_any_size(name: str) -> None:
    torch.manual_seed(0)
    network = build(name, 10, in_channels=1).eval()
    with torch.no_grad():
        out = network(torch.randn(2, 1, 48, 64))
        least = network(torch.randn(2, 1, SMALLEST[name], SMALLEST[name]))
    assert out.logits.shape == least.logits.shape == (2, 10) and least.logits.isfinite().all()
    assert tuple(t.shape[1] for t in out.tokens) == TOKENS[name]
    with pytest.raises(DistilleryError, match=r"is smaller than a patch|are too small for"):
        network(torch.randn(2, 1, SMALLEST[name] - 1, SMALLEST[name] - 1))


def test_positions_are_interpolated_as_torch_does() -> None:
    embedding = torch.randn(1, 2 + 49, 6, dtype=torch.float64, requires_grad=True)
    assert positions(embedding, 7, (7, 7), extra=2) is embedding
    grid = embedding[:, 2:].transpose(1, 2).unflatten(2, (7, 7))
    for size in ((5, 9), (14, 14), (1, 1)):
        want = F.interpolate(grid, size, mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
        got = positions(embedding, 7, size, extra=2)
        assert torch.equal(got[:, :2], embedding[:, :2])
        torch.testing.assert_close(got[:, 2:], want, rtol=1e-12, atol=1e-12)
        weight = torch.randn_like(want)
        ours, theirs = (
            torch.autograd.grad((x * weight).sum(), embedding, retain_graph=True)[0] for x in (got[:, 2:], want)
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop = DropPath()
    branch = torch.randn(20_000, 3, 2)
    assert drop(branch) is branch
    drop.drop_prob = 0.3
    out = drop(branch)
    kept = (out != 0).all((1, 2))
    assert torch.equal(kept, (out != 0).any((1, 2)))
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.01)  # three deviations
    torch.testing.assert_close(out[kept], branch[kept] / 0.7)
    assert drop.eval()(branch) is branch


@pytest.mark.parametrize(("name", "blocks"), [("vkd_deit_ti", 12), ("pit_ti", 12), ("t2t_vit_7", 7), ("pvt_ti", 8)])
def test_every_block_has_one_drop_path_in_the_order_of_depth(name: str, blocks: int) -> None:
    with torch.device("meta"):
        network = build(name, 10)
    paths = [module for module in network.modules() if isinstance(module, DropPath)]
    assert paths == [m.drop_path for m in network.modules() if isinstance(m, Block)] and len(paths) == blocks


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("t2t_vit_7", [0.02 * i for i in range(7)]),
        ("pvt_ti", [0.12 / 7 * i for i in range(8)]),
        ("pit_ti", [0.01 * i for i in range(12)]),  # stops short of the last block, as released
    ],
)
def test_a_recipes_rate_rises_over_the_blocks(name: str, rates: list[float]) -> None:
    with torch.device("meta"):
        network = build(name, 10)
    set_drop_path(network, 0.12)
    assert [m.drop_prob for m in network.modules() if isinstance(m, DropPath)] == pytest.approx(rates)


def test_a_dropped_block_is_the_identity() -> None:
    torch.manual_seed(0)
    block, tokens = Block(8, 2).train(), torch.randn(64, 3, 8)
    block.drop_path.drop_prob = 0.5
    out = block(tokens)
    same = (out == tokens).all(2).all(1)
    assert 5 < int(same.sum()) < 30  # both branches of a quarter of the images


@pytest.mark.parametrize("name", ["deit_w48_p2", "vkd_deit_w48"])
def test_two_heads_predict_together_and_learn_apart(name: str) -> None:
    torch.manual_seed(0)
    network, images = build(name, 10), torch.randn(4, 3, 32, 32)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    network.eval()
    out = network(images)
    assert out.distilled is not None and out.pooled is not None
    assert torch.equal(out.logits, (network.head(out.pooled) + out.distilled) / 2)
    out = network.train()(images)
    assert out.distilled is not None and out.pooled is not None
    assert torch.equal(out.logits, network.head(out.pooled))
    own, distilled = network.head.weight, network.get_parameter("head_dist.weight")
    for logits, learns, other in ((out.logits, own, distilled), (out.distilled, distilled, own)):
        mine, none = torch.autograd.grad(logits.square().sum(), [learns, other], retain_graph=True, allow_unused=True)
        assert mine.abs().sum() > 0 and none is None


def test_vkds_distillation_token_is_the_mean_of_the_patches() -> None:
    torch.manual_seed(0)
    network = build("vkd_deit_w48", 10).eval()
    patches = torch.randn(2, 5, 48)
    leading = network.leading(patches)
    torch.testing.assert_close(leading[1][:, 0], patches.mean(1))
    assert "dist_token" not in network.state_dict()


class Logits(torch.nn.Module):
    """A network's prediction alone, as a program gives it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.network = build(name, 10).eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).logits


@pytest.mark.parametrize(
    ("name", "size"),
    [("deit_w48_p2", 12), *(pytest.param(n, 64, marks=pytest.mark.slow) for n in ("t2t_vit_7", "pvt_ti"))],
)
def test_exported_programs_take_any_number_of_images(name: str, size: int) -> None:
    torch.manual_seed(0)
    network = Logits(name).requires_grad_(False)
    example, images = torch.randn(2, 3, size, size), torch.randn(5, 3, size, size)
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("images")},))
    torch.testing.assert_close(program.module()(images), network(images), rtol=1e-5, atol=1e-6)


TIMM = {"deit_ti": "deit_tiny_patch16_224", "deit_ti_distilled": "deit_tiny_distilled_patch16_224"}
TIMM |= {"pit_ti": "pit_ti_224"}


def equal(theirs: torch.nn.Module, name: str, size: int = 224) -> None:
    """Random weights of theirs, loaded into ours, give the same logits."""
    network = build(name, 10).eval().double()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    load_official(network, {f"module.{key}": t for key, t in theirs.state_dict().items()})
    assert identify(network.state_dict()) == f"{name} for 10 classes and images of 3 channels"
    images = torch.randn(1, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(images).logits, theirs.eval()(images), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", TIMM)
def test_networks_of_timm_load(name: str) -> None:
    torch.manual_seed(0)
    equal(timm.create_model(TIMM[name], num_classes=10).double(), name)


@pytest.mark.parametrize("depth", [18, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (34, 50))])
def test_networks_of_torchvision_load(depth: int) -> None:
    torch.manual_seed(0)
    equal(torchvision.models.get_model(f"resnet{depth}", num_classes=10).double(), f"imagenet_resnet{depth}", 64)


@pytest.mark.parametrize("name", ["ls_pvt_ti", "ls_resnet56", "ls_pit_ti"])
def test_checkpoints_of_tiny_transformers_load(name: str) -> None:
    """As its trainer saves them, beside an optimiser, under `model_state`, through the wrapper that distils."""
    network = build(golden.ours(name), 100)
    weights = golden.released(name, network)

    torch.save(
        {"epoch": 299, "model_state": {f"student_model.{k}": v for k, v in weights.items()}}, file := io.BytesIO()
    )
    found, part = read_weights(file.getvalue())
    assert part == "model_state"
    load_official(network, found)
    state = network.state_dict()
    assert all(torch.equal(state[network.renamed(k)], v.to(state[network.renamed(k)])) for k, v in weights.items())


def test_a_checkpoint_without_the_distillation_head_is_refused_by_name() -> None:
    plain, distilled = build("deit_ti", 10), build("deit_ti_distilled", 10)
    with pytest.raises(ValueError, match=r"missing: dist_token.*these are the weights of a deit_ti for 10 classes"):
        load_official(distilled, plain.state_dict())
