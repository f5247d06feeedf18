"""The stacks of a system: how big they are, what is reserved on them, which contexts run on which.

Plain frozen data; all sizes are bytes. A stack's top is its highest address, its base the lowest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stackfit.image.model import Machine

__all__ = [
    "ALLOCATIONS",
    "CONTEXT_KINDS",
    "INTERRUPTED",
    "INTERRUPT_CONTEXTS",
    "PAGE",
    "SCOPES",
    "Declared",
    "Handler",
    "Interrupt",
    "Layout",
    "PriorityForm",
    "Stack",
    "TaskStack",
]

PAGE = 4096  # bytes of the smallest page, i386 and x86-64 (arch/x86/include/asm/page_types.h:PAGE_SIZE)

SCOPES = ("process", "cpu", "system")
ALLOCATIONS = ("contiguous", "vmalloc", "static", "dynamic")
CONTEXT_KINDS = (
    "syscall",
    "exception",
    "hardirq",
    "softirq",
    "nmi",
    "kthread",
    "idle",
    "boot",
    "task",
    "isr",
)

#: The target of an interrupt that switches no stack.
INTERRUPTED = "interrupted"

#: Each interrupt kind and the context kind that its handler is.
INTERRUPT_CONTEXTS: Mapping[str, str] = {
    "device": "hardirq",
    "system-vector": "hardirq",  # local APIC timer and inter-processor interrupts
    "simple-vector": "hardirq",  # those that never switch: DEFINE_IDTENTRY_SYSVEC_SIMPLE
    "isr": "isr",  # of firmware
    "softirq": "softirq",
    "nmi": "nmi",
    "exception": "exception",  # every exception without a line of its own
    "debug": "exception",
    "machine-check": "exception",
    "double-fault": "exception",
    "vmm-communication": "exception",
    "vmm-communication-fallback": "exception",  # raised while on a stack that cannot take it
}


@dataclass(frozen=True)
class Stack:
    """One kind of stack.

    `runs`: context kinds that start on it by default; `entry`: those whose way from user mode crosses it
    before the entry code switches away. `nests`: how many contexts of a kind can be on top of the one that
    started here, all at once; each leaves here what it pushes before it switches to another stack, and
    everything if it does not switch. `mapped` and `reserve_per_cpu` are those of a `dynamic` stack: the
    bytes it has from the start, and the bytes each CPU keeps ready to grow stacks in a fault; `size` is
    then the most that it grows to. `unit`: sizes that can be had are multiples of it. `sources` says where
    each number comes from (`size`, `nests.hardirq`, …).
    """

    name: str
    per: str
    size: int
    allocation: str
    reserve_base: int = 0
    reserve_top: int = 0
    runs: tuple[str, ...] = ()
    entry: tuple[str, ...] = ()
    nests: Mapping[str, int] = field(default_factory=dict)
    mapped: int | None = None
    reserve_per_cpu: int | None = None
    unit: int = PAGE
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def reserved(self) -> int:
        """Bytes of both reserves."""
        return self.reserve_base + self.reserve_top

    @property
    def usable(self) -> int:
        """Bytes that frames can take: the size without both reserves."""
        return self.size - self.reserved

    @property
    def pages(self) -> int:
        """Whole pages that the stack's size takes."""
        return -(-self.size // PAGE)

    @property
    def order(self) -> int | None:
        """n of the order-n block (2^n adjacent pages) that a contiguous stack is; None for the others."""
        return (self.pages - 1).bit_length() if self.allocation == "contiguous" else None


@dataclass(frozen=True)
class Interrupt:
    """Which stack a kind of interrupt runs on: a stack's name, or INTERRUPTED.

    `from_kernel` when it hits kernel code, `from_user` when it hits user mode.
    """

    kind: str
    from_kernel: str
    from_user: str
    source: str = ""

    @property
    def context(self) -> str:
        """The context kind that the handler is."""
        return INTERRUPT_CONTEXTS[self.kind]


@dataclass(frozen=True)
class Handler:
    """A handler of firmware, by the exception's name or its function's, and its preemption priority: a lower
    number preempts a higher."""

    name: str
    priority: int


@dataclass(frozen=True)
class TaskStack:
    """A task that an image's code does not tell: its entry function and the bytes of its stack.
    `saved`: bytes that the context switch puts there; None: as the image tells."""

    name: str
    entry: str
    size: int
    saved: int | None = None


@dataclass(frozen=True)
class PriorityForm:
    """Which part of a priority of Cortex-M tells what preempts what: `group` is AIRCR.PRIGROUP, `bits` how
    many the processor has. None: not said; with either, priorities are bytes as in the registers."""

    group: int | None = None
    bits: int | None = None


@dataclass(frozen=True)
class Declared:
    """What a file says of firmware that its image does not tell. `path`: of the file."""

    handlers: tuple[Handler, ...] = ()
    tasks: tuple[TaskStack, ...] = ()
    priorities: PriorityForm = PriorityForm()
    path: str = ""


@dataclass(frozen=True)
class Layout:
    """The stacks of a system. `handlers`, `tasks` and `priorities`: what a file says of firmware. `machine`
    None: any; `assumptions`: what it takes for granted, for people."""

    name: str
    description: str
    machine: Machine | None
    source: str
    stacks: tuple[Stack, ...]
    interrupts: tuple[Interrupt, ...] = ()
    assumptions: tuple[str, ...] = ()
    path: str = ""
    handlers: tuple[Handler, ...] = ()
    tasks: tuple[TaskStack, ...] = ()
    priorities: PriorityForm = PriorityForm()

    def stack(self, name: str) -> Stack:
        """The stack of that name; KeyError if the layout has none."""
        for stack in self.stacks:
            if stack.name == name:
                return stack
        raise KeyError(name)

    def home(self, context: str) -> Stack | None:
        """The stack whose `runs` names the context kind, or None."""
        for stack in self.stacks:
            if context in stack.runs:
                return stack
        return None

    def interrupt(self, kind: str) -> Interrupt | None:
        """The line for that interrupt kind, or None."""
        for interrupt in self.interrupts:
            if interrupt.kind == kind:
                return interrupt
        return None

    def target(self, kind: str, *, user: bool) -> str:
        """Where an interrupt of `kind` runs: a stack's name or INTERRUPTED.

        A kind without a line of its own switches nowhere from the kernel (the deeper case for the stack
        that it hits) and runs from user mode where syscalls do.
        """
        line = self.interrupt(kind)
        if line is not None:
            return line.from_user if user else line.from_kernel
        home = self.home("syscall") if user else None
        return home.name if home is not None else INTERRUPTED

    def starts(self, name: str) -> tuple[str, ...]:
        """Context kinds that can start on the empty stack `name`: its `runs` and interrupts sent to it."""
        landing = {line.context for line in self.interrupts if name in (line.from_kernel, line.from_user)}
        kinds = landing.union(self.stack(name).runs)
        return tuple(kind for kind in CONTEXT_KINDS if kind in kinds)
