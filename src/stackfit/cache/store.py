"""A directory of answers: one file an entry, written whole or not at all, checked whole when it is read.

An entry is a set of named byte strings under a key (cache/key.py). Its file is

    MAGIC, the SHA-256 of the key and of all that follows, the header's length (4 bytes, little endian),
    the header (JSON: [[name, bytes packed, bytes]…]), the packed parts (Zstandard) one after the other.

Nothing in it is ever executed or unpickled. What does not agree with its digest is removed and counts as
not there. A full disk or a directory that cannot be written costs the time that the entry would have saved.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import zstandard

from stackfit.image.model import InputError

__all__ = ["MOST_BYTES", "Store", "default_directory", "default_store", "open_store"]

MAGIC = b"stackfit-cache-1\n"
MOST_BYTES = 1 << 30  # of all entries together; what was not used for longest goes first
MOST_ENTRY = 1 << 29  # bytes of one entry, unpacked: more is not kept
_DIGEST = hashlib.sha256().digest_size
_LEVEL = 1  # Zstandard's: packs JSON tenfold at a few hundred MB a second
_MOST_HEADER = 1 << 20  # bytes
_SUFFIX, _NEW = ".answer", ".new-"


@dataclass(frozen=True)
class Store:
    """Entries below `directory`, at most `limit` bytes of files."""

    directory: Path
    limit: int = MOST_BYTES

    def load(self, key: str) -> dict[str, bytes] | None:
        """The parts kept under that key; None: there are none, or they are damaged (and removed)."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        parts = _unpack(key, data)
        if parts is None:
            _remove(path)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used now
        return parts

    def save(self, key: str, parts: Mapping[str, bytes]) -> bool:
        """Keep the parts; False: they are too large, or the directory cannot be written."""
        if sum(map(len, parts.values())) > MOST_ENTRY:
            return False
        data = _pack(key, parts)
        path = self._path(key)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_NEW)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError:
            return False
        self._shrink(path)
        return True

    def entries(self) -> list[tuple[Path, int, float]]:
        """(file, bytes, time of last use) of each entry, the one used longest ago first."""
        found = []
        for path in self._files():
            with contextlib.suppress(OSError):
                status = path.stat()
                found.append((path, status.st_size, status.st_mtime))
        return sorted(found, key=lambda entry: (entry[2], entry[0]))

    def clear(self) -> int:
        """Remove every entry; how many there were."""
        return sum(_remove(path) for path, _, _ in self.entries())

    def _path(self, key: str) -> Path:
        return self.directory / key[:2] / f"{key}{_SUFFIX}"

    def _files(self) -> Iterator[Path]:
        """Files of entries, and those that an interrupted run has left."""
        for pattern in (f"*{_SUFFIX}", f"{_NEW}*"):
            yield from self.directory.glob(f"[0-9a-f][0-9a-f]/{pattern}")

    def _shrink(self, new: Path) -> None:
        """Remove what was not used for longest, until the rest is within the limit; `new` stays."""
        entries = self.entries()
        size = sum(entry[1] for entry in entries)
        for path, own, _ in entries:
            if size <= self.limit:
                return
            if path != new:
                size -= own
                _remove(path)


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _digest(key: str, body: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(key.encode())
    digest.update(body)
    return digest.digest()


def _pack(key: str, parts: Mapping[str, bytes]) -> bytes:
    packer = zstandard.ZstdCompressor(level=_LEVEL)
    packed = {name: packer.compress(data) for name, data in parts.items()}
    rows = [[name, len(packed[name]), len(data)] for name, data in parts.items()]
    header = json.dumps(rows).encode()
    body = b"".join([len(header).to_bytes(4, "little"), header, *packed.values()])
    return b"".join([MAGIC, _digest(key, body), body])


def _unpack(key: str, data: bytes) -> dict[str, bytes] | None:
    """The parts of an entry's file, or None where anything about it is wrong."""
    start = len(MAGIC) + _DIGEST
    body = memoryview(data)[start:]
    if not data.startswith(MAGIC) or _digest(key, body) != data[len(MAGIC) : start]:
        return None
    size = int.from_bytes(body[:4], "little")
    if size > _MOST_HEADER:
        return None
    try:
        rows = json.loads(bytes(body[4 : 4 + size]))
        if sum(row[2] for row in rows) > MOST_ENTRY:
            return None
        at = 4 + size
        parts = {}
        for name, packed, whole in rows:
            parts[name] = zstandard.decompress(body[at : at + packed], max_output_size=whole)
            at += packed
            if len(parts[name]) != whole:
                return None
    except (ValueError, TypeError, IndexError, zstandard.ZstdError):
        return None
    return parts


def default_directory() -> Path | None:
    """`stackfit` in the user's cache directory (XDG Base Directory Specification); None: there is no home."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(named):  # a relative one is to be ignored
        return Path(named) / "stackfit"
    home = os.path.expanduser("~")
    return Path(home) / ".cache" / "stackfit" if os.path.isabs(home) else None


def default_store() -> Store | None:
    """The user's own store. None: its directory cannot be made, or somebody else could have written there."""
    directory = default_directory()
    if directory is None:
        return None
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except (OSError, ValueError):
        return None
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return None if status.st_uid != os.geteuid() or writable else Store(directory)


def open_store(directory: str | Path) -> Store:
    """The store in that directory, which is made if need be. InputError: it cannot be used."""
    path = Path(directory)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise InputError(str(directory), "the directory cannot be written")
    except (OSError, ValueError) as error:
        raise InputError(str(directory), getattr(error, "strerror", None) or str(error)) from None
    return Store(path)
