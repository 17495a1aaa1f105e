"""Commands that list what there is: methods, parts of a recipe, networks."""

from __future__ import annotations

import sys

from distillery.cli.base import KNOW, app


@app.command(rich_help_panel=KNOW)
def methods() -> None:
    """List every method, plug-in and part of a recipe: its source, what it needs, its parameters and defaults."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from distillery.objectives import OBJECTIVES
    from distillery.objectives.plugins import PLUGINS
    from distillery.recipe import AUGMENTATIONS, OPTIMIZERS, SCHEDULES

    parts = {"Objectives": OBJECTIVES, "Plug-ins": PLUGINS, "Optimizers": OPTIMIZERS, "Schedules": SCHEDULES}
    parts["Augmentations"] = AUGMENTATIONS
    for title, registry in parts.items():
        table = Table("name", "what and where from", "needs", "parameters and defaults", title=title, show_lines=True)
        for name, component in registry.items():
            kind = component.load()
            doc = (sys.modules[kind.__module__].__doc__ or "").partition("\n\n")[0]
            keys = "\n".join(f"{key} = {field.default!r}" for key, field in kind.Config.model_fields.items())
            table.add_row(*map(Text, (name, doc, ", ".join(sorted(getattr(kind, "needs", ()))), keys)))
        Console().print(table)
