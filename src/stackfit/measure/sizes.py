"""Frame sizes that ftrace's stack tracer recorded, held against the static depth at the same return address.

kernel/trace/trace_stack.c prints, for each return address, how far its place on the stack is from the next
one's: the caller's depth at that call. Where it differs, one of these rules says why, or the analysis is wrong:

entered         row 0 is the function that had just been entered: its frame is not there yet, and what the row
                counts is the tracer's own. The depth is therefore row 1's.
entry           the outermost row also holds what hardware and entry code push (struct pt_regs), and the padding
                above it. Its size is that, exactly.
exception       an entry stub and the instruction that it interrupted: together the depth there, the frame that
                the CPU and the stub push, and the CPU's alignment
variable        a frame whose size is not constant (the random offset of do_syscall_64): at most its bound
realigned       a frame aligned at run time: at most its static worst, and less by no more than the alignment
hidden          functions that the unwinder does not show (assembly, on i386 whatever keeps no frame pointer)
                are in the row above: the difference is their depth on a way of the call graph
stale           the tracer looks for a return address by value, and finds a copy that an earlier call has left:
                off by a few words, which rows next to it make up for
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass

import numpy as np

from stackfit.calls.vectors import Vector, entry_frame
from stackfit.frames.model import OPEN_FRAME, Frames, Summary
from stackfit.measure.graph import Graph
from stackfit.measure.model import ChainKind, Traces

__all__ = ["RowCheck", "Rule", "SizeCheck", "check_sizes"]

_MOST_WINDOW = 6  # rows over which stale copies make up for each other
_MOST_STALE = 2  # words that a frame of variable size may take up for a stale copy
_LARGEST_ALIGNMENT = 64  # bytes: what vector registers want
_PADDINGS = (0, 8, 16)  # bytes above pt_regs: TOP_OF_KERNEL_STACK_PADDING (x86), two words on i386 with VM86


class Rule(enum.IntEnum):
    """Why a row's size is right; the last two: it is not, or cannot be judged."""

    EQUAL = 0
    ENTERED = 1
    ENTRY = 2
    EXCEPTION = 3
    VARIABLE = 4
    REALIGNED = 5
    HIDDEN = 6
    STALE = 7
    UNKNOWN = 8  # the function is in no image given, or several fit
    UNEXPLAINED = 9

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
        self.stubs = {vector.stub: vector.handler for vector in vectors}
        self.user, _ = entry_frame(self.machine, from_user=True)
        self.kernel, _ = entry_frame(self.machine, from_user=False)

    def chain(self, chain: int) -> list[RowCheck]:
        rows = list(self.traces.rows(chain))
        checks = [self._row(chain, rows, position) for position in range(len(rows))]
        self._exceptions(rows, checks)
        self._hidden(rows, checks)
        self._stale(rows, checks)
        return checks

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
        """The entry frame, the return address into entry code, and padding; or a boot stack's first function."""
        base = self.user + self.word
        return size - base in _PADDINGS or any(size - depth in _PADDINGS for depth in depths)

    def _varies(self, function: int, size: int, depth: int) -> bool:
        opened = bool(int(self.frames.summary[function]) & Summary.UNBOUNDED)
        return self.word <= size and (opened or size <= depth)

    def _exceptions(self, rows: list[int], checks: list[RowCheck]) -> None:
        """An entry stub and the row of what it interrupted, which is no return address."""
        for position in range(1, len(rows) - 1):
            function = int(self.traces.function[rows[position]])
            if function not in self.stubs:
                continue
            interrupted = rows[position + 1]
            address = int(self.traces.address[interrupted])
            total = checks[position].size + checks[position + 1].size
            depths = self._depths_before(address)
            slack = [depth + self.kernel + self.word - total for depth in depths]
            # The worst alignment is in `kernel`; a frame from an asynchronous entry is the same.
            good = any(0 <= one <= 2 * self.word for one in slack)
            rule = Rule.EXCEPTION if good else Rule.UNEXPLAINED
            depth = depths[0] if depths else -1
            for which in (position, position + 1):
                one = checks[which]
                checks[which] = RowCheck(one.chain, one.row, one.size, depth, rule)

    def _depths_before(self, address: int) -> list[int]:
        """The depth before an instruction, wherever it is."""
        index = self.graph.code.rows_at(np.array([address], np.uint64))
        row = int(index[0])
        return [int(self.frames.depth[row])] if row >= 0 and self.frames.stack[row] else []

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
        """Equal sums over neighbours; a frame of variable size among them may take the difference up."""
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
        error, room = 0, 0
        for other in window:
            one = checks[other]
            if one.rule is Rule.ENTRY or one.rule is Rule.EXCEPTION:
                return False
            if one.rule is Rule.VARIABLE:
                low, high = self.word - one.depth, 0
                room = max(room, high - low)
            error += one.size - one.depth
        if not room:
            return error == 0 and error % self.word == 0
        # The variable frame's true size is between a word and its bound.
        variable = sum(checks[other].size - checks[other].depth for other in window if checks[other].rule is Rule.VARIABLE)
        rest = error - variable
        return rest % self.word == 0 and abs(rest) <= _MOST_STALE * self.word and -room <= variable + rest <= 0
