"""Calls through tables of function pointers in read-only data, on machines without types to tell.

`table[index]()`: the table's address, and how it is indexed, are computed just before the call; its extent is
that of its symbol. What is taken on trust: the index stays within the table.
"""

from __future__ import annotations

from collections.abc import Iterable

from stackfit.frames.switches import TableReader
from stackfit.image.memory import Memory
from stackfit.image.model import Program
from stackfit.isa.code import Code
from stackfit.isa.effects import FLAG_MEMORY

__all__ = ["table_candidates"]

_MOST = 4096  # entries of a table: calls through a larger one stay open


def table_candidates(program: Program, code: Code, rows: Iterable[int]) -> dict[int, tuple[int, ...]]:
    """The functions that calls and jumps at these rows reach by such a table; rows of none are left out."""
    if code.machine.x86:
        return {}
    reader, memory = TableReader(program, code), Memory(program)
    word = code.machine.word
    found: dict[int, tuple[int, ...]] = {}
    for row in rows:
        if int(code.instructions.flags[row]) & FLAG_MEMORY:
            continue
        place = reader.place(row, int(code.instructions.base[row]))
        if place is None or place[2] != word:
            continue
        start, stride, _ = place
        known, section = memory.object(start), memory.section(start)
        if known is None or section is None:
            continue
        if section.writable and not section.name.startswith(".data.rel.ro"):
            continue
        end = known[1] + known[2]
        if end - start > _MOST * stride:
            continue
        members: set[int] = set()
        for at in range(start, end, stride):
            pointer = memory.word(at) or 0
            if pointer:
                members.add(code.functions.at(code.machine.code_address(pointer)))
        if members and -1 not in members:
            found[row] = tuple(sorted(members))
    return found
