"""What a number rests on: open items and assumptions below it; the certain part of a chain; the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.bounds.model import Bound
from stackfit.calls.model import CallKind, Calls, Evidence, Reason, Rung
from stackfit.frames.model import Frames
from stackfit.layouts.model import Layout, Stack
from stackfit.verdict.limits import AppliedLimits
from stackfit.verdict.model import OpenItems, Verdict

__all__ = ["Below", "assumed", "certain", "decide", "layout_assumptions", "open_items"]

UNLISTED = "recursion without a budget, counted once"
OPEN_FRAME = "frame of unknown size"
USER_ONLY = (
    "functions on the way back to user mode do not run on top of interrupted kernel code"
    " (kernel/entry/common.c: they run when the interrupted registers are user mode's)"
)
NOT_PREEMPTED = (
    "an exception raised in an interrupt ends without preemption: preempt_count is not 0 there"
    " (kernel/entry/common.c:raw_irqentry_exit_cond_resched)"
)
_NO_CASTS = (
    "no function is cast to another type, objects have the type that their uses or their shape tell, and a"
    " pointer that goes where nothing is known goes to a place of its prototype"
)
RUNG_ASSUMPTIONS = {
    Rung.STATIC_CALL: "static calls have their initial target or one set by name: tracing is off",
    Rung.PARAVIRT: "pv_ops hold native functions, as in the image: no hypervisor overrides them",
    Rung.CONSTANT: "a function's address kept on the stack until the call is not changed there",
    Rung.GLOBAL: "global function pointers hold what initialises them or is stored to them by name",
    Rung.FIELD: f"calls through a field reach what is put into that field: {_NO_CASTS}",
    Rung.CONTAINER: f"a pointer outside its type's struct is in a struct that embeds it: {_NO_CASTS}",
    Rung.PARAMETER: f"callbacks handed over are those that callers name: {_NO_CASTS}",
    Rung.LIST: "a hook list is walked by the function that names its head",
    Rung.VIRTUAL: "virtual calls reach what tables of virtual functions hold: objects are of the class that"
    " their pointers say, or derived from it",
    Rung.KCFI: "checked calls reach functions of their type in the images given: kCFI is on, and enforced",
    Rung.SIGNATURE: "calls of a known prototype reach functions of that prototype alone: no function is cast",
}


@dataclass(frozen=True, eq=False)
class Below:
    """What chains can pass: `seen` functions, those `unlisted` (recursive without a budget), both bool by
    function; stack switches that are `plain` calls there (bool by site: what the others lead to is on another
    stack); whether something interrupts kernel code."""

    seen: NDArray[np.bool_]
    unlisted: NDArray[np.bool_]
    plain: NDArray[np.bool_]
    kernel: bool

    @property
    def hypothetical(self) -> bool:
        return bool(self.plain.any())


def open_items(calls: Calls, applied: AppliedLimits, below: Below, reasons: Iterable[str] = ()) -> OpenItems:
    """Open items below, by reason. `reasons`: contexts of which nothing is known."""
    counts: Counter[str] = Counter(reasons)
    live = below.seen & (applied.limits.cut < 0)
    sites = calls.open & live[calls.function] & ((calls.kind != CallKind.STACK_SWITCH) | below.plain)
    for reason, count in enumerate(np.bincount(calls.reason[sites]).tolist()):
        if count:
            counts[Reason(reason).label] += count
    for label, functions in ((UNLISTED, below.unlisted), (OPEN_FRAME, live & applied.limits.open_frame)):
        if functions.any():
            counts[label] += int(functions.sum())
    return OpenItems(tuple(sorted(counts.items())))


def assumed(calls: Calls, applied: AppliedLimits, below: Below) -> tuple[str, ...]:
    """Assumptions about the functions below."""
    texts = [text for function, text in sorted(applied.by_function.items()) if below.seen[function]]
    if below.kernel:
        texts += [text for function, text in sorted(applied.sleeps.items()) if below.seen[function]]
        if (below.seen & applied.preempts).any():
            texts.append(NOT_PREEMPTED)
    live = below.seen & (applied.limits.cut < 0)
    sites = live[calls.function] & (calls.evidence == Evidence.ASSUMED)
    told = calls.assumption[sites]
    texts += [calls.assumptions[number] for number in np.unique(told[told >= 0]).tolist()]
    for rung in np.unique(calls.rung[sites & (calls.assumption < 0)]).tolist():
        texts.append(RUNG_ASSUMPTIONS.get(Rung(rung), Rung(rung).label))
    if (below.seen & applied.user_only).any():
        texts.append(USER_ONLY)
    return tuple(dict.fromkeys(texts))


def layout_assumptions(layout: Layout, stack: Stack, hypothetical: bool) -> tuple[str, ...]:
    """What the layout takes for granted, the numbers of nested contexts included."""
    texts = [f"layout {layout.name}: {text}" for text in layout.assumptions]
    for kind, times in sorted(stack.nests.items()):
        source = stack.sources.get(f"nests.{kind}", "")
        texts.append(
            f"layout {layout.name}: at most {times} {kind} on top on {stack.name}"
            + (f" — {source}" if source else "")
        )
    if hypothetical:
        texts.append(f"layout {layout.name}: stack switches that it does not have are plain calls")
    return tuple(texts)


def certain(chain: Bound, calls: Calls, applied: AppliedLimits, frames: Frames) -> int:
    """Bytes of a chain down to its first assumption, without what bounds of dynamic frames and cuts add."""
    total = 0
    limits = applied.limits
    for link in chain.chain:
        ends = link.site < 0 or int(limits.cut[link.function]) >= 0
        if ends:
            return total + int(frames.frame[link.function])
        total += link.depth - int(limits.shift[link.function])
        if int(calls.evidence[link.site]) != Evidence.PROVED:
            return total
    return total


def decide(
    size: int, measured: int | None, sure: int, bound: int | None, unknown: int, assumptions: int
) -> tuple[Verdict, str]:
    """The first verdict that holds, and why.

    Bytes, the stack's reserves in: `size` of the stack, `measured`, `sure` a concrete chain without any
    assumption, `bound` (None: not finite). `unknown` and `assumptions` count what is open and assumed.
    """
    if measured is not None and measured > size:
        return Verdict.EXCEEDS, f"{measured} B measured"
    if sure > size:
        return Verdict.MAY_EXCEED, f"a chain of {sure} B without any assumption in it"
    if bound is None:
        return Verdict.UNKNOWN, "no finite bound"
    if unknown:
        return Verdict.UNKNOWN, f"{unknown} open item" + ("s" if unknown > 1 else "")
    if bound > size:
        return Verdict.UNKNOWN, "the bound is above the size, no concrete chain found is"
    if assumptions:
        return Verdict.FITS_IF, f"{assumptions} assumption" + ("s" if assumptions > 1 else "")
    return Verdict.FITS, "proved"
