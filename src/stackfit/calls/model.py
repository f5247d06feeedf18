"""The call graph: every place where control leaves a function, and the functions it can reach there.

Depths are bytes on the caller's stack from just before the call that entered the caller; the return address
that the site itself pushes is counted in the callee.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CallKind", "Calls", "EdgeKind", "Edges", "Evidence", "Reason", "Rung"]


class CallKind(enum.IntEnum):
    """Kinds of call sites."""

    DIRECT = 0
    TAIL = 1
    STATIC_CALL = 2
    INDIRECT = 3
    INDIRECT_TAIL = 4
    STACK_SWITCH = 5  # the callee runs on another stack
    EXCEPTION = 6  # an instruction that may fault: the handler nests on this stack

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", "-")


class Evidence(enum.IntEnum):
    """How well a number or a candidate set is founded; the worst of what it rests on."""

    PROVED = 0
    MEASURED = 1
    ASSUMED = 2
    OPEN = 3

    @property
    def label(self) -> str:
        return self.name.lower()


class Rung(enum.IntEnum):
    """How a site's candidates were found."""

    NONE = 0
    ENCODED = 1  # the target is in the instruction
    STATIC_CALL = 2  # the trampoline's initial target, or one that the kernel sets
    CONSTANT = 3  # the register was loaded with a constant just before
    PARAVIRT = 4  # pv_ops as the image holds it: native
    VECTOR = 5  # an exception's handler
    ANNOTATION = 6  # [[candidates]] of an assumption file
    GLOBAL = 7  # what a global variable, or a table of pointers, holds
    FIELD = 8  # what is put into that field of that struct, in data and by code
    CONTAINER = 9  # … of the structs that have a certain struct at that distance
    PARAMETER = 10  # what callers hand over, or a function returns
    LIST = 11  # hooks on the list that the function names
    SIGNATURE = 12  # any function of the prototype whose address is taken
    KCFI = 13  # any function that passes the check before the call: of exactly its type
    VIRTUAL = 14  # that slot of the tables of virtual functions that objects of the class can have

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", "-")


class Reason(enum.IntEnum):
    """Why a site is open."""

    NONE = 0
    INDIRECT = 1
    UNDEFINED = 2
    OUTSIDE = 3
    NO_HANDLER = 4
    UNFILLED = 5  # the pointer's place is known, but not what is put there
    UPDATED = 6  # a static call that is set to something unknown
    UNTYPED = 7  # there are candidates, and code of a module without types may have put others there

    @property
    def label(self) -> str:
        return _REASONS[self]


_REASONS = {
    Reason.NONE: "",
    Reason.INDIRECT: "indirect call: the pointer's value is not known",
    Reason.UNFILLED: "indirect call: nothing in the images given fills the pointer",
    Reason.UNTYPED: "indirect call: a module without types may have put further functions there",
    Reason.UPDATED: "static call: set at run time to a pointer that is not known",
    Reason.UNDEFINED: "needs a symbol that no image given defines",
    Reason.OUTSIDE: "target lies outside the code of the images given",
    Reason.NO_HANDLER: "the exception's handler was not found",
}


class EdgeKind(enum.IntEnum):
    """How an edge is counted when chains are bounded."""

    PLAIN = 0
    EXCEPTION = 1  # counted against the layout's nested exceptions
    HOP = 2  # counted against the number of hops
    SWITCH = 3  # continues on another stack


@dataclass(frozen=True, eq=False)
class Calls:
    """All call sites, ordered by caller and address; every array has one length."""

    function: NDArray[np.int32]  # caller
    address: NDArray[np.uint64]  # of the instruction; of the patched place for an alternative's replacement
    return_address: NDArray[np.uint64]  # 0 for tails and exceptions
    depth: NDArray[np.int32]  # bytes on the stack in use at the site
    under: NDArray[np.int32]  # STACK_SWITCH: bytes on the caller's own stack; else -1
    kind: NDArray[np.uint8]  # CallKind
    tail: NDArray[np.bool_]  # the callee starts at the caller's own return address
    rung: NDArray[np.uint8]  # Rung
    evidence: NDArray[np.uint8]  # Evidence
    reason: NDArray[np.uint8]  # Reason, when open
    candidates: NDArray[np.int32]  # index into candidate_sets, -1 = none known
    name: NDArray[
        np.int32
    ]  # index into `names` of what a reason names, or where a pointer comes from; else -1
    charge: NDArray[np.int32]  # bytes that code in no image takes between the site and its candidates
    assumption: NDArray[np.int32]  # index into `assumptions` of what an assumption file says of it, else -1
    candidate_sets: list[tuple[int, ...]]  # function indexes, ascending
    names: list[str]
    assumptions: list[str]

    def __len__(self) -> int:
        return len(self.function)

    @property
    def open(self) -> NDArray[np.bool_]:
        return np.asarray(self.reason != Reason.NONE, np.bool_)


@dataclass(frozen=True, eq=False)
class Edges:
    """Sites × candidates, ordered by caller: what the solver walks.

    `weight`: bytes from the caller's entry to the callee's (the depth at the site; of a tail call less the
    return address that both share; of an exception with the frame that hardware and entry code push).
    """

    first: NDArray[np.int64]  # caller → its first edge (functions + 1 entries)
    callee: NDArray[np.int32]
    weight: NDArray[np.int32]
    kind: NDArray[np.uint8]  # EdgeKind
    site: NDArray[np.int32]
