"""Teachers that others trained: weights by name, file or address, and the normalisation and size that they saw."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import small_study
import timm
import torch
import torch.nn.functional as F
import torchvision.models
import yaml
from checkpoints import saved, sha256
from loopback import Server, nobody
from torchvision.models import MobileNet_V3_Small_Weights
from torchvision.transforms.functional import normalize

from distillery import data, models, settings
from distillery.data.dataset import Dataset
from distillery.data.views import Views, normalise
from distillery.errors import DistilleryError
from distillery.models.base import Network, Outputs
from distillery.models.seeing import Seeing, see
from distillery.pipeline.check import check, load, rehearse
from distillery.pipeline.layout import Layout
from distillery.pipeline.planner import current, resolve
from distillery.pipeline.work import Work
from distillery.records.io import read_json
from distillery.records.preprocessing import Preprocessing
from distillery.stages import cache as cache_stage
from distillery.stages import teacher as stage
from distillery.study.blocks import Cache
from distillery.study.model import Data, Teacher
from distillery.teachers import named
from distillery.teachers.fetch import NoMirror
from distillery.teachers.released import source_of
from distillery.teachers.view_table import ViewTable, build
from distillery.teachers.weights import load_network

pytestmark = [pytest.mark.usefixtures("downloads"), pytest.mark.slow]

LAYOUT = Layout("digits")
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
V1 = MobileNet_V3_Small_Weights.IMAGENET1K_V1


class Mirror(Network):
    """Gives back what it sees."""

    def forward(self, images: torch.Tensor, preacts: bool = False) -> Outputs:
        return Outputs(images.flatten(1), images.flatten(1), (images,))


# --- what a network sees


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "interpolation"), [(None, "bilinear"), (24, "bilinear"), (24, "bicubic")])
def test_a_network_sees_what_direct_normalisation_gives(channels: int, size: int | None, interpolation: Any) -> None:
    images = torch.randint(256, (4, channels, 32, 32), dtype=torch.uint8)
    mean, std = (0.13, 0.2, 0.9)[:channels], (0.3, 0.31, 0.5)[:channels]
    own = Preprocessing(**IMAGENET, size=size, interpolation=interpolation)
    batch = normalise(images, mean, std, 255.0)
    kept = batch.clone()
    network = see(Mirror(), own, mean, std)
    found = network(batch).maps[0]
    raw = images.expand(-1, 3, -1, -1).double() / 255
    if size:
        raw = F.interpolate(raw, (size, size), mode=interpolation, antialias=True)
    own_mean, own_std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (own.mean, own.std))
    direct = (raw - own_mean) / own_std
    torch.testing.assert_close(found.double(), direct, rtol=0, atol=1e-5 if size else 2e-6)
    assert torch.equal(batch, kept)
    exact = see(Mirror(), own, mean, std)(normalise(images, mean, std, 255.0, torch.float64)).maps[0]
    torch.testing.assert_close(exact, direct, rtol=0, atol=1e-12)


def test_a_network_that_sees_for_itself_is_the_network() -> None:
    inner = models.build("torchvision/resnet18", 7).eval()
    network = see(inner, Preprocessing(**IMAGENET, size=64), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    assert isinstance(network, Seeing) and see(inner, None, (0.5,), (0.2,)) is inner
    assert list(network.state_dict()) == list(inner.state_dict())
    network.load_state_dict(models.build("torchvision/resnet18", 7).state_dict())
    assert network.head is inner.head and network.stage_norms() == inner.stage_norms()
    images = torch.randn(2, 3, 32, 32)
    out = network(images, preacts=True)
    assert torch.equal(out.logits, inner(network.seen(images)).logits)
    assert [m.shape[-1] for m in out.maps] == [32, 16, 8, 4, 2]
    torch.testing.assert_close(network.tail(out.maps[2], 2), out.logits)
    with pytest.raises(DistilleryError, match="preprocessing is of 3 channels, and the images have 4"):
        see(inner, Preprocessing(**IMAGENET), (0.5,) * 4, (0.2,) * 4)


FILE = """
from torch import nn


class Net(nn.Module):
    mean = (0.5,)
    std = [0.25]
    size = 12

    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 8, 3)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))


class Odd(Net):
    std = (0.5, 0.5)


class Levels(Net):
    std = (60.0,)
"""


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    data.prepare("digits", {"test_fraction": 0.5}, folder / LAYOUT.arrays)
    return folder


@pytest.fixture
def place(arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the data and a file of the user's, and without a teacher."""
    (tmp_path / "artifacts" / "digits").mkdir(parents=True)
    (tmp_path / LAYOUT.arrays.parent).symlink_to(arrays / LAYOUT.arrays.parent)
    (tmp_path / "mine.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def study_of(teacher: dict[str, Any], student: str = "resnet8_w2", method: str = "kd", **more: Any) -> dict[str, Any]:
    params = small_study.digits()
    params["recipe"] |= {"epochs": 1, "milestones": [1]}
    params["teachers"] = {"t": teacher}
    params["pairs"] = {"t-s": {"teacher": "t", "student": student}}
    params["methods"] = {"m": {"objective": method}}
    params["tables"] = {}
    return params | more


def made(**teacher: Any) -> tuple[dict[str, Any], Network]:
    """Run the stage `teacher`; its record, and the teacher as students meet it."""
    teacher = {"source": "fetch", **teacher}
    Path("params.yaml").write_text(yaml.safe_dump(study_of(teacher)))
    study = load("params.yaml")
    rehearse(study)
    plan = resolve(study)
    stage.run(Work(plan.job("teacher", teacher="t"), plan.settings))
    weights = LAYOUT.teacher("t")
    return read_json(LAYOUT.teacher_record("t")), load_network(teacher["architecture"], 10, 1, weights)


def digits() -> Dataset:
    return Dataset.load(LAYOUT.arrays)


def same_sight(found: Network, direct: Network, size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """The teacher answers as the module does on images that were normalised its way from the start."""
    whole = digits()
    images = whole.test_images[:8]
    wide = images.expand(-1, len(mean), -1, -1) / whole.scale
    wide = F.interpolate(wide, (size, size), mode="bilinear", antialias=True)
    wide = (wide - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(
            found(whole.normalise(images)).logits, direct.eval()(wide).logits, rtol=1e-4, atol=1e-4
        )


# --- weights


@pytest.fixture
def offered(server: Server, monkeypatch: pytest.MonkeyPatch) -> Network:
    """Weights of ten classes that torchvision knows by the name IMAGENET1K_V1, with a hash in the file's name."""
    network = models.build("torchvision/mobilenet_v3_small", 10)
    content = saved(network.state_dict())
    url = server.offer(f"mobilenet_v3_small-{sha256(content)[:8]}.pth", content)
    monkeypatch.setattr(V1.value, "url", url)
    monkeypatch.setitem(V1.value.meta, "categories", list("0123456789"))
    monkeypatch.setattr(V1.value, "transforms", lambda: _Transforms())
    return network


class _Transforms:
    """As torchvision's, with smaller images."""

    real = V1.transforms()
    mean, std, interpolation, crop_size, resize_size = real.mean, real.std, real.interpolation, [48], [54]


def test_weights_by_torchvisions_name(place: Path, server: Server, offered: Network) -> None:
    record, found = made(architecture="torchvision/mobilenet_v3_small", weights="IMAGENET1K_V1")
    fetched = record["fetched"]
    assert fetched["url"] == V1.url and server.asked == [V1.url.rpartition("/")[2]]
    assert fetched["preprocessing"]["size"] == 48 and fetched["preprocessing"]["mean"] == list(IMAGENET["mean"])
    assert isinstance(found, Seeing)
    same_sight(found, offered, 48, IMAGENET["mean"], IMAGENET["std"])
    _, seeing_data = made(architecture="torchvision/mobilenet_v3_small", weights="IMAGENET1K_V1", preprocessing="data")
    assert not isinstance(seeing_data, Seeing)
    assert server.asked == [V1.url.rpartition("/")[2]]  # from the cache


def test_networks_that_turn_the_normalisation_when_torchvision_loads_weights_see_the_same_here() -> None:
    files = [module for name, module in sys.modules.items() if name.startswith("torchvision.models.")]
    kinds = {kind for file in files for kind in vars(file).values() if inspect.isclass(kind)}
    turning = [kind for kind in kinds if "transform_input" in inspect.signature(kind.__init__).parameters]
    assert {kind.__name__ for kind in turning} == {"GoogLeNet", "Inception3"} and len(named.TURNED) == 2
    of_data = (0.1, 0.2, 0.3), (0.2, 0.3, 0.4)
    for name in named.TURNED:
        with torch.device("meta"):
            theirs = torchvision.models.get_model(name, weights=None, init_weights=False, transform_input=True)
        for own in (
            named.named(f"torchvision/{name}", "IMAGENET1K_V1").preprocessing,
            named.carried(f"torchvision/{name}"),
        ):
            images = torch.rand(2, 3, own.size, own.size)
            shown = theirs._transform_input(normalize(images, IMAGENET["mean"], IMAGENET["std"]))
            seen = see(Mirror(), own, *of_data)(normalize(images, *of_data)).maps[0]
            torch.testing.assert_close(seen, shown, rtol=0, atol=1e-5)


def test_torchvisions_digits_of_the_hash_are_held_to(place: Path, server: Server, offered: Network) -> None:
    (server.folder / V1.url.rpartition("/")[2]).write_bytes(saved(models.build("resnet8", 10).state_dict()))
    with pytest.raises(NoMirror, match=r"its sha256 is \w{12}\.\.\., not \w{8}\.\.\.") as caught:
        made(architecture="torchvision/mobilenet_v3_small", weights="IMAGENET1K_V1")
    assert "\n" not in str(caught.value) and not LAYOUT.teacher("t").exists()


def test_offline_is_one_sentence(place: Path, offered: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(V1.value, "url", f"{nobody()}/mobilenet.pth")
    with pytest.raises(NoMirror, match=r"cannot be fetched .*mobilenet\.pth \(Connection refused\)") as caught:
        made(architecture="torchvision/mobilenet_v3_small", weights="IMAGENET1K_V1")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", ["tag in the name", "tag as weights", "hub"])
def test_weights_by_timms_name(how: str, place: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    network = models.build("timm/resnet10t", 10)
    server.offer("pytorch_model.bin", saved(network.state_dict()))  # and no safetensors beside it
    monkeypatch.setattr(named, "HUB", f"{server.url}/{{1}}")
    cfg = timm.get_pretrained_cfg("resnet10t.c3_in1k")
    cfg = dataclasses.replace(copy.deepcopy(cfg), num_classes=10, input_size=(3, 40, 40), interpolation="bilinear")
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: cfg)
    blocks: dict[str, dict[str, str]] = {
        "tag in the name": {"architecture": "timm/resnet10t.c3_in1k"},
        "tag as weights": {"architecture": "timm/resnet10t", "weights": "c3_in1k"},
        "hub": {"architecture": "timm/resnet10t", "weights": "hf-hub:timm/resnet10t.c3_in1k"},
    }
    record, found = made(**blocks[how])
    assert server.asked == ["model.safetensors", "pytorch_model.bin", *(["config.json"] if how == "hub" else [])]
    assert record["fetched"].get("licence") == (None if how == "hub" else "apache-2.0")
    assert record["environment"]["timm"] == timm.__version__
    same_sight(found, network, 40, IMAGENET["mean"], IMAGENET["std"])


@pytest.mark.parametrize("where", ["hub", "folder", "file"])
def test_a_repository_says_what_its_weights_saw(
    where: str, place: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = models.build("timm/resnet10t", 10)
    server.offer("model.safetensors", safetensors.torch.save(network.state_dict()))
    seen = {"input_size": [3, 40, 40], "mean": [0.4] * 3, "std": [0.3] * 3, "interpolation": "bilinear"}
    monkeypatch.setattr(named, "HUB", f"{server.url}/{{1}}")
    keys: dict[str, Any] = {"architecture": "timm/resnet10t"} | {
        "hub": {"weights": "hf-hub:me/mine"},
        "folder": {"weights": str(server.folder), "member": "model.safetensors"},
        "file": {"weights": str(server.folder / "model.safetensors")},
    }[where]

    def say(**more: Any) -> None:
        if kept := [*Path(settings.cache()).glob("teachers/*-config.json")]:
            kept[0].unlink()
        server.offer("config.json", json.dumps({"architecture": "resnet10t", "num_classes": 10, **more}).encode())

    for told in ({"pretrained_cfg": seen}, seen):  # as timm writes it, and as it did
        say(**told)
        record, found = made(**keys)
        assert record["fetched"]["preprocessing"]["size"] == 40
        same_sight(found, network, 40, (0.4,) * 3, (0.3,) * 3)
    names = [str(i) for i in range(10)]
    say(pretrained_cfg=seen, label_names=names)
    made(**keys)
    say(pretrained_cfg=seen, label_names=[*names[:8], "9", "8"])
    with pytest.raises(DistilleryError, match=r"its config\.json calls the class 8 '9', which is '8' in the data"):
        made(**keys)
    _, found = made(
        **keys, preprocessing={"mean": [0.1] * 3, "std": [0.2] * 3, "size": 24}
    )  # what the study says counts
    same_sight(found, network, 24, (0.1,) * 3, (0.2,) * 3)
    say(pretrained_cfg={**seen, "mean": "grey"})
    with pytest.raises(DistilleryError, match=r"config\.json is not as timm writes it"):
        made(**keys)


def test_a_plan_is_not_read_back_for_another_configuration(place: Path) -> None:
    Path("w.safetensors").write_bytes(safetensors.torch.save(models.build("timm/resnet10t", 10).state_dict()))
    teacher = {"source": "fetch", "architecture": "timm/resnet10t", "weights": "./w.safetensors"}
    Path("params.yaml").write_text(yaml.safe_dump(study_of(teacher)))
    specs = set()
    for size in (None, 40, 48):
        if size:
            Path("config.json").write_text(json.dumps({"num_classes": 10, "input_size": [3, size, size]}))
        specs.add(current(write=True)[1].job("teacher", teacher="t").sha256)
    assert len(specs) == 3


def test_a_file_may_be_a_release_that_has_a_name(place: Path) -> None:
    def origin(**keys: Any) -> Any:
        block = {"architecture": "torchvision/resnet50", "source": "fetch", "urls": ["./r50.pth"], **keys}
        return source_of(Teacher.model_validate(block), Data(source="digits"))

    usual, first = origin(), origin(weights="IMAGENET1K_V1")
    assert usual.preprocessing.short_side == 232 and first.preprocessing.short_side == 256
    assert first.urls == ("./r50.pth",) and first.sha256 is None and first.classes == 1000


def test_weights_in_a_file_and_what_its_class_carries(place: Path, server: Server) -> None:
    network = models.build("mine.py:Net", 10, 1)
    Path("w.pt").write_bytes(content := saved({"model": network.state_dict()}))
    record, found = made(architecture="mine.py:Net", weights="./w.pt", sha256=sha256(content))
    assert record["fetched"]["part"] == "model"
    same_sight(found, network, 12, (0.5,), (0.25,))
    _, found = made(architecture="mine.py:Net", weights="w.pt", preprocessing={"mean": [0.1], "std": [0.2], "size": 9})
    same_sight(found, network, 9, (0.1,), (0.2,))
    url = server.offer("w.pt", content)
    record, found = made(architecture="mine.py:Net", weights=url, preprocessing="data")
    assert record["fetched"]["url"] == url and not isinstance(found, Seeing)
    whole = digits()
    assert torch.equal(
        found(whole.normalise(whole.test_images)).logits, network(whole.normalise(whole.test_images)).logits
    )


def test_a_changed_file_makes_the_teacher_due(place: Path) -> None:
    network = models.build("mine.py:Net", 10, 1)
    keys = {"source": "fetch", "architecture": "mine.py:Net", "weights": "w.pt"}

    def job() -> Any:
        return resolve(check(study_of(keys))).job("teacher", teacher="t").sha256

    Path("w.pt").write_bytes(saved(network.state_dict()))
    before = job()
    Path("w.pt").write_bytes(saved(models.build("mine.py:Net", 10, 1).state_dict()))
    assert job() != before
    assert resolve(check(study_of({**keys, "preprocessing": "data"}))).job("teacher", teacher="t").sha256 != job()


def test_the_view_table_of_a_teacher_that_sees_for_itself_is_exact(place: Path) -> None:
    Path("w.pt").write_bytes(saved(models.build("mine.py:Net", 10, 1).state_dict()))
    _, network = made(architecture="mine.py:Net", weights="w.pt")
    plan = resolve(load("params.yaml"))
    cache_stage.run(Work(plan.job("cache", teacher="t"), plan.settings))
    record = read_json(LAYOUT.view_table_record("t"))
    whole, views = digits(), Views(1, False, 8)
    assert record["views"] == views.count
    table = ViewTable.open(
        LAYOUT.view_table("t"), record | {"sha256": record["outputs"][str(LAYOUT.view_table("t"))]["sha256"]}
    )
    index, view = torch.arange(20), torch.arange(20) % views.count
    images = whole.normalise(views.take(views.pad(whole.train_images), index, view))
    with torch.no_grad():
        torch.testing.assert_close(table.outputs(table.rows(index, view)).logits, network(images).logits)


def test_a_table_of_features_needs_a_teacher_that_has_some(place: Path) -> None:
    with pytest.raises(DistilleryError, match=r"cache\.pooled: the teacher has no pooled features"):
        build(Bare(), digits(), Views(1, False, 8), Cache(pooled=True), Path("table.bin"), "key")


class Bare(Mirror):
    def forward(self, images: torch.Tensor, preacts: bool = False) -> Outputs:
        return Outputs(images.flatten(1))


# --- what `distillery check` says


def refused(teacher: dict[str, Any], student: str = "resnet8_w2", method: str = "kd", **more: Any) -> str:
    with pytest.raises(DistilleryError) as caught:
        rehearse(check(study_of(teacher, student, method, **more)))
    return str(caught.value)


CIFAR = {"data": {"source": "cifar100"}, "cache": {}}
R18 = {"architecture": "torchvision/resnet18"}


def test_valid_studies(place: Path) -> None:
    for teacher, student, method in (
        (R18, "torchvision/mobilenet_v3_small", "vkd"),
        ({"architecture": "timm/regnety_002"}, "timm/resnet10t", "ofd"),
        ({"architecture": "mine.py:Net"}, "mine.py:Net", "kd"),
        ({**R18, "source": "fetch", "weights": "w.pt"}, "resnet8x4", "simkd"),
        ({"architecture": "timm/vit_tiny_patch16_224", "source": "fetch", "weights": "w.pt"}, "resnet8x4", "vkd"),
    ):
        rehearse(
            check(study_of(teacher, student, method, **CIFAR if teacher != {"architecture": "mine.py:Net"} else {}))
        )


def test_weights_for_other_classes(place: Path) -> None:
    said = "its weights are for 1000 classes, and the data has 10: take weights that were trained on these classes"
    said += ", or say `classes: imagenet` if the data are some of ImageNet's"
    fetched = {**R18, "source": "fetch", "weights": "IMAGENET1K_V1"}
    assert refused(fetched) == f"params.yaml: teachers.t: {said}"
    tagged = {"architecture": "timm/regnety_160.deit_in1k", "source": "fetch"}
    assert refused(tagged) == f"params.yaml: teachers.t: {said}"
    Path("w.pt").write_bytes(saved(models.build("torchvision/shufflenet_v2_x0_5", 1000).state_dict()))
    with pytest.raises(NoMirror, match="the checkpoint is for 1000 classes, and the data has 10") as caught:
        made(architecture="torchvision/shufflenet_v2_x0_5", weights="w.pt", preprocessing="data")
    assert "\n" not in str(caught.value)


def test_weights_of_another_architecture(place: Path) -> None:
    Path("w.pt").write_bytes(saved(models.build("resnet8", 10, 1).state_dict()))
    with pytest.raises(
        NoMirror, match=r"does not fit this mine\.py:Net.*these are the weights of a resnet8 for 10"
    ) as caught:
        made(architecture="mine.py:Net", weights="w.pt")
    assert "\n" not in str(caught.value)


def test_what_is_wrong_with_weights(place: Path) -> None:
    fetch = {"source": "fetch"}
    for teacher, said in (
        (
            {**R18, **fetch, "weights": "IMAGENET1K_V9"},
            "unknown weights 'IMAGENET1K_V9' of torchvision/resnet18: did you mean 'IMAGENET1K_V1'?",
        ),
        (
            {"architecture": "torchvision/vit_b_16", **fetch, "weights": "IMAGENET1K_SWAG_E2E_V1"},
            "for images of 384 pixels, and the network is built here for 224: take IMAGENET1K_V1 or IMAGENET1K_SWAG_L",
        ),
        ({**R18, **fetch}, "name the weights of torchvision/resnet18: IMAGENET1K_V1, a file or an address"),
        (
            {"architecture": "timm/resnet18", **fetch, "weights": "a1_in1"},
            "unknown weights 'a1_in1' of timm/resnet18: did you mean 'a1_in1k'?",
        ),
        ({"architecture": "timm/resnet18", **fetch}, "name the weights of timm/resnet18: "),
        (
            {"architecture": "timm/resnet18.a1_in1k", **fetch, "weights": "a2_in1k"},
            "name two sets of weights: drop one",
        ),
        (
            {"architecture": "torchvision/resnet81", **fetch, "weights": "IMAGENET1K_V1"},
            "unknown architecture 'torchvision/resnet81': did you mean",
        ),
        (
            {"architecture": "resnet8", **fetch, "weights": "IMAGENET1K_V1"},
            "teachers.t.weights: 'IMAGENET1K_V1' is no file, and resnet8 has none by that name",
        ),
        (
            {"architecture": "resnet8", **fetch, "weights": "w.pt", "preprocessing": "own"},
            "resnet8 carries none of its own: give mean and std, or `data`",
        ),
        (
            {"architecture": "resnet8", **fetch, "weights": "w.pt", "urls": ["x.pt"]},
            "urls are given too, and either says where",
        ),
        (
            {"architecture": "resnet8", **fetch, "weights": "ftp://host/w.pt"},
            "teachers.t.weights: 'ftp://host/w.pt' is neither",
        ),
        (
            {"architecture": "resnet8", "weights": "w.pt", "preprocessing": "data"},
            "teachers.t.weights: has no effect with source: train",
        ),
        (
            {"architecture": "resnet8", **fetch, "weights": "w.pt", "preprocessing": {"mean": [0.5], "std": [1, 1]}},
            "mean and std need a value for each channel, not 1 and 2",
        ),
        (
            {"architecture": "resnet8", **fetch, "weights": "w.pt", "preprocessing": "mine"},
            "'own' or 'data', not 'mine'",
        ),
        (
            {"architecture": "mine.py:Odd", **fetch, "weights": "w.pt"},
            "mine.py:Odd: mean and std need a value for each channel, not 1 and 2",
        ),
        (
            {"architecture": "mine.py:Levels", **fetch, "weights": "w.pt"},
            "mine.py:Levels: std.0: less than or equal to 1, not 60.0",
        ),
    ):
        assert said in refused(teacher), teacher


def test_networks_that_do_not_fit_a_method_or_the_data(place: Path) -> None:
    Path("broken.py").write_text("x = 1\nraise KeyError('what')\n")
    Path("bare.py").write_text(
        FILE.replace("self.fc(self.conv(x).relu().mean((2, 3)))", "self.conv(x).mean((2, 3))").replace(
            ", 8, 3)", ", num_classes, 3)"
        )
    )
    Path("soft.py").write_text(FILE.replace("mean((2, 3)))", "mean((2, 3))).softmax(1)"))
    b0, soft = "torchvision/efficientnet_b0", "soft.py:Net gives probabilities, and methods need logits"
    for teacher, student, method, more, said in (
        (R18, b0, "ofd", CIFAR, "OFD compares maps before the activation, but the student gives none"),
        (
            {"architecture": b0},
            "resnet8x4",
            "ofd",
            CIFAR,
            "OFD compares maps before the activation, but the teacher gives none",
        ),
        (
            {"architecture": "timm/vit_tiny_patch16_224", "source": "fetch", "weights": "w.pt"},
            "resnet8x4",
            "at",
            CIFAR,
            "AT compares feature maps, but the teacher gives none",
        ),
        (
            R18,
            "torchvision/vit_b_16",
            "kd",
            CIFAR,
            "pairs.t-s: torchvision/vit_b_16 does not take images of 32x32 with 3 channels: Wrong image height",
        ),
        ({"architecture": "soft.py:Net"}, "resnet8x4", "kd", {}, f"teachers.t: {soft}"),
        ({"architecture": "mine.py:Net"}, "soft.py:Net", "kd", {}, f"pairs.t-s: {soft}"),
        (R18, "torchvision/vgg11", "kd", {}, "torchvision/vgg11 does not take images of 8x8 with 1 channels"),
        (
            {"architecture": "mine.py:Net"},
            "broken.py:Net",
            "kd",
            {},
            "importing broken.py raises KeyError: 'what' (line 2)",
        ),
        (
            {"architecture": "bare.py:Net"},
            "resnet8_w2",
            "vkd",
            {"cache": {}},
            "VkD compares pooled features, but the teacher has none",
        ),
        (
            {"architecture": "bare.py:Net"},
            "resnet8_w2",
            "kd",
            {"cache": {"pooled": True}},
            "cache.pooled: teacher t has no pooled features",
        ),
        ({"architecture": "mine.py:Net"}, "mine.py:Nit", "kd", {}, "mine.py has no 'Nit': did you mean 'Net'?"),
        (
            {"architecture": "timm/resnet19"},
            "resnet8_w2",
            "kd",
            {},
            "unknown architecture 'timm/resnet19': did you mean 'timm/resnet1",
        ),
        (
            R18,
            "torchvision/googlenet",
            "kd",
            CIFAR,
            "pairs.t-s: torchvision/googlenet gives a GoogLeNetOutputs in training",
        ),
    ):
        told = refused(teacher, student, method, **more)
        assert said in told and "\n" not in told, (teacher, student, method, told)
