"""Relocations of Arm, AArch64 and RISC-V objects, applied: what a linker would write into code and data.

Types and fields: AAELF32 (ARM IHI 0044, tables 4-10 to 4-14), AAELF64 (IHI 0056, 5.7), RISC-V ELF psABI
(chapter "Relocations"). No code is moved: relaxation (R_RISCV_RELAX, R_RISCV_ALIGN) is left undone, which
changes no stack depth. What a linker would put into tables of its own (GOT, thread-local storage) is left as
it is: such an address is not known here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Bytes, Machine

__all__ = ["Overflow", "apply_relocations", "later_types", "relocation_sizes"]

_Values = NDArray[np.int64]


class _Of(enum.Enum):
    """What is written of symbol + addend: itself, its distance from the place, that of its 4 KiB page."""

    ABSOLUTE = 0
    RELATIVE = 1
    PAGE = 2
    ADDED = 3  # to what stands there
    SUBTRACTED = 4
    PAIRED = 5  # what another relocation, at the place that the symbol names, writes (R_RISCV_PCREL_LO12)
    NOTHING = 6


@dataclass(frozen=True)
class _Form:
    """`fields`: (lowest bit of the value, bits, lowest bit of the place) of each piece. `rounded`: added
    first. `reach`: a signed number of that many bits has to hold the value; 0: whatever there is of it.
    `branch`: Arm T32's inverted bits of a far branch. `half`: of an addend in the place, its value's lowest bit.
    """

    size: int  # bytes
    of: _Of
    fields: tuple[tuple[int, int, int], ...] = ()
    reach: int = 0
    rounded: int = 0
    branch: bool = False
    half: int = 0

    @property
    def mask(self) -> int:
        return sum(((1 << bits) - 1) << to for _, bits, to in self.fields)


def _word(size: int, of: _Of = _Of.ABSOLUTE) -> _Form:
    return _Form(size, of, ((0, 8 * size, 0),))


_NOTHING = _Form(0, _Of.NOTHING)
_T32_FAR = ((1, 11, 16), (12, 10, 0), (22, 1, 27), (23, 1, 29), (24, 1, 10))
_T32_MOVE = ((0, 8, 16), (8, 3, 28), (11, 1, 10), (12, 4, 0))
_A32_MOVE = ((0, 12, 0), (12, 4, 16))


def _upper(fields: tuple[tuple[int, int, int], ...]) -> tuple[tuple[int, int, int], ...]:
    """The same of the value's upper 16 bits."""
    return tuple((start + 16, bits, to) for start, bits, to in fields)


_A32_CALL, _A32_JUMP = 28, 29
_ARM: dict[int, _Form] = {
    1: _Form(4, _Of.RELATIVE, ((2, 24, 0),), 26),  # R_ARM_PC24
    2: _word(4),  # ABS32
    3: _word(4, _Of.RELATIVE),  # REL32
    5: _word(2),  # ABS16
    8: _word(1),  # ABS8
    10: _Form(4, _Of.RELATIVE, _T32_FAR, 25, branch=True),  # THM_CALL
    _A32_CALL: _Form(4, _Of.RELATIVE, ((2, 24, 0),), 26),
    _A32_JUMP: _Form(4, _Of.RELATIVE, ((2, 24, 0),), 26),
    30: _Form(4, _Of.RELATIVE, _T32_FAR, 25, branch=True),  # THM_JUMP24
    38: _word(4),  # TARGET1: of init_array
    41: _word(4),  # TARGET2: of exception tables, which are not read
    42: _Form(4, _Of.RELATIVE, ((0, 31, 0),), 31),  # PREL31
    43: _Form(4, _Of.ABSOLUTE, _A32_MOVE),  # MOVW_ABS_NC
    44: _Form(4, _Of.ABSOLUTE, _upper(_A32_MOVE), half=16),  # MOVT_ABS
    45: _Form(4, _Of.RELATIVE, _A32_MOVE),
    46: _Form(4, _Of.RELATIVE, _upper(_A32_MOVE), half=16),
    47: _Form(4, _Of.ABSOLUTE, _T32_MOVE),  # THM_MOVW_ABS_NC
    48: _Form(4, _Of.ABSOLUTE, _upper(_T32_MOVE), half=16),
    49: _Form(4, _Of.RELATIVE, _T32_MOVE),
    50: _Form(4, _Of.RELATIVE, _upper(_T32_MOVE), half=16),
    51: _Form(4, _Of.RELATIVE, ((1, 11, 16), (12, 6, 0), (18, 1, 29), (19, 1, 27), (20, 1, 10)), 21),
    102: _Form(2, _Of.RELATIVE, ((1, 11, 0),), 12),  # THM_JUMP11
    103: _Form(2, _Of.RELATIVE, ((1, 8, 0),), 9),  # THM_JUMP8
    # V4BX: `bx` stays; GOT and thread-local storage.
    **dict.fromkeys((0, 24, 25, 26, 40, 90, 91, 95, 96, 97, 104, 105, 106, 107, 108, 109), _NOTHING),
}
_A64_BRANCH = _Form(4, _Of.RELATIVE, ((2, 26, 0),), 28)
_A64_LITERAL = _Form(4, _Of.RELATIVE, ((2, 19, 5),), 21)
_AARCH64: dict[int, _Form] = {
    257: _word(8),  # R_AARCH64_ABS64
    258: _word(4),
    259: _word(2),
    260: _word(8, _Of.RELATIVE),  # PREL64
    261: _word(4, _Of.RELATIVE),
    262: _word(2, _Of.RELATIVE),
    # MOVW_UABS_G0, _NC, G1, _NC, G2, _NC, G3; SABS_G0 to G2
    **{
        kind: _Form(4, _Of.ABSOLUTE, ((16 * group, 16, 5),))
        for kind, group in zip(range(263, 273), (0, 0, 1, 1, 2, 2, 3, 0, 1, 2), strict=True)
    },
    273: _A64_LITERAL,  # LD_PREL_LO19
    274: _Form(4, _Of.RELATIVE, ((0, 2, 29), (2, 19, 5)), 21),  # ADR_PREL_LO21
    275: _Form(4, _Of.PAGE, ((12, 2, 29), (14, 19, 5)), 33),  # ADR_PREL_PG_HI21
    276: _Form(4, _Of.PAGE, ((12, 2, 29), (14, 19, 5))),
    277: _Form(4, _Of.ABSOLUTE, ((0, 12, 10),)),  # ADD_ABS_LO12_NC
    278: _Form(4, _Of.ABSOLUTE, ((0, 12, 10),)),  # LDST8_ABS_LO12_NC
    279: _Form(4, _Of.RELATIVE, ((2, 14, 5),), 16),  # TSTBR14
    280: _A64_LITERAL,  # CONDBR19
    282: _A64_BRANCH,  # JUMP26
    283: _A64_BRANCH,  # CALL26
    284: _Form(4, _Of.ABSOLUTE, ((1, 11, 10),)),  # LDST16_ABS_LO12_NC
    285: _Form(4, _Of.ABSOLUTE, ((2, 10, 10),)),
    286: _Form(4, _Of.ABSOLUTE, ((3, 9, 10),)),
    299: _Form(4, _Of.ABSOLUTE, ((4, 8, 10),)),
    314: _word(4, _Of.RELATIVE),  # PLT32
    # NONE (both numbers); GOT, thread-local storage
    **dict.fromkeys((0, 256, *range(300, 314), *range(512, 574)), _NOTHING),
}
_RISCV_LOW, _RISCV_STORE = ((0, 12, 20),), ((0, 5, 7), (5, 7, 25))
_PCREL_HI20 = 23
_RISCV: dict[int, _Form] = {
    1: _word(4),  # R_RISCV_32
    2: _word(8),
    16: _Form(4, _Of.RELATIVE, ((1, 4, 8), (5, 6, 25), (11, 1, 7), (12, 1, 31)), 13),  # BRANCH
    17: _Form(4, _Of.RELATIVE, ((1, 10, 21), (11, 1, 20), (12, 8, 12), (20, 1, 31)), 21),  # JAL
    # CALL, CALL_PLT: auipc and jalr; the lower field is taken before rounding, see _pieces()
    18: _Form(8, _Of.RELATIVE, ((12, 20, 12), (0, 12, 52)), 32, rounded=0x800),
    19: _Form(8, _Of.RELATIVE, ((12, 20, 12), (0, 12, 52)), 32, rounded=0x800),
    _PCREL_HI20: _Form(4, _Of.RELATIVE, ((12, 20, 12),), 32, rounded=0x800),
    24: _Form(4, _Of.PAIRED, _RISCV_LOW),  # PCREL_LO12_I
    25: _Form(4, _Of.PAIRED, _RISCV_STORE),
    26: _Form(4, _Of.ABSOLUTE, ((12, 20, 12),), rounded=0x800),  # HI20
    27: _Form(4, _Of.ABSOLUTE, _RISCV_LOW),
    28: _Form(4, _Of.ABSOLUTE, _RISCV_STORE),
    33: _word(1, _Of.ADDED),
    34: _word(2, _Of.ADDED),
    35: _word(4, _Of.ADDED),
    36: _word(8, _Of.ADDED),
    37: _word(1, _Of.SUBTRACTED),
    38: _word(2, _Of.SUBTRACTED),
    39: _word(4, _Of.SUBTRACTED),
    40: _word(8, _Of.SUBTRACTED),
    44: _Form(2, _Of.RELATIVE, ((1, 2, 3), (3, 2, 10), (5, 1, 2), (6, 2, 5), (8, 1, 12)), 9),  # RVC_BRANCH
    45: _Form(
        2,
        _Of.RELATIVE,
        ((1, 3, 3), (4, 1, 11), (5, 1, 2), (6, 1, 7), (7, 1, 6), (8, 2, 9), (10, 1, 8), (11, 1, 12)),
        12,
    ),  # RVC_JUMP
    46: _Form(2, _Of.ABSOLUTE, ((12, 5, 2), (17, 1, 12)), 18, rounded=0x800),  # RVC_LUI
    52: _Form(1, _Of.SUBTRACTED, ((0, 6, 0),)),  # SUB6
    53: _Form(1, _Of.ABSOLUTE, ((0, 6, 0),)),  # SET6
    54: _word(1),
    55: _word(2),
    56: _word(4),
    57: _word(4, _Of.RELATIVE),  # 32_PCREL
    59: _word(4, _Of.RELATIVE),  # PLT32
    # NONE, RELAX, ALIGN, vtable marks; GOT and thread-local storage; numbers of any length in debug information
    **dict.fromkeys((0, 20, 21, 22, 29, 30, 31, 32, 41, 42, 43, 51, 60, 61), _NOTHING),
}
_FORMS: Mapping[Machine, Mapping[int, _Form]] = {
    Machine.ARM: _ARM,
    Machine.AARCH64: _AARCH64,
    Machine.RISCV32: _RISCV,
    Machine.RISCV64: _RISCV,
}


class Overflow(Exception):
    """A relocation whose place cannot hold the value. `index`: of the relocation; `cause`: for people."""

    def __init__(self, index: int, cause: str) -> None:
        super().__init__(cause)
        self.index = index
        self.cause = cause


def relocation_sizes(machine: Machine) -> dict[int, int]:
    """Bytes that each known type of relocation changes."""
    return {kind: form.size for kind, form in _FORMS[machine].items()}


def later_types(machine: Machine) -> list[int]:
    """Types whose value is another relocation's: they go with, or after, all others."""
    return [kind for kind, form in _FORMS[machine].items() if form.of is _Of.PAIRED]


def apply_relocations(
    buffer: Bytes,
    base: int,
    machine: Machine,
    place: NDArray[np.int64],
    kind: NDArray[np.uint32],
    symbol: NDArray[np.uint64],
    addend: NDArray[np.int64],
    thumb: NDArray[np.bool_],
    chosen: NDArray[np.bool_],
) -> None:
    """Write the chosen relocations into `buffer`, which lies at address `base`.

    Each relocation has its place (bytes into the buffer), its type, its symbol's address, its addend (0 where
    the place holds it), and whether the symbol is a function in T32 code. Every relocation is to be applied
    once. Raises Overflow.
    """
    writer = _Writer(buffer, base, machine, place, kind, symbol, addend, thumb)
    for number, form in _FORMS[machine].items():
        if form.of is _Of.NOTHING:
            continue
        pick = np.flatnonzero(chosen & (kind == number))
        if pick.size:
            writer.write(number, form, pick)


@dataclass(frozen=True, eq=False)
class _Writer:
    buffer: Bytes
    base: int
    machine: Machine
    place: NDArray[np.int64]
    kind: NDArray[np.uint32]
    symbol: NDArray[np.uint64]
    addend: NDArray[np.int64]
    thumb: NDArray[np.bool_]

    def write(self, number: int, form: _Form, pick: NDArray[np.int64]) -> None:
        octets = self.place[pick][:, None] + np.arange(form.size)
        word = np.zeros((pick.size, 8), np.uint8)
        word[:, : form.size] = self.buffer[octets]
        old = word.view("<u8").ravel()
        if form.of in (_Of.ADDED, _Of.SUBTRACTED):
            # Of several at one place the sum of all counts.
            value = self._target(pick)
            value = -value if form.of is _Of.SUBTRACTED else value
            first, index = np.unique(self.place[pick], return_index=True)
            total = np.zeros(first.size, np.int64)
            np.add.at(total, np.searchsorted(first, self.place[pick]), value)
            mask = np.uint64(form.mask)
            new = old[index] & ~mask | (old[index] + total.view(np.uint64)) & mask
            self.buffer[octets[index]] = new.astype("<u8").view(np.uint8).reshape(-1, 8)[:, : form.size]
            return
        value = self._value(form, pick, old)
        new = _inserted(form, old, value)
        if self.machine is Machine.ARM and number in (_A32_CALL, _A32_JUMP):
            new = self._interworking(number, pick, new, value)
        self.buffer[octets] = new.astype("<u8").view(np.uint8).reshape(-1, 8)[:, : form.size]

    def _target(self, pick: NDArray[np.int64]) -> _Values:
        return self.symbol[pick].view(np.int64) + self.addend[pick]

    def _value(self, form: _Form, pick: NDArray[np.int64], old: NDArray[np.uint64]) -> _Values:
        if form.of is _Of.PAIRED:
            return self._paired(pick)
        value = self._target(pick)
        if self.machine is Machine.ARM:
            value = value + _extracted(form, old) | self.thumb[pick]
        place = self.place[pick] + self.base
        if form.of is _Of.RELATIVE:
            value = value - place
        elif form.of is _Of.PAGE:
            value = (value & ~0xFFF) - (place & ~0xFFF)
        if form.reach:
            half = 1 << form.reach - 1
            far = np.flatnonzero((value < -half) | (value >= half))
            if far.size:
                raise Overflow(int(pick[far[0]]), f"reaches {int(value[far[0]])} bytes away, of {half} at most")
        return value

    def _paired(self, pick: NDArray[np.int64]) -> _Values:
        """Of R_RISCV_PCREL_LO12: its symbol is where the upper part stands, whose value is split in two."""
        upper = np.flatnonzero(self.kind == _PCREL_HI20)
        place = self.place[upper] + self.base
        order = np.argsort(place, kind="stable")
        upper, place = upper[order], place[order]
        at = self.symbol[pick].view(np.int64)
        index = np.minimum(np.searchsorted(place, at), max(place.size - 1, 0))
        if not place.size:
            return np.zeros(pick.size, np.int64)
        value = self._target(upper) - place
        # Where the upper part is of a table (GOT, thread-local storage), both stay as they are.
        return np.where(place[index] == at, value[index], 0)

    def _interworking(
        self, number: int, pick: NDArray[np.int64], new: NDArray[np.uint64], value: _Values
    ) -> NDArray[np.uint64]:
        """A call from A32 to T32 code is `blx`, which reaches every second byte too."""
        odd = self.thumb[pick] & (value & 2 != 0)
        if not odd.any():
            return new
        if number == _A32_JUMP:
            raise Overflow(int(pick[odd.argmax()]), "from A32 to T32 code needs a veneer of the linker")
        change = np.uint64(0xFB000000) | new & np.uint64(0xFFFFFF)
        return np.where(odd, change, new)


def _inserted(form: _Form, old: NDArray[np.uint64], value: _Values) -> NDArray[np.uint64]:
    """The place's bits with those of the value in its fields."""
    if form.branch:  # J = NOT(I XOR S): DDI 0403E A7.7.18
        value = value ^ np.where(value < 0, 0, 3 << 22)
    raised = (value + form.rounded).view(np.uint64)
    plain = value.view(np.uint64)
    new = old & np.uint64(~form.mask & (1 << 64) - 1)
    for start, bits, to in form.fields:
        taken = raised if start >= 12 else plain  # a lower part is not rounded
        new |= (taken >> np.uint64(start) & np.uint64((1 << bits) - 1)) << np.uint64(to)
    return new


def _extracted(form: _Form, old: NDArray[np.uint64]) -> _Values:
    """The addend that stands in the place (SHT_REL)."""
    value = np.zeros(old.shape, np.uint64)
    most = 0
    for start, bits, to in form.fields:
        low = start - form.half
        value |= (old >> np.uint64(to) & np.uint64((1 << bits) - 1)) << np.uint64(low)
        most = max(most, low + bits)
    signed = (value << np.uint64(64 - most)).view(np.int64) >> (64 - most)
    return signed ^ np.where(signed < 0, 0, 3 << 22) if form.branch else signed
