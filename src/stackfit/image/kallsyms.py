"""Names and addresses of a kernel without symbol table, from the kallsyms tables in its own data.

The tables are found by their structure, not by symbols: first the token table with its index (256 strings,
256 offsets), then outwards. Formats of Linux 4.19 to 6.12 (`scripts/kallsyms.c`, `kernel/kallsyms.c`), each
table aligned to a word:

- up to 6.3: addresses, num_syms, names, markers, [seqs_of_names since 6.2], token_table, token_index
- since 6.4: num_syms, names, markers, token_table, token_index, addresses, [seqs_of_names]

`addresses` is `offsets` (32-bit) and then `relative_base` (a word) under CONFIG_KALLSYMS_BASE_RELATIVE, else
one word per symbol; later kernels have 32-bit offsets from each entry's own place and no base. Under
CONFIG_KALLSYMS_ABSOLUTE_PERCPU offsets are signed: negative ones count from the base, others are absolute.
Up to 4.19 num_syms and markers are words, then 32-bit. A name longer than 127 codes has a two-byte length
since 6.1. A table of less than 257 names is not looked for: too little tells it from chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import SYMBOL_DTYPE, Bytes, Image, InputError, Section, Symbols

__all__ = ["read_kallsyms"]

_TOKENS = 256
_MARKED = 256  # a marker for each so many names
_MAXIMUM_NAME = 512  # KSYM_NAME_LEN since 6.1 (128 before), the type letter included
# Caps against hostile images: each is far above what a kernel needs (about 1 of each, 110,000 names of 3 MB).
_MAXIMUM_SEARCHED = 1 << 30  # bytes of sections
_MAXIMUM_TOKEN_TABLES = 8
_MAXIMUM_MARKER_TABLES = 64  # per token table
_MAXIMUM_NAME_TABLES = 32  # walked, in all
_MAXIMUM_NAMES = 1 << 21
_MAXIMUM_TEXT = 64 << 20  # bytes of expanded names
_TYPES = b"AaBbCcDdGgIiNnRrSsTtUuVvWwp?-"  # nm's letters
_TYPE_SET = np.frombuffer(_TYPES, np.uint8)
_INSIDE = 0.9  # share of the symbols that must lie in sections for addresses to be believed
_STB_LOCAL, _STB_GLOBAL, _STB_WEAK = 0, 1, 2
_STT_NOTYPE, _STT_OBJECT, _STT_FUNC = 0, 1, 2

Places = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Tokens:
    """The token table: token c is `data[start[c] : start[c] + length[c]]`, [begin, end) with its index."""

    begin: int
    end: int
    start: Places
    length: Places


@dataclass(frozen=True, eq=False)
class _Names:
    """Compressed names: i's codes are `data[start[i] : start[i] + length[i]]`; `begin`: where num_syms is."""

    begin: int
    start: Places
    length: Places

    @property
    def count(self) -> int:
        return int(self.start.size)


class _Budget:
    """Counts down; `spend` says whether one more is left."""

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, amount: int = 1) -> bool:
        self.left -= amount
        return self.left >= 0


@dataclass(frozen=True, eq=False)
class _Ranges:
    """Allocated sections by address."""

    index: NDArray[np.int32]
    start: NDArray[np.uint64]
    end: NDArray[np.uint64]

    def of(self, addresses: NDArray[np.uint64]) -> NDArray[np.int32]:
        """The section that holds each address, or that ends less than a page before it; else -1.

        The linker script's end labels (`_etext`, `__end_rodata`) are aligned up behind their section.
        """
        at = np.searchsorted(self.start, addresses, side="right") - 1
        near = (at >= 0) & (addresses < self.end[at] + np.uint64(4096))
        return np.where(near, self.index[at], np.int32(-1)).astype(np.int32)


def read_kallsyms(image: Image) -> Symbols:
    """The symbols of a kernel image in the order of its kallsyms tables (by address).

    Sizes are 0 (kallsyms has none). A symbol's section is the one that holds its address (an end label of one
    section that touches the next counts as the next's), -1 when none does; for absolute per-CPU symbols that
    is `.data..percpu` at 0. Binding: GLOBAL for upper-case letters, WEAK for V and W, else LOCAL; kallsyms
    makes every absolute per-CPU symbol an upper-case `A`. Type: FUNC for t and w in executable sections,
    labels of assembly code included; OBJECT for other letters in other sections; else NOTYPE.

    Raises InputError when the image holds no such tables, or none that is consistent in itself: markers and
    names agree, names expand to printable text, addresses ascend and lie in the image's sections.
    """
    word = image.machine.word
    ranges = _ranges(image.sections)
    found: tuple[int, str] | None = None
    bytes_left, tables_left, walks_left = (
        _Budget(most) for most in (_MAXIMUM_SEARCHED, _MAXIMUM_TOKEN_TABLES, _MAXIMUM_NAME_TABLES)
    )
    for section in sorted(image.sections, key=lambda section: section.name != ".rodata"):
        if not section.allocated or section.executable or not section.data.size or not ranges.index.size:
            continue
        if not bytes_left.spend(section.data.size):
            break
        skip = -section.address % word
        data = section.data[skip : section.data.size - (section.data.size - skip) % word]
        for tokens in _token_tables(data, word, tables_left):
            cause = "no table of names fits it"
            for names in _name_tables(data, word, tokens, walks_left):
                addresses = _addresses(data, section.address + skip, word, names, tokens, ranges)
                if addresses is None:
                    cause = "its symbols have no table of ascending addresses in the image's sections"
                    continue
                expanded = _expand(data, names, tokens)
                if expanded is None:
                    cause = "its names do not expand to symbol names"
                    continue
                return _symbols(*expanded, addresses, image.sections, ranges)
            found = found or (section.offset + skip + tokens.begin, cause)
    if found is not None:
        raise InputError(image.path, f"kallsyms token table is unusable: {found[1]}", found[0])
    raise InputError(
        image.path, "no symbol table and no kallsyms tables (CONFIG_KALLSYMS unset, or a format not known)"
    )


def _ranges(sections: tuple[Section, ...]) -> _Ranges:
    used = sorted(
        (section.address, section.end, index)
        for index, section in enumerate(sections)
        if section.allocated and section.size and section.end < 1 << 64
    )
    return _Ranges(
        np.array([i for _, _, i in used], np.int32),
        np.array([start for start, _, _ in used], np.uint64),
        np.array([min(end, (1 << 64) - 4096) for _, end, _ in used], np.uint64),
    )


def _align(value: int, word: int) -> int:
    return (value + word - 1) & -word


def _token_tables(data: Bytes, word: int, tables_left: _Budget) -> Iterator[_Tokens]:
    """Token tables that a token index follows: 256 strings, ascending offsets of which the first is 0."""
    half = data[: data.size & ~1].view("<u2")
    last = _TOKENS - 1
    if half.size <= last:
        return
    stride, stop = word // 2, half.size - last
    start = (half[:stop:stride] == 0) & (half[1 : stop + 1 : stride] > 0) & (half[last::stride] >= last)
    places = np.flatnonzero(start) * stride
    for k in range(1, _TOKENS):  # strictly ascending; each step leaves a fraction
        step = half[places + k].astype(np.int32) - half[places + (k - 1)]
        places = places[(step > 0) & (step <= _MAXIMUM_NAME)]
        if not places.size:
            return
    for place in (2 * places).tolist():
        if not tables_left.spend():
            return
        offsets = data[place : place + 2 * _TOKENS].view("<u2").astype(np.int64)
        total = int(offsets[-1])
        latest = (place - total - 1) & -word
        for begin in range(latest, max(latest - _MAXIMUM_NAME - word, -1), -word):
            if data[begin + offsets[1:] - 1].any():
                continue
            table = data[begin:place]
            (ends,) = np.nonzero(table == 0)
            if ends.size < _TOKENS or not np.array_equal(ends[:last], offsets[1:] - 1):
                continue
            if int(ends[last]) >= place - begin or _align(int(ends[last]) + 1, word) != place - begin:
                continue
            if ends.size != place - begin - int(ends[last]) + last:  # padding is zero
                continue
            if bool(((table != 0) & (table <= 0x20)).any()):
                continue
            yield _Tokens(begin, place + 2 * _TOKENS, begin + offsets, ends[:_TOKENS] - offsets)
            break


def _name_tables(data: Bytes, word: int, tokens: _Tokens, walks_left: _Budget) -> Iterator[_Names]:
    """Names tables before a token table, by their markers: 0 and then ascending offsets into the names."""
    window = _align(_MAXIMUM_NAMES // _MARKED * word + 4 * _MAXIMUM_NAMES, 8)  # markers and seqs_of_names
    for size in (4, 8) if word == 8 else (4,):
        first = max(tokens.begin - window, 0)
        marks = data[first : tokens.begin].view("<u4" if size == 4 else "<u8")
        if marks.size < 2:
            continue
        low = marks.astype(np.int64)  # a wrapped 64-bit value is out of range below
        step = np.diff(low)
        good = (step >= 2 * _MARKED) & (step <= (_MAXIMUM_NAME + 2) * _MARKED)
        starts = np.flatnonzero(good & (low[:-1] == 0))
        starts = starts[starts * size % word == 0]
        breaks = np.append(np.flatnonzero(~good), good.size)
        runs = breaks[np.searchsorted(breaks, starts)] - starts + 1
        order = np.argsort(-runs, kind="stable")[:_MAXIMUM_MARKER_TABLES]
        for start, run in zip(starts[order].tolist(), runs[order].tolist(), strict=True):
            # What follows the markers can look like one or two more of them.
            for count in range(run, max(run - 3, 1), -1):
                markers, place = low[start : start + count], first + start * size
                yield from _names_before(data, word, tokens, place, markers, size, walks_left)


def _names_before(
    data: Bytes, word: int, tokens: _Tokens, end: int, markers: Places, size: int, walks_left: _Budget
) -> Iterator[_Names]:
    """Names tables that end at `end`, where their markers begin (each of `size` bytes)."""
    blocks = int(markers.size)
    if blocks > _MAXIMUM_NAMES // _MARKED:
        return
    behind = _align(end + size * blocks, word)
    last = int(markers[-1])
    lowest = max(_align(end - last - (_MAXIMUM_NAME + 2) * _MARKED - word, word), word)
    begins = np.arange(lowest, end - last, word, dtype=np.int64)
    counts = data.view("<u4")[(begins - word) // 4].astype(np.int64)
    fits = (counts > _MARKED * (blocks - 1)) & (counts <= _MARKED * blocks)
    if word == 8:
        fits &= data.view("<u4")[(begins - 4) // 4] == 0
    for begin, count in zip(begins[fits].tolist(), counts[fits].tolist(), strict=True):
        if tokens.begin - behind not in (0, _align(3 * count, word), _align(4 * count, word)):
            continue
        if not walks_left.spend():
            return
        if not _reaches_tokens(data, behind, tokens.begin, count, word):
            continue
        for long_names in (True, False):
            walked = _walk(data, begin + markers, count, end, word, long_names)
            if walked is not None:
                yield _Names(begin - word, *walked)
                break


def _reaches_tokens(data: Bytes, behind: int, begin: int, count: int, word: int) -> bool:
    """Whether the token table follows the markers: at once, or behind the permutation `seqs_of_names`.

    Its entries have 3 bytes, big-endian (6.2 and 6.3), or 4, little-endian (as first written and backported).
    """
    if behind == begin:
        return True
    if behind + _align(3 * count, word) == begin:
        parts = data[behind : behind + 3 * count].astype(np.int64)
        order = parts[0::3] << 16 | parts[1::3] << 8 | parts[2::3]
    elif behind + _align(4 * count, word) == begin:
        order = data[behind : behind + 4 * count].view("<u4").astype(np.int64)
    else:
        return False
    seen = np.zeros(count, bool)
    seen[order[order < count]] = True
    return bool(seen.all())


def _walk(
    data: Bytes, places: Places, count: int, end: int, word: int, long_names: bool
) -> tuple[Places, Places] | None:
    """(start, length) of each name's codes: all blocks of 256 names at once, from marker to marker.

    None unless each block ends where the next one's marker says and the last one at `end`, zero-padded.
    """
    blocks = int(places.size)
    rest = count - _MARKED * (blocks - 1)  # names of the last block
    start = np.zeros((_MARKED, blocks), np.int64)
    length = np.zeros((_MARKED, blocks), np.int64)
    position = places.copy()
    for k in range(_MARKED):
        now = position if k < rest else position[:-1]  # a view
        if int(now.max()) >= end - 1:
            return None
        size = data[now].astype(np.int64)
        head: Places | int = 1
        if long_names and int(size.max()) >= 0x80:
            big = size >= 0x80
            head = 1 + big.astype(np.int64)
            size = np.where(big, (size & 0x7F) | data[now + 1].astype(np.int64) << 7, size)
        now += head
        start[k, : now.size] = now
        length[k, : now.size] = size
        now += size
    if not np.array_equal(position[:-1], places[1:]):
        return None
    stop = int(position[-1])
    if stop > end or _align(stop, word) != end or data[stop:end].any():
        return None
    lengths = length.T.reshape(-1)[:count]
    if int(lengths.min()) < 1:
        return None
    return start.T.reshape(-1)[:count], lengths


def _addresses(
    data: Bytes, base: int, word: int, names: _Names, tokens: _Tokens, ranges: _Ranges
) -> NDArray[np.uint64] | None:
    """The symbols' link addresses, by the first form that gives ascending ones in the image's sections.

    `base` is the link address of `data`.
    """
    count = names.count
    offsets_size = _align(4 * count, word)
    mask = (1 << 8 * word) - 1

    def offsets(at: int) -> NDArray[np.int32] | None:
        return data[at : at + 4 * count].view("<i4") if at >= 0 and at + 4 * count <= data.size else None

    def forms() -> Iterator[NDArray[np.uint64]]:
        for place in (names.begin - word - offsets_size, tokens.end):
            table = offsets(place)
            if table is None or place + offsets_size + word > data.size:
                continue
            at = place + offsets_size
            origin = int.from_bytes(data[at : at + word].tobytes(), "little")
            if origin == 0:
                continue
            wide = table.astype(np.int64)
            if bool((table < 0).any()):  # CONFIG_KALLSYMS_ABSOLUTE_PERCPU
                yield np.where(wide >= 0, wide.view(np.uint64), _plus(~wide, origin, mask))
            yield _plus(wide & 0xFFFFFFFF, origin, mask)
        for place in (names.begin - word * count, tokens.end):
            if place >= 0 and place + word * count <= data.size:
                yield data[place : place + word * count].view("<u8" if word == 8 else "<u4").astype(np.uint64)
        table = offsets(tokens.end)
        if table is not None:
            yield _plus(table.astype(np.int64) + 4 * np.arange(count), base + tokens.end, mask)

    for addresses in forms():
        if addresses[-1] > addresses[0] and bool((addresses[1:] >= addresses[:-1]).all()):
            inside = int(np.count_nonzero(ranges.of(addresses) >= 0))
            if inside >= _INSIDE * count:
                return addresses
    return None


def _plus(offsets: Places, origin: int, mask: int) -> NDArray[np.uint64]:
    """`origin + offsets` in the machine's word."""
    result: NDArray[np.uint64] = (offsets.view(np.uint64) + np.uint64(origin)) & np.uint64(mask)
    return result


def _expand(data: Bytes, names: _Names, tokens: _Tokens) -> tuple[list[str], Bytes] | None:
    """(names, type letters): every code of every name replaced by its token in one gather.

    Each name's length byte becomes a newline (no token holds one), so that one split yields the names.
    """
    begin, end = int(names.start[0]) - 1, int(names.start[-1] + names.length[-1])
    heads = names.start - 1 - begin  # the byte before the codes: the length, or its second byte
    codes = data[begin:end].astype(np.int16)
    previous = names.start[:-1] + names.length[:-1] - begin
    codes[previous[heads[1:] > previous]] = _TOKENS + 1  # the first byte of a two-byte length is nothing
    codes[heads] = _TOKENS
    table = data[tokens.begin : tokens.end].copy()
    newline = table.size - 1  # in the token index, which is no text
    table[newline] = 0x0A
    token_start = np.append(tokens.start - tokens.begin, [newline, newline]).astype(np.int32)
    token_length = np.append(tokens.length, [1, 0]).astype(np.int32)
    length = token_length[codes]
    stops = np.cumsum(length, dtype=np.int64)
    sizes = stops[names.start + names.length - 1 - begin] - stops[heads]
    total = int(stops[-1])
    if int(sizes.max()) > _MAXIMUM_NAME or int(sizes.min()) < 2 or total > _MAXIMUM_TEXT:
        return None
    shift = (token_start[codes] - (stops - length)).astype(np.int32)
    text = table[np.repeat(shift, length) + np.arange(total, dtype=np.int32)]
    letters = text[stops[heads]]
    if not np.isin(letters, _TYPE_SET).all():
        return None
    keep = np.ones(total, bool)
    keep[stops[heads]] = False
    split = text[keep].tobytes().decode("latin-1").split("\n")
    return split[1:], letters


def _symbols(
    names: list[str],
    letters: Bytes,
    addresses: NDArray[np.uint64],
    sections: tuple[Section, ...],
    ranges: _Ranges,
) -> Symbols:
    records = np.zeros(len(names), SYMBOL_DTYPE)
    place = ranges.of(addresses)
    records["address"] = addresses
    records["section"] = place
    upper = (letters >= ord("A")) & (letters <= ord("Z"))
    weak = np.isin(letters, np.frombuffer(b"VvWw", np.uint8))
    records["binding"] = np.where(weak, _STB_WEAK, np.where(upper, _STB_GLOBAL, _STB_LOCAL))
    executable = np.array([section.executable for section in sections], bool)
    in_code = (place >= 0) & executable[place]
    code = np.isin(letters, np.frombuffer(b"TtWw", np.uint8))
    text = np.isin(letters, np.frombuffer(b"Tt", np.uint8))
    records["type"] = np.where(
        in_code & code, _STT_FUNC, np.where((place >= 0) & ~in_code & ~text, _STT_OBJECT, _STT_NOTYPE)
    )
    return Symbols(names, records)
