"""Scenarios: a machine's memory, what happens to it, what is wanted of it (scenarios/*.toml).

    name = "anon-holes"
    description = "…"
    era = "linux-6.1"                  rules of the page allocator (pages/eras)
    costs = "linux-6.1-i386-lab"       what a child takes (machine/costs)
    layouts = ["linux-2.6-8k", …]      run when the command line names none

    [memory]
    block_order = 10                   pageblock_order
    compaction = false                 default: as the era has it
    boost = false                      watermark boost; default: as the era has it
    pinned_may_move = false            vm.compact_unevictable_allowed; default true
    min_free_kb = 664                  default: the kernel's formula
    swap_kb = 0
    swappiness = 60
    cpus = 1                           share of the per-CPU lists' limit; one CPU's lists are modelled
    per_cpu_pages = 61                 pages on the per-CPU lists at the start (zoneinfo); default 0
    [[memory.zone]]                    lowest first
    name = "Normal"
    pages = 8160                       the zone's end, counted from a multiple of the largest block (4 MiB)
    first = 1                          where it begins, likewise; default 0
    managed_kb = 29468
    free = [2, 5, 3, 4, 2, 2, 4, 3, 2, 1, 4]   free blocks by order after boot (buddyinfo), or
    free_unmovable, free_movable, free_reclaimable = […]     … by migratetype (pagetypeinfo)

    [[step]]                           one after the other
    do = "fill"                        take single pages
    kind = "anonymous"                 "file" (clean page cache), "device" (a block device's own, which is not
                                       asked for as movable), "ramfs", "slab" (reclaimable)
    until_free_kb = 1024               until so much is free; or kb = 4096: so much
    slabs = [12, 32]                   each page brings objects with it (a file of its own: its inode, its
                                       dentry): how many of each a slab of one page holds
    [[step]]
    do = "punch"                       free every second page of a kind
    kind = "anonymous"
    every = 2
    by = "address"                     in the order of their addresses; default "age": as they were taken
    until_free_kb = 11904              only so many that so much is free, per-CPU lists half full: the
                                       first are spared; default: all
    [[step]]
    do = "pin"                         what is left of the kind can no longer be reclaimed (mlock)
    kind = "anonymous"
    slabs = [28, 72]                   as above, of the kernel's own (mappings split by mlock)
    [[step]]
    do = "churn"                       take and free pages of a kind at random: rounds × pages
    kind = "file"
    rounds = 1000
    pages = 64
    back = true                        of each round the same pages come back, the last first; default: others
                                       come, which are then the newest
    [[step]]
    do = "children"                    make children that only wait
    mode = "process"                   or "thread"
    number = 100000                    at most so many; default: until it fails
    [[step]]
    do = "cycle"                       children come and go
    mode = "process"
    alive = 200                        as many live at a time
    forks = 2000                       as many are made in all
    touch = 64                         anonymous and file pages used per fork, at random
    [[step]]
    do = "deepen"                      children go deep: a stack that grows on fault gets pages mapped
    depths = [[2000, 0.9], [6000, 0.1]]   bytes, weight

    [limits]
    threads_max = "default"            as kernel/fork.c:set_max_threads, or a number; default: no limit
    tasks = 40                         tasks that there are already, which count too; default 0

    [time]                             microseconds of each kind of work (stackfit.pages.processor.Times)
    fork = 142.0
    disk = [12, 50, 1000]              from a request to the disk to its end, equally likely values

    [interrupts]                       see stackfit.machine.storm

Errors: InputError naming file and key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from stackfit.machine.costs import PROCESS, THREAD, ForkCost, load_costs
from stackfit.machine.storm import Storm, parse_storm
from stackfit.pages.allocator_constants import MOVABLE, ORDERS, RECLAIMABLE, UNMOVABLE
from stackfit.pages.era import Era, load_era
from stackfit.pages.memory import Settings, ZoneSpec
from stackfit.pages.placement import types_after_boot
from stackfit.pages.processor import Times
from stackfit.tomlfile import Table, find, names_in, read_toml

__all__ = [
    "KINDS",
    "SCENARIOS",
    "Memory",
    "Scenario",
    "Step",
    "ZoneState",
    "load_scenario",
    "parse_scenario",
]

_DIRECTORY = Path(__file__).parent / "scenarios"
SCENARIOS = names_in(_DIRECTORY)
KINDS = ("anonymous", "file", "device", "ramfs", "slab")
_PAGE_KB = 4
_MOST_PAGES = 1 << 26  # 256 GiB: beyond, the arrays take more memory than this model should
_MOST_KB = _MOST_PAGES * _PAGE_KB
_MOST_COUNT = 10_000_000
_STEPS = {
    "fill": ("kind", "until_free_kb", "kb", "slabs"),
    "punch": ("kind", "every", "by", "until_free_kb"),
    "pin": ("kind", "slabs"),
    "churn": ("kind", "rounds", "pages", "back"),
    "children": ("mode", "number"),
    "cycle": ("mode", "alive", "forks", "touch"),
    "deepen": ("depths",),
}
_NEEDED = {
    "fill": ("kind",),
    "punch": ("kind",),
    "pin": ("kind",),
    "churn": ("kind", "rounds", "pages"),
    "children": ("mode",),
    "cycle": ("mode", "alive", "forks"),
    "deepen": ("depths",),
}
_FREE_BY_TYPE = {"free_unmovable": UNMOVABLE, "free_movable": MOVABLE, "free_reclaimable": RECLAIMABLE}


@dataclass(frozen=True)
class ZoneState:
    """A zone after boot. `free`: blocks by migratetype, then by order."""

    spec: ZoneSpec
    free: Mapping[int, tuple[int, ...]]
    types_assumed: bool


@dataclass(frozen=True)
class Memory:
    zones: tuple[ZoneState, ...]
    settings: Settings
    per_cpu_pages: int


@dataclass(frozen=True)
class Step:
    """`do` and its keys, as in the file."""

    do: str
    kind: str = ""
    mode: str = ""
    every: int = 2
    by: str = "age"
    until_free_kb: int | None = None
    kb: int | None = None
    rounds: int = 0
    pages: int = 0
    back: bool = False
    number: int | None = None
    alive: int = 0
    forks: int = 0
    touch: int = 0
    depths: tuple[tuple[int, float], ...] = ()
    slabs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Scenario:
    """`memory` None: nothing but interrupts. `threads_max`: a number, "default", or None for no limit.
    `tasks`:
    those that there are before the first child."""

    name: str
    description: str
    layouts: tuple[str, ...]
    era: Era
    cost: ForkCost | None
    memory: Memory | None
    steps: tuple[Step, ...]
    threads_max: int | str | None
    tasks: int
    time: Times
    storm: Storm | None


def load_scenario(name: str) -> Scenario:
    """A shipped scenario by name, or a TOML file. InputError: there is none, or a key is wrong."""
    path = find(name, _DIRECTORY, "a scenario")
    return parse_scenario(read_toml(path), str(path))


def parse_scenario(data: dict[str, Any], where: str) -> Scenario:
    """A scenario from its table; `where` names it in errors."""
    table = Table(where, data)
    given, interrupts = table.table("memory"), data.get("interrupts")
    memory = _memory(given) if given is not None else None
    steps = tuple(_step(one) for one in table.tables("step"))
    if (memory is None) != (not steps):
        raise table.error("", "memory and steps go together")
    if memory is None and "interrupts" not in table:
        raise table.error("", "neither memory nor interrupts: nothing to simulate")
    if interrupts is not None and not isinstance(interrupts, dict):
        raise table.error("interrupts", "must be a table")
    if steps and not any(step.do in ("children", "cycle") for step in steps):
        raise table.error("step", "none makes children")
    threads_max, tasks = _limits(table.table("limits"))
    scenario = Scenario(
        name=table.text("name"),
        description=table.text("description"),
        layouts=table.texts("layouts"),
        era=load_era(table.text("era", "linux-6.1")),
        cost=load_costs(table.text("costs")) if memory is not None else None,
        memory=memory,
        steps=steps,
        threads_max=threads_max,
        tasks=tasks,
        time=_time(table.table("time")),
        storm=parse_storm(interrupts, where) if interrupts is not None else None,
    )
    table.done()
    return scenario


def _memory(table: Table) -> Memory:
    zones = tuple(_zone(one) for one in table.tables("zone"))
    if not zones:
        raise table.error("zone", "at least one is required")
    if sum(zone.spec.pages for zone in zones) > _MOST_PAGES:
        raise table.error("zone", "more than 256 GiB in all")
    memory = Memory(
        zones,
        Settings(
            table.integer("block_order", 1, ORDERS - 1),
            compaction=table.flag("compaction", True),
            boost=table.flag("boost", True),
            pinned_may_move=table.flag("pinned_may_move", True),
            min_free_kb=table.integer("min_free_kb", 0, _MOST_KB) if "min_free_kb" in table else None,
            swap_pages=table.integer("swap_kb", 0, _MOST_KB, 0) // _PAGE_KB,
            swappiness=table.integer("swappiness", 0, 200, 60),
            cpus=table.integer("cpus", 1, 1 << 16, 1),
        ),
        table.integer("per_cpu_pages", 0, _MOST_PAGES, 0),
    )
    table.done()
    return memory


def _zone(table: Table) -> ZoneState:
    name = table.text("name")
    pages = table.integer("pages", 1, _MOST_PAGES)
    managed = table.integer("managed_kb", 0, _MOST_KB) // _PAGE_KB
    free = {kind: table.integers(key, ORDERS, 0, _MOST_PAGES)
            for key, kind in _FREE_BY_TYPE.items() if key in table}  # fmt: skip
    assumed = "free" in table
    if assumed == bool(free):
        raise table.error("", "either free, or free_unmovable and the like, is required")
    if assumed:
        counts = table.integers("free", ORDERS, 0, _MOST_PAGES)
        free = {kind: tuple(row) for kind, row in types_after_boot(counts).items()}
    total = sum(count << order for row in free.values() for order, count in enumerate(row))
    if not total <= managed <= pages:
        raise table.error("", f"{total} pages free of {managed} managed of {pages}")
    spec = ZoneSpec(name, pages, managed, table.integer("first", 0, pages - 1, 0))
    table.done()
    return ZoneState(spec, free, assumed)


def _step(table: Table) -> Step:
    do = table.choice("do", _STEPS)
    values: dict[str, Any] = {"do": do}
    for key in _STEPS[do]:
        if key in table or key in _NEEDED[do]:
            values[key] = _READERS[key](table, key)
    if do == "fill" and ("kb" in values) == ("until_free_kb" in values):
        raise table.error("", "either kb or until_free_kb is required")
    table.done()
    return Step(**values)


def _depths(table: Table, key: str) -> tuple[tuple[int, float], ...]:
    found = []
    for one in table.items(key, "a list of [bytes, weight]"):
        if not isinstance(one, list) or len(one) != 2 or type(one[0]) is not int or one[0] < 0:
            raise table.error(key, "must be a list of [bytes, weight]")
        weight = one[1]
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise table.error(key, "must be a list of [bytes, weight], no weight below 0")
        found.append((one[0], float(weight)))
    if not sum(weight for _, weight in found) > 0:
        raise table.error(key, "all weights are 0")
    return tuple(found)


_READERS: Mapping[str, Callable[[Table, str], object]] = {
    "kind": lambda table, key: table.choice(key, KINDS),
    "by": lambda table, key: table.choice(key, ("age", "address")),
    "mode": lambda table, key: table.choice(key, (PROCESS, THREAD)),
    "every": lambda table, key: table.integer(key, 2, 1 << 20),  # 1 would free everything
    "until_free_kb": lambda table, key: table.integer(key, 0, _MOST_KB),
    "kb": lambda table, key: table.integer(key, 1, _MOST_KB),
    "touch": lambda table, key: table.integer(key, 0, _MOST_COUNT),
    "depths": _depths,
    "back": lambda table, key: table.flag(key, False),
    "slabs": lambda table, key: table.integers(key, None, 1, 4096),
    **{
        key: lambda table, key: table.integer(key, 1, _MOST_COUNT)
        for key in ("rounds", "pages", "number", "alive", "forks")
    },
}


def _limits(table: Table | None) -> tuple[int | str | None, int]:
    if table is None:
        return None, 0
    value: int | str | None = None
    if table.is_text("threads_max"):
        value = table.choice("threads_max", ("default",))
    else:
        value = table.integer("threads_max", 1, _MOST_COUNT)
    tasks = table.integer("tasks", 0, _MOST_COUNT, 0)
    table.done()
    return value, tasks


def _time(table: Table | None) -> Times:
    if table is None:
        return Times()
    known = {one.name: getattr(Times, one.name) for one in fields(Times) if one.name != "disk"}
    found: dict[str, Any] = {key: table.number(key, 0, 1e9, value) for key, value in known.items()}
    if "disk" in table:
        found["disk"] = tuple(_microseconds(table, one) for one in table.items("disk", "a list of numbers"))
    table.done()
    return Times(**found)


def _microseconds(table: Table, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:
        raise table.error("disk", "must be a list of numbers from 0 to 1000000000")
    return float(value)
