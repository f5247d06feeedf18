"""Contexts: what starts running on a stack, and what lies above it when it does."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Context", "Start"]


@dataclass(frozen=True)
class Start:
    """One way in which a context begins: `entry` runs with `bytes` used since the entry frame.

    `through`: the functions between the entry code and `entry`, outermost first, each with the bytes of its
    frame at the site; their sum is `bytes`.
    """

    entry: int  # function
    bytes: int = 0
    through: tuple[tuple[int, int], ...] = ()  # (function, bytes)


@dataclass(frozen=True)
class Context:
    """Something that starts running on a stack.

    `kind` is one of the layout's context kinds. `starts` are alternatives: the need is the greatest of
    theirs. Contexts that interrupt others have an `interrupt` kind (the layout's) and, when their own code
    switches stacks, `interrupted` (what stays on the interrupted stack) and `switched` (what runs on the
    other, counted from its top; `behind` says why that is not all, else ""); `switchers` are the functions
    that switch. `frame_user` and `frame_kernel` are what hardware and entry code push first when user mode,
    and when the kernel is interrupted; bytes. `open` says why nothing is known of the context, else "".
    """

    name: str
    kind: str
    starts: tuple[Start, ...]
    frame_user: int = 0
    frame_kernel: int = 0
    frame_source: str = ""
    interrupt: str = ""
    interrupted: tuple[Start, ...] = ()
    switched: tuple[Start, ...] = ()
    behind: str = ""
    switchers: tuple[int, ...] = ()
    number: int = -1  # syscall number or vector
    abi: str = ""  # of a syscall: "x86-64", "compat", "i386"
    open: str = ""
    level: int = -1  # of a handler: its preemption priority, where it is known
    stack: str = ""  # the one stack that it runs on, where the layout's kinds do not say

    @property
    def title(self) -> str:
        return f"{self.kind} {self.name}" + (f" ({self.abi})" if self.abi else "")
