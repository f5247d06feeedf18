"""What one child allocates, in the order in which fork does (costs/*.toml).

    name = "linux-6.1-i386-lab"
    machine = "i386"
    evidence = "measured"            or "assumed"
    source = "…"
    page_table_maps = 1024           pages that one page table maps (512 with 8-byte entries)
    [[allocation]]
    what = "task_struct"
    slab = { objects = 2, order = 0 }  an object of a slab of 2^order pages that holds so many; SLUB, which
                                       falls back to its least order: least_objects, least_order besides
    per_process = 1                    how many a process takes (default 0)
    per_thread = 1                     … and a thread that shares its parent's memory (default 0)
    [[allocation]]
    what = "stack"
    stack = true                       as the layout says
    [[allocation]]
    what = "page table"
    order = 0                          a block of its own
    movable = true                     an anonymous page, which reclaim may take and compaction move

Exactly one allocation is the stack. Errors: InputError naming file and key.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stackfit.machine.model import Contiguous
from stackfit.tomlfile import Table, find, names_in, read_toml

__all__ = ["COSTS", "PROCESS", "THREAD", "Allocation", "ForkCost", "load_costs"]

PROCESS, THREAD = "process", "thread"
_DIRECTORY = Path(__file__).parent / "costs"
COSTS = names_in(_DIRECTORY)
_MOST_ORDER = 10


@dataclass(frozen=True)
class Allocation:
    """`objects`: of a slab, or 0 for a block of its own; `order`: of the slab or block (the stack's: 0).
    `least_objects`, `least_order`: of the slab taken where there is no block of `order` (mm/slub.c:
    allocate_slab); the same numbers where there is no such way out."""

    what: str
    order: int
    objects: int
    per_process: int
    per_thread: int
    movable: bool
    stack: bool
    least_objects: int
    least_order: int

    def number(self, mode: str) -> int:
        return self.per_thread if mode == THREAD else self.per_process


@dataclass(frozen=True)
class ForkCost:
    name: str
    machine: str
    evidence: str
    source: str
    page_table_maps: int
    allocations: tuple[Allocation, ...]

    def contiguous(self, mode: str) -> tuple[Contiguous, ...]:
        """Blocks of order > 0 other than the stack."""
        return tuple(
            Contiguous(one.what, one.order, one.number(mode) / max(one.objects, 1), one.least_order)
            for one in self.allocations
            if one.order and one.number(mode)
        )


def load_costs(name: str) -> ForkCost:
    """Shipped costs by name, or a TOML file. InputError: there is none, or a key is wrong."""
    path = find(name, _DIRECTORY, "costs of a fork")
    table = Table(str(path), read_toml(path))
    allocations = tuple(_allocation(one) for one in table.tables("allocation"))
    if sum(one.stack for one in allocations) != 1:
        raise table.error("allocation", "exactly one with stack = true is required")
    cost = ForkCost(
        table.text("name"),
        table.text("machine"),
        table.choice("evidence", ("measured", "assumed")),
        table.text("source"),
        table.integer("page_table_maps", 1, 4096),
        allocations,
    )
    table.done()
    return cost


def _allocation(table: Table) -> Allocation:
    what, stack = table.text("what"), table.flag("stack", False)
    slab, movable = table.table("slab"), table.flag("movable", False)
    if stack + (slab is not None) + ("order" in table) != 1:
        raise table.error("", "one of stack, slab and order is required")
    objects = order = 0
    if slab is not None:
        objects, order = slab.integer("objects", 1, 4096), slab.integer("order", 0, _MOST_ORDER)
        least = (
            slab.integer("least_objects", 1, objects, objects),
            slab.integer("least_order", 0, order, order),
        )
        slab.done()
    elif not stack:
        order = table.integer("order", 0, _MOST_ORDER)
        least = 0, order
    else:
        least = 0, 0
    if movable and (order or objects or stack):
        raise table.error("movable", "only a single page is")
    per_process = table.integer("per_process", 0, 100_000, 0)
    per_thread = table.integer("per_thread", 0, 100_000, 0)
    if stack and (per_process, per_thread) != (1, 1):
        raise table.error("", "every child has one stack")
    table.done()
    return Allocation(what, order, objects, per_process, per_thread, movable, stack, *least)
