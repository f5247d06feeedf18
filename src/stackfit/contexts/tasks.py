"""Tasks of a real-time operating system: found by the calls that create them, with their stacks.

Signatures: FreeRTOS task.h, Zephyr kernel.h, CMSIS-RTOS2 cmsis_os2.h, ThreadX tx_api.h. Arguments are
constants just before the call; a stack's size is that of the object with a symbol, else what the call says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from stackfit.calls.constants import argument_value, branch_targets, value_before
from stackfit.calls.model import Calls
from stackfit.contexts.model import Context
from stackfit.image.memory import Memory
from stackfit.isa.code import Code
from stackfit.isa.effects import NO_REGISTER, Operation
from stackfit.layouts.model import Stack

__all__ = ["Task", "find_tasks", "numbered", "task_stack", "unknown_task"]


@dataclass(frozen=True)
class _Creator:
    """Which arguments (from 0) of a function that creates a task are what; -1: it has none.

    `unit`: bytes that its size counts; 0: words. `attributes`: a pointer to a structure (CMSIS-RTOS2's
    osThreadAttr_t) whose first word is the name, its fifth the stack and its sixth the stack's bytes.
    """

    entry: int
    name: int
    size: int
    stack: int
    unit: int
    attributes: int = -1


_CREATORS = {
    "xTaskCreateStatic": _Creator(0, 1, 2, 5, 0),
    "xTaskCreateStaticPinnedToCore": _Creator(0, 1, 2, 5, 0),
    "xTaskCreate": _Creator(0, 1, 2, -1, 0),
    "xTaskCreatePinnedToCore": _Creator(0, 1, 2, -1, 0),
    "k_thread_create": _Creator(3, -1, 2, 1, 1),
    "z_impl_k_thread_create": _Creator(3, -1, 2, 1, 1),
    "z_setup_new_thread": _Creator(3, -1, 2, 1, 1),
    "osThreadNew": _Creator(0, -1, -1, -1, 1, 2),
    "_tx_thread_create": _Creator(2, 1, 5, 4, 1),
    "_txe_thread_create": _Creator(2, 1, 5, 4, 1),
}
_UNKNOWN = _Creator(-1, -1, -1, -1, 0)
# FreeRTOS asks the application for the memory of its own tasks (task.h, timers.h).
_SERVICE = {
    "prvIdleTask": "vApplicationGetIdleTaskMemory",
    "prvPassiveIdleTask": "vApplicationGetPassiveIdleTaskMemory",
    "prvTimerTask": "vApplicationGetTimerTaskMemory",
}
_STATIC_THREADS = ("__static_thread_data_list_start", "_static_thread_data_list_start")
_STATIC_THREADS_END = ("__static_thread_data_list_end", "_static_thread_data_list_end")


@dataclass(frozen=True)
class Task:
    """One task. `size`: bytes of its stack, None: not known; `source`: what says so. `entry` -1: not
    known."""

    name: str
    entry: int
    size: int | None
    source: str
    place: str  # the function that creates it
    saved: int | None = None  # bytes that the context switch saves on its stack, where a file says it


def numbered(tasks: Iterable[Task]) -> Iterator[tuple[str, Task]]:
    """Tasks with the names of their stacks; of several of one name the later ones are numbered."""
    used: Counter[str] = Counter()
    for task in tasks:
        used[task.name] += 1
        yield f"task {task.name}" + (f" #{used[task.name]}" if used[task.name] > 1 else ""), task


def unknown_task(name: str, task: Task) -> tuple[Context, str] | None:
    """The open context and the note of a task whose entry function or stack is not known."""
    if task.entry >= 0 and task.size is not None:
        return None
    what = "entry function" if task.entry < 0 else "stack"
    note = f"{name}: {task.place} creates it, its {what} is not known: declare [[task]]"
    return Context(task.name, "task", (), open=f"the task's {what} is not known"), note


def task_stack(
    name: str, task: Task, unit: int, saved: int, sources: Mapping[str, str], nests: Mapping[str, int]
) -> Stack:
    """A task's stack. `saved`: bytes at its base that are not for frames; `sources`: besides its size's."""
    return Stack(
        name=name,
        per="system",
        size=task.size or 0,  # not known only where its context is open
        allocation="static",
        runs=("task",),
        nests=nests,
        unit=unit,
        reserve_base=saved,
        sources={"size": task.source, **sources},
    )


def find_tasks(code: Code, calls: Calls, memory: Memory) -> list[Task]:
    """All tasks that the program creates, in order of the calls; then those of static tables."""
    functions = code.functions
    creators = {
        index: (name, creator) for name, creator in _CREATORS.items() for index in functions.named(name)
    }
    # A clone of one takes other arguments: what it creates is said to be not known.
    for index, name in enumerate(functions.names):
        base, dot, _ = name.partition(".")
        if dot and base in _CREATORS and index not in creators:
            creators[index] = name, _UNKNOWN
    found: list[Task] = []
    for site in range(len(calls)):
        number = int(calls.candidates[site])
        for callee in calls.candidate_sets[number] if number >= 0 else ():
            caller = int(calls.function[site])
            if callee in creators and caller not in creators:
                name, creator = creators[callee]
                found.append(
                    _task(code, memory, int(calls.address[site]), name, creator, functions.names[caller])
                )
    return [*found, *_zephyr_static(code, memory)]


def _task(code: Code, memory: Memory, address: int, called: str, creator: _Creator, caller: str) -> Task:
    def argument(number: int) -> int | None:
        return argument_value(code, address, number) if number >= 0 else None

    pointer = argument(creator.entry)
    entry = code.functions.at(code.machine.code_address(pointer)) if pointer is not None else -1
    text = argument(creator.name)
    name = memory.text(text) if text is not None else None
    if name is None:
        name = code.functions.names[entry] if entry >= 0 else f"created at {address:#x}"
    stack = argument(creator.stack)
    size = argument(creator.size)
    attributes = argument(creator.attributes)
    if attributes:
        word = code.machine.word
        label, stack = memory.word(attributes), memory.word(attributes + 4 * word)
        size = (memory.word(attributes + 5 * word) or 0) & 0xFFFF_FFFF or None
        name = (memory.text(label) if label else None) or name
    service = _SERVICE.get(code.functions.names[entry], "") if entry >= 0 else ""
    if service and stack is None:
        given = _given_memory(code, memory, service)
        if given is not None:
            return Task(name, entry, given[1], f"symbol {given[0]}, by {service}()", caller)
    known = memory.object(stack) if stack is not None else None
    if known is not None and known[1] == stack:
        return Task(name, entry, known[2], f"symbol {known[0]}", caller)
    if size is not None:
        unit = creator.unit or code.machine.word
        return Task(name, entry, size * unit, f"{called}() in {caller}: {size} of {unit} B", caller)
    return Task(name, entry, None, "", caller)


def _given_memory(code: Code, memory: Memory, name: str) -> tuple[str, int] | None:
    """(object, bytes) of the stack that a function gives away: of the objects whose address it has, the only
    one as large as one of its numbers says in words."""
    table, word = code.instructions, code.machine.word
    objects: dict[str, int] = {}
    numbers: set[int] = set()
    joins = branch_targets(code)
    for function in code.functions.named(name):
        for row in range(int(code.first[function]), int(code.first[function + 1])):
            register = int(table.register[row])
            if int(table.operation[row]) not in _BUILDS or register == NO_REGISTER:
                continue
            value = value_before(code, row + 1, register, joins)
            known = memory.object(value) if value else None
            if value is not None and known is not None and known[1] == value:
                objects[known[0]] = known[2]
            elif value is not None:
                numbers.add(value)
    found = [(one, size) for one, size in objects.items() if size % word == 0 and size // word in numbers]
    return found[0] if len(found) == 1 else None


_BUILDS = (
    Operation.MOVE_IMMEDIATE, Operation.ADD_IMMEDIATE, Operation.LEA, Operation.MOVE,
    Operation.INSERT_IMMEDIATE,
)  # fmt: skip  # what addresses and numbers are built with


def _zephyr_static(code: Code, memory: Memory) -> list[Task]:
    """K_THREAD_DEFINE: struct _static_thread_data {thread, stack, stack size, entry, …} (kernel/thread.h)."""
    start, end = memory.symbol(*_STATIC_THREADS), memory.symbol(*_STATIC_THREADS_END)
    if start is None or end is None or not 0 < end - start < 1 << 16:
        return []
    word = code.machine.word
    found: list[Task] = []
    # The structure's length depends on the configuration: entries are where four words have its form.
    for at in range(start, end - 4 * word + 1, word):
        thread, stack, size, entry = (memory.word(at + word * index) for index in range(4))
        if thread is None or stack is None or size is None or entry is None:
            continue
        function = code.functions.at(code.machine.code_address(entry))
        known = memory.object(stack)
        if function >= 0 and known is not None and known[1] == stack and 0 < size & 0xFFFF_FFFF <= known[2]:
            source = f"K_THREAD_DEFINE, symbol {known[0]}"
            found.append(Task(code.functions.names[function], function, known[2], source, "static threads"))
    return found
