"""Names of places that hold function pointers, as `stackfit calls` prints them: `struct irqaction.handler`,
`parameter 2 of call_rcu`."""

from __future__ import annotations

import re

__all__ = ["FIELD_PLACE", "PARAMETER_PLACE", "is_place"]

FIELD_PLACE = re.compile(r"(?P<kind>struct|union) (?P<tag>\w+)\.(?P<member>\w+)", re.ASCII)
PARAMETER_PLACE = re.compile(r"parameter (?P<number>[1-6]) of (?P<function>\S+)", re.ASCII)


def is_place(text: str) -> bool:
    """Whether a text names a field of a struct or union, or a parameter."""
    return bool(FIELD_PLACE.fullmatch(text) or PARAMETER_PLACE.fullmatch(text))
