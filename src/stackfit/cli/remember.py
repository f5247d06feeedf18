"""Commands that answer from the cache: what one wrote, again, while all that it rests on is unchanged.

The answer of a command is what it prints and the files that it writes, byte for byte, and its exit status.
Its key has every option, the content of every file that an option names, of the modules of directories, of
the configuration, the names of these files (they are printed), and how the terminal shows text.
"""

from __future__ import annotations

import argparse
import enum
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TextIO, cast

from stackfit.cache.key import Key, digests, signature
from stackfit.cache.store import Store, default_store, open_store
from stackfit.cli.written import Written, output_bytes, output_file, recording
from stackfit.frames.statements import statement_files
from stackfit.image.load import find_modules
from stackfit.image.model import InputError

__all__ = ["add_cache_options", "remembered"]

_DESTINATIONS = ("json", "html", "sarif", "folded", "markdown", "db")
_NO_INPUT = ("run", "status", "command", "cache", "no_cache", "resolve", *_DESTINATIONS)
_TERMINAL = ("COLUMNS", "COLORTERM", "FORCE_COLOR", "LINES", "NO_COLOR", "TERM", "TTY_COMPATIBLE")
_ANSWER, _TEXT = "answer", "text"  # parts of an entry, besides a file for each destination


def add_cache_options(parser: argparse.ArgumentParser) -> None:
    """Where answers are kept."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--cache", metavar="DIR", help="keep answers there (default: stackfit in the user's cache directory)"
    )
    group.add_argument("--no-cache", action="store_true", help="neither take an answer kept nor keep one")


def remembered(options: argparse.Namespace, run: Callable[[], int], more: Sequence[str | None] = ()) -> int:
    """The command's status: from the cache, else from `run`, which is kept. `more`: further files read."""
    store = _store(options)
    if store is None or _one_file_twice(options):  # what is written last counts
        return run()
    values = {name: _plain(value) for name, value in vars(options).items() if name not in _NO_INPUT}
    try:
        files = _files(values, more)
        before = signature(files)
        key = Key(f"command {options.command}")
        key.add("options", values)
        key.add("files", [str(path) for path in files])
        key.add("contents", digests(files))
        key.add("outputs", {name: _kind(getattr(options, name, None)) for name in _DESTINATIONS})
        key.add("terminal", _terminal())
    except (InputError, OSError):  # the command has more to say of it
        return run()
    kept = store.load(key.text)
    if kept is not None:
        return _replay(options, kept)
    tee = _Tee(sys.stdout)
    with recording() as written, redirect_stdout(cast(TextIO, tee)):
        status = run()
    if not tee.bypassed and _unchanged(values, more, files, before):  # else: whose answer is it?
        _keep(store, key.text, options, written, tee.text, status)
    return status


def _store(options: argparse.Namespace) -> Store | None:
    if options.no_cache:
        return None
    return default_store() if options.cache is None else open_store(options.cache)


def _plain(value: Any) -> Any:
    """A value of an option as one that JSON can hold."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(one) for one in value)
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    raise TypeError(f"an option with a value of type {type(value).__name__}")


def _files(values: dict[str, Any], more: Iterable[str | None]) -> list[Path]:
    """The files that are read: whatever an option's value names, modules of directories in their place, the
    configuration. InputError: one is no regular file, so that its content is not to be had beforehand."""
    named = [
        (name, text)
        for name, value in values.items()
        for text in (value if isinstance(value, list) else [value])
    ]
    files: list[Path] = []
    for name, text in [*named, *(("", one) for one in more)]:
        if not isinstance(text, str) or not text or "\0" in text:
            continue
        path = Path(text)
        if path.is_dir():
            files += statement_files([path]) if name == "witness" else find_modules([path])
        elif path.exists():
            files.append(path)
    return files


def _unchanged(
    values: dict[str, Any],
    more: Iterable[str | None],
    files: list[Path],
    before: list[tuple[int, ...] | None],
) -> bool:
    """Whether the files are still the same, in directories too."""
    try:
        return _files(values, more) == files and signature(files) == before
    except (InputError, OSError):
        return False


def _one_file_twice(options: argparse.Namespace) -> bool:
    """Whether two outputs go to one file by different names."""
    paths = {path for name in _DESTINATIONS if (path := getattr(options, name, None)) not in (None, "-")}
    try:
        return len({os.path.realpath(path) for path in paths}) < len(paths)
    except (OSError, ValueError):
        return True


def _kind(destination: str | None) -> str | None:
    """Where an output goes, as far as it matters to what else is printed."""
    return "-" if destination == "-" else None if destination is None else "file"


def _terminal() -> list[Any]:
    """What the form of printed text depends on."""
    width = os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else None
    return [width, *(os.environ.get(name) for name in _TERMINAL)]


class _Tee:
    """A text stream that also keeps what is written to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._kept: list[str] = []
        self.bypassed = False  # something was written that was not kept

    @property
    def text(self) -> str:
        return "".join(self._kept)

    def write(self, text: str) -> int:
        self._kept.append(text)
        return self._stream.write(text)

    @property
    def buffer(self) -> Any:
        self.bypassed = True
        return self._stream.buffer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _keep(
    store: Store, key: str, options: argparse.Namespace, written: Written, text: str, status: int
) -> None:
    parts = {_TEXT: text.encode("utf-8", "surrogatepass")}
    for name in _DESTINATIONS:
        path = getattr(options, name, None)
        if path is not None and path != "-":
            data = written.files.get(path)
            if data is None:
                return  # not written, or too large to be kept
            parts[name] = data
    parts[_ANSWER] = json.dumps({"status": status, "notes": written.notes}).encode()
    store.save(key, parts)


def _write(path: str, data: bytes, regular: bool) -> None:
    """As the command does it: a database is never written to a device."""

    def fill(file: Path) -> None:
        file.write_bytes(data)

    if regular:
        output_file(path, fill)
    else:
        output_bytes(path, data)


def _replay(options: argparse.Namespace, kept: dict[str, bytes]) -> int:
    answer = json.loads(kept[_ANSWER])
    options.status = int(answer["status"])
    for name in _DESTINATIONS:
        path = getattr(options, name, None)
        if path is not None and path != "-":
            _write(path, kept[name], name == "db")
    for text in answer["notes"]:
        print(text, file=sys.stderr)
    sys.stdout.write(kept[_TEXT].decode("utf-8", "surrogatepass"))
    return int(answer["status"])
