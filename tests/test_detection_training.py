"""Detection: hashed views, learning, exact resume, two processes, rehearsal, and a whole study through the stages."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import small_study
import torch
import yaml
from conftest import ROOT
from safetensors.numpy import load_file
from small_boxes import pictures, write_voc

from distillery.data import SOURCES, prepare
from distillery.errors import DistilleryError
from distillery.models import NETWORKS
from distillery.models.official import load_official
from distillery.objectives import OBJECTIVES
from distillery.pipeline.check import check
from distillery.pipeline.current import Judge
from distillery.pipeline.layout import Layout
from distillery.pipeline.planner import current
from distillery.records.io import save_tensors
from distillery.report import results, table
from distillery.report.figures import detections
from distillery.students.export import export
from distillery.study.blocks import Method, Recipe
from distillery.tasks.detection import Attack, Detection, Start
from distillery.tasks.detection.attack import attacked
from distillery.tasks.detection.criterion import anchor_losses
from distillery.tasks.detection.data import BoxData, Split
from distillery.tasks.detection.detector import load_detector
from distillery.tasks.detection.evaluation import BoxEvaluation
from distillery.tasks.detection.export import export as export_detector
from distillery.tasks.detection.loader import BoxLoader
from distillery.tasks.detection.rehearsal import rehearse
from distillery.tasks.detection.source import Cropped
from distillery.tasks.detection.testing import detect
from distillery.tasks.detection.training import BoxTraining, build
from distillery.tasks.detection.twins import Twins, write_twins
from distillery.training.checkpoint import Checkpoint
from distillery.training.loop import Preempted, fit

pytestmark = pytest.mark.slow

RECIPE = {"batch_size": 4, "lr": 0.001, "optimizer": {"name": "adamw"}, "clip": 1.0, "schedule": {"name": "cosine"}}


def data(tmp_path: Path, train: int = 8, test: int = 4, **options: Any) -> BoxData:
    root, index = tmp_path / "files", tmp_path / "data" / "index.safetensors"
    write_voc(root, {"train": pictures(train, 0), "test": pictures(test, 1)})
    index.parent.mkdir(exist_ok=True)
    usual = {"root": str(root), "short_side": 48, "max_side": 64}
    prepare("voc", usual | options, index, index.with_name("images.blob"))
    return BoxData.load(index)


def test_views_are_functions_of_seed_epoch_and_image(tmp_path: Path) -> None:
    d = data(tmp_path, scales=[32, 40, 48], crop={"resize": [48, 56], "least": 24, "most": 40})
    loader, again = (BoxLoader(d, Recipe(**RECIPE)) for _ in range(2))
    first, second = loader.epoch(0, 1), again.epoch(0, 1)
    whole = [first.batch(slice(0, 4)), first.batch(slice(4, 8))]
    late = second.batch(slice(4, 8))  # as after a resume
    assert torch.equal(whole[1].inputs.images, late.inputs.images) and torch.equal(whole[1].targets, late.targets)
    # The shares of two processes are rows of the same padded batch.
    half = again.epoch(0, 1).batch(slice(0, 2))
    assert torch.equal(whole[0].inputs.images[:2], half.inputs.images)
    assert torch.equal(whole[0].targets[:2], half.targets)
    other = loader.epoch(0, 2).batch(slice(0, 4)), loader.epoch(1, 1).batch(slice(0, 4))
    assert len({tuple(b.targets.flatten().tolist()) for b in (whole[0], *other)}) == 3
    # One that the recipe names draws the views of all seeds, in the order of each.
    shared = BoxLoader(d, Recipe(**RECIPE | {"augmentation": {"view_seed": 1}}))
    mine, usual = shared.epoch(0, 1), loader.epoch(1, 1)
    assert torch.equal(mine.index, loader.epoch(0, 1).index)
    assert (
        [mine._view(i) for i in range(8)]
        == [loader.view(1, 1, int(row)) for row in mine.index]
        != [usual._view(i) for i in range(8)]
    )
    images, padding = whole[0].inputs.images, whole[0].inputs.padding
    assert padding.any() and images.masked_select(padding[:, None].expand_as(images)).abs().max() == 0


def test_boxes_stay_on_their_objects(tmp_path: Path) -> None:
    """In whatever view, the pixels in the middle of a box have the colour of its class."""
    d = data(tmp_path, train=12, scales=[40, 56], crop={"resize": [48], "least": 24, "most": 44})
    d = dataclasses.replace(d, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    loader, hits, checked = BoxLoader(d, Recipe(**RECIPE)), 0, 0
    for epoch in (1, 2):
        laid = loader.epoch(0, epoch)
        for start in (0, 4, 8):
            batch = laid.batch(slice(start, start + 4))
            for image, rows in zip(batch.inputs.images, batch.targets, strict=True):
                for label, x, y, w, h, height, width, *_ in rows[rows[:, 0] >= 0].tolist():
                    if min(w * width, h * height) >= 6:
                        red, green, _ = image[:, int(y * height), int(x * width)].tolist()
                        hits, checked = hits + ((red > green) == (label == 1)), checked + 1
    assert checked > 30 and hits / checked > 0.9  # rectangles may lie on each other


@pytest.mark.parametrize("architecture", ["vidt_w24", "retinanet_r10_w64"])
@pytest.mark.slow
def test_a_detector_learns(tmp_path: Path, architecture: str) -> None:
    d = data(tmp_path, train=20)
    d = dataclasses.replace(d, test=d.train)
    epochs = 30 if architecture.startswith("vidt") else 9
    recipe = Recipe(**RECIPE, epochs=epochs, test_every=epochs, augmentation={"flip": False})
    training = BoxTraining(Detection())
    trainee = training.assemble(architecture, Method(objective="detect"), d, [], 0)
    before = training.test(trainee, training.loader(d, recipe), recipe)
    history = fit(trainee, training.loader(d, recipe), None, recipe, 0)
    assert before["test_ap"] < 5 and history[-1]["test_ap50"] > 10, history[-1]
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]


@pytest.mark.parametrize("objective", ["vkd_detection", "token_matching"])
def test_a_stopped_run_ends_with_the_same_weights(
    tmp_path: Path, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    d, recipe, training = data(tmp_path), Recipe(**RECIPE, epochs=2, test_every=2), BoxTraining(Detection())
    teacher = build("vidt_w24", d.num_classes).eval()

    def run(path: Path, stop: int | None) -> dict[str, torch.Tensor]:
        trainee = training.assemble("vidt_w24", Method(objective=objective), d, [teacher], 3)
        source = training.teaching(_Job(objective), {}, [teacher], recipe, d)[0]
        loader = training.loader(d, recipe)
        if stop is not None:
            usual = BoxLoader.epoch

            def stopping(self: BoxLoader, seed: int, epoch: int, *rest: Any) -> Any:
                laid = usual(self, seed, epoch, *rest)
                give = laid.batch

                def batch(rows: slice) -> Any:
                    if (epoch, rows.start) == (2, 0):  # the loop saves after this step, and leaves
                        signal.raise_signal(signal.SIGTERM)
                    return give(rows)

                laid.batch = batch
                return laid

            with monkeypatch.context() as patch:
                patch.setattr(BoxLoader, "epoch", stopping)
                with pytest.raises(Preempted):
                    fit(trainee, loader, source, recipe, 3, Checkpoint(path, "k"))
            found = Checkpoint(path, "k").load()
            assert found and (found[0].epoch, found[0].step) == (1, 1)
            return run(path, None)
        fit(trainee, loader, source, recipe, 3, Checkpoint(path, "k"))
        return {**trainee.student.state_dict(), **trainee.objective.state_dict()}

    straight, resumed = run(tmp_path / "a", None), run(tmp_path / "b", 1)
    assert all(torch.equal(straight[k], resumed[k]) for k in straight)


class _Job:
    def __init__(self, objective: str) -> None:
        self.values = {"objective": {"objective": objective}, "teachers": {}}


def test_projectors_stay_alive_under_weight_decay(tmp_path: Path) -> None:
    d, training = data(tmp_path), BoxTraining(Detection())
    teacher = build("vidt_w48", d.num_classes).eval()
    recipe = Recipe(**RECIPE, weight_decay=0.5, epochs=2, test_every=2)
    trainee = training.assemble("vidt_w24", Method(objective="vkd_detection"), d, [teacher], 0)
    assert len(trainee.objective.projectors) == 6
    before = [p.weight().detach().clone() for p in trainee.objective.projectors]
    source = training.teaching(_Job("vkd_detection"), {}, [teacher], recipe, d)[0]
    history = fit(trainee, training.loader(d, recipe), source, recipe, 0)
    for projector, old in zip(trainee.objective.projectors, before, strict=True):
        weight = projector.weight().detach()
        torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), rtol=0, atol=1e-5)
        assert not torch.equal(weight, old)
    assert history[-1]["loss_tokens"] > 0


def test_anchor_losses_are_torchvisions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build("retinanet_r10_w64", 3)
    d = data(tmp_path)
    batch = BoxLoader(d, Recipe(**RECIPE)).epoch(0, 1).batch(slice(0, 4))
    found = network(batch.inputs)
    ours = anchor_losses(found.logits, batch.targets)
    from torchvision.models.detection.retinanet import RetinaNet

    from distillery.tasks.detection.criterion import in_pixels

    theirs = RetinaNet(_Body(), 3, anchor_generator=network.anchors, head=network.heads)
    targets = [
        {"boxes": in_pixels(rows), "labels": rows[:, 0].long()} for rows in (t[t[:, 0] >= 0] for t in batch.targets)
    ]
    outputs = {"cls_logits": found.logits[..., :-8], "bbox_regression": found.logits[..., -8:-4]}
    want = theirs.compute_loss(targets, outputs, list(found.logits[..., -4:]))
    torch.testing.assert_close(ours["class"], want["classification"])
    torch.testing.assert_close(ours["boxes"], want["bbox_regression"])


class _Body(torch.nn.Module):
    out_channels = 64


def test_twins_raise_the_classification_loss_of_their_teacher(tmp_path: Path) -> None:
    d = data(tmp_path, train=4)
    torch.manual_seed(0)
    teacher = build("retinanet_r10_w64", d.num_classes)
    told: list[tuple[int, int]] = []
    images = list(attacked(teacher, d, Attack(), lambda done, total: told.append((done, total))))
    write_twins(tmp_path / "twins", images)
    assert told[-1] == (4, 4)
    loader = BoxLoader(d, Recipe(**RECIPE, augmentation={"flip": False}))
    with pytest.raises(DistilleryError, match="run the stage `cache`"):
        Twins(d.blob)
    d.twins = Twins(tmp_path / "twins")
    batch = loader.epoch(0, 1, strong=True).batch(slice(0, 4))
    gap = (batch.strong.images - batch.inputs.images).abs()
    assert 0 < gap.max() <= 8 / 255 * 5.0  # at most eps of the widest channel, about 4.4 for normalised images
    with torch.no_grad():
        clean, wrong = (anchor_losses(teacher(x).logits, batch.targets)["class"] for x in (batch.inputs, batch.strong))
    assert wrong > 1.02 * clean


def test_ikd_ends_its_twins_and_inherits(tmp_path: Path) -> None:
    d, training = data(tmp_path, train=4), BoxTraining(Detection())
    teacher = build("retinanet_r10_w64", d.num_classes).eval()
    write_twins(tmp_path / "twins", [torch.zeros(3, 48, 64, dtype=torch.uint8)] * 4)
    d.twins = Twins(tmp_path / "twins")
    gated = {"flip": True, "then": [{"name": "size_gated", "until": 1, "small": 100000.0}]}
    recipe = Recipe(**RECIPE, epochs=2, test_every=2, augmentation=gated)
    method = Method.model_validate({"objective": "ikd", "host": "mgd", "until": 1})
    trainee = training.assemble("retinanet_r10_w64", method, d, [teacher], 0)
    mine, theirs = trainee.student.state_dict(), teacher.state_dict()
    same = {k.split(".")[0] for k in mine if torch.equal(mine[k], theirs[k]) and mine[k].ndim > 1}
    assert same == {"fpn", "heads"}
    from distillery.teachers.source import LiveTeachers

    history = fit(trainee, training.loader(d, recipe), LiveTeachers([teacher], recipe), recipe, 0)
    assert history[0]["loss_twins"] > 0 and history[1]["loss_twins"] == 0 and history[1]["loss_mgd"] > 0


def test_what_is_found_depends_on_no_process(tmp_path: Path) -> None:
    d = data(tmp_path, test=5)
    recipe, network = Recipe(**RECIPE), build("vidt_w24", d.num_classes)
    split = BoxLoader(d, recipe).splits()["test"]

    class Share:
        size = 2

        def __init__(self, rank: int) -> None:
            self.rank = rank

        def total(self, values: torch.Tensor) -> torch.Tensor:
            return values

    whole = detect(network, split, recipe)
    parts = [detect(network, split, recipe, Share(rank)) for rank in (0, 1)]  # type: ignore[arg-type]
    assert torch.equal(parts[0] + parts[1], whole) and (whole[..., 4] > 0).any()


@pytest.mark.parametrize("architecture", ["vidt_w24", "retinanet_r10_w64"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_outputs_that_are_no_numbers_are_not_measured(tmp_path: Path, architecture: str, value: float) -> None:
    d, recipe = data(tmp_path, test=2), Recipe(**RECIPE)
    evaluation, network = BoxEvaluation(Detection()), build(architecture, d.num_classes)
    assert evaluation.measurable(evaluation.outputs(network, d, recipe))
    with torch.no_grad():
        network.get_parameter([name for name, p in network.named_parameters() if p.ndim > 1][-1]).fill_(value)
    found = evaluation.outputs(network, d, recipe)
    assert not evaluation.measurable(found)
    assert evaluation.measure(found, d)["last"]["ap"] == 0  # as in the tests while it trains


STUDY: dict[str, Any] = {
    "study": "small",
    "task": {"name": "detection", "adversarial": {"steps": 2}},
    "data": {"source": "voc", "root": "files", "short_side": 48, "max_side": 64},
    "recipe": {**RECIPE, "epochs": 2, "augmentation": {"flip": True}},
    "teachers": {"v": {"architecture": "vidt_w24"}, "r": {"architecture": "retinanet_r10_w64"}},
    "pairs": {"v-v": {"teacher": "v", "student": "vidt_w24"}, "r-r": {"teacher": "r", "student": "retinanet_r10_w64"}},
    "methods": {"alone": {"objective": "detect"}, "vkd": {"objective": "vkd_detection"}},
    "seeds": [0],
    "tables": {"baseline": "alone"},
}


def test_a_rehearsal_names_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_voc(Path("files"), {"train": pictures(2, 0), "test": pictures(2, 1)})
    wrong = STUDY | {
        "task": "detection",
        "teachers": STUDY["teachers"] | {"c": {"architecture": "resnet8"}},
        "pairs": STUDY["pairs"] | {"c-r": {"teacher": "c", "student": "retinanet_r10_w64"}},
        "methods": {"kd": {"objective": "kd"}, "ikd": {"objective": "ikd"}, "vkd": {"objective": "vkd_detection"}},
        "recipe": STUDY["recipe"] | {"augmentation": {"flip": True, "pad": 2}},
        "tables": {},
    }
    said = "\n".join(rehearse(check(wrong), images=True))
    for clause in (
        "teachers.c: resnet8 finds no objects",
        "methods.kd: kd is no objective of detectors",
        "methods.ikd: ikd needs adversarial images",
        "methods.vkd for r-r: VkD compares detection tokens",
        "recipe.augmentation.pad: has no effect",
    ):
        assert clause in said, said


@pytest.mark.parametrize(
    ("key", "change", "clause"),
    [
        ("m", {"objective": "detect", "ce_weight": 0}, "every term of detect has weight 0"),
        ("m", {"objective": "mgd", "weight": 0}, "the distillation term of mgd has weight 0"),
        (
            "m",
            {"objective": "detect", "matching": {"l1": 1}},
            "matching and losses: have no effect on retinanet_r10_w64",
        ),
        ("m", {"objective": "detect", "plus": {"fgd": {"inherit": True}}}, "plus.fgd.inherit: a partner hands on no"),
        ("m", {"objective": "ikd", "temperature": 3}, 'temperature: has no effect with gap: "mse"'),
        ("m", {"objective": "ikd", "mgd": {"weight": 1}}, 'mgd: has no effect with host: "fgd"'),
        ("task", {"adversarial": {}}, "task.adversarial: has no effect: no method needs adversarial images"),
        ("task", {"start": {"vidt_nano": {"path": "x"}}}, "task.start.vidt_nano: has no effect: no such network is"),
        ("task", {"start": {"retinanet_r10_w64": {"path": "x"}}}, "there is no file x: name it in `path`"),
        ("recipe", {"augmentation": {"scale": [0.5, 1]}}, "recipe.augmentation.scale: has no effect"),
        ("recipe", {"drop_path": 0.1}, "pairs.r-r: recipe.drop_path: RetinaNet has no drop path"),
    ],
)
def test_what_has_no_effect_is_refused(
    key: str, change: dict[str, Any], clause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_voc(Path("files"), {"train": pictures(2, 0), "test": pictures(2, 1)})
    study = STUDY | {
        "task": {"name": "detection"} | (change if key == "task" else {}),
        "teachers": {"r": STUDY["teachers"]["r"]},
        "pairs": {"r-r": STUDY["pairs"]["r-r"]},
        "methods": {"alone": {"objective": "detect"}} | ({"m": change} if key == "m" else {}),
        "recipe": STUDY["recipe"] | (change if key == "recipe" else {}),
    }
    assert clause in "\n".join(rehearse(check(study), images=True))


def test_settings_of_the_attack_without_effect_are_refused() -> None:
    study = STUDY | {"task": {"name": "detection", "adversarial": {"diversity": 0, "resize": 0.5}}}
    with pytest.raises(DistilleryError, match=r"task\.adversarial\.resize: has no effect with diversity: 0"):
        check(study)


@pytest.mark.slow
def test_a_study_of_detectors_ends_in_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_voc(Path("files"), {"train": pictures(8, 0), "test": pictures(6, 1)})
    at = Layout("small")
    study = STUDY | {
        "pairs": {"r-r": STUDY["pairs"]["r-r"]},
        "methods": {
            "alone": {"objective": "detect"},
            "fgd": {"objective": "fgd"},
            "ikd": {"objective": "ikd", "until": 1},
        },
    }
    small_study.write(study)
    assert not rehearse(check(study), images=True)
    small_study.make(tables=True)
    with Path("results/small/runs.csv").open() as file:
        runs = list(csv.DictReader(file))
    assert [run["method"] for run in runs] == ["alone", "fgd", "ikd"]
    assert all(0 <= float(run[f"{m}_last"]) <= 100 for run in runs for m in ("ap", "ap50", "ap75"))
    assert all("ap_small" in run and "agreement" in run for run in runs)
    kept = load_file(at.predictions("r-r", "alone", "0"))
    rows, images = kept["example_rows"], kept["example_images"]
    assert rows.tolist() == [0, 2, 4] and images.shape == (3, 160, 160, 3) and images.reshape(3, -1).any(1).all()
    assert kept["example_sizes"].tolist() == [[120, 160, 48, 64]] * 3
    page = Path("results/small/report.html").read_text()
    assert "AP by class" in page
    assert re.search(
        r'<figure id="figure-detections" class="[a-z ]*pictures">.*\n.*<img src="data:image/svg\+xml,', page
    )
    assert 'alt="What teacher, baseline and best other method find in a few test images' in page
    svg = Path("results/small/figures/detections.svg").read_text()
    assert svg.count("<image") == 9 and "teacher r" in svg
    declared, plan = current()
    found = results.load(declared, Judge(plan))
    assert detections.draw(found, table.build(found)) is not None
    kept_back = declared.model_copy(update={"tables": declared.tables.model_copy(update={"pictures": False})})
    found = results.load(kept_back, Judge(plan))
    assert detections.draw(found, table.build(found)) is None
    found = results.load(declared, Judge(plan))
    for cell in found:  # as an older evaluation left it
        cell.facts = {k: v for k, v in cell.facts.items() if not k.startswith("example_")}
    assert detections.draw(found, table.build(found)) is None
    facts = json.loads(Path("artifacts/small/data/data.json").read_text())
    assert facts["counts"]["train_objects"] == sum(len(boxes) for _, boxes in pictures(8, 0))
    assert small_study.due() == []

    detector = load_detector(at.students("r-r", "alone", "0"), 0)
    image, _ = pictures(6, 1)[0]
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    every, none = detector(pixels, least=0.0), detector(pixels, least=1.1)
    assert len(every.boxes) == len(every.labels) == len(every.scores) and len(none.boxes) == 0
    kept_here = next(v for k, v in kept.items() if k.startswith("run.") and k.endswith("detections"))[0]
    assert (kept_here[:, 4] > 0).sum() == len(every.scores)
    if len(every.scores):
        torch.testing.assert_close(
            every.boxes, torch.from_numpy(kept_here[: len(every.boxes), :4]), rtol=1e-4, atol=1e-2
        )
    assert detector.drawn(pixels).shape == pixels.shape
    folder, measured = export("r-r", "ikd", 0, Path("shipped"), torch_export=True)
    last = float(runs[2]["ap_last"])
    assert measured["model.safetensors"] == pytest.approx(last, abs=1e-3) == measured["model.pt2"]
    files = {"model.safetensors", "model.pt2", "config.json", "README.md", "examples.png"}
    assert {p.name for p in folder.iterdir()} == files
    assert "(1, 3, 48, 64) float32 in [0, 1]" in (folder / "README.md").read_text()
    assert load_detector(folder)(pixels, least=0.0).boxes.shape[1] == 4
    with pytest.raises(DistilleryError, match="no student of seed 7"):
        load_detector(at.students("r-r", "alone", "0"), 7)


@pytest.mark.parametrize("architecture", ["retinanet_r10_w64", "vidt_w24"])
def test_a_detector_of_float64_is_exported(tmp_path: Path, architecture: str) -> None:
    d, path, recipe = data(tmp_path), tmp_path / "t.safetensors", Recipe(**RECIPE, precision="float64")
    named = {"kind": "teacher", "study": "s", "teacher": "t", "seeds": (0,), "settings_sha256": ""}
    header = BoxTraining(Detection()).header(d, architecture=architecture, **named)
    save_tensors(path, build(architecture, d.num_classes).double().state_dict(), header.metadata())
    reached = export_detector(path, 0, tmp_path / "data/index.safetensors", recipe, tmp_path / "shipped", ["model.pt2"])
    assert set(reached) == {"model.safetensors", "model.pt2"} and (tmp_path / "shipped/README.md").is_file()


def test_crops_and_scales_are_checked() -> None:
    from distillery.data import open_source

    with pytest.raises(DistilleryError, match=r"crop\.least is above"):
        open_source("voc", {"root": "x", "crop": Cropped(least=9, most=3).model_dump(mode="json")})
    with pytest.raises(DistilleryError, match=r"scales: 1400 is above max_side \(1333\), which no side exceeds"):
        open_source("voc", {"root": "x", "scales": [800, 1400]})


def test_a_body_starts_from_a_released_swin(tmp_path: Path) -> None:
    d, other = data(tmp_path), build("vidt_w24", 2)
    plain = {k: v for k, v in other.backbone.state_dict().items() if "det_" not in k and "layers.3.downsample" not in k}
    torch.save({"model": plain | {"head.weight": torch.zeros(1000, 192)}}, tmp_path / "swin.pth")
    start = {"vidt_w24": Start(path=str(tmp_path / "swin.pth"))}
    task = Detection(Detection.Config(start=start))
    student = BoxTraining(task).assemble("vidt_w24", Method(objective="detect"), d, [], 0).student.state_dict()
    fresh = BoxTraining(Detection()).assemble("vidt_w24", Method(objective="detect"), d, [], 0).student.state_dict()
    assert all(torch.equal(student[f"backbone.{k}"], v) for k, v in plain.items())
    rest = [k for k in student if k.removeprefix("backbone.") not in plain]
    assert len(rest) > 50 and all(torch.equal(student[k], fresh[k]) for k in rest)
    for spoilt, said in ((b"no", "task.start: "), (None, "cannot be read")):
        (tmp_path / "swin.pth").unlink() if spoilt is None else (tmp_path / "swin.pth").write_bytes(spoilt)
        with pytest.raises(DistilleryError, match=said):
            BoxTraining(task).assemble("vidt_w24", Method(objective="detect"), d, [], 0)
    torch.save(build("vidt_w48", 2).backbone.state_dict(), tmp_path / "swin.pth")
    with pytest.raises(DistilleryError, match="of another network"):
        BoxTraining(task).assemble("vidt_w24", Method(objective="detect"), d, [], 0)


def test_a_released_checkpoint_fills_a_detector(tmp_path: Path) -> None:
    released, ours = (build("vidt_w24", 91) for _ in range(2))
    official = released.state_dict()
    assert "transformer.decoder.bbox_embed.0.layers.0.weight" in official and "bbox_embed.0.layers.0.weight" in official
    load_official(ours, {f"module.{k}": v for k, v in official.items()})
    assert all(torch.equal(v, official[k]) for k, v in ours.state_dict().items())


def test_what_is_held_out_changes_no_view(tmp_path: Path) -> None:
    d = data(tmp_path, train=8, scales=[32, 48])
    held = d.hold_out(0.25)
    assert (len(held.train), len(held.val), len(held.test)) == (6, 2, 4)
    assert set(held.train.names()) | set(held.val.names()) == set(d.train.names())
    whole, part = (BoxLoader(x, Recipe(**RECIPE)) for x in (d, held))
    for row, name in enumerate(held.train.names()):
        before = d.train.names().index(name)
        assert part.view(0, 1, row) == whole.view(0, 1, before)
        assert torch.equal(held.train.objects(row)[1], d.train.objects(before)[1])
    assert set(part.splits()) == {"test", "val"}


def test_objects_are_held_out(tmp_path: Path) -> None:
    d = data(tmp_path)
    with pytest.raises(
        DistilleryError, match=r"recipe\.validation 0\.05 holds out 0 of 8 images, in which is no object"
    ):
        d.hold_out(0.05)
    nothing = {k: d.train.columns[k][:0] for k in ("boxes", "labels", "crowd", "area")} | {
        "starts": torch.zeros(9).numpy()
    }
    empty = dataclasses.replace(d, train=Split(d.train.columns | nothing))
    with pytest.raises(
        DistilleryError, match=r"holds out 2 of 8 images, in which is no object: raise it, or set it to 0"
    ):
        empty.hold_out(0.25)


def test_the_page_about_detectors_shows_a_valid_study() -> None:
    page = (ROOT / "docs/detection.md").read_text()
    text = page.split("cat > params.yaml <<'EOF'\n")[1].split("EOF\n")[0]
    study = check(yaml.safe_load(text))
    assert rehearse(study, images=False) == []
    for registry, base in ((NETWORKS, "networks"), (OBJECTIVES, "objectives"), (SOURCES, "layouts")):
        ours = [n for n, row in registry._rows.items() if row.module.startswith(f"distillery.tasks.detection.{base}")]
        assert ours and all(f"`{name}`" in page for name in ours)
