"""Source lines of code addresses, from DWARF: only the unit that holds an address is read, when asked for.

Reading is done by pyelftools; the debug sections are not copied. Sources: DWARF 5 sections 6.1.2
(.debug_aranges) and 6.2 (.debug_line); versions 2 to 4.
"""

from __future__ import annotations

import io
import posixpath
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from elftools.dwarf.compileunit import CompileUnit
from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo
from elftools.dwarf.lineprogram import LineProgram
from elftools.dwarf.ranges import BaseAddressEntry
from numpy.typing import NDArray

from stackfit.image.model import Bytes, Image, ImageKind, InputError, Machine

__all__ = ["SourceLine", "SourceLines"]

_ALL, _MOST = (1 << 64) - 1, (1 << 31) - 1
_LONGEST = 4 << 20  # bytes of one unit's line program; the kernel's longest has a tenth of a MiB
_LONGEST_NUMBER = 4096  # bytes of a LEB128 number
_WIDEST = 140  # bits of one in a line program; padded ones are longer than they need
_MOST_RANGES = 2_000_000  # of all units; a kernel has a tenth of that
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, order=True)
class SourceLine:
    """A place in the source. `file`: relative to the tree that was built where that is known, else as it was
    given to the compiler; `root`: that tree, else empty."""

    file: str
    line: int
    root: str = ""

    @property
    def path(self) -> str:
        """The file as the debug information names it, white spots such as `..` folded."""
        return posixpath.join(self.root, self.file)


@dataclass(frozen=True, eq=False)
class _Table:
    """One unit's line table: from each address on, the row's file (index into `files`) and line (0: none)."""

    addresses: NDArray[np.uint64]  # ascending
    file: NDArray[np.int32]
    line: NDArray[np.int32]
    files: tuple[SourceLine, ...]  # with line 0


class SourceLines:
    """Lines of a linked image with debug information. All methods raise InputError where it is damaged."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._tables: dict[int, _Table] = {}

    @cached_property
    def dwarf(self) -> DWARFInfo | None:
        """The debug information as pyelftools reads it; None: the image has none, or is a module, whose debug
        sections nobody has relocated."""
        image = self._image
        if image.kind is ImageKind.MODULE or image.section(".debug_info") is None:
            return None
        config = DwarfConfig(True, "x64" if image.machine is Machine.X86_64 else "x86", image.machine.word)
        return DWARFInfo(
            config,
            debug_info_sec=self._section(".debug_info"),
            debug_aranges_sec=self._section(".debug_aranges"),
            debug_abbrev_sec=self._section(".debug_abbrev"),
            debug_frame_sec=None,
            eh_frame_sec=None,
            debug_str_sec=self._section(".debug_str"),
            debug_loc_sec=self._section(".debug_loc"),
            debug_ranges_sec=self._section(".debug_ranges"),
            debug_line_sec=self._section(".debug_line"),
            debug_pubtypes_sec=None,
            debug_pubnames_sec=None,
            debug_addr_sec=self._section(".debug_addr"),
            debug_str_offsets_sec=self._section(".debug_str_offsets"),
            debug_line_str_sec=self._section(".debug_line_str"),
            debug_loclists_sec=self._section(".debug_loclists"),
            debug_rnglists_sec=self._section(".debug_rnglists"),
            debug_sup_sec=None,
            gnu_debugaltlink_sec=None,
            debug_types_sec=None,
        )

    def unit(self, address: int) -> CompileUnit | None:
        """The compile unit that has code at that address, or None."""
        dwarf = self.dwarf
        starts, ranges = self._ranges
        at = bisect_right(starts, address) - 1
        if dwarf is None or at < 0 or address >= ranges[at][1]:
            return None
        return self.guarded(lambda: dwarf.get_CU_at(ranges[at][2]))

    def at(self, address: int) -> SourceLine | None:
        """Where in the source the instruction at that address comes from, or None. Of inlined code that is
        the innermost line."""
        unit = self.unit(address)
        if unit is None:
            return None
        table = self._tables.get(unit.cu_offset)
        if table is None:
            table = self._tables[unit.cu_offset] = self.guarded(lambda: self._table(unit))
        row = int(np.searchsorted(table.addresses, np.uint64(address), "right")) - 1
        if row < 0 or not table.line[row]:
            return None
        file = table.files[int(table.file[row])]
        return SourceLine(file.file, int(table.line[row]), file.root)

    # ------------------------------------------------------------ reading

    def _section(self, name: str) -> DebugSectionDescriptor | None:
        section = self._image.section(name)
        if section is None:
            return None
        data = np.ascontiguousarray(section.data)
        stream = io.BufferedReader(_Stream(data))
        return DebugSectionDescriptor(stream, name, section.offset, data.size, section.address)

    def guarded(self, read: Callable[[], _Answer]) -> _Answer:
        """What `read` answers. A damaged byte makes pyelftools raise anything: InputError."""
        try:
            return read()
        except InputError:
            raise
        except Exception as error:
            cause = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(self._image.path, f"debug information cannot be read: {cause}") from None

    @cached_property
    def _ranges(self) -> tuple[list[int], list[tuple[int, int, int]]]:
        """First addresses, and (first address, the one after the last, unit), ascending."""
        dwarf = self.dwarf
        if dwarf is None:
            return [], []
        found = sorted(self.guarded(lambda: list(_code(dwarf))))
        return [start for start, _, _ in found], found

    def _table(self, unit: CompileUnit) -> _Table:
        program = unit.dwarfinfo.line_program_for_CU(unit)
        if program is None:
            return _Table(np.empty(0, np.uint64), np.empty(0, np.int32), np.empty(0, np.int32), ())
        if program.program_end_offset - program.program_start_offset > _LONGEST:
            raise InputError(
                self._image.path,
                f"debug information: a unit has a line table of more than {_LONGEST >> 20} MiB",
            )
        addresses, number, line, ends = _line_rows(program)
        addresses &= np.uint64(self._image.machine.mask)
        # After a sequence's end comes nothing, until another one begins; where that is at the same address it
        # has to stand behind: it is what is found there.
        order = np.lexsort((~ends, addresses))
        files = _files(unit, program)
        number -= 0 if program.header["version"] >= 5 else 1  # from DWARF 5 on files are numbered from 0
        known = (number >= 0) & (number < len(files)) & ~ends
        line = np.where(known, np.clip(line, 0, (1 << 31) - 1), 0)
        file = np.where(known, number, 0).astype(np.int32)
        return _Table(addresses[order], file[order], line.astype(np.int32)[order], files)


class _Stream(io.RawIOBase):
    """A section's bytes as a file, not copied."""

    def __init__(self, data: Bytes) -> None:
        self._data = data.data  # a memoryview
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = (0, self._at, len(self._data))[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = self._data[self._at : self._at + len(buffer)]
        if len(part) > _LONGEST_NUMBER and int(np.frombuffer(part, np.uint8).min()) >= 0x80:
            # A LEB128 number goes on as long as bytes have their highest bit; pyelftools reads all of it, and
            # adds each to one that is as long already.
            raise ValueError(f"a number of more than {_LONGEST_NUMBER} bytes")
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


def _code(dwarf: DWARFInfo) -> Iterator[tuple[int, int, int]]:
    """(first address, the one after the last, unit) of all code: from the index of addresses; where there is
    none (clang) from what the units say themselves, half a minute for a kernel's."""
    index = dwarf.get_aranges()
    if index is not None:
        for entry in index.entries:
            if entry.length:
                yield entry.begin_addr, entry.begin_addr + entry.length, entry.info_offset
        return
    left = _MOST_RANGES
    for unit in dwarf.iter_CUs():
        for start, end in _unit_code(dwarf, unit):
            left -= 1
            if not left:  # units may share a long list
                raise ValueError(f"more than {_MOST_RANGES} ranges of code")
            if start < end:
                yield start, end, unit.cu_offset


def _unit_code(dwarf: DWARFInfo, unit: CompileUnit) -> Iterator[tuple[int, int]]:
    top = unit.get_top_DIE()
    low, high = top.attributes.get("DW_AT_low_pc"), top.attributes.get("DW_AT_high_pc")
    base = int(low.value) if low is not None else 0
    if low is not None and high is not None:
        yield base, int(high.value) + (0 if high.form == "DW_FORM_addr" else base)
    ranges, lists = top.attributes.get("DW_AT_ranges"), dwarf.range_lists()
    if ranges is None or lists is None:
        return
    for entry in lists.get_range_list_at_offset(ranges.value, unit):
        if isinstance(entry, BaseAddressEntry):
            base = int(entry.base_address)
        else:
            shift = 0 if getattr(entry, "is_absolute", False) else base
            yield entry.begin_offset + shift, entry.end_offset + shift


_Rows = tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]


def _line_rows(program: LineProgram) -> _Rows:
    """The rows of a line program: address, number of the file, line, whether a sequence ends there.

    Source: DWARF 5 section 6.2.5. (pyelftools makes an object of each of a unit's ten thousand rows; of
    a chain's hundred units that is most of the time that explaining it takes.)
    """
    header, stream = program.header, program.stream
    stream.seek(program.program_start_offset)
    data = stream.read(program.program_end_offset - program.program_start_offset)
    step, base, width = header["minimum_instruction_length"], header["line_base"], header["line_range"]
    first, lengths = header["opcode_base"], header["standard_opcode_lengths"]
    jump = (255 - first) // width * step
    addresses, files, lines, ends = list[int](), list[int](), list[int](), list[bool]()
    at, size = 0, len(data)

    def number(signed: bool = False) -> int:
        """The LEB128 number that comes next."""
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > _WIDEST:
                raise ValueError(f"a number of more than {_WIDEST} bits")
            if byte < 0x80:
                return value - (1 << shift) if signed and byte & 0x40 else value

    address, file, line = 0, 1, 1
    while at < size:
        opcode = data[at]
        at += 1
        emit = end = False
        if opcode >= first:
            address += (opcode - first) // width * step
            line += base + (opcode - first) % width
            emit = True
        elif opcode == 0:
            length = number()
            behind = at + length
            kind = data[at] if length else 0
            if kind == 1:
                emit = end = True
            elif kind == 2:
                address = int.from_bytes(data[at + 1 : behind], "little")
            at = behind
        elif opcode == 1:
            emit = True
        elif opcode == 2:
            address += number() * step
        elif opcode == 3:
            line += number(True)
        elif opcode == 4:
            file = number()
        elif opcode == 8:
            address += jump
        elif opcode == 9:
            address += int.from_bytes(data[at : at + 2], "little")
            at += 2
        else:
            for _ in range(lengths[opcode - 1]):
                number()
        if emit:
            addresses.append(address & _ALL)
            files.append(min(file, _MOST))
            lines.append(max(min(line, _MOST), 0))
            ends.append(end)
            if end:
                address, file, line = 0, 1, 1
    return (
        np.array(addresses, np.uint64), np.array(files, np.int64), np.array(lines, np.int64),
        np.array(ends, np.bool_),
    )  # fmt: skip


def _files(unit: CompileUnit, program: LineProgram) -> tuple[SourceLine, ...]:
    """The unit's files, in the order of its table."""
    top = unit.get_top_DIE().attributes
    built = _text(top["DW_AT_comp_dir"].value) if "DW_AT_comp_dir" in top else ""
    root = _root(built, _text(top["DW_AT_name"].value) if "DW_AT_name" in top else "")
    directories = [_text(name) for name in program.header["include_directory"]]
    if program.header["version"] < 5:
        directories.insert(0, built)
    found = []
    for entry in program.header["file_entry"]:
        directory = directories[entry.dir_index] if entry.dir_index < len(directories) else ""
        path = _whole(built, posixpath.join(directory, _text(entry.name)))
        inside = bool(root) and path.startswith(root + "/")
        found.append(SourceLine(path[len(root) + 1 :] if inside else path, 0, root if inside else ""))
    return tuple(found)


def _text(name: bytes | str) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _whole(built: str, path: str) -> str:
    """A path from the directory where the compiler ran. Where that is a relative one, paths were mapped
    (`-ffile-prefix-map`, as in Debian's kernels): then names are relative to what was mapped away, too."""
    if built.startswith("/") or path.startswith(".."):
        path = posixpath.join(built, path)
    return posixpath.normpath(path)


def _root(built: str, name: str) -> str:
    """The tree that was built: what the directory where the compiler ran and its source file have in common.
    Empty: they are in different trees, or paths were mapped to relative ones."""
    if not built.startswith("/"):
        return ""
    common = posixpath.commonpath([posixpath.normpath(built), _whole(built, name)])
    return "" if common.count("/") < 2 else common
