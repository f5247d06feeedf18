"""Runs a scenario on a layout: memory brought into its state, children made, events counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stackfit.image.model import InputError
from stackfit.layouts.model import PAGE, Layout
from stackfit.machine.children import Child, Children, Failure
from stackfit.machine.costs import PROCESS
from stackfit.machine.model import Compaction, Contiguous, Latency, Reclaim, Run, Sample
from stackfit.machine.overflow import Chance, chance_of_overflow
from stackfit.machine.scenario import Memory as MemoryState
from stackfit.machine.scenario import Scenario, Step
from stackfit.machine.storm import StormResult, run_storm
from stackfit.pages import allocator_constants as c
from stackfit.pages.memory import Handle, Memory, OutOfMemory
from stackfit.pages.placement import fill_per_cpu_lists, place_blocks

__all__ = ["Progress", "seeds_of", "simulate", "simulate_all", "start_memory"]

Progress = Callable[[float], None]  # share of the run that is done
_MOST_SAMPLES = 96  # of one run; then every second is left out
_KINDS = {  # state, migratetype of the request
    "anonymous": (c.ANONYMOUS, c.MOVABLE),
    "file": (c.FILE, c.MOVABLE),
    "device": (c.FILE, c.UNMOVABLE),  # block/bdev.c:bdev_alloc: GFP_USER
    "ramfs": (c.PINNED, c.UNMOVABLE),  # fs/ramfs: GFP_HIGHUSER, unevictable
    "slab": (c.SLAB, c.RECLAIMABLE),
}


def start_memory(state: MemoryState, scenario: Scenario, random: np.random.Generator | None = None) -> Memory:
    """Memory as after boot; `random`: of the disk. InputError: the blocks do not fit into their zones."""
    specs = [zone.spec for zone in state.zones]
    memory = Memory(specs, scenario.era, state.settings, scenario.time, random)
    try:
        for zone, given in zip(memory.zones, state.zones, strict=True):
            place_blocks(zone, given.free)
            if not scenario.era.mobility:  # one list an order
                _forget_types(zone)
        fill_per_cpu_lists(memory.zones[-1], state.per_cpu_pages)
    except ValueError as error:
        raise InputError(scenario.name, str(error)) from None
    return memory


def simulate(scenario: Scenario, layout: Layout, seed: int, progress: Progress = lambda share: None) -> Run:
    """One run; the same seed gives the same run. InputError: the layout has no stack to allocate, or memory
    runs out before the first child."""
    storm = chance = None
    if scenario.storm is not None:
        storm = run_storm(scenario.storm, layout, seed)
        chance = chance_of_overflow(scenario.storm, layout, seed, storm)
    machine = _Machine(scenario, layout, seed, progress)
    if scenario.memory is not None:
        machine.go()
    return machine.result(storm, chance)


def seeds_of(scenario: Scenario, wanted: int | None) -> int:
    """How many runs a scenario gets where nobody says: what reclaim finds is chance, so where children come
    and go one run shows nothing."""
    return wanted or (5 if any(step.do == "cycle" for step in scenario.steps) else 1)


def simulate_all(
    scenario: Scenario,
    layouts: Sequence[Layout],
    seeds: int | None,
    progress: Callable[[str, float], None],
) -> list[Run]:
    """Every layout with seeds 0 to `seeds` - 1 (None: as many as `seeds_of` says). `progress` is called with
    what is run, and the share done."""
    runs: list[Run] = []
    seeds = seeds_of(scenario, seeds)
    for layout in layouts:
        title = f"{scenario.name} on {layout.name}"
        for seed in range(seeds):
            start, step = len(runs) / (len(layouts) * seeds), 1 / (len(layouts) * seeds)

            def within(share: float, title: str = title, start: float = start, step: float = step) -> None:
                progress(title, start + share * step)

            within(0.0)
            runs.append(simulate(scenario, layout, seed, within))
    return runs


@dataclass
class _Machine:
    scenario: Scenario
    layout: Layout
    seed: int
    progress: Progress
    held: dict[str, list[Handle]] = field(default_factory=lambda: {kind: [] for kind in _KINDS})
    living: list[Child] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    before: tuple[int, tuple[int, ...]] | None = None
    mode: str = PROCESS
    stopped_by: str = "end"
    failure: Failure | None = None
    memory: Memory | None = None
    children: Children | None = None
    samples: list[Sample] = field(default_factory=list)
    stride: int = 1  # forks from one sample to the next
    start: tuple[int, int, int] = (0, 0, 0)  # of `_work`, when the first child was made

    def go(self) -> None:
        scenario = self.scenario
        assert scenario.memory is not None and scenario.cost is not None
        self.random = np.random.Generator(np.random.PCG64(self.seed))
        # The disk has chance of its own: how long it takes does not change what else is drawn.
        disk = np.random.Generator(np.random.PCG64([self.seed, 1]))
        self.memory = start_memory(scenario.memory, scenario, disk)
        self.children = Children(self.memory, scenario.cost, self.layout, self.random)
        for at, step in enumerate(scenario.steps):
            try:
                getattr(self, f"_{step.do}")(step)
            except OutOfMemory as error:
                raise InputError(
                    scenario.name, f"step {at + 1} ({step.do}): out of memory, {error}"
                ) from None
            self.progress((at + 1) / len(scenario.steps))
            if self.failure is not None:
                break

    # steps

    def _fill(self, step: Step) -> None:
        memory, held = self._memory(), self.held[step.kind]
        number = None if step.kb is None else step.kb * 1024 // PAGE
        until = (step.until_free_kb or 0) * 1024 // PAGE
        made, most = 0, sum(zone.pages for zone in memory.zones)
        while made < number if number is not None else memory.free > until:
            for _ in range(sum(made % objects == 0 for objects in step.slabs)):
                if step.kind == "ramfs":  # fs/ramfs pins inodes and dentries; a slab of them stays
                    memory.allocate(0, c.RECLAIMABLE)
                else:
                    self.held["slab"].append(memory.allocate_page(*_KINDS["slab"]))
            if step.kind == "anonymous" and made % self._kids().cost.page_table_maps == 0:
                memory.allocate(0, c.UNMOVABLE)  # the page table that maps it
            if made == most:
                cause = f"fill: reclaim keeps {memory.free * 4} kB free, until_free_kb is never reached"
                raise InputError(self.scenario.name, cause)
            held.append(memory.allocate_page(*_KINDS[step.kind]))
            self._used(step.kind)
            made += 1

    def _punch(self, step: Step) -> None:
        memory, held = self._memory(), self.held[step.kind]
        holes = len(held) // step.every
        spared, half = 0, memory.zones[-1].per_cpu_high // 2
        until = None if step.until_free_kb is None else step.until_free_kb * 1024 // PAGE
        if until is not None:
            there = memory.free + memory.zones[-1].per_cpu_count
            spared = max(holes - max(until + half - there, 0), 0)
        # How far the per-CPU lists are from their limit when it begins is chance; it decides which pages are
        # still on them at the end. Here they are empty after so many.
        drained = int(self.random.integers(max(memory.zones[-1].per_cpu_high, 1))) if until is None else -1
        if step.by == "address":
            held.sort(key=lambda handle: (handle.zone, memory.page(handle)))
        kept: list[Handle] = []
        for index, handle in enumerate(held):
            if index % step.every == step.every - 1 and index // step.every >= spared:
                memory.release_page(handle)
                if index // step.every == drained:
                    memory.zones[-1].drain()
            else:
                kept.append(handle)
        self.held[step.kind] = kept
        if until is not None:
            self._settle(until, half, step.kind)

    def _settle(self, free: int, per_cpu: int, kind: str) -> None:
        """Move pages between free and per-CPU lists, as programs do that take and give pages, until so many
        are on the latter. (Which of the two a freed page is on when a snapshot is taken is chance.)"""
        memory = self._memory()
        state, migratetype = _KINDS[kind]
        moved = [memory.allocate_page(state, migratetype) for _ in range(max(memory.free - free, 0))]
        moved += [
            memory.allocate_page(state, migratetype)
            for _ in range(max(per_cpu - memory.zones[-1].per_cpu_count - len(moved), 0))
            if memory.free > free
        ]
        for handle in moved:
            memory.release_page(handle)

    def _pin(self, step: Step) -> None:
        memory = self._memory()
        for at, handle in enumerate(self.held[step.kind]):
            for _ in range(sum(at % objects == 0 for objects in step.slabs)):
                memory.allocate(0, c.UNMOVABLE)
            if memory.page(handle) >= 0:
                memory.pin(handle)

    def _churn(self, step: Step) -> None:
        memory, held = self._memory(), self.held[step.kind]
        state, migratetype = _KINDS[step.kind]
        for _ in range(step.rounds):
            if step.back:
                gone = list(dict.fromkeys(int(at) for at in self.random.integers(len(held), size=step.pages)))
                for at in gone:
                    memory.release_page(held[at])
                for at in reversed(gone):
                    held[at] = memory.allocate_page(state, migratetype)
                    self._used(step.kind)
                continue
            for _ in range(min(step.pages, len(held))):
                at = int(self.random.integers(len(held)))
                held[at], held[-1] = held[-1], held[at]
                memory.release_page(held.pop())
            for _ in range(step.pages):
                held.append(memory.allocate_page(state, migratetype))
                self._used(step.kind)

    def _children(self, step: Step) -> None:
        self._begin(step)
        made = 0
        while self.failure is None and (step.number is None or made < step.number) and self._fork():
            made += 1
        if self.failure is None and self.stopped_by == "end":
            self.stopped_by = "limit"

    def _cycle(self, step: Step) -> None:
        self._begin(step)
        memory, children = self._memory(), self._kids()
        working = [
            (kind, at) for kind in ("anonymous", "file", "device") for at in range(len(self.held[kind]))
        ]
        for made in range(step.forks):
            if len(self.living) >= step.alive:
                at = int(self.random.integers(len(self.living)))
                self.living[at], self.living[-1] = self.living[-1], self.living[at]
                children.remove(self.living.pop())
                memory.processor.work(memory.times.exit)
                memory.processor.give_way()
            if working:
                for index in self.random.integers(len(working), size=step.touch):
                    self._touch(memory, *working[int(index)])
            if not self._fork():
                return
            if made % 64 == 0:
                self.progress(made / step.forks)

    def _used(self, kind: str) -> None:
        """A page has come into memory: from the disk, or empty."""
        memory = self._memory()
        if kind in ("file", "device"):
            memory.wait_for_disk(memory.times.read)
        else:
            memory.processor.work(memory.times.use)
            memory.processor.give_way()

    def _touch(self, memory: Memory, kind: str, at: int) -> None:
        """Use a page; bring it back first if reclaim took it."""
        handle = self.held[kind][at]
        if memory.page(handle) < 0:
            handle = self.held[kind][at] = memory.refault(handle, *_KINDS[kind])
        memory.reference(handle)
        memory.processor.work(memory.times.use)
        memory.processor.give_way()

    def _deepen(self, step: Step) -> None:
        children = self._kids()
        if children.stack.mapped is None:
            return  # all of it is there since fork
        sizes = [size for size, _ in step.depths]
        weights = np.array([weight for _, weight in step.depths])
        chosen = self.random.choice(len(sizes), size=len(self.living), p=weights / weights.sum())
        for child, at in zip(self.living, chosen, strict=True):
            try:
                children.grow(child, -(-min(sizes[int(at)], children.stack.size) // PAGE))
            except OutOfMemory as error:
                self._stop(Failure("stack page mapped on a fault", error.order))
                return

    # children

    def _begin(self, step: Step) -> None:
        self.mode = step.mode
        if self.before is None:
            memory = self._memory()
            self.before = memory.free, tuple(memory.counts())
            self.start = self._work()
            self._sample()

    def _fork(self) -> bool:
        """One more child; False: it stops here."""
        memory = self._memory()
        if self.scenario.tasks + len(self.living) >= self._threads_max():
            self.stopped_by = "threads-max"
            return False
        start = memory.processor.now
        try:
            self.living.append(self._kids().create(self.mode))
        except Failure as failure:
            self._stop(failure)
            return False
        memory.processor.work(memory.times.fork)
        memory.processor.give_way()
        self.latencies.append(memory.processor.now - start)
        memory.processor.work(memory.times.start)
        if len(self.latencies) % self.stride == 0:
            self._sample()
        return True

    def _sample(self) -> None:
        memory = self._memory()
        done = (now - then for now, then in zip(self._work(), self.start, strict=True))
        sample = Sample(len(self.latencies), len(self.living), memory.free, tuple(memory.counts()), *done)
        if sample not in self.samples[-1:]:
            self.samples.append(sample)
        if len(self.samples) == _MOST_SAMPLES:
            del self.samples[1::2]
            self.stride *= 2

    def _work(self) -> tuple[int, int, int]:
        """Pages scanned by requests and by kswapd, and migrated, so far."""
        events = self._memory().events
        return (
            int(events.direct[c.SCANNED]), int(events.kswapd[c.SCANNED]), int(events.direct[c.MIGRATED])
        )  # fmt: skip

    def _stop(self, failure: Failure) -> None:
        self.failure = failure
        self.stopped_by = "oom" if failure.order <= 3 else "failed"

    def _threads_max(self) -> float:
        limit = self.scenario.threads_max
        if limit is None:
            return float("inf")
        if isinstance(limit, int):
            return limit
        pages = sum(zone.managed for zone in self._memory().zones)
        return pages * PAGE // (self._kids().stack.size * 8)

    # the result

    def result(self, storm: StormResult | None = None, chance: Chance | None = None) -> Run:
        memory, children, events = self.memory, self.children, self.memory.events if self.memory else None
        if self.samples:
            self._sample()  # the end, whatever the stride
        direct = [int(count) for count in events.direct] if events else [0] * c.COUNTERS
        kswapd = [int(count) for count in events.kswapd] if events else [0] * c.COUNTERS
        before = self.before or (0, ())
        return Run(
            layout=self.layout.name,
            seed=self.seed,
            mode=self.mode,
            processes=len(self.living),
            stopped_by=self.stopped_by,
            failed_order=self.failure.order if self.failure else None,
            failed_what=self.failure.what if self.failure else None,
            free_pages=memory.free if memory else 0,
            buddyinfo=tuple(memory.counts()) if memory else (),
            before_free_pages=before[0],
            before_buddyinfo=before[1],
            reclaim=Reclaim(
                direct[c.SCANNED], direct[c.STOLEN], events.stalls if events else 0,
                direct[c.SWAPPED] + kswapd[c.SWAPPED], kswapd[c.SCANNED], kswapd[c.STOLEN],
            ),
            compaction=Compaction(
                events.compactions if events else 0, events.compactions_deferred if events else 0,
                direct[c.MIGRATE_SCANNED], direct[c.FREE_SCANNED], direct[c.MIGRATED],
            ),
            fork_latency=_latency(self.latencies),
            forks=len(self.latencies),
            stack_bytes=children.stack_pages * PAGE if children else 0,
            contiguous=self._contiguous(),
            storm=storm,
            chance=chance,
            evidence="assumed",
            assumptions=self._assumptions(storm, chance),
            samples=tuple(self.samples),
        )  # fmt: skip

    def _contiguous(self) -> tuple[Contiguous, ...]:
        if self.children is None:
            return ()
        stack = self.children.stack
        own = (Contiguous("stack", stack.order, 1.0, stack.order),) if stack.order else ()
        return own + self.children.cost.contiguous(self.mode)

    def _assumptions(self, storm: StormResult | None, chance: Chance | None) -> tuple[str, ...]:
        scenario, said = self.scenario, list[str]()
        if scenario.era.assumption:
            said.append(scenario.era.assumption)
        if scenario.cost is not None:
            said.append(f"what a fork allocates: {scenario.cost.name} ({scenario.cost.evidence})")
        if scenario.memory is not None:
            if any(zone.types_assumed for zone in scenario.memory.zones):
                said.append("migratetypes of the free blocks after boot, told from their orders")
            said.append("one CPU, shared by requests and kswapd as CFS shares it")
            said.append(
                "times: of the work that requests and kswapd do, measured on another machine or assumed"
            )
        if storm is not None:
            said.extend(storm.assumptions)
        if chance is not None:
            said.extend(one for one in chance.assumptions if one not in said)
        return tuple(said)

    def _memory(self) -> Memory:
        assert self.memory is not None
        return self.memory

    def _kids(self) -> Children:
        assert self.children is not None
        return self.children


def _forget_types(zone: Any) -> None:
    """Without grouping by mobility there is one list an order, whatever a pageblock was called."""
    zone.move_blocks(0, zone.end, c.UNMOVABLE)
    for block in range(len(zone.block_types())):
        zone.set_block_type(block, c.UNMOVABLE)


def _latency(found: list[float]) -> Latency:
    if not found:
        return Latency(None, None)
    p50, p99 = np.percentile(np.array(found), [50, 99], method="higher")
    return Latency(float(p50), float(p99))
