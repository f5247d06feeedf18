"""What a place of function pointers holds, asked for by the place's name: a field of a struct or a parameter.

The names are those that `stackfit calls` prints: `struct irqaction.handler`, `parameter 2 of call_rcu`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from stackfit.assumptions.places import FIELD_PLACE, PARAMETER_PLACE
from stackfit.calls import flow_constants as flow
from stackfit.calls.types import TypeLayout
from stackfit.image.btf import Kind
from stackfit.image.functions import Functions

__all__ = ["Held", "places_named", "tagged"]

_MOST_DEEP = 8  # unnamed structs within unnamed unions


@dataclass(frozen=True)
class Held:
    """Functions (indexes, ascending) of one place.

    `functions`: put there by code or data. `loose`: put where nothing is known of, and of its prototype as
    far as that is known: each may be there. `alike`: those of them whose prototype is certain. `unknown`:
    something that is not known is put there too. `namers`: of each function, those whose code holds its
    address.
    """

    functions: tuple[int, ...]
    loose: tuple[int, ...]
    alike: frozenset[int]
    unknown: bool
    namers: Mapping[int, tuple[int, ...]]


def places_named(
    types: TypeLayout, functions: Functions, texts: Iterable[str]
) -> dict[str, list[tuple[int, int, int]]]:
    """Places (kind of flow_constants and the two numbers) by their names; none where the program has no such
    struct, member or function.

    ValueError: a text that names neither a field nor a parameter.
    """
    found: dict[str, list[tuple[int, int, int]]] = {}
    fields: dict[str, tuple[str, str, str]] = {}
    for text in texts:
        field, parameter = FIELD_PLACE.fullmatch(text), PARAMETER_PLACE.fullmatch(text)
        if field:
            fields[text] = field["kind"], field["tag"], field["member"]
            found[text] = []
        elif parameter:
            number = int(parameter["number"]) - 1
            called = functions.named(parameter["function"])
            found[text] = [(flow.PARAMETER, one, number) for one in called]
        else:
            raise ValueError(f"{text!r} is neither 'struct TAG.MEMBER' nor 'parameter N of FUNCTION'")
    aggregates = tagged(types, {(kind, tag) for kind, tag, _ in fields.values()})
    for text, (kind, tag, member) in fields.items():
        for aggregate in aggregates.get((kind, tag), ()):
            offset = _offset(types, aggregate, member)
            if offset is not None:
                found[text].append((flow.FIELD, aggregate, offset))
    return found


def tagged(types: TypeLayout, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], list[int]]:
    """(struct or union, tag) → all that have that tag: modules have structs of their own."""
    found = defaultdict[tuple[str, str], list[int]](list)
    for kind in (Kind.STRUCT, Kind.UNION):
        for one in np.flatnonzero((types.kind == kind) & (types.named > 0)).tolist():
            key = (kind.name.lower(), types.types.name(one))
            if types.same[one] == one and key in wanted:
                found[key].append(one)
    return found


def _offset(types: TypeLayout, aggregate: int, member: str, depth: int = 0) -> int | None:
    """The byte at which a member stands, also one of a struct or union without a name within."""
    for part in types.types.parts(aggregate):
        inner, at, name = int(types.part_type[part]), int(types.part_at[part]), types.types.part_name(part)
        if name == member:
            return at if at >= 0 else None
        if not name and types.kind[inner] in (Kind.STRUCT, Kind.UNION) and depth < _MOST_DEEP:
            offset = _offset(types, inner, member, depth + 1)
            if offset is not None:
                return at + offset
    return None
