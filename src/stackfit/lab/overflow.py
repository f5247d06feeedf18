"""Overflow for real: a module of ours goes as deep as it is told, and the stack's end is where the analysis
says.

The chain is known: a kernel thread calls it; or an interrupt hits that thread at a known instruction and
its handler
calls it; or this handler leaves a tasklet, which calls it on the way out of the interrupt. What the
analysis says is how
much of the stack is left for the chain at its call (`check --through chain`); what the machine says is at
which
level of the chain the word at the stack's end is overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from stackfit.analysis import Analysis, analyse
from stackfit.calls.model import CallKind
from stackfit.contexts.registered import FAMILIES, Registered
from stackfit.image.model import InputError
from stackfit.lab.build import Built
from stackfit.lab.console import GuestLog
from stackfit.verdict.limits import plain_name
from stackfit.verdict.through import find_through

__all__ = [
    "CONTEXTS",
    "OverflowPrediction",
    "OverflowRow",
    "levels_to_run",
    "overflow_row",
    "predict_overflow",
]

CONTEXTS = ("process", "hardirq", "softirq")
_CHAIN = "chain"  # the module that is nothing but the chain
# Functions of overflow.c: context → function, as what it is registered.
_FUNCTIONS = {
    "process": ("thread_process", "thread"),
    "hardirq": ("handle_here", "irq handler"),
    "softirq": ("run_tasklet", "tasklet"),
}
_INTERRUPTED = "interrupted"
# The way to the chain's call, function by function, as the kernel's source has it.
_WAYS = {
    "process": ("kthread", "thread_process", "stackfit_step"),
    _INTERRUPTED: ("kthread", "thread_interrupt", "raise_interrupt"),
    "hardirq": (
        "handle_level_irq", "handle_irq_event", "handle_irq_event_percpu", "__handle_irq_event_percpu",
        "handle_here",
        "stackfit_step",
    ),
    "softirq": (
        "__do_softirq", "handle_softirqs", "tasklet_action", "tasklet_action_common", "run_tasklet",
        "stackfit_step",
    ),
}  # fmt: skip
# ... and, where interrupts stay on the stack that they hit, from the interrupt's entry to there.
_TO = {
    "hardirq": ("common_interrupt", "__common_interrupt", "handle_irq", "__handle_irq"),
    "softirq": (
        "common_interrupt", "irq_exit_rcu", "__irq_exit_rcu", "invoke_softirq", "do_softirq_own_stack",
    ),
}  # fmt: skip
_SAFE = (8, 24)  # levels that fit every stack: what one of them takes is their difference


@dataclass(frozen=True)
class OverflowPrediction:
    """`room`: bytes that the chain may take before it leaves the stack, called on the known way; `least`:
    called on the deepest way that leads there. `frame`: of a level."""

    kernel: str
    context: str
    stack: str
    size: int
    room: int
    least: int
    frame: int

    @property
    def levels(self) -> int:
        """So many fit; one more does not."""
        return self.room // self.frame


@dataclass(frozen=True)
class OverflowRow:
    """`predicted`, `measured`: room for the chain, bytes; `least`: predicted for the deepest way there is.
    `fits`, `overflows`: levels at which the machine
    found the
    stack's end intact, and overwritten (None: it was in neither). `noticed`: what the kernel said when one
    level
    too many was used; `noticed_deep`: and when far too many were."""

    kernel: str
    context: str
    stack: str
    frame: int
    predicted: int
    least: int
    measured: int | None
    fits: int | None
    overflows: int | None
    noticed: tuple[str, ...]
    noticed_deep: tuple[str, ...]


def predict_overflow(built: Built) -> list[OverflowPrediction]:
    """What the analysis says of each context, before any run. InputError: the image does not show the way."""
    modules = [built.path("chain.ko"), built.path("overflow.ko")]
    analysis = analyse([built.path("vmlinux")], modules, [built.layout])
    ways = _Ways(analysis)
    registered = [ways.registered(*_FUNCTIONS[context]) for context in CONTEXTS]
    through = find_through(analysis.program, analysis.composer, analysis.layouts, _CHAIN, registered)
    found = []
    for context, one in zip(CONTEXTS, registered, strict=True):
        entry = next((entry for entry in through.entries if entry.registered is one), None)
        if entry is None:
            raise InputError(str(built.directory), f"no known way leads to {_FUNCTIONS[context][0]}")
        depth = ways.depth(context, entry.nests)
        worst = max(entry.call + (ways.depth(_INTERRUPTED, False) if entry.nests else 0), depth)
        found.append(
            OverflowPrediction(
                built.name, context, entry.stack.name, entry.stack.size, entry.stack.usable - depth,
                entry.stack.usable - worst, through.own.upper,
            )
        )  # fmt: skip
    return found


class _Ways:
    """Depths along ways that are known function by function."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._calls, functions = analysis.calls, analysis.code.functions
        self._first = np.searchsorted(self._calls.function, np.arange(len(functions) + 1))
        self._named: dict[str, int] = {}
        for function, name in enumerate(functions.names):
            self._named.setdefault(plain_name(name), function)

    def registered(self, function: str, family: str) -> Registered:
        kind = next(one for one in FAMILIES if one.name == family)
        return Registered(self._function(function), kind, kind.kinds, False)

    def depth(self, context: str, nests: bool) -> int:
        """From the stack's top (reserves aside) to the call of the chain; for _INTERRUPTED, to the
        instruction
        that raises the interrupt. `nests`: the interrupt stays on the thread's stack."""
        if context in ("process", _INTERRUPTED):
            way = _WAYS[context]
            frame = next(one for one in self._analysis.contexts if one.kind == "kthread").frame_user
            end = int(self._analysis.frames.frame[self._function(way[-1])]) if context == _INTERRUPTED else 0
            return frame + self._sum(way) + end
        if not nests:
            return self._sum(_WAYS[context])
        entry = next(
            one for one in self._analysis.contexts if one.title.endswith("common_interrupt")
        ).frame_kernel
        return self.depth(_INTERRUPTED, False) + entry + self._sum((*_TO[context], *_WAYS[context]))

    def _function(self, name: str) -> int:
        if name not in self._named:
            raise InputError(self._analysis.program.images[0].path, f"no function {name}")
        return self._named[name]

    def _sum(self, way: Sequence[str]) -> int:
        """Bytes from the entry of the first function to the call of the last; what the compiler has put
        into its
        caller is left out."""
        there = [self._named[name] for name in way if name in self._named]
        return sum(self._call(caller, callee) for caller, callee in pairwise(there))

    def _call(self, caller: int, callee: int) -> int:
        """Depth at the call: a direct one, else through a pointer."""
        sites = range(int(self._first[caller]), int(self._first[caller + 1]))
        direct = [site for site in sites if callee in self._callees(site)]
        pointer = (CallKind.INDIRECT, CallKind.INDIRECT_TAIL)
        chosen = direct or [site for site in sites if self._calls.kind[site] in pointer]
        if not chosen:
            names = self._analysis.code.functions.names
            raise InputError(
                self._analysis.program.images[0].path, f"{names[caller]} does not call {names[callee]}"
            )
        return max(self._weight(site) for site in chosen)

    def _weight(self, site: int) -> int:
        return int(self._calls.depth[site]) - (4 if self._calls.tail[site] else 0)

    def _callees(self, site: int) -> Sequence[int]:
        index = int(self._calls.candidates[site])
        return self._calls.candidate_sets[index] if index >= 0 else ()


def overflow_row(prediction: OverflowPrediction, logs: dict[int, GuestLog]) -> OverflowRow:
    """`logs`: by levels, those of `levels_to_run`."""
    first, second = (log.overflow if (log := logs.get(levels)) else None for levels in _SAFE)
    measured = None
    frame = prediction.frame
    if first and second:
        frame = (first.left - second.left) // (_SAFE[1] - _SAFE[0])
        measured = second.left - 4 + frame * _SAFE[1]
    fits = [levels for levels, log in logs.items() if _intact(log)]
    broken = [levels for levels, log in logs.items() if not _intact(log)]
    edge = min(broken, default=None)
    deepest = max(broken, default=None)
    return OverflowRow(
        prediction.kernel, prediction.context, prediction.stack, frame, prediction.room, prediction.least,
        measured,
        max(fits, default=None), edge,
        _noticed(logs[edge]) if edge is not None else (),
        _noticed(logs[deepest]) if deepest is not None else (),
    )  # fmt: skip


def levels_to_run(prediction: OverflowPrediction) -> tuple[int, ...]:
    """Two that are safe, the last that fits, the first that does not, and one far below the stack's end."""
    edge = prediction.levels
    return (*_SAFE, edge, edge + 1, edge + 40)


def _intact(log: GuestLog) -> bool:
    """Nothing beyond the stack was touched: the module says so, and the kernel went on."""
    report = log.overflow
    return report is not None and report.intact and report.left >= 4 and log.stopped == "overflow"


def _noticed(log: GuestLog) -> tuple[str, ...]:
    said = log.complaints
    report = log.overflow
    if report is not None and not report.intact:
        said = (*said, "end of stack overwritten")
    if not log.stopped:
        said = (*said, "the machine hangs or resets")
    return said
