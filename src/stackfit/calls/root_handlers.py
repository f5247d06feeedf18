"""What arm64 and Arm call for an interrupt, on the stack for interrupts or where it already is on it.

`do_interrupt_handler` and `call_on_irq_stack` (arch/arm64/kernel/entry-common.c, entry.S), `call_with_stack`
(arch/arm/lib) call the function that is handed to them: a constant, or what stands in `handle_arch_irq` and
`handle_arch_fiq`, which `set_handle_irq` and `set_handle_fiq` are given once, at boot. Where the entry is
generic, `generic_handle_arch_irq` (kernel/irq/handle.c) calls what stands there.
"""

from __future__ import annotations

import numpy as np

from stackfit.calls.constants import ARGUMENT_REGISTERS, branch_targets, constant_before
from stackfit.image.functions import Functions
from stackfit.image.model import Machine
from stackfit.isa.code import Code
from stackfit.isa.effects import Operation

__all__ = ["root_handlers"]

# Machine → what changes the stack, and which of its arguments the function is.
_SWITCHES = {Machine.AARCH64: ("call_on_irq_stack", 1), Machine.ARM: ("call_with_stack", 0)}
_CALLERS = {
    Machine.AARCH64: ("do_interrupt_handler", "el1_interrupt", "el0_interrupt"),
    Machine.ARM: ("generic_handle_arch_irq",),
}
_REGISTRATIONS = ("set_handle_irq", "set_handle_fiq")


def root_handlers(code: Code, rows: list[int]) -> dict[int, tuple[int, ...]]:
    """Which functions the indirect calls at these rows can reach, where they are such calls.

    Nothing where one of the registrations is not given a constant, or a caller hands over something else.
    """
    functions = code.functions
    if code.machine not in _SWITCHES:
        return {}
    name, argument = _SWITCHES[code.machine]
    switch = functions.named(name)
    if len(switch) != 1:
        return {}
    joins = branch_targets(code)
    registers = ARGUMENT_REGISTERS[code.machine]
    registrations = [one for known in _REGISTRATIONS for one in functions.named(known)]
    roots = {constant_before(code, row, registers[0], joins) for row in _calls_of(code, registrations)}
    if not roots or -1 in roots:
        return {}
    handed: set[int] = set()
    passing = False  # whether a caller hands on what stands in handle_arch_irq
    callers = {one for known in _CALLERS[code.machine] for one in _with_splits(functions, known)}
    for row in _calls_of(code, switch):
        value = constant_before(code, row, registers[argument], joins)
        if value >= 0:
            handed.add(value)
        elif int(code.function[row]) in callers:
            passing = True
        else:
            return {}
    found = {}
    for row in rows:
        owner = int(code.function[row])
        if owner == switch[0]:
            found[row] = tuple(sorted(handed | (roots if passing else set())))
        elif owner in callers:
            found[row] = tuple(sorted(roots))
    return found


def _with_splits(functions: Functions, name: str) -> list[int]:
    """The function and those that the compiler made of it."""
    return [at for at, known in enumerate(functions.names) if known == name or known.startswith(f"{name}.")]


def _calls_of(code: Code, callees: list[int]) -> list[int]:
    table = code.instructions
    direct = (table.operation == Operation.CALL) | (table.operation == Operation.JUMP)
    rows = np.flatnonzero(direct & (code.target >= 0))
    target = code.target[rows]
    entered = code.first[code.function[target]] == target
    return rows[entered & np.isin(code.function[target], callees)].tolist()  # type: ignore[no-any-return]
