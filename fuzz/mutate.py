"""Valid inputs made wrong: bytes, sections of ELF files, words of text, trees of JSON, cells of SQLite.

Every choice comes from one `random.Random`, so that an input can be made again from its seed, and hypothesis
can drive the same code (and shrink what it finds).
"""

from __future__ import annotations

import bz2
import copy
import enum
import gzip
import json
import lzma
import random
import re
import sqlite3
import struct
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any

import lz4.block
import zstandard

__all__ = ["MOST", "Form", "bzimage", "mutate", "pack"]

MOST = 1 << 20  # bytes of an input: the limits of time and memory are for files of this size

_NUMBERS = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 1 << 20, 1 << 24)
_NUMBERS += ((1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_WORDS = (
    "", "0", "1", "-1", "00", "0x", "0xffffffffffffffff", "0x10000000000000000", "255", "256", "65536",
    "2147483647", "2147483648", "4294967295", "9223372036854775807", "9223372036854775808",
    "18446744073709551616", "1" + "0" * 40, "9" * 5000, "1e309", "nan", "inf", "-0.0", "true", "null", "''",
    '"', "\\", "[", "]", "{", "}", "=", ",", ":", ";", "(", ")", "<", ">", "\0", "\x1b[31m", "\r", "\t", "\n",
    "\u2028", "\u202e", "\ufeff", "\U0001f600", "é", "\u2167",
    "\uff12", "..", "../../etc/passwd", "/", "%s", "A" * 5000,
    "[" * 3000, "{'a':" * 500, "a." * 3000,
)  # fmt: skip
_VALUES = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**40, 1.5, -0.0, 1e308, "", "x", "0x0", "A" * 5000,
    [], {}, [[]], [None], {"": None}, [0] * 1000,
)  # fmt: skip


class Form(enum.Enum):
    """How an input is taken apart."""

    BYTES = "bytes"
    ELF = "elf"
    TEXT = "text"
    JSON = "json"
    SQLITE = "sqlite"


def mutate(data: bytes, form: Form, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """A changed copy of at most MOST bytes. `others`: inputs of the same kind, to take parts from."""
    if form is Form.ELF and chance.random() < 0.85:
        data = _elf(data, chance)
    elif form is Form.JSON and chance.random() < 0.7:
        data = _json(data, chance)
    elif form is Form.SQLITE and chance.random() < 0.7:
        data = _sqlite(data, chance)
    elif form in (Form.TEXT, Form.JSON) and chance.random() < 0.9:
        data = _text(data, chance, others)
    else:
        data = _bytes(data, chance, others)
    return data[:MOST]


def _some(chance: random.Random) -> int:
    """1, often; now and then many."""
    return 1 + int(min(chance.expovariate(0.7), 40)) if chance.random() < 0.95 else chance.randint(5, 40)


# ---------------------------------------------------------------- bytes


def _bytes(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    out = bytearray(data)
    for _ in range(_some(chance)):
        if not out:
            return bytes(chance.randrange(256) for _ in range(chance.randint(0, 64)))
        kind = chance.randrange(10)
        at = chance.randrange(len(out))
        size = min(chance.choice((1, 2, 4, 8, 16, 64, 512)), len(out) - at)
        if kind == 0:
            del out[at:]
        elif kind == 1:
            del out[at : at + size]
        elif kind == 2:
            out[at:at] = out[at : at + size] * chance.choice((1, 1, 2, 16, 256))
        elif kind == 3 and others:
            other = chance.choice(others)
            place = chance.randrange(len(other)) if other else 0
            out[at : at + size] = other[place : place + chance.choice((size, 64, 4096))]
        else:
            _within(out, 0, len(out), chance)
        if len(out) > MOST:
            break
    return bytes(out)


def _within(out: bytearray, low: int, high: int, chance: random.Random) -> None:
    """A change that keeps the length, of the bytes from `low` up to `high`."""
    if high <= low:
        return
    kind = chance.randrange(7)
    at = chance.randrange(low, high)
    if kind == 0:
        out[at] ^= 1 << chance.randrange(8)
    elif kind == 1:
        out[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, chance.randrange(256)))
    elif kind in (2, 3, 4):  # a number where one may be
        size = chance.choice((1, 2, 4, 4, 8))
        at = low + (at - low) // size * size if chance.random() < 0.8 else at
        if at + size > high:
            return
        old = int.from_bytes(out[at : at + size], "little")
        near = old + chance.randint(-16, 16)
        new = chance.choice((*_NUMBERS, near, near, near, old * 2, old // 2, ~old))
        out[at : at + size] = (new % (1 << 8 * size)).to_bytes(size, "little")
    elif kind == 5:
        size = min(chance.choice((2, 8, 32, 256)), high - at)
        out[at : at + size] = bytes([chance.choice((0, 0xFF, 0x80, chance.randrange(256)))]) * size
    else:
        size = min(chance.choice((4, 8, 16, 64)), high - at)
        place = chance.randrange(low, high)
        piece = out[place : min(place + size, high)]
        out[at : at + len(piece)] = piece[: high - at]


# ---------------------------------------------------------------- ELF


def _elf(data: bytes, chance: random.Random) -> bytes:
    """Changes where they matter: in a section's contents, in its header, in the file's header."""
    out = bytearray(data)
    headers = _section_headers(data)
    if not headers:
        return _bytes(data, chance, ())
    for _ in range(_some(chance)):
        where = chance.random()
        table, entry, offset, size = chance.choice(headers)
        if where < 0.7:
            _within(out, offset, min(offset + size, len(out)), chance)
        elif where < 0.93:
            _within(out, table, table + entry, chance)
        else:
            _within(out, 0, 64, chance)
    return bytes(out)


def _section_headers(data: bytes) -> list[tuple[int, int, int, int]]:
    """(place of the header, its size, offset, size) of sections that have contents in the file."""
    if len(data) < 64 or data[:4] != b"\x7fELF":
        return []
    wide = data[4] == 2
    table = struct.unpack_from("<Q" if wide else "<I", data, 40 if wide else 32)[0]
    entry, count = struct.unpack_from("<HH", data, 58 if wide else 46)
    found = []
    for at in range(table, table + entry * count, entry or 64):
        if entry not in (40, 64) or at + entry > len(data):
            break
        kind = struct.unpack_from("<I", data, at + 4)[0]
        offset, size = struct.unpack_from("<QQ" if wide else "<II", data, at + (24 if wide else 16))
        if kind != 8 and size and offset < len(data):
            found.append((at, entry, offset, size))
    return found


# ---------------------------------------------------------------- text


_WORD = re.compile(r"0x[0-9a-fA-F]+|-?\d+|\w+")


def _text(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    text = data.decode("utf-8", "surrogateescape")
    for _ in range(_some(chance)):
        kind = chance.randrange(9)
        if kind < 4:  # a word
            found = [match.span() for match in _WORD.finditer(text[:65536])]
            if found:
                start, end = chance.choice(found)
                text = text[:start] + _word(text[start:end], chance) + text[end:]
            continue
        if kind == 4:  # a character
            at = chance.randint(0, len(text))
            text = text[:at] + chance.choice(_WORDS) + text[at + chance.randrange(2) :]
            continue
        lines = text.split("\n")
        at = chance.randrange(len(lines))
        if kind == 5:
            del lines[at]
        elif kind == 6:
            lines[at:at] = [lines[at]] * chance.choice((1, 1, 2, 100, 5000))
        elif kind == 7:
            place = chance.randrange(len(lines))
            lines[at], lines[place] = lines[place], lines[at]
        elif others:
            other = chance.choice(others).decode("utf-8", "surrogateescape").split("\n")
            start = chance.randrange(len(other))
            lines[at:at] = other[start : start + chance.choice((1, 2, 20))]
        text = "\n".join(lines)[:MOST]
    return text.encode("utf-8", "surrogateescape")


def _word(word: str, chance: random.Random) -> str:
    if word.lstrip("-").isdigit() and len(word) < 30 and chance.random() < 0.6:
        number = int(word)
        return str(chance.choice((-number, number + 1, number - 1, number * 2, number << 32, *_NUMBERS)))
    return chance.choice((word[::-1], word * 2, word[:-1], word.upper(), *_WORDS))


# ---------------------------------------------------------------- JSON


def _json(data: bytes, chance: random.Random) -> bytes:
    try:
        return _json_changed(json.loads(data), chance)
    except (ValueError, RecursionError):  # text changed it before, or it is deep by now
        return _text(data, chance, ())


def _json_changed(document: Any, chance: random.Random) -> bytes:
    for _ in range(_some(chance)):
        places: list[tuple[Any, Any]] = []
        _places(document, places)
        if not places:
            break
        holder, key = chance.choice(places)
        kind = chance.randrange(8)
        if kind == 0:
            del holder[key]
        elif kind == 1:
            deep: Any = 0
            for _ in range(chance.choice((10, 500, 900))):
                deep = [deep] if chance.random() < 0.5 else {"x": deep}
            holder[key] = deep
        elif kind == 2:
            other, place = chance.choice(places)
            with suppress(KeyError, IndexError):  # gone since
                holder[key] = copy.deepcopy(other[place])
        elif kind == 3 and isinstance(holder, list):
            holder[key:key] = [copy.deepcopy(holder[key]) for _ in range(chance.choice((1, 3, 300)))]
        elif kind == 4 and type(holder[key]) is int:
            holder[key] = chance.choice((holder[key] + 1, -holder[key], *_NUMBERS))
        else:
            holder[key] = copy.deepcopy(chance.choice(_VALUES))
    return json.dumps(document).encode()


def _places(node: Any, out: list[tuple[Any, Any]]) -> None:
    """(container, key) of every value, the first few thousand of them."""
    pending = [node]
    while pending and len(out) < 4000:
        one = pending.pop()
        keys: Sequence[Any] = range(len(one)) if isinstance(one, list) else list(one)
        for key in keys:
            out.append((one, key))
            if isinstance(one[key], (list, dict)):
                pending.append(one[key])


# ---------------------------------------------------------------- SQLite


def _sqlite(data: bytes, chance: random.Random) -> bytes:
    """Cells of other types and sizes, tables away, or made anew as something else."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        try:
            connection.deserialize(data)
            tables = [
                name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
            ]
            for _ in range(_some(chance)):
                _sqlite_change(connection, chance.choice(sorted(tables)), chance)
            return connection.serialize()
        except (sqlite3.Error, IndexError, MemoryError):
            return _bytes(data, chance, ())


def _sqlite_change(connection: sqlite3.Connection, table: str, chance: random.Random) -> None:
    columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
    column = chance.choice(columns)
    value = chance.choice(
        (None, "", "x", b"\0\xff", -1, 0, 2**62, -(2**63), 1.5, 9e99, "9" * 400, "A" * 100_000, "NaN")
    )
    kind = chance.randrange(8)
    with suppress(sqlite3.Error, MemoryError):
        if kind == 0:
            connection.execute(f'DELETE FROM "{table}" WHERE random() % 2')
        elif kind == 1:
            connection.execute(f'DROP TABLE "{table}"')
        elif kind == 2:
            connection.execute(f'DROP TABLE "{table}"')
            size = chance.choice((10, 10**6, 10**9))
            others = ", ".join(f'"{one}"' for one in columns if one != column)
            made = chance.choice((f"zeroblob({size})", f"hex(zeroblob({size}))", f"printf('%*d', {size}, 1)"))
            others += ", " if others else ""
            computed = f'"{column}" GENERATED ALWAYS AS ({made})'
            connection.execute(f'CREATE TABLE "{table}" ({others}{computed})')
            connection.execute(f'INSERT INTO "{table}" DEFAULT VALUES')
        elif kind == 3:
            connection.execute(f'INSERT INTO "{table}" SELECT * FROM "{table}"')
        else:
            place = "" if chance.random() < 0.2 else " WHERE rowid % 7 = 1"
            connection.execute(f'UPDATE OR IGNORE "{table}" SET "{column}" = ?{place}', (value,))


# ---------------------------------------------------------------- packed


def pack(data: bytes, chance: random.Random) -> bytes:
    """Compressed, as modules, traces and kernels are; damaged now and then."""
    kind = chance.randrange(7)
    if kind == 0:
        out = gzip.compress(data, 1, mtime=0)
    elif kind == 1:
        out = lzma.compress(data, preset=0)
    elif kind == 2:
        out = lzma.compress(data, lzma.FORMAT_ALONE, preset=0)
    elif kind == 3:
        out = bz2.compress(data, 1)
    elif kind == 4:
        out = zstandard.ZstdCompressor(level=1).compress(data)
    elif kind == 5:
        block = lz4.block.compress(data, store_size=False)
        out = b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block
    else:
        head = b"\x89LZO\0\r\n\x1a\n" + struct.pack(
            ">HHHBBIIIIB", 0x1030, 0x20A0, 0x0940, 1, 5, 0, 0, 0, 0, 0
        )
        out = head + bytes(4) + struct.pack(">II", len(data), len(data)) + data + bytes(4)
    return _bytes(out, chance, ()) if chance.random() < 0.3 else out


def bzimage(content: bytes, chance: random.Random) -> bytes:
    """A bzImage around a kernel's ELF file, as arch/x86/boot lays it out; damaged now and then."""
    packed = pack(content, chance)
    trailer = b"" if packed[:2] == b"\x1f\x8b" else struct.pack("<I", len(content))
    setup = bytearray(3 * 512)
    setup[0x1F1] = 2
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<HH", setup, 0x206, 0x20F, 0)
    struct.pack_into("<H", setup, 0x20E, 0x300)
    setup[0x500:0x50B] = b"6.1.0-fuzz\0"
    struct.pack_into("<II", setup, 0x248, 48, len(packed) + len(trailer))
    if chance.random() < 0.2:
        _within(setup, 0x1F0, 0x250, chance)
    return bytes(setup) + b"\x90" * 48 + packed + trailer
