"""Detectors as programs: ONNX and torch's export find what the network finds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from distillery.errors import DistilleryError
from distillery.tasks.detection.detections import Detector
from distillery.tasks.detection.detector import LoadedDetector
from distillery.tasks.detection.networks.retinanet import RetinaNet
from distillery.tasks.detection.networks.vidt import ViDT
from distillery.tasks.detection.predictions import best_of_anchors
from distillery.tasks.detection.program import ONNX, Program, anchors_of_one, canvas, write_onnx

SMALL: dict[type[Detector], dict[str, Any]] = {
    ViDT: {
        **{"width": 8, "depths": (1, 1, 1, 1), "heads": (1, 1, 2, 2), "tokens": 8, "inner": 64, "layers": 1},
        **{"hidden": 32, "decoder_heads": 2, "dropout": 0.0},
    },
    RetinaNet: {"block": "basic", "depths": (1, 1, 1, 1), "width": 32, "norm": "groups", "anchor": 16},
}
SIZE = (48, 64)


def program(kind: type[Detector]) -> Program:
    """Of drawn weights, which are sure enough of something."""
    torch.manual_seed(0)
    network = kind(num_classes=3, **SMALL[kind])
    for name, parameter in network.named_parameters():
        if "class_embed" in name or "cls_logits" in name:
            nn.init.normal_(parameter, std=0.3)
    facts: Any = SimpleNamespace(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    return Program(LoadedDetector(network, facts))


def test_anchors_of_one_image_are_those_of_a_batch() -> None:
    torch.manual_seed(0)
    corner = torch.rand(60, 2) * 40
    anchors = torch.cat([corner, corner + 4 + torch.rand(60, 2) * 30], dim=1)
    predicted = torch.cat([torch.randn(60, 3) * 2 - 4, torch.randn(60, 4) * 0.2, anchors], dim=1)
    size = torch.tensor([44, 56])
    want = best_of_anchors(predicted[None], torch.ones(1, 2), size[None])[0]
    got = anchors_of_one(predicted, size)
    assert 20 < (want[:, 4] > 0).sum() < 100
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4)


def test_an_image_lies_in_the_corner_of_its_canvas() -> None:
    image, size = canvas(torch.full((3, 24, 64), 255, dtype=torch.uint8), SIZE, (18, 48))
    assert image.shape == (1, 3, *SIZE) and size.tolist() == [18, 48]
    assert (image[..., :18, :48] == 1).all() and image.sum() == 3 * 18 * 48


@pytest.mark.slow
@pytest.mark.parametrize("kind", SMALL, ids=lambda kind: kind.__name__)
def test_an_onnx_program_finds_what_the_network_finds(kind: type[Detector], tmp_path: Path) -> None:
    made = program(kind)
    run = write_onnx(made, SIZE, tmp_path / ONNX, {"title": "t"})
    for seed, size in enumerate((SIZE, (40, 50))):
        torch.manual_seed(seed)
        image, seen = torch.rand(1, 3, *SIZE), torch.tensor(size)
        want, got = made(image, seen), run(image, seen)
        assert want.shape == (100, 6) and (want[:, 4] > 0.05).any()
        torch.testing.assert_close(got[:, 4], want[:, 4], rtol=0, atol=1e-4)
        alone = want[:-1, 4] - want[1:, 4] > 1e-4  # of equal scores the order is open
        sure = torch.cat([alone, alone[:0].new_zeros(1)]) & torch.cat([alone[:0].new_ones(1), alone])
        assert sure.any()
        torch.testing.assert_close(got[sure], want[sure], rtol=0, atol=1e-2)


@pytest.mark.slow
def test_a_network_that_has_no_onnx_ends_in_one_sentence(tmp_path: Path) -> None:
    made = program(RetinaNet)
    made.forward = lambda image, size: torch.linalg.eigvals(image[0, 0, :2, :2]).real  # type: ignore[method-assign]
    with pytest.raises(DistilleryError, match="--onnx: this network cannot be written as ONNX") as found:
        write_onnx(made, SIZE, tmp_path / ONNX, {})
    assert "\n" not in str(found.value) and len(str(found.value)) < 300
