"""What was recorded of a running kernel: as its text names it, and as functions and call sites of a program.

A *chain* is one stack, innermost function first. Its row 0 is the function that was running; every further
row is a caller, with the return address in it. Depths and sizes are bytes; -1 where the recording has none.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["ChainKind", "Mark", "Place", "RecordedChain", "RecordedRow", "Recording", "Seen", "Traces"]


class ChainKind(enum.IntEnum):
    """Who wrote a chain down."""

    STACK_TRACER = 0  # ftrace's stack_trace: depths and sizes are in it
    EVENT = 1  # a stack below an event of ftrace (func_stack_trace and others)
    PERF = 2  # a call chain of perf script
    DUMP = 3  # "Call Trace:" in the kernel's log

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", "-")


class Place(NamedTuple):
    """A place in code as a recording names it: an address, a symbol's offset, or a module section's
    offset.
    """

    address: int = -1  # link address
    symbol: str = ""
    offset: int = -1  # bytes from the symbol's or the section's start; -1: only the function is told
    size: int = -1  # of the symbol, as kallsyms has it: up to the next one
    module: str = ""  # "" the kernel itself (or not told, beside a bare symbol)
    section: str = ""

    def __str__(self) -> str:
        if self.symbol:
            text = self.symbol if self.offset < 0 else f"{self.symbol}+{self.offset:#x}"
            return f"{text} [{self.module}]" if self.module else text
        if self.section:
            return f"{self.module}:{self.section}+{self.offset:#x}"
        return f"{self.address:#018x}"


class RecordedRow(NamedTuple):
    """One row of a chain. `interrupted`: the place is an instruction that was about to run, no return
    address.

    `entry`: the function, where `place` alone does not tell it; `bare`: nothing but the function is told.
    """

    place: Place
    depth: int = -1
    size: int = -1
    interrupted: bool = False
    entry: Place | None = None
    bare: bool = False


@dataclass(frozen=True)
class RecordedChain:
    name: str  # for people: file, number in it, workload
    kind: ChainKind
    rows: tuple[RecordedRow, ...]


@dataclass(frozen=True)
class Mark:
    """The deepest point that one stack has reached, found in its memory."""

    stack: str  # the layout's name of it: "process", "irq" …
    owner: str  # task or CPU; the stack's address where neither is known
    bytes: int  # from the stack's top, padding there included; 0: never used
    size: int  # of the stack
    kind: str = ""  # of the owner: user, kthread, idle, cpu; ended: a task that is gone; "" not known
    name: str = ""  # of the task
    address: int = 0  # of the stack's lowest byte, virtual


@dataclass(frozen=True)
class Recording:
    """One file's content, places not resolved. `pairs`: (return address or None, caller or None, callee,
    count). `left_out`: what was read and not taken, by reason."""

    path: str
    format: str
    chains: tuple[RecordedChain, ...] = ()
    pairs: tuple[tuple[Place | None, Place | None, Place, int], ...] = ()
    marks: tuple[Mark, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    build_id: str | None = None  # of the kernel, where the file tells it
    release: str | None = None
    machine: str | None = None


class Seen(enum.IntEnum):
    """Where a seen call is in the call graph."""

    DIRECT = 0  # the site's own callee, encoded
    TAIL = 1  # … or behind tail jumps of it
    STATIC_CALL = 2
    INDIRECT = 3  # among the candidates of an indirect call, tail jumps followed
    SWITCH = 4  # on another stack
    EXCEPTION = 5  # the handler of an instruction that faulted
    UNSEEN = 6  # through functions that the tracer cannot see
    OPEN = 7  # the site, or a tail jump behind it, is open: the call is not in the graph, which says so
    NO_SITE = 8  # no call site at that return address
    NOT_IN_GRAPH = 9  # the analysis is wrong
    ASSUMED = 10  # an assumption says that the site calls nothing of the image: this recording refutes it

    @property
    def label(self) -> str:
        return _SEEN[self]


_SEEN = {
    Seen.DIRECT: "direct call",
    Seen.TAIL: "direct call, then tail jumps",
    Seen.STATIC_CALL: "static call",
    Seen.INDIRECT: "indirect call, a candidate",
    Seen.SWITCH: "call on another stack",
    Seen.EXCEPTION: "exception",
    Seen.UNSEEN: "through functions that the tracer cannot see",
    Seen.OPEN: "the call site is open",
    Seen.NO_SITE: "no call site there",
    Seen.NOT_IN_GRAPH: "not in the call graph",
    Seen.ASSUMED: "assumed not to happen",
}


@dataclass(frozen=True, eq=False)
class Traces:
    """Everything recorded, as functions (indexes, -1 not known) and link addresses of one program.

    Edges are distinct, ordered by return address, caller and callee; chains keep the order of the files.
    """

    # per edge
    back: NDArray[np.uint64]  # return address; 0 where only the caller is told
    caller: NDArray[np.int32]
    callee: NDArray[np.int32]
    count: NDArray[np.int64]
    # per chain
    first: NDArray[np.int64]  # chain → its first row (chains + 1 entries)
    names: tuple[str, ...]
    kind: NDArray[np.uint8]  # ChainKind
    # per row
    function: NDArray[np.int32]
    address: NDArray[np.uint64]  # row 0: where it ran; others the return address; 0 where not told
    depth: NDArray[np.int32]
    size: NDArray[np.int32]
    interrupted: NDArray[np.bool_]

    marks: tuple[Mark, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    unresolved: tuple[str, ...] = ()  # places that are in no image given, or in several
    missing: Mapping[str, int] = field(default_factory=dict)  # modules that were not given: places in them

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, chain: int) -> range:
        return range(int(self.first[chain]), int(self.first[chain + 1]))
