# cython: boundscheck=True, wraparound=False, cdivision=True
"""Reads .debug_info unit by unit: types, functions, variables and where local ones are (compiled; runs
uncompiled too).

A kernel repeats its headers' types in each of its thousands of units. Types are told apart by a hash of what
they are made of, so that each is kept once: of a named struct its name, size and members, whose types count
by their names alone (a struct that one unit only declares is the same as where it is defined); of all else
what it leads to. Columns of entries, tags, attributes and forms: dwarf_constants.py. Source: DWARF 5,
sections 7.5 to 7.7; versions 2 to 4 by the same reader.
"""

from __future__ import annotations

from typing import Any

import cython
import numpy as np

__all__ = ["DwarfError", "DwarfUnits"]

if not cython.compiled:
    from stackfit.image.dwarf_constants import (
        AT_ABSTRACT_ORIGIN,
        AT_ADDR_BASE,
        AT_BIT_OFFSET,
        AT_BIT_SIZE,
        AT_BYTE_SIZE,
        AT_COUNT,
        AT_DATA_BIT_OFFSET,
        AT_DATA_MEMBER_LOCATION,
        AT_DECLARATION,
        AT_ENCODING,
        AT_FRAME_BASE,
        AT_LANGUAGE,
        AT_LOCATION,
        AT_LOCLISTS_BASE,
        AT_LOW_PC,
        AT_NAME,
        AT_RANGES,
        AT_RNGLISTS_BASE,
        AT_SPECIFICATION,
        AT_STR_OFFSETS_BASE,
        AT_TYPE,
        AT_UPPER_BOUND,
        BITS,
        BTF_ARRAY,
        BTF_CONST,
        BTF_ENUM,
        BTF_FLOAT,
        BTF_FUNC_PROTO,
        BTF_FWD,
        BTF_INT,
        BTF_PTR,
        BTF_RESTRICT,
        BTF_STRUCT,
        BTF_TYPEDEF,
        BTF_UNION,
        BTF_VOLATILE,
        CFA_FRAME,
        CHILD,
        COLUMNS,
        DECLARATION,
        DEEPEST,
        FLAGS,
        FLOATING,
        FORM_ADDR,
        FORM_ADDRX,
        FORM_ADDRX1,
        FORM_ADDRX2,
        FORM_ADDRX3,
        FORM_ADDRX4,
        FORM_BLOCK,
        FORM_BLOCK1,
        FORM_BLOCK2,
        FORM_BLOCK4,
        FORM_DATA1,
        FORM_DATA2,
        FORM_DATA4,
        FORM_DATA8,
        FORM_DATA16,
        FORM_EXPRLOC,
        FORM_FLAG,
        FORM_FLAG_PRESENT,
        FORM_IMPLICIT_CONST,
        FORM_INDIRECT,
        FORM_LINE_STRP,
        FORM_LOCLISTX,
        FORM_REF1,
        FORM_REF2,
        FORM_REF4,
        FORM_REF8,
        FORM_REF_ADDR,
        FORM_REF_SIG8,
        FORM_REF_SUP4,
        FORM_REF_SUP8,
        FORM_REF_UDATA,
        FORM_RNGLISTX,
        FORM_SDATA,
        FORM_SEC_OFFSET,
        FORM_STRING,
        FORM_STRP,
        FORM_STRP_SUP,
        FORM_STRX,
        FORM_STRX1,
        FORM_STRX2,
        FORM_STRX3,
        FORM_STRX4,
        FORM_UDATA,
        HAS_EXPRESSION,
        HAS_LIST,
        HAS_VALUE,
        IN_INFO,
        IN_LINES,
        IN_SLOT,
        IN_STRINGS,
        LANG_ASSEMBLER,
        LAST,
        LINK,
        LLE_BASE_ADDRESS,
        LLE_BASE_ADDRESSX,
        LLE_DEFAULT,
        LLE_END,
        LLE_OFFSET_PAIR,
        LLE_START_END,
        LLE_START_LENGTH,
        LLE_STARTX_ENDX,
        LLE_STARTX_LENGTH,
        LLE_VIEW_PAIR,
        NAME_AT,
        NAME_IN,
        NEXT,
        NO_NAME,
        OP_ADDR,
        OP_ADDRX,
        OP_BREG0,
        OP_CALL_FRAME_CFA,
        OP_FBREG,
        OP_PLUS_UCONST,
        OP_REG0,
        OP_STACK_VALUE,
        ORIGIN,
        PARENT,
        PLACE,
        PLACE_SIZE,
        SIZE,
        TAG,
        TAG_ARRAY,
        TAG_ATOMIC,
        TAG_BASE,
        TAG_CLASS,
        TAG_COMPILE_UNIT,
        TAG_CONST,
        TAG_ENUMERATION,
        TAG_FORMAL_PARAMETER,
        TAG_MEMBER,
        TAG_POINTER,
        TAG_REFERENCE,
        TAG_RESTRICT,
        TAG_STRUCTURE,
        TAG_SUBPROGRAM,
        TAG_SUBRANGE,
        TAG_SUBROUTINE,
        TAG_TYPEDEF,
        TAG_UNION,
        TAG_UNSPECIFIED_PARAMETERS,
        TAG_VARIABLE,
        TAG_VOLATILE,
        VALUE,
    )


class DwarfError(Exception):
    """What is wrong: section's name, byte in it, cause."""

    def __init__(self, section: str, at: int, cause: str) -> None:
        super().__init__(section, at, cause)
        self.section, self.at, self.cause = section, at, cause


_ALL = (1 << 64) - 1


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _mix(seed: cython.ulonglong, value: cython.ulonglong) -> cython.ulonglong:
    """A hash of a hash and a further number (built like the finalizer of splitmix64)."""
    mixed: cython.ulonglong
    # Constants below 2**31: a greater one is a Python number to Cython. Uncompiled, numbers do not wrap.
    if cython.compiled:
        mixed = seed * 0x5E3779B9 + value + 0x632BE59B
        mixed = (mixed ^ (mixed >> 30)) * 0x3F58476D
        mixed = (mixed ^ (mixed >> 32)) * 0x14D049BB
        mixed = (mixed ^ (mixed >> 29)) * 0x6C8E9CF5
    else:
        mixed = int(seed) * 0x5E3779B9 + int(value) + 0x632BE59B & _ALL
        mixed = (mixed ^ (mixed >> 30)) * 0x3F58476D & _ALL
        mixed = (mixed ^ (mixed >> 32)) * 0x14D049BB & _ALL
        mixed = (mixed ^ (mixed >> 29)) * 0x6C8E9CF5 & _ALL
    return mixed ^ (mixed >> 31)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _is_type(tag: cython.longlong) -> cython.bint:
    return tag in (
        TAG_ARRAY, TAG_CLASS, TAG_ENUMERATION, TAG_POINTER, TAG_REFERENCE, TAG_STRUCTURE, TAG_SUBROUTINE,
        TAG_TYPEDEF, TAG_UNION, TAG_BASE, TAG_CONST, TAG_VOLATILE, TAG_RESTRICT, TAG_ATOMIC,
    )  # fmt: skip


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _is_wanted(tag: cython.longlong) -> cython.bint:
    return _is_type(tag) or tag in (
        TAG_FORMAL_PARAMETER, TAG_MEMBER, TAG_UNSPECIFIED_PARAMETERS, TAG_SUBRANGE, TAG_SUBPROGRAM,
        TAG_VARIABLE, TAG_COMPILE_UNIT,
    )  # fmt: skip


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _is_aggregate(tag: cython.longlong) -> cython.bint:
    return tag in (TAG_STRUCTURE, TAG_CLASS, TAG_UNION)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _is_link(tag: cython.longlong) -> cython.bint:
    return tag in (TAG_TYPEDEF, TAG_CONST, TAG_VOLATILE, TAG_RESTRICT, TAG_ATOMIC)


@cython.cclass
class DwarfUnits:
    """The units of one file, to be read in turn: `read(offset)` and then what the unit has.

    Sections are uint8 arrays, empty ones of sections that there are not: `info` (.debug_info),
    `abbreviations`, `strings` (.debug_str), `lines` (.debug_line_str), `lists` (.debug_loclists, or
    .debug_loc of versions before 5), `ranges` (.debug_rnglists, or .debug_ranges), `addresses`
    (.debug_addr), `offsets` (.debug_str_offsets).
    """

    _info: cython.const[cython.uchar][::1]
    _abbreviations: cython.const[cython.uchar][::1]
    _strings: cython.const[cython.uchar][::1]
    _lines: cython.const[cython.uchar][::1]
    _lists: cython.const[cython.uchar][::1]
    _ranges: cython.const[cython.uchar][::1]
    _addresses: cython.const[cython.uchar][::1]
    _offsets: cython.const[cython.uchar][::1]
    # the unit
    _at: cython.longlong
    _begin: cython.longlong
    _end: cython.longlong
    _version: cython.int
    _word: cython.int
    _offset_size: cython.int
    _strings_base: cython.longlong
    _addresses_base: cython.longlong
    _lists_base: cython.longlong
    _ranges_base: cython.longlong
    _unit_base: cython.longlong
    _assembly: cython.bint  # its functions have no prototypes
    _base: cython.longlong  # of the location list
    # its abbreviations
    _table: cython.longlong
    _table_of: cython.int
    _tag: cython.int[::1]
    _has_children: cython.uchar[::1]
    _first: cython.int[::1]
    _fixed: cython.int[::1]
    _spec: cython.longlong[:, ::1]
    _codes: cython.int
    # its entries
    _count: cython.int
    _entry: cython.longlong[:, ::1]
    _where: cython.int[::1]
    _coarse: cython.ulonglong[::1]
    _full: cython.ulonglong[::1]
    _id: cython.int[::1]
    # all types found
    _keys: cython.ulonglong[::1]
    _ids: cython.int[::1]
    _types: cython.int
    # lookups of the attribute just read
    _value: cython.longlong
    _size: cython.longlong

    def __init__(
        self,
        info: object,
        abbreviations: object,
        strings: object,
        lines: object,
        lists: object,
        ranges: object,
        addresses: object,
        offsets: object,
    ) -> None:
        self._info = info
        self._abbreviations = abbreviations
        self._strings = strings
        self._lines = lines
        self._lists = lists
        self._ranges = ranges
        self._addresses = addresses
        self._offsets = offsets
        self._table = -1
        self._table_of = 0
        self._codes = 0
        self._count = 0
        self._entry = np.empty((1 << 10, COLUMNS), np.int64)
        self._where = np.empty(1 << 10, np.int32)
        self._tag = np.empty(0, np.int32)
        self._has_children = np.empty(0, np.uint8)
        self._first = np.empty(0, np.int32)
        self._fixed = np.empty(0, np.int32)
        self._spec = np.empty((0, 3), np.int64)
        self._coarse = np.empty(0, np.uint64)
        self._full = np.empty(0, np.uint64)
        self._id = np.empty(0, np.int32)
        self._keys = np.zeros(1 << 12, np.uint64)
        self._ids = np.zeros(1 << 12, np.int32)
        self._types = 1  # 0 is void

    # ---------------------------------------------------------------- numbers

    @cython.cfunc
    @cython.inline
    @cython.exceptval(-1, check=True)
    def _fixed_at(
        self, data: cython.const[cython.uchar][::1], at: cython.longlong, size: cython.int
    ) -> cython.longlong:
        """The little-endian number at a byte; DwarfError beyond the end."""
        value: cython.ulonglong = 0
        i: cython.int
        if at < 0 or at > data.shape[0] - size:
            raise DwarfError("", at, "a number lies beyond the section's end")
        for i in range(size):
            value |= cython.cast(cython.ulonglong, data[at + i]) << (8 * i)
        if not cython.compiled and value >= 1 << 63:
            return value - (1 << 64)
        return cython.cast(cython.longlong, value)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(-1, check=True)
    def _number(self, size: cython.int) -> cython.longlong:
        """The next number of so many bytes in .debug_info."""
        if self._at + size > self._end:
            raise DwarfError(".debug_info", self._at, "an entry goes beyond its unit's end")
        value: cython.longlong = self._fixed_at(self._info, self._at, size)
        self._at += size
        return value

    @cython.cfunc
    @cython.exceptval(-1, check=True)
    def _leb(
        self, data: cython.const[cython.uchar][::1], at: cython.longlong, signed: cython.bint
    ) -> cython.longlong:
        """The LEB128 number at a byte; `_size` is set to its length."""
        value: cython.ulonglong = 0
        shift: cython.int = 0
        byte: cython.ulonglong
        begin: cython.longlong = at
        while True:
            if at < 0 or at >= data.shape[0] or at - begin >= 16:
                raise DwarfError("", begin, "a LEB128 number does not end")
            byte = cython.cast(cython.ulonglong, data[at])
            at += 1
            if shift < 64:
                value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if signed and shift < 64 and byte & 0x40:
            value -= cython.cast(cython.ulonglong, 1) << shift
        self._size = at - begin
        if not cython.compiled:
            value &= _ALL
            return value - (1 << 64) if value >= 1 << 63 else value
        return cython.cast(cython.longlong, value)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(-1, check=True)
    def _next_leb(self, signed: cython.bint) -> cython.longlong:
        """The next LEB128 number in .debug_info."""
        value: cython.longlong
        if self._at < self._end and self._info[self._at] < 0x40:  # one byte, most of them are
            self._at += 1
            return cython.cast(cython.longlong, self._info[self._at - 1])
        value = self._leb(self._info, self._at, signed)
        self._at += self._size
        if self._at > self._end:
            raise DwarfError(".debug_info", self._at, "an entry goes beyond its unit's end")
        return value

    @cython.cfunc
    @cython.exceptval(-1, check=True)
    def _skip(self, size: cython.longlong) -> cython.int:
        if size < 0 or size > self._end - self._at:
            raise DwarfError(".debug_info", self._at, "an entry goes beyond its unit's end")
        self._at += size
        return 0

    @cython.cfunc
    @cython.exceptval(-1, check=True)
    def _string_ends(self) -> cython.int:
        while True:
            if self._at >= self._end:
                raise DwarfError(".debug_info", self._at, "a name does not end")
            self._at += 1
            if self._info[self._at - 1] == 0:
                return 0

    # ---------------------------------------------------------------- abbreviations

    @cython.cfunc
    @cython.exceptval(-1, check=True)
    def _form_size(self, form: cython.longlong) -> cython.int:
        """Bytes of a form of fixed size, else -2."""
        if form in (FORM_FLAG_PRESENT, FORM_IMPLICIT_CONST):
            return 0
        if form in (FORM_DATA1, FORM_FLAG, FORM_REF1, FORM_STRX1, FORM_ADDRX1):
            return 1
        if form in (FORM_DATA2, FORM_REF2, FORM_STRX2, FORM_ADDRX2):
            return 2
        if form in (FORM_STRX3, FORM_ADDRX3):
            return 3
        if form in (FORM_DATA4, FORM_REF4, FORM_STRX4, FORM_ADDRX4, FORM_REF_SUP4):
            return 4
        if form in (FORM_DATA8, FORM_REF8, FORM_REF_SIG8, FORM_REF_SUP8):
            return 8
        if form == FORM_DATA16:
            return 16
        if form == FORM_ADDR:
            return self._word
        if form in (FORM_STRP, FORM_LINE_STRP, FORM_SEC_OFFSET, FORM_STRP_SUP):
            return self._offset_size
        if form == FORM_REF_ADDR:
            return self._word if self._version == 2 else self._offset_size
        return -2

    @cython.cfunc
    @cython.exceptval(-1, check=True)
    def _read_abbreviations(self, offset: cython.longlong) -> cython.int:
        """The table at an offset of .debug_abbrev, by its codes; those come dense from 1."""
        data: cython.const[cython.uchar][::1] = self._abbreviations
        at: cython.longlong
        code: cython.longlong
        attribute: cython.longlong
        form: cython.longlong
        specs: cython.int
        size: cython.int
        _pass: cython.int
        sizes: cython.int = self._version << 16 | self._word << 8 | self._offset_size
        if offset == self._table and sizes == self._table_of:
            return 0
        codes: cython.longlong = 0
        specs = 0
        for _pass in range(2):
            at = offset
            if _pass:
                self._tag = np.zeros(codes + 1, np.int32)
                self._has_children = np.zeros(codes + 1, np.uint8)
                self._first = np.zeros(codes + 2, np.int32)
                self._fixed = np.zeros(codes + 1, np.int32)
                self._spec = np.zeros((specs + 1, 3), np.int64)
                specs = 0
            while True:
                code = self._leb(data, at, False)
                at += self._size
                if code == 0:
                    break
                if code < 0 or code > 1 << 20:
                    raise DwarfError(".debug_abbrev", at, f"code {code}")
                if code > codes:
                    codes = code
                form = self._leb(data, at, False)
                at += self._size
                if _pass:
                    self._tag[code] = form & 0xFFFF
                    self._has_children[code] = self._fixed_at(data, at, 1)
                    self._first[code] = specs
                    self._fixed[code] = 0
                at += 1
                while True:
                    attribute = self._leb(data, at, False)
                    at += self._size
                    form = self._leb(data, at, False)
                    at += self._size
                    if _pass:
                        self._spec[specs, 0] = attribute
                        self._spec[specs, 1] = form
                    if form == FORM_IMPLICIT_CONST:
                        if _pass:
                            self._spec[specs, 2] = self._leb(data, at, True)
                        else:
                            self._leb(data, at, True)
                        at += self._size
                    if _pass and (attribute or form):
                        size = self._form_size(form)
                        if size < 0 or self._fixed[code] < 0:
                            self._fixed[code] = -1
                        else:
                            self._fixed[code] += size
                    specs += 1
                    if not attribute and not form:
                        break
        self._codes = cython.cast(cython.int, codes)
        self._table = offset
        self._table_of = sizes
        return 0

    # ---------------------------------------------------------------- attributes

    @cython.cfunc
    @cython.exceptval(-1, check=True)
    def _attribute(self, form: cython.longlong, constant: cython.longlong) -> cython.longlong:
        """Go past an attribute: its value (of a name or a block where it starts), `_size` its bytes. Returns
        the form, other than INDIRECT."""
        value: cython.longlong = 0
        size: cython.int
        indirections: cython.int = 0
        while form == FORM_INDIRECT:
            form = self._next_leb(False)
            indirections += 1
            if form == FORM_IMPLICIT_CONST or indirections > 4:
                raise DwarfError(".debug_info", self._at, "an indirect form leads nowhere")
        self._size = 0
        size = self._form_size(form)
        if form == FORM_FLAG_PRESENT:
            value = 1
        elif form == FORM_IMPLICIT_CONST:
            value = constant
        elif size > 8:
            self._skip(size)
        elif size >= 0:
            value = self._number(size)
        elif form == FORM_STRING:
            value = self._at
            self._string_ends()
        elif form in (FORM_EXPRLOC, FORM_BLOCK, FORM_BLOCK1, FORM_BLOCK2, FORM_BLOCK4):
            if form == FORM_BLOCK1:
                value = self._number(1)
            elif form == FORM_BLOCK2:
                value = self._number(2)
            elif form == FORM_BLOCK4:
                value = self._number(4)
            else:
                value = self._next_leb(False)
            self._size = value
            value = self._at
            self._skip(self._size)
            self._size = self._at - value
        elif form == FORM_SDATA:
            value = self._next_leb(True)
            self._size = 0
        elif form in (FORM_UDATA, FORM_REF_UDATA, FORM_STRX, FORM_ADDRX, FORM_LOCLISTX, FORM_RNGLISTX):
            value = self._next_leb(False)
            self._size = 0
        else:
            raise DwarfError(".debug_info", self._at, f"form {form:#x} is not known")
        self._value = value
        return form

    @cython.cfunc
    @cython.exceptval(-1, check=True)
    def _indexed(
        self,
        data: cython.const[cython.uchar][::1],
        section: str,
        base: cython.longlong,
        index: cython.longlong,
        size: cython.int,
    ) -> cython.longlong:
        """The n-th number of a table that starts at a byte of a section."""
        if not 0 <= base <= data.shape[0] or not 0 <= index < (data.shape[0] - base) // size:
            raise DwarfError(section, base, f"entry {index} is not there")
        return self._fixed_at(data, base + index * size, size)

    @cython.cfunc
    @cython.exceptval(-1, check=True)
    def _address(self, form: cython.longlong) -> cython.longlong:
        """The address that an attribute stands for, in .debug_addr where its form says so."""
        if form in (FORM_ADDRX, FORM_ADDRX1, FORM_ADDRX2, FORM_ADDRX3, FORM_ADDRX4):
            return self._indexed(
                self._addresses, ".debug_addr", self._addresses_base, self._value, self._word
            )
        return self._value

    @cython.cfunc
    @cython.exceptval(-1, check=True)
    def _range_begins(self, form: cython.longlong) -> cython.int:
        """Whether the list of ranges that an attribute stands for has a first one: `_value` is then where
        that begins. DWARF 5, 7.25; DWARF 4, 2.17.3."""
        section: str = ".debug_rnglists" if self._version >= 5 else ".debug_ranges"
        try:
            return self._first_range(form)
        except DwarfError as error:
            raise DwarfError(section, error.at, error.cause) from None

    @cython.cfunc
    @cython.exceptval(-1, check=True)
    def _first_range(self, form: cython.longlong) -> cython.int:
        base: cython.longlong = self._unit_base
        at: cython.longlong = self._value
        begin: cython.longlong
        end: cython.longlong
        kind: cython.int
        every: cython.longlong = -1 if self._word == 8 else 0xFFFFFFFF
        if form == FORM_RNGLISTX:
            at = self._ranges_base + self._indexed(
                self._ranges, ".debug_rnglists", self._ranges_base, at, self._offset_size
            )
        while self._version < 5:
            begin = self._fixed_at(self._ranges, at, self._word)
            end = self._fixed_at(self._ranges, at + self._word, self._word)
            at += 2 * self._word
            if begin == every:
                base = end
            elif begin == 0 and end == 0:
                return 0
            else:
                self._value = base + begin
                return 1
        while True:
            kind = cython.cast(cython.int, self._fixed_at(self._ranges, at, 1))
            at += 1
            if kind == 1 or kind == 2 or kind == 3:  # base_addressx, startx_endx, startx_length
                begin = self._leb(self._ranges, at, False)
                at += self._size
                begin = self._indexed(self._addresses, ".debug_addr", self._addresses_base, begin, self._word)
            elif kind == 4:  # offset_pair
                begin = base + self._leb(self._ranges, at, False)
            elif kind >= 5 and kind <= 7:  # base_address, start_end, start_length
                begin = self._fixed_at(self._ranges, at, self._word)
                at += self._word
            else:  # end_of_list, or none that is known
                return 0
            if kind == 1 or kind == 5:
                base = begin
                continue
            self._value = begin
            return 1

    @cython.cfunc
    @cython.exceptval(-1, check=True)
    def _name(self, entry: cython.int, form: cython.longlong) -> cython.int:
        value: cython.longlong = self._value
        section: cython.int = NO_NAME
        if form == FORM_STRING:
            section = IN_INFO
        elif form == FORM_STRP:
            section = IN_STRINGS
        elif form == FORM_LINE_STRP:
            section = IN_LINES
        elif form in (FORM_STRX, FORM_STRX1, FORM_STRX2, FORM_STRX3, FORM_STRX4):
            section = IN_STRINGS
            value = self._indexed(
                self._offsets, ".debug_str_offsets", self._strings_base, value, self._offset_size
            )
        self._entry[entry, NAME_IN] = section
        self._entry[entry, NAME_AT] = value
        return 0

    # ---------------------------------------------------------------- entries

    def read(self, offset: int) -> int:
        """Read the unit at an offset of .debug_info; the next one's offset. DwarfError: it is damaged."""
        self._count = 0
        self._end = self._info.shape[0]
        self._at = offset
        self._offset_size = 4
        length: cython.longlong = self._number(4)
        if length == 0xFFFFFFFF:
            self._offset_size = 8
            length = self._number(8)
        if length < 0 or length > self._info.shape[0] - self._at:
            raise DwarfError(".debug_info", offset, f"a unit of {length} bytes goes beyond the section's end")
        self._begin = offset
        self._end = self._at + length
        self._version = cython.cast(cython.int, self._number(2))
        kind: cython.longlong = 1
        table: cython.longlong
        if self._version >= 5:
            kind = self._number(1)
            self._word = cython.cast(cython.int, self._number(1))
            table = self._number(self._offset_size)
        else:
            table = self._number(self._offset_size)
            self._word = cython.cast(cython.int, self._number(1))
        if not 2 <= self._version <= 5 or (self._word != 4 and self._word != 8):
            raise DwarfError(
                ".debug_info",
                offset,
                f"a unit of version {self._version} with addresses of {self._word} bytes",
            )
        # Type units and those of split files describe nothing by themselves.
        if kind == 1 or kind == 3:
            if self._where.shape[0] < self._end - self._begin:
                self._where = np.empty(self._end - self._begin, np.int32)
            self._where[: self._end - self._begin] = -1
            self._strings_base = 2 * self._offset_size  # behind the headers
            self._addresses_base = 8
            self._lists_base = 12
            self._ranges_base = 12
            self._unit_base = 0
            self._assembly = False
            try:
                self._read_abbreviations(table)
            except DwarfError as error:
                raise DwarfError(".debug_abbrev", error.at, error.cause) from None
            self._read_entries()
        return int(self._end)

    @cython.cfunc
    @cython.exceptval(-1, check=True)
    def _read_entries(self) -> cython.int:
        parents: cython.int[::1] = np.empty(DEEPEST, np.int32)
        frames: cython.uchar[::1] = np.empty(DEEPEST, np.uint8)  # whether the frame's base is the CFA
        level: cython.int = 0
        entry: cython.int
        parent: cython.int
        here: cython.longlong
        code: cython.longlong
        tag: cython.int
        spec: cython.int
        i: cython.int
        attribute: cython.longlong
        form: cython.longlong
        at_cfa: cython.bint
        from_the_top: cython.longlong
        parents[0] = -1
        frames[0] = 0
        while self._at < self._end:
            here = self._at - self._begin
            code = self._next_leb(False)
            if code == 0:
                if level == 0:
                    continue  # padding behind the unit's entry
                level -= 1
                continue
            if code < 0 or code > self._codes or self._tag[code] == 0:
                raise DwarfError(".debug_info", self._begin + here, f"abbreviation {code} is not there")
            tag = self._tag[code]
            entry = -1
            at_cfa = frames[level]
            if not _is_wanted(tag):
                if self._fixed[code] >= 0:
                    self._skip(self._fixed[code])
                else:
                    spec = self._first[code]
                    while self._spec[spec, 1]:
                        self._attribute(self._spec[spec, 1], 0)
                        spec += 1
            else:
                if self._count == self._entry.shape[0]:
                    self._grow()
                entry = self._count
                self._count += 1
                for i in range(COLUMNS):
                    self._entry[entry, i] = 0
                parent = parents[level]
                self._entry[entry, TAG] = tag
                self._entry[entry, PARENT] = parent
                self._entry[entry, CHILD] = -1
                self._entry[entry, NEXT] = -1
                self._entry[entry, LAST] = -1
                self._where[here] = entry
                if parent >= 0:
                    if self._entry[parent, LAST] >= 0:
                        self._entry[self._entry[parent, LAST], NEXT] = entry
                    else:
                        self._entry[parent, CHILD] = entry
                    self._entry[parent, LAST] = entry
                from_the_top = -1
                spec = self._first[code]
                while self._spec[spec, 1]:
                    attribute = self._spec[spec, 0]
                    form = self._attribute(self._spec[spec, 1], self._spec[spec, 2])
                    spec += 1
                    if attribute == AT_NAME:
                        self._name(entry, form)
                    elif attribute in (AT_TYPE, AT_ABSTRACT_ORIGIN, AT_SPECIFICATION):
                        if form == FORM_REF_ADDR:
                            self._value -= self._begin
                        elif form in (FORM_REF_SIG8, FORM_REF_SUP4, FORM_REF_SUP8):
                            self._value = -1
                        if 0 < self._value < self._end - self._begin:  # of another unit: not known
                            self._entry[entry, LINK if attribute == AT_TYPE else ORIGIN] = self._value
                    elif attribute == AT_BYTE_SIZE:
                        self._entry[entry, SIZE] = self._value
                    elif attribute == AT_BIT_OFFSET:
                        from_the_top = self._value
                    elif attribute == AT_BIT_SIZE:
                        self._entry[entry, BITS] = self._value
                    elif attribute == AT_DECLARATION:
                        if self._value:
                            self._entry[entry, FLAGS] |= DECLARATION
                    elif attribute == AT_ENCODING:
                        if self._value == 4:  # DW_ATE_float
                            self._entry[entry, FLAGS] |= FLOATING
                    elif attribute == AT_LOW_PC:
                        self._entry[entry, VALUE] = self._address(form)
                        if tag != TAG_SUBPROGRAM or not self._assembly:
                            self._entry[entry, FLAGS] |= HAS_VALUE
                        if tag == TAG_COMPILE_UNIT:
                            self._unit_base = self._entry[entry, VALUE]
                    elif attribute == AT_RANGES:
                        # A function of several parts: the first is where it is entered.
                        if tag == TAG_SUBPROGRAM and not self._assembly and self._range_begins(form):
                            self._entry[entry, VALUE] = self._value
                            self._entry[entry, FLAGS] |= HAS_VALUE
                    elif attribute == AT_DATA_MEMBER_LOCATION:
                        if form in (FORM_EXPRLOC, FORM_BLOCK, FORM_BLOCK1):
                            here = self._value
                            if self._size > 1 and self._info[here] == OP_PLUS_UCONST:
                                self._value = self._leb(self._info, here + 1, False)
                            else:
                                self._value = 0
                        self._entry[entry, VALUE] += 8 * self._value
                    elif attribute == AT_DATA_BIT_OFFSET:
                        self._entry[entry, VALUE] += self._value
                    elif attribute == AT_COUNT:
                        if self._size == 0:
                            self._entry[entry, SIZE] = self._value
                    elif attribute == AT_LANGUAGE:
                        if tag == TAG_COMPILE_UNIT:
                            self._assembly = self._value == LANG_ASSEMBLER
                    elif attribute == AT_UPPER_BOUND:
                        if self._size == 0 and form not in (FORM_REF4, FORM_REF_UDATA, FORM_REF1, FORM_REF2):
                            self._entry[entry, SIZE] = self._value + 1
                    elif attribute == AT_LOCATION:
                        if form in (FORM_EXPRLOC, FORM_BLOCK, FORM_BLOCK1, FORM_BLOCK2, FORM_BLOCK4):
                            self._entry[entry, FLAGS] |= HAS_EXPRESSION
                            self._entry[entry, PLACE_SIZE] = self._size
                        else:
                            self._entry[entry, FLAGS] |= HAS_LIST
                            if form == FORM_LOCLISTX:
                                self._value = self._lists_base + self._indexed(
                                    self._lists, ".debug_loclists", self._lists_base, self._value,
                                    self._offset_size,
                                )  # fmt: skip
                        self._entry[entry, PLACE] = self._value
                    elif attribute == AT_FRAME_BASE:
                        at_cfa = self._size == 1 and self._info[self._value] == OP_CALL_FRAME_CFA
                    elif attribute == AT_STR_OFFSETS_BASE:
                        self._strings_base = self._value
                    elif attribute == AT_ADDR_BASE:
                        self._addresses_base = self._value
                    elif attribute == AT_LOCLISTS_BASE:
                        self._lists_base = self._value
                    elif attribute == AT_RNGLISTS_BASE:
                        self._ranges_base = self._value
                if at_cfa:
                    self._entry[entry, FLAGS] |= CFA_FRAME
                if tag == TAG_MEMBER and from_the_top >= 0:
                    # Before DWARF 4: bits from the most significant one of a storage unit.
                    self._entry[entry, VALUE] += (
                        8 * self._entry[entry, SIZE] - from_the_top - self._entry[entry, BITS]
                    )
            if self._has_children[code]:
                level += 1
                if level >= DEEPEST:
                    raise DwarfError(".debug_info", self._begin + here, f"entries within {DEEPEST} others")
                parents[level] = entry
                frames[level] = at_cfa
        return 0

    @cython.cfunc
    @cython.exceptval(-1, check=True)
    def _grow(self) -> cython.int:
        self._entry = np.concatenate([np.asarray(self._entry), np.empty((self._count, COLUMNS), np.int64)])
        return 0

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _target(self, entry: cython.int, column: cython.int) -> cython.int:
        """The entry that a reference leads to, or -1."""
        if self._entry[entry, column] <= 0:
            return -1
        return self._where[self._entry[entry, column]]

    # ---------------------------------------------------------------- types

    @cython.cfunc
    @cython.exceptval(check=False)
    def _name_hash(self, entry: cython.int) -> cython.ulonglong:
        """A hash of the name's bytes; 0 without one."""
        data: cython.const[cython.uchar][::1] = self._info
        at: cython.longlong = self._entry[entry, NAME_AT]
        found: cython.ulonglong = 0x4BF29CE4
        if self._entry[entry, NAME_IN] == NO_NAME:
            return 0
        if self._entry[entry, NAME_IN] == IN_STRINGS:
            data = self._strings
        elif self._entry[entry, NAME_IN] == IN_LINES:
            data = self._lines
        while 0 <= at < data.shape[0] and data[at]:
            found = (found ^ cython.cast(cython.ulonglong, data[at])) * 0x2E3779B1
            if not cython.compiled:
                found &= _ALL
            found ^= found >> 32
            at += 1
        return found

    @cython.cfunc
    @cython.exceptval(check=False)
    def _hash(self, entry: cython.int, by_name: cython.bint, depth: cython.int) -> cython.ulonglong:
        """What a type is made of. `by_name`: a named one counts by its name alone."""
        found: cython.ulonglong
        tag: cython.longlong
        child: cython.int
        named: cython.ulonglong
        if entry < 0:
            return 1
        if depth > 40:  # no type of C, but a cycle
            return 2
        if by_name:
            if self._coarse[entry]:
                return cython.cast(cython.ulonglong, self._coarse[entry])
        elif self._full[entry]:
            return cython.cast(cython.ulonglong, self._full[entry])
        tag = self._entry[entry, TAG]
        if tag == TAG_CLASS:
            tag = TAG_STRUCTURE
        named = self._name_hash(entry) if tag not in (TAG_SUBPROGRAM, TAG_SUBROUTINE) else 0
        found = _mix(tag if tag != TAG_SUBPROGRAM else TAG_SUBROUTINE, named)
        if tag == TAG_BASE:
            found = _mix(found, self._entry[entry, SIZE])
        elif by_name and named and (_is_aggregate(tag) or tag in (TAG_ENUMERATION, TAG_TYPEDEF)):
            pass
        elif _is_aggregate(tag) or tag == TAG_ENUMERATION:
            found = _mix(_mix(found, self._entry[entry, SIZE]), self._entry[entry, FLAGS] & DECLARATION)
            child = self._entry[entry, CHILD]
            while child >= 0:
                if self._entry[child, TAG] == TAG_MEMBER:
                    found = _mix(found, self._name_hash(child))
                    found = _mix(found, (self._entry[child, VALUE] << 8) + self._entry[child, BITS])
                    found = _mix(found, self._hash(self._target(child, LINK), True, depth + 1))
                child = self._entry[child, NEXT]
        else:
            found = _mix(found, self._hash(self._target(entry, LINK), by_name, depth + 1))
            if tag in (TAG_ARRAY, TAG_SUBPROGRAM, TAG_SUBROUTINE):
                child = self._entry[entry, CHILD]
                while child >= 0:
                    if self._entry[child, TAG] == TAG_SUBRANGE:
                        found = _mix(found, self._entry[child, SIZE])
                    elif self._entry[child, TAG] == TAG_FORMAL_PARAMETER:
                        found = _mix(found, self._hash(self._target(child, LINK), by_name, depth + 1))
                    elif self._entry[child, TAG] == TAG_UNSPECIFIED_PARAMETERS:
                        found = _mix(found, 3)
                    child = self._entry[child, NEXT]
        if found == 0:
            found = 4
        if by_name:
            self._coarse[entry] = found
        else:
            self._full[entry] = found
        return found

    @cython.cfunc
    @cython.exceptval(check=False)
    def _source(self, entry: cython.int) -> cython.int:
        """The entry that says what another one is: its abstract or first declaration."""
        _step: cython.int
        for _step in range(8):
            if self._entry[entry, ORIGIN] <= 0 or self._target(entry, ORIGIN) < 0:
                break
            entry = self._target(entry, ORIGIN)
        return entry

    @cython.cfunc
    @cython.exceptval(check=False)
    def _slot_of(self, key: cython.ulonglong) -> cython.longlong:
        """Where a hash stands in the table, or the free place for it."""
        mask: cython.ulonglong = self._keys.shape[0] - 1
        at: cython.ulonglong = key & mask
        while self._keys[at] != 0 and self._keys[at] != key:
            at = (at + 1) & mask
        return cython.cast(cython.longlong, at)

    @cython.cfunc
    @cython.exceptval(-1, check=True)
    def _rehash(self) -> cython.int:
        keys: cython.ulonglong[::1] = self._keys
        ids: cython.int[::1] = self._ids
        i: cython.Py_ssize_t
        slot: cython.longlong
        self._keys = np.zeros(2 * keys.shape[0], np.uint64)
        self._ids = np.zeros(2 * keys.shape[0], np.int32)
        for i in range(keys.shape[0]):
            if keys[i]:
                slot = self._slot_of(keys[i])
                self._keys[slot] = keys[i]
                self._ids[slot] = ids[i]
        return 0

    @cython.cfunc
    @cython.exceptval(-1, check=True)
    def _identify(self, entry: cython.int) -> cython.bint:
        """Give a type its number; whether it is a new one."""
        key: cython.ulonglong = self._hash(entry, False, 0)
        slot: cython.longlong = self._slot_of(key)
        if self._keys[slot]:
            self._id[entry] = self._ids[slot]
            return False
        self._keys[slot] = key
        self._ids[slot] = self._types
        self._id[entry] = self._types
        self._types += 1
        if 2 * self._types > self._keys.shape[0]:
            self._rehash()
        return True

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _number_of(self, entry: cython.int) -> cython.longlong:
        """The number of a type's entry; 0 of none (void)."""
        return self._id[entry] if entry >= 0 else 0

    def types(self) -> tuple[Any, Any]:
        """The unit's types that none before it had, numbered on from the last one: int64[n, 6] kind (as in
        BTF), section and byte of the name, link, size, number of parts; and their parts: int64[m, 5] section
        and byte of the name, type, offset in bits, bits of a bit field."""
        i: cython.int
        child: cython.int
        parts: cython.int = 0
        count: cython.int = 0
        total: cython.int = 0
        tag: cython.longlong
        functions: cython.bint
        _pass: cython.int
        if self._coarse.shape[0] < self._count:
            self._coarse = np.empty(2 * self._count, np.uint64)
            self._full = np.empty(2 * self._count, np.uint64)
            self._id = np.empty(2 * self._count, np.int32)
        for i in range(self._count):
            self._coarse[i] = 0
            self._full[i] = 0
            self._id[i] = 0
        new: cython.int[::1] = np.empty(self._count + 1, np.int32)
        for _pass in range(2):  # prototypes of functions behind all types
            for i in range(self._count):
                tag = self._entry[i, TAG]
                if _pass == 0 and _is_type(tag):
                    if self._identify(i):
                        new[count] = i
                        count += 1
                elif _pass and tag == TAG_SUBPROGRAM and self._entry[i, FLAGS] & HAS_VALUE:
                    child = self._source(i)
                    if self._id[child] == 0 and self._identify(child):
                        new[count] = child
                        count += 1
        for i in range(count):
            child = self._entry[new[i], CHILD]
            while child >= 0:
                total += 1
                child = self._entry[child, NEXT]
        result = np.zeros((count, 6), np.int64)
        pieces = np.zeros((total, 5), np.int64)
        out: cython.longlong[:, ::1] = result
        part: cython.longlong[:, ::1] = pieces
        for i in range(count):
            total = parts
            tag = self._entry[new[i], TAG]
            functions = tag in (TAG_SUBPROGRAM, TAG_SUBROUTINE)
            out[i, 0] = self._kind(new[i])
            if not functions:
                out[i, 1] = self._entry[new[i], NAME_IN]
                out[i, 2] = self._entry[new[i], NAME_AT]
            out[i, 3] = self._number_of(self._target(new[i], LINK))
            out[i, 4] = self._entry[new[i], SIZE]
            if tag == TAG_ARRAY:
                out[i, 4] = -1
            child = self._entry[new[i], CHILD]
            while child >= 0:
                tag = self._entry[child, TAG]
                if tag == TAG_MEMBER and out[i, 0] in (BTF_STRUCT, BTF_UNION):
                    part[parts, 0] = self._entry[child, NAME_IN]
                    part[parts, 1] = self._entry[child, NAME_AT]
                    part[parts, 2] = self._number_of(self._target(child, LINK))
                    part[parts, 3] = self._entry[child, VALUE]
                    part[parts, 4] = self._entry[child, BITS]
                    parts += 1
                elif functions and tag == TAG_FORMAL_PARAMETER:
                    part[parts, 2] = self._number_of(self._target(child, LINK))
                    parts += 1
                elif functions and tag == TAG_UNSPECIFIED_PARAMETERS:
                    parts += 1
                elif tag == TAG_SUBRANGE and out[i, 0] == BTF_ARRAY:
                    # Several dimensions: as many elements as their product.
                    out[i, 4] = self._entry[child, SIZE] * (1 if out[i, 4] < 0 else out[i, 4])
                child = self._entry[child, NEXT]
            if out[i, 0] == BTF_ARRAY and (out[i, 4] < 0 or out[i, 4] > 0x7FFFFFFF):
                out[i, 4] = 0
            out[i, 5] = parts - total
        return result, pieces[:parts]

    @cython.cfunc
    @cython.exceptval(check=False)
    def _kind(self, entry: cython.int) -> cython.int:
        tag: cython.longlong = self._entry[entry, TAG]
        flags: cython.longlong = self._entry[entry, FLAGS]
        if (_is_aggregate(tag) or tag == TAG_ENUMERATION) and flags & DECLARATION:
            return BTF_FWD
        if tag == TAG_UNION:
            return BTF_UNION
        if _is_aggregate(tag):
            return BTF_STRUCT
        if tag == TAG_ENUMERATION:
            return BTF_ENUM
        if tag in (TAG_POINTER, TAG_REFERENCE):
            return BTF_PTR
        if tag == TAG_ARRAY:
            return BTF_ARRAY
        if tag == TAG_TYPEDEF:
            return BTF_TYPEDEF
        if tag == TAG_VOLATILE:
            return BTF_VOLATILE
        if tag == TAG_RESTRICT:
            return BTF_RESTRICT
        if tag in (TAG_SUBPROGRAM, TAG_SUBROUTINE):
            return BTF_FUNC_PROTO
        if tag == TAG_BASE:
            return BTF_FLOAT if flags & FLOATING else BTF_INT
        return BTF_CONST

    # ---------------------------------------------------------------- functions and variables

    def functions(self) -> Any:
        """int64[n, 2]: address of each function of the unit, number of its prototype."""
        i: cython.int
        count: cython.int = 0
        result = np.empty((self._count, 2), np.int64)
        out: cython.longlong[:, ::1] = result
        for i in range(self._count):
            if self._entry[i, TAG] == TAG_SUBPROGRAM and self._entry[i, FLAGS] & HAS_VALUE:
                out[count, 0] = self._entry[i, VALUE]
                out[count, 1] = self._id[self._source(i)]
                count += 1
        return result[:count].copy()

    def variables(self) -> Any:
        """int64[n, 2]: address of each global or static variable of the unit, number of its type."""
        i: cython.int
        at: cython.longlong
        count: cython.int = 0
        result = np.empty((self._count, 2), np.int64)
        out: cython.longlong[:, ::1] = result
        for i in range(self._count):
            if self._entry[i, TAG] != TAG_VARIABLE or not self._entry[i, FLAGS] & HAS_EXPRESSION:
                continue
            at = self._entry[i, PLACE]
            if self._entry[i, PLACE_SIZE] == 1 + self._word and self._info[at] == OP_ADDR:
                out[count, 0] = self._fixed_at(self._info, at + 1, self._word)
            elif self._entry[i, PLACE_SIZE] > 1 and self._info[at] == OP_ADDRX:
                self._value = self._leb(self._info, at + 1, False)
                if self._size != self._entry[i, PLACE_SIZE] - 1:
                    continue
                out[count, 0] = self._address(FORM_ADDRX)
            else:
                continue
            out[count, 1] = self._number_of(self._declared(i))
            count += 1
        return result[:count].copy()

    @cython.cfunc
    @cython.exceptval(check=False)
    def _declared(self, entry: cython.int) -> cython.int:
        """The entry of a variable's type, or -1; a declaration may leave an array's length to the
        definition."""
        if self._entry[entry, LINK] > 0:
            return self._target(entry, LINK)
        return self._target(self._source(entry), LINK)

    @cython.cfunc
    @cython.exceptval(check=False)
    def _pointed(self, entry: cython.int) -> cython.int:
        """What a variable's type points to, if that is of interest; else -1."""
        target: cython.int = self._declared(entry)
        found: cython.int
        _step: cython.int
        for _step in range(32):
            if target < 0 or not _is_link(self._entry[target, TAG]):
                break
            target = self._target(target, LINK)
        if target < 0 or self._entry[target, TAG] != TAG_POINTER:
            return -1
        target = self._target(target, LINK)
        found = target
        for _step in range(32):
            if target < 0 or not _is_link(self._entry[target, TAG]):
                break
            target = self._target(target, LINK)
        if target < 0:
            return -1
        if _is_aggregate(self._entry[target, TAG]) or self._entry[target, TAG] in (
            TAG_SUBROUTINE,
            TAG_POINTER,
        ):
            return found
        return -1

    def locals(self) -> Any:
        """int64[n, 5]: first and last address + 1 of where a local pointer of the unit is in a register, that
        register's DWARF number (IN_SLOT: a slot of the frame), what to add to it (bytes; of a slot its place
        above the CFA), number of the type that it points to."""
        i: cython.int
        pointed: cython.int
        count: cython.int = 0
        result = np.empty((256, 5), np.int64)
        for i in range(self._count):
            if not self._entry[i, FLAGS] & HAS_LIST:
                continue
            if self._entry[i, TAG] != TAG_VARIABLE and self._entry[i, TAG] != TAG_FORMAL_PARAMETER:
                continue
            pointed = self._pointed(i)
            if pointed < 0:
                continue
            self._value = self._entry[i, PLACE]
            self._base = self._unit_base
            while True:
                if count + 64 > result.shape[0]:
                    result = np.concatenate([result, np.empty((count + 64, 5), np.int64)])
                try:
                    count = self._list(result, count, i, self._id[pointed])
                except DwarfError as error:
                    section = ".debug_loclists" if self._version >= 5 else ".debug_loc"
                    raise DwarfError(error.section or section, error.at, error.cause) from None
                if self._value < 0:
                    break
        return result[:count].copy()

    @cython.cfunc
    @cython.exceptval(-1, check=True)
    def _list(
        self, out: cython.longlong[:, ::1], count: cython.int, entry: cython.int, pointed: cython.longlong
    ) -> cython.int:
        """Up to 64 entries of the location list at `_value`, which is left behind them, -1 at the end."""
        data: cython.const[cython.uchar][::1] = self._lists
        at: cython.longlong = self._value
        begin: cython.longlong
        end: cython.longlong
        size: cython.longlong
        kind: cython.longlong
        limit: cython.int = count + 64
        _step: cython.int
        for _step in range(64):
            if count == limit:
                break
            begin = 0
            end = 0
            if self._version < 5:
                begin = self._fixed_at(data, at, self._word)
                end = self._fixed_at(data, at + self._word, self._word)
                at += 2 * self._word
                if begin == 0 and end == 0:
                    self._value = -1
                    return count
                if begin == -1 or (self._word == 4 and begin == 0xFFFFFFFF):
                    self._base = end
                    continue
                begin += self._base
                end += self._base
                size = self._fixed_at(data, at, 2)
                at += 2
            else:
                kind = self._fixed_at(data, at, 1)
                at += 1
                if kind == LLE_END:
                    self._value = -1
                    return count
                if kind == LLE_BASE_ADDRESS:
                    self._base = self._fixed_at(data, at, self._word)
                    at += self._word
                    continue
                if kind == LLE_BASE_ADDRESSX:
                    self._value = self._leb(data, at, False)
                    at += self._size
                    self._base = self._address(FORM_ADDRX)
                    continue
                if kind == LLE_VIEW_PAIR:
                    self._leb(data, at, False)
                    at += self._size
                    self._leb(data, at, False)
                    at += self._size
                    continue
                if kind == LLE_START_END:
                    begin = self._fixed_at(data, at, self._word)
                    end = self._fixed_at(data, at + self._word, self._word)
                    at += 2 * self._word
                elif kind == LLE_START_LENGTH:
                    begin = self._fixed_at(data, at, self._word)
                    at += self._word
                    end = begin + self._leb(data, at, False)
                    at += self._size
                elif kind in (LLE_OFFSET_PAIR, LLE_STARTX_ENDX, LLE_STARTX_LENGTH):
                    begin = self._leb(data, at, False)
                    at += self._size
                    end = self._leb(data, at, False)
                    at += self._size
                    if kind == LLE_OFFSET_PAIR:
                        begin += self._base
                        end += self._base
                    else:
                        self._value = begin
                        begin = self._address(FORM_ADDRX)
                        if kind == LLE_STARTX_ENDX:
                            self._value = end
                            end = self._address(FORM_ADDRX)
                        else:
                            end += begin
                elif kind != LLE_DEFAULT:
                    raise DwarfError("", at - 1, f"an entry of kind {kind}")
                size = self._leb(data, at, False)
                at += self._size
            if size < 0 or size > data.shape[0] - at:
                raise DwarfError("", at, "an expression goes beyond the section's end")
            if begin < end and self._place(out, count, at, size, entry):
                out[count, 0] = begin
                out[count, 1] = end
                out[count, 4] = pointed
                count += 1
            at += size
        self._value = at
        return count

    @cython.cfunc
    @cython.exceptval(-1, check=True)
    def _place(
        self,
        out: cython.longlong[:, ::1],
        row: cython.int,
        at: cython.longlong,
        size: cython.longlong,
        entry: cython.int,
    ) -> cython.bint:
        """Whether an expression in a location list is a register, one plus a number, or a slot."""
        data: cython.const[cython.uchar][::1] = self._lists
        op: cython.int
        if size == 0:
            return False
        op = data[at]
        if size == 1 and OP_REG0 <= op < OP_REG0 + 32:
            out[row, 2] = op - OP_REG0
            out[row, 3] = 0
            return True
        if OP_BREG0 <= op < OP_BREG0 + 32 and data[at + size - 1] == OP_STACK_VALUE:
            out[row, 2] = op - OP_BREG0
            out[row, 3] = self._leb(data, at + 1, True)
            return self._size == size - 2
        if op == OP_FBREG and self._entry[entry, FLAGS] & CFA_FRAME:
            out[row, 2] = IN_SLOT
            out[row, 3] = self._leb(data, at + 1, True)
            return self._size == size - 1
        return False
