"""Distillery: the reproducibility pipeline for knowledge distillation."""

__version__: str  # of the installed package, which setup.py has from git's tags


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("distillery")
    except PackageNotFoundError:  # the source alone, on PYTHONPATH
        return "0+unknown"
