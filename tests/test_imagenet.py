"""The source `imagenet` on small stand-ins: archives and folders give the same blob, and what is wrong is named."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_images import drawn, save
from scipy.io import savemat

from distillery.data import open_source
from distillery.data.blob import AS_IS, PLAIN
from distillery.data.imagenet import MEAN, STD
from distillery.data.imagenet_archives import DEVKIT, TRAIN, VALIDATION
from distillery.data.photo_set import PhotoSet
from distillery.data.streamed import Streamed, prepare_blob
from distillery.errors import DistilleryError

WNIDS = ["n01440764", "n02102040", "n03028079"]
TRUTH = [2, 1, 1, 4, 2, 4]  # numbers of the development kit, which are not ours: 4, 1, 2 are the WNIDS in order
NUMBERS = {"n01440764": 4, "n02102040": 1, "n03028079": 2, "n00000001": 3}


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def packed(members: dict[str, bytes]) -> bytes:
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w:") as tar:
        for name, content in members.items():
            add(tar, name, content)
    return into.getvalue()


def encoded(seed: int, folder: Path, **options: Any) -> bytes:
    picture = drawn(seed, 30 + seed % 7, 40)
    picture = picture.convert(options.pop("mode")) if "mode" in options else picture
    return save(picture, folder / "x.jpg", **options).read_bytes()


def devkit(truth: list[int] = TRUTH) -> bytes:
    kinds = [("ILSVRC2012_ID", "i4"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "i4")]
    synsets = np.array([(n, wnid, "a word", "", 0) for wnid, n in NUMBERS.items()], dtype=kinds)
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    truth_text = "".join(f"{n}\n" for n in truth).encode()
    folder = "ILSVRC2012_devkit_t12"
    files = {
        f"{folder}/readme.txt": b"hello",
        f"{folder}/data/meta.mat": meta.getvalue(),
        f"{folder}/data/ILSVRC2012_validation_ground_truth.txt": truth_text,
    }
    return gzip.compress(packed(files))


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """A folder with three archives: three classes of three training and two validation images."""
    root = tmp_path / "archives"
    root.mkdir()
    classes = {}
    for c, wnid in enumerate(reversed(WNIDS)):  # in no order: the listing sorts
        images = {f"{wnid}_{i}.JPEG": encoded(10 * c + i, tmp_path) for i in (2, 0, 1)}
        classes[f"{wnid}.tar"] = packed(images)
    (root / TRAIN).write_bytes(packed(classes))
    val = {f"ILSVRC2012_val_{n:08d}.JPEG": encoded(100 + n, tmp_path) for n in range(1, len(TRUTH) + 1)}
    (root / VALIDATION).write_bytes(packed(val))
    (root / DEVKIT).write_bytes(devkit())
    return root


def folders(archives: Path, root: Path, flat: bool = False) -> Path:
    """Unpack the archives as ImageFolder wants them."""
    ours = {NUMBERS[wnid]: wnid for wnid in WNIDS}
    with tarfile.open(archives / TRAIN) as outer:
        for member in outer:
            with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                inner.extractall(root / "train" / member.name.removesuffix(".tar"), filter="data")
    with tarfile.open(archives / VALIDATION) as tar:
        for member, number in zip(tar, TRUTH, strict=True):
            tar.extract(member, root / "val" / ("" if flat else ours[number]), filter="data")
    if flat:
        (root / DEVKIT).write_bytes((archives / DEVKIT).read_bytes())
    return root


def source(root: Path, **options: Any) -> Streamed:
    found = open_source("imagenet", {"root": str(root), "size": 16} | options)
    assert isinstance(found, Streamed)
    return found


def made(root: Path, folder: Path) -> tuple[dict[str, Any], PhotoSet]:
    facts = prepare_blob("imagenet", source(root), folder / "arrays.safetensors", folder / "x.blob")
    return facts, PhotoSet.load(folder / "arrays.safetensors", folder / "x.blob", verify=True)


def names(text: np.ndarray[Any, Any]) -> list[str]:
    return text.tobytes().decode().split("\0")


def refused(root: Path, match: str) -> None:
    with pytest.raises(DistilleryError, match=match) as caught:
        source(root).listing()
    assert "\n" not in str(caught.value)


def test_archives_are_read_where_they_are(archives: Path, tmp_path: Path) -> None:
    facts, data = made(archives, tmp_path)
    assert facts["class_names"] == WNIDS and facts["counts"] == {"train": 9, "test": 6}
    assert (facts["mean"], facts["std"]) == (MEAN, STD)
    assert facts["selection"]["tested"] == "the validation images"
    assert names(data.train.names) == [f"train/{wnid}/{wnid}_{i}.JPEG" for wnid in WNIDS for i in range(3)]
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert data.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert names(data.test.names) == [f"val/ILSVRC2012_val_{n:08d}.JPEG" for n in (4, 6, 2, 3, 1, 5)]
    assert sorted(p.name for p in archives.iterdir()) == sorted([TRAIN, VALIDATION, DEVKIT]), "nothing is unpacked"


def test_unpacked_folders_hold_the_same(archives: Path, tmp_path: Path) -> None:
    _, packed_ = made(archives, tmp_path)
    for flat in (False, True):
        place = tmp_path / f"flat {flat}"
        place.mkdir()
        facts, data = made(folders(archives, place / "imagenet", flat), place)
        for one, other in ((data.train, packed_.train), (data.test, packed_.test)):
            assert np.array_equal(one.sha256, other.sha256) and np.array_equal(one.labels, other.labels)
        assert facts["class_names"] == WNIDS
        read = {path.name for path in source(place / "imagenet").files()}
        assert read == {"train", "val"} | ({DEVKIT} if flat else set())  # which says the classes of a flat folder


def test_images_are_what_image_folder_makes_of_them(archives: Path, tmp_path: Path) -> None:
    """CMYK is converted, a PNG is read whatever it is called, and EXIF orientations do not count."""
    root = folders(archives, tmp_path / "imagenet")
    from PIL import Image

    turned = Image.Exif()
    turned[0x0112] = 6
    save(drawn(1), root / "train" / WNIDS[0] / "a_turned.JPEG", exif=turned, format="JPEG")
    save(drawn(1).convert("CMYK"), root / "train" / WNIDS[0] / "b_cmyk.JPEG", format="JPEG")
    save(drawn(1), root / "train" / WNIDS[0] / "c_png.JPEG", format="PNG")
    _, data = made(root, tmp_path)
    assert data.train.way.tolist() == [PLAIN, AS_IS, AS_IS] + [PLAIN] * 9
    assert data.train.height[:3].tolist() == [40] * 3 and data.train.width[:3].tolist() == [48] * 3


def test_a_part_of_the_classes_will_do(archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open(archives / TRAIN) as whole:
        members = {m.name: whole.extractfile(m).read() for m in whole if WNIDS[1] not in m.name}
    (archives / TRAIN).write_bytes(packed(members))
    facts, data = made(archives, tmp_path)
    assert facts["class_names"] == [WNIDS[0], WNIDS[2]] and facts["counts"] == {"train": 6, "test": 4}
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert "6 training and 4 validation images: a part of ImageNet-1k" in capsys.readouterr().out


def test_missing_archives_are_named(archives: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "does not exist")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", f"holds neither {TRAIN} nor folders train and val")
    (archives / DEVKIT).unlink()
    refused(archives, f"{DEVKIT} is missing: put the development kit there")
    (archives / VALIDATION).unlink()
    refused(archives, f"{VALIDATION} is missing beside {TRAIN}")


@pytest.mark.parametrize("name", [TRAIN, VALIDATION, DEVKIT])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_archives_that_are_cut_short_are_one_sentence(name: str, share: float, archives: Path) -> None:
    content = (archives / name).read_bytes()
    (archives / name).write_bytes(content[: int(share * len(content))])
    refused(archives, rf"{re.escape(name)} .*: download it again")
    (archives / name).write_bytes(b"no archive at all")
    refused(archives, f"{re.escape(name)} is no whole archive")


@pytest.mark.parametrize("name", [TRAIN, VALIDATION])
@pytest.mark.parametrize("kind", ["header", "hole", "last"])
def test_a_damaged_header_does_not_end_an_archive(name: str, kind: str, archives: Path) -> None:
    """tarfile takes a header whose sum is wrong, and two blocks of zeros, for the end."""
    content = bytearray((archives / name).read_bytes())
    members = [m.start() for m in re.finditer(rb"(n\d{8}|ILSVRC2012_val)_\d+\.JPEG\0|n\d{8}\.tar\0", content)]
    at = members[-1 if kind == "last" else 2]
    if kind == "hole":
        content[at : at + 1024] = bytes(1024)
    else:
        content[at + 60] ^= 0xFF
    (archives / name).write_bytes(content)
    refused(archives, rf"{re.escape(name)}.* is damaged at byte [\d,]+, and more follows: download it again$")


def linked(name: str, target: str) -> bytes:
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w:") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, target
        tar.addfile(info)
    return into.getvalue()


def test_what_does_not_belong_in_an_archive_is_refused(archives: Path, tmp_path: Path) -> None:
    """Links are not followed, and a name that leads elsewhere is only a name."""
    good = packed({"n01440764_0.JPEG": b"x"})
    for inner in (linked("n01440764_0.JPEG", "/etc/passwd"), packed({"readme": b""})):
        (archives / TRAIN).write_bytes(packed({"n01440764.tar": inner, "n02102040.tar": good}))
        refused(archives, "which is no image: download it again")
    for outer in ({"other.tar": good}, {"n01440764.zip": good}):
        (archives / TRAIN).write_bytes(packed(outer))
        refused(archives, "which is no archive of a class")
    (archives / TRAIN).write_bytes(packed({"n01440764.tar": good, "a/n01440764.tar": good}))
    refused(archives, "holds the class n01440764 twice")
    (archives / TRAIN).write_bytes(packed({"n01440764.tar": packed({"../../x/n01440764_0.JPEG": b"x"})}))
    (archives / DEVKIT).write_bytes(devkit([4] * 6))
    assert [photo.name for photo in source(archives).listing().train] == ["train/n01440764/n01440764_0.JPEG"]
    (archives / TRAIN).write_bytes(packed({"n01440764.tar": good, "n02102040.tar": packed({})}))
    refused(archives, "holds no image of n02102040")


def test_more_validation_images_than_the_kit_knows(archives: Path) -> None:
    (archives / DEVKIT).write_bytes(devkit(TRUTH[:4]))
    refused(archives, r"val/ILSVRC2012_val_00000005\.JPEG is none of the 4 images")
    (archives / DEVKIT).write_bytes(devkit([2, 1, 1, 9, 2, 4]))
    refused(archives, "is damaged")
