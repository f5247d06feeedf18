"""Numbers of the compiled event loop as plain integers: the same as in `interrupts_constants.pxd` for
Cython."""

from __future__ import annotations

# What a source is to the CPU.
HARD = 0  # barred while interrupts are off
NMI = 1  # barred by an NMI only
EXCEPTION = 2  # raised by the system call that runs
CALLED = 3  # softirqs that the system call that runs raises and runs itself

# Columns of a context on the CPU.
TYPE = 0
REMAINS = 1  # picoseconds of its own work
STACK = 2  # where it runs
DEPTH = 3  # bytes there
ENTRY_STACK = 4  # where its entry frame is
ENTRY = 5  # bytes there
NODE = 6  # its chain
COUNTED = 7  # the stack on which it counts as nested, or -1
COUNTED_TOO = 8  # a second such stack, or -1
COLUMNS = 9

LEVELS = 24  # contexts on a CPU at once; nested_handlers is limited so that they fit
MOST_NESTED = 8

# Why the loop came back.
DONE = 0
NEEDS_RANDOM = 1
NEEDS_NODES = 2

FAR = 4_000_000_000_000_000_000  # picoseconds; later than the end of every simulation
