"""Calls on another stack of a function that the caller hands over.

Linux 5.8 to 5.11 on x86-64 switch to the irq stack in assembly, `asm_call_on_stack(stack, function,
argument)` (arch/x86/entry/entry_64.S): what runs there is known where it is called, not where it switches.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stackfit.calls.constants import branch_targets, constant_before
from stackfit.calls.model import CallKind, Evidence, Reason, Rung
from stackfit.isa.code import Code
from stackfit.isa.effects import FLAG_MEMORY, Operation

__all__ = ["handed_switches"]

_LEAVES = (
    Operation.CALL, Operation.CALL_INDIRECT, Operation.JUMP, Operation.JUMP_INDIRECT,
    Operation.JUMP_CONDITIONAL, Operation.RETURN,
)  # fmt: skip


def handed_switches(
    code: Code,
    sites: NDArray[np.void],
    sets: list[tuple[int, ...]],
    add: Callable[[tuple[int, ...]], int],
    thunks: NDArray[np.uint8],
) -> NDArray[np.void]:
    """Stack switches of the callers, at their call of the switching function; that one's own site gets all
    that they hand over, in place.

    `sites` has the fields of Calls; `sets` its candidate sets, which `add` extends. `depth` of a site found
    is the one at the switch, `under` what the caller and the switching function have on their own stack. A
    caller that hands over no constant is open, and leaves the switching function's site open.
    """
    joins = branch_targets(code)
    found = [sites[:0]]
    waiting = np.flatnonzero((sites["kind"] == CallKind.STACK_SWITCH) & (sites["candidates"] < 0))
    for site in waiting.tolist():
        function = int(sites["function"][site])
        register = _handed(code, function, int(sites["address"][site]), thunks)
        if register < 0:
            continue
        named = [index for index, members in enumerate(sets) if members == (function,)]
        direct = np.isin(sites["kind"], (CallKind.DIRECT, CallKind.TAIL))
        callers = np.flatnonzero(direct & np.isin(sites["candidates"], named))
        handed = sites[callers].copy()
        below = np.where(handed["tail"], code.machine.return_bytes, 0)
        handed["under"] = handed["depth"] - below + sites["under"][site]
        handed["depth"] = sites["depth"][site]
        handed["kind"], handed["rung"] = CallKind.STACK_SWITCH, Rung.NONE
        handed["evidence"], handed["reason"] = Evidence.OPEN, Reason.INDIRECT
        handed["candidates"], handed["tail"], handed["return_address"] = -1, False, 0
        members = set[int]()
        for one in handed:
            target = constant_before(code, code.row_at(int(one["address"])), register, joins)
            if target >= 0:
                members.add(target)
                one["candidates"] = add((target,))
                one["rung"], one["evidence"], one["reason"] = Rung.CONSTANT, Evidence.PROVED, Reason.NONE
        if members:
            sites["candidates"][site] = add(tuple(sorted(members)))
            sites["rung"][site] = Rung.PARAMETER
            if not np.any(handed["reason"]):
                sites["evidence"][site], sites["reason"][site] = Evidence.ASSUMED, Reason.NONE
            found.append(handed)
    return np.concatenate(found)


def _handed(code: Code, function: int, address: int, thunks: NDArray[np.uint8]) -> int:
    """The register that the call at `address` goes through if it still holds what the function was entered
    with; else -1."""
    table, row = code.instructions, code.row_at(address)
    first = int(code.first[function])
    if row < 0 or int(code.function[row]) != function:
        return -1
    if int(table.operation[row]) == Operation.CALL_INDIRECT:
        register = -1 if int(table.flags[row]) & FLAG_MEMORY else int(table.base[row])
    else:
        to = int(code.target[row])
        register = int(thunks[code.function[to]]) if to >= 0 else -1
    if not 0 <= register < 16:
        return -1
    before = np.arange(first, row)
    if np.isin(table.operation[before], _LEAVES).any() or (table.clobbers[before] >> register & 1).any():
        return -1
    return register
