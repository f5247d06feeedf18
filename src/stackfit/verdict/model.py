"""Needs and verdicts of a layout's stacks. All sizes are bytes."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.bounds.model import Bound
from stackfit.calls.model import Edges
from stackfit.contexts.model import Context, Start
from stackfit.layouts.model import Layout, Stack

__all__ = [
    "ContextNeed",
    "ContextVerdict",
    "LayoutVerdict",
    "Measured",
    "Observed",
    "OpenItems",
    "Part",
    "StackNeed",
    "Verdict",
]


class Verdict(enum.Enum):
    """What can be said of a stack; the first that holds."""

    EXCEEDS = "exceeds"  # measured above the size
    MAY_EXCEED = "may-exceed"  # a concrete chain above the size without any assumption in it
    UNKNOWN = "unknown"  # open items, or no finite bound, decide
    FITS_IF = "fits-if"  # the bound is within the size, under the assumptions listed
    FITS = "fits"  # proved
    NOT_ANALYSED = "not-analysed"  # nothing that runs on this stack is modelled


@dataclass(frozen=True)
class OpenItems:
    """What is not known below a number, by reason: (reason, how many). Empty: nothing."""

    counts: tuple[tuple[str, int], ...] = ()

    @property
    def total(self) -> int:
        return sum(count for _, count in self.counts)

    def __bool__(self) -> bool:
        return bool(self.counts)


@dataclass(frozen=True)
class Measured:
    """How deep one recorded chain got, from the stack's top without padding. `contexts`: indexes of what it
    can have been; `whole`: with an interrupt on top of it. `known`: all its functions are in the images."""

    contexts: tuple[int, ...]
    bytes: int
    whole: int
    name: str  # of the recording
    known: bool = True


@dataclass(frozen=True, eq=False)
class Observed:
    """What ran, as far as was recorded: for `measured` and `composed`."""

    edges: Edges  # those seen
    entered: NDArray[np.bool_]  # functions, by function
    times: NDArray[np.int32]  # … how often each was on one chain
    measured: tuple[Measured, ...]
    marks: tuple[tuple[str, int, str], ...]  # (stack, bytes from its top, whose)


@dataclass(frozen=True)
class ContextNeed:
    """The ladder of one context, from the stack's top (entry frame included, the stack's reserves not)."""

    context: Context
    stack: str  # where it starts
    start: Start | None
    entry_bytes: int  # hardware and entry code, and the functions before the start's entry
    direct: int | None  # no chain over direct edges is deeper; None when nothing is known of the context
    found: int | None  # the deepest concrete direct chain; None when none was looked for
    hops: tuple[int | None, ...]  # bound at 0, 1, 2 … hops
    bound: int | None  # None: no finite bound (or nothing known)
    measured: int | None
    composed: int | None
    open: OpenItems
    unlisted: int  # recursive functions below it that have no budget
    recursion: int  # functions of the largest component that its chains can reach (recursion_sizes)
    chain: Bound | None  # of `found`
    composed_start: Start | None = None
    composed_chain: Bound | None = None  # of `composed`
    traced: int | None = None  # like `measured`, by chains all of whose functions are known


@dataclass(frozen=True)
class Part:
    """One contribution to a need: a reserve, the worst context, or one that nests on top of it."""

    name: str
    bytes: int  # at most
    found: int  # of a concrete chain
    times: int = 1
    source: str = ""

    @property
    def total(self) -> int:
        return self.bytes * self.times


@dataclass(frozen=True)
class Fitting:
    """How many contexts that start on a stack fit it, each by its own bound at 0 (direct), 1, 2 … hops.

    A context of which nothing is known, or whose direct chains have no bound, fits nowhere; the others may
    have open items below them, as their bounds may.
    """

    contexts: int
    alone: tuple[int, ...]  # with the stack's reserves
    nested: tuple[int, ...]  # … and everything that the layout lets nest on top


@dataclass(frozen=True)
class StackNeed:
    """What one stack of a layout must hold, and whether it does."""

    stack: Stack
    parts: tuple[Part, ...]  # of `direct`; they add up to it
    measured: int | None
    composed: int | None
    direct: int | None  # no direct chain needs more, within the budgets
    bound: int | None  # None: no finite bound (or nothing known)
    hops: tuple[int | None, ...]
    found: (
        int | None
    )  # like `direct`, of concrete chains: what is needed at least, as far as the layout holds
    open: OpenItems
    unlisted: tuple[int, ...]  # recursive functions without a budget below it
    assumed: tuple[str, ...]
    hypothetical: bool  # the binary switches to a stack that this layout does not have
    fitting: Fitting
    worst: ContextNeed | None
    chain: Bound | None
    verdict: Verdict
    why: str
    measured_by: str = ""  # the recording that `measured` is from
    traced: int | None = None  # like `measured`, by chains all of whose functions are known

    @property
    def lower_bound(self) -> bool:
        return bool(self.open)

    @property
    def headroom(self) -> int | None:
        """Size less the most cautious finite number."""
        need = self.bound if self.bound is not None else self.direct
        return None if need is None else self.stack.size - need

    @property
    def fits_hops(self) -> int | None:
        """The greatest number of hops at which the bound is within the size; None: not even without any."""
        size = self.stack.size
        fitting = [hops for hops, need in enumerate(self.hops) if need is not None and need <= size]
        return max(fitting, default=None)


@dataclass(frozen=True)
class ContextVerdict:
    """One context on the stack where it starts, as if no other started there: reserves and what nests
    included. `open` and `assumed` (how many) count what is below it and below what nests."""

    context: Context
    stack: Stack
    measured: int | None
    direct: int | None
    bound: int | None  # None: no finite bound (or nothing known)
    open: OpenItems
    assumed: int
    verdict: Verdict
    hypothetical: bool = False


@dataclass(frozen=True)
class LayoutVerdict:
    layout: Layout
    hypothetical: bool
    stacks: tuple[StackNeed, ...]
