"""The contexts of Cortex-M firmware: the vector table's, and tasks (Armv7-M ARM DDI 0403E, B1.5).

The processor starts on the main stack (MSP). An exception pushes its frame on the stack in use and its
handler runs on the main stack; a task runs on its own (PSP). On a task's stack lie therefore at most one
exception frame and what the context switch saves there, on the main stack all handlers that can preempt one
another.

A frame belongs to what it interrupts: it has room for the floating-point registers where that may have used
them (B1.5.7, CONTROL.FPCA), and none is on top of what nothing preempts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stackfit.calls.model import Calls, EdgeKind, Edges
from stackfit.contexts.firmware import Firmware, reset_starts, stack_below
from stackfit.contexts.model import Context, Start
from stackfit.contexts.priorities import read_priorities
from stackfit.contexts.tasks import Task, find_tasks, numbered, task_stack
from stackfit.image.attributes import read_arm_attributes
from stackfit.image.memory import Memory
from stackfit.image.model import Program
from stackfit.isa.code import Code
from stackfit.isa.effects import FLAG_CONDITIONAL, FLAG_FLOATING, NO_REGISTER, Operation
from stackfit.layouts.model import Handler, PriorityForm, Stack

__all__ = ["VectorTable", "cortex_m_firmware", "find_vector_table", "tasks_of_objects"]

_NAMES = {
    1: "Reset", 2: "NMI", 3: "HardFault", 4: "MemManage", 5: "BusFault", 6: "UsageFault", 7: "SecureFault",
    11: "SVCall", 12: "DebugMonitor", 14: "PendSV", 15: "SysTick",
}  # fmt: skip
_FIXED = {2: -2, 3: -1}  # priorities of NMI and HardFault (B1.5.4)
_FIRST_INTERRUPT = 16  # exception number of IRQ 0 (B1.5.2)
_MOST_VECTORS = 16 + 496  # B1.5.2
_RESERVED = (8, 9, 10, 13)  # exception numbers (B1.5.2)
_BASIC, _EXTENDED, _ALIGNMENT = 32, 104, 4  # B1.5.6, B1.5.7: frame, frame with FP registers, padding to 8
# Additional state of a Secure context that a Non-secure exception interrupts: integrity signature, a reserved
# word, r4 to r11; with FPCCR.TS s16 to s31 (Armv8-M ARM DDI 0553B, B3.19).
_SECURE_STATE, _SECURE_FLOATING = 40, 64
_SECURE = ".gnu.sgstubs"  # section of the entry points that a Secure image has for Non-secure code
_TABLE_ALIGNMENT = 128  # B3.2.5 VTOR
_PSP = 9  # SYSm of the process stack pointer (B5.2.1)


@dataclass(frozen=True)
class VectorTable:
    """A vector table: its address, the initial main stack pointer, and the handlers by exception number."""

    address: int
    stack: int
    handlers: dict[int, int]  # exception number → function


def find_vector_table(code: Code, memory: Memory) -> VectorTable | None:
    """The table with the most handlers; a bootloader's and an application's are told apart by that alone."""
    best: VectorTable | None = None
    for section in memory.sections:
        for offset in range(-section.address % _TABLE_ALIGNMENT, section.data.size - 63, _TABLE_ALIGNMENT):
            table = _table_at(code, memory, section.address + offset)
            if table is not None and (best is None or len(table.handlers) > len(best.handlers)):
                best = table
    return best


def _table_at(code: Code, memory: Memory, address: int) -> VectorTable | None:
    stack = memory.word(address)
    if not stack or stack & 3 or code.functions.containing(stack) >= 0:
        return None
    handlers: dict[int, int] = {}
    for number in range(1, _MOST_VECTORS):
        value = memory.word(address + 4 * number)
        if value is None:
            break
        function = code.functions.at(value & ~1) if value & 1 else -1
        if function < 0:
            if value and (number < 7 or number >= _FIRST_INTERRUPT):
                break
            continue
        if number in _RESERVED:
            break
        handlers[number] = function
    # Reset, NMI and HardFault are always there.
    return VectorTable(address, stack, handlers) if {1, 2, 3} <= handlers.keys() else None


def cortex_m_firmware(
    program: Program,
    code: Code,
    calls: Calls,
    edges: Edges,
    memory: Memory,
    declared: tuple[Handler, ...],
    form: PriorityForm,
    more: Iterable[Task],
) -> Firmware | None:
    """None: the program has no vector table of this form. `declared`: priorities, in that
    `form`; `more`: tasks."""
    table = find_vector_table(code, memory)
    if table is None:
        return None
    floating = _Floating(program, code, calls, edges)
    priorities, named, priorities_source, notes, taken = _priorities(code, table, declared, form)
    shared = {one for one, times in Counter(table.handlers.values()).items() if times > 1}
    contexts: list[Context] = []
    # Reset is no exception that others preempt.
    used = {
        number: function
        for number, function in sorted(table.handlers.items())
        if number == 1 or function not in shared or number in named
    }
    unused = len(table.handlers) - len(used)
    top = min((priorities[number] for number in used if number in priorities), default=0)
    known = True
    for number, function in used.items():
        known &= number == 1 or number in priorities
        frame = floating.frame(function)
        kind = "boot" if number == 1 else "isr"
        contexts.append(
            Context(
                _name(number),
                kind,
                reset_starts(calls, function) if number == 1 else (Start(function),),
                frame,
                frame,
                f"an exception on top of it: {frame} B",
                interrupt="" if number == 1 else "isr",
                number=number,
                level=priorities.get(number, -1 - _LEVEL) + _LEVEL,
            )
        )
    if known:  # nothing preempts the most urgent
        contexts = [
            replace(context, frame_user=0, frame_kernel=0, frame_source="nothing preempts it")
            if context.kind == "isr" and context.level == top + _LEVEL
            else context
            for context in contexts
        ]
    elif not priorities:
        contexts = [replace(context, level=-1) for context in contexts]
    own = _interrupt_stack(memory)
    if own is not None:
        contexts = [
            replace(context, interrupt="", stack=_INTERRUPTS) if context.kind == "isr" else context
            for context in contexts
        ]
    levels = len({context.level if context.level >= 0 else context.name for context in contexts[1:]})
    assumptions = [floating.text]
    assumptions += taken
    if unused:
        assumptions.append(
            f"{unused} vectors share a handler: interrupts that are not enabled,"
            " or faults that end the program"
        )
    tasks = [*find_tasks(code, calls, memory), *more]
    stacks, task_contexts, missing = _tasks(tasks, floating, _context_switch(code))
    if own is not None:
        nests = {"isr": levels}
        sources = {"size": own[1], "nests.isr": priorities_source}
        interrupts = Stack(
            _INTERRUPTS, per="system", size=own[0], allocation="static", nests=nests, unit=8, sources=sources
        )
        stacks = (interrupts, *stacks)
    return Firmware(
        contexts=(*contexts, *task_contexts),
        levels=levels if own is None else 0,
        levels_source=priorities_source if own is None else f"handlers run on {own[1]}",
        main=stack_below(memory, table.stack),
        tasks=stacks,
        assumptions=tuple(assumptions),
        notes=(*notes, *missing),
    )  # fmt: skip


def tasks_of_objects(program: Program, code: Code, calls: Calls, edges: Edges, tasks: list[Task]) -> Firmware:
    """What is declared of objects that were not linked: on a task's stack lies what always does."""
    floating = _Floating(program, code, calls, edges)
    stacks, contexts, notes = _tasks(tasks, floating, _context_switch(code))
    return Firmware(contexts, 0, "", None, stacks, (floating.text,) if tasks else (), notes)


_DECLARED = "one handler of each declared priority"
_SET_BY_CODE = "one handler of each priority that code sets"
_UNDECLARED = "each handler once on top of all others: no priorities are declared"
_LEVEL = 3  # added to priorities, so that those of NMI and HardFault are not negative


def _interrupt_stack(memory: Memory) -> tuple[int, str] | None:
    """(bytes, source) of the stack that a kernel makes the main one before it starts threads: Zephyr's
    (kernel/init.c, arch/arm: z_arm_interrupt_stack_setup)."""
    start = memory.symbol(*_INTERRUPT_STACKS)
    known = memory.object(start) if start is not None else None
    return (known[2], f"symbol {known[0]}") if known is not None else None


_INTERRUPTS = "interrupts"  # name of that stack
_INTERRUPT_STACKS = ("z_interrupt_stacks", "_interrupt_stack")


def _name(number: int) -> str:
    return _NAMES.get(number, f"IRQ {number - _FIRST_INTERRUPT}")


def _priorities(
    code: Code, table: VectorTable, declared: tuple[Handler, ...], form: PriorityForm
) -> tuple[dict[int, int], Collection[int], str, tuple[str, ...], tuple[str, ...]]:
    """(exception number → preemption priority, numbers that are declared, what says so, notes, what is taken
    for granted).

    Declared ones by name, else what code sets with constants. A priority is the group's part of it.
    """
    by_name: dict[str, list[int]] = {}
    for number, function in table.handlers.items():
        for name in (_name(number), code.functions.names[function], *code.functions.aliases[function]):
            by_name.setdefault(name, []).append(number)
    read = read_priorities(code)
    group = read.group if form.group is None else form.group
    below = 0 if group is None else group + 1  # bits of a priority that do not tell what preempts
    kept = 0xFF if form.bits is None else 0xFF & ~(0xFF >> form.bits)
    set_by_code = {
        number: (value & kept) >> below for number, value in read.bytes_of.items() if number in table.handlers
    }
    stated: dict[int, int] = {}
    notes: list[str] = []
    for handler in declared:
        numbers = by_name.get(handler.name, [])
        if not numbers:
            notes.append(f"[[isr]] {handler.name}: no vector of that name, and none leads to such a function")
        for number in numbers:
            grouped = handler.priority >= 0 and form != PriorityForm()
            stated[number] = (handler.priority & kept) >> below if grouped else handler.priority
    # Declared ones need not be in the unit of the registers: one says it all, or the other.
    found = dict(stated or set_by_code)
    if not found:
        return found, (), _UNDECLARED, tuple(notes), ()
    for number, priority in _FIXED.items():
        if number in table.handlers and list(table.handlers.values()).count(table.handlers[number]) == 1:
            found[number] = priority
    if stated:
        return found, tuple(found), _DECLARED, tuple(notes), ()
    taken = "priorities are those that code sets with constants: " + ", ".join(
        f"{_name(number)} {read.bytes_of[number]:#04x}" for number in sorted(set_by_code)
    )
    if group is not None:
        taken += f"; of each the bits above {group} (AIRCR.PRIGROUP) preempt"
    return found, (), _SET_BY_CODE, tuple(notes), (taken,)


class _Floating:
    """Which functions may have used the floating-point unit when an exception comes."""

    def __init__(self, program: Program, code: Code, calls: Calls, edges: Edges) -> None:
        images = program.images if program.objects else program.images[:1]
        attributes = [read_arm_attributes(image) for image in images]
        own = np.zeros(len(code.functions), np.bool_)
        if any(one is None or one.floating_point for one in attributes):
            own[code.function[(code.instructions.flags & FLAG_FLOATING) != 0]] = True
            own[calls.function[calls.open]] = True  # what is called is not known
        self._secure = any(
            section.name == _SECURE and section.size for image in program.images for section in image.sections
        )
        self.uses: NDArray[np.bool_] = own
        owner = np.repeat(np.arange(own.size), np.diff(edges.first))
        here = edges.kind != EdgeKind.SWITCH
        while True:
            before = int(own.sum())
            own[owner[own[edges.callee] & here]] = True
            if int(own.sum()) == before:
                break

    def frame(self, function: int) -> int:
        """Bytes that an exception pushes on top of the function or what it calls."""
        frame = _EXTENDED if self.uses[function] else _BASIC
        if self._secure:
            frame += _SECURE_STATE + (_SECURE_FLOATING if self.uses[function] else 0)
        return frame + _ALIGNMENT

    @property
    def text(self) -> str:
        """What is taken for granted of these frames."""
        text = (
            f"an exception pushes {_BASIC} B, {_EXTENDED} with floating-point registers, and up to"
            f" {_ALIGNMENT} of alignment (Armv7-M ARM B1.5.6, B1.5.7)"
        )
        if self._secure:
            text += (
                f"; in Secure state {_SECURE_STATE} more, and {_SECURE_FLOATING} with floating-point"
                " registers, when it is a Non-secure one (Armv8-M ARM B3.19)"
            )
        return text


@dataclass(frozen=True)
class _Switch:
    """What the context switch stores on a task's stack: bytes, of them those under a condition (floating
    point); the function that does. `unclear`: why that is not known, else ""."""

    bytes: int = 0
    conditional: int = 0
    function: str = ""
    unclear: str = ""

    def kept(self, floating: bool) -> int:
        return self.bytes if floating else self.bytes - self.conditional


def _context_switch(code: Code) -> _Switch:
    """What any function stores below the process stack pointer.

    The context switch of FreeRTOS and others: `mrs r0, psp; stmdb r0!, {r4-r11, lr}`, and for tasks that have
    used the floating-point unit `vstmdbeq r0!, {s16-s31}`. Zephyr's reads it and stores elsewhere.
    """
    table = code.instructions
    reads = (table.operation == Operation.READ_SPECIAL) & (table.immediate & 0xFF == _PSP)
    functions = sorted(set(code.function[reads].tolist()))
    if not functions:
        return _Switch(unclear=_NO_SWITCH)
    most = _Switch()
    for function in functions:
        pointer, depth, conditional = -1, 0, 0
        for row in range(int(code.first[function]), int(code.first[function + 1])):
            operation, register = int(table.operation[row]), int(table.register[row])
            if reads[row]:
                pointer, depth, conditional = register, 0, 0
            elif pointer < 0:
                continue
            elif operation == Operation.LEA and int(table.base[row]) == pointer:
                if int(table.index[row]) != NO_REGISTER:
                    return _Switch(unclear=_UNCLEAR)
                depth = max(depth, depth - int(table.displacement[row]))
            elif operation == Operation.SUBTRACT_REGISTERS and int(table.base[row]) == pointer:
                return _Switch(unclear=_UNCLEAR)
            elif register == pointer:
                if operation in (Operation.STORE_MULTIPLE, Operation.ADD_IMMEDIATE):
                    moved = -int(table.immediate[row])
                    depth += moved
                    if int(table.flags[row]) & FLAG_CONDITIONAL:
                        conditional += moved
                elif operation in (Operation.SUBTRACT, Operation.ALIGN):
                    return _Switch(unclear=_UNCLEAR)
                elif operation in (Operation.LOAD_MULTIPLE, Operation.LOAD, Operation.MOVE):
                    pointer = -1
            if depth > most.bytes:
                most = _Switch(depth, conditional, code.functions.names[function])
    return most


_NO_SWITCH = (
    "no code reads the process stack pointer: what a context switch saves on the task's stack is not known"
)
_UNCLEAR = "what the context switch saves on the task's stack is not understood"


def _tasks(
    tasks: list[Task], floating: _Floating, switch: _Switch
) -> tuple[tuple[Stack, ...], tuple[Context, ...], tuple[str, ...]]:
    stacks: list[Stack] = []
    contexts: list[Context] = []
    notes: list[str] = []
    for name, task in numbered(tasks):
        if task.entry < 0:
            contexts.append(Context(task.name, "task", (), open="the task's entry function is not known"))
            notes.append(f"{name}: {task.place} creates it with an entry that is not known: declare [[task]]")
            continue
        if task.size is None:
            reason = "the size of the task's stack is not known"
            contexts.append(Context(task.name, "task", (Start(task.entry),), open=reason))
            notes.append(f"{name}: {task.place} creates it with a stack that is not known: declare [[task]]")
            continue
        frame = floating.frame(task.entry)
        kept, saver, unclear = switch.kept(bool(floating.uses[task.entry])), switch.function, switch.unclear
        if task.saved is not None:
            kept, saver, unclear = task.saved, "the context switch", ""
        source = f"one exception on top: {frame} B" + (f"; {saver} saves {kept} B" if kept else "")
        if unclear:
            notes.append(f"{name}: {unclear}: declare [[task]] with saved")
        stacks.append(task_stack(name, task, 8, frame + kept, {"reserve_base": source}, {}))
        contexts.append(Context(task.name, "task", (Start(task.entry),), stack=name, open=unclear))
    return tuple(stacks), tuple(contexts), tuple(notes)
