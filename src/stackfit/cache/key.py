"""Keys of answers: SHA-256 over the content of everything that an answer rests on.

A key is made of labelled values. Files count by their bytes, not by name or time. The program itself counts
too: the bytes of the installed package, and the versions of Python and of the libraries that it computes and
prints with. So an answer is found again only by the very program that gave it.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stackfit.image.model import InputError

__all__ = ["Key", "digests", "program_digest", "signature"]

_FORMAT = 1  # of keys and of what is kept under them
_LIBRARIES = ("numpy", "rich", "zstandard", "lz4", "pyelftools", "plotly", "pyarrow", "drgn")


class Key:
    """Labelled values, put in one by one; the same values in the same order give the same text."""

    def __init__(self, purpose: str) -> None:
        self._digest = hashlib.sha256()
        self.add("format", _FORMAT)
        self.add("purpose", purpose)
        self.add("program", program_digest())

    def add(self, label: str, value: Any) -> None:
        """A value that JSON can hold; TypeError else."""
        text = json.dumps([label, value], sort_keys=True).encode()
        self._digest.update(len(text).to_bytes(8, "little"))
        self._digest.update(text)

    def add_files(self, label: str, paths: Sequence[str | Path]) -> None:
        """The content of files, in this order. InputError: one cannot be read."""
        self.add(label, digests(paths))

    @property
    def text(self) -> str:
        """64 hexadecimal digits."""
        return self._digest.hexdigest()


def digests(paths: Sequence[str | Path]) -> list[str]:
    """SHA-256 of each file, in order; on all CPUs. InputError: one is no regular file or cannot be read."""
    if len(paths) < 2:
        return [_file_digest(path) for path in paths]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(_file_digest, paths))


def _file_digest(path: str | Path) -> str:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # before opening: a pipe would block
            raise InputError(str(path), "not a regular file")
        with open(path, "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise InputError(str(path), getattr(error, "strerror", None) or str(error)) from None


def signature(paths: Iterable[str | Path]) -> list[tuple[int, ...] | None]:
    """What changes when a file does, without reading it: device, inode, size, time; None: it is gone."""
    found: list[tuple[int, ...] | None] = []
    for path in paths:
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return found


@cache
def program_digest() -> str:
    """SHA-256 of this package's files, compiled ones included, and of the versions that it runs on."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256(sys.version.encode())
    for name in _LIBRARIES:
        try:
            digest.update(f"{name} {version(name)}\n".encode())
        except PackageNotFoundError:
            digest.update(f"{name} -\n".encode())
    files = []
    for place, directories, names in os.walk(root):
        directories[:] = [name for name in directories if name != "__pycache__"]
        files += [os.path.join(place, name) for name in names]
    files.sort()
    for path, content in zip(files, digests(files), strict=True):
        digest.update(f"{os.path.relpath(path, root)} {content}\n".encode())
    return digest.hexdigest()
