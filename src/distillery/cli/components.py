"""Commands that list what there is: methods, parts of a recipe, networks; each with the meaning of its keys."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

from distillery.cli.base import KNOW, app
from distillery.errors import DistilleryError
from distillery.errors.words import nearest
from distillery.registry import Component, Registry

if TYPE_CHECKING:
    from rich.console import Console

    from distillery.config import Config

_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_WORDS: dict[type, str] = {float: "number", int: "whole number", str: "text", bool: "true | false", type(None): "null"}
# What keys mean that many components share and none of them explains.
_COMMON = {
    "adain_weight": "Of the term on the features whose statistics are the student's.",
    "angle_weight": "Of the term on angles between triples of images.",
    "batch_weight": "Of the term on correlations between the images of a batch.",
    "beta": "Weight of the distillation term.",
    "brightness": "v: the factor is drawn from [max(0, 1 - v), 1 + v); 0 switches it off.",
    "ce_weight": "Weight of the cross-entropy with the labels.",
    "class_weight": "Of the term on correlations between classes.",
    "contrast": "v: the factor is drawn from [max(0, 1 - v), 1 + v); 0 switches it off.",
    "correlation_weight": "Of the term on correlations.",
    "decay_epochs": "Epochs until the gradient of the temperature is reversed in full.",
    "distance_weight": "Of the term on distances between pairs of images.",
    "eta": "How far a wrong teacher is trusted; below 1 the label becomes the likeliest class of the target.",
    "feat_weight": "Weight of the term on features.",
    "instance_weight": "Of the term on single images.",
    "kd_weight": "Weight of the distillation term.",
    "keep": "Which images are distilled: those that score highest, or lowest.",
    "lambda_corr": "Of the correlation loss.",
    "lambda_mutual": "Of the mutual-information loss.",
    "masks": "released: one factor for the whole batch, as the code has it; rows: for each image, as the paper says.",
    "rc_weight": "Of the term on relations between classes.",
    "saturation": "v: the factor is drawn from [max(0, 1 - v), 1 + v); 0 switches it off.",
    "score": "What images are ranked by; computed of the teacher.",
    "std": "Divisor of the standard deviation: C - 1 (unbiased, as released) or C (biased, as the paper prints it).",
    "temperature": "Divides the logits (or similarities) before the softmax.",
}


def _parts() -> dict[str, Registry]:
    from distillery.objectives import OBJECTIVES
    from distillery.objectives.plugins import PLUGINS
    from distillery.recipe import AUGMENTATIONS, OPTIMIZERS, SCHEDULES

    parts = {"Objectives": OBJECTIVES, "Plug-ins": PLUGINS, "Optimizers": OPTIMIZERS, "Schedules": SCHEDULES}
    return parts | {"Augmentations": AUGMENTATIONS}


def _component_names(incomplete: str) -> list[str]:
    return [name for part in _parts().values() for name in part.names if name.startswith(incomplete)]


def _network_names(incomplete: str) -> list[str]:
    from distillery.models import NETWORKS

    return [name for name in NETWORKS.names if name.startswith(incomplete)]


@app.command(rich_help_panel=KNOW)
def methods(
    name: Annotated[
        str | None,
        typer.Argument(help="One of them, or path/to/file.py:Class: all about it.", autocompletion=_component_names),
    ] = None,
) -> None:
    """List every method, plug-in and part of a recipe; with a name: what it is, and each key's meaning and range."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, parts = Console(), _parts()
    if name is not None:
        found = [(title, registry[name]) for title, registry in parts.items() if name in registry]
        if not found and ":" in name:  # named by its place
            placed = [(title, registry[name]) for title, registry in parts.items()]
            placed[0][1].get()  # there is no such file, or it has a mistake: said here
            found = [(title, component) for title, component in placed if _fits(component)] or placed[:1]
        if not found:
            known = [n for registry in parts.values() for n in registry.names]
            raise DistilleryError(f"no method, plug-in or part of a recipe {name!r}: {nearest(name, known)}")
        for title, component in found:
            _explain(console, title, component)
        return
    for title, registry in parts.items():
        table = Table("name", "what and where from", "needs", "parameters and defaults", title=title, show_lines=True)
        for known_as in registry.names:
            kind = registry[known_as].load()
            keys = "\n".join(f"{key} = {field.default!r}" for key, field in kind.Config.model_fields.items())
            table.add_row(*map(Text, (known_as, _source(kind), ", ".join(sorted(getattr(kind, "needs", ()))), keys)))
        console.print(table)
    console.print("`distillery methods NAME` says what each key means, and its range.", style="dim", highlight=False)


def _fits(component: Component) -> bool:
    try:
        component.load()
    except DistilleryError:
        return False
    return True


def _source(kind: type) -> str:
    return (sys.modules[kind.__module__].__doc__ or "").partition("\n\n")[0]


def _explain(console: Console, title: str, component: Component) -> None:
    from rich.table import Table
    from rich.text import Text

    kind = component.load()

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False, highlight=False, emoji=False)

    say(f"{component.name} ({title.lower().removesuffix('s')})", "bold")
    for text in dict.fromkeys(filter(None, (_source(kind), inspect.cleandoc(kind.__doc__ or "")))):
        say(text)
    if needs := sorted(getattr(kind, "needs", ())):
        say(f"Needs: {', '.join(needs)}.")
    rows = list(keys(kind.Config))
    if not rows:
        say("It has no keys.")
        return
    table = Table("key", "default", "values", "meaning", show_lines=True)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def keys(config: type[Config]) -> Iterator[tuple[str, str, str, str]]:
    """Name, default, accepted values and meaning of every key."""
    for name, field in config.model_fields.items():
        default = "required" if field.is_required() else repr(field.get_default(call_default_factory=True))
        yield name, default, _values(field), " ".join((field.description or _COMMON.get(name, "")).split())


def _values(field: Any) -> str:
    """What a key accepts: "number, >= 0, < 1"."""
    return _spoken(field.annotation, field.metadata)


def _spoken(kind: Any, limits: Sequence[Any] = ()) -> str:
    if get_origin(kind) is Annotated:
        kind, *more = get_args(kind)
        limits = [*limits, *(limit for part in more for limit in getattr(part, "metadata", [part]))]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        said = " | ".join(map(str, arguments))
    elif origin in (Union, UnionType):
        said = " or ".join(_spoken(part) for part in arguments)
    elif origin in (tuple, list):
        inner = dict.fromkeys(_spoken(part) for part in arguments if part is not Ellipsis)
        said = f"list of {', '.join(inner)}" if len(inner) == 1 else f"list: {'; '.join(inner)}"
    elif isinstance(kind, type):
        said = _WORDS.get(kind, kind.__name__)
    else:
        said = str(origin or kind)
    bounds = [sign + f" {getattr(limit, name):g}" for limit in limits for name, sign in _BOUNDS.items()
              if getattr(limit, name, None) is not None]  # fmt: skip
    return ", ".join([said, *bounds])


@app.command(rich_help_panel=KNOW)
def models(
    name: Annotated[
        str | None,
        typer.Argument(help="One network: its size for 100 classes of 32 x 32.", autocompletion=_network_names),
    ] = None,
    classes: Annotated[int, typer.Option(min=2, help="Classes that the size is counted for.")] = 100,
    size: Annotated[int, typer.Option(min=1, help="Height and width of the images, in pixels.")] = 32,
    channels: Annotated[int, typer.Option(min=1, help="Channels of the images.")] = 3,
) -> None:
    """List every network by family; with a name: its source, parameters and multiply-accumulates."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from distillery.models import NETWORKS

    if name is not None:
        _measure(name, classes, size, channels)
        return
    families: dict[str, list[str]] = {}
    for known_as in NETWORKS.names:
        families.setdefault(NETWORKS[known_as].module, []).append(known_as)
    table = Table("what and where from", "names", show_lines=True)
    for module, names in families.items():
        __import__(module)
        table.add_row(Text((sys.modules[module].__doc__ or "").partition("\n\n")[0]), Text(", ".join(names)))
    console = Console()
    console.print(table)
    others = ", ".join(f"{family}/NAME" for family in NETWORKS.families)
    console.print(f"Also {others}, and path/to/file.py:Class for one of your own.", style="dim", highlight=False)


def _measure(name: str, classes: int, size: int, channels: int) -> None:
    import torch

    from distillery.evaluation.macs import multiply_accumulates
    from distillery.models import NETWORKS, build

    component = NETWORKS[name]
    if component.task:
        print(f"{name}: {_source(component.load())}")
        print(f"a network of `task: {component.task}`: its size is in the tables of a study")
        return
    with torch.random.fork_rng(devices=[]):
        try:
            network = build(name, classes, channels)
            macs = multiply_accumulates(network, torch.zeros(1, channels, size, size))
        except DistilleryError:
            raise
        except Exception as error:  # of whatever the network is made of, about a size that it cannot take
            raise component.fault(f"taking {channels} x {size} x {size} images", error) from None
    parameters = sum(p.numel() for p in network.parameters())
    print(f"{name}: {_source(type(network))}" if _source(type(network)) else name)
    print(f"for {classes} classes of {channels} x {size} x {size} images: {parameters:,} parameters, "
          f"{macs / 1e6:,.2f} M multiply-accumulates")  # fmt: skip
    if component.options:
        print("options: " + ", ".join(f"{key} = {value!r}" for key, value in component.options.items()))
