"""The contexts of a Linux kernel for 32-bit Arm: its entry stubs, each of which is followed itself.

The stubs (arch/arm/kernel/entry-armv.S, entry-common.S) make room for the registers and call C functions; an
interrupt moves to the stack for interrupts by `call_with_stack` unless it is on it already. On the way in
each mode uses three words of a stack of its own, which the layout counts.
"""

from __future__ import annotations

from stackfit.calls.model import CallKind
from stackfit.contexts.dispatch import read_table
from stackfit.contexts.linux import Finder, switch_sites
from stackfit.contexts.linux_arm64 import dispatched
from stackfit.contexts.model import Context, Start

__all__ = ["arm_entries"]

_SYSTEM_CALL, _TABLE = "vector_swi", "sys_call_table"
_FROM_USER = ("__dabt_usr", "__pabt_usr", "__und_usr", "__irq_usr", "__fiq_usr")
_FROM_KERNEL = ("__dabt_svc", "__pabt_svc", "__und_svc", "__fiq_svc")
_INTERRUPT, _HANDLER = "__irq_svc", "generic_handle_arch_irq"
_OVERFLOW = "__bad_stack"


def arm_entries(finder: Finder) -> list[Context]:
    """System calls, exceptions, interrupts."""
    contexts: list[Context] = []
    for stub in finder.named(_SYSTEM_CALL)[:1]:
        tables = [int(finder.code.functions.address[one]) for one in finder.named(_TABLE)[:1]]
        table = [one for place in tables for one in read_table(finder.program, finder.code, place, -1)]
        contexts.extend(dispatched(finder, stub, "", "arm", table))
    if not contexts:
        contexts.append(Context("all", "syscall", (), open="the entry of system calls was not found"))
    for name in _FROM_USER:
        for stub in finder.named(name)[:1]:
            contexts.append(Context(name, "exception", (Start(stub),)))
    for name in _FROM_KERNEL:
        for stub in finder.named(name)[:1]:
            contexts.append(Context(name, "exception", (Start(stub),), interrupt="exception"))
    for stub in finder.named(_OVERFLOW)[:1]:
        starts = tuple(
            Start(callee, finder.weight(site), ((stub, finder.weight(site)),))
            for site in finder.sites(stub)
            if finder.kind(site) is CallKind.STACK_SWITCH
            for callee in finder.callees(site)
        )
        reason = "" if starts else "what it calls on its stack is not known"
        contexts.append(Context("stack overflow", "exception", starts, interrupt="double-fault", open=reason))
    for stub in finder.named(_INTERRUPT)[:1]:
        sites, _ = switch_sites(finder, stub)
        handlers = finder.named(_HANDLER)[:1] if sites else []
        contexts.append(
            Context(
                "irq",
                "hardirq",
                (Start(stub),),
                interrupt="device",
                switched=tuple(Start(handler) for handler in handlers),
                behind="" if handlers else "where the interrupt changes to its stack was not found",
                switchers=tuple(dict.fromkeys(int(finder.calls.function[site]) for site in sites)),
            )
        )
    return contexts
