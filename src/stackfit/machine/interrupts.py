"""System calls, interrupts and softirqs on the CPUs of a machine, event by event, on the stacks of a layout.

Each CPU is in user mode or in a system call (one at a time, never descheduled: no task switch inside), and
takes interrupts at stated rates. Which stack each lands on, and how many nest there, is the layout's. The
CPUs have stacks of their own and do not affect each other. What the model takes for granted is in
interrupts_model.ASSUMPTIONS; it comes with every result. Times are kept in whole picoseconds, depths in
whole bytes; the same seed gives the same run.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import InputError
from stackfit.layouts import Layout
from stackfit.machine import interrupts_constants as constants
from stackfit.machine.depths import weakest
from stackfit.machine.interrupts_loop import Cpu
from stackfit.machine.interrupts_model import ASSUMPTIONS, Machine, Storm, place_storm

__all__ = ["ChainUse", "Part", "StackUse", "StormResult", "simulate"]

MAX_NODES = 1 << 17  # distinct chains of contexts
BATCHES = 20  # of a run; what differs between them gives the standard errors
MICROSECOND = 10**6  # picoseconds
HOUR = 3600 * 10**12  # picoseconds
_NEVER = 1e30  # picoseconds
_BLOCK = 1 << 16  # random numbers drawn at a time


@dataclass(frozen=True)
class Part:
    """One context of a chain: its name, the call chain where known, and its bytes on the stack in
    question."""

    name: str
    bytes: int

    def __str__(self) -> str:
        return f"{self.name} {self.bytes:,} B"


@dataclass(frozen=True)
class ChainUse:
    """A chain of contexts on one stack: the greatest use seen with it, how often it came about, how often
    that was an overflow."""

    stack: str
    parts: tuple[Part, ...]
    bytes: int
    usable: int
    starts: int
    overflows: int

    def __str__(self) -> str:
        chain = " + ".join(str(part) for part in self.parts)
        return f"{chain} = {self.bytes:,} B on stack {self.stack} of {self.usable:,} usable"


@dataclass(frozen=True)
class StackUse:
    """One stack of the layout, the worst of its instances. Sizes in bytes; rates per hour of the whole
    machine.

    `greatest` and `chain` are None where nothing ever ran on it. `per_hour` is None without an overflow:
    then only `per_hour_at_most` is known (95 %: the rule of three). `error`: standard error of `per_hour`,
    from batches.
    """

    name: str
    size: int
    usable: int
    instances: str
    greatest: int | None
    chain: ChainUse | None
    overflows: int
    per_hour: float | None
    per_hour_at_most: float
    error: float | None
    overflow_chains: tuple[ChainUse, ...] = ()


@dataclass(frozen=True, eq=False)
class StormResult:
    """What a run saw. `hours` of simulated time of the machine (each CPU ran that long); `events` in all.

    `merged`: arrivals lost to one that waited already, `barred`: exceptions that the layout lets not nest,
    both by source. `chains`: types of each chain that came about (see interrupts_loop), `starts`,
    `delivered`, `spent` (batches, chains): how often its last context started, how often of these after it
    had to wait, and the picoseconds in which it ran.
    """

    layout: str
    seed: int
    cpus: int
    hours: float
    events: int
    stacks: tuple[StackUse, ...]
    merged: dict[str, int]
    barred: dict[str, int]
    evidence: str
    assumptions: tuple[str, ...]
    chains: tuple[tuple[int, ...], ...] = field(repr=False)
    starts: NDArray[np.int64] = field(repr=False)
    delivered: NDArray[np.int64] = field(repr=False)
    spent: NDArray[np.int64] = field(repr=False)


def simulate(storm: Storm, layout: Layout, seed: int) -> StormResult:
    """Run the load on the layout for `storm.hours`. InputError as place_storm, or too many distinct
    chains."""
    machine = place_storm(storm, layout)
    run = _Run(machine, seed)
    run.go()
    return run.result()


class _Run:
    """The arrays of a run, and what is made of them."""

    def __init__(self, machine: Machine, seed: int) -> None:
        self.machine, self.seed = machine, seed
        self.storm = machine.storm
        self.count = len(self.storm.sources)
        self.types = 1 + 3 * self.count
        self.counted = 0
        self.nodes = np.ones(1, np.int64)  # the root is there
        self.merged = np.zeros(max(1, self.count), np.int64)
        self.barred = np.zeros(max(1, self.count), np.int64)
        self._room_for(1 << 10)
        self.snapshots: list[tuple[NDArray[np.int64], ...]] = []
        self.over_snapshots: list[NDArray[np.int64]] = []

    def _room_for(self, capacity: int) -> None:
        old = getattr(self, "visits", np.zeros(0, np.int64)).size

        def grown(name: str, shape: tuple[int, ...], fill: int = 0) -> None:
            array = np.full(shape, fill, np.int64)
            if old:
                before = getattr(self, name)
                array[: before.shape[0]] = before
            setattr(self, name, array)

        grown("tree", (capacity * self.types,))
        grown("visits", (capacity,))
        grown("delivered", (capacity,))
        grown("spent", (capacity,))
        grown("over", (2 * capacity,))
        grown("peak", (2 * capacity,), -1)
        grown("parts", (2 * capacity, constants.LEVELS))

    tree: NDArray[np.int64]
    visits: NDArray[np.int64]
    delivered: NDArray[np.int64]
    spent: NDArray[np.int64]
    over: NDArray[np.int64]
    peak: NDArray[np.int64]
    parts: NDArray[np.int64]

    def go(self) -> None:
        """Batch by batch, CPU by CPU."""
        streams = np.random.SeedSequence(self.seed).spawn(2 * self.storm.cpus)
        cpus = []
        for number in range(self.storm.cpus):
            pair = [np.random.Generator(np.random.PCG64(s)) for s in streams[2 * number : 2 * number + 2]]
            cpu = self._cpu(pair[0])
            self._give(cpu, pair)
            cpus.append((cpu, pair))
        length = self.storm.hours * HOUR / BATCHES
        for batch in range(1, BATCHES + 1):
            for cpu, pair in cpus:
                cpu.give_nodes(*self._shared())
                self._until(cpu, pair, int(length * batch))
            self.snapshots.append((self.visits.copy(), self.delivered.copy(), self.spent.copy()))
            self.over_snapshots.append(self.over.copy())
        self.counted = sum(cpu.counted() for cpu, _ in cpus)

    def _until(self, cpu: Cpu, pair: list[np.random.Generator], end: int) -> None:
        while (status := cpu.run(end)) != constants.DONE:
            if status == constants.NEEDS_RANDOM:
                self._give(cpu, pair)
                continue
            if self.visits.size >= MAX_NODES:
                cause = f"more than {MAX_NODES} distinct chains of contexts: fewer sources or nested_handlers"
                raise InputError(self.storm.where, f"interrupts: {cause}")
            self._room_for(2 * self.visits.size)
            cpu.give_nodes(*self._shared())

    def _shared(self) -> list[memoryview]:
        counted = (self.visits, self.delivered, self.spent)
        arrays = (self.tree, *counted, self.over, self.peak, self.parts, self.nodes)
        return [array.data for array in arrays]

    def _give(self, cpu: Cpu, pair: list[np.random.Generator]) -> None:
        cpu.give_random(pair[0].random(_BLOCK).data, pair[1].standard_exponential(_BLOCK).data)

    def _cpu(self, generator: np.random.Generator) -> Cpu:
        """A CPU in user mode, every source at a random phase."""
        storm, machine, sources = self.storm, self.machine, self.storm.sources
        interval = np.array([1e12 / s.rate if s.rate > 0 else _NEVER for s in sources] or [_NEVER])
        periodic = np.array([s.periodic and s.rate > 0 for s in sources] or [False], np.uint8)
        phase = np.where(
            periodic, generator.random(interval.size), generator.standard_exponential(interval.size)
        )
        raises = [s.softirq.probability if s.softirq else 0.0 for s in sources]
        per_source = (
            np.array(machine.kinds or [0], np.uint8),
            interval,
            periodic,
            np.array([s.entry for s in sources] or [0], np.int64),
            np.array([s.enables_irqs for s in sources] or [False], np.uint8),
            np.array(machine.from_kernel or [0], np.int64),
            np.array(machine.from_user or [0], np.int64),
            np.array(raises or [0.0]),
        )
        process = storm.process
        softs = [s.softirq for s in sources]
        work = [process.duration, *(s.duration for s in sources), *(s.duration if s else 0.0 for s in softs)]
        work += [0.0] * self.count
        fixed = [process.fixed, *(s.fixed for s in sources), *(s is not None and s.fixed for s in softs)]
        fixed += [False] * self.count
        depths = [machine.depth(what) if what <= 2 * self.count else None for what in range(self.types)]
        sizes = [depth.values.size if depth else 1 for depth in depths]
        nothing = (np.zeros(1, np.int64), np.ones(1))
        pairs = [(depth.values, np.cumsum(depth.probabilities)) if depth else nothing for depth in depths]
        per_type = (
            np.array(work, np.float64) * MICROSECOND,
            np.array(fixed, np.uint8),
            np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
            np.concatenate([reach for _, reach in pairs]),
            np.concatenate([values for values, _ in pairs]),
        )
        think = process.duration * MICROSECOND * (1 - process.busy) / process.busy if process.busy else _NEVER
        stacks = len(machine.layout.stacks)
        per_stack = (np.array(machine.usable, np.int64), np.array(machine.nests, np.int64))
        waiting = np.zeros(interval.size, np.uint8)
        state = (
            np.zeros((constants.LEVELS, constants.COLUMNS), np.int64),
            np.minimum(phase * interval, 4e18).astype(np.int64),
            waiting,
            waiting.copy(),
            np.zeros(stacks, np.int64),
            np.zeros(stacks, np.int64),
            np.zeros((stacks, 3), np.int64),
        )
        groups = (per_source, per_type, per_stack, state, (self.merged, self.barred))
        views = [tuple(array.data for array in group) for group in groups]
        scalars = (think, machine.base, machine.soft_kernel, machine.soft_user, storm.nested_handlers)
        return Cpu(self.count, views[0], views[1], views[2], views[3], views[4], scalars)

    # ------------------------------------------------------------ what came out

    def _chains(self) -> list[tuple[int, ...]]:
        """The chain of every node, by node."""
        used = int(self.nodes[0])
        chains: list[tuple[int, ...]] = [()] * used
        # Children have greater numbers than their parents: they were made later.
        for at in np.flatnonzero(self.tree[: used * self.types]).tolist():
            parent, what = divmod(at, self.types)
            chains[int(self.tree[at])] = (*chains[parent], what)
        return chains

    def result(self) -> StormResult:
        """The run in the words of the layout and the load."""
        storm, machine = self.storm, self.machine
        chains = self._chains()
        uses: dict[int, list[tuple[int, ChainUse, int]]] = {}
        for node in range(1, len(chains)):
            touched = machine.touched(chains[node]) if self.visits[node] else ()
            for slot, stack in enumerate(touched):
                use = self._use(chains[node], node, 2 * node + slot, stack)
                uses.setdefault(stack, []).append((2 * node + slot, use, node))
        stacks = tuple(self._stack(at, uses.get(at, [])) for at in range(len(machine.layout.stacks)))
        depths = [machine.depth(what) for what in range(self.types)]
        evidence = weakest([storm.evidence, *(depth.evidence for depth in depths if depth is not None)])
        names = [source.name for source in storm.sources]
        return StormResult(
            machine.layout.name,
            self.seed,
            storm.cpus,
            storm.hours,
            self.counted,
            stacks,
            dict(zip(names, self.merged.tolist(), strict=False)),
            dict(zip(names, self.barred.tolist(), strict=False)),
            evidence,
            (*ASSUMPTIONS, *machine.layout.assumptions),
            tuple(chains),
            *(self._by_batch(which, len(chains)) for which in range(3)),
        )

    def _by_batch(self, which: int, used: int) -> NDArray[np.int64]:
        """What each batch added to one of the counts of each node, (batches, nodes)."""
        counts = np.zeros((BATCHES, used), np.int64)
        for batch, counted in enumerate(self.snapshots):
            seen = counted[which][:used]
            counts[batch, : seen.size] = seen
        return np.diff(counts, axis=0, prepend=0)

    def _use(self, chain: tuple[int, ...], node: int, place: int, stack: int) -> ChainUse:
        machine, parts = self.machine, []
        for level, where in enumerate(machine.places(chain)):
            used = int(self.parts[place, level])
            if stack not in (where.stack, where.entry_stack) or not used:
                continue
            depth, name = machine.depth(where.what), machine.name(where.what)
            if depth is not None and where.stack != stack:
                name += " (entry frame)"
            elif depth is not None:
                below = used - where.entry if where.entry_stack == stack else used
                name += f" ({depth.chain(below)})" if depth.chain(below) else ""
            parts.append(Part(name, used))
        return ChainUse(
            machine.layout.stacks[stack].name,
            tuple(parts),
            int(self.peak[place]),
            machine.usable[stack],
            int(self.visits[node]),
            int(self.over[place]),
        )

    def _stack(self, at: int, uses: list[tuple[int, ChainUse, int]]) -> StackUse:
        stack, hours = self.machine.layout.stacks[at], self.storm.hours
        over = sorted((use for _, use, _ in uses if use.overflows), key=lambda use: -use.bytes)
        total = sum(use.overflows for use in over)
        places = [place for place, _, _ in uses]
        per_batch = np.diff(
            [0, *(int(o[[p for p in places if p < o.size]].sum()) for o in self.over_snapshots)]
        )
        error = float(per_batch.std(ddof=1)) * BATCHES**0.5 / hours if total else None
        highest = total + 2 * error * hours if error is not None else 3.0
        deepest = max((use for _, use, _ in uses), key=lambda use: use.bytes, default=None)
        return StackUse(
            stack.name,
            stack.size,
            stack.usable,
            stack.per,
            deepest.bytes if deepest else None,
            deepest,
            total,
            total / hours if total else None,
            max(highest, 3.0) / hours,
            error,
            tuple(over),
        )
