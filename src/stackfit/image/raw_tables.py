"""Tables of a kernel image that has no sections, found by their structure.

Each is a long run of entries of one form, far longer than chance makes one: exception table (sorted by the
build, scripts/sorttable.c), bug table, alternatives, exported symbols (sorted by name), BTF by its header.
What is not found stays part of the data around it.

Sources: include/asm-generic/vmlinux.lds.h, include/linux/export.h; extable.h and bug.h of
arch/{arm,arm64,riscv}/include/asm; arch/arm64/include/asm/alternative-macros.h; Documentation/bpf/btf.rst.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Machine, Section
from stackfit.image.pointers import rising_lists

__all__ = ["find_tables"]

_LEAST = 128  # entries of a table
_BTF_MAGIC = (0xEB9F).to_bytes(2, "little") + b"\x01"
_TRAPS = {
    Machine.AARCH64: (0xD4210000, 0xFFFFFFFF),  # brk #0x800
    Machine.ARM: (0xE7F001F2, 0xFFFFFFFF),
    Machine.RISCV32: (0x9002, 0xFFFF),  # c.ebreak
    Machine.RISCV64: (0x9002, 0xFFFF),
}
_EBREAK = 0x00100073
_MOST_BSS = 64 << 20  # bytes
_MOST_TYPE = 15  # EX_TYPE_*
_MOST_FEATURES = 512  # of arm64's processors (cpucaps.h)

Numbers = NDArray[np.int64]
Found = tuple[str, int, int]  # name, first byte and the byte behind the last, in the section's data


def find_tables(sections: Sequence[Section], machine: Machine) -> tuple[Section, ...]:
    """The sections, those that hold no code cut where a table begins and ends; the tables named as a linked
    kernel names them."""
    memory = _Memory(sections, machine)
    result: list[Section] = []
    for section in sections:
        if section.executable or section.data.size < 1 << 12:
            result.append(section)
            continue
        result.extend(_cut(section, sorted(_in_section(section, memory), key=lambda one: one[1])))
    return tuple(result)


class _Memory:
    """The image by address: what lies in it, and its words."""

    def __init__(self, sections: Sequence[Section], machine: Machine) -> None:
        self.machine = machine
        self.sections = sorted((one for one in sections if one.size), key=lambda one: one.address)
        self.start = np.array([one.address for one in self.sections], np.uint64)
        self.end = np.array([one.end for one in self.sections], np.uint64)

    def _at(self, addresses: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        index = np.searchsorted(self.start, addresses, "right") - 1
        inside = (index >= 0) & (addresses < self.end[np.maximum(index, 0)])
        return index, np.asarray(inside, np.bool_)

    def has(self, addresses: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Code that exits from built-in parts has no marks: where code is is not fully known."""
        return self._at(addresses)[1]

    def code(self, addresses: NDArray[np.uint64]) -> NDArray[np.bool_]:
        index, inside = self._at(addresses)
        executable = np.array([one.executable for one in self.sections], np.bool_)
        return np.asarray(inside & executable[np.maximum(index, 0)], np.bool_)

    def words(self, addresses: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """32 bits at each address; 0 where there are none."""
        out = np.zeros(addresses.size, np.uint32)
        index, inside = self._at(addresses)
        for number, section in enumerate(self.sections):
            chosen = np.flatnonzero(inside & (index == number))
            offset = (addresses[chosen] - np.uint64(section.address)).astype(np.int64)
            fits = offset + 4 <= section.data.size
            chosen, offset = chosen[fits], offset[fits]
            for byte in range(4):
                out[chosen] |= section.data[offset + byte].astype(np.uint32) << np.uint32(8 * byte)
        return out

    def trap(self, addresses: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Whether the instruction of BUG() and WARN() stands there."""
        word = self.words(addresses)
        wanted, mask = _TRAPS[self.machine]
        return np.asarray((word & np.uint32(mask) == wanted) | (word == _EBREAK), np.bool_)


def _in_section(section: Section, memory: _Memory) -> list[Found]:
    size = section.data.size & ~3
    word = np.ascontiguousarray(section.data[:size]).view("<i4").astype(np.int64)
    place = np.uint64(section.address) + np.uint64(4) * np.arange(word.size, dtype=np.uint64)
    relative = memory.machine is not Machine.ARM
    target = (place + word.view(np.uint64) if relative else word.view(np.uint64)) & np.uint64(
        memory.machine.mask
    )
    inside = memory.has(target)
    found: list[Found] = []
    fields = 3 if relative else 2
    code = memory.code(target) & (word != 0)
    good = _both(code)
    if relative:
        good[: word.size - 2] &= word[2:] & 0xFFFF <= _MOST_TYPE
        good[word.size - 2 :] = False
    rising = np.zeros(word.size, np.bool_)
    rising[: word.size - fields] = target[fields:] > target[:-fields]
    if not relative:  # where each word is greater than the one before: a list of places to patch
        good &= ~rising_lists(target, code)
    found.append(("__ex_table", *_longest(good, fields, rising)))
    trap = np.zeros(word.size, np.bool_)
    at = np.flatnonzero(inside)
    trap[at] = memory.trap(target[at])
    found.append(("__bug_table", *_longest(trap, 3)))
    if memory.machine is Machine.AARCH64:
        good = _both(inside)
        third = np.zeros(word.size, np.int64)
        third[: word.size - 2] = word[2:] & 0xFFFF_FFFF
        feature, old, new = third & 0x7FFF, third >> 16 & 0xFF, third >> 24  # ARM64_CB_BIT is the 16th
        good &= (feature < _MOST_FEATURES) & (old > 0) & (old % 4 == 0) & ((new == old) | (new == 0))
        found.append((".altinstructions", *_longest(good, 3)))
    found.extend(_exports(section, target, memory))
    at_btf = _btf(section)
    if at_btf is not None:
        found.append((".BTF", *at_btf))
    return [one for one in found if one[2] > one[1]]


def _both(code: NDArray[np.bool_]) -> NDArray[np.bool_]:
    both = np.zeros(code.size, np.bool_)
    both[:-1] = code[:-1] & code[1:]
    return both


def _longest(
    good: NDArray[np.bool_], fields: int, rising: NDArray[np.bool_] | None = None
) -> tuple[int, int]:
    """(first byte, byte behind the last) of the longest run of good entries of so many words each; empty
    where none is long. `rising`: whether the next entry goes on with the same run."""
    best, place = 0, 0
    for phase in range(fields):
        mine = good[phase::fields]
        first = mine.copy()
        first[1:] &= ~mine[:-1] if rising is None else ~(mine[:-1] & rising[phase::fields][: mine.size - 1])
        last = mine.copy()
        last[:-1] &= ~mine[1:] | first[1:]
        start = np.flatnonzero(first)
        length = np.flatnonzero(last) + 1 - start
        if length.size and int(length.max()) > best:
            best = int(length.max())
            place = phase + int(start[int(length.argmax())]) * fields
    if best < _LEAST:
        return 0, 0
    return 4 * place, 4 * (place + best * fields)


def _exports(section: Section, target: NDArray[np.uint64], memory: _Memory) -> list[Found]:
    """`__ksymtab`, `__ksymtab_gpl` and their strings, which lie in the same section: entries of value, name
    and namespace, each relative to its place (absolute on Arm), sorted by name."""
    data = section.data
    low, high = np.uint64(section.address), np.uint64(section.address + data.size)
    inside = (target > low) & (target < high)
    offset = np.where(inside, (target - low).astype(np.int64), 1)
    named = inside & _LETTER[data[offset]]  # the end of another name, where the linker merged them
    fields = 3
    good = np.zeros(target.size, np.bool_)
    value = memory.has(target)
    if memory.machine is Machine.ARM:  # how much memory follows the image is not known
        value = (target >= memory.start[0]) & (target < memory.end[-1] + np.uint64(_MOST_BSS))
    good[:-2] = value[:-2] & named[1:-1]
    good[:-2] &= inside[2:] | (memory.machine is Machine.ARM)  # no namespace is no pointer there
    found: list[Found] = []
    strings_low, strings_high = data.size, 0
    for name in ("__ksymtab", "__ksymtab_gpl"):
        start, stop = _longest(good, fields)
        if stop == start:
            break
        entries = np.arange(start // 4, stop // 4, fields)
        good[start // 4 : stop // 4] = False
        at = offset[entries + 1]
        strings_low, strings_high = min(strings_low, int(at.min())), max(strings_high, int(at.max()))
        found.append((name, start, stop))
    if found:
        end = strings_high + int(np.flatnonzero(data[strings_high:] == 0)[:1].sum()) + 1
        found.append(("__ksymtab_strings", strings_low, min(end, data.size)))
    return found


_LETTER = np.zeros(256, np.bool_)
_LETTER[[*range(ord("A"), ord("Z") + 1), *range(ord("a"), ord("z") + 1), ord("_")]] = True


def _btf(section: Section) -> tuple[int, int] | None:
    """BTF by its header: magic, version, flags, header's bytes, and two tables that follow one another."""
    raw = section.data.tobytes()
    at = raw.find(_BTF_MAGIC)
    while at >= 0:
        header = np.frombuffer(raw[at + 4 : at + 24], "<u4").tolist() if at + 24 <= len(raw) else [0] * 5
        size, types, types_size, strings, strings_size = header if len(header) == 5 else [0] * 5
        if at % 4 == 0 and size == 24 and types == 0 and strings == types_size and strings_size:
            end = at + size + strings + strings_size
            if end <= len(raw) and raw[at + size + strings] == 0:
                return at, end
        at = raw.find(_BTF_MAGIC, at + 1)
    return None


def _cut(section: Section, tables: list[Found]) -> list[Section]:
    """The parts of a section, in order; a table that begins before the end of another is left out."""
    parts: list[Section] = []
    at = 0

    def part(name: str, start: int, stop: int) -> None:
        if stop > start:
            parts.append(
                replace(
                    section,
                    name=name,
                    address=section.address + start,
                    offset=section.offset + start,
                    size=stop - start,
                    data=section.data[start:stop],
                )
            )

    for name, start, stop in tables:
        if start >= at:
            part(section.name, at, start)
            part(name, start, stop)
            at = stop
    part(section.name, at, section.data.size)
    return parts
