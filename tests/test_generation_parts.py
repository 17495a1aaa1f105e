"""Generation: distances, whitening, augmentation and networks, each for itself."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_generation
import torch
import torch.nn.functional as F

from distillery import models
from distillery.errors import DistilleryError
from distillery.evaluation.samples import shown_classes
from distillery.imaging.draw import Draw
from distillery.models.official import load_official
from distillery.objectives.vkd import whiten
from distillery.records.io import sha256_file
from distillery.task import task_of
from distillery.tasks.generation import Classifier, Inception
from distillery.tasks.generation.augment import augment, cutout, translation
from distillery.tasks.generation.biggan import AT_A_TIME, Generator, SpectralLinear, in_bytes
from distillery.tasks.generation.clip import CLIP
from distillery.tasks.generation.distance import (
    ClassifierFeatures,
    InceptionFeatures,
    Judge,
    frechet,
    inception_score,
    moments,
)
from distillery.tasks.generation.evaluation import COLUMNS, by_class, laid_out
from distillery.tasks.generation.objectives.vkd import whiten_cholesky

CPU = torch.device("cpu")


def features(count: int, width: int, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.randn(count, width, dtype=torch.float64) @ torch.randn(width, width, dtype=torch.float64) + seed


def test_the_frechet_distance_is_torch_fidelitys() -> None:
    metric = pytest.importorskip("torch_fidelity.metric_fid")
    first, second = features(300, 20, 1), features(200, 20, 2)
    stats = [metric.fid_features_to_statistics(x) for x in (first, second)]
    want = metric.fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    assert frechet(moments(first), moments(second)) == pytest.approx(want, rel=1e-9)
    assert frechet(moments(first), moments(first)) == pytest.approx(0, abs=1e-8)


def test_the_inception_score_is_torch_fidelitys() -> None:
    metric = pytest.importorskip("torch_fidelity.metric_isc")
    logits = features(120, 12, 3)
    want = metric.isc_features_to_metric(logits, splits=10, shuffle=False)["inception_score_mean"]
    assert inception_score(logits) == pytest.approx(want, rel=1e-12)


def test_singular_covariances_have_a_distance() -> None:
    few, same = features(5, 20, 1), torch.ones(50, 20, dtype=torch.float64)
    real = moments(features(300, 20, 2))
    assert 0 < frechet(moments(few), real) < float("inf")
    mean, covariance = real
    assert frechet(moments(same), real) == pytest.approx(
        float((mean - 1).square().sum() + covariance.trace()), rel=1e-9
    )
    with pytest.raises(DistilleryError, match="features of the images are not finite"):
        moments(torch.full((3, 2), float("nan")))


def test_features_that_are_not_finite_end_in_a_sentence_for_every_method_that_whitens() -> None:
    with pytest.raises(DistilleryError, match=r"features cannot be whitened, since they or the images .* lower"):
        whiten(torch.full((4, 3), math.nan))


def test_whitenings_agree_where_both_exist() -> None:
    """Covariance one, and the same up to a rotation; where a batch is too small only ZCA needs no eps."""
    x = features(200, 12, 1)
    for white in (whiten(x), whiten_cholesky(x, 0.0)):
        assert torch.allclose(moments(white)[1], torch.eye(12, dtype=torch.float64), atol=1e-6)
    a, b = whiten(x), whiten_cholesky(x, 0.0)
    assert torch.allclose(a @ a.T, b @ b.T, atol=1e-6) and not torch.allclose(a, b, atol=1e-2)
    few = features(6, 12, 1)
    with pytest.raises(DistilleryError, match="6 images in 12 features has no Cholesky factor with eps 0: raise `eps`"):
        whiten_cholesky(few, 0.0)
    assert whiten_cholesky(few, 0.01).isfinite().all()
    gram = whiten(few) @ whiten(few).T  # every two images are equally far apart, whatever they show
    assert torch.allclose(gram, 5 * (torch.eye(6, dtype=torch.float64) - 1 / 6), atol=1e-6)


def released_translation(x: torch.Tensor, tx: torch.Tensor, ty: torch.Tensor) -> torch.Tensor:
    """DiffAugment_pytorch.py, its shifts given."""
    batch, rows, columns = torch.meshgrid(*(torch.arange(n) for n in (len(x), *x.shape[2:])), indexing="ij")
    rows = (rows + tx[:, None, None] + 1).clamp(0, x.shape[2] + 1)
    columns = (columns + ty[:, None, None] + 1).clamp(0, x.shape[3] + 1)
    return F.pad(x, [1, 1, 1, 1]).permute(0, 2, 3, 1)[batch, rows, columns].permute(0, 3, 1, 2)


def test_translation_and_cutout_are_diffaugments() -> None:
    images = torch.rand(400, 2, 16, 16)
    draw = Draw(3, 1, torch.arange(400))
    shifts = [draw.below(5) - 2 for _ in range(2)]
    moved = translation(images, Draw(3, 1, torch.arange(400)))
    assert torch.equal(moved, released_translation(images, *shifts))
    assert set(shifts[0].tolist()) == {-2, -1, 0, 1, 2}
    cut = cutout(images, Draw(3, 1, torch.arange(400)))
    offsets = Draw(3, 1, torch.arange(400))
    rows, columns = offsets.below(17), offsets.below(17)
    for i in (0, 1, 2, 399):
        at = [(p[i] + torch.arange(8) - 4).clamp(0, 15) for p in (rows, columns)]
        want = images[i].clone()
        want[:, at[0][:, None], at[1]] = 0
        assert torch.equal(cut[i], want)
    assert {0, 16} <= set(rows.tolist())


def test_augmentation_is_a_function_of_the_draw_and_differentiable() -> None:
    images = torch.rand(4, 3, 16, 16, requires_grad=True)
    made = [augment(images, Draw(1, 2, torch.arange(4)), ("color", "translation", "cutout")) for _ in range(2)]
    assert torch.equal(*made)
    made[0].sum().backward()
    assert images.grad is not None and images.grad.isfinite().all() and images.grad.abs().sum() > 0


def test_the_spectral_norm_becomes_one_and_rests_in_tests() -> None:
    torch.manual_seed(0)
    layer = SpectralLinear(20, 30)
    for _ in range(50):
        weight = layer.normalised()
    assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1, rel=1e-3)
    before = layer.eval().u0.clone()
    layer.normalised()
    assert torch.equal(before, layer.u0)


def test_a_generator_says_which_sizes_it_makes() -> None:
    with pytest.raises(DistilleryError, match="a multiple of 8, not 30"):
        Generator(10, 3, 30, 2)


def test_an_image_that_is_left_alone_has_no_statistics() -> None:
    for size, training in ((8, True), (8, False), (16, True)):
        generator = Generator(2, 1, size, 2).train(training)
        noise, labels = torch.randn(51, generator.latent), torch.zeros(51, dtype=torch.int64)
        alone = pytest.raises(DistilleryError, match="51 images of 8 x 8 pixels leave one")
        with alone if training and size == 8 else contextlib.nullcontext():
            assert in_bytes(generator, noise, labels).shape == (51, 1, size, size)


def test_features_come_from_the_named_file_alone(tmp_path: Path) -> None:
    data = small_generation.digits(tmp_path)
    named = small_generation.judge(tmp_path, data)
    found = ClassifierFeatures(Classifier.read(named), CPU)(torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8))
    assert found.pooled.shape[0] == 5 and found.logits.shape == (5, 10)
    for change, says in (
        ({"weights": str(tmp_path / "no")}, "there is no file .*none is downloaded"),
        ({"sha256": "0" * 64}, "the sha256 of .* is "),
        ({"architecture": "resnet20"}, "not a teacher that is a resnet20"),
    ):
        with pytest.raises(DistilleryError, match=says):
            ClassifierFeatures(Classifier.read(named | change), CPU)
    other = tmp_path / "other.pth"
    torch.save({"a": torch.ones(1)}, other)
    with pytest.raises(DistilleryError, match="holds no Inception weights"):
        InceptionFeatures(Inception(weights=str(other), sha256=sha256_file(other)), CPU)
    with pytest.raises(
        DistilleryError, match=r"task\.inception: the sha256 of .*other\.pth is .*: take the other file"
    ):
        InceptionFeatures(Inception(weights=str(other), sha256="0" * 64), CPU)


def test_only_a_classifier_of_the_same_classes_says_how_many_are_of_theirs(tmp_path: Path) -> None:
    data = small_generation.digits(tmp_path)
    task = task_of({"name": "generation", "classifier": small_generation.judge(tmp_path, data)})
    images, labels = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8), torch.arange(20) % 5
    for names, known in ((data.class_names, True), (tuple("abcdefghij"), False), (data.class_names[:5], False)):
        _, more = Judge(task, images, names, CPU)(images, labels)
        assert (more["conditional"] is not None) == known


def test_of_one_image_there_is_no_covariance() -> None:
    with pytest.raises(DistilleryError, match=r"task\.samples"):
        task_of({"name": "generation", "samples": 1})
    two, real = features(2, 20, 1), moments(features(300, 20, 2))
    assert 0 < frechet(moments(two), real) < float("inf") and inception_score(two) >= 1


@pytest.mark.slow
def test_fid_and_inception_score_from_a_local_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With drawn weights in the file: ours are torch-fidelity's own numbers, and nothing asks the network."""
    fidelity = pytest.importorskip("torch_fidelity")
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    path = tmp_path / "inception.pth"
    torch.save({"a": torch.ones(1)}, path)
    torch.manual_seed(0)
    with monkeypatch.context() as patch:
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        drawn = module.FeatureExtractorInceptionV3("drawn", ["2048", "logits_unbiased"], str(path))
    torch.save(drawn.state_dict(), path)
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *_, **__: pytest.fail("it would download"))
    first, second = (torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8) for _ in range(2))
    extract = InceptionFeatures(Inception(weights=str(path), sha256=sha256_file(path)), CPU)
    a, b = extract(first), extract(second)

    class Images(torch.utils.data.Dataset[Any]):
        def __init__(self, images: torch.Tensor) -> None:
            self.images = images

        def __getitem__(self, i: int) -> torch.Tensor:
            return self.images[i]

        def __len__(self) -> int:
            return len(self.images)

    want = fidelity.calculate_metrics(
        input1=Images(first), input2=Images(second), fid=True, isc=True, cuda=False, batch_size=6, save_cpu_ram=True,
        feature_extractor_weights_path=str(path), samples_shuffle=False, isc_splits=10, verbose=False,
    )  # fmt: skip
    assert frechet(moments(a.pooled), moments(b.pooled)) == pytest.approx(
        want["frechet_inception_distance"], rel=1e-3, abs=1e-4
    )
    assert np.isfinite(inception_score(a.logits))


@pytest.mark.slow
def test_clip_takes_released_state_dicts() -> None:
    """Names and shapes of OpenAI's; what belongs to texts is left out."""
    network = models.build("clip_vit_b32", 10)
    assert isinstance(network, CLIP) and sum(p.numel() for p in network.parameters()) == 87_849_216
    released = {key: torch.full_like(value, 0.01) for key, value in network.state_dict().items()}
    released["visual.transformer.resblocks.11.mlp.c_proj.weight"] = torch.zeros(768, 3072, dtype=torch.float16)
    texts = {"transformer.resblocks.0.ln_1.weight": torch.ones(512), "logit_scale": torch.ones(())}
    load_official(network, released | texts)
    with torch.no_grad():
        out = network.eval()(torch.rand(1, 3, 32, 32) * 2 - 1)
    assert out.pooled is not None and out.pooled.shape == (1, 512) and out.pooled.isfinite().all()
    with pytest.raises(ValueError, match="does not fit"):
        load_official(network, {k: v for k, v in released.items() if "conv1" not in k})


def test_the_measures_are_named_after_what_measures() -> None:
    classifier = {"architecture": "resnet20", "weights": "a", "sha256": "0" * 64}
    task = task_of({"name": "generation", "classifier": classifier})
    assert [(m.name, m.higher_is_better) for m in task.measures] == [("fd_resnet20", False)]
    both = task_of({"name": "generation", "classifier": classifier, "inception": {"weights": "b", "sha256": "0" * 64}})
    assert [m.name for m in both.measures] == ["fid", "is", "fd_resnet20"] and both.measures[1].higher_is_better


@pytest.mark.parametrize("classes", [1, 3, 10, 100])
def test_all_images_of_a_grid_are_normalised_among_as_many_of_all_its_classes(classes: int) -> None:
    wanted, shown = laid_out(classes), torch.tensor(shown_classes(classes))
    for part in wanted.split(AT_A_TIME):
        counts = torch.stack([(part == label).sum() for label in shown])
        assert len(part) == AT_A_TIME and counts.max() - counts.min() <= 1
    assert by_class(wanted, classes).equal(shown.repeat_interleave(COLUMNS))
