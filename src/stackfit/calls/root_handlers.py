"""What arm64 calls for an interrupt, on the stack for interrupts or where it already is on it.

`do_interrupt_handler` and `call_on_irq_stack` (arch/arm64/kernel/entry-common.c, entry.S) call the function that
is handed to them: a constant, or what stands in `handle_arch_irq` and `handle_arch_fiq`, which
`set_handle_irq` and `set_handle_fiq` are given once, at boot (arch/arm64/kernel/irq.c).
"""

from __future__ import annotations

import numpy as np

from stackfit.calls.constants import ARGUMENT_REGISTERS, branch_targets, constant_before
from stackfit.image.functions import Functions
from stackfit.image.model import Machine
from stackfit.isa.code import Code
from stackfit.isa.effects import Operation

__all__ = ["root_handlers"]

_SWITCH = "call_on_irq_stack"
_REGISTRATIONS = ("set_handle_irq", "set_handle_fiq")
_ARGUMENT = 1  # of call_on_irq_stack: the function


def root_handlers(code: Code, rows: list[int]) -> dict[int, tuple[int, ...]]:
    """Which functions the indirect calls at these rows can reach, where they are such calls.

    Nothing where one of the registrations is not given a constant, or a caller hands over something else.
    """
    functions = code.functions
    switch = functions.named(_SWITCH)
    if code.machine is not Machine.AARCH64 or len(switch) != 1:
        return {}
    joins = branch_targets(code)
    first = ARGUMENT_REGISTERS[code.machine][0]
    roots: set[int] = set()
    for row in _calls_of(code, [one for name in _REGISTRATIONS for one in functions.named(name)]):
        roots.add(constant_before(code, row, first, joins))
    handed: set[int] = set()
    passing: set[int] = set()  # functions that hand on what they were given
    for row in _calls_of(code, switch):
        known = constant_before(code, row, first + _ARGUMENT, joins)
        if known >= 0:
            handed.add(known)
        else:
            passing.add(int(code.function[row]))
    if not roots or -1 in roots or not _take_a_handler(functions, passing):
        return {}
    found = {}
    for row in rows:
        owner = int(code.function[row])
        if owner == switch[0]:
            found[row] = tuple(sorted(roots | handed))
        elif owner in passing:
            found[row] = tuple(sorted(roots))
    return found


def _calls_of(code: Code, callees: list[int]) -> list[int]:
    table = code.instructions
    direct = (table.operation == Operation.CALL) | (table.operation == Operation.JUMP)
    rows = np.flatnonzero(direct & (code.target >= 0))
    target = code.target[rows]
    entered = code.first[code.function[target]] == target
    return rows[entered & np.isin(code.function[target], callees)].tolist()  # type: ignore[no-any-return]


def _take_a_handler(functions: Functions, passing: set[int]) -> bool:
    """Only the functions that entry-common.c has between a vector and the switch hand on a root handler."""
    known = ("do_interrupt_handler", "el1_interrupt", "el0_interrupt")
    return all(functions.names[one].split(".")[0] in known for one in passing)
