"""The table of released teachers: where they lie, what they reach, and what a study may say instead."""

from __future__ import annotations

import json
import subprocess
import sys

import torchvision

from distillery import models
from distillery.study.model import Data, Teacher
from distillery.teachers import named
from distillery.teachers.released import IMAGENET, RELEASED, Source, source_of

# The test accuracies that the authors print beside their six teachers (mdistiller and RepDistiller).
PRINTED = {"resnet56": 72.34, "resnet110": 74.31, "resnet32x4": 79.42}
PRINTED |= {"ResNet50": 79.34, "wrn_40_2": 75.61, "vgg13": 74.64}


def test_the_six_released_teachers_need_no_urls() -> None:
    for name, known in RELEASED.items():
        assert name in models.NETWORKS
        source = source_of(Teacher(architecture=name, source="fetch"), Data(source="cifar100"))
        assert source == known
        folder = source.member.split("/")[1].removesuffix("_vanilla")
        assert source.accuracy == PRINTED[folder]
        assert source.urls[0].endswith("/cifar_teachers.tar")
        assert source.urls[1] == f"http://shape2prog.csail.mit.edu/repo/{folder}_vanilla/ckpt_epoch_240.pth"
        assert folder.lower() == name
    assert len(RELEASED) == 6


def test_imagenets_teachers_are_torchvisions_first_ones() -> None:
    for name, known in IMAGENET.items():
        weights = torchvision.models.get_model_weights(name.removeprefix("imagenet_"))["IMAGENET1K_V1"]
        assert known.urls == (weights.url,) and weights.url.endswith(f"-{known.sha256}.pth")
        assert known.accuracy == weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert known.preprocessing == named.named(f"torchvision/{name[9:]}", "IMAGENET1K_V1").preprocessing
        part = Teacher(architecture=name, source="fetch", classes="imagenet")
        assert source_of(part, Data(source="folder")).preprocessing == known.preprocessing
        teacher = Teacher(architecture=name, source="fetch")
        assert source_of(teacher, Data(source="imagenet")) == known
        assert source_of(teacher, Data(source="cifar100")).urls == ()
    assert len(IMAGENET) == 3


def test_what_the_study_says_comes_first() -> None:
    cifar, mine = Data(source="cifar100"), {"architecture": "resnet32x4", "source": "fetch"}
    source = source_of(Teacher(**mine, urls=("/copy/cifar_teachers.tar",)), cifar)
    assert source == Source(("/copy/cifar_teachers.tar",), RELEASED["resnet32x4"].member, None, 79.42, whole=10_000)
    own = {"urls": ("own.pth",), "member": "x", "sha256": "a" * 64, "accuracy": 80.0}
    assert source_of(Teacher(**mine, **own), cifar) == Source(("own.pth",), "x", "a" * 64, 80.0, whole=10_000)
    assert source_of(Teacher(**mine), Data(source="digits")).urls == ()


def test_the_table_of_released_teachers_comes_without_torch() -> None:
    code = "import sys, distillery.pipeline.check; print(json.dumps('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"import json; {code}"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False
