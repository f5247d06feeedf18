"""The contexts of Cortex-A and Cortex-R firmware: its vectors, and the stack of each processor mode.

Each mode has a stack pointer of its own (Arm ARM DDI 0406C, B1.3.2). Start-up code goes through the modes and
sets each: `cps #mode` or `msr cpsr_c, #bits`, then `ldr sp, =top`. An exception pushes nothing; its handler
runs in the exception's mode, with interrupts off (B1.8.3 to B1.8.11).
"""

from __future__ import annotations

from dataclasses import dataclass

from stackfit.calls.constants import branch_targets, value_before
from stackfit.calls.model import Calls, Edges
from stackfit.contexts.firmware import Firmware, own_stack, reset_starts, stack_below
from stackfit.contexts.masking import CAN_NEST, can_nest, encoding
from stackfit.contexts.model import Context, Start
from stackfit.contexts.tasks import Task, find_tasks, numbered, task_stack, unknown_task
from stackfit.image.memory import Memory
from stackfit.image.model import Program
from stackfit.isa.code import Code
from stackfit.isa.effects import Operation
from stackfit.layouts.model import Stack

__all__ = ["NO_SWITCH", "cortex_a_firmware"]

_MODES = {0x10: "usr", 0x11: "fiq", 0x12: "irq", 0x13: "svc", 0x17: "abt", 0x1B: "und", 0x1F: "sys"}  # B1.3.1
_VECTORS = (
    ("reset", ""), ("undefined", "und"), ("svc", "svc"), ("prefetch abort", "abt"), ("data abort", "abt"),
    ("", ""), ("irq", "irq"), ("fiq", "fiq"),
)  # fmt: skip  # B1.8.1
_TABLE = 32  # bytes of the vectors, and what they are aligned to (VBAR, B4.1.156)
_FEWEST = 6  # vectors that lead somewhere
_POINTER = 13
NO_SWITCH = "what a context switch saves on the task's stack is not known"


@dataclass(frozen=True)
class _Modes:
    """`tops`: mode → the top of its stack. `boot`: the mode in which the entry goes on."""

    tops: dict[str, int]
    boot: str


def cortex_a_firmware(
    program: Program, code: Code, calls: Calls, edges: Edges, memory: Memory, more: list[Task]
) -> Firmware | None:
    """None: the image's entry is no function, or leads to none. `more`: tasks that are declared."""
    entry = code.functions.at(code.machine.code_address(program.images[0].entry))
    vectors = _vectors(code)
    if entry < 0 and "reset" not in vectors:
        return None
    entry = _leads_to(code, vectors.get("reset", entry)) if entry < 0 or _is_vectors(code, entry) else entry
    modes = _modes(code, entry)
    notes: list[str] = []
    stacks: list[Stack] = []
    contexts = [Context("reset", "boot", reset_starts(calls, entry), frame_source="the image's entry")]
    known: set[str] = set()
    levels = 0
    for name, mode in _VECTORS[1:]:
        function = vectors.get(name, -1)
        if function < 0 or (function == entry and name):
            continue
        if mode == modes.boot:  # the same stack pointer
            levels = 1
            reason = CAN_NEST if can_nest(code, edges, function) else ""
            contexts.append(Context(name, "isr", (Start(function),), interrupt="isr", open=reason, level=0))
            continue
        reason = ""
        if _changes_mode(code, function):
            reason = "the handler changes the processor's mode: what it has on that one's stack is not known"
        elif can_nest(code, edges, function):
            reason = CAN_NEST
        elif mode not in modes.tops:
            reason = f"no code sets the stack of mode {mode} to a constant"
            notes.append(f"{name}: {reason}")
        else:
            size = stack_below(memory, modes.tops[mode], symbols=False, others=modes.tops.values())
            if size is None:
                reason = f"the size of mode {mode}'s stack is not known"
            elif mode not in known:
                known.add(mode)
                stacks.append(own_stack(mode, size, unit=8))
        contexts.append(
            Context(name, "isr", (Start(function),), open=reason, stack=mode if mode in known else "main")
        )
    source = f"handlers of mode {modes.boot} run on the stack that they interrupt, with interrupts off"
    for name, task in numbered((*find_tasks(code, calls, memory), *more)):
        unknown = unknown_task(name, task)
        if unknown is not None:
            contexts.append(unknown[0])
            notes.append(unknown[1])
            continue
        # The context switch saves to it: how much is not known here.
        stacks.append(task_stack(name, task, 8, task.saved or 0, {}, {}))
        reason = "" if task.saved is not None else NO_SWITCH
        if reason:
            notes.append(f"{name}: {reason}: declare [[task]] with saved")
        contexts.append(Context(task.name, "task", (Start(task.entry),), stack=name, open=reason))
    top = modes.tops.get(modes.boot)
    return Firmware(
        contexts=tuple(contexts),
        levels=levels,
        levels_source=source,
        main=stack_below(memory, top, others=set(modes.tops.values()) - {top}) if top else None,
        tasks=tuple(stacks),
        assumptions=(f"what starts at reset goes on in mode {modes.boot}",) if modes.boot else (),
        notes=tuple(notes),
    )


def _is_vectors(code: Code, function: int) -> bool:
    return int(code.instructions.operation[int(code.first[function])]) == Operation.JUMP


def _leads_to(code: Code, function: int) -> int:
    """The function behind one that is a jump alone."""
    row = int(code.first[function])
    target = int(code.target[row])
    if int(code.instructions.operation[row]) == Operation.JUMP and target >= 0:
        return int(code.function[target])
    return function


def _vectors(code: Code) -> dict[str, int]:
    """Name → handler, of the first table of eight jumps (`b handler`, `ldr pc, =handler`)."""
    table = code.instructions
    jumps = (table.operation == Operation.JUMP) & (table.length == 4) & (code.address % _TABLE == 0)
    for row in jumps.nonzero()[0].tolist():
        found: dict[str, int] = {}
        for number, (name, _) in enumerate(_VECTORS):
            at = code.row_at(int(code.address[row]) + 4 * number)
            if at < 0 or int(table.operation[at]) != Operation.JUMP or int(table.length[at]) != 4:
                continue
            target = int(code.target[at])
            if name and target >= 0 and target != at and int(code.first[code.function[target]]) == target:
                found[name] = int(code.function[target])
        if len(found) >= _FEWEST:
            return found
    return {}


def _modes(code: Code, entry: int) -> _Modes:
    """Stacks that start-up code sets, mode by mode."""
    table, joins = code.instructions, branch_targets(code)
    tops: dict[str, int] = {}
    mode = ""
    for row in range(int(code.first[entry]), int(code.first[entry + 1])):
        operation = int(table.operation[row])
        changed = _mode_set(code, row)
        if changed is not None:
            mode = _MODES.get(changed, "")
        elif operation == Operation.CALL:
            break
        elif int(table.clobbers[row]) >> _POINTER & 1:
            top = value_before(code, row + 1, _POINTER, joins)
            if top:
                tops[mode or "svc"] = top  # reset begins in mode svc (B1.9)
    return _Modes(tops, mode or "svc")


def _changes_mode(code: Code, function: int) -> bool:
    rows = range(int(code.first[function]), int(code.first[function + 1]))
    return any(_mode_set(code, row) is not None for row in rows)


def _mode_set(code: Code, row: int) -> int | None:
    """The mode that an instruction changes to: cps, srs and msr cpsr_c with a constant, in A32 and T32
    (A8.8.39, B9.3.12, B9.3.16); 0: one that is not known."""
    word = encoding(code, row)
    if word & 0xFFF1FE20 == 0xF1000000 and word >> 17 & 1:  # cps
        return word & 0x1F
    if word & 0xFE5F_FFE0 == 0xF84D_0500:  # srs: stores to the stack of another mode
        return word & 0x1F
    if word & 0xFFB1F000 == 0xE321F000:  # msr cpsr_c, #constant
        return word & 0x1F
    if word & 0xFFB1FFF0 == 0xE121F000:  # msr cpsr_c, register
        value = value_before(code, row, word & 15, branch_targets(code))
        return value & 0x1F if value is not None else 0
    return None
