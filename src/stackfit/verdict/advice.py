"""What to change so that a chain needs less: each change is put into the call graph and solved again.

Three kinds: a variable moved off the stack, an inlined function kept out of line (`noinline_for_stack`, so
that only chains through its own calls carry its variables), recursion bounded. How much a frame shrinks comes
from its anatomy: the bytes that nothing else uses. How much the need falls comes from the solver: another
chain may be as deep.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.bounds.model import Bound
from stackfit.bounds.solve import Solver
from stackfit.calls.model import Calls
from stackfit.contexts.model import Start
from stackfit.frames.anatomy import Anatomy, PartKind
from stackfit.layouts.model import Layout, Stack
from stackfit.verdict.compose import Composer
from stackfit.verdict.placement import Item, Placement

__all__ = [
    "Advice",
    "Change",
    "ChangeKind",
    "Need",
    "advise",
    "changes_of",
    "recursions",
    "stack_alignment",
    "stack_needs",
]

_STRAY = 20  # one call in so many may be aligned otherwise
_LEAST = 32  # bytes: a smaller variable is not worth moving
_MOST_CHANGES = 8  # largest first; each is solved
_MOST_RECURSIONS = 2


class ChangeKind(enum.Enum):
    MOVE = "move"  # a variable off the stack
    NOINLINE = "noinline"  # an inlined function out of line
    BOUND = "bound-recursion"  # a function once on a chain


@dataclass(frozen=True)
class Change:
    """One change to one function's source.

    `bytes`: how much smaller its frame gets at the calls that have the variables' place below them, those
    inside an inlined function kept out of line excepted: they get `more` bytes deeper at most (its return
    address and registers that it saves). Both 0 for recursion.
    """

    kind: ChangeKind
    function: int
    name: str  # of the variable, or of the inlined function
    type: str = ""
    size: int = 0  # bytes of the variable
    owners: tuple[str, ...] = ()  # inlined functions that the variable belongs to, outermost first
    bytes: int = 0
    more: int = 0
    begin: int = 0  # depth from which on the frame shrinks
    ranges: tuple[tuple[int, int], ...] = ()  # code of the inlined function


@dataclass(frozen=True)
class Need:
    """Bytes: no chain exceeds `upper`; `found` is the deepest concrete one."""

    upper: int
    found: int


@dataclass(frozen=True)
class Advice:
    """A change and what it does to the need of what is explained."""

    change: Change
    before: Need
    after: Need

    @property
    def falls(self) -> int:
        """Bytes by which the deepest concrete chain gets shorter."""
        return self.before.found - self.after.found


def changes_of(anatomy: Anatomy, word: int, unit: int) -> list[Change]:
    """What could be changed in one function, by its anatomy: the largest first.

    `unit`: bytes that its compiler aligns the stack to (see stack_alignment), and so the frame shrinks by.
    """
    named = [part for part in range(len(anatomy)) if anatomy.kind[part] == PartKind.VARIABLE]
    found: list[Change] = []
    groups: dict[tuple[str, str, tuple[str, ...]], list[int]] = {}
    for part in named:
        key = (anatomy.names[part], anatomy.types[part], anatomy.owners[part])
        groups.setdefault(key, []).append(part)
    for (name, text, owners), parts in groups.items():
        size = int(max(anatomy.end[part] - anatomy.begin[part] for part in parts))
        saved = _saved(anatomy, parts, unit) if size >= _LEAST else 0
        if saved:
            begin = int(min(anatomy.end[part] for part in parts))
            change = Change(ChangeKind.MOVE, anatomy.function, name, text, size, owners, saved, begin=begin)
            found.append(change)
    saves = int(anatomy.bytes.get(PartKind.SAVED_REGISTER, 0))
    inlined: dict[int, Change] = {}
    for path in sorted({path for path, _ in anatomy.inlined}, key=lambda one: (-len(one), one)):
        parts = [part for part in named if anatomy.owners[part][: len(path)] == path]
        saved = _saved(anatomy, parts, unit) if parts else 0
        if saved < _LEAST or saved in inlined:
            continue  # of several that own the same variables the innermost
        ranges = tuple(part for one, where in anatomy.inlined if one == path for part in where)
        begin = int(min(anatomy.end[part] for part in parts))
        inlined[saved] = Change(
            ChangeKind.NOINLINE, anatomy.function, path[-1], owners=path[:-1], bytes=saved,
            more=word + saves, begin=begin, ranges=ranges,
        )  # fmt: skip
    found.extend(inlined.values())
    return sorted(found, key=lambda one: (-one.bytes, one.kind.value, one.name, one.owners))


def _saved(anatomy: Anatomy, parts: Sequence[int], unit: int) -> int:
    """Bytes by which a frame shrinks when these parts go: what only they have, and what was added to fill the
    frame up to its alignment, in whole units."""
    gone = anatomy.exclusive(parts)
    return (gone + _filling(anatomy)) // unit * unit if gone else 0


def _filling(anatomy: Anatomy) -> int:
    """Padding at the ends of the locals' area: behind what was pushed first, and at the frame's end."""
    saved = np.flatnonzero(np.isin(anatomy.use, (PartKind.RETURN_ADDRESS, PartKind.SAVED_REGISTER)))
    padding = anatomy.use == PartKind.PADDING
    top = int(saved[-1]) + 1 if saved.size else 0
    first = _run(padding[top:])
    last = _run(padding[top + first :][::-1])
    return first + last


def _run(values: NDArray[np.bool_]) -> int:
    """How many of the first values are true."""
    false = np.flatnonzero(~values)
    return int(false[0]) if false.size else len(values)


def stack_alignment(word: int, depths: NDArray[np.int32]) -> int:
    """What a compiler keeps the stack aligned to at calls, by the depths of many: a word to 16 bytes.

    (-mpreferred-stack-boundary: the System V ABI has 16 bytes, Linux a word.) Some calls of assembly may not
    keep to it.
    """
    unit = 16
    while unit > word and np.count_nonzero(depths % unit) * _STRAY > depths.size:
        unit //= 2
    return unit


def recursions(chain: Bound) -> list[Change]:
    """Functions that are on a chain more than once: those with most bytes between their passes first."""
    often = Counter(link.function for link in chain.chain)
    gains: dict[int, int] = {}
    for function in (one for one, times in often.items() if times > 1):
        starts = [link.total - link.depth for link in chain.chain if link.function == function]
        gains[function] = starts[-1] - starts[0]
    order = sorted(gains, key=lambda one: (-gains[one], one))
    return [Change(ChangeKind.BOUND, function, "") for function in order[:_MOST_RECURSIONS]]


def advise(
    composer: Composer,
    item: Item,
    chain: Bound,
    start: Start,
    exceptions: int,
    hops: int,
    changes: Sequence[Change],
) -> tuple[Need, list[Advice]]:
    """The need of an item, and what each change makes of it; those that help most first.

    `chain`: the deepest found below `start`, one of the item's. Needs are bytes from the stack's top, without
    its reserves. Changes that do not lower any number are left out.
    """
    solver = composer.solvers.solver(item, exceptions, hops)
    trial = _Trial(composer.calls, solver, item, chain, start, hops)
    before = trial.need(solver, solver.bound(start.entry, hops), 0)
    found: list[Advice] = []
    sized = [one for one in changes if one.kind is not ChangeKind.BOUND][:_MOST_CHANGES]
    for change in (*sized, *(one for one in changes if one.kind is ChangeKind.BOUND)):
        after = trial.bounded(change) if change.kind is ChangeKind.BOUND else trial.resized(change)
        after = Need(min(after.upper, before.upper), min(after.found, before.found))
        if after != before:
            found.append(Advice(change, before, after))
    found.sort(
        key=lambda one: (
            one.after.found, one.after.upper, -one.change.bytes, one.change.kind.value, one.change.function,
            one.change.name,
        )
    )  # fmt: skip
    return before, found


class _Trial:
    """One item's need under changes."""

    def __init__(
        self, calls: Calls, solver: Solver, item: Item, chain: Bound, start: Start, hops: int
    ) -> None:
        self._calls, self._solver, self._item, self._hops = calls, solver, item, hops
        self._chain, self._start = chain, start

    def need(self, solver: Solver, bound: Bound, longer: int) -> Need:
        """The greatest of all starts. `longer`: bytes by which the known chain has changed."""
        above = self._item.frame + self._start.bytes
        uppers = [
            self._item.frame + one.bytes + solver.upper(one.entry, self._hops) for one in self._item.starts
        ]
        found = above + max(bound.found, self._chain.found + longer)
        upper = max([above + bound.upper, *uppers])
        return Need(upper, min(found, upper))

    def resized(self, change: Change) -> Need:
        site, frame = _deltas(self._calls, change, self._solver.count)
        solver = _changed(self._solver, self._calls, change, self._start.entry)
        longer = self._longer(site, frame, self._solver.limits.cut)
        return self.need(solver, solver.bound(self._start.entry, self._hops), longer)

    def _longer(self, site: NDArray[np.int32], frame: NDArray[np.int32], cut: NDArray[np.int32]) -> int:
        links = self._chain.chain
        change = sum(int(site[link.site]) for link in links if link.site >= 0)
        last = links[-1].function if links else -1
        return change + (int(frame[last]) if last >= 0 and cut[last] < 0 else 0)

    def bounded(self, change: Change) -> Need:
        solver = _changed(self._solver, self._calls, change, self._start.entry)
        # The known chain without what lies between its first and its last pass is a chain, too.
        starts = [link.total - link.depth for link in self._chain.chain if link.function == change.function]
        shorter = starts[0] - starts[-1]
        return self.need(solver, solver.bound(self._start.entry, self._hops), shorter)


def _changed(solver: Solver, calls: Calls, change: Change, like: int) -> Solver:
    """A solver of the same chains with a change made; `like`: where its bounds are to be good."""
    if change.kind is ChangeKind.BOUND:
        return solver.once(change.function, like)
    site, frame = _deltas(calls, change, solver.count)
    return solver.resized(site[solver.edges.site], frame, change.function, like)


def _deltas(calls: Calls, change: Change, functions: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Bytes added by a change of sizes: to each call site, to each of so many functions' frames."""
    depth = np.where(calls.under >= 0, calls.under, calls.depth)
    mine = calls.function == change.function
    site = np.zeros(len(calls), np.int32)
    site[mine & (depth >= change.begin)] = -change.bytes
    inside = np.zeros(len(calls), np.bool_)
    for begin, end in change.ranges:
        inside |= mine & (calls.address >= np.uint64(begin)) & (calls.address < np.uint64(end))
    site[inside] = change.more
    frame = np.zeros(functions, np.int32)
    # A chain that ends here may end in the inlined function.
    frame[change.function] = change.more if change.kind is ChangeKind.NOINLINE else -change.bytes
    return site, frame


def stack_needs(
    composer: Composer, layout: Layout, stack: Stack, hops: int, changes: Sequence[Change]
) -> tuple[int, list[int]]:
    """Bytes that no chain on a whole stack exceeds, with all that may nest on it; the same with each change.

    With no hops the first is what check calls `direct`.
    """
    placement = composer.place(layout, stack)
    for items in (placement.items, *(nested.items for nested in placement.nested)):
        composer.solvers.deepest(items, placement.exceptions)
    before = composer.need_at(layout, stack, placement, hops)
    return before, [
        min(_stack_need(composer, placement, stack.reserved, hops, change), before) for change in changes
    ]


def _stack_need(composer: Composer, placement: Placement, reserved: int, hops: int, change: Change) -> int:
    changed: dict[int, Solver] = {}

    def deepest(items: Sequence[Item]) -> int:
        most = 0
        for item in items:
            old = composer.solvers.solver(item, placement.exceptions, hops)
            for start in item.starts:
                if id(old) not in changed:
                    best = composer.solvers.best(items, placement.exceptions, hops)
                    like = best.start.entry if best is not None and best.item is item else start.entry
                    changed[id(old)] = _changed(old, composer.calls, change, like)
                value = changed[id(old)].upper(start.entry, hops)
                most = max(most, item.frame + start.bytes + value)
        return most

    return (
        reserved
        + deepest(placement.items)
        + sum(nested.times * deepest(nested.items) for nested in placement.nested)
    )
