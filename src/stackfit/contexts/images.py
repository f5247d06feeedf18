"""Which images are firmware, and what starts to run in each kind of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from stackfit.calls.model import CallKind, Calls, Edges
from stackfit.contexts.bare_metal import bare_metal_firmware
from stackfit.contexts.cortex_a import NO_SWITCH, cortex_a_firmware
from stackfit.contexts.cortex_m import cortex_m_firmware, tasks_of_objects
from stackfit.contexts.firmware import Firmware
from stackfit.contexts.model import Context, Start
from stackfit.contexts.tasks import Task, numbered, task_stack
from stackfit.frames.model import Frames
from stackfit.image.attributes import read_arm_attributes
from stackfit.image.memory import Memory
from stackfit.image.model import ImageKind, InputError, Machine, Program
from stackfit.isa.code import Code
from stackfit.isa.machines import CONVENTIONS
from stackfit.layouts.model import Declared, Layout, PriorityForm, Stack, TaskStack
from stackfit.text import near_text

__all__ = ["NOTHING_DECLARED", "find_firmware", "is_cortex_m", "is_firmware"]

NOTHING_DECLARED = Declared()
_WITHOUT_SYMBOLS = (
    "no symbols: functions are what vectors, calls, constants and pointers lead to,"
    " and what begins as one does"
)
_NO_HANDLERS = "objects do not say which handlers run on the stack of a task: none is counted"


def is_cortex_m(program: Program) -> bool:
    """By its build attributes; an Arm image without any is taken for one."""
    attributes = read_arm_attributes(program.images[0])
    arm = program.machine is Machine.ARM
    return arm and (attributes is None or attributes.profile not in ("A", "R"))


def is_firmware(program: Program) -> bool:
    """An image that is no Linux kernel, on a machine that firmware is made for."""
    return not program.machine.x86 and program.images[0].kind is not ImageKind.KERNEL


def find_firmware(
    program: Program,
    code: Code,
    frames: Frames,
    calls: Calls,
    edges: Edges,
    layouts: Iterable[Layout] = (),
    declared: Declared = NOTHING_DECLARED,
) -> Firmware:
    """The contexts of a firmware image; none where nothing says where it starts.

    `layouts` and `declared`: files that say handlers' priorities and tasks. InputError: a task whose entry is
    not there.
    """
    memory = Memory(program)
    layouts = tuple(layouts)
    files: list[Layout | Declared] = [*layouts, declared]
    handlers = tuple(handler for one in files for handler in one.handlers)
    form = PriorityForm(
        next((one.priorities.group for one in files if one.priorities.group is not None), None),
        next((one.priorities.bits for one in files if one.priorities.bits is not None), None),
    )
    tasks = [_declared(code, one.path, task) for one in files for task in one.tasks]
    found: Firmware | None = None
    if program.objects:
        return _of_objects(program, code, calls, edges, tasks)
    if program.machine is Machine.ARM:
        if is_cortex_m(program):
            found = cortex_m_firmware(program, code, calls, edges, memory, handlers, form, tasks)
        else:
            found = cortex_a_firmware(program, code, calls, edges, memory, tasks)
    else:
        found = bare_metal_firmware(program, code, calls, edges, frames, memory, tasks)
    if found is not None and not any(len(image.symbols) for image in program.images):
        note = "no symbols: tasks cannot be found by the calls that create them: declare [[task]]"
        found = replace(found, assumptions=(*found.assumptions, _WITHOUT_SYMBOLS), notes=(*found.notes, note))
    if found is not None:
        switched = _switched(code, calls, found)
        notes = tuple(f"{context.name} switches to another stack: {context.open}" for context in switched)
        return replace(found, contexts=(*found.contexts, *switched), notes=(*found.notes, *notes))
    note = f"{program.path}: no vector table was found: nothing says where execution starts"
    return Firmware((), 0, "", None, (), notes=(note,))


def _of_objects(program: Program, code: Code, calls: Calls, edges: Edges, tasks: list[Task]) -> Firmware:
    """What is declared of objects that were not linked: nothing in them says where execution starts."""
    note = (
        f"{program.path}: objects that were not linked: declare [[task]] to bound what begins at a function"
    )
    if is_cortex_m(program):
        found = tasks_of_objects(program, code, calls, edges, tasks)
        return replace(found, notes=(*found.notes, note))
    stacks: list[Stack] = []
    contexts: list[Context] = []
    for name, task in numbered(tasks):
        unit = CONVENTIONS[program.machine].alignment
        stacks.append(task_stack(name, task, unit, task.saved or 0, {}, {}))
        reason = NO_SWITCH if program.machine is Machine.ARM and task.saved is None else ""
        contexts.append(Context(task.name, "task", (Start(task.entry),), stack=name, open=reason))
    return Firmware(
        tuple(contexts), 0, "", None, tuple(stacks), (_NO_HANDLERS,) if tasks else (), notes=(note,)
    )


def _declared(code: Code, path: str, task: TaskStack) -> Task:
    found = code.functions.named(task.entry)
    if not found:
        near = near_text(task.entry, code.functions.names)
        raise InputError(path, f"task {task.name}: no function {task.entry}{near}")
    return Task(task.name, found[0], task.size, f"declared in {path}", "a declaration", task.saved)


def _switched(code: Code, calls: Calls, firmware: Firmware) -> tuple[Context, ...]:
    """Functions besides those that reset begins with which call others on another stack: what those need is
    open, on the stack that is there from the start for want of a better one."""
    known = {
        start.entry for context in firmware.contexts if context.kind == "boot" for start in context.starts
    }
    known |= {one for context in firmware.contexts for start in context.starts for one, _ in start.through}
    callers = np.unique(calls.function[calls.kind == CallKind.STACK_SWITCH]).tolist()
    return tuple(
        Context(code.functions.names[caller], "boot", (), open="what it calls there is counted on none")
        for caller in callers
        if caller not in known
    )
