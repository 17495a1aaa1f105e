"""Errors for the user. They import nothing, so that everything may raise them."""

from __future__ import annotations


class DistilleryError(Exception):
    """An error for the user: one sentence that says what, where and what to do. Shown without a traceback."""


class StaleInput(DistilleryError):
    """An input is not the one its record describes: it was changed, swapped or cut after it was made."""
