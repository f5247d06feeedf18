"""What a diff reads of a database, and what it finds. All sizes are bytes; a module of None is the kernel
itself."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "ChainStep",
    "Diff",
    "Frame",
    "Function",
    "FunctionChange",
    "Ladder",
    "ModuleChange",
    "Need",
    "NeedChange",
    "OpenChange",
    "Snapshot",
]


@dataclass(frozen=True)
class Function:
    """`frame` None: not bounded. `instructions`: equal for the same code at other addresses. `open`: its call
    sites that are open, by reason."""

    number: int
    module: str | None
    name: str
    part_of: str | None
    frame: int | None
    instructions: str
    open: Mapping[str, int]

    @property
    def open_sites(self) -> int:
        return sum(self.open.values())


@dataclass(frozen=True)
class Frame:
    """One frame of a chain, `depth` bytes."""

    name: str
    module: str | None
    depth: int


@dataclass(frozen=True)
class Ladder:
    """Rungs of a stack or a context. `found`: the deepest concrete chain; `bound` None: no finite one."""

    found: int | None
    direct: int | None
    bound: int | None
    open: int  # items below


@dataclass(frozen=True)
class Need:
    """What a stack of a layout, or a context, needs. `key` tells it from others of its kind: (layout,
    stack), or (kind, name, abi, stack, how many like it come before)."""

    key: tuple[str, ...]
    ladder: Ladder
    chain: tuple[Frame, ...]
    size: int | None = None  # of a stack
    verdict: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """One database. `assumptions`: (kind, subject, reason) of each; `images`: (module, build-id). `edges`:
    callers and callees, numbers of functions, of direct, tail and static calls."""

    path: str
    about: Mapping[str, str]
    release: str | None
    images: tuple[tuple[str | None, str | None], ...]
    assumptions: frozenset[tuple[str, str, str]]
    functions: tuple[Function, ...]
    edges: tuple[array[int], array[int]]
    stacks: tuple[Need, ...]
    contexts: tuple[Need, ...]


@dataclass(frozen=True)
class FunctionChange:
    """A function whose frame is not what it was.

    `change`: appeared, vanished, split (new, from a function that stayed: `of`), joined (gone, into one that
    stayed: `of`), grew, shrank, unbounded (no longer bounded), bounded. `how` it was matched: name, suffix
    (of the compiler), moved (another module), code (same instructions), order (of several with that name).
    `beside`: of one that is new, the functions that call it and whose own frames shrank; of one that is gone,
    those that called it and whose frames grew: with their growth. Code may have moved between them.
    """

    change: str
    name: str
    module: str | None
    old_name: str | None
    old_module: str | None
    old: int | None
    new: int | None
    how: str | None
    of: str | None = None
    beside: tuple[tuple[str, int], ...] = ()

    @property
    def growth(self) -> int:
        """Bytes more; of what appeared or vanished its whole frame."""
        return (self.new or 0) - (self.old or 0)


@dataclass(frozen=True)
class ChainStep:
    """A function whose share of the deepest chain is not what it was: bytes of all its frames on it (0:
    none), and how many these are."""

    name: str
    module: str | None
    old: int
    new: int
    old_times: int
    new_times: int

    @property
    def growth(self) -> int:
        return self.new - self.old


@dataclass(frozen=True)
class NeedChange:
    """A stack or a context. `change`: appeared, vanished, grew, shrank, unbounded (no finite bound any more),
    bounded, changed (its open items or its verdict only)."""

    change: str
    key: tuple[str, ...]
    old: Need | None
    new: Need | None
    steps: tuple[ChainStep, ...]

    @property
    def growth(self) -> int:
        """The greatest of what the deepest chain found, direct and the bound grew by; the least, if none
        grew."""
        grown = self._grown()
        return max(grown) if grown and max(grown) > 0 else min(grown, default=0)

    def _grown(self) -> list[int]:
        if self.old is None or self.new is None:
            return []
        before, after = self.old.ladder, self.new.ladder
        rungs = ((before.found, after.found), (before.direct, after.direct), (before.bound, after.bound))
        return [new - old for old, new in rungs if old is not None and new is not None]


@dataclass(frozen=True)
class OpenChange:
    """Open call sites of one function and reason: how many there were and are."""

    name: str
    module: str | None
    reason: str
    old: int
    new: int


@dataclass(frozen=True)
class ModuleChange:
    """One image's sums. `functions`: how many, old and new; `growth`: bytes of all frames that grew;
    `largest`: the frame that grew most; `open`: open call sites, old and new."""

    module: str | None
    functions: tuple[int, int]
    appeared: int
    vanished: int
    grew: int
    shrank: int
    growth: int
    shrinkage: int
    largest: FunctionChange | None
    open: tuple[int, int]


@dataclass(frozen=True)
class Diff:
    """Everything that is not as it was. `renamed`: matched under another name or in another module."""

    old: Snapshot
    new: Snapshot
    notes: tuple[str, ...]
    functions: tuple[FunctionChange, ...]
    renamed: tuple[FunctionChange, ...]
    stacks: tuple[NeedChange, ...]
    contexts: tuple[NeedChange, ...]
    open: tuple[OpenChange, ...]
    modules: tuple[ModuleChange, ...]

    def grown(self, more_than: int) -> list[FunctionChange | NeedChange]:
        """What grew by more than so many bytes, or lost its bound: frames, needs of stacks and contexts. What
        appeared is no growth."""
        found: list[FunctionChange | NeedChange] = []
        every: list[FunctionChange | NeedChange] = [*self.functions, *self.stacks, *self.contexts]
        for one in every:
            if one.change == "unbounded" or (one.old is not None and one.growth > more_than):
                found.append(one)
        return found
