"""Static calls whose target the kernel changes at run time: `__static_call_update(key, trampoline,
function)`.

The image has the initial target in the trampoline. `cond_resched()` of a kernel with dynamic preemption does
nothing there, and reschedules once the kernel has booted. What an update sets is a target too. Trampolines of
tracepoints are updated through their tracepoint, not by name: they stay as they are, tracing off. Other
trampolines that are updated through a pointer in data are those of security hooks (6.12 and later), which the
hooks' own table tells, or are open.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.calls.constants import argument_value, constant_argument
from stackfit.frames.model import Frames, SiteKind
from stackfit.isa.code import Code

__all__ = ["STATIC_CALL_PREFIX", "STATIC_CALL_UPDATE", "Updated", "static_call_updates"]

STATIC_CALL_PREFIX = "__SCT__"  # of trampolines: include/linux/static_call_types.h
_TRACEPOINT_PREFIX = "__SCT__tp_func_"  # include/linux/tracepoint.h
STATIC_CALL_UPDATE = "__static_call_update"  # kernel/static_call_inline.c


@dataclass(frozen=True)
class Updated:
    """Functions that a static call is set to somewhere; `open`: and something that is not known."""

    functions: tuple[int, ...]
    open: bool


def static_call_updates(
    code: Code,
    frames: Frames,
    handed: Mapping[int, tuple[int, ...]],
    hooks: Mapping[int, tuple[int, ...]],
    pointers: NDArray[np.uint64],
) -> dict[int, Updated]:
    """By trampoline. `handed`: the functions handed over at a call of `__static_call_update`, by its row,
    where that is known otherwise than as a constant just before the call. `hooks`: security hooks by
    trampoline. `pointers`: code addresses that stand in data."""
    through_data = False
    functions, opened = defaultdict[int, set[int]](set), set[int]()
    for updater in code.functions.named(STATIC_CALL_UPDATE):
        called = (frames.site_callee == updater) & np.isin(frames.site_kind, (SiteKind.CALL, SiteKind.TAIL))
        for row in np.unique(frames.site_row[called]).tolist():
            address = int(code.address[row])
            trampoline = constant_argument(code, address, 1)
            if trampoline < 0:
                through_data = True
                continue
            value = argument_value(code, address, 2)
            target = code.functions.at(value) if value is not None else -1
            targets = (target,) if target >= 0 else () if value == 0 else handed.get(row)
            functions[trampoline].update(targets or ())
            if targets is None:
                opened.add(trampoline)
    listed = code.functions.entered(pointers) if through_data else np.empty(0, np.int64)
    for trampoline in np.unique(listed[listed >= 0]).tolist():
        name = code.functions.names[trampoline]
        if name.startswith(STATIC_CALL_PREFIX) and not name.startswith(_TRACEPOINT_PREFIX):
            functions[trampoline].update(hooks.get(trampoline, ()))
            if trampoline not in hooks:
                opened.add(trampoline)
    return {one: Updated(tuple(sorted(members)), one in opened) for one, members in functions.items()}
