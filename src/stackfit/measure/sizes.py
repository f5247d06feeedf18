"""Frame sizes that ftrace's stack tracer recorded, held against the static depth at the same return address.

kernel/trace/trace_stack.c prints, for each return address, how far its place on the stack is from the next
one's: the caller's depth at that call. Where it differs, one of these rules says why, or the analysis
is wrong:

entered         row 0 is the function that had just been entered: its frame is not there yet, and what the row
                counts is the tracer's own. The depth is therefore row 1's.
entry           the outermost row also holds what hardware and entry code push (struct pt_regs), and the
                padding above it. Its size is that, exactly.
copied          i386's ftrace entry code pushes the return address of row 1 once more, two words below; that
                is what the tracer finds
tracer          rows of the tracer itself: an interrupt hit it at work; such a chain is not taken for a depth
exception       an entry stub and the instruction that it interrupted: together the depth there, the frame
                that the CPU and the stub push, and the CPU's alignment
variable        a frame whose size is not constant (the random offset of do_syscall_64): at most its bound
realigned       a frame aligned at run time: at most its static worst, less by no more than the alignment. gcc
                pushes the return address of such a function again, below the gap, where the tracer finds it
                first: the caller's row is then larger by what this one is smaller (counted under stale)
hidden          functions that the unwinder does not show (assembly, on i386 whatever keeps no frame pointer)
                are in the row above: the difference is their depth on a way of the call graph
stale           the tracer looks for a return address by value, and finds a copy that an earlier call has
                left: off by a few words, which rows next to it make up for
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass

import numpy as np

from stackfit.calls.vectors import Vector, entry_frame
from stackfit.frames.model import OPEN_FRAME, Frames, Summary
from stackfit.measure.entries import EntryRows
from stackfit.measure.graph import Graph
from stackfit.measure.model import ChainKind, Traces

__all__ = ["RowCheck", "Rule", "SizeCheck", "check_sizes"]

_MOST_WINDOW = 3  # rows over which stale copies make up for each other: two, or two at a frame that varies
_MOST_STALE = 2  # words that a frame which is not constant may take up for a stale copy
_LARGEST_ALIGNMENT = 64  # bytes: what vector registers want
_PADDINGS = (0, 8, 16)  # bytes above pt_regs: TOP_OF_KERNEL_STACK_PADDING (x86), two words on i386 with VM86


class Rule(enum.IntEnum):
    """Why a row's size is right; the last two: it is not, or cannot be judged."""

    EQUAL = 0
    ENTERED = 1
    ENTRY = 2
    COPIED = 3
    TRACER = 4
    EXCEPTION = 5
    VARIABLE = 6
    REALIGNED = 7
    HIDDEN = 8
    STALE = 9
    UNKNOWN = 10  # the function is in no image given, or several fit
    UNEXPLAINED = 11

    @property
    def label(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class RowCheck:
    """One row whose size is not the static depth. Bytes."""

    chain: int
    row: int  # index into Traces' rows
    size: int
    depth: int  # static; -1: no call site there
    rule: Rule


@dataclass(frozen=True)
class SizeCheck:
    """All rows of stack-tracer chains: how many by rule, and those that differ."""

    counts: dict[Rule, int]
    rows: tuple[RowCheck, ...]

    @property
    def unexplained(self) -> tuple[RowCheck, ...]:
        return tuple(row for row in self.rows if row.rule is Rule.UNEXPLAINED)


def check_sizes(traces: Traces, graph: Graph, frames: Frames, vectors: list[Vector]) -> SizeCheck:
    """Every row of every chain with sizes."""
    checker = _Checker(traces, graph, frames, vectors)
    counts: Counter[Rule] = Counter()
    rows: list[RowCheck] = []
    for chain in np.flatnonzero(traces.kind == ChainKind.STACK_TRACER).tolist():
        for check in checker.chain(chain):
            counts[check.rule] += 1
            if check.rule is not Rule.EQUAL:
                rows.append(check)
    return SizeCheck({rule: counts[rule] for rule in Rule}, tuple(rows))


class _Checker:
    def __init__(self, traces: Traces, graph: Graph, frames: Frames, vectors: list[Vector]) -> None:
        self.traces = traces
        self.graph = graph
        self.frames = frames
        self.machine = graph.code.machine
        self.word = self.machine.word
        self.entries = EntryRows(traces, graph, vectors)
        self.user, _ = entry_frame(self.machine, from_user=True)
        self.kernel, _ = entry_frame(self.machine, from_user=False)

    def chain(self, chain: int) -> list[RowCheck]:
        rows = list(self.traces.rows(chain))
        checks = [self._row(chain, rows, position) for position in range(len(rows))]
        self._exceptions(rows, checks)
        self._tracer(rows, checks)
        self._hidden(rows, checks)
        self._stale(rows, checks)
        self._beside_unknown(checks)
        return checks

    def _beside_unknown(self, checks: list[RowCheck]) -> None:
        """What a row of code that was not given makes up for, or hides, cannot be judged."""
        for position, one in enumerate(checks):
            beside = checks[max(position - 1, 1) : position + 2]
            if one.rule is Rule.UNEXPLAINED and any(other.rule is Rule.UNKNOWN for other in beside):
                checks[position] = RowCheck(one.chain, one.row, one.size, one.depth, Rule.UNKNOWN)

    def _row(self, chain: int, rows: list[int], position: int) -> RowCheck:
        traces, row = self.traces, rows[position]
        function, size = int(traces.function[row]), int(traces.size[row])
        depths = self._depths(row)
        depth = depths[0] if depths else -1

        def found(rule: Rule) -> RowCheck:
            return RowCheck(chain, row, size, depth, rule)

        if position == 0:
            return found(Rule.ENTERED)
        if position == len(rows) - 1 and self._is_entry(size, depths):
            return found(Rule.ENTRY)
        if function < 0:
            return found(Rule.UNKNOWN)
        if size in depths:
            return RowCheck(chain, row, size, size, Rule.EQUAL)
        if self.entries.is_trampoline(row):
            return found(Rule.TRACER)
        copied = self.entries.copied(rows) if position == 1 else 0
        if copied and size - copied in depths:
            return RowCheck(chain, row, size, size - copied, Rule.COPIED)
        summary = int(self.frames.summary[function])
        if depths and summary & (Summary.BOUNDED | OPEN_FRAME) and self._varies(function, size, max(depths)):
            return found(Rule.VARIABLE)
        if depths and summary & Summary.REALIGNED and 0 < max(depths) - size < _LARGEST_ALIGNMENT:
            return found(Rule.REALIGNED)
        return found(Rule.UNEXPLAINED)

    def _depths(self, row: int) -> list[int]:
        """Static depths at a row's return address, the deepest first."""
        calls = self.graph.calls
        sites = self.graph.sites_at(int(self.traces.address[row]))
        mine = [site for site in sites if calls.function[site] == self.traces.function[row]] or sites
        return sorted({int(calls.depth[site]) for site in mine}, reverse=True)

    def _is_entry(self, size: int, depths: list[int]) -> bool:
        """The entry frame, a return address, and padding; or the first function of a boot stack."""
        base = self.user + self.word
        return size - base in _PADDINGS or any(size - depth in _PADDINGS for depth in depths)

    def _varies(self, function: int, size: int, depth: int) -> bool:
        opened = bool(int(self.frames.summary[function]) & Summary.UNBOUNDED)
        return self.word <= size and (opened or size <= depth)

    def _exceptions(self, rows: list[int], checks: list[RowCheck]) -> None:
        """An entry stub and the row of what it interrupted, which is no return address."""
        for position in range(1, len(rows) - 1):
            if self.entries.vector(rows, position) is None:
                continue
            interrupted = rows[position + 1]
            address = int(self.traces.address[interrupted])
            depths = self._depths_before(address)
            total = checks[position].size + checks[position + 1].size
            good = self._holds(depths, total)
            if not good and position + 2 < len(rows):
                # A function that was hit before it had set up its frame pointer hides its caller.
                outer = int(self.traces.address[rows[position + 2]])
                hidden = self.graph.between(outer, int(self.traces.function[interrupted]))
                good = self._holds([depth + more for depth in depths for more in hidden], total)
            rule = Rule.EXCEPTION if good else Rule.UNEXPLAINED
            for which in (position, position + 1):
                one = checks[which]
                checks[which] = RowCheck(one.chain, one.row, one.size, depths[0] if depths else -1, rule)

    def _tracer(self, rows: list[int], checks: list[RowCheck]) -> None:
        """An interrupt hit the tracer: its entry code, the tracer, the function that it had been called from,
        and that one's caller, whose return address the tracer has pushed again."""
        for position in range(1, len(rows)):
            if not self.entries.is_trampoline(rows[position]):
                continue
            first = position - 1 if self.entries.vector(rows, position - 1) is not None else position
            for which in range(first, min(position + 3, len(rows))):
                one = checks[which]
                if one.rule is Rule.UNEXPLAINED and (
                    which < position + 2 or one.size - one.depth == 2 * self.word
                ):
                    checks[which] = RowCheck(one.chain, one.row, one.size, one.depth, Rule.TRACER)

    def _holds(self, depths: list[int], total: int) -> bool:
        """Whether rows add up to a depth, the entry frame with its worst alignment, and a return address."""
        slack = [depth + self.kernel + self.word - total for depth in depths]
        return any(0 <= one <= 2 * self.word for one in slack)

    def _depths_before(self, address: int) -> list[int]:
        """The depth before an instruction, wherever it is."""
        index = self.graph.code.rows_at(np.array([address], np.uint64))
        row = int(index[0])
        if row < 0 or not self.frames.stack[row]:
            return []
        depth = int(self.frames.depth[row])
        return [depth]

    def _hidden(self, rows: list[int], checks: list[RowCheck]) -> None:
        """Functions between two rows that the recording does not show are in the inner one's size."""
        for position in range(1, len(rows) - 1):
            one = checks[position]
            if one.rule is not Rule.UNEXPLAINED or one.depth < 0 or one.size <= one.depth:
                continue
            outer, function = rows[position + 1], int(self.traces.function[rows[position]])
            way = self.graph.reaches(int(self.traces.address[outer]), function)
            if way.hidden and one.size == one.depth + way.hidden:
                checks[position] = RowCheck(one.chain, one.row, one.size, one.depth, Rule.HIDDEN)

    def _stale(self, rows: list[int], checks: list[RowCheck]) -> None:
        """Equal sums over neighbours; a frame among them that is not constant may take the difference up."""
        count = len(checks)
        for position, one in enumerate(checks):
            if one.rule is not Rule.UNEXPLAINED or one.depth < 0:
                continue
            window = self._balanced(rows, checks, position, count)
            for other in window:
                if checks[other].rule is Rule.UNEXPLAINED:
                    bad = checks[other]
                    checks[other] = RowCheck(bad.chain, bad.row, bad.size, bad.depth, Rule.STALE)

    def _balanced(self, rows: list[int], checks: list[RowCheck], position: int, count: int) -> range:
        """The shortest window of rows around one whose sizes add up to their depths."""
        for length in range(2, _MOST_WINDOW + 1):
            for start in range(max(1, position - length + 1), min(position, count - length) + 1):
                window = range(start, start + length)
                if all(checks[other].depth >= 0 for other in window) and self._adds_up(rows, checks, window):
                    return window
        return range(0)

    def _adds_up(self, rows: list[int], checks: list[RowCheck], window: range) -> bool:
        # Off by: rows of constant size, others; what these may be off by.
        rest, taken, room, limit = 0, 0, 0, 0
        for other in window:
            one = checks[other]
            if one.rule is Rule.ENTRY or one.rule is Rule.EXCEPTION:
                return False
            if one.rule is Rule.VARIABLE or self._realigned(rows[other]):
                taken += one.size - one.depth
                room += (one.depth if one.rule is Rule.VARIABLE else _LARGEST_ALIGNMENT) - self.word
            elif one.size != one.depth:
                rest += one.size - one.depth
                # A function that aligns its frame pushes its return address again, below the gap.
                limit += _MOST_STALE * self.word
                limit += _LARGEST_ALIGNMENT if self._realigned(rows[other - 1]) else 0
        if rest % self.word:
            return False
        # Rows of constant size make up for each other exactly. The true size of a frame that is not constant
        # is between its least and its static worst: nothing says more.
        return rest == 0 if not room else abs(rest) <= limit and -room <= taken + rest <= 0

    def _realigned(self, row: int) -> bool:
        function = int(self.traces.function[row])
        return function >= 0 and bool(int(self.frames.summary[function]) & Summary.REALIGNED)
