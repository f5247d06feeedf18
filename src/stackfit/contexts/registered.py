"""Functions that code registers to be called later: interrupt handlers, timers, work, threads, callbacks.

Which context a callback runs in is a fact about the kernel's dispatch code, not about the callback: FAMILIES
says it, one entry for each way to register, with the place in the kernel's source that makes the call. The
functions themselves come from the images: whatever code or data puts into the family's places.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from stackfit.calls.constants import argument_value
from stackfit.calls.held import Held
from stackfit.calls.model import Calls
from stackfit.isa.code import Code

__all__ = ["FAMILIES", "PLACES", "Family", "Registered", "Registrations", "find_registered"]


@dataclass(frozen=True)
class Step:
    """A leg of the way from a context's entry to a callback: direct calls lead from one of `starts` (empty:
    the context's entry) to one of `calls`, which calls the next step's start, or the callback, through a
    pointer.

    Of several functions those count that the kernel has: releases and compilers merge and rename them.
    """

    calls: tuple[str, ...]
    starts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """One way to register a function.

    `ways`: kind of the context that calls it, and how; none where that is whoever calls. `places`: what
    holds it (see calls/held.py). `own_prototype`: the callback takes a pointer to the family's own struct,
    so that a function of this prototype whose address is taken is one.
    """

    name: str
    places: tuple[str, ...]
    ways: tuple[tuple[str, tuple[Step, ...]], ...]
    source: str
    own_prototype: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of contexts that may call it."""
        return tuple(kind for kind, _ in self.ways)

    def steps(self, kind: str) -> tuple[Step, ...]:
        """How a context of a kind gets to it; empty where that is not told."""
        return dict(self.ways).get(kind, ())


_SOFTIRQ = Step(("handle_softirqs", "__do_softirq"))  # the first since 6.1.95 and 6.10
_KTHREAD = Step(("kthread",))
_WORK = (_KTHREAD, Step(("process_one_work",), ("worker_thread", "rescuer_thread")))
_PER_CPU_THREAD = (_KTHREAD, Step(("smpboot_thread_fn",), ("smpboot_thread_fn",)))
_RUN_HRTIMER = ("__run_hrtimer", "__hrtimer_run_queues")

FAMILIES = (
    Family(
        "irq handler",
        ("struct irqaction.handler",),
        (("hardirq", (
            # i386: __handle_irq calls it, on the interrupt stack where there is one.
            Step(("__common_interrupt", "common_interrupt", "__handle_irq")),
            Step(
                ("__handle_irq_event_percpu", "handle_irq_event_percpu", "handle_percpu_devid_irq"),
                ("handle_edge_irq", "handle_level_irq", "handle_fasteoi_irq", "handle_simple_irq",
                 "handle_percpu_irq", "handle_percpu_devid_irq"),
            ),
        )),),
        "kernel/irq/handle.c:__handle_irq_event_percpu (a controller behind another one adds to it)",
    ),
    Family(
        "irq thread",
        ("parameter 3 of request_threaded_irq",),
        (("kthread", (
            _KTHREAD,
            Step(("irq_thread",), ("irq_thread",)),
            Step(("irq_thread_fn", "irq_forced_thread_fn"), ("irq_thread_fn", "irq_forced_thread_fn")),
        )),),
        "kernel/irq/manage.c:irq_thread, irq_thread_fn",
    ),
    Family(
        "timer",
        ("struct timer_list.function",),
        (("softirq", (
            _SOFTIRQ, Step(("call_timer_fn", "expire_timers", "__run_timers"), ("run_timer_softirq",)),
        )),),
        "kernel/time/timer.c:call_timer_fn",
        own_prototype=True,
    ),
    Family(
        "hrtimer",
        ("struct hrtimer.function",),
        (
            ("hardirq", (
                Step(("local_apic_timer_interrupt", "__sysvec_apic_timer_interrupt")),
                Step(_RUN_HRTIMER, ("hrtimer_interrupt",)),
            )),
            ("softirq", (_SOFTIRQ, Step(_RUN_HRTIMER, ("hrtimer_run_softirq",)))),
        ),
        "kernel/time/hrtimer.c:__run_hrtimer (soft: by HRTIMER_MODE_SOFT)",
        own_prototype=True,
    ),
    Family(
        "tasklet",
        ("parameter 2 of tasklet_setup", "parameter 2 of tasklet_init", "struct tasklet_struct.callback",
         "struct tasklet_struct.func"),
        (("softirq", (
            _SOFTIRQ,
            Step(
                ("tasklet_action_common", "tasklet_action", "tasklet_hi_action"),
                ("tasklet_action", "tasklet_hi_action"),
            ),
        )),),
        "kernel/softirq.c:tasklet_action_common",
    ),
    Family(
        "softirq action",
        ("parameter 2 of open_softirq", "struct softirq_action.action"),
        (("softirq", (_SOFTIRQ,)),),
        "kernel/softirq.c:__do_softirq",
        own_prototype=True,
    ),
    Family(
        "RCU callback",
        ("parameter 2 of call_rcu", "parameter 2 of call_rcu_hurry"),
        (("softirq", (_SOFTIRQ, Step(("rcu_do_batch",), ("rcu_core_si", "rcu_core")))),),
        "kernel/rcu/tree.c:rcu_do_batch (in a thread with rcu_nocbs or rcutree.use_softirq=0)",
    ),
    Family(
        "NAPI poll",
        ("struct napi_struct.poll",),
        (("softirq", (_SOFTIRQ, Step(("__napi_poll", "napi_poll", "net_rx_action"), ("net_rx_action",)))),),
        "net/core/dev.c:__napi_poll (in a thread with threaded NAPI, in a system call with busy polling)",
        own_prototype=True,
    ),
    Family(
        "irq_work",
        ("struct irq_work.func",),
        (("hardirq", (Step(("irq_work_single",)),)),),
        "kernel/irq_work.c:irq_work_single",
        own_prototype=True,
    ),
    Family(
        "cross-CPU call",
        ("struct __call_single_data.func",),
        (("hardirq", (
            Step(("csd_do_func", "__flush_smp_call_function_queue", "flush_smp_call_function_queue")),
        )),),
        "kernel/smp.c:__flush_smp_call_function_queue (on the calling CPU it is a plain call)",
    ),
    Family(
        "work",
        ("struct work_struct.func",),
        (("kthread", _WORK),),
        "kernel/workqueue.c:process_one_work",
        own_prototype=True,
    ),
    Family(
        "kthread work",
        ("struct kthread_work.func",),
        (("kthread", (_KTHREAD, Step(("kthread_worker_fn",), ("kthread_worker_fn",)))),),
        "kernel/kthread.c:kthread_worker_fn",
        own_prototype=True,
    ),
    Family(
        "thread",
        ("struct kthread_create_info.threadfn", "parameter 1 of kthread_create_on_node",
         "parameter 1 of kthread_create_on_cpu", "parameter 1 of __kthread_create_on_node"),
        (("kthread", (_KTHREAD,)),),
        "kernel/kthread.c:kthread",
    ),
    Family(
        "per-CPU thread",
        ("struct smp_hotplug_thread.thread_fn",),
        (("kthread", _PER_CPU_THREAD),),
        "kernel/smpboot.c:smpboot_thread_fn",
    ),
    Family(
        "stopper",
        ("struct cpu_stop_work.fn",),
        (("kthread", (*_PER_CPU_THREAD, Step(("cpu_stopper_thread",), ("cpu_stopper_thread",)))),),
        "kernel/stop_machine.c:cpu_stopper_thread",
    ),
    Family(
        "async call",
        ("struct async_entry.func",),
        (("kthread", (*_WORK, Step(("async_run_entry_fn",), ("async_run_entry_fn",)))),),
        "kernel/async.c:async_run_entry_fn",
    ),
    Family(
        "SRCU callback",
        ("parameter 3 of call_srcu",),
        (("kthread", (*_WORK, Step(("srcu_invoke_callbacks",), ("srcu_invoke_callbacks",)))),),
        "kernel/rcu/srcutree.c:srcu_invoke_callbacks",
    ),
    Family(
        "notifier",
        ("struct notifier_block.notifier_call",),
        (),
        "kernel/notifier.c:notifier_call_chain: on the stack of whoever calls the chain",
        own_prototype=True,
    ),
)  # fmt: skip
PLACES = tuple(dict.fromkeys(place for family in FAMILIES for place in family.places))

# include/linux/hrtimer.h: the mode that a timer is initialised with decides, whatever it is started with.
_HRTIMER, _HRTIMER_MODE_SOFT = "hrtimer", 4
_HRTIMER_INIT = {
    "hrtimer_init": 2,
    "hrtimer_init_on_stack": 2,
    "hrtimer_init_sleeper": 2,
    "hrtimer_init_sleeper_on_stack": 2,
    "hrtimer_setup": 3,
    "hrtimer_setup_on_stack": 3,
}  # → which argument (from 0) is the mode


@dataclass(frozen=True)
class Registered:
    """A function that is registered. `kinds`: as of its family, or as many of them as are left for it.

    `by_prototype`: where it is put is not known, but its prototype tells.
    """

    function: int
    family: Family
    kinds: tuple[str, ...]
    by_prototype: bool


@dataclass(frozen=True)
class Registrations:
    """`functions`: in order of FAMILIES, then by index. `loose`: of each family, functions that may be
    registered too: it is not known where they are put. `unknown`: families whose places something unknown
    is put into. `known`: whether the program tells anything of places."""

    functions: tuple[Registered, ...]
    loose: Mapping[str, tuple[int, ...]]
    unknown: tuple[str, ...]
    known: bool


def find_registered(code: Code, calls: Calls, held: Mapping[str, Held]) -> Registrations:
    """Functions that the places of FAMILIES hold. `held`: what resolve_indirect() says of PLACES."""
    found: list[Registered] = []
    loose: dict[str, tuple[int, ...]] = {}
    unknown: list[str] = []
    modes = _hrtimer_modes(code, calls) if held else {}
    for family in FAMILIES:
        known = [held[place] for place in family.places if place in held]
        sure = {function for one in known for function in one.functions}
        told = {function for one in known for function in one.alike} - sure if family.own_prototype else set()
        rest = {function for one in known for function in one.loose} - sure - told
        for function in sorted(sure | told):
            kinds = family.kinds
            if family.name == _HRTIMER:
                namers = {namer for one in known for namer in one.namers.get(function, ())}
                kinds = _hrtimer_kinds(modes, namers)
            found.append(Registered(function, family, kinds, function in told))
        if rest:
            loose[family.name] = tuple(sorted(rest))
        if any(one.unknown for one in known):
            unknown.append(family.name)
    return Registrations(tuple(found), loose, tuple(unknown), bool(held))


def _hrtimer_modes(code: Code, calls: Calls) -> dict[int, set[int | None]]:
    """Function → the modes that it initialises hrtimers with; None: one that is not constant."""
    modes: dict[int, set[int | None]] = {}
    for name, argument in _HRTIMER_INIT.items():
        wanted = set(code.functions.named(name))
        sets = [number for number, members in enumerate(calls.candidate_sets) if wanted.issuperset(members)]
        for site in np.flatnonzero(np.isin(calls.candidates, sets)).tolist() if wanted else ():
            value = argument_value(code, int(calls.address[site]), argument)
            modes.setdefault(int(calls.function[site]), set()).add(value)
    return modes


def _hrtimer_kinds(modes: Mapping[int, set[int | None]], namers: Iterable[int]) -> tuple[str, ...]:
    """Contexts of an hrtimer's function: those of the modes that the functions which name it use, if each of
    them initialises timers, with constant modes; else both."""
    namers = list(namers)
    found = {mode for namer in namers for mode in modes.get(namer, {None})}
    if not namers or None in found:
        return ("hardirq", "softirq")
    soft = {bool(mode & _HRTIMER_MODE_SOFT) for mode in found if mode is not None}
    return tuple(kind for kind, is_soft in (("hardirq", False), ("softirq", True)) if is_soft in soft)
