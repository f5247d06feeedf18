"""The contexts of a Linux kernel, of whichever machine."""

from __future__ import annotations

from stackfit.calls.model import Calls
from stackfit.calls.vectors import Vector
from stackfit.contexts.linux import Finder, idle_and_boot, linux_contexts, softirqs, threads
from stackfit.contexts.linux_arm import arm_entries
from stackfit.contexts.linux_arm64 import arm64_entries
from stackfit.contexts.model import Context
from stackfit.image.model import Machine, Program
from stackfit.isa.code import Code

__all__ = ["kernel_contexts"]


def kernel_contexts(program: Program, code: Code, calls: Calls, vectors: list[Vector]) -> list[Context]:
    """All contexts, in order: system calls, exceptions, interrupts, softirqs, threads, idle, boot."""
    if code.machine.x86:
        return linux_contexts(program, code, calls, vectors)
    finder = Finder(program, code, calls)
    if code.machine is Machine.AARCH64:
        entries = arm64_entries(finder)
    elif code.machine is Machine.ARM:
        entries = arm_entries(finder)
    else:
        reason = f"what enters the kernel on {code.machine.value} is not read from its code"
        entries = [Context("all", kind, (), open=reason) for kind in ("syscall", "exception", "hardirq")]
    return [*entries, *softirqs(finder), *threads(finder), *idle_and_boot(finder)]
