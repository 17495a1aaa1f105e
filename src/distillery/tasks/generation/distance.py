"""How far generated images are from real ones: Frechet distances of features, and the Inception score."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from distillery.errors import DistilleryError
from distillery.models.base import Network
from distillery.records.header import Header
from distillery.records.io import sha256_file
from distillery.tasks.generation import Classifier, Generation, Inception
from distillery.teachers.weights import load_network

Moments = tuple[Tensor, Tensor]
BATCH = 250  # images at a time; decides the last bit


def moments(features: Tensor) -> Moments:
    """Mean (d,) and unbiased covariance (d, d) of (N, d) features, in float64. Raises DistilleryError if not finite."""
    features = features.double()
    if not features.isfinite().all():
        raise DistilleryError("features of the images are not finite: check the file of weights that the task names")
    mean = features.mean(0)
    centred = features - mean
    return mean, centred.T @ centred / max(len(features) - 1, 1)


def frechet(first: Moments, second: Moments) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)): Dowson and Landau (1982), Heusel et al. (arXiv:1706.08500).

    The trace of the root is taken by two symmetric eigenproblems, so covariances may be singular: of a collapsed
    generator, or of fewer images than features.
    """
    (m1, c1), (m2, c2) = first, second
    values, vectors = torch.linalg.eigh(c1)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ c2 @ root).clamp(min=0).sqrt().sum()
    return float((m1 - m2).square().sum() + c1.trace() + c2.trace() - 2 * cross)


@dataclass(frozen=True, slots=True)
class Features:
    """What images are compared by: (N, d) features, and (N, K) logits."""

    pooled: Tensor
    logits: Tensor


class ClassifierFeatures:
    """Features of a classifier that Distillery trained: its pooled ones, of images as it was trained on.

    Raises DistilleryError if the file is another one, or no classifier's.
    """

    def __init__(self, config: Classifier, device: torch.device) -> None:
        path, self.header = known_classifier(config)
        classes, channels = len(self.header.class_names), self.header.image[0]
        self.network: Network = load_network(config.architecture, classes, channels, path).to(device)
        self.device = device

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """Of (N, C, H, W) uint8 images of full brightness 255."""
        mean, std = (torch.tensor(v)[:, None, None].to(self.device) for v in (self.header.mean, self.header.std))
        outputs = [self.network((part.to(self.device).float() / 255 - mean) / std) for part in images.split(BATCH)]
        pooled = [o.pooled for o in outputs if o.pooled is not None]
        if len(pooled) < len(outputs):
            raise DistilleryError(f"task.classifier: {self.header.architecture} has no pooled features: take another")
        return Features(torch.cat(pooled).cpu(), torch.cat([o.logits for o in outputs]).cpu())


class InceptionFeatures:
    """Features of the Inception network of FID, by torch-fidelity: the 2,048 pooled ones, and logits without bias.

    Raises DistilleryError if the file is another one, or the package is missing.
    """

    def __init__(self, config: Inception, device: torch.device) -> None:
        path = verified(config.weights, config.sha256, "inception")
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError:
            raise DistilleryError(
                "task.inception: FID needs torch-fidelity: pip install 'distillery[generation]'"
            ) from None
        try:
            torch.load(path, map_location="cpu", weights_only=True)  # the package's own reading would run what is in it
            network = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], str(path))
        except Exception as error:
            said = " ".join(str(error).split())[:160]
            raise DistilleryError(
                f"task.inception: {path} holds no Inception weights for torch-fidelity ({said}): take "
                "pt_inception-2015-12-05-6726825d.pth"
            ) from None
        self.network, self.device = network.to(device), device

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """Of (N, C, H, W) uint8 images; grey ones become colour."""
        images = images.expand(-1, 3, -1, -1)
        parts = [self.network(part.to(self.device)) for part in images.split(BATCH // 5)]
        return Features(*(torch.cat([p[i] for p in parts]).cpu() for i in range(2)))


def inception_score(logits: Tensor) -> float:
    """exp of the mean KL of p(y|x) to p(y), mean over ten parts: Salimans et al. (arXiv:1606.03498)."""
    scores = []
    for part in logits.double().tensor_split(10):
        if len(part):
            p, log_p = part.softmax(1), F.log_softmax(part, 1)
            scores.append((p * (log_p - p.mean(0, keepdim=True).log())).sum(1).mean().exp().item())
    return sum(scores) / len(scores)


def verified(name: str, sha256: str, key: str) -> Path:
    """The path, if the file there has that hash. Raises DistilleryError."""
    path = Path(name).expanduser()
    if not path.is_file():
        raise DistilleryError(f"task.{key}: there is no file {path}: name yours in `weights`, none is downloaded")
    if (found := sha256_file(path)) != sha256:
        raise DistilleryError(f"task.{key}: the sha256 of {path} is {found}, not {sha256[:12]}...: take the other file")
    return path


def known_classifier(config: Classifier) -> tuple[Path, Header]:
    """The file of `task.classifier` and what it says of itself. Raises DistilleryError if it is no such classifier."""
    path = verified(config.weights, config.sha256, "classifier")
    header = Header.read(path)
    if header.architecture != config.architecture or header.kind != "teacher":
        raise DistilleryError(
            f"task.classifier: {path} is the {header.kind} {header.architecture}, and not a teacher that is a "
            f"{config.architecture}: name a teacher's `model.safetensors` of a study, and its network"
        )
    return path, header


class Judge:
    """Compares generated images with the real ones of a data set, by the networks that the task names.

    Args:
        real: (N, C, H, W) uint8, of full brightness 255.
        class_names: of the data set.
    """

    def __init__(self, task: Generation, real: Tensor, class_names: tuple[str, ...], device: torch.device) -> None:
        config, self.class_names = task.config, class_names
        self.by: dict[str, ClassifierFeatures | InceptionFeatures] = {}
        if config.inception:
            self.by["fid"] = InceptionFeatures(config.inception, device)
        if config.classifier:
            self.by[task.measures[-1].name] = ClassifierFeatures(config.classifier, device)
        if not self.by:
            raise DistilleryError("task: nothing says how images are compared: name `classifier` or `inception`")
        self.real = {name: moments(extract(real).pooled) for name, extract in self.by.items()}

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[dict[str, float], dict[str, float | None]]:
        """The task's measures of (N, C, H, W) uint8 images of (N,) classes, and what else there is to say of them.

        The latter are `conditional`, the percentage that the classifier takes for their class, None where it knows
        other classes; and `spread`, the variance of their features over that of the real ones, 0 if all are the same.
        """
        found: dict[str, float] = {}
        more: dict[str, float | None] = {"conditional": None, "spread": None}
        for name, extract in self.by.items():
            features = extract(images)
            of_images = moments(features.pooled)
            found[name] = frechet(of_images, self.real[name])
            more["spread"] = float(of_images[1].trace() / self.real[name][1].trace())
            if isinstance(extract, InceptionFeatures):
                found["is"] = inception_score(features.logits)
            elif extract.header.class_names == self.class_names:
                more["conditional"] = 100 * (features.logits.argmax(1) == labels).double().mean().item()
        return found, more
