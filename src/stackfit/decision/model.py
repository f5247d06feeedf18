"""A comparison of layouts: what was found out, with the evidence of each number."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from stackfit.analysis import Analysis
from stackfit.layouts.model import Layout
from stackfit.machine.model import Run
from stackfit.machine.scenario import Scenario
from stackfit.verdict.model import LayoutVerdict, StackNeed
from stackfit.verdict.through import Through

__all__ = [
    "EVIDENCE",
    "Answer",
    "Claim",
    "Comparison",
    "InterruptRoom",
    "LargestFrame",
    "Number",
    "Outcome",
    "ProcessRoom",
    "StackMemory",
    "WorstModule",
    "weakest",
]

EVIDENCE = ("proved", "measured", "assumed", "open")  # from the strongest to the weakest


def weakest(found: Sequence[str]) -> str:
    """The evidence of what rests on all of these; "open" of nothing."""
    return max(found, key=EVIDENCE.index, default="open")


@dataclass(frozen=True)
class Outcome:
    """A scenario on one layout: its runs, seed by seed."""

    scenario: Scenario
    layout: Layout
    runs: tuple[Run, ...]

    @property
    def median(self) -> Run:
        """The run with the median number of children, of those with as many that with the median of stalls;
        the first without."""
        ordered = sorted(self.runs, key=lambda run: (run.processes, run.reclaim.stalls))
        return ordered[len(self.runs) // 2]


@dataclass(frozen=True)
class InterruptRoom:
    """What one kind of interrupt has when it hits a system call, under a scenario's depths. Bytes.

    `stack`: where it runs; `own`: no process starts there. `left`: what is left there on top of the deepest
    system call — of a stack of its own: all of it.
    """

    layout: str
    kind: str
    stack: str
    own: bool
    usable: int
    left: int


@dataclass(frozen=True)
class ProcessRoom:
    """How a process stack is shared under a scenario's depths. Bytes.

    `deepest_call`: the deepest system call of the scenario. `on_top`: the most that interrupts put on top of
    it on the process stack, None: too many chains to tell. `elsewhere`: usable bytes of the other stacks
    that interrupts of the scenario run on.
    """

    layout: str
    usable: int
    deepest_call: int
    on_top: int | None
    elsewhere: int

    @property
    def for_calls(self) -> int | None:
        """What is left for system calls when interrupts take the most that they do."""
        return None if self.on_top is None else self.usable - self.on_top

    @property
    def for_interrupts(self) -> int:
        """What is left for interrupts, on all stacks, on top of the deepest system call."""
        return self.usable - self.deepest_call + self.elsewhere


@dataclass(frozen=True)
class StackMemory:
    """Memory of a thousand threads' stacks. Bytes; `most` differs where a stack grows."""

    layout: str
    order: int | None
    least: int
    most: int
    per_cpu: int  # kept ready besides by each CPU


@dataclass(frozen=True)
class LargestFrame:
    """The largest frame of a chain: the one to shrink first."""

    layout: str
    stack: str
    function: str
    module: str | None
    bytes: int


@dataclass(frozen=True)
class WorstModule:
    """The module that asks most of a stack. Bytes.

    `kind`: "binary-only" (its license is not compatible with the GPL), "out-of-tree", or "in-tree": the
    first of these that there is. `of`: how many of that kind were given. `own`: no chain of its own functions
    alone is deeper, recursion without a budget counted once; `function`: where that starts. `through`: what
    lies below a call into it, kernel code too, and what is left of each stack.
    """

    kind: str
    of: int
    function: str
    own: int
    through: Through

    @property
    def name(self) -> str:
        return self.through.subject


@dataclass(frozen=True)
class Number:
    """One number of an answer; `layout` is empty where it holds for all. `value` None: not known."""

    layout: str
    name: str
    value: float | None
    unit: str
    evidence: str


class Answer(enum.Enum):
    HOLDS = "holds"
    IN_PART = "in part"
    FAILS = "does not hold"
    OPEN = "open"


@dataclass(frozen=True)
class Claim:
    """A claim of "4K Stacks in 2.6", and what the comparison says of it.

    `short`: a few words of `quote`, for a table. `text`: the answer in one line. `rule`: by which it follows
    from the numbers. `source`: what was run to get them.
    """

    key: str
    short: str
    quote: str
    answer: Answer
    text: str
    rule: str
    evidence: str
    source: str
    numbers: tuple[Number, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """`analysis` None: no image was given. The claims are about the first layout against the last."""

    layouts: tuple[Layout, ...]
    analysis: Analysis | None
    outcomes: tuple[Outcome, ...]
    process_rooms: tuple[ProcessRoom, ...]
    interrupt_rooms: tuple[InterruptRoom, ...]
    stack_memory: tuple[StackMemory, ...]
    largest_frames: tuple[LargestFrame, ...]
    module: WorstModule | None

    @property
    def verdicts(self) -> Sequence[LayoutVerdict]:
        return self.analysis.verdicts if self.analysis is not None else ()

    def need(self, layout: Layout, stack: str) -> StackNeed | None:
        """What a stack of a layout needs; None: no image, or no such stack."""
        for verdict in self.verdicts:
            if verdict.layout.name == layout.name:
                return next((one for one in verdict.stacks if one.stack.name == stack), None)
        return None

    def of(self, layout: Layout) -> tuple[Outcome, ...]:
        """The outcomes of one layout."""
        return tuple(one for one in self.outcomes if one.layout.name == layout.name)
