"""Which stacks a system has, how big they are and what runs on them."""

from stackfit.layouts.loader import default_layout, load_layout, preset_names
from stackfit.layouts.model import (
    ALLOCATIONS,
    CONTEXT_KINDS,
    INTERRUPT_CONTEXTS,
    INTERRUPTED,
    PAGE,
    SCOPES,
    Interrupt,
    Layout,
    Stack,
)

__all__ = [
    "ALLOCATIONS",
    "CONTEXT_KINDS",
    "INTERRUPTED",
    "INTERRUPT_CONTEXTS",
    "PAGE",
    "SCOPES",
    "Interrupt",
    "Layout",
    "Stack",
    "default_layout",
    "load_layout",
    "preset_names",
]
