"""DWARF call frame information: the compiler's statement of the stack depth at an address.

Reads `.debug_frame` and `.eh_frame`, executes each FDE's program and keeps the rule for the CFA only.
Inline assembly that pushes is unknown to the compiler: there CFI gives the depth without those bytes.

Sources: DWARF 5 section 6.4 (versions 2 to 5, 32-bit and 64-bit DWARF); LSB Core 5.0 section 10.6
(`.eh_frame`, pointer encodings); register numbers from the x86-64 and i386 psABI.

Caps: MAXIMUM_SECTION bytes and MAXIMUM_CIES CIEs per section, MAXIMUM_STATES remembered states. Every
entry is read once and every row costs at least two bytes of program, so time and memory are linear in the
section's size.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stackfit.image.debug import relocated
from stackfit.image.model import Image, InputError, Machine

__all__ = ["CFA_UNDEFINED", "MAXIMUM_CIES", "MAXIMUM_SECTION", "MAXIMUM_STATES", "CfiTable", "read_cfi"]

CFA_UNDEFINED = -1  # register of a row whose CFA is no register plus a constant
MAXIMUM_SECTION = 32 << 20
MAXIMUM_CIES = 1 << 17
MAXIMUM_STATES = 256
_STACK_POINTER = {Machine.I386: 4, Machine.X86_64: 7}
_FRAME_POINTER = {Machine.I386: 5, Machine.X86_64: 6}


@dataclass(frozen=True, eq=False)
class CfiTable:
    """CFA rules by address: a row holds from its address up to the next one's.

    Every FDE ends with a CFA_UNDEFINED row, so code without CFI is undefined. Of two rows with the same
    address the later one holds. `notes` say what was left out and how often.
    """

    address: NDArray[np.uint64]  # [n] link addresses, ascending
    register: NDArray[np.int16]  # [n] DWARF register number, or CFA_UNDEFINED
    offset: NDArray[np.int32]  # [n] bytes: CFA = register + offset
    start: NDArray[np.uint64]  # [f] first address of each FDE used, ascending, disjoint
    end: NDArray[np.uint64]  # [f] the address after its last
    stack_pointer: int  # DWARF number of esp or rsp
    frame_pointer: int  # of ebp or rbp
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.address.size)

    def row_at(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The row that holds at each of the n link addresses: i8[n]; -1 before the first."""
        return np.searchsorted(self.address, addresses, side="right") - 1

    def depth_at(self, addresses: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Depth in bytes before the instruction at each of the n link addresses: i4[n].

        Depth = CFA - stack pointer, so the return address counts: 8 at entry on x86-64, 4 on i386.
        -1 where CFI gives no constant: no FDE, another base register, an expression, a signal frame.
        """
        return self._offset_from(self.stack_pointer, addresses)

    def frame_pointer_at(self, addresses: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Depth in bytes that the frame pointer holds at each of the n link addresses: i4[n].

        CFA - frame pointer; -1 where CFI does not base the CFA on it.
        """
        return self._offset_from(self.frame_pointer, addresses)

    def _offset_from(self, register: int, addresses: NDArray[np.uint64]) -> NDArray[np.int32]:
        depths = np.full(addresses.shape, -1, np.int32)
        if not self.address.size:
            return depths
        row = self.row_at(addresses)
        defined = (row >= 0) & (self.register[row] == register) & (self.offset[row] >= 0)
        depths[defined] = self.offset[row[defined]]
        return depths


def read_cfi(image: Image) -> CfiTable | None:
    """The CFI of a linked image (sections at their final addresses); None if it has none.

    `.debug_frame` is preferred where both sections describe an address. Raises InputError where entries
    do not fill their section; an FDE that cannot be used is left out and counted in `notes`.
    """
    skipped = Counter[str]()
    functions = _Functions()
    present = False
    for name in (".debug_frame", ".eh_frame"):
        for index, section in enumerate(image.sections):
            if section.name == name and section.data.size:
                present = True
                _Reader(image, index, functions, skipped).read()
    return _table(image, functions, skipped) if present else None


class _BadEntryError(Exception):
    """An entry that cannot be used; the text is the reason counted."""


_TRUNCATED = "truncated"
_Rows = tuple[list[int], list[int], list[int]]  # bytes from the FDE's start, register, offset


class _Functions:
    """Extents of FDEs, and the rows of their programs, which many FDEs share, as growing columns."""

    def __init__(self) -> None:
        self.start, self.size, self.program, self.priority = array("Q"), array("Q"), array("q"), array("b")
        self.first = array("q", [0])  # first row of each program; the last is the number of rows
        self.delta, self.register, self.offset = array("Q"), array("h"), array("i")

    def add_program(self, rows: _Rows) -> int:
        self.delta.extend(rows[0])
        self.register.extend(rows[1])
        self.offset.extend(rows[2])
        self.first.append(len(self.delta))
        return len(self.first) - 2


@dataclass(frozen=True)
class _Cie:
    code_alignment: int
    data_alignment: int
    encoding: int  # DW_EH_PE_* of code addresses
    augmented: bool  # FDEs have an augmentation length
    signal: bool  # a frame that the kernel or the CPU pushed, no call's
    register: int
    offset: int


class _Reader:
    """One section of CFI."""

    def __init__(self, image: Image, index: int, functions: _Functions, skipped: Counter[str]) -> None:
        section = image.sections[index]
        if section.data.size > MAXIMUM_SECTION:
            cause = f"section {section.name} of {section.data.size} bytes ({MAXIMUM_SECTION} accepted)"
            raise InputError(image.path, cause, section.offset)
        self.path, self.section = image.path, section
        self.eh = section.name == ".eh_frame"
        self.data = relocated(image, index).tobytes()
        self.word = image.machine.word
        self.limit = 1 << 8 * self.word
        self.functions, self.skipped = functions, skipped
        self.programs: dict[tuple[int, bytes], int] = {}

    def read(self) -> None:
        """Walk the entries; then decode the FDEs, since a CIE may follow them."""
        cies: dict[int, _Cie | str] = {}
        fdes = array("Q")  # CIE's offset, body's offset, end
        data, at, size = self.data, 0, len(self.data)
        while at < size:
            entry = at
            length = self._header(at, 4)
            at += 4
            width = 4
            if length >= 0xFFFFFFF0:
                if length != 0xFFFFFFFF:
                    raise self._error("reserved length in call frame information", entry)
                length = self._header(at, 8)
                at += 8
                width = 4 if self.eh else 8
            if length == 0:  # terminator, or padding between the parts a linker joined
                continue
            end = at + length
            if end > size:
                raise self._error(f"entry of {length} bytes ends beyond section {self.section.name}", entry)
            if length < width:
                self.skipped[_TRUNCATED] += 1
            else:
                pointer = int.from_bytes(data[at : at + width], "little")
                if pointer == (0 if self.eh else (1 << 8 * width) - 1):
                    if len(cies) == MAXIMUM_CIES:
                        raise self._error(f"more than {MAXIMUM_CIES} CIEs", entry)
                    cies[entry] = self._cie(data[at + width : end])
                else:
                    cie_at = at - pointer if self.eh else pointer
                    fdes.extend((max(cie_at, 0), at + width, end))
            at = end
        for i in range(0, len(fdes), 3):
            cie = cies.get(fdes[i], "no CIE where the FDE says")
            reason = cie if isinstance(cie, str) else self._fde(fdes[i], cie, fdes[i + 1], fdes[i + 2])
            if reason is not None:
                self.skipped[reason] += 1

    def _error(self, cause: str, at: int) -> InputError:
        return InputError(self.path, cause, self.section.offset + at)

    def _header(self, at: int, width: int) -> int:
        if at + width > len(self.data):
            raise self._error(f"section {self.section.name} ends inside an entry's length", at)
        return int.from_bytes(self.data[at : at + width], "little")

    def _cie(self, body: bytes) -> _Cie | str:
        """A CIE, or why its FDEs cannot be used."""
        try:
            return self._parse_cie(body)
        except _BadEntryError as reason:
            return str(reason)
        except IndexError:
            return _TRUNCATED

    def _parse_cie(self, body: bytes) -> _Cie:
        version, at = body[0], 1
        if version not in (1, 3, 4):
            raise _BadEntryError("unknown CIE version")
        zero = body.find(b"\0", at)
        if zero < 0:
            raise IndexError
        augmentation, at = body[at:zero], zero + 1
        if version == 4:
            if (body[at], body[at + 1]) != (self.word, 0):
                raise _BadEntryError("address or segment size is not the machine's")
            at += 2
        code_alignment, at = _uleb(body, at)
        data_alignment, at = _sleb(body, at)
        at = at + 1 if version == 1 else _skip_leb(body, at)  # return address column
        encoding, signal = 0, False
        if augmentation:
            if augmentation[:1] != b"z":
                raise _BadEntryError("unknown augmentation")
            length, at = _uleb(body, at)
            extra, at = at, at + length
            for letter in augmentation[1:]:
                if letter == ord("R"):
                    encoding, extra = body[extra], extra + 1
                elif letter == ord("L"):
                    extra += 1
                elif letter == ord("P"):
                    _, extra = _encoded(body, extra + 1, body[extra], self.word)
                elif letter == ord("S"):
                    signal = True
                elif letter != ord("B"):  # pointer authentication, Arm only
                    raise _BadEntryError("unknown augmentation")
            if extra > at:
                raise IndexError
        if at > len(body):
            raise IndexError
        if encoding & 0xF0 not in (0, _PCREL):
            raise _BadEntryError("unsupported pointer encoding")
        blank = _Cie(code_alignment, data_alignment, encoding, bool(augmentation), signal, CFA_UNDEFINED, 0)
        (deltas, registers, offsets), _ = self._execute(body[at:], blank, 0, 0)
        if deltas[-1]:
            raise _BadEntryError("CIE program moves the location")
        return replace(blank, register=registers[-1], offset=offsets[-1])

    def _fde(self, cie_at: int, cie: _Cie, at: int, end: int) -> str | None:
        """Take one FDE, or say why it cannot be used."""
        if cie.signal:
            return "signal frame: depth undefined"
        try:
            body = self.data[at:end]
            start, place = _encoded(body, 0, cie.encoding, self.word)
            if cie.encoding & _PCREL:
                start += self.section.address + at
            start &= self.limit - 1
            size, place = _encoded(body, place, cie.encoding & 7, self.word)  # a size is unsigned
            if cie.augmented:
                length, place = _uleb(body, place)
                place += length
            if place > len(body):
                return _TRUNCATED
            if size == 0:
                return "empty range"
            if start + size > self.limit:
                return "range beyond the address space"
            code = body[place:]
            functions = self.functions
            program = self.programs.get((cie_at, code))
            if program is None:
                rows, portable = self._execute(code, cie, start, self.section.address + at + place)
                program = functions.add_program(rows)
                if portable:
                    self.programs[cie_at, code] = program
        except _BadEntryError as reason:
            return str(reason)
        except IndexError:
            return _TRUNCATED
        if functions.delta[functions.first[program + 1] - 1] > size:
            return "program moves beyond its range"
        functions.start.append(start)
        functions.size.append(size)
        functions.program.append(program)
        functions.priority.append(self.eh)
        return None

    def _execute(self, code: bytes, cie: _Cie, start: int, place: int) -> tuple[_Rows, bool]:
        """A program's rows, and whether they hold at any address; IndexError when it is truncated.

        `place` is the program's own address, for DW_CFA_set_loc. Rules of other registers are skipped.
        """
        register, offset, factor = cie.register, cie.offset, cie.code_alignment
        deltas, registers, offsets = [0], [register], [offset]
        states: list[tuple[int, int]] = []
        location, length, at, portable = 0, len(code), 0, True
        while at < length:
            operation = code[at]
            at += 1
            if operation < 0x40:
                if operation == 0x0E:  # DW_CFA_def_cfa_offset
                    offset = code[at]
                    if offset < 0x80:
                        at += 1
                    else:
                        offset, at = _uleb(code, at)
                    continue
                if operation == 0x0A:  # DW_CFA_remember_state
                    if len(states) == MAXIMUM_STATES:
                        raise _BadEntryError("too many remembered states")
                    states.append((register, offset))
                    continue
                if operation == 0x0B:  # DW_CFA_restore_state
                    if not states:
                        raise _BadEntryError("restored state was never remembered")
                    register, offset = states.pop()
                    continue
                if operation == 0x02:  # DW_CFA_advance_loc1
                    advance = code[at] * factor
                    at += 1
                elif operation == 0x03:  # DW_CFA_advance_loc2
                    advance = (code[at] | code[at + 1] << 8) * factor
                    at += 2
                elif operation == 0x04:  # DW_CFA_advance_loc4
                    advance, at = _fixed(code, at, 4)
                    advance *= factor
                elif operation == 0x01:  # DW_CFA_set_loc
                    base = place + at if cie.encoding & _PCREL else 0
                    target, at = _encoded(code, at, cie.encoding, self.word)
                    advance = (base + target & self.limit - 1) - start - location
                    portable = False
                    if advance < 0:
                        raise _BadEntryError("program moves backwards")
                elif operation == 0x0C:  # DW_CFA_def_cfa
                    register, at = _uleb(code, at)
                    offset, at = _uleb(code, at)
                    continue
                elif operation == 0x0D:  # DW_CFA_def_cfa_register
                    if register == CFA_UNDEFINED:
                        raise _BadEntryError("CFA register changed where the CFA is an expression")
                    register, at = _uleb(code, at)
                    continue
                elif operation == 0x0F:  # DW_CFA_def_cfa_expression
                    register, offset = CFA_UNDEFINED, 0
                    at = _skip_block(code, at)
                    continue
                elif operation == 0x12:  # DW_CFA_def_cfa_sf
                    register, at = _uleb(code, at)
                    offset, at = _sleb(code, at)
                    offset *= cie.data_alignment
                    continue
                elif operation == 0x13:  # DW_CFA_def_cfa_offset_sf
                    offset, at = _sleb(code, at)
                    offset *= cie.data_alignment
                    continue
                elif operation in _SKIPPED:
                    for operand in _SKIPPED[operation]:
                        at = _skip_leb(code, at) if operand == "leb" else _skip_block(code, at)
                    continue
                else:
                    raise _BadEntryError("unknown call frame instruction")
            elif operation >= 0xC0:  # DW_CFA_restore
                continue
            elif operation >= 0x80:  # DW_CFA_offset
                at = at + 1 if code[at] < 0x80 else _skip_leb(code, at)
                continue
            else:  # DW_CFA_advance_loc
                advance = (operation & 63) * factor
            if register != registers[-1] or offset != offsets[-1]:
                deltas.append(location)
                registers.append(register)
                offsets.append(offset)
            location += advance
        if register != registers[-1] or offset != offsets[-1]:
            deltas.append(location)
            registers.append(register)
            offsets.append(offset)
        if location >= self.limit:
            raise _BadEntryError("program moves beyond its range")
        if max(registers) >= 1 << 15 or max(offsets) >= 1 << 31 or min(offsets) < -1 << 31:
            raise _BadEntryError("CFA register or offset is out of bounds")
        return (deltas, registers, offsets), portable


_PCREL = 0x10  # DW_EH_PE_pcrel
# Instructions that say nothing about the CFA, and their operands.
_SKIPPED: dict[int, tuple[str, ...]] = {
    0x00: (),  # DW_CFA_nop
    0x05: ("leb", "leb"),  # DW_CFA_offset_extended
    0x06: ("leb",),  # DW_CFA_restore_extended
    0x07: ("leb",),  # DW_CFA_undefined
    0x08: ("leb",),  # DW_CFA_same_value
    0x09: ("leb", "leb"),  # DW_CFA_register
    0x10: ("leb", "block"),  # DW_CFA_expression
    0x11: ("leb", "leb"),  # DW_CFA_offset_extended_sf
    0x14: ("leb", "leb"),  # DW_CFA_val_offset
    0x15: ("leb", "leb"),  # DW_CFA_val_offset_sf
    0x16: ("leb", "block"),  # DW_CFA_val_expression
    0x2D: (),  # DW_CFA_GNU_window_save
    0x2E: ("leb",),  # DW_CFA_GNU_args_size
    0x2F: ("leb", "leb"),  # DW_CFA_GNU_negative_offset_extended
}
_FIXED_SIZES = {2: 2, 3: 4, 4: 8}  # DW_EH_PE_udata2, 4, 8; the signed ones are 8 more


def _skip_leb(code: bytes, at: int) -> int:
    while code[at] >= 0x80:
        at += 1
    return at + 1


def _skip_block(code: bytes, at: int) -> int:
    length, at = _uleb(code, at)
    if at + length > len(code):
        raise IndexError
    return at + length


def _uleb(code: bytes, at: int) -> tuple[int, int]:
    """An unsigned LEB128 of at most 64 bits, and the offset after it."""
    value, shift = 0, 0
    while True:
        byte = code[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise _BadEntryError("number of more than 64 bits")
    return value, at


def _sleb(code: bytes, at: int) -> tuple[int, int]:
    """A signed LEB128 of at most 64 bits, and the offset after it."""
    value, after = _uleb(code, at)
    bits = 7 * (after - at)
    return value - (1 << bits if code[after - 1] & 0x40 else 0), after


def _fixed(code: bytes, at: int, size: int, signed: bool = False) -> tuple[int, int]:
    if at + size > len(code):
        raise IndexError
    return int.from_bytes(code[at : at + size], "little", signed=signed), at + size


def _encoded(code: bytes, at: int, encoding: int, word: int) -> tuple[int, int]:
    """A pointer in the format of a DW_EH_PE_* encoding, before the base is added."""
    kind = encoding & 15
    if kind == 0:
        return _fixed(code, at, word)
    if kind == 1:
        return _uleb(code, at)
    if kind == 9:
        return _sleb(code, at)
    size = _FIXED_SIZES.get(kind & 7)
    if size is None:
        raise _BadEntryError("unsupported pointer encoding")
    return _fixed(code, at, size, signed=kind >= 8)


def _table(image: Image, functions: _Functions, skipped: Counter[str]) -> CfiTable:
    """Rows of all FDEs by address; FDEs outside code, and all but one of those that overlap, left out."""
    start, size = np.array(functions.start, np.uint64), np.array(functions.size, np.uint64)
    end = start + (size - np.uint64(1))  # inclusive: the last byte of the address space does not wrap
    program, first = np.array(functions.program, np.int64), np.array(functions.first, np.int64)
    order = np.lexsort((np.array(functions.priority, np.int8), start))
    code = _in_code(image, start[order], end[order])
    if not code.all():
        skipped["outside executable sections"] += int(np.count_nonzero(~code))
        order = order[code]
    order = order[_disjoint(start[order], end[order], skipped)]
    start, end, program = start[order], end[order], program[order]

    counts = first[program + 1] - first[program]
    total = int(counts.sum())
    begins = np.cumsum(counts) - counts  # of each FDE's rows, without closing rows
    source = np.repeat(first[program] - begins, counts) + np.arange(total)
    closing = np.arange(1, len(order) + 1) + np.cumsum(counts) - 1  # where the closing rows go
    body = np.ones(total + len(order), bool)
    body[closing] = False
    address = np.empty(body.size, np.uint64)
    register = np.full(body.size, CFA_UNDEFINED, np.int16)
    offset = np.zeros(body.size, np.int32)
    address[body] = np.array(functions.delta, np.uint64)[source] + np.repeat(start, counts)
    address[closing] = end + np.uint64(1)
    register[body] = np.array(functions.register, np.int16)[source]
    offset[body] = np.array(functions.offset, np.int32)[source]
    return CfiTable(
        address=address,
        register=register,
        offset=offset,
        start=start,
        end=end + np.uint64(1),
        stack_pointer=_STACK_POINTER[image.machine],
        frame_pointer=_FRAME_POINTER[image.machine],
        notes=tuple(f"{count} FDEs left out: {reason}" for reason, count in sorted(skipped.items())),
    )


def _in_code(image: Image, start: NDArray[np.uint64], end: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether each range [start, end] lies in executable sections (FDEs of dropped code stay at 0)."""
    sections = sorted((s.address, s.end) for s in image.sections if s.executable)
    if not sections:
        return np.zeros(start.shape, bool)
    low = np.array([s[0] for s in sections], np.uint64)
    high = np.maximum.accumulate(np.array([s[1] - 1 for s in sections], np.uint64))
    place = np.searchsorted(low, start, side="right") - 1
    return (place >= 0) & (end <= high[place])


def _disjoint(start: NDArray[np.uint64], end: NDArray[np.uint64], skipped: Counter[str]) -> NDArray[np.bool_]:
    """Which of the FDEs, sorted by start, to keep so that no two overlap: the earlier one wins."""
    keep = np.ones(start.shape, bool)
    if not (start[1:] <= np.maximum.accumulate(end)[:-1]).any():
        return keep
    last_start = last_end = -1
    for i, (low, high) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
        if low > last_end:
            last_start, last_end = low, high
            continue
        keep[i] = False
        same = (low, high) == (last_start, last_end)
        skipped["same range as another" if same else "overlaps another"] += 1
    return keep
