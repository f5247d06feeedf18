"""Frames: how deep the stack is at every instruction, function by function.

Depths are bytes, counted from just before the call that entered the function: the return address is in them
(8 at a function's entry on x86-64, 4 on i386).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["OPEN_FRAME", "Frames", "SiteKind", "StackKind", "Summary"]


class StackKind(enum.IntEnum):
    """What the stack pointer is known to be at an instruction."""

    UNREACHED = 0
    FRAME = 1  # depth known
    OTHER_STACK = 3  # the function has switched stacks; depth counts from that stack's top
    BELOW_ALLOCATION = 4  # an allocation of unknown size lies above: depth is a lower limit


class SiteKind(enum.IntEnum):
    """How control leaves a function."""

    CALL = 0
    TAIL = 1
    INDIRECT = 2
    INDIRECT_TAIL = 3


class Summary(enum.IntFlag):
    """What tracking found out about a function."""

    RETURNS = 1
    REALIGNED = 2  # the frame is aligned at run time: the depth is its worst
    BOUNDED = 4  # an allocation whose size is bounded by the code itself
    UNBOUNDED = 8  # an allocation of unknown size (alloca, VLA)
    SWITCHES = 16  # the stack pointer is set to another stack
    CONFLICT = 32  # two paths join on different stacks
    GROWS = 64  # the depth grows in a loop
    UNBALANCED = 128  # a return at another depth than the entry's
    TOO_COMPLEX = 256  # gave up following branches
    LEAVES = 512  # returns by iret or sysret
    UNDECODED = 1024  # runs into bytes that are no instruction: what comes behind them is not known


#: A function with any of these has a frame that is only a lower limit.
OPEN_FRAME = Summary.UNBOUNDED | Summary.GROWS | Summary.TOO_COMPLEX | Summary.CONFLICT | Summary.UNDECODED


@dataclass(frozen=True, eq=False)
class Frames:
    """Depths of all rows and functions of a `Code`, and the sites where control leaves a function."""

    # per row
    depth: NDArray[np.int32]  # bytes before the instruction; meaningless where unreached
    stack: NDArray[np.uint8]  # StackKind
    visitor: NDArray[np.int32]  # function whose walk reached the row last, -1 = none
    frame_pointer: NDArray[np.int32]  # depth that rbp or ebp holds, -1 = none; empty unless asked for
    # per function
    frame: NDArray[np.int32]  # greatest depth in the function's own code
    compiler_frame: NDArray[
        np.int32
    ]  # the same without inline assembly's push/pop temporaries, and argument registers (frames/arguments.py)
    summary: NDArray[np.int32]  # Summary bits
    reached: NDArray[np.int32]  # instructions reached by the function's walk, its cold piece included
    allocation: NDArray[np.int32]  # depth above an allocation of unknown size
    no_return: NDArray[np.bool_]
    # per site
    site_function: NDArray[np.int32]
    site_row: NDArray[np.int32]
    site_callee: NDArray[np.int32]  # function, -1 = unknown or outside
    site_depth: NDArray[np.int32]
    site_kind: NDArray[np.uint8]  # SiteKind
    site_stack: NDArray[np.uint8]  # StackKind
    site_under: NDArray[
        np.int32
    ]  # on another stack: depth on the function's own stack at the switch; else -1
