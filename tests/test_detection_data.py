"""Detection: files of three formats, what is dropped, cut and ignored, and average precision against pycocotools."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from small_boxes import pictures, write_coco, write_voc, write_yolo

from distillery.data import prepare
from distillery.errors import DistilleryError
from distillery.tasks.detection.data import BoxData
from distillery.tasks.detection.precision import average_precision, results_of, truth_of


def made(tmp_path: Path, source: str, **options: Any) -> tuple[BoxData, dict[str, Any]]:
    index = tmp_path / source / "index.safetensors"
    index.parent.mkdir(exist_ok=True)
    usual = {"train": "train", "test": "val", "short_side": 48, "max_side": 64, "root": str(tmp_path)}
    facts = prepare(source, usual | options, index, index.with_name("images.blob"))
    return BoxData.load(index), facts


def splits(count: int = 3) -> dict[str, Any]:
    return {"train": pictures(count, 0), "val": pictures(count, 1)}


def test_three_formats_say_the_same(tmp_path: Path) -> None:
    both = splits()
    for source, write in (("coco", write_coco), ("yolo", write_yolo), ("voc", write_voc)):
        root = tmp_path / f"{source}_files"
        root.mkdir()
        write(root, both)
        options = {"renumber": True} if source == "coco" else {}
        data, facts = made(tmp_path, source, root=str(root), **options)
        assert data.class_names == ("green", "red") and facts["counts"]["train"] == 3
        for split, of in (("train", data.train), ("val", data.test)):
            for row, (image, boxes) in enumerate(both[split]):
                labels, corners = of.objects(row)
                want = [[x, y, x + w, y + h] for x, y, w, h, _ in boxes]
                assert labels.tolist() == [b[4] for b in boxes]
                torch.testing.assert_close(corners, torch.tensor(want).float(), rtol=0, atol=1e-4)
                assert of.size(row) == image.shape[:2]
        from distillery.data.blob import Blob

        assert torch.equal(
            data.image(Blob(data.blob), data.test, 1), torch.from_numpy(both["val"][1][0]).permute(2, 0, 1)
        )


EXTRA = [
    {"bbox": [2, 2, 30, 30], "iscrowd": 1, "area": 500},
    {"bbox": [5, 5, 0, 10], "area": 0},  # no area
    {"bbox": [-10, 40, 20, 20], "area": 400},  # partly outside
    {"bbox": [70, 5, 10, 10], "area": 100},  # wholly outside
]


def test_crowds_empty_and_outlying_boxes(tmp_path: Path) -> None:
    both = splits()
    both["train"][2][1].clear()  # an image without objects
    write_coco(tmp_path, both, extra=EXTRA)
    data, facts = made(tmp_path, "coco")
    assert data.class_names == ("", "", "", "green", "", "", "", "red")
    counts, first = facts["counts"], len(both["train"][0][1])
    assert (counts["train_dropped"], counts["train_cut"], counts["train_crowds"], counts["train_empty"]) == (2, 1, 1, 1)
    labels, corners = data.train.objects(0)
    assert len(labels) == first + 1  # the crowd is no training target
    assert corners[-1].tolist() == [0, 40, 10, 48]
    assert len(data.train.objects(2)[0]) == 0
    # The crowd is neither a miss nor does a detection in it count against the detector.
    truth = truth_of(data.test, data.class_names)
    assert sum(entry["iscrowd"] for entry in truth["annotations"]) == 1


@pytest.mark.parametrize(
    ("source", "spoil", "said"),
    [
        ("coco", lambda r: (r / "annotations/instances_val.json").unlink(), "there is no file"),
        ("coco", lambda r: (r / "annotations/instances_val.json").write_text("[1]"), "has not the lists"),
        ("yolo", lambda r: (r / "labels/train/000.txt").write_text("7 0.5 0.5 0.1 0.1"), "line 1: expected a class"),
        ("voc", lambda r: (r / "Annotations/train_000.xml").write_text("<annotation><object/>"), "is no annotation"),
        (
            "voc",
            lambda r: (r / "Annotations/train_000.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>'),
            "declares a document type",
        ),
        ("voc", lambda r: (r / "ImageSets/Main/train.txt").write_text("../../x"), "outside of"),
        ("voc", lambda r: (r / "JPEGImages/val_000.png").write_bytes(b"no image"), "cannot be used"),
    ],
)
def test_mistakes_end_in_one_sentence(tmp_path: Path, source: str, spoil: Any, said: str) -> None:
    {"coco": write_coco, "yolo": write_yolo, "voc": write_voc}[source](tmp_path, splits(1))
    spoil(tmp_path)
    with pytest.raises(DistilleryError, match=said):
        made(tmp_path, source)


def pycocotools(truth: dict[str, Any], results: list[dict[str, Any]]) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(v) for v in evaluation.stats[:6]]


def test_average_precision_is_that_of_pycocotools(tmp_path: Path) -> None:
    write_coco(tmp_path, {"train": pictures(1, 0), "val": pictures(12, 1, (160, 200), most=8)}, extra=EXTRA)
    data, _ = made(tmp_path, "coco")
    rng, found = np.random.default_rng(3), np.zeros((12, 100, 6), dtype=np.float32)
    for row in range(12):
        labels, corners = data.test.objects(row)
        for place, (label, box) in enumerate(zip(labels, corners, strict=True)):
            shifted = box.numpy() + rng.normal(0, 2, 4)
            found[row, 2 * place] = [*shifted, rng.random(), label if rng.random() < 0.8 else 10 - label]
            x, y = rng.uniform(0, 100, 2)
            found[row, 2 * place + 1] = [x, y, x + 40, y + 30, rng.random() * 0.7, 3]
    main, by_size, by_class = average_precision(found, data.test, data.class_names)
    truth, results = truth_of(data.test, data.class_names), results_of(found, data.class_names)
    want = pycocotools(truth, results)
    got = [main["ap"], main["ap50"], main["ap75"], by_size["ap_small"], by_size["ap_medium"], by_size["ap_large"]]
    assert [-1.0 if g is None else round(g / 100, 12) for g in got] == [round(w, 12) for w in want]
    assert 0.05 < main["ap"] / 100 < 0.95 and set(by_class) == {"green", "red"}
    assert np.mean([*by_class.values()]) == pytest.approx(main["ap"])


def test_no_detection_is_no_precision_and_no_object_is_refused(tmp_path: Path) -> None:
    both = splits(2)
    write_coco(tmp_path, both)
    data, _ = made(tmp_path, "coco")
    main, _, _ = average_precision(np.zeros((2, 100, 6), dtype=np.float32), data.test, data.class_names)
    assert main == {"ap": 0.0, "ap50": 0.0, "ap75": 0.0}
    with pytest.raises(DistilleryError, match="no objects"):
        average_precision(np.zeros((0, 100, 6)), data.test.rows(np.arange(0)), data.class_names)
