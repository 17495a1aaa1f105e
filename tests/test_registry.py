"""A component that this package does not know: a class in the author's own file, named by its place."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from logit_batches import batch, context

from distillery import data
from distillery.config import Problems
from distillery.data.dataset import Dataset
from distillery.errors import DistilleryError
from distillery.models.base import Network
from distillery.objectives import OBJECTIVES
from distillery.objectives.base import Objective
from distillery.objectives.build import Loss
from distillery.registry import Registry
from distillery.study.model import Method, Recipe
from distillery.tasks.classification.training import assemble
from distillery.teachers.source import LiveTeachers
from distillery.training.loop import fit

HEAD = '''"""My loss."""

from collections.abc import Sequence

import torch.nn.functional as F

from distillery.config import Positive, Weight
from distillery.objectives.base import Batch, Objective
'''

# What authors write: the file below HEAD, the class in it, a study's block, and keys as they should be read.
ORDINARY: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "a subclass of KD": (
        """
from distillery.objectives.kd import KD

class Mine(KD):
    class Config(KD.Config):
        kd_weight: Weight = 0.5

    config: Config
""",
        "Mine",
        "{temperature: 2}",
        {"temperature": 2.0, "kd_weight": 0.5, "ce_weight": 0.1},
    ),
    "a type alias": (
        """
from typing import Annotated, Literal
from pydantic import Field

Side = Literal["left", "right"]
Power = Annotated[int, Field(ge=1, le=4)]

class Mine(Objective):
    class Config(Objective.Config):
        side: Side = "left"
        power: Power = 2

    config: Config

    def distill(self, batch):
        sign = 1 if self.config.side == "left" else -1
        gap = sign * (batch.student.logits - batch.teacher.logits)
        return {"mine": 0.01 * gap.abs().pow(self.config.power).mean()}
""",
        "Mine",
        "{side: right, power: 3}",
        {"side": "right", "power": 3},
    ),
    "a sequence of whole numbers": (
        """
class Mine(Objective):
    class Config(Objective.Config):
        stages: Sequence[int] = (0,)
        taps: tuple[int, ...] = (1, 2)

    config: Config
    needs = frozenset({"maps", "logits"})

    def distill(self, batch):
        gaps = [batch.student.maps[i].square().mean() for i in (*self.config.stages, *self.config.taps)]
        return {"mine": 0.1 * sum(gaps)}
""",
        "Mine",
        "{stages: [0, 1], taps: [2, 3]}",
        {"stages": [0, 1], "taps": [2, 3]},
    ),
    "a constant of the module": (
        """
DEFAULT = 3.0

class Mine(Objective):
    class Config(Objective.Config):
        temperature: Positive = DEFAULT

    config: Config

    def distill(self, batch):
        return {"mine": F.mse_loss(*(x.logits / self.config.temperature for x in (batch.student, batch.teacher)))}
""",
        "Mine",
        "{}",
        {"temperature": 3.0},
    ),
    "two classes": (
        """
class Other(Objective):
    class Config(Objective.Config):
        other: int = 1

    config: Config

class Mine(Objective):
    class Config(Objective.Config):
        mine: int = 2

    config: Config

    def distill(self, batch):
        return {"mine": F.mse_loss(batch.student.logits, batch.teacher.logits)}
""",
        "Mine",
        "{mine: 5}",
        {"mine": 5},
    ),
    "a tuple of numbers": (
        """
class Mine(Objective):
    class Config(Objective.Config):
        temperatures: tuple[Positive, ...] = (1.0, 4.0)

    config: Config

    def distill(self, batch):
        pairs = [(batch.student.logits / t, batch.teacher.logits / t) for t in self.config.temperatures]
        return {"mine": sum(F.mse_loss(*pair) for pair in pairs)}
""",
        "Mine",
        "{temperatures: [2, 3.5]}",
        {"temperatures": [2.0, 3.5]},
    ),
    "needs added to the usual ones": (
        """
class Mine(Objective):
    needs = Objective.needs | {"pooled"}

    def distill(self, batch):
        loss = F.mse_loss(batch.student.logits, batch.teacher.logits)
        return {"mine": loss + 0.01 * batch.student.pooled.square().mean() / batch.teacher.pooled.square().mean()}
""",
        "Mine",
        "{ce_weight: 0.5}",
        {"ce_weight": 0.5},
    ),
    "the whole module of another loss": (
        """
from distillery.objectives import kd

class Mine(Objective):
    def distill(self, batch):
        return {"mine": kd.kd_loss(batch.student.logits, batch.teacher.logits, 2.0)}
""",
        "Mine",
        "{}",
        {"ce_weight": 1.0},
    ),
}


def block(file: Path, body: str, name: str = "Mine", keys: str = "{}") -> Method:
    """A study's block that names a class in a file."""
    file.write_text(HEAD + body)
    return Method.model_validate({"objective": f"{file}:{name}"} | yaml.safe_load(keys))


def refused(method: Method) -> str:
    with pytest.raises(Problems) as caught:
        Loss(method)
    return str(caught.value)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("digits") / "arrays.safetensors"
    data.prepare("digits", {}, path)
    whole = Dataset.load(path)
    some = torch.arange(0, len(whole.train_labels), 12)
    cut = {"train_images": whole.train_images[some], "train_labels": whole.train_labels[some]}
    return dataclasses.replace(whole, **cut, rows=torch.arange(len(some)))


@pytest.fixture(scope="module")
def teacher(digits: Dataset) -> Network:
    return assemble("resnet8_w8", Method(objective="ce"), digits, [], 1).student.eval().requires_grad_(False)


@pytest.mark.parametrize("case", ORDINARY)
def test_ordinary_files_are_read_and_trained(case: str, digits: Dataset, teacher: Network, tmp_path: Path) -> None:
    body, name, keys, expected = ORDINARY[case]
    method = block(tmp_path / "mine.py", body, name, keys)
    loss = Loss(method)
    assert loss.effective().items() >= expected.items()
    assert "logits" in loss.needs
    recipe = Recipe(epochs=1, batch_size=16, lr=0.02, milestones=(), augmentation={"pad": 1, "flip": False})
    trainee = assemble("resnet8_w4", method, digits, [teacher], 0)
    before = {k: v.clone() for k, v in trainee.student.state_dict().items()}
    fit(trainee, digits.loader(recipe), LiveTeachers([teacher], recipe), recipe, 0)
    assert sum(not torch.equal(v, before[k]) for k, v in trainee.student.state_dict().items()) > 20
    assert all(torch.isfinite(p).all() for p in trainee.parameters())


def test_a_class_keeps_the_needs_it_adds_to(tmp_path: Path) -> None:
    method = block(tmp_path / "mine.py", ORDINARY["needs added to the usual ones"][0])
    assert Loss(method).needs == {"logits", "pooled"}


def test_a_file_may_be_partner_and_may_have_plugins(tmp_path: Path) -> None:
    body, name, *_ = ORDINARY["a type alias"]
    place = block(tmp_path / "mine.py", body, name).objective
    method = Method(objective="kd", plus={place: {"weight": 2, "power": 1}}, plugins={"standardise": {}})
    assert Loss(method).effective()["plus"] == {place: {"weight": 2.0, "side": "left", "power": 1}}
    z, y = torch.randn(4, 5), torch.arange(4)
    terms = Loss(method).build(context(y, z))(batch(z, -z, y))
    assert len(terms) == 3 and all(term.isfinite() for term in terms.values())


def test_an_installed_module_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_package_of_losses.py").write_text(HEAD + ORDINARY["a constant of the module"][0])
    monkeypatch.syspath_prepend(tmp_path)
    assert Loss(Method(objective="my_package_of_losses:Mine")).effective()["temperature"] == 3.0
    said = refused(Method(objective="my_package_of_loses:Mine"))
    assert "importing my_package_of_loses raises ModuleNotFoundError" in said


MISTAKES = {
    "unknown class": (ORDINARY["two classes"][0], "Mne", "{}", "mine.py has no 'Mne': did you mean 'Mine'?"),
    "raises": ("\nx = 1\nx.nothing\n", "Mine", "{}", "raises AttributeError: 'int' object has no attribute 'nothing'"),
    "ends the program": ("\nimport sys\nsys.exit()\n", "Mine", "{}", "mine.py ends the program (line 11): put"),
    "reads arguments": (
        '\nfrom argparse import ArgumentParser as P\np = P()\np.add_argument("x", type=complex)\np.parse_args(["x"])\n',
        *("Mine", "{}", "mine.py ends the program (line 13): put"),
    ),
    "no objective": ("\nclass Mine: pass\n", "Mine", "{}", "mine.py:Mine is no objective: derive it from"),
    "no class": ("\nMine = 3\n", "Mine", "{}", "mine.py:Mine is no objective: derive it from"),
    "unknown need": (
        '\nclass Mine(Objective):\n    needs = frozenset({"logit"})\n',
        *("Mine", "{}", "has an unknown item in `needs`, 'logit': did you mean 'logits'?"),
    ),
    "a truth value for a number": (
        *(ORDINARY["a constant of the module"][0], "Mine", "{temperature: true}"),
        "temperature: a number, not true",
    ),
    "a text for a number": (
        *(ORDINARY["a constant of the module"][0], "Mine", "{temperature: four}"),
        "temperature: a number, not 'four'",
    ),
    "a fraction for a whole number": (
        *(ORDINARY["two classes"][0], "Mine", "{mine: 1.5}"),
        "mine: a whole number, not 1.5",
    ),
    "out of range": (ORDINARY["a constant of the module"][0], "Mine", "{temperature: 0}", "greater than 0, not 0"),
    "in a list": (ORDINARY["a tuple of numbers"][0], "Mine", "{temperatures: [1, -2]}", "temperatures.1: greater than"),
    "unknown key": (
        *(ORDINARY["a constant of the module"][0], "Mine", "{temprature: 2}"),
        "unknown key 'temprature': did you mean 'temperature'?",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_sentence(case: str, tmp_path: Path) -> None:
    body, name, keys, expected = MISTAKES[case]
    said = refused(block(tmp_path / "mine.py", body, name, keys))
    assert expected in said and "\n" not in said, said


def test_an_error_in_the_file_names_its_line(tmp_path: Path) -> None:
    line = HEAD.count("\n") + 3
    assert f"(line {line})" in refused(block(tmp_path / "mine.py", "\nx = 1\nx.nothing\n"))
    said = refused(block(tmp_path / "typo.py", "\nclass Mine(Objective:\n    pass\n"))
    assert "SyntaxError" in said and "line" in said
    assert not [m for m in sys.modules.values() if str(getattr(m, "__file__", "")).startswith(str(tmp_path))]


def test_a_missing_file_and_an_unknown_name() -> None:
    assert "there is no file nowhere.py here" in refused(Method(objective="nowhere.py:Mine"))
    assert refused(Method(objective="kdd")) == "unknown objective 'kdd': did you mean 'kd'?"
    assert "unknown objective 'mine.py'" in refused(Method(objective="mine.py"))


def test_all_mistakes_of_a_block_are_named_at_once() -> None:
    method = Method(
        objective="kd", temprature=2, plugins={"standardize": {}, "select": {"fraction": 2}}, plus={"crd": {"nce": 1}}
    )
    assert refused(method).splitlines() == [
        "unknown key 'temprature': did you mean 'temperature'?",
        "plugins: unknown plug-in 'standardize': did you mean 'standardise'?",
        "plugins.select.fraction: less than 1, not 2",
        "unknown key 'plus.crd.nce': did you mean 'nce_k'?",
    ]


def test_a_registry_loads_nothing_until_asked() -> None:
    rows = Registry("objective", "distillery.objectives.base:Objective", {"one": "no_such_module:One"})
    assert list(rows) == ["one"] and rows["one"].attribute == "One" and "two" not in rows
    for name, row in OBJECTIVES.items():
        kind = row.load()
        assert issubclass(kind, Objective) and row.name == name and not row.file


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (
            {"objective": "rld", "same_temperature": True, "alpha_temperature": 2},
            "alpha_temperature: has no effect with same_temperature: true: leave it out",
        ),
        ({"objective": "deit", "temperature": 4}, 'temperature: has no effect with kind: "hard": leave it out'),
        ({"objective": "vkd", "kd_weight": 0, "temperature": 4}, "temperature: has no effect with kd_weight: 0.0"),
        ({"objective": "vkd", "feat_weight": 0, "beta": 2}, "beta: has no effect with feat_weight: 0.0"),
        (
            {"objective": "clkd", "correlation_weight": 0, "form": "sample_gram"},
            "form: has no effect with correlation_weight: 0.0",
        ),
        ({"objective": "clkd", "kd_weight": 0, "class_weight": 1}, "class_weight: has no effect with kd_weight: 0.0"),
        ({"objective": "rld", "alpha": 0, "alpha_temperature": 2}, "alpha_temperature: has no effect with alpha: 0.0"),
        ({"objective": "rld", "beta": 0, "temperature": 2}, "temperature: has no effect with beta: 0.0 and same_"),
        ({"objective": "vkd", "feat_weight": 0, "orthogonal_map": "cayley"}, "orthogonal_map: has no effect with feat"),
        ({"objective": "vkd_tokens", "feat_weight": 0, "bias": True}, "bias: has no effect with feat_weight: 0.0"),
        ({"objective": "vkd_tokens", "kd_weight": 0, "temperature": 2}, "temperature: has no effect with kd_weight"),
        ({"objective": "label_revision", "lambda2": 0, "eta": 0.5}, "eta: has no effect with lambda2: 0.0"),
        ({"objective": "staged", "kd_weight": 0, "temperature": 2}, "temperature: has no effect with kd_weight: 0.0"),
        ({"objective": "staged", "distribution_weight": 0, "tau": 2}, "tau: has no effect with distribution_weight"),
        (
            {"objective": "staged", "ce_weight": 0, "pseudo_labels": False},
            "pseudo_labels: has no effect with ce_weight",
        ),
        ({"objective": "rkd", "distance_weight": 0, "squared": True}, "squared: has no effect with distance_weight"),
        (
            {"objective": "ensemble", "weighting": False, "scaling": False, "correctness": "inverse_loss"},
            "correctness: has no effect with weighting: false and scaling: false: leave it out",
        ),
        (
            {"objective": "adain", "adain_weight": 0, "srrl_weight": 1, "stages": [1]},
            "stages: has no effect with adain_weight: 0.0 and l2_weight: 0.0: leave it out",
        ),
        ({"objective": "itrd", "lambda_corr": 0, "alpha": 1.5}, "alpha: has no effect with lambda_corr: 0.0"),
        (
            {"objective": "kd", "plugins": {"select": {"seed": 3}}},
            'plugins.select.seed: has no effect with score: "margin": leave it out',
        ),
        ({"objective": "kd", "plus": {"crd": {"weight": 0}}}, "plus.crd.weight: 0 switches it off: drop the entry"),
    ],
)
def test_a_key_without_effect_is_refused(block: dict[str, Any], said: str) -> None:
    with pytest.raises(DistilleryError, match="^" + re.escape(said)):
        Loss(Method.model_validate(block))
    shown = {k: v for k, v in block.items() if k in ("objective", "same_temperature", "kd_weight", "feat_weight")}
    assert Loss(Method.model_validate(shown)).effective(), "defaults are no mistake"
