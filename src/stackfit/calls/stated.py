"""What compilers said of a program's frames and calls, held against what its code shows.

Where both speak they are compared, and a difference is reported, never settled. Where the code cannot tell
how large a frame gets (objects of variable size) and the compiler can (`dynamic,bounded`), its number is
taken: an assumption with the place that says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from stackfit.assumptions.model import AssumptionSet, DynamicBound
from stackfit.calls.model import CallKind, Calls, Reason
from stackfit.frames.model import OPEN_FRAME, Frames, Summary
from stackfit.frames.statements import INDIRECT, CallStatement, Statements
from stackfit.frames.usage import UsageWitness, named_places, usage_witness
from stackfit.image.linker_map import LinkerMap
from stackfit.image.model import Program
from stackfit.isa.code import Code

__all__ = ["MissingCall", "Stated", "compare_statements", "stated_bounds"]

_BOUNDED = "dynamic,bounded"


@dataclass(frozen=True)
class MissingCall:
    """A call that the compiler states and the code does not show: removed later, or not seen here."""

    function: int
    callee: str
    statement: CallStatement


@dataclass(frozen=True)
class Stated:
    """One kind of file held against the program. `calls`: stated by functions that the program has, of which
    `missing` are not among its own. `discarded`: rows of functions that the image does not have because the
    linker left them out, as its map says."""

    name: str
    usage: UsageWitness
    calls: int = 0
    missing: tuple[MissingCall, ...] = ()
    discarded: int = 0


def compare_statements(
    program: Program,
    code: Code,
    frames: Frames,
    calls: Calls,
    statements: Iterable[Statements],
    maps: Sequence[LinkerMap] = (),
) -> list[Stated]:
    """Every kind of file, in the order given."""
    gone = {(one.unit, one.function) for linked in maps for one in linked.discarded if one.function}
    return [
        Stated(
            one.name,
            usage_witness(program, code, frames, one.rows),
            *_calls(program, code, calls, one.calls),
            sum((row.unit, row.function) in gone for row in one.rows),
        )
        for one in statements
    ]


def _calls(
    program: Program, code: Code, calls: Calls, stated: Sequence[CallStatement]
) -> tuple[int, tuple[MissingCall, ...]]:
    if not stated:
        return 0, ()
    places = named_places(program, code)
    reached = _reached(code, calls)
    known = 0
    missing: list[MissingCall] = []
    for one in stated:
        callers = places.get(one.caller) or places.get(("", one.caller[1]), [])
        if len(callers) != 1:
            continue
        known += 1
        callees = places.get(one.callee) or places.get(("", one.callee[1]), [])
        seen = reached.get(callers[0], set())
        if one.callee[1] == INDIRECT:
            found = INDIRECT in seen
        else:
            found = one.callee[1] in seen or any(callee in seen for callee in callees)
        if not found:
            missing.append(MissingCall(callers[0], one.callee[1], one))
    missing.sort(key=lambda call: (call.function, call.callee, call.statement.source))
    return known, tuple(missing)


def _reached(code: Code, calls: Calls) -> dict[int, set[int | str]]:
    """What each function calls: functions, names of what is not given, INDIRECT; pieces count for it."""
    found: dict[int, set[int | str]] = {}
    for site in range(len(calls)):
        own = found.setdefault(int(calls.function[site]), set())
        number = int(calls.candidates[site])
        own.update(calls.candidate_sets[number] if number >= 0 else ())
        if int(calls.kind[site]) in (CallKind.INDIRECT, CallKind.INDIRECT_TAIL):
            own.add(INDIRECT)
        if int(calls.reason[site]) == Reason.UNDEFINED:
            own.add(calls.names[int(calls.name[site])])
    return found


def stated_bounds(code: Code, frames: Frames, stated: Iterable[Stated]) -> AssumptionSet:
    """Bounds of frames that only the compiler knows, for functions whose name is theirs alone."""
    names = code.functions.names
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    entries: dict[int, DynamicBound] = {}
    for one in stated:
        for function, row in one.usage.pairs:
            summary = int(frames.summary[function])
            if row.kind != _BOUNDED or summary & OPEN_FRAME != Summary.UNBOUNDED:
                continue
            # Argument registers that the compiler does not count are in the frame (frames/arguments.py).
            more = int(frames.frame[function]) - int(frames.compiler_frame[function])
            bound = DynamicBound(
                reason=f"{one.name} says so: {row.bytes} B, {row.kind}",
                source=row.source,
                function=names[function],
                bytes=row.bytes + more,
            )
            known = entries.get(function)
            if counts[names[function]] == 1 and (known is None or known.bytes < bound.bytes):
                entries[function] = bound
    order = np.array(sorted(entries), np.int64).tolist()
    return AssumptionSet("stated", dynamics=tuple(entries[function] for function in order))
