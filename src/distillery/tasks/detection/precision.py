"""Average precision as COCO computes it, by faster-coco-eval (extra `detection`), which gives pycocotools' digits."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distillery.errors import DistilleryError
from distillery.tasks.detection.data import Split

SIZES = ("small", "medium", "large")  # areas below 32 * 32, below 96 * 96, above


def truth_of(split: Split, class_names: tuple[str, ...]) -> dict[str, Any]:
    """The annotations of a split as a document in COCO's format; images are numbered from 1, as objects are."""
    objects = []
    for row in range(len(split)):
        of = split.of(row)
        for i in range(of.start, of.stop):
            entry: dict[str, Any] = {"id": i + 1, "image_id": row + 1, "category_id": int(split.columns["labels"][i])}
            entry |= {"bbox": split.columns["boxes"][i].tolist(), "area": float(split.columns["area"][i])}
            objects.append(entry | {"iscrowd": int(split.columns["crowd"][i])})
    images = [{"id": row + 1, "height": h, "width": w} for row, (h, w) in enumerate(split.sizes().tolist())]
    kinds = [{"id": i, "name": name} for i, name in enumerate(class_names) if name]
    return {"info": {}, "images": images, "annotations": objects, "categories": kinds}


def results_of(found: NDArray[Any], class_names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Detections (N, 100, 6) as COCO's list of results. Class numbers without a name cannot be right: left out."""
    rows = []
    for image, detections in enumerate(found.astype(np.float64), 1):
        for left, top, right, bottom, score, label in detections[detections[:, 4] > 0].tolist():
            if class_names[int(label)]:
                box = [left, top, right - left, bottom - top]
                rows.append({"image_id": image, "category_id": int(label), "bbox": box, "score": score})
    return rows


def average_precision(
    found: NDArray[Any], split: Split, class_names: tuple[str, ...]
) -> tuple[dict[str, float], dict[str, float | None], dict[str, float | None]]:
    """Average precision in percent.

    Args:
        found: (N, 100, 6) detections, `predictions.found_in`.

    Returns:
        ap (over IoU 0.5, 0.55, ..., 0.95), ap50, ap75; ap_small, ap_medium, ap_large, None where no object has that
        size; and ap by class, None where it does not occur.

    Raises:
        DistilleryError: if faster-coco-eval is not installed, or the split has no objects at all.
    """
    library = _library()
    truth = library.COCO(truth_of(split, class_names))
    if not truth.anns:
        raise DistilleryError("the images that are tested on have no objects: name other ones by `data.test`")
    evaluation = library.COCOeval_faster(truth, truth.loadRes(results_of(found, class_names)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    stats = [float(v) * 100 for v in evaluation.stats[:6]]
    main = {name: max(value, 0.0) for name, value in zip(("ap", "ap50", "ap75"), stats, strict=False)}
    by_size = {f"ap_{name}": value if value >= 0 else None for name, value in zip(SIZES, stats[3:], strict=True)}
    # (IoU, recall, class, area, detections an image), -1 where the class has no object.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    by_class: dict[str, float | None] = {}
    for i, category in enumerate(evaluation.params.catIds):
        known = precision[:, :, i][precision[:, :, i] >= 0]
        by_class[class_names[category]] = float(known.mean()) * 100 if known.size else None
    return main, by_size, by_class


def _library() -> Any:
    try:
        return importlib.import_module("faster_coco_eval")
    except ImportError:
        raise DistilleryError("average precision needs faster-coco-eval: pip install 'distillery[detection]'") from None
