"""A GPU that is not there: tensors that compute on the CPU, say they are on cuda:0, and refuse what a GPU refuses.

Inside `there_is_a_gpu()` the code under test finds one CUDA device. A tensor made for it or sent to it is a `There`:
an ordinary tensor, marked. An operation on one of these and on one that was left on the CPU fails, as on a GPU; so
does NumPy. Only what is called from Python is seen, not what an operation does inside, and nothing is captured or
compiled here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

DEVICE = torch.device("cuda:0")
NAME = "a GPU that is not there"
SHOWN = {Tensor.type, Tensor.__repr__, Tensor.__format__, Tensor.tolist, Tensor.item}
# What moves a module's parameters and buffers, or only holds tensors.
HOLDERS = {torch._has_compatible_shallow_copy_type, Tensor.grad.__set__, Tensor.__deepcopy__, Tensor.__reduce_ex__}
BY_INDEX = {Tensor.__getitem__, Tensor.__setitem__}


class There(Tensor):
    """A tensor on the GPU that is not there."""

    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def get_device(self) -> int:
        return 0

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy


class Seeing(TorchFunctionMode):
    """Sees every function of torch that Python calls."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return called(func, args, dict(kwargs or {}))


def there(tensor: Any) -> Any:
    """The same memory, marked."""
    if not isinstance(tensor, Tensor) or isinstance(tensor, There):
        return tensor
    return _parameter(tensor) if isinstance(tensor, torch.nn.Parameter) else tensor.as_subclass(There)


def _parameter(tensor: Tensor) -> Tensor:
    """Mark a parameter, which stays the one it was: what makes it a parameter is an attribute."""
    tensor.__class__ = There
    tensor._is_param = True  # type: ignore[attr-defined]
    return tensor


backward = 0  # in a backward pass, whose gradients come from C++ unmarked


def _tensors(given: Any) -> Iterator[Tensor]:
    """The tensors in lists, tuples and dicts."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, list | tuple):
        for each in given:
            yield from _tensors(each)
    elif isinstance(given, dict):
        for each in given.values():
            yield from _tensors(each)


def _mapped(function: Callable[[Any], Any], given: Any) -> Any:
    """What a function makes of the tensors in lists, tuples and dicts."""
    if isinstance(given, Tensor):
        return function(given)
    return tree_map(function, given) if isinstance(given, list | tuple | dict) else given


def called(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function of torch as on the CPU; refuse mixed tensors, mark what a GPU would give."""
    global backward
    tensors = [*_tensors(args), *_tensors(kwargs)]
    marked = [x for x in tensors if isinstance(x, There)]
    left = [x for x in tensors if not isinstance(x, There)]
    with torch._C.DisableTorchFunction():
        if func in (Tensor.cpu, Tensor.to, Tensor.cuda):
            return _sent(func, args, kwargs)
        if func is Tensor.__deepcopy__ and isinstance(args[0], There):
            tensor, known = args
            copied = tensor.as_subclass(Tensor).detach().clone().requires_grad_(tensor.requires_grad)
            known[id(tensor)] = _parameter(copied) if isinstance(tensor, torch.nn.Parameter) else there(copied)
            return known[id(tensor)]
        if func is Tensor.copy_:  # from one device to the other
            return func(*args, **kwargs)
        if func is Tensor.pin_memory:
            return args[0]
        if func == Tensor.data.__set__:  # type: ignore[attr-defined]
            return _put(*args)
        if func in (Tensor.backward, torch.autograd.grad, torch.autograd.backward):
            backward += 1
            try:
                return _mapped(there, func(*args, **kwargs)) if marked else func(*args, **kwargs)
            finally:
                backward -= 1
        if marked and not backward:
            _check(func, args, marked, left)
        to = kwargs.get("device")
        if to is not None and torch.device(to).type == "cuda":
            given = kwargs.get("generator")
            assert given is None, f"{_name(func)}: a CPU generator for a tensor on {DEVICE}"
            kwargs["device"] = torch.device("cpu")
            kwargs.pop("pin_memory", None)
            return _mapped(there, func(*args, **kwargs))
        if to is not None and marked:  # zeros_like(marked, device="cpu")
            return func(*args, **kwargs)
        if kwargs.pop("pin_memory", None):
            return func(*args, **kwargs)
        if func is torch.nn.functional.interpolate:  # it asks where its input is, and takes another way on a GPU
            args = _mapped(lambda x: x.as_subclass(Tensor) if isinstance(x, There) else x, args)
        found = func(*args, **kwargs)
        return _mapped(there, found) if marked and func not in HOLDERS else found


def _put(tensor: Tensor, data: Tensor) -> None:
    """`tensor.data = data`, which moves a module's parameters; the tensor itself stays the one that it was."""
    parameter = isinstance(tensor, torch.nn.Parameter)
    tensor.data = data.as_subclass(Tensor)
    if isinstance(data, There) != isinstance(tensor, There):
        tensor.__class__ = There if isinstance(data, There) else torch.nn.Parameter if parameter else Tensor
        tensor._is_param = parameter  # type: ignore[attr-defined]


def _sent(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Tensor.to, .cpu and .cuda."""
    tensor, *rest = args
    was = isinstance(tensor, There)
    plain = tensor.as_subclass(Tensor) if was else tensor
    values = [*rest, *kwargs.values()]
    devices = [torch.device(x) for x in values if isinstance(x, str | torch.device)]
    others = [x for x in values if isinstance(x, Tensor)]
    types = [x for x in values if isinstance(x, torch.dtype)] + [x.dtype for x in others]
    if func in (Tensor.cpu, Tensor.cuda):
        devices = [torch.device("cpu") if func is Tensor.cpu else DEVICE]
    goes = devices[0] if devices else others[0].device if others else tensor.device
    given = {k: v for k, v in kwargs.items() if k in ("memory_format", "copy")}
    found = Tensor.to(plain, types[0] if types else plain.dtype, **given)
    arrives = goes.type == "cuda"
    if arrives == was:
        return tensor if found is plain else there(found) if was else found
    if found is plain:
        found = plain.clone(memory_format=torch.preserve_format)
    return found.as_subclass(There) if arrives else found


def _check(func: Callable[..., Any], args: tuple[Any, ...], marked: Sequence[Tensor], left: Sequence[Tensor]) -> None:
    """Refuse what a GPU refuses."""
    if func in SHOWN or func in HOLDERS or _name(func) in ("__get__", "__set__", "set_", "is_set_to"):
        return
    mixed = [x for x in left if x.dim() > 0]
    if func in BY_INDEX and isinstance(args[0], There):
        # A GPU takes an index from the CPU; a value only by plain slices.
        index = [*_tensors(args[1])]
        if func is Tensor.__getitem__ or not index:
            return
        mixed = [x for x in args[2:] if isinstance(x, Tensor) and not isinstance(x, There) and x.dim() > 0]
    if mixed:
        shapes = ", ".join(str(tuple(x.shape)) for x in mixed)
        raise RuntimeError(
            f"{_name(func)}: all tensors are to be on one device, but these were left on the CPU: {shapes}"
        )


def _name(func: Any) -> str:
    return str(getattr(func, "__name__", func))


@contextmanager
def there_is_a_gpu() -> Iterator[None]:
    """Let the code find a GPU."""
    with pytest.MonkeyPatch.context() as patch, Seeing():
        nothing: dict[str, Any] = {
            **{"is_available": lambda: True, "device_count": lambda: 1, "current_device": lambda: 0},
            **{"get_device_name": lambda device=None: NAME, "set_device": lambda device: None},
            **{"synchronize": lambda device=None: None, "empty_cache": lambda: None},
            **{"mem_get_info": lambda device=None: (2**36, 2**36), "is_bf16_supported": lambda **_: True},
            **{"manual_seed_all": lambda seed: None, "manual_seed": lambda seed: None},
            **{"is_current_stream_capturing": lambda: False},
        }
        for name, function in nothing.items():
            patch.setattr(torch.cuda, name, function)
        patch.setattr(torch.optim.Optimizer, "_accelerator_graph_capture_health_check", lambda self: None)
        patch.setattr("distillery.training.device.chosen_device", lambda: DEVICE)
        yield
