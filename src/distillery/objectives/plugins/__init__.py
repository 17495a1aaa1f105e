"""Changes to logits, and data selections, that combine with any logit objective. `PLUGINS` names them."""

from __future__ import annotations

from distillery.registry import Registry

_HERE = "distillery.objectives.plugins"

PLUGINS = Registry(
    "plug-in",
    "distillery.objectives.base:Plugin",
    {
        "revise": f"{_HERE}.revise:Revise",
        "select": f"{_HERE}.select:Select",
        "standardise": f"{_HERE}.standardise:Standardise",
        "swap": f"{_HERE}.swap:Swap",
    },
)
