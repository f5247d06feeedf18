"""Tasks of a real-time operating system: found by the calls that create them, with their stacks.

Signatures: FreeRTOS task.h, Zephyr kernel.h, CMSIS-RTOS2 cmsis_os2.h, ThreadX tx_api.h. Arguments are
constants just before the call; a stack's size is that of the object with a symbol, else what the call says.
"""

from __future__ import annotations

from dataclasses import dataclass

from stackfit.calls.constants import argument_value
from stackfit.calls.model import Calls
from stackfit.image.memory import Memory
from stackfit.isa.code import Code

__all__ = ["Task", "find_tasks"]


@dataclass(frozen=True)
class _Creator:
    """Which arguments (from 0) of a function that creates a task are what; -1: it has none.

    `unit`: bytes that its size counts; 0: words.
    """

    entry: int
    name: int
    size: int
    stack: int
    unit: int


_CREATORS = {
    "xTaskCreateStatic": _Creator(0, 1, 2, 5, 0),
    "xTaskCreateStaticPinnedToCore": _Creator(0, 1, 2, 5, 0),
    "xTaskCreate": _Creator(0, 1, 2, -1, 0),
    "xTaskCreatePinnedToCore": _Creator(0, 1, 2, -1, 0),
    "k_thread_create": _Creator(3, -1, 2, 1, 1),
    "z_impl_k_thread_create": _Creator(3, -1, 2, 1, 1),
    "_tx_thread_create": _Creator(2, 1, 5, 4, 1),
    "_txe_thread_create": _Creator(2, 1, 5, 4, 1),
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


def find_tasks(code: Code, calls: Calls, memory: Memory) -> list[Task]:
    """All tasks that the program creates, in order of the calls; then those of static tables."""
    functions = code.functions
    creators = {
        index: (name, creator) for name, creator in _CREATORS.items() for index in functions.named(name)
    }
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
    known = memory.object(stack) if stack is not None else None
    if known is not None and known[1] == stack:
        return Task(name, entry, known[2], f"symbol {known[0]}", caller)
    size = argument(creator.size)
    if size is not None:
        unit = creator.unit or code.machine.word
        return Task(name, entry, size * unit, f"{called}() in {caller}: {size} of {unit} B", caller)
    return Task(name, entry, None, "", caller)


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
