"""Decompression of kernels and modules, capped: gzip, xz, lzma, bzip2, zstd, legacy lz4, lzop.

Formats are told by their magic, never by the file's name. Caps: `most_output` bytes of output unless the
caller states another, MAXIMUM_DICTIONARY bytes of working memory for xz, lzma and zstd.
Sources: RFC 1952 (gzip), the .xz file format 1.1, RFC 8878 (zstd), lz4's `lz4_Frame_format.md` (legacy
frame), lzop's `lzop.c` and Linux `lib/decompress_unlzo.c`; `lib/decompress.c` for a kernel's magics.
"""

from __future__ import annotations

import bz2
import importlib
import lzma
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from stackfit.image.model import InputError

__all__ = ["MAXIMUM_OUTPUT", "compression_of", "decompress", "decompress_stream", "most_output"]

MAXIMUM_OUTPUT = 512 << 20
MAXIMUM_DICTIONARY = 256 << 20

_FREE_OUTPUT = 64 << 20  # bytes that any file may hold, and for each of its own bytes _RATIO more
_RATIO = 64  # kernels and modules hold 3 to 8 times their size, text of a tracer up to 40 times

_LZ4_BLOCK = 8 << 20  # a legacy block's greatest uncompressed size
_LZ4_BOUND = _LZ4_BLOCK + _LZ4_BLOCK // 255 + 16  # LZ4_compressBound of it
_ZSTD_PIECE = 1 << 20  # output per call
_LZO_BLOCK = 64 << 20  # lzop's greatest block

_MAGICS = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x5d\x00\x00", "lzma"),
    (b"BZh", "bzip2"),
    (b"\x89LZO\0\r\n\x1a\n", "lzo"),
)


class _Failure(Exception):
    """Why a stream cannot be decompressed; becomes an InputError with path and offset."""


class _Incremental(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: memoryview, max_length: int, /) -> bytes: ...


def most_output(size: int, ratio: int = _RATIO, most: int = MAXIMUM_OUTPUT) -> int:
    """Bytes that a compressed file of `size` bytes may hold: a small file that says that it holds very much
    is meant to take all memory."""
    return min(_FREE_OUTPUT + ratio * size, most)


def compression_of(data: bytes | memoryview) -> str | None:
    """gzip, xz, zstd, lz4 (legacy frame), lzma, bzip2 or lzo by the data's first bytes, else None."""
    head = bytes(data[:9])
    for magic, name in _MAGICS:
        if head.startswith(magic):
            return name
    return None


def decompress(path: str, data: bytes | memoryview, cap: int | None = None) -> bytes:
    """The content of a compressed file, e.g. a `.ko.xz`: one stream and nothing behind it but zero padding.

    `cap`: the greatest accepted size of the content in bytes (None: as `most_output` has it). Raises
    InputError when the data is in no known format, corrupt, truncated, larger than `cap` or followed by other
    data.
    """
    out, used = decompress_stream(path, data, cap)
    if bytes(data[used:]).strip(b"\0"):
        raise InputError(path, f"{len(data) - used} bytes follow the compressed data", used)
    return bytes(out)


def decompress_stream(
    path: str, data: bytes | memoryview, cap: int | None = None, base: int = 0
) -> tuple[bytes | bytearray, int]:
    """(content, bytes of `data` that the stream takes): what follows the stream is the caller's to judge.

    A legacy lz4 frame has no end mark: it ends before the last 4 bytes of `data` or before what cannot be a
    block's length. `base` is the offset of `data` in the file, for errors (InputError as `decompress`).
    """
    kind = compression_of(data)
    if kind is None:
        head = bytes(data[:6]).hex(" ")
        known = ", ".join(name for _, name in _MAGICS)
        raise InputError(path, f"starts with {head or 'nothing'}: no known compression ({known})", base)
    cap = most_output(len(data)) if cap is None else cap
    try:
        out, used = _METHODS[kind](memoryview(data), cap)
    except _Failure as failure:
        raise InputError(path, f"{kind}: {failure}", base) from None
    if len(out) > cap:
        raise InputError(path, f"{kind}: decompresses to more than the {cap} bytes accepted", base)
    return out, used


def _run(decompressor: _Incremental, data: memoryview, cap: int) -> tuple[bytes, int]:
    try:
        out = decompressor.decompress(data, cap + 1)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
        raise _Failure(f"corrupt data ({error})") from None
    if len(out) <= cap and not decompressor.eof:
        raise _Failure(f"truncated after {len(out)} decompressed bytes")
    return out, len(data) - len(decompressor.unused_data)


def _gzip(data: memoryview, cap: int) -> tuple[bytes, int]:
    return _run(zlib.decompressobj(31), data, cap)


def _xz(data: memoryview, cap: int) -> tuple[bytes, int]:
    return _run(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAXIMUM_DICTIONARY), data, cap)


def _lzma(data: memoryview, cap: int) -> tuple[bytes, int]:
    return _run(lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MAXIMUM_DICTIONARY), data, cap)


def _bzip2(data: memoryview, cap: int) -> tuple[bytes, int]:
    return _run(bz2.BZ2Decompressor(), data, cap)


def _zstd(data: memoryview, cap: int) -> tuple[bytes, int]:
    import zstandard

    pieces: list[bytes] = []
    size = 0
    try:
        checksum = zstandard.get_frame_parameters(data).has_checksum
        end = _zstd_frame(data, zstandard.frame_header_size(data), checksum)
        # Read in pieces: the reader's output is bounded by what is asked for, and an RLE block is a bomb.
        stream = zstandard.ZstdDecompressor(max_window_size=MAXIMUM_DICTIONARY).stream_reader(data[:end])
        while size <= cap and (piece := stream.read(_ZSTD_PIECE)):
            pieces.append(piece)
            size += len(piece)
    except zstandard.ZstdError as error:
        raise _Failure(f"corrupt data ({error})") from None
    return b"".join(pieces), end


def _zstd_frame(data: memoryview, at: int, checksum: bool) -> int:
    """Bytes of the frame at the start of `data`, by its block headers (RFC 8878, section 3.1.1.2)."""
    last = False
    while not last:
        header = int.from_bytes(data[at : at + 3], "little")
        last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        at += 3 + (1 if kind == 1 else size)  # 1: one byte, repeated
        if at > len(data):
            raise _Failure("truncated")
    at += 4 * checksum
    if at > len(data):
        raise _Failure("truncated")
    return at


def _lz4(data: memoryview, cap: int) -> tuple[bytes | bytearray, int]:
    import lz4.block

    out, used = bytearray(), 4
    while len(data) - used >= 4 and len(out) <= cap:
        length = int.from_bytes(data[used : used + 4], "little")
        if len(data) - used == 4 or length == 0 or length > _LZ4_BOUND:
            break
        block = data[used + 4 : used + 4 + length]
        if len(block) < length:
            raise _Failure(f"truncated after {len(out)} decompressed bytes")
        try:
            out += lz4.block.decompress(block, uncompressed_size=_LZ4_BLOCK)
        except lz4.block.LZ4BlockError as error:
            raise _Failure(f"corrupt data ({error})") from None
        used += 4 + length
    return out, used


class _Reader:
    """Big-endian numbers from front to back."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> memoryview:
        piece = self.data[self.at : self.at + size]
        if len(piece) < size:
            raise _Failure("truncated")
        self.at += size
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")


def _lzo(data: memoryview, cap: int) -> tuple[bytes, int]:
    reader = _Reader(data)
    reader.take(9)
    version = reader.number(2)
    reader.take(2)  # library version
    if version >= 0x940:
        reader.take(2)  # version needed to extract
    reader.take(1)  # method
    if version >= 0x940:
        reader.take(1)  # level
    flags = reader.number(4)
    if flags & 0x800:  # F_H_FILTER
        reader.take(4)
    reader.take(8 if version < 0x940 else 12)  # mode, mtime
    reader.take(reader.number(1))  # name
    reader.take(4)  # header checksum
    if flags & 0x40:  # F_H_EXTRA_FIELD
        reader.take(reader.number(4) + 4)
    pieces: list[bytes] = []
    size = 0
    lzo: Any = None
    while size <= cap:
        whole = reader.number(4)
        if whole == 0:
            break
        packed = reader.number(4)
        if whole > _LZO_BLOCK or packed > whole or packed == 0:
            raise _Failure(f"corrupt data (block of {packed} bytes for {whole})")
        reader.take(4 * (bool(flags & 0x1) + bool(flags & 0x100)))  # Adler-32, CRC-32 of the content
        if packed < whole:
            reader.take(4 * (bool(flags & 0x2) + bool(flags & 0x200)))  # … of the compressed block
        block = bytes(reader.take(packed))
        if packed < whole:
            if lzo is None:
                lzo = _import_lzo()
            try:
                block = lzo.decompress(block, False, whole)
            except lzo.error as error:
                raise _Failure(f"corrupt data ({error})") from None
            if len(block) != whole:
                raise _Failure(f"corrupt data (block of {len(block)} bytes, {whole} promised)")
        pieces.append(block)
        size += whole
    return b"".join(pieces), reader.at


def _import_lzo() -> Any:
    try:
        return importlib.import_module("lzo")
    except ImportError:
        raise _Failure("needs the Python module lzo (package python-lzo), which is not installed") from None


_METHODS: dict[str, Callable[[memoryview, int], tuple[bytes | bytearray, int]]] = {
    "gzip": _gzip,
    "xz": _xz,
    "zstd": _zstd,
    "lz4": _lz4,
    "lzma": _lzma,
    "bzip2": _bzip2,
    "lzo": _lzo,
}
