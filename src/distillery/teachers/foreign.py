"""Reading checkpoints that others wrote: their formats, and where in them the weights lie. Nothing in them is run."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from distillery.records.io import below
from distillery.teachers.download import Unusable

# Under these names training scripts keep the weights. Averaged ones are taken only where there are no others.
PLAIN = (
    *("model", "state_dict", "net", "model_state_dict", "model_state"),
    *("network", "student", "weights", "params", "module"),
)
AVERAGED = ("state_dict_ema", "model_ema", "ema", "ema_state_dict", "ema_model", "model_ema_state_dict", "params_ema")
DEEPEST = 3  # wrappers within wrappers
OURS = re.compile(r"(\d+)\.student\.")  # in the students.safetensors of a run


class Damaged(Unusable):
    """What a mirror offers is not what was asked for, and not worth keeping."""


class _Ignored:
    """Stands for what lies beside the weights and is not looked at: options, scores, paths, dates."""

    def __new__(cls, *_: Any, **__: Any) -> _Ignored:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...

    def __setitem__(self, *_: Any) -> None: ...


# These names in a pickle build an `_Ignored`, never what they say: no code but torch's and ours runs.
BESIDE = (
    *("argparse.Namespace", "types.SimpleNamespace", "yacs.config.CfgNode", "easydict.EasyDict"),
    *("numpy.dtype", "numpy.ndarray", "numpy.bool_", "numpy.float64", "numpy.float32", "numpy.int64"),
    *("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
    *("pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath", "pathlib._local.PosixPath"),
    *("datetime.datetime", "datetime.date", "datetime.timedelta"),
)


def read_weights(content: bytes, member: str | None = None) -> tuple[Mapping[str, Tensor], str | None]:
    """Find the weights in a checkpoint: safetensors, or torch's own formats, old and new.

    Args:
        content: the file.
        member: of a file with the students of several seeds the seed to take, as "1" or "1.student".

    Returns:
        The weights, and the name under which they lie; None if they are all there is.

    Raises:
        Damaged, Unusable: one sentence that says what it is instead.
    """
    weights, part = _search(_load(content))
    if weights is None:
        raise Damaged(
            "not a checkpoint, since it holds no state dict, neither alone nor under a usual name "
            f"({', '.join(PLAIN + AVERAGED)})"
        )
    return _of_seed(weights, member, part)


def _load(content: bytes) -> Any:
    if _is_script(content):
        raise Damaged(
            "a TorchScript archive, which is a program and not only weights; convert it by `torch.save(torch.jit.load("
            "'in.pt', map_location='cpu').state_dict(), 'out.pth')`"
        )
    try:
        if content[8:9] == b"{":  # safetensors: eight bytes of length, then JSON; no torch file looks so
            return safetensors.torch.load(content)
        allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [(_Ignored, name) for name in BESIDE]
        with torch.serialization.safe_globals(allowed):
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # anything may be wrong with a file from elsewhere, and torch has no error of its own
        raise Damaged(_what_it_is(content, error)) from None


def _what_it_is(content: bytes, error: Exception) -> str:
    """What a file is that cannot be read. Not in torch's own words: they advise to load it without weights_only."""
    asked = re.search(r"unsupported global:?\s+(?:GLOBAL\s+)?([\w.]+)", str(error), re.IGNORECASE)
    if asked and b"ctorch.nn.modules." in content:
        return (
            f"a whole pickled module and not only weights (it asks for {asked[1]}), which was refused; if you trust "
            "it, convert it where its code lies by `torch.save(torch.load('in.pth', map_location='cpu', "
            "weights_only=False).state_dict(), 'out.pth')`"
        )
    if asked:
        return f"not a plain checkpoint: its pickle asks for {asked[1]}, which was refused"
    return f"not a checkpoint, or a damaged one ({type(error).__name__})"


def _is_script(content: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except Exception:  # no archive, or a damaged one: zipfile has many words for that
        return False


def _search(loaded: Any, path: tuple[str, ...] = ()) -> tuple[Mapping[str, Tensor] | None, str | None]:
    """The first mapping of names to tensors alone, and where it lies."""
    if not isinstance(loaded, Mapping) or len(path) > DEEPEST:
        return None, None
    if loaded and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()):
        return loaded, ".".join(path) or None
    for name in PLAIN + AVERAGED:
        found, part = _search(loaded.get(name), (*path, name))
        if found is not None:
            return found, part
    return None, None


def _of_seed(
    weights: Mapping[str, Tensor], member: str | None, part: str | None
) -> tuple[Mapping[str, Tensor], str | None]:
    """One student of a run's students.safetensors; any other weights as they are."""
    seeds = sorted({match[1] for key in weights if (match := OURS.match(key))}, key=int)
    if not seeds:
        return weights, part
    asked = re.fullmatch(r"(\d+)(?:\.student)?", member or "")
    seed = asked[1] if asked else seeds[0] if len(seeds) == 1 else None
    if seed not in seeds:
        names = ", ".join(f"{s}.student" for s in seeds)
        raise Unusable(f'holds {names}: choose one of them as `member`, for example `member: "{seeds[0]}.student"`')
    prefix = f"{seed}.student."
    return below(weights, prefix), prefix.rstrip(".")
