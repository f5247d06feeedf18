"""Assumptions put on a program's functions: names to arrays, with what was used and what named nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.assumptions import AssumptionSet
from stackfit.assumptions.model import Entry
from stackfit.bounds.model import Limits
from stackfit.calls.model import Calls
from stackfit.contexts.linux import EMPTY_PREEMPT_COUNT_ONLY, USER_MODE_ONLY
from stackfit.frames.model import OPEN_FRAME, Frames
from stackfit.isa.code import Code

__all__ = ["AppliedLimits", "apply_assumptions", "plain_name"]

# What gcc makes of a function keeps its budget and cut: a clone specialised for constants or with changed
# arguments, or the rest of a partly inlined one.
_CLONE = re.compile(r"^(?P<base>[^.]+)(\.(isra|constprop|part)(\.\d+)?)+$")


def plain_name(name: str) -> str:
    """The name of the function that a clone was made of; other names as they are."""
    clone = _CLONE.match(name) if "." in name else None
    return clone["base"] if clone else name


@dataclass(frozen=True, eq=False)
class AppliedLimits:
    """`limits` for chains from user mode and threads; `kernel` the same for what interrupts the kernel: it
    neither returns to user mode nor sleeps."""

    limits: Limits
    kernel: Limits
    user_only: NDArray[np.bool_]  # functions that run only on the way back to user mode
    preempts: NDArray[np.bool_]  # … only where what an exception interrupted is no interrupt
    by_function: dict[int, str]  # function → the assumption that it carries, for people
    sleeps: dict[int, str]  # … and the one that it carries only where the kernel is interrupted
    carriers: dict[Entry, tuple[int, ...]]  # budget or cut → the functions that carry it


def apply_assumptions(
    code: Code, frames: Frames, assumptions: AssumptionSet, calls: Calls | None = None
) -> AppliedLimits:
    """Arrays by function of everything that assumptions say of frames, budgets and cuts.

    What a call site is charged for code that no image has belongs to the caller's frame.

    A frame that tracking could not bound is open unless a `[[dynamic]]` entry bounds it; such an entry for
    a function whose frame is bounded anyway changes nothing (the derived number is the better evidence).
    """
    functions = code.functions
    count = len(functions)
    frame = frames.frame.astype(np.int32).copy()
    times = np.zeros(count, np.int32)
    cut = np.full(count, -1, np.int32)
    shift = np.zeros(count, np.int32)
    user_only = np.zeros(count, np.bool_)
    preempts = np.zeros(count, np.bool_)
    by_function: dict[int, str] = {}
    sleeps: dict[int, str] = {}
    carriers: dict[Entry, list[int]] = {}
    open_frame = (frames.summary & OPEN_FRAME) != 0
    entries = (*assumptions.budgets, *assumptions.cuts, *assumptions.sleeps, *assumptions.dynamics)
    named = {entry.subject for entry in entries if entry.match == "exact"}
    globs = any(entry.match != "exact" for entry in entries)
    for index, (name, aliases) in enumerate(zip(functions.names, functions.aliases, strict=True)):
        for text in dict.fromkeys((name, *aliases, plain_name(name))):
            if text in USER_MODE_ONLY:
                user_only[index] = True
            if text in EMPTY_PREEMPT_COUNT_ONLY:
                preempts[index] = True
            if not globs and text not in named:
                continue
            budget = assumptions.budget(text)
            if budget is not None and not times[index]:
                times[index] = budget.times
                carriers.setdefault(budget, []).append(index)
                by_function[index] = f"budget {text}: at most {budget.times} on a chain — {budget.reason}"
            charge = assumptions.cut(text)
            if charge is not None and cut[index] < 0:
                cut[index] = max(charge.charge, int(frame[index]))
                carriers.setdefault(charge, []).append(index)
                by_function[index] = f"cut at {text}: {charge.charge} B — {charge.reason}"
            sleeping = assumptions.sleeping(text)
            if sleeping is not None:
                sleeps[index] = f"not below {text} in an interrupt: {sleeping.reason}"
            dynamic = assumptions.dynamic(text)
            if dynamic is not None and open_frame[index]:
                shift[index] = max(dynamic.bytes - int(frame[index]), 0)
                frame[index] = max(dynamic.bytes, int(frame[index]))
                open_frame[index] = False
                by_function[index] = f"frame of {text}: at most {dynamic.bytes} B — {dynamic.reason}"
    if calls is not None:
        charged = np.flatnonzero(calls.charge > 0)
        owner = calls.function[charged]
        np.maximum.at(frame, owner, (calls.depth + calls.charge)[charged] + shift[owner])
    # What may sleep ends with its own frame on top of interrupted code.
    kernel_cut = cut.copy()
    asleep = [index for index in sleeps if cut[index] < 0]
    kernel_cut[asleep] = frame[asleep]
    kernel_cut[user_only] = 0
    kernel_frame = np.where(user_only, 0, frame).astype(np.int32)
    return AppliedLimits(
        Limits(frame, times, cut, open_frame, shift),
        Limits(kernel_frame, times, kernel_cut, open_frame & ~user_only, shift),
        user_only,
        preempts,
        by_function,
        sleeps,
        {entry: tuple(members) for entry, members in carriers.items()},
    )
