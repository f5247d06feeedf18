"""The contexts of a Linux x86 kernel, read from its image.

System calls: the C entry functions, the dispatcher and each number's own function. Exceptions, interrupts and
NMI: the vectors' handlers. Softirqs: the functions that code registers with open_softirq(). Kernel threads:
those that code hands to kthread_create_on_node() and kernel_thread(). Idle and boot: by their functions. What
cannot be found is a context that is open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stackfit.calls.constants import constant_argument
from stackfit.calls.model import CallKind, Calls
from stackfit.calls.vectors import Vector, entry_bytes
from stackfit.contexts.dispatch import Dispatched, dispatch_table, dispatch_tree
from stackfit.contexts.model import Context, Start
from stackfit.image.model import Machine, Program
from stackfit.isa.code import Code

__all__ = [
    "EMPTY_PREEMPT_COUNT_ONLY",
    "USER_MODE_ONLY",
    "Finder",
    "idle_and_boot",
    "linux_contexts",
    "registered",
    "softirqs",
    "switch_sites",
    "syscall_name",
    "threads",
]

# kernel/entry/common.c (5.8 and later), arch/x86/entry/common.c before: they run only when the interrupted
# registers are user mode's, so never on top of a kernel chain.
USER_MODE_ONLY = (
    "irqentry_enter_from_user_mode",
    "irqentry_exit_to_user_mode",
    "syscall_exit_to_user_mode",
    "exit_to_user_mode_prepare",
    "exit_to_user_mode_loop",
    "prepare_exit_to_usermode",
    "exit_to_usermode_loop",
    "emulate_vsyscall",  # arch/x86/mm/fault.c: for a fetch from the vsyscall page, which only user mode makes
)
# kernel/entry/common.c:raw_irqentry_exit_cond_resched preempts only where preempt_count is 0: never after an
# exception that an interrupt's own code raised.
EMPTY_PREEMPT_COUNT_ONLY = ("preempt_schedule_irq",)
# C functions that the system call entries call (arch/x86/entry/common.c) and the ABI they serve.
_SYSCALL_ENTRIES = {
    Machine.X86_64: (
        ("do_syscall_64", "x86-64"),
        ("do_fast_syscall_32", "compat"),
        ("do_int80_emulation", "compat"),
        ("do_int80_syscall_32", "compat"),
    ),
    Machine.I386: (("do_int80_syscall_32", "i386"), ("do_fast_syscall_32", "i386")),
}
_SYSCALL_PREFIXES = (
    "__x64_compat_sys_", "__ia32_compat_sys_", "__x32_compat_sys_", "__x64_sys_", "__ia32_sys_",
    "__do_compat_sys_", "compat_sys_", "__do_sys_", "__arm64_compat_sys_", "__arm64_sys_",
    "__riscv_sys_", "sys_",
)  # fmt: skip
_SYSCALL_STUB = re.compile(
    r"^(__(x64|ia32|x32|do|se)_(compat_)?sys_|(compat_)?sys_|SyS_)"
)  # include/linux/syscalls.h
_ENTRY_DEPTH = 4  # calls between the C entry function and the dispatcher, or a handler and its stack switch

_INTERRUPT_OF = {"debug": "debug", "machine_check": "machine-check", "double_fault": "double-fault",
                 "vmm_communication": "vmm-communication"}  # fmt: skip
# Linux 6.1 entry_64.S, asm_exc_nmi: iret frame, saved rdx, "NMI executing", two iret frame copies, and 16
# words of registers below.
_NMI_FRAME_64 = (5 + 1 + 1 + 5 + 5 + 16) * 8


@dataclass
class Finder:
    program: Program
    code: Code
    calls: Calls
    first: NDArray[np.int64] = field(init=False)
    user: int = field(init=False)
    kernel: int = field(init=False)
    source: str = field(init=False)

    def __post_init__(self) -> None:
        self.first = np.searchsorted(self.calls.function, np.arange(len(self.code.functions) + 1))
        self.user, user_source = entry_bytes(self.code, from_user=True)
        self.kernel, kernel_source = entry_bytes(self.code, from_user=False)
        self.source = f"from user mode: {user_source}; from the kernel: {kernel_source}"

    def sites(self, function: int) -> range:
        return range(int(self.first[function]), int(self.first[function + 1]))

    def callees(self, site: int) -> tuple[int, ...]:
        number = int(self.calls.candidates[site])
        return self.calls.candidate_sets[number] if number >= 0 else ()

    def kind(self, site: int) -> CallKind:
        return CallKind(int(self.calls.kind[site]))

    def weight(self, site: int) -> int:
        """Bytes from the caller's entry to the callee's."""
        return int(self.calls.depth[site]) - (self.code.machine.return_bytes if self.calls.tail[site] else 0)

    def plain(self, function: int) -> Iterable[tuple[int, int]]:
        """(site, callee) of the function's own calls on this stack, exceptions left out."""
        for site in self.sites(function):
            if self.kind(site) not in (CallKind.EXCEPTION, CallKind.STACK_SWITCH):
                for callee in self.callees(site):
                    yield site, callee

    def named(self, *names: str) -> list[int]:
        return [index for name in names for index in self.code.functions.named(name)]

    def name(self, function: int) -> str:
        return self.code.functions.names[function]


def linux_contexts(program: Program, code: Code, calls: Calls, vectors: list[Vector]) -> list[Context]:
    """All contexts, in order: system calls, exceptions, interrupts, softirqs, NMI, threads, idle, boot."""
    finder = Finder(program, code, calls)
    return [
        *_syscalls(finder),
        *_exceptions(finder, vectors),
        *_interrupts(finder, vectors),
        *softirqs(finder),
        *_nmi(finder, vectors),
        *threads(finder),
        *idle_and_boot(finder),
    ]


# ---------------------------------------------------------------- system calls


def _syscalls(finder: Finder) -> list[Context]:
    merged: dict[tuple[str, int], list[Start]] = {}
    numbers: dict[tuple[str, int], int] = {}
    contexts: list[Context] = []
    entries = 0
    for entry_name, abi in _SYSCALL_ENTRIES[finder.code.machine]:
        for entry in finder.named(entry_name):
            entries += 1
            paths = _dispatch_paths(finder, entry)
            for path, dispatched in paths:
                through = tuple((int(finder.calls.function[site]), finder.weight(site)) for site in path)
                above = sum(size for _, size in through)
                dispatcher = entry if not path else finder.callees(path[-1])[0]
                by_address = {int(finder.calls.address[site]): site for site in finder.sites(dispatcher)}
                last = max(by_address.values(), default=-1)
                for one in dispatched:
                    site = by_address.get(int(finder.code.address[one.row]), last)
                    size = finder.weight(site)
                    start = Start(one.callee, above + size, (*through, (dispatcher, size)))
                    abi_here = (
                        abi if finder.code.machine is Machine.I386 else _abi(finder.name(one.callee), abi)
                    )
                    merged.setdefault((abi_here, one.callee), []).append(start)
                    numbers.setdefault((abi_here, one.callee), one.number)
            contexts.append(_entry_work(finder, entry, abi, [path for path, _ in paths]))
    for (abi, callee), starts in merged.items():
        contexts.append(
            Context(
                name=syscall_name(finder.name(callee)),
                kind="syscall",
                starts=tuple(dict.fromkeys(starts)),
                frame_user=finder.user,
                frame_source=finder.source,
                number=numbers[abi, callee],
                abi=abi,
            )
        )
    if not entries:
        contexts.append(Context("all", "syscall", (), open="no system call entry function was found"))
    elif not merged:
        contexts.append(
            Context("all", "syscall", (), open="the dispatcher or table of system calls was not found")
        )
    return sorted(contexts, key=lambda context: (context.abi, context.number, context.name))


def _abi(callee: str, abi: str) -> str:
    return "x32" if callee.startswith(("__x32_", "__x64_compat_")) else abi


def syscall_name(function: str) -> str:
    return next(
        (function.removeprefix(prefix) for prefix in _SYSCALL_PREFIXES if function.startswith(prefix)),
        function,
    )


def _dispatch_paths(finder: Finder, entry: int) -> list[tuple[tuple[int, ...], list[Dispatched]]]:
    """(sites from the entry function to a dispatcher, what it dispatches), for each one near the entry."""
    found = []
    seen = {entry}
    level: list[tuple[int, tuple[int, ...]]] = [(entry, ())]
    for _ in range(_ENTRY_DEPTH):
        following: list[tuple[int, tuple[int, ...]]] = []
        for function, path in level:
            stubs = {
                callee for _, callee in finder.plain(function) if _SYSCALL_STUB.match(finder.name(callee))
            }
            dispatched = (
                dispatch_tree(finder.code, function)
                if len(stubs) > 1
                else dispatch_table(finder.program, finder.code, function)
            )
            if dispatched:
                found.append((path, dispatched))
                continue
            for site, callee in finder.plain(function):
                if callee not in seen:
                    seen.add(callee)
                    following.append((callee, (*path, site)))
        level = following
    return found


def _entry_work(finder: Finder, entry: int, abi: str, paths: list[tuple[int, ...]]) -> Context:
    """What every system call does besides its own function: enter, exit, signals, task work, tracing."""
    on_path = {site for path in paths for site in path}
    functions: list[tuple[int, int, tuple[tuple[int, int], ...]]] = [(entry, 0, ())] if not paths else []
    for path in paths:
        above = 0
        through: tuple[tuple[int, int], ...] = ()
        for site in path:
            function = int(finder.calls.function[site])
            functions.append((function, above, through))
            through = (*through, (function, finder.weight(site)))
            above += finder.weight(site)
    starts: dict[Start, None] = {}
    for function, above, through in functions:
        for site, callee in finder.plain(function):
            if site not in on_path:
                size = finder.weight(site)
                starts[Start(callee, above + size, (*through, (function, size)))] = None
    return Context(
        name=f"entry and exit work of {finder.name(entry)}",
        kind="syscall",
        starts=tuple(starts),
        frame_user=finder.user,
        frame_source=finder.source,
        abi=abi,
    )


# ---------------------------------------------------------------- exceptions, interrupts, NMI


def _exceptions(finder: Finder, vectors: list[Vector]) -> list[Context]:
    contexts = [
        Context(
            name=vector.name,
            kind="exception",
            starts=(Start(vector.handler),),
            frame_user=finder.user,
            frame_kernel=finder.kernel,
            frame_source=finder.source,
            interrupt=_INTERRUPT_OF.get(vector.name, "exception"),
            number=vector.number,
        )
        for vector in vectors
        if vector.kind == "exception" and vector.name != "nmi"
    ]
    if not contexts:
        contexts.append(Context("all", "exception", (), open="no exception entry was found"))
    return sorted(contexts, key=lambda context: (context.number < 0, context.number, context.name))


def _interrupts(finder: Finder, vectors: list[Vector]) -> list[Context]:
    contexts = []
    for vector in vectors:
        if vector.kind == "exception":
            continue
        sites, own = switch_sites(finder, vector.handler)
        kind = vector.kind
        # On i386 system vectors never switch; spurious_interrupt, entered like a device's, does not either.
        if not sites and (kind == "device" or finder.code.machine is Machine.X86_64):
            kind = "simple-vector"
        contexts.append(
            Context(
                name=vector.name,
                kind="hardirq",
                starts=(Start(vector.handler),),
                frame_user=finder.user,
                frame_kernel=finder.kernel,
                frame_source=finder.source,
                interrupt=kind,
                interrupted=_staying(finder, vector.handler, sites) if own else (),
                switched=_switched(finder, sites),
                behind=_behind(finder, sites),
                switchers=tuple(dict.fromkeys(int(finder.calls.function[site]) for site in sites)),
            )
        )
    if not contexts:
        contexts.append(Context("all", "hardirq", (), open="no interrupt entry was found"))
    return sorted(contexts, key=lambda context: context.name)


def switch_sites(finder: Finder, handler: int) -> tuple[list[int], bool]:
    """(sites at which a handler goes on on another stack, whether they are its own).

    The switch is in the handler itself (x86-64, arch/x86/include/asm/irq_stack.h) or a few plain calls below
    (i386, arch/x86/kernel/irq_32.c). Softirqs switch for themselves and are another context.
    """
    own = [site for site in finder.sites(handler) if finder.kind(site) is CallKind.STACK_SWITCH]
    if own:
        return own, True
    found: list[int] = []
    level, seen = [handler], {handler}
    for _ in range(_ENTRY_DEPTH):
        following = []
        for function in level:
            found.extend(
                site for site in finder.sites(function) if finder.kind(site) is CallKind.STACK_SWITCH
            )
            for _, callee in finder.plain(function):
                if (
                    callee not in seen
                    and finder.name(callee) not in _NOT_BELOW
                    and "softirq" not in finder.name(callee)
                ):
                    seen.add(callee)
                    following.append(callee)
        level = following
    return found, False


_NOT_BELOW = ("__switch_to_asm",)  # to another task's stack, not to one for interrupts


def _switched(finder: Finder, sites: list[int]) -> tuple[Start, ...]:
    """What is known to run on the other stack, counted from its top."""
    starts = [
        Start(callee, finder.weight(site), ((int(finder.calls.function[site]), finder.weight(site)),))
        for site in sites
        for callee in finder.callees(site)
    ]
    return tuple(dict.fromkeys(starts))


def _behind(finder: Finder, sites: list[int]) -> str:
    """Why not all that runs on the other stack is known, else ""."""
    for site in sites:
        if not finder.callees(site):
            name = finder.name(int(finder.calls.function[site]))
            return f"what {name} calls on the other stack is not known: an indirect call"
    return ""


def _staying(finder: Finder, handler: int, sites: list[int]) -> tuple[Start, ...]:
    """What a handler calls on the stack that it interrupts.

    Its copies of the same calls without a switch run from user mode, or on the other stack already.
    """
    moved = {callee for site in sites for callee in finder.callees(site)}
    starts = [
        Start(callee, finder.weight(site), ((handler, finder.weight(site)),))
        for site, callee in finder.plain(handler)
        if callee not in moved
    ]
    return tuple(dict.fromkeys(starts))


def _nmi(finder: Finder, vectors: list[Vector]) -> list[Context]:
    handlers = [vector.handler for vector in vectors if vector.name == "nmi"]
    if not handlers:
        return [Context("nmi", "nmi", (), open="no NMI entry was found", interrupt="nmi")]
    kernel = _NMI_FRAME_64 if finder.code.machine is Machine.X86_64 else finder.kernel
    return [
        Context(
            name="nmi",
            kind="nmi",
            starts=tuple(Start(handler) for handler in handlers),
            frame_user=finder.user,
            frame_kernel=kernel,
            frame_source=finder.source + "; NMI on its own stack: arch/x86/entry/entry_64.S:asm_exc_nmi",
            interrupt="nmi",
            number=2,
        )
    ]


# ---------------------------------------------------------------- softirqs


def softirqs(finder: Finder) -> list[Context]:
    """`__do_softirq` itself and each action that code registers with open_softirq()."""
    cores = finder.named("handle_softirqs", "__do_softirq")  # the first since 6.1.95 and 6.10
    if not cores:
        return [Context("all", "softirq", (), open="__do_softirq was not found", interrupt="softirq")]
    core = cores[0]
    # What starts on the stack is __do_softirq; with frame pointers its call of the other leaves a frame.
    outer = [
        (caller, finder.weight(site))
        for caller in cores[1:]
        for site, callee in finder.plain(caller)
        if callee == core
    ]
    lead: tuple[tuple[int, int], ...] = (max(outer, key=lambda one: one[1]),) if outer else ()
    entry = lead[0][0] if lead else core
    # What the switch of stacks calls (arch/arm64/kernel/irq.c) calls __do_softirq in turn.
    below = [
        (caller, finder.weight(site))
        for caller in finder.named("____do_softirq")
        for site, callee in finder.plain(caller)
        if callee == entry
    ]
    if below:
        lead = (max(below, key=lambda one: one[1]), *lead)
        entry = lead[0][0]
    contexts = [Context("core", "softirq", (Start(entry),), interrupt="softirq")]
    through = [
        site
        for site in finder.sites(core)
        if finder.kind(site) in (CallKind.INDIRECT, CallKind.INDIRECT_TAIL)
    ]
    size = max((finder.weight(site) for site in through), default=0)
    actions, missing = registered(finder, "open_softirq", 1)
    above = (*lead, (core, size))
    for action in actions:
        start = Start(action, sum(weight for _, weight in above), above)
        contexts.append(Context(finder.name(action), "softirq", (start,), interrupt="softirq"))
    if missing:
        contexts.append(
            Context(
                "others",
                "softirq",
                (),
                open=f"{missing} open_softirq() calls without a constant action",
                interrupt="softirq",
            )
        )
    return contexts


# Functions with a printf-like tail: on i386 all their arguments go on the stack.
_VARIADIC = ("kthread_create_on_node", "__kthread_create_on_node")


def registered(finder: Finder, function: str, argument: int) -> tuple[list[int], int]:
    """Functions handed to a registration function as constants, and how many calls hand over others."""
    found: dict[int, None] = {}
    missing = 0
    variadic = function in _VARIADIC
    for callee in finder.named(function):
        for site in np.flatnonzero(finder.calls.candidates == _set_of(finder.calls, callee)).tolist():
            target = constant_argument(finder.code, int(finder.calls.address[site]), argument, variadic)
            if target >= 0:
                found[target] = None
            else:
                missing += 1
    return sorted(found, key=finder.name), missing


def _set_of(calls: Calls, function: int) -> int:
    try:
        return calls.candidate_sets.index((function,))
    except ValueError:
        return -2


# ---------------------------------------------------------------- threads, idle, boot


def threads(finder: Finder) -> list[Context]:
    contexts = []
    makers: list[tuple[str, int, Callable[[int], tuple[Start, ...]]]] = [
        ("kthread_create_on_node", 0, lambda entry: _below_kthread(finder, entry)),
        ("kthread_create_on_cpu", 0, lambda entry: _below_kthread(finder, entry)),
        ("__kthread_create_on_node", 0, lambda entry: _below_kthread(finder, entry)),
        ("kernel_thread", 0, lambda entry: (Start(entry),)),
        ("user_mode_thread", 0, lambda entry: (Start(entry),)),
    ]
    seen: set[int] = set()
    missing = 0
    for function, argument, starts in makers:
        entries, unknown = registered(finder, function, argument)
        missing += unknown
        for entry in entries:
            if entry not in seen:
                seen.add(entry)
                contexts.append(
                    Context(
                        finder.name(entry),
                        "kthread",
                        starts(entry),
                        frame_user=finder.user,
                        frame_source=finder.source,
                    )
                )
    contexts.sort(key=lambda context: context.name)
    if missing:
        contexts.append(
            Context(
                "others",
                "kthread",
                (),
                open=f"{missing} thread functions are not constants where the thread is made",
            )
        )
    return contexts


def _below_kthread(finder: Finder, entry: int) -> tuple[Start, ...]:
    """kernel/kthread.c:kthread() calls the thread's function through a pointer."""
    cores = finder.named("kthread")
    if not cores:
        return (Start(entry),)
    sizes = [finder.weight(site) for site in finder.sites(cores[0]) if finder.kind(site) is CallKind.INDIRECT]
    size = max(sizes, default=0)
    return (Start(entry, size, ((cores[0], size),)),)


def idle_and_boot(finder: Finder) -> list[Context]:
    contexts = []
    for kind, names in (
        ("idle", ("cpu_startup_entry",)),
        ("boot", ("start_kernel",)),
        ("boot", ("x86_64_start_kernel", "i386_start_kernel")),
        ("boot", ("start_secondary",)),
        ("boot", ("secondary_start_kernel", "smp_callin")),
    ):
        for entry in finder.named(*names)[:1]:
            contexts.append(Context(finder.name(entry), kind, (Start(entry),)))
    if not any(context.kind == "boot" for context in contexts):
        contexts.append(Context("all", "boot", (), open="start_kernel was not found"))
    return contexts
