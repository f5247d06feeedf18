"""Numbers of the compiled tracker as plain integers: the same as in `constants.pxd` for Cython.

Compiled, a name from the `.pxd` is a C constant; uncompiled, track.py imports it from here.
"""

from __future__ import annotations

from stackfit.frames.model import SiteKind, StackKind, Summary

# What a register or a stack slot is known to hold.
UNKNOWN = 0  # nothing
FRAME = int(StackKind.FRAME)  # a frame address; value = its depth
NUMBER = 2  # an unsigned number; value = its greatest
SWITCHED = int(
    StackKind.OTHER_STACK
)  # an address on another stack; value = its depth from where that stack was entered
BELOW = int(
    StackKind.BELOW_ALLOCATION
)  # a frame address below an allocation of unknown size; value = its depth without that

CONSTANT = 5  # a number; value = that number, signed (only on machines that build frame sizes in registers)

# A tracked state: STATE_SIZE ints. Kinds of at most 32 registers come first, then:
VALUES = 32  # their values
SLOTS = 64  # SLOT_COUNT stack slots of three: key (see track.py), kind, value
SLOT_COUNT = 8
SWITCH_KIND = 88  # the stack pointer before the switch to another stack
SWITCH_VALUE = 89
NEXT_SLOT = 90  # slot to reuse next
JOINS = 91  # how often paths with different states have met here
STATE_SIZE = 92
STATE_LIMIT = 65536  # states remembered, one per place where paths of a function meet
WAITING_LIMIT = 131072  # paths put off

# Limits of what is followed.
DEPTH_LIMIT = 1 << 28  # bytes: a frame address farther away is none
ALLOCATION_LIMIT = 1 << 20  # bytes: a larger bound of an alloca is none
WIDEN_NUMBERS = 16  # joins after which a number that grows counts as unknown
WIDEN_DEPTH = 64  # joins after which a depth that grows counts as unbounded

# Marks of rows.
EXTRA = 1  # has successors besides its own
NEXT = 2  # the row executed next is not the following one
CONTINUES = 4  # execution goes on after this ud2
JOIN = 8  # can be reached from elsewhere than the row before
SWITCH = 16  # an indirect jump that stays in its function

# Functions that stand for an instruction.
RETURN_THUNK = 1
INDIRECT_THUNK = 2
RUNTIME_NOP = 3

# SiteKind, by name.
SITE_CALL = int(SiteKind.CALL)
SITE_TAIL = int(SiteKind.TAIL)
SITE_INDIRECT = int(SiteKind.INDIRECT)
SITE_INDIRECT_TAIL = int(SiteKind.INDIRECT_TAIL)

# Summary, by name.
RETURNS = int(Summary.RETURNS)
REALIGNED = int(Summary.REALIGNED)
BOUNDED = int(Summary.BOUNDED)
UNBOUNDED = int(Summary.UNBOUNDED)
SWITCHES = int(Summary.SWITCHES)
CONFLICT = int(Summary.CONFLICT)
GROWS = int(Summary.GROWS)
UNBALANCED = int(Summary.UNBALANCED)
TOO_COMPLEX = int(Summary.TOO_COMPLEX)
LEAVES = int(Summary.LEAVES)
UNDECODED = int(Summary.UNDECODED)
