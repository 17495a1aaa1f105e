"""Networks of torchvision, timm and the user's own files: the module's own numbers, sensible taps, real training."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from distillery import models
from distillery.data.dataset import Dataset
from distillery.errors import DistilleryError
from distillery.evaluation.macs import multiply_accumulates
from distillery.models import NETWORKS, wrap
from distillery.models.base import Network
from distillery.models.wrap import Wrapped
from distillery.objectives.base import Incompatible
from distillery.pipeline.fingerprint import fingerprint
from distillery.records.header import Header
from distillery.students.classifier import Classifier
from distillery.students.formats import open_torch, write_torch
from distillery.study.blocks import Method, Recipe
from distillery.tasks.classification.training import assemble
from distillery.teachers.source import LiveTeachers
from distillery.training.loop import fit
from distillery.training.norm import share_norms

pytestmark = pytest.mark.slow

# Names, and the channels of their taps: stem, then stages.
TAPS: dict[str, list[int]] = {
    "torchvision/resnet18": [64, 64, 128, 256, 512],
    "torchvision/vgg11": [64, 128, 256, 512, 512],
    "torchvision/mobilenet_v3_small": [16, 16, 24, 48, 576],
    "torchvision/efficientnet_b0": [16, 24, 40, 112, 1280],
    "torchvision/convnext_tiny": [96, 96, 192, 384, 768],
    "torchvision/regnet_y_400mf": [32, 48, 104, 208, 440],
    "torchvision/densenet121": [64, 256, 512, 1024, 1024],
    "torchvision/swin_t": [96, 96, 192, 384, 768],
    "torchvision/vit_b_16": [],
    "timm/resnet18": [64, 64, 128, 256, 512],
    "timm/regnety_160.deit_in1k": [32, 224, 448, 1232, 3024],
    "timm/mobilenetv3_small_050": [16, 8, 16, 24, 288],
    "timm/convnext_atto": [40, 40, 80, 160, 320],
    "timm/swin_tiny_patch4_window7_224": [96, 96, 192, 384, 768],
    "timm/vit_tiny_patch16_224": [],
}
PREACTS = {"resnet18", "vgg11", "regnet_y_400mf", "regnety_160.deit_in1k"}
SMALL = ["torchvision/resnet18", "torchvision/mobilenet_v3_small", "torchvision/efficientnet_b0"]
SMALL += ["torchvision/shufflenet_v2_x0_5", "timm/resnet18", "timm/regnety_002", "timm/convnext_atto"]


def hollow(name: str, classes: int = 7) -> Network:
    """A network on the meta device."""
    try:
        with torch.device("meta"):
            return models.build(name, classes)
    except NotImplementedError:  # torchvision's RegNets compute their widths
        return models.build(name, classes).to("meta")


def plain(name: str, classes: int = 7) -> nn.Module:
    """The same module without Distillery."""
    package, _, rest = name.partition("/")
    if package == "timm":
        return timm.create_model(rest, num_classes=classes)
    return torchvision.models.get_model(rest, num_classes=classes)


@pytest.mark.parametrize("name", TAPS)
def test_taps(name: str) -> None:
    network = hollow(name)
    images = torch.empty(2, 3, 224, 224, device="meta")
    out = network.eval()(images, preacts=True)
    assert out.logits.shape == (2, 7)
    assert out.pooled is not None and out.pooled.shape == (2, network.head.in_features)
    assert [m.shape[1] for m in out.maps] == TAPS[name]
    sides = [m.shape[2] for m in out.maps]
    assert all(m.shape[2] == m.shape[3] for m in out.maps)
    stages = sides[1:]
    assert [a / b for a, b in itertools.pairwise(stages)] == [2.0] * (len(stages) - 1 if stages else 0)
    assert not sides or sides[0] in (stages[0], 2 * stages[0])
    if name.partition("/")[2] in PREACTS:
        assert [m.shape for m in out.preacts] == [m.shape for m in out.maps]
    else:
        assert out.preacts == ()


@pytest.mark.parametrize("name", SMALL)
def test_results_are_those_of_the_module_alone(name: str) -> None:
    """Logits and gradients in training, running statistics after it, logits in evaluation; and the weights' names."""
    torch.manual_seed(3)
    alone = plain(name)
    torch.manual_seed(3)
    network = models.build(name, 7)
    assert isinstance(network, Wrapped)
    images = torch.randn(4, 3, 64, 64)
    state = alone.state_dict()
    assert list(network.state_dict()) == list(state)
    assert all(torch.equal(t, state[k]) for k, t in network.state_dict().items())
    for training in (True, False):
        torch.manual_seed(4)  # dropout
        expected = alone.train(training)(images)
        torch.manual_seed(4)
        found = network.train(training)(images, preacts=True)
        assert torch.equal(found.logits, expected)
        assert all(m.training == training for m in network.modules())
        expected.square().sum().backward()
        found.logits.square().sum().backward()
    for (k, mine), theirs in zip(network.module.named_parameters(), alone.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None and torch.equal(mine.grad, theirs.grad), k
    assert all(torch.equal(t, alone.state_dict()[k]) for k, t in network.state_dict().items())
    assert found.pooled is not None
    assert torch.equal(F.linear(found.pooled, network.head.weight, network.head.bias), found.logits)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_the_state_dict_comes_back() -> None:
    one, other = models.build("timm/resnet18", 7), models.build("timm/resnet18", 7)
    other.load_state_dict(one.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(one.eval()(images).logits, other.eval()(images).logits)
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({})


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/resnet18"])
def test_preacts_are_the_maps_before_their_activation(name: str) -> None:
    network = models.build(name, 7).eval()
    for norm in network.stage_norms():
        nn.init.ones_(norm.weight)  # timm begins with 0
    out = network(torch.randn(2, 3, 64, 64), preacts=True)
    assert out.preacts[0] is out.maps[0] and len(out.preacts) == 5
    for before, after in zip(out.preacts[1:], out.maps[1:], strict=True):
        assert (before < 0).any() and torch.equal(F.relu(before), after)
    names = {id(m): n for n, m in network.module.named_modules()}
    assert [names[id(norm)] for norm in network.stage_norms()] == [f"layer{i}.1.bn2" for i in (1, 2, 3, 4)]


def test_what_a_network_lacks_is_said() -> None:
    network = hollow("torchvision/convnext_tiny")
    with pytest.raises(ValueError, match="torchvision/convnext_tiny has no batch normalisation"):
        network.stage_norms()
    with pytest.raises(ValueError, match="cannot be entered in the middle"):
        hollow("torchvision/vit_b_16").eval().tail(torch.empty(0), 0)


@pytest.mark.parametrize("name", ["torchvision/resnet18", "torchvision/densenet121", "timm/convnext_atto"])
def test_tail_from_any_tap_gives_the_logits(name: str) -> None:
    network = models.build(name, 7).double().eval()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        out = network(images)
        for stage, features in enumerate(out.maps):
            before = features.clone()
            torch.testing.assert_close(network.tail(features, stage), out.logits, rtol=1e-12, atol=1e-12)
            assert torch.equal(features, before)
    features = out.maps[1].clone().requires_grad_()
    assert torch.autograd.grad(network.tail(features, 1).sum(), features)[0].abs().sum() > 0
    with pytest.raises(ValueError, match="cannot start after 5"):
        network.tail(out.maps[0], 5)
    with pytest.raises(ValueError, match="while it trains"):
        network.train().tail(out.maps[0], 0)


def test_a_copy_is_independent() -> None:
    network = models.build("torchvision/resnet18", 7).eval()
    images = torch.randn(1, 3, 32, 32)
    before = network(images)
    twin = copy.deepcopy(network)
    nn.init.zeros_(twin.head.weight)
    assert torch.equal(network(images).logits, before.logits)
    assert torch.equal(twin(images).logits, twin.head.bias[None])


def test_grey_images_are_repeated() -> None:
    network = models.build("torchvision/resnet18", 7, in_channels=1).eval()
    grey = torch.randn(2, 1, 32, 32)
    assert torch.equal(network(grey).logits, network.module(grey.repeat(1, 3, 1, 1)))
    with pytest.raises(DistilleryError, match="torchvision/resnet18 takes images of 3 channels, not of 4"):
        models.build("torchvision/resnet18", 7, in_channels=4)


def test_who_waits_for_a_slow_module_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Slow(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            time.sleep(images.shape[-1] / 500)
            return images.mean((2, 3))

    monkeypatch.setattr(wrap, "PATIENCE", 0.1)
    slow = Wrapped(Slow(), "slow.py:Net", 3, 3, 3)
    assert capsys.readouterr().err.startswith("looking at slow.py:Net on an image of 224x224 pixels, which takes ")
    slow(torch.zeros(1, 3, 8, 8))
    assert capsys.readouterr().err == ""


def test_unknown_names_have_a_nearest_one() -> None:
    for name, near in (
        ("torchvision/resnet43", "torchvision/resnet34"),
        ("timm/regnety_016O", "timm/regnety_016"),
        ("timm/regnety_160.deit_in1", "timm/regnety_160.deit_in1k"),
    ):
        with pytest.raises(DistilleryError, match=f"unknown architecture '{name}': did you mean '{near}'"):
            models.build(name, 7)
    with pytest.raises(DistilleryError, match="unknown architecture 'tim/resnet18'"):
        models.build("tim/resnet18", 7)
    assert NETWORKS["torchvision/resnet34"].options == {"name": "resnet34"}
    assert len(NETWORKS) == len(list(NETWORKS)) and "torchvision/resnet34" not in NETWORKS


def test_timm_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(DistilleryError, match=r"networks of timm need the extra: pip install 'distillery\[timm\]'"):
        models.build("timm/resnet18", 7)
    models.build("resnet8", 7)


def test_normalisations_that_processes_cannot_share_are_refused() -> None:
    two: Any = SimpleNamespace(size=2)
    with pytest.raises(DistilleryError, match="BatchNormAct2d, which several processes cannot share"):
        share_norms(models.build("timm/regnety_002", 7), two)
    for name in ("torchvision/regnet_y_400mf", "timm/convnext_atto", "resnet8"):
        share_norms(models.build(name, 7), two)


def test_several_outputs_are_refused() -> None:
    network = models.build("torchvision/googlenet", 7)
    with pytest.raises(DistilleryError, match="gives a GoogLeNetOutputs in training and not logits alone"):
        network.train()(torch.randn(2, 3, 64, 64))


@pytest.fixture(scope="module")
def noise() -> Dataset:
    """Two steps of random images in four classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (16, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.arange(16) % 4
    names, normal = ("a", "b", "c", "d"), (0.5, 0.5, 0.5)
    return Dataset(images, labels, images, labels, names, 255.0, normal, normal, torch.arange(16))


PAIRS = [("torchvision/resnet18", "torchvision/mobilenet_v3_small"), ("timm/regnety_002", "timm/resnet10t")]
PAIRS += [("torchvision/resnet18", "resnet8x4"), ("resnet32x4", "torchvision/shufflenet_v2_x0_5")]


CASES = [(*pair, method) for pair in PAIRS for method in ("kd", "at", "vkd")]
CASES += [(*PAIRS[2], method) for method in ("reviewkd", "simkd", "crd")]


@pytest.mark.parametrize(("teacher", "student", "method"), CASES)
def test_training_with_wrapped_networks(teacher: str, student: str, method: str, noise: Dataset) -> None:
    stepped(teacher, student, Method(objective=method), noise)


def stepped(teacher: str, student: str, method: Method, data: Dataset) -> None:
    """Train for two steps: the student moves, the teacher does not."""
    recipe = Recipe(epochs=1, batch_size=8, lr=0.01, milestones=(), augmentation={"pad": 4, "flip": True})
    master = assemble(teacher, Method(objective="ce"), data, [], 1).student.eval().requires_grad_(False)
    trainee = assemble(student, method, data, [master], 0)
    before = {k: v.clone() for k, v in trainee.student.state_dict().items()}
    kept = {k: v.clone() for k, v in master.state_dict().items()}
    source = LiveTeachers([master], recipe, trainee.objective.needs)
    history = fit(trainee, data.loader(recipe), source, recipe, 0)
    assert len(history[-1]) > 5
    assert sum(not torch.equal(v, before[k]) for k, v in trainee.student.state_dict().items()) > 20
    assert all(torch.isfinite(p).all() for p in trainee.parameters())
    assert all(torch.equal(v, kept[k]) for k, v in master.state_dict().items())


@pytest.mark.parametrize("method", ["ofd", "adain"])
def test_methods_that_look_into_the_teacher(method: str, noise: Dataset) -> None:
    stepped("torchvision/resnet18", "timm/resnet10t", Method(objective=method), noise)
    teacher = assemble("torchvision/efficientnet_b0", Method(objective="ce"), noise, [], 1).student.eval()
    if method == "ofd":
        with pytest.raises(Incompatible, match="the teacher gives none"):
            assemble("torchvision/resnet18", Method(objective=method), noise, [teacher], 0)


# --- files of the user's own

FILE = '''
import torch
from torch import nn


class Net(nn.Module):
    """LeNet: no size but 32 x 32 will do."""

    def __init__(self, num_classes, in_channels=3):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.classifier = nn.Sequential(nn.Linear(400, 84), nn.ReLU(), nn.Linear(84, num_classes))

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class Declared(Net):
    taps = ("features.0", "features.3")


class Misdeclared(Net):
    taps = ("features.0", "features.9")


class Flat(Net):
    taps = ("features.0", "classifier.0")


class NoTaps(Net):
    taps = 3


class Headless(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, 3)

    def forward(self, x):
        return self.conv(x).mean((2, 3))


class Maps(Headless):
    def forward(self, x):
        return self.conv(x)


class Stubborn(Net):
    def __init__(self, num_classes):
        super().__init__(5)


class Past(Net):
    """Something leads past its second stage."""

    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.past = nn.Conv2d(3, 16, 28)
        self.end = nn.Conv2d(16, 16, 1)

    def forward(self, x):
        return self.classifier(self.end(self.features(x) + self.past(x)).flatten(1))


def factory(num_classes, **options):
    return Net(num_classes, **options)


def wrong(num_classes):
    return 3


def raises(num_classes):
    return undefined_name


def takes_none():
    return Net(4)
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("own") / "mine.py"
    path.write_text(FILE)
    return str(path)


@pytest.mark.parametrize("name", ["Net", "factory"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_plain_module_in_a_file(name: str, channels: int, place: str) -> None:
    network = models.build(f"{place}:{name}", 4, channels).eval()
    images = torch.randn(2, channels, 32, 32)
    out = network(images)
    assert [tuple(m.shape[1:]) for m in out.maps] == [(6, 28, 28), (16, 10, 10)]
    assert out.pooled is not None and out.pooled.shape == (2, 84)
    assert torch.equal(out.logits, network.module(images))
    torch.testing.assert_close(network.tail(out.maps[1], 1), out.logits)
    assert next(iter(network.state_dict())) == "features.0.weight"


@pytest.mark.parametrize("name", ["torchvision/resnet18", "Net"])
def test_looking_for_taps_is_not_counted(name: str, place: str) -> None:
    image = torch.randn(1, 3, 32, 32)
    network = models.build(name if "/" in name else f"{place}:{name}", 4)
    with FlopCounterMode(display=False) as counter:
        network.module.eval()(image)
    assert multiply_accumulates(network, image) == counter.get_total_flops() // 2 > 0


@pytest.mark.parametrize("name", ["timm/resnet10t", "Net"])
def test_a_program_can_be_made_of_it(name: str, place: str, noise: Dataset, tmp_path: Path) -> None:
    facts = {"study": "s", "seeds": (0,), "settings_sha256": "0"}
    name = name if "/" in name else f"{place}:{name}"
    noise = dataclasses.replace(noise, facts={"source": "noise", "selection": {}})
    classifier = Classifier(
        models.build(name, 4), Header.of(noise, kind="teacher", teacher="t", architecture=name, **facts)
    )
    write_torch(classifier, tmp_path / "model.pt2")
    images = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(open_torch(tmp_path / "model.pt2")(images), classifier(images))


def test_declared_taps(place: str) -> None:
    network = models.build(f"{place}:Declared", 4).eval()
    images = torch.randn(2, 3, 32, 32)
    out = network(images)
    assert torch.equal(out.maps[0], network.module.features[0](images)) and (out.maps[1] < 0).any()


def logits(name: str, images: Tensor) -> Tensor:
    found: Tensor = models.build(name, 4)(images).logits
    return found


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Misdeclared", "has no layer 'features.9' to tap: did you mean 'features.5'?"),
        ("Flat", r"its layer 'classifier.0' gives no \(images, channels, height, width\) maps"),
        ("NoTaps", "`taps` must be names of layers, not 3"),
        ("Maps", r"its forward pass gives a tensor of shape \(1, 4, 222, 222\) and not \(images, classes\) logits"),
        ("Stubborn", "gives 5 logits, and the data has 4 classes"),
        ("wrong", "makes a int, not a torch.nn.Module"),
        ("raises", r"building it raises NameError: name 'undefined_name' is not defined \(line \d+\)"),
        ("takes_none", "its constructor must take `num_classes`"),
        ("Nut", "has no 'Nut': did you mean 'Net'"),
        ("FILE", "has no 'FILE'"),
    ],
)
def test_mistakes_in_files(name: str, said: str, place: str) -> None:
    with pytest.raises(DistilleryError, match=said) as caught:
        logits(f"{place}:{name}", torch.randn(1, 3, 32, 32))
    assert "\n" not in str(caught.value) and place in str(caught.value)


class Heads(nn.Module):
    """Two linear layers of the logits' width, called in turn; `joined` makes the logits of what both give."""

    def __init__(self, joined: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.joined = nn.Linear(48, 4), nn.Linear(12, 4), joined

    def forward(self, x: Tensor) -> Tensor:
        return self.joined(self.first(x.flatten(1)), self.second(x.mean(1).flatten(1)[:, :12]))


def test_pooled_features_are_those_of_the_layer_that_gives_the_logits() -> None:
    images = torch.randn(2, 3, 4, 4)
    for joined, name, bare in (
        (lambda one, other: one, "first", True),
        (lambda one, other: other, "second", True),
        (lambda one, other: (one + other) / 2, "second", False),  # as DeiT's and LeViT's of timm
        (lambda one, other: other.div_(0.07), "second", False),
    ):
        network = Wrapped(Heads(joined), "two heads", 4, 3, 3).eval()
        found = network(images)
        assert found.pooled is not None and found.pooled.shape[1] == getattr(network.module, name).in_features
        if bare:
            assert network.head is getattr(network.module, name)
        else:
            with pytest.raises(TypeError, match="names no classifier"):
                _ = network.head


def test_a_module_without_a_linear_head_gives_logits_alone(place: str, noise: Dataset) -> None:
    network = models.build(f"{place}:Headless", 4)
    out = network(torch.randn(1, 3, 32, 32))
    assert out.pooled is None and out.maps == ()
    with pytest.raises(TypeError, match="names no classifier"):
        _ = network.head
    recipe = Recipe(epochs=1, batch_size=8, milestones=())
    teacher = network.eval().requires_grad_(False)
    fit(
        assemble(f"{place}:Headless", Method(objective="kd"), noise, [teacher], 0),
        noise.loader(recipe),
        LiveTeachers([teacher], recipe),
        recipe,
        0,
    )
    with pytest.raises(Incompatible, match="VkD compares pooled features, but the teacher has none"):
        assemble("resnet8", Method(objective="vkd"), noise, [teacher], 0)


def test_a_tap_that_something_leads_past_is_no_entrance(place: str) -> None:
    network = models.build(f"{place}:Past", 4).eval()
    out = network(torch.randn(2, 3, 32, 32))
    with pytest.raises(ValueError, match=r"cannot be entered at features\.4, which something leads past"):
        network.tail(out.maps[1], 1)


def test_the_adapter_is_part_of_what_decides_results(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And for no network of Distillery's own."""
    from distillery.pipeline import fingerprint as module

    def code(name: str) -> str:
        module._closure.cache_clear()
        return fingerprint("cache", {"task": {"name": "classification"}, "architecture": name})

    names = [f"{place}:Net", "torchvision/resnet18", "timm/resnet18", "resnet8x4"]
    before = {name: code(name) for name in names}
    assert len({*before.values()}) == 4
    real = module._module
    edited = {"distillery.models.wrap": "x"}
    monkeypatch.setattr(module, "_module", lambda n: real(n)._replace(digest=edited.get(n, real(n).digest)))
    after = {name: code(name) for name in names}
    module._closure.cache_clear()
    assert [name for name in names if after[name] != before[name]] == names[:3]
