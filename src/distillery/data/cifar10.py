"""CIFAR-10 (Krizhevsky, 2009): 50,000 + 10,000 colour images of 32x32, 10 classes, from an archive or a local mirror.

Rows are sorted by (label, official file name), and by content where both agree, so every way gives the same bytes. The
archive and its extracted folder are verified by the md5 sums that torchvision knows. A mirror is held to the numbers of
images and to the published mean of the training pixels, to four digits; hashes of the canonical arrays are not built
in, but those that `data/.../data.json` records can be pinned by `sha256`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from distillery.data.arrays import Arrays, Shape, Source
from distillery.data.cifar100 import Split, read_npz
from distillery.data.pixels import hash_image, mean_and_std
from distillery.records.io import DistilleryError, sha256_array

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
COUNTS = {"train": 5000, "test": 1000}  # of each class

# The training pixels' own, in units of 255, as the field gives them since issue 19 of kuangliu/pytorch-cifar; the older
# deviations 0.2023, 0.1994, 0.2010 are means over single images.
MEAN = [0.4914, 0.4822, 0.4465]
STD = [0.2470, 0.2435, 0.2616]


class CIFAR10(Source):
    """Read CIFAR-10 from where it lies, if that is named, else download the official archive."""

    class Config(Source.Config):
        mirror: str | None = None
        """Where it lies: the official archive cifar-10-python.tar.gz, the folder cifar-10-batches-py in it, a folder
        that holds one of these, or a lossless mirror (train.npz and test.npz with images, labels and filenames)."""
        download_dir: str | None = None
        """Where the archive is kept; default ~/.cache/distillery."""
        url: str | None = None
        """Another address of the archive."""
        md5: dict[str, str] | None = None
        """Sums of another archive: {archive, data_batch_1, ..., test_batch, batches.meta}."""
        sha256: dict[str, str] | None = None
        """Hashes that the canonical arrays must have: {train_images, train_labels, test_images, test_labels}."""

    config: Config

    def selection(self) -> dict[str, Any]:
        return {"sha256": self.config.sha256, "md5": self.config.md5}

    def files(self) -> list[Path]:
        return [Path(self.config.mirror).expanduser()] if self.config.mirror else []

    def shape(self) -> Shape | None:
        return None if self.config.sha256 else Shape(3, 32, 32, 10, 50_000, 10_000)

    def load(self) -> Arrays:
        splits, names, where = self._read()
        tensors: dict[str, Any] = {}
        for split, rows in splits.items():
            keys = np.array([hash_image(image) for image in rows["images"]], dtype="S32")
            order = np.lexsort((keys, rows["filenames"], rows["labels"]))
            for key in ("images", "labels"):
                tensors[f"{split}_{key}"] = np.ascontiguousarray(rows[key][order])
        for name, wanted in (self.config.sha256 or {}).items():
            if name not in tensors or sha256_array(tensors[name]) != wanted:
                raise DistilleryError(f"{where}: {name} does not have the sha256 that `data.sha256` asks for")
        return Arrays(tensors, names, 255.0, MEAN, STD, {})

    def _read(self) -> tuple[dict[str, Split], list[str], str]:
        if self.config.mirror and (Path(self.config.mirror).expanduser() / "train.npz").exists():
            return self._read_mirror(Path(self.config.mirror).expanduser()), NAMES, self.config.mirror
        from distillery.data import cifar_archive  # it needs torchvision

        archive = cifar_archive.CIFAR10
        if not self.config.mirror:
            options = self.config.model_dump(exclude_none=True)
            return *cifar_archive.read_archive(archive, options), "the downloaded archive"
        path = Path(self.config.mirror).expanduser()
        if found := cifar_archive.find_local(archive, path):
            sums = archive.sums(self.config.md5 or {})
            return *cifar_archive.read_local(archive, found, sums), str(found)
        problem = "holds no train.npz and is neither the official archive nor its extracted folder"
        problem = problem if path.exists() else "does not exist"
        raise DistilleryError(f"{path} {problem}; correct `data.mirror`")

    def _read_mirror(self, folder: Path) -> dict[str, Split]:
        splits = {s: read_npz(folder / f"{s}.npz", ("images", "labels", "filenames"), "CIFAR-10") for s in COUNTS}
        for split, rows in splits.items():
            shape, kinds = rows["images"].shape, (rows["images"].dtype, rows["labels"].dtype.kind)
            if (
                shape[1:] != (32, 32, 3)
                or kinds[0] != np.uint8
                or kinds[1] not in "iu"
                or len(rows["labels"]) != shape[0]
            ):
                raise DistilleryError(
                    f"{folder / split}.npz: images must be (N, 32, 32, 3) uint8, labels N whole numbers; copy it again"
                )
            rows["labels"] = rows["labels"].astype(np.uint8)
        if self.config.sha256:
            return splits
        for split, rows in splits.items():
            if np.bincount(rows["labels"], minlength=10).tolist() != [COUNTS[split]] * 10:
                raise DistilleryError(
                    f"{folder} is not the whole CIFAR-10: not every class has {COUNTS[split]:,} {split} images; "
                    "copy it again"
                )
        if (found := mean_and_std(splits["train"]["images"])) != (MEAN, STD):
            raise DistilleryError(
                f"{folder} is not CIFAR-10 bit for bit: mean and deviation of its training pixels are {found[0]} and "
                f"{found[1]}; take a lossless copy"
            )
        return splits
