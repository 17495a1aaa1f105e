"""Detection: files of three formats, what is dropped, cut and ignored, and average precision against pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from small_boxes import pictures, write_coco, write_voc, write_yolo

from distillery.data import open_source, prepare
from distillery.errors import DistilleryError
from distillery.records.named import content
from distillery.tasks.detection import Detection
from distillery.tasks.detection.data import BoxData
from distillery.tasks.detection.evaluation import BoxEvaluation
from distillery.tasks.detection.listing import Item
from distillery.tasks.detection.precision import average_precision, results_of, truth_of
from distillery.tasks.detection.refused import see_turned
from distillery.tasks.detection.views import fitted


def made(tmp_path: Path, source: str, **options: Any) -> tuple[BoxData, dict[str, Any]]:
    index = tmp_path / source / "index.safetensors"
    index.parent.mkdir(exist_ok=True)
    usual = {"train": "train", "test": "val", "short_side": 48, "max_side": 64, "root": str(tmp_path)}
    facts = prepare(source, usual | options, index, index.with_name("images.blob"))
    return BoxData.load(index), facts


def splits(count: int = 3) -> dict[str, Any]:
    return {"train": pictures(count, 0), "val": pictures(count, 1)}


def test_sizes_are_those_of_detr_and_never_without_a_pixel() -> None:
    for size, wanted in {
        (480, 640): (800, 1066),
        (640, 480): (1066, 800),
        (400, 1000): (533, 1332),
        (1, 4000): (1, 1333),
        (4000, 1): (1333, 1),
    }.items():
        assert fitted(size, 800, 1333) == wanted


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


def coco(change: Any, split: str = "train") -> Any:
    """A change of COCO's document of a split."""

    def spoil(root: Path) -> None:
        path = root / f"annotations/instances_{split}.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    return spoil


def coco_set(key: str, change: dict[str, Any], row: int = 0) -> Any:
    return coco(lambda document: document[key][row].update(change))


def in_text(old: str, new: str) -> Any:
    """A change of the text of COCO's annotations of train."""

    def spoil(root: Path) -> None:
        path = root / "annotations/instances_train.json"
        path.write_text(path.read_text().replace(old, new, 1))

    return spoil


def voc(old: str, new: str) -> Any:
    """A change of the text of VOC's first annotation."""

    def spoil(root: Path) -> None:
        path = root / "Annotations/train_000.xml"
        path.write_text(path.read_text().replace(old, new, 1))

    return spoil


def label(line: str) -> Any:
    return lambda root: (root / "labels/train/000.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")


def link_to_nowhere(root: Path) -> None:
    path = root / "labels/train/000.txt"
    path.unlink()
    path.symlink_to("nowhere")


def emptied(split: str) -> Any:
    return coco(lambda document: document["annotations"].clear(), split)


SIZE = "<annotation><size><width>{}</width><height>{}</height></size>"
BOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>60</ymax></bndbox>"
TALL = f"<object><name>red</name>{BOX}</object>"  # an image of 64 x 48 has no room for it


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
        # Both splits number classes alike, each once.
        ("coco", coco_set("categories", {"name": "blue"}), "category 3 is 'green' here, but 'blue' in the other split"),
        ("coco", coco_set("categories", {"id": 3}, 1), "two categories have the id 3"),
        ("coco", coco_set("categories", {"id": 3_000_000}, 1), r"3000000 would make as many classes: set `data\.renum"),
        ("coco", coco_set("categories", {"id": 5}), "3 and 5 are both called 'green': give each class one id"),
        (
            "yolo",
            lambda r: (r / "config.yaml").write_text("names: [green, green]"),
            "0 and 1 are both called 'green': name them apart",
        ),
        (
            "yolo",
            lambda r: (r / "config.yaml").write_text("names: {0: no, 1: yes}"),
            "a class is called False as YAML reads it: put its name in quotes",
        ),
        (
            "yolo",
            lambda r: (r / "config.yaml").write_text("kpt_shape: [17, 2]\nnames: [green, red]"),
            "its labels hold key points too",
        ),
        *(
            ("yolo", lambda r, text=text: (r / "config.yaml").write_text(text), rf"config\.yaml {said}")
            for text, said in (
                ("names: " + "[" * 10_000, r"cannot be read as YAML \(RecursionError\)"),
                ("names: [2001-13-01, red]", r"cannot be read as YAML \(ValueError\)"),
                ("names: {0: green, one: red}", "has no `names:` of the classes, a list or a mapping from 0 on"),
            )
        ),
        ("coco", lambda r: (r / "annotations/instances_val.json").write_text("[" * 100_000), "is no JSON file"),
        # A key that is given twice: readers let the last one win.
        (
            "coco",
            in_text('"categories": [', '"categories": [], "categories": ['),
            "the key 'categories' is given twice",
        ),
        ("coco", in_text('"bbox": ', '"bbox": [0, 0, 9, 9], "bbox": '), "the key 'bbox' is given twice in one object"),
        *(
            ("yolo", lambda r, text=text: (r / "config.yaml").write_text(text), rf"config\.yaml, line {said}: keep one")
            for text, said in (
                ("names: [green, red]\nnames: [red, green]", '2: the key "names" is given twice'),
                ("names:\n  0: green\n  1: blue\n  1: red", '4: the key "1" is given twice'),
            )
        ),
        # Every class has a name: objects of another one were neither found nor missed.
        ("coco", coco_set("categories", {"name": ""}), "is no category: give it a whole `id` and a `name`"),
        ("yolo", lambda r: (r / "config.yaml").write_text("names: [green, ' ']"), "a class has an empty name: name it"),
        # Files are texts, in an encoding that there is.
        ("coco", coco_set("images", {"file_name": "\ud800.png"}), "train has a name that is not UTF-8"),
        (
            "yolo",
            lambda r: [
                (r / folder / f"000.{kind}").rename(r / folder / os.fsdecode(b"\xff." + kind.encode()))
                for folder, kind in (("images/train", "png"), ("labels/train", "txt"))
            ],
            "train has a name that is not UTF-8",
        ),
        ("voc", lambda r: (r / "ImageSets/Main/train.txt").write_text("a", encoding="utf-16"), "is no text in UTF-8"),
        ("voc", voc("<annotation>", '<?xml version="1.0" encoding="none"?><annotation>'), "is no annotation"),
        # What YOLO's folders hold is read.
        ("yolo", link_to_nowhere, r"000\.txt cannot be read \(No such file or directory\): put the boxes"),
        (
            "yolo",
            lambda r: (r / "labels/train/000.txt").rename(r / "labels/train/000.TXT"),
            r"000\.TXT has the boxes of no image .* small letters",
        ),
        (
            "yolo",
            lambda r: shutil.copy(r / "images/train/000.png", r / "images/train/000.jpg"),
            "two images are called 000 in .*train: keep one",
        ),
        (
            "yolo",
            lambda r: shutil.copytree(r / "images/train", r / "images/train/more/deep"),
            r"deep/000\.png is in a sub-folder",
        ),
        (
            "yolo",
            lambda r: (r / "labels/train/000.txt").rename(r / "labels/train/000.png.txt"),
            r"000\.png\.txt has the boxes of no image",
        ),
        # An image is named once.
        ("coco", coco_set("images", {"id": 11}), "two images have the id 11"),
        ("coco", coco_set("images", {"file_name": "001.png"}), "001.png is named twice in train"),
        (
            "voc",
            lambda r: (r / "ImageSets/Main/val.txt").write_text("train_001"),
            "001.png is named in training and in",
        ),
        # It has the size that its annotations say.
        (
            "coco",
            coco_set("images", {"width": 640, "height": 480}),
            "000.png has 64 x 48 .* 640 x 480 .* take the image",
        ),
        (
            "voc",
            voc("<annotation>", SIZE.format(48, 64) + TALL),
            r"000.png has 64 x 48 .* 48 x 64 .* turn the image or the boxes",
        ),
        # There is something to find.
        ("coco", emptied("train"), r"data\.train: no object is in the images of train"),
        ("coco", emptied("val"), r"data\.test: no object is in the images of val"),
        ("yolo", lambda r: (r / "config.yaml").unlink(), r"there is no file .*config\.yaml: `data\.names`"),
        ("yolo", lambda r: shutil.rmtree(r / "labels/val"), "there is no folder .*labels/val: put the boxes"),
        # Boxes are numbers, and within the image.
        ("voc", voc("<xmin>", "<xmin>nan</xmin><xmin>"), "is no annotation"),
        ("voc", voc("<xmin>", "<xmin/><xmin>"), "is no annotation"),
        ("voc", voc("<xmin>", "<xmin>1</xmin><xmin>"), "is no annotation"),
        ("voc", voc("<bndbox>", BOX + "<bndbox>"), "is no annotation .* one bndbox"),
        ("voc", voc("</name>", "</name><difficult>true</difficult>"), "is no annotation .* `difficult` 0 or 1"),
        ("yolo", label("0 20 20 10 10"), r"000\.txt, line 2: expected a class"),
        ("yolo", label("0 1.2 0.5 0.6 0.2"), "line 2: expected a class"),
        ("yolo", label("0 nan 0.5 0.6 0.2"), "line 2: expected a class"),
        ("yolo", label("0 0.5 0.5 -0.6 0.2"), "line 2: expected a class"),
        ("yolo", label("0 0.5 0.5 0.6 0"), "line 2: expected a class"),
        ("yolo", label("0 0.1 0.1 0.2 0.2 0.1 -0.2"), "line 2: expected a class"),
        *(
            ("coco", coco_set("annotations", change), "the annotation .* lacks a bbox of four numbers")
            for change in (
                {"bbox": [0, 0, float("inf"), 5]},
                {"bbox": [float("nan"), 0, 5, 5]},
                {"area": float("nan")},
                {"area": -1},
                {"category_id": 3.7},
                {"iscrowd": "no"},
                {"iscrowd": 2},
                {"image_id": 99},
            )
        ),
        (
            "coco",
            coco(lambda d: [a.update(bbox=[v / 64 for v in a["bbox"]]) for a in d["annotations"]]),
            r"data\.train: every box lies within one pixel: give boxes in pixels",
        ),
        (
            "coco",
            coco(
                lambda d: [a.update(bbox=[x, y, x + w, y + h]) for a in d["annotations"] for x, y, w, h in [a["bbox"]]]
            ),
            r"data\.train: \d of \d boxes end outside of their images: .* left, top, width and height",
        ),
        ("voc", voc("<annotation>", "<annotation xmlns='elsewhere'>"), "is no annotation"),
        # Documents are whole.
        ("coco", coco(lambda d: d["annotations"].append([])), "the annotation .* lacks a bbox of four numbers"),
        ("coco", coco(lambda d: d.update(annotations=None)), "has not the lists"),
        ("coco", coco(lambda d: d["images"][0].pop("file_name")), "is no image: give it an `id` and a `file_name`"),
        ("coco", coco(lambda d: d["images"][0].pop("id")), "is no image: give it an `id` and a `file_name`"),
        ("coco", coco(lambda d: d["images"].append(7)), "is no image: give it an `id` and a `file_name`"),
        ("coco", coco(lambda d: d["categories"][0].pop("name")), "is no category: give it a whole `id` and a `name`"),
        ("coco", coco_set("images", {"file_name": "a\0b.png"}), "outside of"),
    ],
)
def test_mistakes_end_in_one_sentence(tmp_path: Path, source: str, spoil: Any, said: str) -> None:
    {"coco": write_coco, "yolo": write_yolo, "voc": write_voc}[source](tmp_path, splits(2))
    spoil(tmp_path)
    with pytest.raises(DistilleryError, match=said) as caught:
        made(tmp_path, source)
    assert "\n" not in str(caught.value) and not [*tmp_path.rglob("images.blob")]


def test_swapped_sides_count_as_a_slip_where_the_boxes_fit(tmp_path: Path) -> None:
    write_voc(tmp_path, splits())
    expected = made(tmp_path, "voc")[1]["counts"]
    voc("<annotation>", SIZE.format(48, 64))(tmp_path)
    assert made(tmp_path, "voc")[1]["counts"] == expected


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("source", "way", "size", "right"),
    [
        ("yolo", 6, None, False),
        ("yolo", 1, None, True),
        ("voc", 6, None, False),
        ("voc", 6, (48, 64), False),  # the sides of the turned image
        ("voc", 6, (64, 48), True),  # those of the stored one
        ("voc", 3, (64, 48), True),  # upside down, which sides do not tell: read as stored, and counted
        ("voc", 3, None, False),
        ("coco", 8, (64, 48), True),
    ],
)
def test_images_that_exif_turns_are_refused_unless_the_boxes_are_of_the_stored_ones(
    kind: str,
    source: str,
    way: int,
    size: tuple[int, int] | None,
    right: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    {"coco": write_coco, "yolo": write_yolo, "voc": write_voc}[source](tmp_path, splits())
    folder = {"coco": "train/000", "yolo": "images/train/000", "voc": "JPEGImages/train_000"}[source]
    path, exif = tmp_path / f"{folder}.png", Image.Exif()
    exif[ExifTags.Base.Orientation] = way
    Image.open(path).save(path, kind, exif=exif)
    if source == "voc" and size:
        voc("<annotation>", SIZE.format(*size))(tmp_path)
    if right:
        assert made(tmp_path, source)[1]["counts"]["train_turned"] == (way == 3)
        assert ("data.train: EXIF turns 1 of 3 images" in capsys.readouterr().out) == (way == 3)
    else:
        with pytest.raises(DistilleryError, match=rf"000\.png has the EXIF orientation {way}, .*: store it turned"):
            made(tmp_path, source)


def test_a_quarter_turn_of_a_square_image_is_one_that_no_side_tells() -> None:
    item = Item(Path("a.png"), "a.png", [], size=(64, 64))
    for way in (1, 3, 6):
        assert see_turned([item], [64], [64], {"a.png": way}) == (way != 1)


@pytest.mark.parametrize(("source", "write"), [("coco", write_coco), ("yolo", write_yolo), ("voc", write_voc)])
def test_an_object_that_is_written_down_twice_is_one(tmp_path: Path, source: str, write: Any) -> None:
    """But two classes may have one box, and so may an object and a crowd."""
    both = splits()
    write(tmp_path, both)
    content = made(tmp_path, source)[1]["content"]
    for of in both.values():
        of[0][1].append(of[0][1][0])
    write(tmp_path, both)
    facts = made(tmp_path, source)[1]
    assert (facts["counts"]["train_doubled"], facts["counts"]["test_doubled"], facts["content"]) == (1, 1, content)
    box, label = both["train"][0][1][0][:4], 1 - both["train"][0][1][0][4]
    both["train"][0][1].append((*box, label))
    write(tmp_path, both, **({"extra": [{"bbox": [*box], "iscrowd": 1}]} if source == "coco" else {}))
    assert made(tmp_path, source)[1]["counts"]["train_doubled"] == 1


def test_files_beside_yolos_labels_and_hidden_folders_are_left_alone(tmp_path: Path) -> None:
    write_yolo(tmp_path, splits())
    (tmp_path / "labels/train/classes.txt").write_text("green\nred\n")
    (tmp_path / "labels/train/001.txt").unlink()  # an image without objects
    shutil.copytree(tmp_path / "images/train", tmp_path / "images/train/.cache")
    assert made(tmp_path, "yolo")[1]["counts"]["train_empty"] == 1


def test_each_class_of_voc_is_named_once(tmp_path: Path) -> None:
    write_voc(tmp_path, splits())
    with pytest.raises(DistilleryError, match=r"data\.classes names 'red' twice"):
        made(tmp_path, "voc", classes=["red", "green", "red"])
    with pytest.raises(DistilleryError, match=r"data\.classes has an empty name"):
        made(tmp_path, "voc", classes=["red", "green", ""])


def test_only_empty_braces_stand_for_a_split(tmp_path: Path) -> None:
    write_coco(tmp_path, splits())
    for name in ("annotations/instances_{split}.json", "annotations/{"):
        with pytest.raises(DistilleryError, match=r"there is no file .*\{.*: `data\.annotations` says where"):
            made(tmp_path, "coco", annotations=name)


def test_hidden_files_and_byte_order_marks_are_no_content(tmp_path: Path) -> None:
    """As macOS and Windows leave them."""
    for name, write in (("yolo", write_yolo), ("voc", write_voc)):
        write(tmp_path / name, splits())
        expected = made(tmp_path, name, root=str(tmp_path / name))[1]["content"]
        if name == "yolo":
            (tmp_path / "yolo/images/train/._000.png").write_bytes(b"\0")
            (tmp_path / "yolo/labels/train/._000.txt").write_bytes(b"\0")
        for path in (tmp_path / name).rglob("*.txt"):
            if not path.name.startswith("."):
                path.write_text(path.read_text(), encoding="utf-8-sig")
        assert made(tmp_path, name, root=str(tmp_path / name))[1]["content"] == expected


def test_test_images_that_are_trained_on_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_yolo(tmp_path, splits())
    assert "test_repeated" not in made(tmp_path, "yolo")[1]["counts"]
    (tmp_path / "images/val/000.png").unlink()
    (tmp_path / "images/val/000.png").symlink_to(tmp_path / "images/train/000.png")
    assert made(tmp_path, "yolo")[1]["counts"]["test_repeated"] == 1
    assert "1 of 3 test images also occur in training" in capsys.readouterr().out


def test_a_hold_out_leaves_objects_on_both_sides(tmp_path: Path) -> None:
    write_voc(tmp_path, splits(10))
    data = made(tmp_path, "voc")[0]
    assert (len(data.hold_out(0.3).train), len(data.hold_out(0.3).val)) == (7, 3)
    for fraction, said in ((0.01, "in which is no object: raise it"), (0.97, "and no object is left: lower it")):
        with pytest.raises(DistilleryError, match=rf"recipe\.validation {fraction:g} holds out .* images, {said}"):
            data.hold_out(fraction)


def test_what_is_read_beside_the_root_counts_by_its_content(tmp_path: Path) -> None:
    """A name of YOLO's that was corrected, or COCO's annotations, made no data due."""
    root = tmp_path / "set"
    write_yolo(root, splits(1))
    write_coco(root, splits(1))
    usual = {"train": "train", "test": "val", "root": str(root)}
    for name in ("yolo", "coco", "voc"):
        assert open_source(name, usual).files() == [root]
    (root / "config.yaml").rename(tmp_path / "config.yaml")
    (root / "annotations").rename(tmp_path / "annotations")
    (root / "val").rename(tmp_path / "val")
    coco = {"annotations": "../annotations/of_{}.json", "test": "../val"}
    found = open_source("coco", usual | {"annotations": "../annotations/instances_{}.json"}).files()
    assert found[1:] == [root / f"../annotations/instances_{split}.json" for split in ("train", "val")]
    assert root / "../val" in open_source("coco", usual | coco).files()
    source = open_source("yolo", usual)
    assert source.files() == [root, tmp_path / "config.yaml"]
    before = content(source.files(), tmp_path / "note.json")
    (tmp_path / "config.yaml").write_text("names: [blue, red]")
    assert content(source.files(), tmp_path / "note.json") != before


def test_a_crowd_is_what_says_1(tmp_path: Path) -> None:
    write_coco(tmp_path, splits())
    coco_set("annotations", {"iscrowd": "0", "category_id": 3.0})(tmp_path)
    assert made(tmp_path, "coco")[1]["counts"]["train_crowds"] == 0


@pytest.mark.parametrize("named", ["train_001.png", "val_000.png", "", "train_000"])
def test_a_picture_is_that_of_its_annotation_whatever_is_written_in_it(named: str, tmp_path: Path) -> None:
    """Only where no picture is called like the annotation, what it names counts."""
    write_voc(tmp_path, splits())
    voc("train_000.png", named)(tmp_path)
    voc("<annotation>", SIZE.format(64, 48))(tmp_path)
    data, _ = made(tmp_path, "voc")
    assert data.train.names() == [f"JPEGImages/train_{i:03}.png" for i in range(3)]
    (tmp_path / "JPEGImages/train_000.png").rename(tmp_path / "JPEGImages/other.png")
    voc(f"<filename>{named}", "<filename>other.png")(tmp_path)
    data, _ = made(tmp_path, "voc")
    assert data.train.names()[0] == "JPEGImages/other.png"
    for suffix in ("jpg", "png"):
        (tmp_path / f"JPEGImages/train_000.{suffix}").touch()
    with pytest.raises(DistilleryError, match=r"train_000\.jpg and train_000\.png: keep one picture for each"):
        made(tmp_path, "voc")


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


def test_nothing_is_agreed_on_where_the_teacher_finds_nothing() -> None:
    found = np.zeros((2, 100, 6), dtype=np.float32)
    sure = found.copy()
    sure[0, 0] = [0, 0, 10, 10, 0.9, 1]
    evaluation = BoxEvaluation(Detection())
    agreed = [evaluation.compare(*pair)["agreement"] for pair in ((sure, found), (found, sure), (sure, sure))]
    assert agreed == [None, 0.0, 1.0]


def test_no_detection_is_no_precision_and_no_object_is_refused(tmp_path: Path) -> None:
    both = splits(2)
    write_coco(tmp_path, both)
    data, _ = made(tmp_path, "coco")
    main, _, _ = average_precision(np.zeros((2, 100, 6), dtype=np.float32), data.test, data.class_names)
    assert main == {"ap": 0.0, "ap50": 0.0, "ap75": 0.0}
    with pytest.raises(DistilleryError, match="no objects"):
        average_precision(np.zeros((0, 100, 6)), data.test.rows(np.arange(0)), data.class_names)
