"""The contexts of RISC-V and AArch64 firmware: its entry, the trap handlers that it installs, tasks.

Sources: RISC-V Privileged Architecture 3.1.7 (mtvec); Arm ARM DDI 0487 D1.4 (exception entry, vectors).
Neither pushes anything itself: a handler saves what it needs by its own code, on the stack that it interrupts
unless it switches, and runs with interrupts off.
"""

from __future__ import annotations

import numpy as np

from stackfit.calls.constants import branch_targets, value_before
from stackfit.calls.model import CallKind, Calls, Edges
from stackfit.contexts.firmware import Firmware, own_stack, reset_starts, stack_below, switched_starts
from stackfit.contexts.masking import CAN_NEST, can_nest, encoding
from stackfit.contexts.model import Context, Start
from stackfit.contexts.tasks import Task, find_tasks, numbered, task_stack, unknown_task
from stackfit.frames.model import Frames, Summary
from stackfit.image.memory import Memory
from stackfit.image.model import Machine, Program
from stackfit.isa.code import Code
from stackfit.isa.effects import Operation
from stackfit.isa.machines import CONVENTIONS
from stackfit.layouts.model import Stack

__all__ = ["bare_metal_firmware"]

_MTVEC, _STVEC, _MSCRATCH, _SSCRATCH = 0x305, 0x105, 0x340, 0x140
_VBAR = {0x4600: "EL1", 0x6600: "EL2", 0x7600: "EL3"}  # msr vbar_el1 … as encoded (DDI 0487 D19.2)
_VECTORS = {  # from the current exception level, with the stack pointer in use (DDI 0487 table D1-5)
    0x000: "sync", 0x080: "irq", 0x100: "fiq", 0x180: "serror",
    0x200: "sync", 0x280: "irq", 0x300: "fiq", 0x380: "serror",
}  # fmt: skip
_SELECT_SP_EL0 = 0xD50040BF  # msr spsel, #0 (C6.2.228)
_APART = "handlers"  # name of the stack that handlers have for themselves
_MOST_VECTORS = 64  # of a vectored mtvec


def bare_metal_firmware(
    program: Program,
    code: Code,
    calls: Calls,
    edges: Edges,
    frames: Frames,
    memory: Memory,
    more: list[Task],
) -> Firmware | None:
    """None: the image's entry is no function. `more`: tasks that are declared."""
    entry = code.functions.at(program.images[0].entry)
    if entry < 0:
        return None
    notes: list[str] = []
    handlers = _handlers(program.machine, code)
    contexts = [Context("reset", "boot", reset_starts(calls, entry), frame_source="the image's entry")]
    if not handlers:
        notes.append("no handler of traps or interrupts is installed by code with a constant address")
    stacks: list[Stack] = []
    main, apart = _entry_stacks(code, memory, entry)
    swapped = _swapped_stack(program.machine, code, memory)
    here = 0  # handlers that run on the stack that they interrupt
    for name, function in handlers:
        reason = CAN_NEST if can_nest(code, edges, function) else ""
        if _switches_first(frames, calls, function):
            own = switched_starts(calls, frames, code, function)
            if own and swapped is not None:
                stacks.append(own_stack(name, swapped, unit=16))
                contexts.append(Context(name, "isr", own, stack=name, open=reason))
                continue
            reason = "the handler runs on another stack, which is not known"
        if apart is not None:  # handlers of a lower stack pointer: SP_ELx, not the one that they interrupt
            if not any(stack.name == _APART for stack in stacks):
                stacks.append(own_stack(_APART, apart, unit=16))
            contexts.append(Context(name, "isr", (Start(function),), open=reason, stack=_APART))
            continue
        here += 1
        contexts.append(Context(name, "isr", (Start(function),), interrupt="isr", open=reason, level=0))
    levels = 1 if here else 0
    source = "a handler runs with interrupts off, and does not put them on"
    if not here and handlers:
        source = "handlers run on stacks of their own"
    for name, task in numbered((*find_tasks(code, calls, memory), *more)):
        unknown = unknown_task(name, task)
        if unknown is not None:
            contexts.append(unknown[0])
            notes.append(unknown[1])
            continue
        stacks.append(task_stack(name, task, 16, task.saved or 0, {"nests.isr": source}, {"isr": levels}))
        contexts.append(Context(task.name, "task", (Start(task.entry),), stack=name))
    return Firmware(
        contexts=tuple(contexts),
        levels=levels,
        levels_source=source,
        main=main,
        tasks=tuple(stacks),
        notes=tuple(notes),
    )


def _switches_first(frames: Frames, calls: Calls, function: int) -> bool:
    """Whether a handler calls anything on another stack than the one that it interrupts."""
    if not int(frames.summary[function]) & Summary.SWITCHES:
        return False
    own = (calls.function == function) & (calls.kind == CallKind.STACK_SWITCH)
    return bool(own.any())


def _swapped_stack(machine: Machine, code: Code, memory: Memory) -> tuple[int, str] | None:
    """The stack that a trap handler gets out of mscratch (`csrrw sp, mscratch, sp`): the one whose top code
    puts there, where all that does so puts the same."""
    if machine is Machine.AARCH64:
        return None
    table, joins = code.instructions, branch_targets(code)
    special = np.isin(table.immediate, (_MSCRATCH, _SSCRATCH))
    tops: set[int | None] = set()
    for row in ((table.operation == Operation.WRITE_SPECIAL) & special).nonzero()[0].tolist():
        register = int(table.base[row])
        if register < 32:
            tops.add(value_before(code, row, register, joins))
    (top,) = tops if len(tops) == 1 else (None,)
    return stack_below(memory, top, symbols=False) if top else None


def _handlers(machine: Machine, code: Code) -> list[tuple[str, int]]:
    """(name, function) of each handler that some code installs."""
    table = code.instructions
    joins = branch_targets(code)
    found: dict[int, str] = {}
    for row in (table.operation == Operation.WRITE_SPECIAL).nonzero()[0].tolist():
        register = int(table.base[row])
        special = int(table.immediate[row])
        value = value_before(code, row, register, joins) if register < 32 else None
        if value is None:
            continue
        if machine is Machine.AARCH64:
            if special in _VBAR:
                for offset, name in _VECTORS.items():
                    function = _behind_jump(code, value + offset)
                    if function >= 0:
                        found.setdefault(function, f"{name} {_VBAR[special]}")
        elif special in (_MTVEC, _STVEC):
            name = "trap" if special == _MTVEC else "supervisor trap"
            if not value & 1:
                function = code.functions.at(value & ~3)
                if function >= 0:
                    found.setdefault(function, name)
                continue
            for number in range(_MOST_VECTORS):
                function = _behind_jump(code, (value & ~3) + 4 * number)
                if function < 0:
                    break
                found.setdefault(function, f"{name} {number}")
    return [(name, function) for function, name in sorted(found.items())]


def _behind_jump(code: Code, address: int) -> int:
    """The function that an entry of a vector table is, or jumps to; -1: none, or it only loops."""
    row = code.row_at(address)
    if row < 0:
        return -1
    if int(code.instructions.operation[row]) == Operation.JUMP and int(code.target[row]) >= 0:
        target = int(code.target[row])
        if target == row:
            return -1
        function = int(code.function[target])
        return function if int(code.first[function]) == target else -1
    return code.functions.at(address)


def _entry_stacks(
    code: Code, memory: Memory, entry: int
) -> tuple[tuple[int, str] | None, tuple[int, str] | None]:
    """The stack that the entry sets the stack pointer to the top of, before it calls anything; and where it
    goes on with SP_EL0 (`msr spsel, #0`), that which handlers run on: the one of SP_ELx (DDI 0487,
    D1.2.2)."""
    table = code.instructions
    pointer = CONVENTIONS[code.machine].stack_pointer
    joins = branch_targets(code)
    top: int | None = None
    handlers: int | None = None
    for row in range(int(code.first[entry]), int(code.first[entry + 1])):
        operation = int(table.operation[row])
        if operation == Operation.CALL:
            break
        if code.machine is Machine.AARCH64 and encoding(code, row) == _SELECT_SP_EL0:
            handlers, top = top, None
        if int(table.register[row]) != pointer or not int(table.clobbers[row]) >> pointer & 1:
            continue
        if operation in (Operation.MOVE_IMMEDIATE, Operation.MOVE, Operation.LEA, Operation.ADD_IMMEDIATE):
            top = value_before(code, row + 1, pointer, joins) or None
    others = {one for one in (top, handlers) if one is not None}
    main = stack_below(memory, top, others=others - {top} if handlers else ()) if top else None
    if handlers is None:
        return main, None
    return main, stack_below(memory, handlers, symbols=False, others=others - {handlers})
