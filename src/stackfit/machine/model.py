"""What a run of the machine gives. Pages are 4 KiB; times are microseconds."""

from __future__ import annotations

from dataclasses import dataclass

from stackfit.machine.interrupts import StormResult
from stackfit.machine.overflow import Chance

__all__ = ["Compaction", "Contiguous", "Latency", "Reclaim", "Run", "Sample"]


@dataclass(frozen=True)
class Reclaim:
    """Pages looked at and freed, by requests themselves and by kswapd; `stalls`: requests that reclaimed."""

    scanned: int
    stolen: int
    stalls: int
    swapped: int
    kswapd_scanned: int
    kswapd_stolen: int


@dataclass(frozen=True)
class Compaction:
    """`runs`: direct compactions begun; `deferred`: zones passed over; the rest are pages."""

    runs: int
    deferred: int
    scanned: int
    free_scanned: int
    migrated: int


@dataclass(frozen=True)
class Latency:
    """Of one fork; None where none was made. From counted events and assumed costs of each."""

    p50: float | None
    p99: float | None


@dataclass(frozen=True)
class Contiguous:
    """An allocation of order > 0 that a fork makes: `per_child` on average (a slab is shared by objects).
    `least_order`: what it makes do with where there is no such block (mm/slub.c:allocate_slab)."""

    what: str
    order: int
    per_child: float
    least_order: int

    def __str__(self) -> str:
        return f"{self.what} {self.order}" + (
            f" (or {self.least_order})" if self.least_order != self.order else ""
        )


@dataclass(frozen=True)
class Sample:
    """The machine after so many `forks`: pages free, free blocks by order, what reclaim and compaction have
    done since the first child: `scanned` by requests themselves, `kswapd_scanned`, `migrated`; pages."""

    forks: int
    processes: int
    free_pages: int
    buddyinfo: tuple[int, ...]
    scanned: int
    kswapd_scanned: int
    migrated: int


@dataclass(frozen=True)
class Run:
    """One layout, one seed.

    `processes`: children alive at the end. `stopped_by`: "oom" (the OOM killer was called), "threads-max",
    "limit" (the scenario wanted no more), "end" (of the scenario). `failed_order`, `failed_what`: the
    allocation that could not be met. `buddyinfo`: free blocks by order at the end, all zones. `before`: the
    same, and MemFree, when the first child was made. `samples`: the machine from then on to the end, some
    tens of times, evenly over the forks. `stack_bytes`: of the children's stacks. `storm`: what
    interrupts did to the layout's stacks, `chance`: of an overflow per hour; None: the scenario has none.
    """

    layout: str
    seed: int
    mode: str
    processes: int
    stopped_by: str
    failed_order: int | None
    failed_what: str | None
    free_pages: int
    buddyinfo: tuple[int, ...]
    before_free_pages: int
    before_buddyinfo: tuple[int, ...]
    reclaim: Reclaim
    compaction: Compaction
    fork_latency: Latency
    forks: int
    stack_bytes: int
    contiguous: tuple[Contiguous, ...]
    storm: StormResult | None
    chance: Chance | None
    evidence: str
    assumptions: tuple[str, ...]
    samples: tuple[Sample, ...] = ()
