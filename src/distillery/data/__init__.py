"""Data sources, canonical arrays and views. Importing this package costs nothing: torch and the sources come later."""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillery.records.io import DistilleryError, save_tensors, sha256_array, sha256_json

if TYPE_CHECKING:
    from distillery.data.arrays import Arrays

# Every source and its options: one file of the same name in this folder, with `load(options) -> Arrays`.
SOURCES: dict[str, tuple[str, ...]] = {
    "digits": ("test_fraction",),
    "cifar100": ("mirror", "download_dir", "subset", "url", "md5", "sha256"),
}


def check_options(source: str, options: dict[str, Any]) -> None:
    """Refuse an unknown source or option, naming the nearest known one."""
    for name, known, what in [
        (source, tuple(SOURCES), "data.source"),
        *((key, SOURCES.get(source, ()), f"data.{key}") for key in options),
    ]:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
            raise DistilleryError(f"{what}: unknown name {name!r}; {hint}")


def prepare(source: str, options: dict[str, Any], out_dir: Path) -> dict[str, Any]:
    """Write the canonical arrays of a source to `out_dir`/arrays.safetensors; return what data.json says about them.

    Images are (N, H, W, C) uint8, labels (N,) uint8. The record depends on the content alone, never on the route by
    which it came (archive or mirror).
    """
    check_options(source, options)
    arrays: Arrays = importlib.import_module(f"distillery.data.{source}").load(options)
    hashes = {name: sha256_array(array) for name, array in arrays.tensors.items()}
    content = sha256_json(hashes)
    save_tensors(Path(out_dir) / "arrays.safetensors", arrays.tensors, {"content": content})
    return {
        "source": source,
        "selection": arrays.selection,
        "counts": {"train": len(arrays.tensors["train_labels"]), "test": len(arrays.tensors["test_labels"])},
        "shape": list(arrays.tensors["train_images"].shape[1:]),
        "num_classes": len(arrays.class_names),
        "class_names": arrays.class_names,
        "scale": arrays.scale,
        "mean": arrays.mean,
        "std": arrays.std,
        "sha256": hashes,  # of the raw bytes of each array, in C order
        "content": content,  # the hash of these hashes; the arrays' file names it too
    }
