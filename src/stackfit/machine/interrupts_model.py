"""A load of system calls and interrupts, and where a layout puts each of its contexts.

A context type is a number. With k sources: 0 the system call; 1 + i the handler of source i; 1 + k + i the
softirq that it raises; 1 + 2k + i what is left of handler i while softirqs run at its end (its entry frame).
A chain is the types of the contexts on a CPU, outermost first; in user mode it is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stackfit.image.model import InputError
from stackfit.layouts import INTERRUPTED, Layout
from stackfit.machine import interrupts_constants as constants
from stackfit.machine.depths import Depths

__all__ = [
    "ASSUMPTIONS",
    "HARD_KINDS",
    "KINDS",
    "Machine",
    "Place",
    "Process",
    "Softirq",
    "Source",
    "Storm",
    "place_storm",
]

HARD_KINDS = ("device", "system-vector", "simple-vector")
KINDS = (*HARD_KINDS, "nmi", "exception", "softirq")
MAX_SOURCES = 32
MAX_EVENTS = 2e9  # expected of one run
MAX_HOURS = 2_000  # of all CPUs together: picoseconds stay whole numbers of 64 bits

ASSUMPTIONS = (
    "each time a context is interrupted, the bytes it has in use are drawn anew from its depth "
    "distribution, independently of time and of every other context; a suspended context keeps them",
    "a context starts at a depth drawn from the same distribution",
    "a system call runs to its end on its CPU without a task switch; outside system calls the CPU is in user "
    "mode (the idle loop's own depth is not modelled)",
    "system calls, exceptions and softirqs run with interrupts on; NMIs, and handlers that do not enable "
    "them, with interrupts off",
    "an interrupt that cannot come in waits; a second one of its source is merged with it, as in the local "
    "APIC",
    "softirqs run when the outermost handler ends, on top of its entry frame, until none is raised; none is "
    "left to ksoftirqd, whose own stack would be empty",
    "a stack that overflows goes on being used: each context that starts above the size counts once",
)


@dataclass(frozen=True)
class Softirq:
    """What a handler raises at its end with `probability`. `duration`: microseconds, mean; `fixed`: always
    that long, else exponential."""

    name: str
    probability: float
    duration: float
    depth: Depths
    fixed: bool = False


@dataclass(frozen=True)
class Source:
    """What interrupts. `rate`: per second and CPU; of kind "exception" and "softirq" (raised and run by the
    system call itself): per second of system call. `periodic`: evenly spaced, else Poisson. `entry`: bytes
    that the entry pushes before any switch; a device's or system vector's stay on the interrupted stack.
    `depth`: bytes below the entry frame. `duration`: microseconds, mean; `fixed`: always that long, else
    exponential.
    """

    name: str
    kind: str
    rate: float
    duration: float
    depth: Depths
    entry: int = 0
    enables_irqs: bool = False
    periodic: bool = False
    fixed: bool = False
    softirq: Softirq | None = None


@dataclass(frozen=True)
class Process:
    """System calls. `busy`: their share of the time that interrupts leave; `duration`: microseconds, mean
    (exponential unless `fixed`); in between user mode, exponential. `depth`: bytes from the stack's top,
    entry frame included."""

    busy: float
    duration: float
    depth: Depths
    fixed: bool = False
    name: str = "system call"


@dataclass(frozen=True)
class Storm:
    """The load. `cpus`, each with all sources; `hours` of simulated time; `nested_handlers`: how many
    handlers can be on top of one that enables interrupts, at most. `evidence`, `source`: of the rates and
    durations."""

    cpus: int
    hours: float
    process: Process
    sources: tuple[Source, ...]
    nested_handlers: int = 1
    evidence: str = "assumed"
    source: str = "stated"
    where: str = "storm"


@dataclass(frozen=True)
class Place:
    """Where one context of a chain has its bytes: `entry` of them on `entry_stack`, its depth on `stack`
    (indices)."""

    what: int
    entry_stack: int
    entry: int
    stack: int


@dataclass(frozen=True, eq=False)
class Machine:
    """A load on a layout: stacks are indices into `layout.stacks`, -1 is the interrupted one.

    `kinds` (k sources): interrupts_constants; `from_kernel`, `from_user`: where each source runs;
    `soft_kernel`, `soft_user`: where softirqs do; `base`: the process stack; `nests` (stacks, 3): how many
    of each kind nest.
    """

    storm: Storm
    layout: Layout
    kinds: tuple[int, ...]
    from_kernel: tuple[int, ...]
    from_user: tuple[int, ...]
    soft_kernel: int
    soft_user: int
    base: int
    nests: tuple[tuple[int, int, int], ...]

    @property
    def usable(self) -> tuple[int, ...]:
        """Bytes that frames can take, by stack."""
        return tuple(stack.usable for stack in self.layout.stacks)

    def name(self, what: int) -> str:
        """A context type's name."""
        count = len(self.storm.sources)
        if what == 0:
            return self.storm.process.name
        source = self.storm.sources[(what - 1) % count]
        if what <= count:
            return source.name
        if what <= 2 * count:
            return source.softirq.name if source.softirq else source.name
        return f"{source.name} (entry frame)"

    def depth(self, what: int) -> Depths | None:
        """A context type's depth; None of an entry frame."""
        count = len(self.storm.sources)
        if what == 0:
            return self.storm.process.depth
        if what > 2 * count:
            return None
        source = self.storm.sources[(what - 1) % count]
        if what <= count:
            return source.depth
        return source.softirq.depth if source.softirq else None

    def places(self, chain: Sequence[int]) -> list[Place]:
        """Where each context of a chain (types, outermost first) has its bytes."""
        count = len(self.storm.sources)
        places: list[Place] = []
        here = self.base
        for level, what in enumerate(chain):
            left = what > 2 * count
            raised = count < what <= 2 * count
            if what == 0:
                place = Place(what, self.base, 0, self.base)
            elif raised:
                from_user = level == 1 and chain[0] > 2 * count
                stack = self.soft_user if from_user else self.soft_kernel
                stack = here if stack < 0 else stack
                place = Place(what, stack, 0, stack)
            else:
                source = (what - 1) % count
                stack = self.from_kernel[source] if level else self.from_user[source]
                stack = here if stack < 0 else stack
                entry_stack = here if self.kinds[source] == constants.HARD else stack
                entry = self.storm.sources[source].entry
                place = Place(what, entry_stack, entry, entry_stack if left else stack)
            places.append(place)
            here = place.stack
        return places

    def on_stack(self, chain: Sequence[int], stack: int) -> tuple[int, list[Depths]]:
        """What a chain has on one stack: bytes of entry frames, and the depths that add to them."""
        fixed, parts = 0, []
        for place in self.places(chain):
            depth = self.depth(place.what)
            if place.entry_stack == stack:
                fixed += place.entry
            if place.stack == stack and depth is not None:
                parts.append(depth)
        return fixed, parts

    def touched(self, chain: Sequence[int]) -> tuple[int, ...]:
        """The stacks on which the chain's last context puts bytes: where it runs, and where its entry frame
        is."""
        last = self.places(chain)[-1]
        if last.entry_stack != last.stack and last.entry:
            return (last.stack, last.entry_stack)
        return (last.stack,)


def place_storm(storm: Storm, layout: Layout) -> Machine:
    """A load put on a layout. InputError: no stack for processes, too many sources or events."""
    home = layout.home("syscall") or layout.home("task")
    if home is None:
        raise InputError(layout.path or layout.name, "no stack runs syscall or task, so none is interrupted")
    names = [stack.name for stack in layout.stacks]

    def stack(kind: str, user: bool) -> int:
        target = layout.target(kind, user=user)
        return -1 if target == INTERRUPTED else names.index(target)

    if len(storm.sources) > MAX_SOURCES:
        raise InputError(storm.where, f"interrupts.source: more than {MAX_SOURCES}")
    if storm.hours * storm.cpus > MAX_HOURS:
        raise InputError(storm.where, f"interrupts.hours: more than {MAX_HOURS} for all CPUs together")
    busiest = storm.process.busy / storm.process.duration * 1e6
    expected = 2.5 * storm.hours * 3600 * storm.cpus * (busiest + sum(one.rate for one in storm.sources))
    if expected > MAX_EVENTS:
        cause = f"about {expected:.2g} events (at most {MAX_EVENTS:.0e} are simulated)"
        raise InputError(storm.where, f"interrupts.hours: {cause}")
    codes = {"nmi": constants.NMI, "exception": constants.EXCEPTION, "softirq": constants.CALLED}
    nested = tuple(
        (one.nests.get("hardirq", 0), one.nests.get("nmi", 0), one.nests.get("exception", 0))
        for one in layout.stacks
    )
    return Machine(
        storm,
        layout,
        tuple(codes.get(source.kind, constants.HARD) for source in storm.sources),
        tuple(stack(source.kind, False) for source in storm.sources),
        tuple(stack(source.kind, True) for source in storm.sources),
        stack("softirq", False),
        stack("softirq", True),
        names.index(home.name),
        nested,
    )
