"""Rows of a chain that are entry code: where an exception or interrupt hit what is below.

On x86-64 each vector has a stub of its own. On i386 the stubs jump to common code that calls the handler
through a register (arch/x86/entry/entry_32.S:handle_exception), so the row is that code's, and its inner
neighbour tells the vector.
"""

from __future__ import annotations

from collections.abc import Sequence

from stackfit.calls.vectors import Vector
from stackfit.image.model import Machine
from stackfit.measure.graph import Graph
from stackfit.measure.model import Traces

__all__ = ["EntryRows"]

# What ftrace calls is entered from its trampolines (arch/x86/kernel/ftrace_64.S, ftrace_32.S).
_TRAMPOLINES = ("ftrace_caller", "ftrace_call", "ftrace_regs_caller", "ftrace_regs_call", "ftrace_stub")


class EntryRows:
    """Entry code and tracer code among the rows of chains."""

    def __init__(self, traces: Traces, graph: Graph, vectors: Sequence[Vector]) -> None:
        self.traces = traces
        self.graph = graph
        self._stubs = {vector.stub: vector for vector in vectors}
        self._handlers = {vector.handler: vector for vector in vectors}
        functions = graph.code.functions
        self._trampolines = {index for name in _TRAMPOLINES for index in functions.named(name)}
        self._word = graph.code.machine.word
        self._frame_pointers = graph.code.machine is Machine.I386

    def vector(self, rows: Sequence[int], position: int) -> Vector | None:
        """The vector whose entry code a row is."""
        function = int(self.traces.function[rows[position]])
        if function < 0 or position == 0:
            return None
        stub = self._stubs.get(function)
        if stub is not None:
            return stub
        handler = self._handlers.get(int(self.traces.function[rows[position - 1]]))
        return handler if handler is not None and not self.graph.visible[function] else None

    def traced(self, rows: Sequence[int]) -> bool:
        """Whether the tracer itself is on the stack: an interrupt hit it, so the depth is partly its own."""
        return any(int(self.traces.function[row]) in self._trampolines for row in rows[1:])

    def is_trampoline(self, row: int) -> bool:
        """Whether a row is of ftrace's trampolines."""
        return int(self.traces.function[row]) in self._trampolines

    def copied(self, rows: Sequence[int]) -> int:
        """Bytes by which row 1 is too deep.

        With frame pointers, i386's ftrace_caller pushes the parent's address again, two words below the real
        one, and the tracer finds that first.
        """
        if not self._frame_pointers or len(rows) < 2 or int(self.traces.size[rows[0]]) != 2 * self._word:
            return 0
        return 2 * self._word
