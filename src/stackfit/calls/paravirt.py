"""What hypervisors put into pv_ops: the functions that a guest calls instead of native ones.

The image holds native functions. Guest code overrides them at boot: it stores functions into members of
`pv_ops` by name (kvm_guest_init, hv_init_spinlocks), or copies a table of them (xen_mmu_ops) over a part of
it. Stores are those that the walk over the code has seen; tables are objects in data that have functions in
fields of the structs that pv_ops is made of.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from stackfit.calls import flow_constants as flow
from stackfit.calls.held import tagged
from stackfit.calls.objects import Data, Placed
from stackfit.calls.types import TypeLayout
from stackfit.choices import Hypervisor
from stackfit.image.functions import Functions
from stackfit.image.model import Program

__all__ = ["Hypervisor", "paravirt_overrides"]

_PV_OPS, _TEMPLATE = "pv_ops", "paravirt_patch_template"  # arch/x86/include/asm/paravirt_types.h


def paravirt_overrides(
    program: Program,
    functions: Functions,
    types: TypeLayout,
    data: Data,
    placed: Placed,
    records: NDArray[np.int64],
) -> dict[int, tuple[int, ...]]:
    """Address of a member of pv_ops → functions that code puts there, ascending; -1 first: something unknown
    too. Empty without pv_ops, or without its type."""
    image = program.images[0]
    (template,) = tagged(types, {("struct", _TEMPLATE)}).get(("struct", _TEMPLATE), ())[:1] or (-1,)
    if template < 0 or _PV_OPS not in image.symbols.names:
        return {}
    mask, at = program.machine.mask, image.symbols.names.index(_PV_OPS)
    start = int(program.machine.signed(image.symbols.records["address"][at : at + 1].copy())[0])
    size = int(types.size[template])
    found = defaultdict[int, set[int]](set)
    _, sink, sink_a, _, kind, value, _ = range(flow.RECORD_SIZE)
    inside = (records[:, sink] == flow.GLOBAL) & (records[:, sink_a] >= start)
    for record in records[inside & (records[:, sink_a] < start + size)].tolist():
        if record[kind] != flow.CONSTANT:
            found[record[sink_a]].add(-1)
        elif record[value]:
            found[record[sink_a]].add(functions.at(record[value] & mask))
    parts = {int(types.part_type[part]): int(types.part_at[part]) for part in types.types.parts(template)}
    for (struct, offset), rows in placed.fields.items():
        if struct in parts:
            for row in rows:
                first = int(data.place[row]) - offset - parts[struct]
                if first != start:
                    _copy_table(data, row, first, size, start, found)
    return {address & mask: tuple(sorted(members)) for address, members in sorted(found.items())}


def _copy_table(data: Data, row: int, first: int, size: int, start: int, found: dict[int, set[int]]) -> None:
    """Functions of the object that a row lies in, at the members that they stand for. `first`: where a whole
    pv_ops would begin that had the row at its place."""
    begin, end = max(first, int(data.start[row])), min(first + size, int(data.end[row]))
    for other in data.between(begin, end):
        if data.function[other] >= 0:
            found[int(data.place[other]) - first + start].add(int(data.function[other]))
