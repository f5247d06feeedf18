"""Libraries of the extra `stackfit[fleet]`, imported when they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from stackfit.image.model import InputError

__all__ = ["EXTRA", "need"]

EXTRA = "pip install 'stackfit[fleet]'"


def need(module: str, otherwise: str = "") -> ModuleType:
    """The module. InputError: it is not installed; `otherwise` says what goes without it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or module).split(".")[0]
        raise InputError(missing, f"not installed: {EXTRA}{otherwise}") from None
