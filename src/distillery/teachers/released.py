"""The released teachers: where they lie and how good they are published to be. Nothing here needs torch.

For CIFAR-100 the files are RepDistiller's (Tian et al., ICLR 2020), trained for 240 epochs; mdistiller released the
same ones in one archive. Accuracies are those that both print: the last epoch's, on the test set. For ImageNet they are
torchvision's first ones (IMAGENET1K_V1), the teachers of every KD table; its later ones were trained by another recipe.

`weights: chenyaofo` names other files for CIFAR-100, of github.com/chenyaofo/pytorch-cifar-models (BSD-3-Clause): the
same networks, trained by another recipe to other accuracies, on images normalised with constants of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distillery.models import NETWORKS
from distillery.records.preprocessing import Preprocessing
from distillery.teachers import repository

if TYPE_CHECKING:  # imported in earnest, an option of the tables would count as code of the teachers
    from distillery.study.model import Data, Teacher

ARCHIVE = "https://github.com/megvii-research/mdistiller/releases/download/checkpoints/cifar_teachers.tar"
SINGLE = "http://shape2prog.csail.mit.edu/repo"
CHENYAOFO = "https://raw.githubusercontent.com/robtad/DANS/e0f876e613add351e409cf6aae9bb4061ec9c5a2/models"
# Ten of CIFAR-100's test images, fifty of ImageNet's. Networks that are only tested owe nothing to chance: chenyaofo's
# four came back to the last digit on another machine. Left are rounding, and a grey level between decoders or resizes.
TOLERANCE = 0.1
WHOLE = {"cifar100": 10_000, "imagenet": 50_000}  # test images that accuracies are published on, by source


@dataclass(frozen=True, slots=True)
class Source:
    """Where a teacher comes from and what it must be.

    Attributes:
        urls: mirrors in order: http(s) addresses, or local files and folders.
        member: the checkpoint within an archive or folder.
        sha256: of the file that a mirror offers, or of the checkpoint in it, perhaps only its first digits; None if
            unknown.
        accuracy: published top-1 accuracy in percent; None if nothing was published.
        preprocessing: what the network sees; None: what the data show.
        classes: width of the logits, where it is known before the file is there.
        licence: of the weights, where it is stated.
        tolerance: points by which the measured accuracy may miss the published one (see `gate.py`).
        config: where weights of timm's say what they saw, which then counts (see `repository.py`); None: nowhere.
        whole: images of the test set that the accuracy was published on; None: those of the data, however many.
    """

    urls: tuple[str, ...]
    member: str | None
    sha256: str | None
    accuracy: float | None
    preprocessing: Preprocessing | None = None
    classes: int | None = None
    licence: str | None = None
    tolerance: float = TOLERANCE
    whole: int | None = None
    config: str | None = None


def _released(name: str, accuracy: float, sha256: str | None = None) -> Source:
    folder = f"{name}_vanilla/ckpt_epoch_240.pth"
    mirrors = (ARCHIVE, f"{SINGLE}/{folder}")
    return Source(mirrors, f"cifar_teachers/{folder}", sha256, accuracy, whole=WHOLE["cifar100"])


def _chenyaofo(name: str, accuracy: float, sha256: str) -> Source:
    own = Preprocessing(mean=(0.5070, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2761))
    url = f"{CHENYAOFO}/cifar100_{name}.pth"
    return Source((url,), None, sha256, accuracy, own, 100, "BSD-3-Clause", whole=WHOLE["cifar100"])


# By our name of the architecture; the releases' own names differ in one case.
RELEASED = {
    "resnet56": _released("resnet56", 72.34),
    "resnet110": _released("resnet110", 74.31),
    "resnet32x4": _released(
        # Independent users of either mirror report this hash.
        *("resnet32x4", 79.42, "22aa12e2b632b19ddde155ccf2388671842ddd304824b3095e0a7fff364beb4f")
    ),
    "resnet50": _released("ResNet50", 79.34),
    "wrn_40_2": _released("wrn_40_2", 75.61),
    "vgg13": _released("vgg13", 74.64),
}
# What torchvision's first weights saw; data `imagenet` show the same unless a study says otherwise, other data do not.
SEEN = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=224, short_side=256)
IMAGENET = {
    f"imagenet_resnet{depth}": Source(
        (f"https://download.pytorch.org/models/resnet{depth}-{digits}.pth",),
        None,
        digits,
        accuracy,
        SEEN,
        classes=1000,
        whole=WHOLE["imagenet"],
    )
    for depth, digits, accuracy in ((18, "f37072fd", 69.758), (34, "b627a593", 73.314), (50, "0676ba61", 76.13))
}
BY_DATA = {"cifar100": RELEASED, "imagenet": IMAGENET}  # by the source that they were trained on
# Others of the same networks, by the name of the weights: as re-saved in github.com/robtad/DANS.
NAMED = {
    "chenyaofo": {
        name: _chenyaofo(name, accuracy, sha256)
        for name, accuracy, sha256 in (
            ("resnet20", 68.83, "0d7818eb35f95925455f13e548a72cfd79faf9174e293faefba0dd56cef1e164"),
            ("resnet32", 70.16, "e36a0629e178095b7747a0ae937c1ca19a2a1adf4a74f3a93eb7c18a4a3e9c90"),
            ("resnet44", 71.63, "466747de93dfc24d12769917f83c645d6c17182481c3b51e464d4baef352d1c6"),
            ("resnet56", 72.63, "f7e590a0e2fe80795aaeb7c5c75f53bd1050a2161c8e53e523ce2835fffd52e2"),
        )
    }
}
UNKNOWN = Source((), None, None, None)
HUB = "hf-hub:"  # before OWNER/NAME of a model on Hugging Face's hub
FAMILIES = ("torchvision/", "timm/")  # whose packages know weights by name


def places(teacher: Teacher) -> tuple[str, ...]:
    """The addresses, files and folders that a teacher's block names."""
    place = teacher.weights and not teacher.weights.startswith(HUB) and any(c in teacher.weights for c in "./\\")
    return (teacher.weights,) if teacher.weights and place else teacher.urls


def by_name(teacher: Teacher) -> bool:
    """Whether a package or the hub knows the weights; of a package's, `urls` may say where they are."""
    if teacher.weights and teacher.weights.startswith(HUB):
        return True
    named = teacher.weights is not None and teacher.weights not in places(teacher)
    return teacher.architecture.startswith(FAMILIES) and (named or not places(teacher))


def configuration(teacher: Teacher) -> Path | None:
    """The file beside weights of timm's on this machine that says what they saw; None where something else says so."""
    if teacher.preprocessing != "own" or not teacher.architecture.startswith("timm/") or by_name(teacher):
        return None
    here = (repository.beside(Path(url).expanduser()) for url in places(teacher) if not is_remote(url))
    return next((path for path in here if path), None)


def released(teacher: Teacher, data: Data) -> Source:
    """The release of this architecture for this data."""
    if teacher.weights in NAMED:
        return NAMED[teacher.weights].get(teacher.architecture, UNKNOWN)
    known = IMAGENET if teacher.classes == "imagenet" else BY_DATA.get(data.source, {})
    return known.get(teacher.architecture, UNKNOWN)


def source_of(teacher: Teacher, data: Data) -> Source:
    """Return the teacher's block of params.yaml, completed from `RELEASED` where the study says nothing.

    The hash is completed only for the mirrors it belongs to. The accuracy is completed for other mirrors too: a copy of
    a released teacher is held to what it promises, and whoever offers another teacher says how good that one is.

    Only where the weights are given by name, or where the architecture is none of Distillery's own, a package is asked.
    Raises DistilleryError for weights that it does not know.
    """
    if by_name(teacher) or NETWORKS[teacher.architecture].name not in NETWORKS:
        return _asked(teacher, data)
    known = released(teacher, data)
    own = known.preprocessing if teacher.preprocessing == "own" else teacher.preprocessing
    return Source(
        urls=places(teacher) or known.urls,
        member=teacher.member or known.member,
        sha256=teacher.sha256 or (None if places(teacher) else known.sha256),
        accuracy=known.accuracy if teacher.accuracy is None else teacher.accuracy,
        preprocessing=own if isinstance(own, Preprocessing) else None,
        classes=known.classes or _of_imagenet(teacher),
        licence=None if places(teacher) else known.licence,
        whole=_whole(teacher, data),
    )


def _of_imagenet(teacher: Teacher) -> int | None:
    return 1000 if teacher.classes == "imagenet" else None


def _whole(teacher: Teacher, data: Data) -> int | None:
    """How many images the accuracy that a teacher is held to was measured on."""
    return WHOLE["imagenet"] if teacher.classes == "imagenet" else WHOLE.get(data.source)


def _asked(teacher: Teacher, data: Data) -> Source:
    from distillery.teachers import named  # torch

    found, weights, urls = None, teacher.weights or "", places(teacher)
    said = repository.read(beside) if (beside := configuration(teacher)) else None
    config = str(beside) if beside else None
    own: Preprocessing | str | None = teacher.preprocessing
    if weights.startswith(HUB):
        urls = named.hub(weights.removeprefix(HUB))
        if own == "own" and teacher.architecture.startswith("timm/"):
            config = named.HUB.format(weights.removeprefix(HUB), repository.NAME)
    elif by_name(teacher):
        found = named.named(teacher.architecture, teacher.weights)
    on_imagenet = data.source == "imagenet" or teacher.classes == "imagenet"
    documented = found.accuracy if found and on_imagenet else None
    known = found or said
    if own == "own":
        own = known.preprocessing if known else named.carried(teacher.architecture)
    return Source(
        urls=urls or (found.urls if found else ()),
        member=teacher.member,
        sha256=teacher.sha256 or (found.sha256 if found and not urls else None),
        accuracy=documented if teacher.accuracy is None else teacher.accuracy,
        preprocessing=own if isinstance(own, Preprocessing) else None,
        classes=known.classes if known else _of_imagenet(teacher),
        licence=found.licence if found and not urls else None,
        whole=_whole(teacher, data),
        config=config,
    )


def is_remote(url: str) -> bool:
    """Tell a web address from a path."""
    return url.lower().startswith(("http://", "https://"))
