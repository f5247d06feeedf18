"""The contexts of a Linux arm64 kernel: what its exception vectors lead to.

The entry code (arch/arm64/kernel/entry.S) makes room for `struct pt_regs` and calls one C handler for each
kind of exception and level it comes from (entry-common.c). System calls go through a table whose address one
of the functions below the handler hands on. Interrupts move to the stack for interrupts unless they are on it
already (`call_on_irq_stack`), so do softirqs, from the stack of the task. A stack that has overflowed, and
firmware's events (SDEI), have stacks of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stackfit.calls.constants import ARGUMENT_REGISTERS, argument_value
from stackfit.calls.model import CallKind
from stackfit.calls.vectors import SYNCHRONOUS
from stackfit.contexts.dispatch import Dispatched, read_table
from stackfit.contexts.linux import Finder, registered, switch_sites, syscall_name
from stackfit.contexts.model import Context, Start
from stackfit.isa.code import Code
from stackfit.isa.effects import FLAG_MEMORY, NO_REGISTER, Operation

__all__ = ["arm64_entries", "dispatched"]

_SYSCALLS = (
    ("el0t_64_sync_handler", "el0_svc", "arm64"),
    ("el0t_32_sync_handler", "el0_svc_compat", "compat"),
)
_FROM_USER = (
    "el0t_64_sync_handler", "el0t_32_sync_handler", "el0t_64_irq_handler", "el0t_32_irq_handler",
    "el0t_64_fiq_handler", "el0t_32_fiq_handler", "el0t_64_error_handler", "el0t_32_error_handler",
)  # fmt: skip
_ERROR = "el1h_64_error"
# Interrupts from the kernel, and what registers the handlers that run on the other stack (kernel/irq.c).
_INTERRUPTS = (
    ("irq", "el1h_64_irq_handler", "set_handle_irq"),
    ("fiq", "el1h_64_fiq_handler", "set_handle_fiq"),
)
_OVERFLOW = "handle_bad_stack"
_EVENT = "__sdei_handler"
_DEPTH = 5  # calls between a handler and what dispatches system calls
_LEAST_SYSCALLS = 100
_LOOK_BACK = 12  # instructions between a load of a pointer and its call

Path = tuple[tuple[int, int], ...]  # functions from the handler on, each with its bytes at the site


def arm64_entries(finder: Finder) -> list[Context]:
    """System calls, exceptions, interrupts and firmware's events."""
    return [*_syscalls(finder), *_exceptions(finder), *_interrupts(finder), *_events(finder)]


def _syscalls(finder: Finder) -> list[Context]:
    contexts: list[Context] = []
    for handler_name, way, abi in _SYSCALLS:
        for handler in finder.named(handler_name)[:1]:
            contexts.extend(dispatched(finder, handler, way, abi))
    if not contexts:
        reason = "no handler of system calls was found"
        contexts.append(Context("all", "syscall", (), open=reason))
    return contexts


def dispatched(
    finder: Finder, handler: int, way: str, abi: str, table: Sequence[Dispatched] = ()
) -> Iterator[Context]:
    """Each function of a table of system calls, and what every system call does besides.

    `way`: the function that `handler` calls for them, "": any. `table`: where none of the functions below
    hands its address on.
    """
    paths: list[tuple[int, Path]] = []
    work: dict[Start, None] = {}
    level: list[tuple[int, Path]] = [(handler, ())]
    seen = {handler}
    for number in range(_DEPTH):
        following: list[tuple[int, Path]] = []
        for function, path in level:
            if not table:
                table = _table(finder, function)
            through = _through_table(finder, function)
            if through >= 0 and (number or not way):
                paths.append((function, (*path, (function, through))))
            for site, callee in finder.plain(function):
                if way and number == 0 and finder.name(callee) != way:
                    continue  # another exception
                below = (*path, (function, finder.weight(site)))
                if callee not in seen:
                    seen.add(callee)
                    following.append((callee, below))
                if number or not way:
                    work[Start(callee, sum(size for _, size in below), below)] = None
        level = following
    if not table or not paths:
        reason = "the table of system calls was not found"
        yield Context("all", "syscall", (), open=reason, abi=abi)
        return
    on_path = {function for _, path in paths for function, _ in path}
    yield Context(
        name=f"entry and exit work of {finder.name(handler)}",
        kind="syscall",
        starts=tuple(start for start in work if start.entry not in on_path),
        frame_user=finder.user,
        frame_source=finder.source,
        abi=abi,
    )
    merged: dict[int, int] = {}
    for one in table:
        merged.setdefault(one.callee, one.number)
    for callee, number in merged.items():
        starts = tuple(Start(callee, sum(size for _, size in path), path) for _, path in paths)
        yield Context(
            name=syscall_name(finder.name(callee)),
            kind="syscall",
            starts=starts,
            frame_user=finder.user,
            frame_source=finder.source,
            number=number,
            abi=abi,
        )


def _table(finder: Finder, function: int) -> list[Dispatched]:
    """The table of system calls that a function hands to one that it calls."""
    for site, _ in finder.plain(function):
        for argument in range(len(ARGUMENT_REGISTERS[finder.code.machine])):
            value = argument_value(finder.code, int(finder.calls.address[site]), argument)
            found = read_table(finder.program, finder.code, value, -1) if value is not None else []
            if len(found) >= _LEAST_SYSCALLS:
                return found
    return []


def _through_table(finder: Finder, function: int) -> int:
    """Bytes of a function where it calls what it has loaded from a table by an index, -1: nowhere."""
    kinds = (CallKind.INDIRECT, CallKind.INDIRECT_TAIL)
    return max(
        (
            finder.weight(site)
            for site in finder.sites(function)
            if finder.kind(site) in kinds and _indexed(finder.code, int(finder.calls.address[site]))
        ),
        default=-1,
    )


def _indexed(code: Code, address: int) -> bool:
    """Whether the call there is through `table[index]`, loaded at once or a few instructions before."""
    table, row = code.instructions, code.row_at(address)
    if int(table.flags[row]) & FLAG_MEMORY:
        return int(table.index[row]) != NO_REGISTER and int(table.scale[row]) == code.machine.word
    register = int(table.base[row])
    for at in range(row - 1, max(row - _LOOK_BACK, int(code.first[int(code.function[row])])), -1):
        if int(table.clobbers[at]) >> register & 1:
            indexed = int(table.index[at]) != NO_REGISTER and int(table.scale[at]) == code.machine.word
            return int(table.operation[at]) in (Operation.LOAD, Operation.LOAD_MULTIPLE) and indexed
    return False


def _exceptions(finder: Finder) -> list[Context]:
    """From user mode, on the empty stack of the task: each thing that a handler does. What the kernel itself
    raises nests where it does, by call sites of their own; a system error can come anywhere."""
    ways = {way for _, way, _ in _SYSCALLS}
    contexts = []
    for name in _FROM_USER:
        for handler in finder.named(name)[:1]:
            for site, callee in finder.plain(handler):
                if finder.name(callee) in ways:
                    continue
                size = finder.weight(site)
                contexts.append(
                    Context(
                        name=f"{finder.name(callee)} from {name}",
                        kind="exception",
                        starts=(Start(callee, size, ((handler, size),)),),
                        frame_user=finder.user,
                        frame_source=finder.source,
                    )
                )
    for name in (SYNCHRONOUS, _ERROR):
        for handler in finder.named(f"{name}_handler")[:1]:
            contexts.append(_raised(finder, name, handler, "exception"))
    for handler in finder.named(_OVERFLOW)[:1]:
        contexts.append(_raised(finder, "stack overflow", handler, "double-fault"))
    if not contexts:
        contexts.append(Context("all", "exception", (), open="no handler of exceptions was found"))
    return list({context.name: context for context in contexts}.values())


def _raised(finder: Finder, name: str, handler: int, interrupt: str) -> Context:
    return Context(
        name=name,
        kind="exception",
        starts=(Start(handler),),
        frame_kernel=finder.kernel,
        frame_source=finder.source,
        interrupt=interrupt,
    )


def _interrupts(finder: Finder) -> list[Context]:
    contexts = []
    for name, handler_name, registration in _INTERRUPTS:
        for handler in finder.named(handler_name)[:1]:
            sites, _ = switch_sites(finder, handler)
            roots, missing = registered(finder, registration, 0)
            # The function called there is the one handed over: on the new stack nothing is above it.
            switched = tuple(Start(root) for root in roots) if sites else ()
            behind = ""
            if not sites:
                behind = "where the interrupt changes to its stack was not found"
            elif missing or not roots:
                behind = (
                    f"{missing} calls of {registration} hand over what is no constant"
                    if missing
                    else (f"no call of {registration} was found")
                )
            contexts.append(
                Context(
                    name=name,
                    kind="hardirq",
                    starts=(Start(handler),),
                    frame_kernel=finder.kernel,
                    frame_source=finder.source,
                    interrupt="device",
                    switched=switched,
                    behind=behind,
                    switchers=tuple(dict.fromkeys(int(finder.calls.function[site]) for site in sites)),
                )
            )
    if not contexts:
        contexts.append(Context("all", "hardirq", (), open="no handler of interrupts was found"))
    return contexts


def _events(finder: Finder) -> list[Context]:
    """Firmware's events (SDEI) by their two priorities: the kernel's only interrupts that nothing masks."""
    contexts = []
    for handler in finder.named(_EVENT)[:1]:
        callers = [
            finder.weight(site)
            for site in range(len(finder.calls))
            if handler in finder.callees(site) and finder.kind(site) is CallKind.STACK_SWITCH
        ]
        size = max(callers, default=0)
        for name, kind, interrupt in (
            ("normal event of firmware", "nmi", "nmi"),
            ("critical event of firmware", "exception", "machine-check"),
        ):
            start = Start(handler, size)
            contexts.append(Context(name, kind, (start,), interrupt=interrupt))
    return contexts
