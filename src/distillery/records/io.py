"""What reaches the disk: safetensors, JSON, hashes; and by way of two modules atomic files, locks, provenance.

Nothing here imports torch before it has to, so that the command line answers at once.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from distillery.records.environment import environment, revision
from distillery.records.faults import damaged, unreadable
from distillery.records.files import DistilleryError, StaleInput, atomic_path, lock, scratch, void, vouched

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

__all__ = [
    "SOURCE_SUFFIXES",
    "DistilleryError",
    "StaleInput",
    "atomic_path",
    "below",
    "environment",
    "load_arrays",
    "load_tensors",
    "lock",
    "md5_file",
    "read_json",
    "read_metadata",
    "revision",
    "save_tensors",
    "scratch",
    "sha256_array",
    "sha256_file",
    "sha256_json",
    "sha256_tree",
    "void",
    "vouched",
    "write_json",
]


def _not_finite(obj: Any, where: str = "") -> str:
    """Find the first NaN or infinity in a JSON-like object, as `a.b[3] = nan`; "" if there is none."""
    if isinstance(obj, float) and not math.isfinite(obj):
        return f"{where} = {obj}"
    if isinstance(obj, Mapping):
        return next(filter(None, (_not_finite(v, f"{where}.{k}".lstrip(".")) for k, v in obj.items())), "")
    if isinstance(obj, list | tuple):
        return next(filter(None, (_not_finite(v, f"{where}[{i}]") for i, v in enumerate(obj))), "")
    return ""


def write_json(path: Path, obj: Any, sort: bool = True, sync: bool = True) -> None:
    """Write `obj` as JSON, one item per line, with sorted keys or in the order that they have; `sync`: `atomic_path`.

    NaN and infinity are refused: JSON has neither.
    """
    if bad := _not_finite(obj):
        raise DistilleryError(f"cannot write {path}: {bad} is not a finite number; look for the step that made it")
    text = json.dumps(obj, sort_keys=sort, indent=1, allow_nan=False, ensure_ascii=False)
    with atomic_path(path, sync) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file; DistilleryError if it is missing or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError; brackets that never close
        raise damaged(path, error, "JSON file") from error


# safetensors' names of the types, by the name that torch and numpy share.
_DTYPES = {
    **{"bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "uint16": "U16", "int32": "I32", "int64": "I64"},
    **{"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"},
}


def save_tensors(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write torch tensors or numpy arrays as a safetensors file, atomically. The same content gives the same bytes.

    The library's own writer orders the metadata at random, makes files that only their owner may read, and leaves a
    temporary file behind when it is killed.
    """
    arrays = {name: _raw(tensor) for name, tensor in tensors.items()}
    names = sorted(arrays, key=lambda n: (-tensors[n].dtype.itemsize, n))  # the widest first: every tensor is aligned
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in names:
        start, end = end, end + arrays[name].nbytes
        dtype = _DTYPES[str(tensors[name].dtype).removeprefix("torch.")]
        header[name] = {"dtype": dtype, "shape": list(tensors[name].shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(arrays[name])


def _raw(tensor: Any) -> memoryview:
    """Return the bytes of a tensor or array in C order, without a copy where its memory already is in that order."""
    if hasattr(tensor, "detach"):
        import torch

        tensor = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()  # numpy has no bfloat16
    if tensor.size == 0:  # which memoryview cannot cast
        return memoryview(b"")
    return memoryview(tensor if tensor.flags.c_contiguous else tensor.copy(order="C")).cast("B")


def below(named: Mapping[str, T], prefix: str) -> dict[str, T]:
    """The entries whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a safetensors file into one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        raise unreadable(path, error) from error
    except SafetensorError as error:
        raise damaged(path, error, "safetensors file") from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file into CPU tensors; DistilleryError if it is missing or damaged."""
    from safetensors.torch import load_file

    with _reading(path):
        return load_file(path)


def load_arrays(path: Path) -> dict[str, Any]:
    """Read a safetensors file into numpy arrays, without torch; DistilleryError if it is missing or damaged."""
    from safetensors.numpy import load_file

    with _reading(path):
        return load_file(path)


def read_metadata(path: Path) -> dict[str, str]:
    """Read only the metadata of a safetensors file; DistilleryError if it is missing or damaged."""
    from safetensors import safe_open

    with _reading(path), safe_open(path, framework="numpy") as file:
        return file.metadata() or {}


def sha256_array(array: Any) -> str:
    """Hash the bytes of a torch tensor or numpy array in C order."""
    return hashlib.sha256(_raw(array)).hexdigest()


def sha256_file(path: Path) -> str:
    """Hash a file's content."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error


def md5_file(path: Path) -> str:
    """Hash a file's content as DVC does."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def sha256_json(obj: Any) -> str:
    """Hash an object by its canonical JSON text (sorted keys, no spaces)."""
    return hashlib.sha256(json.dumps(obj, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


SOURCE_SUFFIXES = (".py", ".yaml", ".json", ".html")


def sha256_tree(paths: Iterable[Path]) -> str:
    """Hash source code: name and content of every source file in the given files and folders, in any order."""
    entries = set()
    for root in map(Path, paths):
        if not root.exists():
            raise DistilleryError(f"{root} is missing: the source tree is not complete, check it out again")
        for file in [root] if root.is_file() else root.rglob("*"):
            if file.suffix in SOURCE_SUFFIXES and file.is_file() and not file.name.startswith("."):
                entries.add((file.relative_to(root.parent).as_posix(), sha256_file(file)))
    return sha256_json(sorted(entries))
