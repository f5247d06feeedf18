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

from stackfit.analysis import Analysis, analyse
from stackfit.contexts.registered import FAMILIES, Registered
from stackfit.image.model import InputError
from stackfit.lab.build import Built
from stackfit.lab.console import GuestLog
from stackfit.verdict.registered import RegisteredFinder
from stackfit.verdict.through import ThroughEntry, find_through

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
_INTERRUPTED = "thread_interrupt", "raise_interrupt"  # the thread that the interrupt hits, and where
_DO_SOFTIRQ = ("handle_softirqs", "__do_softirq")
_SAFE = (8, 24)  # levels that fit every stack: what one of them takes is their difference


@dataclass(frozen=True)
class OverflowPrediction:
    """`room`: bytes that the chain may take, its return address in, before it leaves the stack. `frame`: of
    a level.
    `path`: functions above the chain, each with its bytes."""

    kernel: str
    context: str
    stack: str
    size: int
    room: int
    frame: int

    @property
    def levels(self) -> int:
        """So many fit; one more does not."""
        return self.room // self.frame


@dataclass(frozen=True)
class OverflowRow:
    """`predicted`, `measured`: room for the chain, bytes. `fits`, `overflows`: levels at which the machine
    found the
    stack's end intact, and overwritten (None: it was in neither). `noticed`: what the kernel said when one
    level
    too many was used; `noticed_deep`: and when far too many were."""

    kernel: str
    context: str
    stack: str
    frame: int
    predicted: int
    measured: int | None
    fits: int | None
    overflows: int | None
    noticed: tuple[str, ...]
    noticed_deep: tuple[str, ...]


def predict_overflow(built: Built) -> list[OverflowPrediction]:
    """What the analysis says of each context, before any run. InputError: the image does not show the way."""
    modules = [built.path("chain.ko"), built.path("overflow.ko")]
    analysis = analyse([built.path("vmlinux")], modules, [built.layout])
    registered = [_registered(analysis, *_FUNCTIONS[context]) for context in CONTEXTS]
    registered.append(_registered(analysis, _INTERRUPTED[0], "thread"))
    through = find_through(analysis.program, analysis.composer, analysis.layouts, _CHAIN, registered)
    found = []
    for context, one in zip(CONTEXTS, registered, strict=False):
        entries = [entry for entry in through.entries if entry.registered is one]
        if not entries:
            raise InputError(str(built.directory), f"no known way leads to {_FUNCTIONS[context][0]}")
        entry = entries[0]
        room = entry.room
        if entry.nests:
            room = entry.stack.usable - _interrupted(analysis, registered[-1])
            room -= entry.call if context == "hardirq" else _by_exit(analysis, entry)
        found.append(
            OverflowPrediction(
                built.name, context, entry.stack.name, entry.stack.size, room, through.own.upper
            )
        )
    return found


def _function(analysis: Analysis, name: str) -> int:
    found = analysis.code.functions.named(name)
    if len(found) != 1:
        raise InputError(analysis.program.images[0].path, f"{len(found)} functions {name}")
    return int(found[0])


def _registered(analysis: Analysis, function: str, family: str) -> Registered:
    kind = next(one for one in FAMILIES if one.name == family)
    return Registered(_function(analysis, function), kind, kind.kinds, False)


def _interrupted(analysis: Analysis, thread: Registered) -> int:
    """Depth at the instruction that raises the interrupt."""
    above = RegisteredFinder(analysis.composer, analysis.layouts[0]).need(thread, "kthread").above
    if above is None:
        raise InputError(analysis.program.images[0].path, "no known way leads to a thread's function")
    calls, callee = analysis.calls, _function(analysis, _INTERRUPTED[1])
    sites = [
        int(calls.depth[site])
        for site in range(len(calls))
        if calls.function[site] == thread.function and callee in _callees(analysis, site)
    ]
    if not sites:
        raise InputError(
            analysis.program.images[0].path, f"{_INTERRUPTED[0]} does not call {_INTERRUPTED[1]}"
        )
    return above.bytes + max(sites) + int(analysis.frames.frame[callee])


def _callees(analysis: Analysis, site: int) -> Sequence[int]:
    index = int(analysis.calls.candidates[site])
    return [int(one) for one in analysis.calls.candidate_sets[index]] if index >= 0 else []


def _by_exit(analysis: Analysis, entry: ThroughEntry) -> int:
    """Depth, from where an interrupt hits, to the chain's call in a tasklet run by the way out of that
    interrupt."""
    finder = RegisteredFinder(analysis.composer, analysis.layouts[0])
    tasklet = finder.need(entry.registered, entry.kind).above
    assert tasklet is not None
    names = analysis.code.functions.names
    dispatcher = next(
        number for number, (function, _) in enumerate(tasklet.path) if names[function] in _DO_SOFTIRQ
    )
    leg = finder.nested_leg("hardirq", tasklet.path[dispatcher][0])
    if leg is None:
        raise InputError(analysis.program.images[0].path, "no direct way from an interrupt to its softirqs")
    return leg + sum(size for _, size in tasklet.path[dispatcher:]) + entry.call - entry.above


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
        prediction.kernel, prediction.context, prediction.stack, frame, prediction.room, measured,
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
