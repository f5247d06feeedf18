"""Whether a handler puts interrupts on while it runs: others, and itself, can then be on top of it.

RISC-V Privileged Architecture 3.1.6 (mstatus.MIE, sstatus.SIE); Arm ARM DDI 0487, C5.2.2 (DAIF); DDI 0406C,
B9.3.2 (cpsie).
"""

from __future__ import annotations

import numpy as np

from stackfit.calls.constants import branch_targets, value_before
from stackfit.calls.model import Edges
from stackfit.image.model import Machine
from stackfit.isa.code import Code

__all__ = ["CAN_NEST", "can_nest", "encoding"]

CAN_NEST = "the handler puts interrupts on: how often it nests is not known"
_STATUS = {0x300: 8, 0x100: 2}  # mstatus.MIE, sstatus.SIE


def can_nest(code: Code, edges: Edges, function: int) -> bool:
    """Whether the function, or what it calls, has an instruction that puts interrupts on."""
    seen, work = {function}, [function]
    while work:
        one = work.pop()
        for callee in edges.callee[int(edges.first[one]) : int(edges.first[one + 1])].tolist():
            if callee not in seen:
                seen.add(callee)
                work.append(callee)
    for one in sorted(seen):
        rows = np.arange(int(code.first[one]), int(code.first[one + 1]))
        if any(_puts_on(code, row) for row in rows[code.instructions.length[rows] == 4].tolist()):
            return True
    return False


def _puts_on(code: Code, row: int) -> bool:
    word = encoding(code, row)
    if code.machine is Machine.ARM:
        return word & 0xFFFDFE20 == 0xF1080000
    if code.machine is Machine.AARCH64:
        return word & 0xFFFFF0FF == 0xD50340FF and bool(word >> 8 & 3)  # msr daifclr: I or F
    bit = _STATUS.get(word >> 20, 0)
    if word & 0x7F != 0x73 or not bit:
        return False
    form, source = word >> 12 & 7, word >> 15 & 31
    if form in (6, 5):  # csrrsi, csrrwi
        return bool(source & bit)
    if form in (2, 1) and source:  # csrrs, csrrw
        value = value_before(code, row, source, branch_targets(code))
        # A value that was saved is put back at the end.
        return value is not None and bool(value & bit)
    return False


def encoding(code: Code, row: int) -> int:
    """The four bytes of an instruction; 0 of one that has not so many."""
    if int(code.instructions.length[row]) != 4:
        return 0
    address = int(code.address[row])
    section = code.sections[int(code.functions.section[int(code.function[row])])].section
    at = address - section.address
    return int.from_bytes(section.data[at : at + 4].tobytes(), "little")
