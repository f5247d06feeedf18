"""Strict reading of the TOML files that people write: layouts and assumption sets.

Every refusal is one `InputError` line that names the file and the key. Caps: a file of at most 1 MiB,
texts of at most 4,000 characters, lists of at most 10,000 items.
"""

from __future__ import annotations

import difflib
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stackfit.image.model import InputError

__all__ = ["MAX_FILE", "MAX_ITEMS", "MAX_TEXT", "Table", "find", "hint", "names_in", "quoted", "read_toml"]

MAX_FILE = 1 << 20  # bytes
MAX_ITEMS = 10_000  # items of a list
MAX_TEXT = 4_000  # characters of a text
_MOST_DOTS = 100  # of one key: for n of them tomllib keeps n keys of up to n parts
_QUOTED = re.compile(rb"\"[^\"]*\"|'[^']*'")


def quoted(text: str) -> str:
    """`text` quoted for a message: one line, at most 60 characters of it."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def hint(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` when `name` is close to one of `known`, else the empty string."""
    close = difflib.get_close_matches(name[:100], sorted(known), n=1)
    return f"; did you mean {quoted(close[0])}?" if close else ""


def read_toml(path: Path) -> dict[str, Any]:
    """The file's top-level table. InputError: no regular file, unreadable, too big, not UTF-8, not TOML."""
    shown = str(path) if str(path).isprintable() else repr(str(path))
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before opening: a pipe would block
            raise InputError(shown, "not a regular file")
        with path.open("rb") as file:
            raw = file.read(MAX_FILE + 1)
    except OSError as error:
        raise InputError(shown, f"cannot be read: {error.strerror or type(error).__name__}") from None
    except ValueError:  # a NUL byte in the path
        raise InputError(shown, "not a file name") from None
    if len(raw) > MAX_FILE:
        raise InputError(shown, f"larger than the {MAX_FILE >> 20} MiB that a file of this kind may have")
    for number, line in enumerate(raw.split(b"\n"), 1):
        if line.count(b".") > _MOST_DOTS and _key_of(line).count(b".") > _MOST_DOTS:
            raise InputError(shown, f"line {number}: a key of more than {_MOST_DOTS} parts")
    try:
        return tomllib.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise InputError(shown, "not UTF-8 text", error.start) from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(shown, f"not TOML: {' '.join(str(error).split())}") from None
    except (RecursionError, ValueError):  # nesting without end; integers of thousands of digits
        raise InputError(shown, "not TOML: nested too deeply or a number too long") from None


def _key_of(line: bytes) -> bytes:
    """What stands before the `=`, quoted parts left out."""
    return _QUOTED.sub(b"", line).partition(b"=")[0]


def find(name_or_path: str | Path, directory: Path, what: str) -> Path:
    """`directory`/NAME.toml where that exists, else the path itself.

    InputError when the text looks like a name (no `/`, no `.toml`) and is neither; `what` says of what.
    """
    text = str(name_or_path)
    names = names_in(directory)
    if text in names:
        return directory / f"{text}.toml"
    path = Path(text)
    if "/" in text or text.endswith(".toml"):
        return path
    try:
        exists = path.exists()
    except (OSError, ValueError):  # too long, a NUL byte
        exists = False
    if not exists:
        shown = text if text.isprintable() and len(text) <= 60 else quoted(text)
        raise InputError(shown, f"neither a file nor {what} ({', '.join(names)}){hint(text, names)}")
    return path


def names_in(directory: Path) -> tuple[str, ...]:
    """Names of the TOML files of a directory, without `.toml`, sorted."""
    return tuple(sorted(path.stem for path in directory.glob("*.toml")))


class Table:
    """One TOML table whose keys are taken one by one; `done` refuses what nobody took.

    `where` is the table's place in the file (`stack.process`, `cut #2`), empty for the top level.
    All methods raise InputError naming file and key.
    """

    def __init__(self, path: str, data: dict[str, Any], where: str = "") -> None:
        self.path = path
        self.where = where
        self._data = data
        self._known: set[str] = set()

    def error(self, key: str, cause: str) -> InputError:
        """An InputError about `key` of this table (about the table itself when `key` is empty)."""
        shown = key if key.isprintable() and len(key) <= 60 else quoted(key)
        place = ".".join(part for part in (self.where, shown) if part)
        return InputError(self.path, f"{place}: {cause}" if place else cause)

    def __contains__(self, key: str) -> bool:
        self._known.add(key)
        return key in self._data

    def __iter__(self) -> Iterator[str]:
        """Every key of the table, in file order."""
        return iter(self._data)

    def keys(self) -> tuple[str, ...]:
        """Every key of the table, in file order."""
        return tuple(self._data)

    def _take(self, key: str, kind: str, types: type | tuple[type, ...]) -> Any:
        self._known.add(key)
        if key not in self._data:
            raise self.error(key, f"missing ({kind} is required)")
        value = self._data[key]
        if not isinstance(value, types) or isinstance(value, bool):
            raise self.error(key, f"must be {kind}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A text that is not blank, white space folded; `default` when the key is absent."""
        if default is not None and key not in self:
            return default
        value = " ".join(str(self._take(key, "a text", str)).split())
        if not value:
            raise self.error(key, "must not be empty")
        if len(value) > MAX_TEXT:
            raise self.error(key, f"longer than {MAX_TEXT} characters")
        return value

    def choice(self, key: str, options: Iterable[str], default: str | None = None) -> str:
        """A text that is one of `options`."""
        value = self.text(key, default)
        known = list(options)
        if value not in known and value != default:
            raise self.error(key, f"{quoted(value)} is none of {', '.join(known)}{hint(value, known)}")
        return value

    def integer(self, key: str, least: int, most: int, default: int | None = None) -> int:
        """A whole number from `least` to `most`, both included."""
        if default is not None and key not in self:
            return default
        value = int(self._take(key, "a whole number", int))
        if not least <= value <= most:
            shown = value if abs(value) < 10**12 else "the number"
            raise self.error(key, f"{shown} is not between {least} and {most}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        if key not in self:
            return default
        value = self._data[key]
        if not isinstance(value, bool):
            raise self.error(key, "must be true or false")
        return value

    def integers(self, key: str, count: int | None, least: int, most: int) -> tuple[int, ...]:
        """A list of `count` (None: some) whole numbers from `least` to `most`."""
        kind = f"a list of {count if count is not None else 'some'} whole numbers between {least} and {most}"
        values = self._take(key, kind, list)
        wrong = len(values) != count if count is not None else not 0 < len(values) <= MAX_ITEMS
        if wrong or not all(type(value) is int and least <= value <= most for value in values):
            raise self.error(key, f"must be {kind}")
        return tuple(values)

    def number(self, key: str, least: float, most: float, default: float | None = None) -> float:
        """A number from `least` to `most`, whole or not."""
        if default is not None and key not in self:
            return default
        value = self._take(key, "a number", (int, float))
        if not least <= value <= most:  # also refuses nan
            raise self.error(key, f"must be a number between {least} and {most}")
        return float(value)

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """A list of texts that are not blank."""
        if default is not None and key not in self:
            return default
        values = self._take(key, "a list of texts", list)
        if len(values) > MAX_ITEMS:
            raise self.error(key, f"more than {MAX_ITEMS} items")
        folded = []
        for value in values:
            if not isinstance(value, str) or not value.strip():
                raise self.error(key, "must be a list of texts, none of them empty")
            if len(value) > MAX_TEXT:
                raise self.error(key, f"an item is longer than {MAX_TEXT} characters")
            folded.append(" ".join(value.split()))
        return tuple(folded)

    def items(self, key: str, kind: str) -> list[Any]:
        """A list of anything, which the caller checks; `kind` says of what."""
        values: list[Any] = self._take(key, kind, list)
        if not 0 < len(values) <= MAX_ITEMS:
            raise self.error(key, f"must be {kind}, at most {MAX_ITEMS} of them")
        return values

    def is_text(self, key: str) -> bool:
        """Whether the key is there and a text, for keys that may also be something else."""
        return key in self and isinstance(self._data[key], str)

    def table(self, key: str) -> Table | None:
        """The sub-table, or None when absent."""
        if key not in self:
            return None
        data: dict[str, Any] = self._take(key, "a table", dict)
        return Table(self.path, data, f"{self.where}.{key}" if self.where else key)

    def tables(self, key: str) -> list[Table]:
        """The `[[key]]` tables in file order, counted from 1 in messages; empty when absent."""
        if key not in self:
            return []
        items = self._take(key, f"written as [[{key}]]", list)
        if len(items) > MAX_ITEMS:
            raise self.error(key, f"more than {MAX_ITEMS} items")
        if not all(isinstance(item, dict) for item in items):
            raise self.error(key, f"must be written as [[{key}]]")
        return [Table(self.path, item, f"{key} #{number}") for number, item in enumerate(items, 1)]

    def done(self) -> None:
        """Refuse the first key that no method was asked for, with the nearest known one."""
        for key in self._data:
            if key not in self._known:
                raise self.error(key, f"unknown key{hint(key, self._known)}")
