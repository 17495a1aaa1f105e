"""`check` refuses what cannot work, in one sentence, before anything runs; and what it calls valid does work."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT
from own_images import photos

from distillery.data import prepare
from distillery.data.dataset import Dataset
from distillery.errors import DistilleryError
from distillery.models import build
from distillery.objectives import OBJECTIVES
from distillery.objectives.build import Loss
from distillery.objectives.plugins import PLUGINS
from distillery.pipeline.check import check, load, rehearse
from distillery.study.blocks import Method, Recipe
from distillery.tasks.classification.training import assemble
from distillery.teachers.source import LiveTeachers
from distillery.training.loop import fit

STUDIES = sorted((ROOT / "workflow" / "studies").glob("*.yaml"))


def study(method: dict[str, Any], teacher: str = "resnet8_w4", student: str = "resnet8_w2", **more: Any) -> Any:
    """A study of digits with one cell; `more` replaces whole sections."""
    content = yaml.safe_load((ROOT / "workflow" / "studies" / "digits.yaml").read_text())
    content["teachers"] = {"t": {"architecture": teacher}}
    content["pairs"] = {"t-s": {"teacher": "t", "student": student}}
    content["methods"] = {"m": method}
    content["tables"] = {}
    return content | more


def said(params: dict[str, Any]) -> str:
    """What `check` says about a study; "" if it is valid."""
    try:
        rehearse(check(params))
    except DistilleryError as error:
        return str(error).removeprefix("params.yaml: ")
    return ""


def recipe(**changes: Any) -> dict[str, Any]:
    return {"recipe": {"epochs": 20, "batch_size": 32, "milestones": [12], **changes}}


KD: dict[str, Any] = {"objective": "kd"}
PLAIN = {"t": {"architecture": "resnet8_w4", "recipe": {"validation": 0.0, "augmentation": {"pad": 0, "flip": False}}}}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a plug-in for logits on a method that compares none": (
        study({"objective": "at", "plugins": {"standardise": {}}}),
        "methods.m for t-s: plug-in 'standardise' has no effect: at compares no logits",
    ),
    "a plug-in without a teacher": (
        study({"objective": "ce", "plugins": {"standardise": {}}}),
        "methods.m for t-s: plug-in 'standardise' has no effect: ce has no teacher",
    ),
    "a selection without a teacher": (
        study({"objective": "ce", "plugins": {"select": {}}}),
        "methods.m for t-s: plug-in select scores the images by a teacher, and this method has none; drop the plug-in",
    ),
    "a student without maps before the activation": (
        study({"objective": "ofd"}, "resnet8", "mobilenet_v2", data={"source": "cifar100"}),
        "methods.m for t-s: OFD compares maps before the activation, but the student gives none",
    ),
    "a distillation head that nobody trains": (
        study(KD, student="deit_w48_p2"),
        "methods.m for t-s: kd does not train the distillation head of deit_w48_p2, half of whose prediction comes "
        "from there: choose objective deit or vkd_tokens, or a student without that head",
    ),
    "a teacher with a head that nobody trains": (
        study(KD, "deit_w48_p2"),
        "teachers.t: it is trained on labels alone, which leaves the distillation head of deit_w48_p2 as it begins",
    ),
    "a student without a distillation head": (
        study({"objective": "deit"}),
        "methods.m for t-s: deit trains a distillation head, and the student has none: take kd for it",
    ),
    "a student without tokens": (
        study({"objective": "vkd_tokens"}),
        "methods.m for t-s: vkd_tokens compares patch tokens, but the student gives none: take vkd for it",
    ),
    "images smaller than a patch": (
        study(KD, student="deit_ti"),
        "pairs.t-s: a map of 8x8 is smaller than a patch, 16x16: take larger images, or a network with smaller patches",
    ),
    "two teachers for one": (
        study(
            KD,
            teachers={"t": {"architecture": "resnet8_w4"}, "u": {"architecture": "resnet8_w4"}},
            pairs={"t-s": {"teacher": ["t", "u"], "student": "resnet8_w2"}},
        ),
        "methods.m: kd learns from one teacher, and pair t-s has 2",
    ),
    "no term at all": (
        study({"objective": "adain", "adain_weight": 0}),
        "methods.m for t-s: every term of adain has weight 0",
    ),
    "a weight of 0": (study(KD | {"kd_weight": 0}), "methods.m for t-s: every term of kd has weight 0"),
    "a weight of 0 where teacher and student are alike": (
        study(KD | {"kd_weight": 0}, student="resnet8_w4"),
        "methods.m for t-s: every term of kd has weight 0",
    ),
    "a weight of 0 beside a partner": (
        study(KD | {"kd_weight": 0, "plus": {"at": {}}}),
        "methods.m for t-s: every term of kd has weight 0",
    ),
    "a partner that distils nothing": (
        study(KD | {"plus": {"ce": {}}}),
        "methods.m for t-s: plus.ce: adds nothing: drop the entry, or give its terms a weight",
    ),
    "a partner whose terms have weight 0": (
        study(KD | {"plus": {"at": {"feat_weight": 0}}}),
        "methods.m for t-s: plus.at: adds nothing: drop the entry, or give its terms a weight",
    ),
    "a selection of all images": (
        study(KD | {"plugins": {"select": {"fraction": 1}}}),
        "methods.m: plugins.select.fraction: less than 1, not 1",
    ),
    "a cross-entropy of weight 0 and nothing else": (
        study({"objective": "ce", "ce_weight": 0}),
        "methods.m for t-s: every term of ce has weight 0",
    ),
    "standardised logits that are not tempered": (
        study({"objective": "wttm", "plugins": {"standardise": {}}}),
        "methods.m: plugins.standardise: the student is not tempered here",
    ),
    "the same with TTM as a partner": (
        study(KD | {"plus": {"ttm": {}}, "plugins": {"standardise": {}}}),
        "methods.m: plugins.standardise: the student is not tempered here",
    ),
    "a revision of what is revised": (
        study({"objective": "label_revision", "plugins": {"swap": {}}}),
        "methods.m: plugins.swap: this method revises by itself what the teacher gets wrong",
    ),
    "two corrections of the teacher": (
        study(KD | {"plugins": {"swap": {}, "revise": {}}}),
        "methods.m: plugins: revise and swap both put the teacher right, and the second finds nothing to do: keep one",
    ),
    "a cross-entropy for a classifier that is thrown away": (
        study({"objective": "simkd", "ce_weight": 1}),
        "methods.m: ce_weight: the cross-entropy trains the student's own classifier, and this method predicts with "
        "another one: set it to 0",
    ),
    "the same for images that are not chosen": (
        study({"objective": "simkd", "plugins": {"select": {}}}),
        "methods.m: plugins.select: the cross-entropy of the images that are not chosen trains the student's own",
    ),
    "a selection of mixed images": (
        study(
            KD | {"plugins": {"select": {}}},
            **recipe(augmentation={"pad": 1, "flip": False, "then": [{"name": "mixup"}]}),
        ),
        "methods.m for t-s: a data selection chooses images, and mixed images (mixup, cutmix) are two",
    ),
    "a last batch of one image": (
        study(KD, student="shufflenet_v2", **recipe(batch_size=89)),
        "pairs.t-s: with batch_size 89 the last batch of 179 images holds one, and shufflenet_v2 normalises over a "
        "single value there: choose another batch_size",
    ),
    "a strong view of levels that are none": (
        study({"objective": "mlkd"}),
        "methods.m for t-s: the strong view of mlkd works on 1 or 3 channels of grey levels 0 to 255, and these images "
        "have 1 of 0 to 16: take another objective (mlkd_single has none)",
    ),
    "nothing to train on": (
        study(KD, teachers=PLAIN, **recipe(validation=0.99999)),
        "pairs.t-s: recipe.validation 0.99999 leaves no image to train on",
    ),
    "padding without end": (
        study(KD, teachers=PLAIN, **recipe(augmentation={"pad": 100_000, "flip": False})),
        "pairs.t-s: recipe.augmentation.pad is 100,000, wider than the images (8 pixels)",
    ),
    "seeds without end": (study(KD, seeds=["0-9999999999"]), "'0-9999999999' has 10,000,000,000 seeds, and 10,000 is"),
    "a name longer than a file's": (study(KD, study="x" * 101), "study: "),
    "milestones beyond the last epoch": (
        study(KD, **recipe(milestones=[12, 30])),
        "recipe.milestones: 30 is beyond the last epoch, 20",
    ),
    "a pair's and a method's recipe that contradict, in the first of two pairs": (
        study(
            KD | {"recipe": {"momentum": 0.8}},
            pairs={
                "a": {"teacher": "t", "student": "resnet8_w2", "recipe": {"optimizer": {"name": "adamw"}}},
                "b": {"teacher": "t", "student": "resnet8_w2"},
            },
        ),
        "methods.m.recipe.momentum: has no effect with optimizer 'adamw'",
    ),
    "disagreement about images without a label, where all have theirs": (
        study(
            {"objective": "ensemble", "disagreement": False},
            teachers={"t": {"architecture": "resnet8_w4"}, "u": {"architecture": "resnet8_w4", "seed": 1}},
            pairs={"t-s": {"teacher": ["t", "u"], "student": "resnet8_w2"}},
        ),
        "methods.m: disagreement: has no effect: every image has its label (data.labelled): leave it out",
    ),
    "weights of one teacher": (
        study({"objective": "ensemble", "weighting": False}),
        "methods.m: weighting: has no effect with one teacher: leave it out",
    ),
    "a label of one pair": (
        study(KD | {"pairs": {"t-s": {"label": "K"}}}),
        "methods.m.pairs.t-s.label: has no effect: it is the method's: leave it out here",
    ),
    "a form of what is not cached": (
        study(KD, cache={"enabled": False, "dtype": "float16"}),
        "cache.dtype: has no effect with enabled: false: leave it out",
    ),
    "a seed of views where there is one": (
        study(KD, teachers=PLAIN, **recipe(augmentation={"pad": 0, "flip": False, "view_seed": 1})),
        "methods.m: augmentation.view_seed: has no effect: every image has one view: override it with null",
    ),
    "taps that change nothing": (
        study(KD, **recipe(tap_preacts=True)),
        "recipe.tap_preacts: has no effect: no network here passes a normalisation more often: leave it out",
    ),
    "what a partner asks in vain": (
        study(KD | {"plus": {"staged": {"cascade_epochs": 20}}}, **recipe(epochs=20)),
        "methods.m: plus.staged.cascade_epochs: 20 leave none of 20 epochs to train the classifier in: give fewer",
    ),
    "taps that change nothing in one pair": (
        study(
            KD,
            pairs={
                "t-s": {"teacher": "t", "student": "wrn_16_1"},
                "t-r": {"teacher": "t", "student": "resnet8_w2", "recipe": {"tap_preacts": True}},
            },
        ),
        "pairs.t-r.recipe.tap_preacts: has no effect: resnet8_w2 passes no normalisation more often: leave it out",
    ),
    "more test images than there are": (
        study(KD, data={"source": "digits", "test_fraction": 2.0}),
        "data.test_fraction: less than 1, not 2.0",
    ),
    "the cross-entropy of a partner": (
        study({"objective": "at", "plus": {"kd": {"ce_weight": 1}}}),
        "methods.m: plus.kd.ce_weight: the cross-entropy counts once, with the ce_weight of the method",
    ),
    "mirrors of a teacher that is trained": (
        study(KD, teachers={"t": {"architecture": "resnet8_w4", "urls": ["http://a/b.pth"]}}),
        "teachers.t.urls: has no effect with source: train",
    ),
    "a key of no method": (study(KD | {"heat": 1}), "methods.m: unknown key 'heat': known: "),
    "a value out of range": (study(KD | {"temperature": 0}), "methods.m: temperature: greater than 0, not 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_in_one_sentence(case: str) -> None:
    params, sentence = REFUSED[case]
    found = said(params)
    assert sentence in found and "\n" not in found, found


OWN = """
import torch
from distillery.objectives.base import Objective

class Mine(Objective):
    needs = frozenset(NEEDS)

    def distill(self, batch):
        return {"mine": BODY}
"""


@pytest.mark.parametrize(
    ("needs", "body", "sentence"),
    [
        ('{"logit"}', "0", "has an unknown item in `needs`, 'logit': did you mean 'logits'?"),
        ('{"logits"}', "(batch.student.logits @ batch.teacher.logits).mean()", "mine.py:Mine raises RuntimeError: "),
        (
            '{"logits"}',
            "batch.student.logit.mean()",
            "raises AttributeError: 'Outputs' object has no attribute",
        ),
        ('{"logits"}', "batch.student.logits.mean() * float(batch.teacher.logits.max())", ""),
        ('{"logits"}', "batch.student.logits.mean(1)", "Mine.distill returns a tensor of shape (4,) as 'mine', not a"),
        ('{"logits"}', "1.0", "Mine.distill returns float as 'mine', not a scalar tensor"),
        (
            '{"logits"}',
            "batch.student.logits.mean()}.popitem  # ",
            "Mine.distill returns a builtin_function_or_method, not",
        ),
        (
            '{"logits"}',
            'batch.student.logits.mean(), "ce": batch.student.logits.mean()',
            "Mine.distill has a term 'ce', as the supervised loss has, which would be lost",
        ),
    ],
)
def test_a_file_of_the_users_is_rehearsed(needs: str, body: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN.replace("NEEDS", needs).replace("BODY", body))
    found = said(study({"objective": f"{file}:Mine"}))
    assert sentence in found and "\n" not in found and bool(found) == bool(sentence), found


def test_a_method_of_the_users_says_how_many_epochs_it_needs(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    more = (
        "    @classmethod\n    def faults(cls, config, epochs, teachers, hidden):\n"
        "        yield from ['give more'] if epochs < 30 else []\n"
    )
    body = "batch.student.logits.mean()"
    file.write_text(OWN.replace("NEEDS", '{"logits"}').replace("BODY", body) + f"\n{more}")
    assert said(study({"objective": f"{file}:Mine"}, **recipe(epochs=20))) == "methods.m: give more"
    assert said(study({"objective": f"{file}:Mine"}, **recipe(epochs=30))) == ""


@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_ready_made_study_passes(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for own photographs; where data or files cannot be stood in for, all but these is checked."""
    monkeypatch.chdir(tmp_path)
    found = load(path)
    if here := found.data.source in ("folder", "streamed_folder"):
        root = photos(tmp_path / found.data.options["root"], 40, ("train", "val"))
        for split in ("train", "val"):  # logit standardisation wants three classes
            shutil.copytree(root / split / "warm", root / split / "warmer")
    known = found.data.source in ("digits", "cifar100") and found.task["name"] == "classification"
    rehearse(found, images=here or known)


def test_a_study_of_350_cells_is_checked() -> None:
    """14 pairs and 25 methods of digits, all mistakes named at once; nobody waits for minutes."""
    names = ["resnet8_w2", "resnet8_w4", "resnet14_w2", "resnet14_w4"]
    pairs = {f"{n}-{s}": {"teacher": n, "student": s} for n, s in list(itertools.product(names, names))[:14]}
    methods: dict[str, Any] = {f"kd_{t}": KD | {"temperature": t} for t in range(1, 24)}
    methods |= {"at": {"objective": "at"}, "bad": {"objective": "at", "plugins": {"standardise": {}}}}
    teachers = {name: {"architecture": name} for name in names}
    found = said(study({}, teachers=teachers, pairs=pairs, methods=methods)).splitlines()
    assert len(found) == 14 and all("at compares no logits" in line for line in found)


@pytest.mark.parametrize(("size", "where"), [(31, recipe(validation=0.3, batch_size=31)), (44, recipe(batch_size=44))])
def test_a_last_batch_that_nobody_can_count_is_not_refused(size: int, where: dict[str, Any]) -> None:
    """What is held out or hidden is a share of each class: 129 images of 179, and not 125; 89, and not 90."""
    data: dict[str, Any] = {"source": "digits", "test_fraction": 0.9} | ({"labelled": 0.5} if size == 44 else {})
    assert said(study(KD, student="mobilenet_v2", data=data, **where)) == ""


def test_taps_may_be_asked_of_a_study_in_which_one_network_reacts() -> None:
    pairs = {f"t-{s}": {"teacher": "t", "student": s} for s in ("resnet8_w2", "wrn_16_1")}
    assert not said(study(KD, pairs=pairs, **recipe(tap_preacts=True)))
    found = said(study(KD | {"pairs": {"t-resnet8_w2": {"recipe": {"tap_preacts": True}}}}, pairs=pairs))
    assert found.startswith("methods.m.pairs.t-resnet8_w2.recipe.tap_preacts: has no effect")


def test_a_rehearsal_computes_every_term_once(monkeypatch: pytest.MonkeyPatch) -> None:
    at, calls = OBJECTIVES["at"].load(), list[int]()
    distill = at.distill
    monkeypatch.setattr(at, "distill", lambda *given: calls.append(1) or distill(*given))
    assert not said(study(KD | {"plus": {"at": {}}})) and len(calls) == 1


def test_a_rehearsal_draws_nothing_from_the_run() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert said(study(KD)) == ""
    assert torch.equal(torch.get_rng_state(), before)


# --- the rehearsal is honest: valid means that a real step works, refused means that it does not

PAIRS = [("resnet8_w4", "resnet8_w2"), ("resnet18", "shufflenet_v2"), ("vgg8", "mobilenet_v2")]
BLOCKS: dict[str, dict[str, Any]] = {name: {"objective": name} for name in OBJECTIVES}
BLOCKS |= {f"kd with {name}": {"objective": "kd", "plugins": {name: {}}} for name in PLUGINS}
BLOCKS |= {"simkd plus at": {"objective": "simkd", "plus": {"at": {}}}}
ONE = Recipe(epochs=1, batch_size=4, milestones=(), augmentation={"pad": 1, "flip": False})


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Eight images of 32x32 in colour, of four classes, for training; as many for the test."""
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randint(0, 256, (8, 3, 32, 32), generator=generator, dtype=torch.uint8), torch.arange(8) % 4
    facts = {"class_names": tuple("abcd"), "scale": 255.0, "mean": (0.5,) * 3, "std": (0.3,) * 3}
    return Dataset(images, labels, images, labels, rows=torch.arange(8), **facts)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("digits") / "arrays.safetensors"
    prepare("digits", {}, path)
    whole = Dataset.load(path)
    some = torch.arange(0, len(whole.train_labels), 40)
    cut = {"train_images": whole.train_images[some], "train_labels": whole.train_labels[some]}
    return dataclasses.replace(whole, **cut, rows=torch.arange(len(some)))


def step_fails(method: Method, teacher: str, student: str, data: Dataset) -> str:
    """Train a student for two steps as a run does; return why that is impossible, "" if it is not."""
    torch.manual_seed(1)
    try:
        loss = Loss(method)
        networks = [build(teacher, data.num_classes, data.channels).eval().requires_grad_(False)] if loss.needs else []
        trainee = assemble(student, method, data, networks, 0)
        source = LiveTeachers(networks, ONE, loss.needs) if networks else None
        fit(trainee, data.loader(ONE), source, ONE, 0)
    except (DistilleryError, RuntimeError, ValueError) as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("name", BLOCKS)
def test_valid_means_that_a_step_works(name: str, pair: tuple[str, str], few: Dataset) -> None:
    found = said(study(BLOCKS[name], *pair, data={"source": "cifar100"}))
    failed = step_fails(Method.model_validate(BLOCKS[name]), *pair, few)
    assert bool(found) == bool(failed), (found, failed)


@pytest.mark.parametrize("name", ["deit", "vkd_tokens"])
def test_valid_means_that_a_step_works_on_a_distillation_head(name: str, digits: Dataset) -> None:
    pair = ("resnet8_w4", "deit_w48_p2")
    assert said(study(BLOCKS[name], *pair)) == "" == step_fails(Method.model_validate(BLOCKS[name]), *pair, digits)


@pytest.mark.parametrize("name", ["ofd", "simkd", "adain", "kdsvd", "crd", "kd"])
def test_valid_means_that_a_step_works_on_digits(name: str, digits: Dataset) -> None:
    pair = ("resnet8_w4", "resnet8_w2")
    assert said(study(BLOCKS[name], *pair)) == "" == step_fails(Method.model_validate(BLOCKS[name]), *pair, digits)
