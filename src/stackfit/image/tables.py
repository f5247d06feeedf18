"""The tables by which a Linux kernel changes or leaves its own code, as address arrays.

Sources (x86, arm64, Arm, RISC-V; 4.19 to 6.12): include/linux/jump_label.h (`__jump_table`), asm/extable.h
(`__ex_table`), asm/alternative.h (`.altinstructions`), asm/bug.h (`__bug_table`), asm/paravirt_types.h
(`.parainstructions`). Where a table has no section of its own (`__jump_table` of a linked kernel lies in
`.rodata`), it is found by its structure: no symbols are needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Image, ImageKind, Machine, Program, Section

__all__ = ["Alternatives", "Bugs", "ExceptionTable", "StaticKeys", "Tables", "read_tables"]

Addresses = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class StaticKeys:
    """Static-key branches: the place can be a nop or a jump to the target."""

    place: Addresses
    target: Addresses


@dataclass(frozen=True, eq=False)
class ExceptionTable:
    """Instructions that may fault, and where execution goes on when the fault cannot be resolved."""

    place: Addresses
    fixup: Addresses
    type: NDArray[np.int32]  # EX_TYPE_* since 5.16; -1 in the older format (a handler's address)


@dataclass(frozen=True, eq=False)
class Alternatives:
    """Code that is replaced at boot: `length` bytes at `place` by `replacement_length` at `replacement`.

    `direct`: an indirect call is replaced by a direct one to what its pointer holds at boot. The replacement
    in the image, a call of BUG_func, is never run.
    """

    place: Addresses
    replacement: Addresses
    length: NDArray[np.int32]
    replacement_length: NDArray[np.int32]
    direct: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Bugs:
    """`ud2` places of BUG() and WARN(); `warning`: execution goes on after it."""

    place: Addresses
    warning: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Tables:
    """All images' tables together."""

    static_keys: StaticKeys
    exceptions: ExceptionTable
    alternatives: Alternatives
    bugs: Bugs
    paravirt: Addresses  # call sites that are patched from pv_ops: their own table, alternatives since 6.8


def read_tables(program: Program) -> Tables:
    """Read every image's tables; entries that point outside the program's code are left out."""
    code = _Ranges(program)
    static_keys, exceptions, alternatives, bugs, paravirt = [], [], [], [], []
    for image in program.images:
        static_keys.append(_static_keys(image, code))
        exceptions.append(_exceptions(image, code))
        alternatives.append(_alternatives(image, code))
        bugs.append(_bugs(image, code))
        *_, direct = alternatives[-1]
        paravirt.append(np.concatenate([_paravirt(image, code), alternatives[-1][0][direct]]))
    return Tables(
        StaticKeys(*(np.concatenate(columns) for columns in zip(*static_keys, strict=True))),
        ExceptionTable(*(np.concatenate(columns) for columns in zip(*exceptions, strict=True))),
        Alternatives(*(np.concatenate(columns) for columns in zip(*alternatives, strict=True))),
        Bugs(*(np.concatenate(columns) for columns in zip(*bugs, strict=True))),
        np.concatenate(paravirt),
    )


class _Ranges:
    """Which addresses are code."""

    def __init__(self, program: Program) -> None:
        pairs = sorted(
            (section.address, section.end)
            for image in program.images
            for section in image.sections
            if section.executable and section.allocated
        )
        self.start = np.array([start for start, _ in pairs], np.uint64)
        self.end = np.array([end for _, end in pairs], np.uint64)

    def contain(self, addresses: Addresses) -> NDArray[np.bool_]:
        if not self.start.size:
            return np.zeros(addresses.shape, np.bool_)
        index = np.searchsorted(self.start, addresses, "right") - 1
        inside = addresses < self.end[np.maximum(index, 0)]
        return np.asarray(inside & (index >= 0), np.bool_)


def _self_relative(section: Section, image: Image, stride: int, at: int) -> Addresses:
    """The 32-bit self-relative pointers at byte `at` of every `stride` bytes of a section."""
    count = section.data.size // stride
    table = section.data[: count * stride].reshape(count, stride)[:, at : at + 4]
    offsets = np.ascontiguousarray(table).view("<i4").reshape(count).astype(np.uint64)
    places = np.uint64(section.address + at) + np.uint64(stride) * np.arange(count, dtype=np.uint64)
    return (places + offsets) & np.uint64(image.machine.mask)


def _words(section: Section, stride: int, at: int, kind: str) -> NDArray[np.int64]:
    count = section.data.size // stride
    size = np.dtype(kind).itemsize
    table = section.data[: count * stride].reshape(count, stride)[:, at : at + size]
    return np.ascontiguousarray(table).view(kind).reshape(count).astype(np.int64)


_NONE = np.empty(0, np.uint64)


# ---------------------------------------------------------------- static keys


def _static_keys(image: Image, code: _Ranges) -> tuple[Addresses, Addresses]:
    """`struct jump_entry` {code, target, key}: 32 bits each and relative to the place, keys of 64-bit
    machines 64 bits; absolute pointers where the architecture has no relative ones (Arm)."""
    stride = 16 if image.machine.word == 8 else 12
    relative = image.machine is not Machine.ARM
    section = image.section("__jump_table")
    if image.kind is ImageKind.MODULE and section is None:
        return _NONE, _NONE
    if section is not None:
        place, target = (
            _self_relative(section, image, stride, at)
            if relative
            else _words(section, stride, at, "<u4").astype(np.uint64)
            for at in (0, 4)
        )
        good = code.contain(place) & code.contain(target)
        return place[good], target[good]
    if image.kind is not ImageKind.KERNEL:
        return _NONE, _NONE
    places, targets = [_NONE], [_NONE]
    for section in image.sections:
        if (
            section.allocated
            and not section.executable
            and section.data.size >= 64
            and section.name in _KEY_SECTIONS
        ):
            place, target = _static_key_runs(image, section, stride // 4, relative, code)
            places.append(place)
            targets.append(target)
    return np.concatenate(places), np.concatenate(targets)


_KEY_SECTIONS = (".rodata", ".data", ".data..ro_after_init", ".ro_after_init")


def _static_key_runs(
    image: Image, section: Section, stride: int, relative: bool, code: _Ranges
) -> tuple[Addresses, Addresses]:
    """Entries of `struct jump_entry`: the code is a nop or a jump.

    Words that look like an entry by chance are few; a table is a run of at least four entries in a row.
    """
    places = np.ascontiguousarray(section.data[: section.data.size & ~3]).view("<i4").astype(np.uint64)
    if relative:
        places += np.uint64(section.address) + np.uint64(4) * np.arange(places.size, dtype=np.uint64)
    places &= np.uint64(image.machine.mask)
    is_code = code.contain(places)
    candidate = np.flatnonzero(is_code[:-1] & is_code[1:])
    if not candidate.size:
        return _NONE, _NONE
    candidate = candidate[_patchable(image.machine, _bytes_at(image, places[candidate]))]
    present = np.zeros(places.size + stride, np.bool_)
    present[candidate] = True
    entries: list[int] = []
    taken = np.zeros(places.size + stride, np.bool_)
    for start in candidate.tolist():
        if taken[start]:
            continue
        at = start
        while at < places.size and present[at] and not taken[at]:
            at += stride
        if (at - start) // stride >= 4:
            run = range(start, at, stride)
            entries.extend(run)
            taken[start:at] = True
    index = np.array(entries, np.int64)
    if not index.size:
        return _NONE, _NONE
    return places[index], places[index + 1]


def _patchable(machine: Machine, first: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether code that begins with these bytes, u1[n, 5], can be a static key's: a nop or a jump.

    Sources: arch/{x86,arm,arm64,riscv}/include/asm/jump_label.h.
    """
    if machine.x86:
        jump = (first[:, 0] == 0xE9) | (first[:, 0] == 0xEB)
        nop = ((first[:, :5] == np.array([0x0F, 0x1F, 0x44, 0, 0], np.uint8)).all(1)) | (
            (first[:, :2] == np.array([0x66, 0x90], np.uint8)).all(1)
        )
        # Some assemblers pick another five-byte nop: ds-prefixed lea of 32-bit code.
        lea = (first[:, :5] == np.array([0x3E, 0x8D, 0x74, 0x26, 0], np.uint8)).all(1)
        return np.asarray(jump | nop | lea, np.bool_)
    word = np.ascontiguousarray(first[:, :4]).view("<u4").ravel()
    if machine is Machine.AARCH64:
        return np.asarray((word == 0xD503201F) | (word >> 26 == 5), np.bool_)
    if machine is Machine.ARM:
        return np.asarray(np.isin(word, (0xE320F000, 0xE1A00000)) | (word >> 24 == 0xEA), np.bool_)
    return np.asarray((word == 0x13) | (word & 0xFFF == 0x6F), np.bool_)  # jal zero


def _bytes_at(image: Image, addresses: Addresses) -> NDArray[np.uint8]:
    """Five bytes of code at each address (zeros where there are none): shape (n, 5)."""
    out = np.zeros((addresses.size, 5), np.uint8)
    for section in image.sections:
        if section.executable and section.data.size > 5:
            offset = addresses - np.uint64(section.address)
            inside = np.flatnonzero((addresses >= section.address) & (offset <= section.data.size - 5))
            for byte in range(5):
                out[inside, byte] = section.data[offset[inside] + np.uint64(byte)]
    return out


# ---------------------------------------------------------------- exception table


def _exceptions(image: Image, code: _Ranges) -> tuple[Addresses, Addresses, NDArray[np.int32]]:
    section = image.section("__ex_table")
    if section is None or section.data.size < 12:
        return _NONE, _NONE, np.empty(0, np.int32)
    place, fixup = _self_relative(section, image, 12, 0), _self_relative(section, image, 12, 4)
    handler = _self_relative(section, image, 12, 8)
    kind = (_words(section, 12, 8, "<i4") & 0xFF).astype(np.int32)
    # Up to 5.15 the third word points to a handler function, later it holds a type and register numbers.
    if bool(code.contain(handler).all()):
        kind[:] = -1
    good = code.contain(place) & code.contain(fixup)
    return place[good], fixup[good], kind[good]


# ---------------------------------------------------------------- alternatives

# (stride, place of instrlen, place of replacementlen): 4.19 to 5.15 have a padlen byte behind, 6.x do not;
# from 6.3 the feature word is 32 bits, its upper half flags.
_ALTERNATIVE_FORMS = ((12, 10, 11), (13, 10, 11), (14, 12, 13))
_FLAGS_FORM, _FLAGS_AT, _FLAG_DIRECT_CALL = 14, 10, 1 << 1  # ALT_FLAG_DIRECT_CALL, 6.8 and later

_Alternatives = tuple[Addresses, Addresses, NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]]


def _alternatives(image: Image, code: _Ranges) -> _Alternatives:
    section = image.section(".altinstructions")
    none = np.empty(0, np.int32)
    best: _Alternatives = (_NONE, _NONE, none, none, np.empty(0, np.bool_))
    if section is None or section.data.size < 12:
        return best
    for stride, length_at, replacement_at in _ALTERNATIVE_FORMS:
        if section.data.size % stride:
            continue
        place, replacement = (
            _self_relative(section, image, stride, 0),
            _self_relative(section, image, stride, 4),
        )
        length = _words(section, stride, length_at, "u1").astype(np.int32)
        replacement_length = _words(section, stride, replacement_at, "u1").astype(np.int32)
        good = code.contain(place) & (code.contain(replacement) | (replacement_length == 0))
        good &= replacement_length <= length
        if int(good.sum()) > best[0].size:
            direct = np.zeros(place.size, np.bool_)
            if stride == _FLAGS_FORM:
                direct = (_words(section, stride, _FLAGS_AT, "<u2") & _FLAG_DIRECT_CALL) != 0
            best = place[good], replacement[good], length[good], replacement_length[good], direct[good]
    return best


# ---------------------------------------------------------------- bugs, paravirt


def _bugs(image: Image, code: _Ranges) -> tuple[Addresses, NDArray[np.bool_]]:
    """`struct bug_entry`: {address, file, u16 line, u16 flags}, or without file and line.

    Address and file are self-relative where the architecture says so (x86-64), else absolute pointers.
    """
    section = image.section("__bug_table")
    if section is None or not section.data.size:
        return _NONE, np.empty(0, np.bool_)
    best: tuple[Addresses, NDArray[np.bool_]] = (_NONE, np.empty(0, np.bool_))
    best_share = 0.5  # of a table's entries that must point into code
    for relative in (True, False):
        for stride, flags_at in ((12, 10), (8, 4), (16, 10), (6, 4)):
            if section.data.size % stride:
                continue
            if relative:
                place = _self_relative(section, image, stride, 0)
            else:
                place = _words(section, stride, 0, "<u4").astype(np.uint64)
            good = code.contain(place)
            share = float(good.mean())
            if share > best_share:
                flags = _words(section, stride, flags_at, "<u2")[good]
                best, best_share = (place[good], (flags & 1) != 0), share  # BUGFLAG_WARNING
    return best


def _paravirt(image: Image, code: _Ranges) -> Addresses:
    """`struct paravirt_patch_site` {instruction pointer, u8 type, u8 length}, padded to the word."""
    section = image.section(".parainstructions")
    if section is None:
        return _NONE
    word = image.machine.word
    stride = 2 * word
    count = section.data.size // stride
    table = np.ascontiguousarray(section.data[: count * stride]).view(f"<u{word}").reshape(count, 2)
    place = table[:, 0].astype(np.uint64)
    return place[code.contain(place)]
