"""The sources `coco`, `yolo` and `voc`: how files of images with boxes are laid out."""

from __future__ import annotations

from pathlib import Path

from distillery.tasks.detection import listing
from distillery.tasks.detection.listing import Listing
from distillery.tasks.detection.source import Boxed
from distillery.tasks.detection.voc import voc
from distillery.tasks.detection.yolo import yolo, yolo_names


class Coco(Boxed):
    """COCO's layout (Lin et al., arXiv:1405.0312): a folder of images and a JSON file for every split."""

    class Config(Boxed.Config):
        train: str = "train2017"
        """Folder of the training images."""
        test: str = "val2017"
        """Folder of the test images."""
        annotations: str = "annotations/instances_{}.json"
        """File of a split's annotations below `root`; `{}` stands for its folder."""
        renumber: bool = False
        """Number the classes from 0 in the order of their ids; without, a class is its `category_id`, as in released
        weights, which then have 91 of them."""

    config: Config

    def named(self) -> list[Path]:
        folders = self.splits().values()
        return [self.root / name for f in folders for name in (f, listing.annotated(self.config.annotations, f))]

    def listing(self) -> Listing:
        return listing.coco(self.root, self.splits(), self.config.annotations, self.config.renumber)


class Yolo(Boxed):
    """YOLO's layout: `images/SPLIT` and `labels/SPLIT`, and a YAML file with the classes' names."""

    class Config(Boxed.Config):
        train: str = "train2017"
        """Folder of `images` and `labels`."""
        test: str = "val2017"
        """Folder of `images` and `labels`."""
        names: str = "config.yaml"
        """File with `names:`, below `root` or beside it."""

    config: Config

    def named(self) -> list[Path]:
        folders = self.splits().values()
        return [self._names(), *(self.root / of / folder for of in ("images", "labels") for folder in folders)]

    def _names(self) -> Path:
        given = [self.root / self.config.names, self.root.parent / self.config.names]
        return next((p for p in given if p.is_file()), given[0])

    def listing(self) -> Listing:
        return yolo(self.root, self.splits(), yolo_names(self._names()))


class Voc(Boxed):
    """Pascal VOC's layout: `JPEGImages`, `Annotations` and lists in `ImageSets/Main`."""

    class Config(Boxed.Config):
        train: str = "train"
        """A list of `ImageSets/Main`; trainval, for instance."""
        test: str = "test"
        """Likewise."""
        classes: tuple[str, ...] | None = None
        """Names of the classes, in order; default: those that occur, in alphabetical order."""
        one_based: bool = False
        """Pixels count from 1 and both ends belong to a box, as in Pascal VOC itself; labelling programs that write
        its format mostly do not."""

    config: Config

    def listing(self) -> Listing:
        classes = None if self.config.classes is None else list(self.config.classes)
        return voc(self.root, self.splits(), classes, self.config.one_based)
