"""Output of commands: files whole or not at all, notes; and a record of both for the cache."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from stackfit.image.model import InputError

__all__ = ["Written", "note", "output", "output_bytes", "output_file", "recording"]

_MOST_RECORDED = 1 << 28  # bytes of one file: larger ones are not recorded


@dataclass
class Written:
    """What a command has written: files by the path given, lines of notes."""

    files: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


_record: ContextVar[Written | None] = ContextVar("record", default=None)


@contextmanager
def recording() -> Iterator[Written]:
    """Everything that goes through this module while it lasts."""
    written = Written()
    token = _record.set(written)
    try:
        yield written
    finally:
        _record.reset(token)


def note(text: str) -> None:
    """A line on standard error that is no error."""
    line = f"stackfit: note: {text}"
    print(line, file=sys.stderr)
    written = _record.get()
    if written is not None:
        written.notes.append(line)


def output(path: str, text: str) -> None:
    """Write a whole file or nothing; `-` is standard output. Pipes and devices are written to as they are."""
    if path == "-":
        sys.stdout.write(text)
        return
    output_bytes(path, text.encode("utf-8"))


def output_bytes(path: str, data: bytes) -> None:
    """As `output`, of bytes; `-` is standard output too."""
    if path == "-":
        sys.stdout.buffer.write(data)
        return
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file() and not target.is_dir():
            with target.open("wb") as device:
                device.write(data)
        else:
            _put(target, lambda temporary: _fill(temporary, data))
    except (OSError, ValueError) as error:
        raise InputError(path, getattr(error, "strerror", None) or str(error)) from None
    _recorded(path, data)


def output_file(path: str, write: Callable[[Path], None]) -> None:
    """A whole file or nothing, by what writes into the empty file that it is given."""
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise InputError(path, "not a regular file")
    try:
        _put(target, write)
        if _record.get() is not None and target.stat().st_size <= _MOST_RECORDED:
            _recorded(path, target.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(path, getattr(error, "strerror", None) or str(error)) from None


def _recorded(path: str, data: bytes) -> None:
    written = _record.get()
    if written is not None and len(data) <= _MOST_RECORDED:
        written.files[path] = data


def _fill(file: Path, data: bytes) -> None:
    file.write_bytes(data)


def _put(target: Path, write: Callable[[Path], None]) -> None:
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.")
    os.close(handle)
    try:
        write(Path(temporary))
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
