"""Census files of many hosts, wherever fsspec reaches: found by place, read strictly.

A file is a host's. Its rows are those that `measure census` writes (docs/schemas/stackfit.census-1.json), as
Parquet or CSV; columns that are not known are passed over. What a file claims is not believed: sizes and
counts have limits, and a row that contradicts itself refuses the file.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackfit.fleet.extra import need
from stackfit.image.model import InputError
from stackfit.measure.census import LIMITS

__all__ = ["SUFFIXES", "HostFile", "HostRows", "Key", "find_hosts", "read_host"]

Key = tuple[str, str, int, str, str]  # layout, stack, size, kind, name

SUFFIXES = (".parquet", ".csv")
_TEXTS = ("release", "build_id", "machine", "layout", "stack", "kind", "name")
_NUMBERS = ("size", "stacks", "greatest", "median")
_COUNTS = tuple(f"at_most_{limit}" for limit in LIMITS)  # not in files of before
_MACHINES = ("i386", "x86_64")
_KINDS = ("", "user", "kthread", "idle", "cpu", "ended")
_MOST_BYTES = 256 << 20  # of a file: a host's has some thousand rows
_MOST_ROWS = 1_000_000
_MOST_UNPACKED = 512 << 20  # bytes that Parquet says it unpacks to
_LONGEST = 1_000  # characters of a text
_MOST_SIZE = 1 << 30  # bytes of a stack
_MOST_STACKS = 1 << 32
_BATCH = 1 << 16  # rows read at a time
_USER = re.compile(r"(?<=://)[^/@]*@")
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class HostFile:
    """`name`: below the place that it was found in; `system`: the fsspec file system that has `path`."""

    name: str
    system: Any
    path: str


@dataclass(frozen=True, eq=False)
class HostRows:
    """One host's rows, those of no stacks left out; arrays by row. Bytes. `kernel`: release, build-id,
    machine; None without a row."""

    host: str
    digest: str  # of the file: SHA-256
    kernel: tuple[str, str, str] | None
    keys: tuple[Key, ...]  # distinct
    stacks: NDArray[np.int64]
    greatest: NDArray[np.int64]
    median: NDArray[np.int64]
    counts: NDArray[np.int64] | None  # row × LIMITS: marks that are at most so deep; None: files of before

    def only(self, chosen: NDArray[np.bool_]) -> HostRows:
        """Some of the rows."""
        return HostRows(
            self.host,
            self.digest,
            self.kernel,
            tuple(key for key, wanted in zip(self.keys, chosen.tolist(), strict=True) if wanted),
            self.stacks[chosen],
            self.greatest[chosen],
            self.median[chosen],
            None if self.counts is None else self.counts[chosen],
        )

    def at_most(self, limit: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many marks of each row are at most `limit` bytes: not fewer than, not more than.

        The lower median is number (n - 1) // 2 in order, so as many are at most it, and one more: itself.
        """
        stacks, greatest, median = self.stacks, self.greatest, self.median
        low = np.where(greatest <= limit, stacks, np.where(median <= limit, (stacks + 1) // 2, 0))
        high = np.where(greatest <= limit, stacks, np.where(median <= limit, stacks - 1, (stacks - 1) // 2))
        for at, known in enumerate(LIMITS if self.counts is not None else ()):
            assert self.counts is not None
            if known <= limit:
                low = np.maximum(low, self.counts[:, at])
            if known >= limit:
                high = np.minimum(high, self.counts[:, at])
        return low, high


def find_hosts(places: Sequence[str]) -> list[HostFile]:
    """The files of directories, patterns and single files, local or by URL; by name, each once.

    InputError: a place is not there, cannot be listed, or has no such file.
    """
    found: dict[str, HostFile] = {}
    for place in places:
        for file in _find(place):
            found.setdefault(file.system.unstrip_protocol(file.path), file)
    names = [file.name for file in found.values()]
    if len(set(names)) < len(names):  # of several places: only the whole address tells them apart
        found = {url: replace(file, name=shown(url)) for url, file in found.items()}
    return [file for _, file in sorted(found.items(), key=lambda item: (item[1].name, item[0]))]


def shown(place: str) -> str:
    """A place without the password that a URL may carry."""
    return _USER.sub("", place)


def _find(place: str) -> list[HostFile]:
    core = need("fsspec.core")
    name = shown(place)
    try:
        system, path = core.url_to_fs(place)
        if system.isdir(path):
            base, paths = path, _search(system, path)
        elif system.isfile(path):
            base, paths = str(PurePosixPath(path).parent), [path]
        elif (wild := _WILD.search(path)) is not None:
            base = str(PurePosixPath(path[: wild.start()] + "x").parent)
            paths = [one for one in system.glob(path) if system.isfile(one)]
        else:
            raise InputError(name, "neither a file nor a directory")
        files = [HostFile(_below(base, one), system, one) for one in paths]
    except InputError:
        raise
    except Exception as error:  # whatever the file system of a URL raises
        raise InputError(name, _cause(error)) from None
    if not files:
        raise InputError(name, f"no census files there ({', '.join(f'*{one}' for one in SUFFIXES)})")
    return files


def _search(system: Any, path: str) -> list[str]:
    """Files of a directory and those below it."""
    if type(system).__name__ != "LocalFileSystem":
        return [one for one in system.find(path) if one.endswith(SUFFIXES)]
    found = []  # no link to a directory is followed: it may lead back
    for place, _, names in os.walk(path):
        found += [os.path.join(place, name) for name in names if name.endswith(SUFFIXES)]
    return [one for one in found if os.path.isfile(one)]


def _below(base: str, path: str) -> str:
    try:
        return str(PurePosixPath(path).relative_to(base))
    except ValueError:
        return path


def _cause(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:300]


def read_host(file: HostFile) -> HostRows:
    """Read and check one file. InputError names it and the row or column."""
    data = _bytes(file)
    parts: dict[str, list[Any]] = {name: [] for name in (*_TEXTS, *_NUMBERS, *_COUNTS)}
    rows = 0
    for batch in _batches(file, data):
        for name in _TEXTS:
            parts[name] += _texts(file, batch, name, rows)
        for name in (*_NUMBERS, *_counts_in(batch.schema.names)):
            parts[name].append(_numbers(file, batch, name, rows))
        rows += batch.num_rows
        if rows > _MOST_ROWS:
            raise InputError(file.name, f"more than {_MOST_ROWS} rows")
    numbers = {
        name: np.concatenate(parts[name]) if parts[name] else np.zeros(0, np.int64)
        for name in (*_NUMBERS, *(name for name in _COUNTS if parts[name]))
    }
    _check(file, parts, numbers)
    return _rows(file, hashlib.sha256(data).hexdigest(), parts, numbers)


def _bytes(file: HostFile) -> bytes:
    need("fsspec")
    try:
        with file.system.open(file.path, "rb") as stream:
            data: bytes = stream.read(_MOST_BYTES + 1)
    except Exception as error:
        raise InputError(file.name, f"cannot be read: {_cause(error)}") from None
    if len(data) > _MOST_BYTES:
        raise InputError(file.name, f"larger than {_MOST_BYTES >> 20} MiB")
    if not data:
        raise InputError(file.name, "the file is empty")
    return data


def _batches(file: HostFile, data: bytes) -> Iterator[Any]:
    """Record batches with at least the columns that are known."""
    pyarrow = need("pyarrow")
    try:
        if data[:4] == b"PAR1":
            yield from _parquet(file, data)
        elif file.path.endswith(".parquet"):
            raise InputError(file.name, "not Parquet", 0)
        else:
            yield from _csv(file, data)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(file.name, f"damaged: {_cause(error)}") from None


def _parquet(file: HostFile, data: bytes) -> Iterator[Any]:
    parquet = need("pyarrow.parquet")
    opened = parquet.ParquetFile(io.BytesIO(data))
    _columns(file, opened.schema_arrow.names)
    if opened.metadata.num_rows > _MOST_ROWS:
        raise InputError(file.name, f"more than {_MOST_ROWS} rows")
    unpacked = sum(
        opened.metadata.row_group(at).total_byte_size for at in range(opened.metadata.num_row_groups)
    )
    if unpacked > _MOST_UNPACKED:
        raise InputError(file.name, f"unpacks to more than {_MOST_UNPACKED >> 20} MiB")
    counts = _counts_in(opened.schema_arrow.names)
    yield from opened.iter_batches(batch_size=_BATCH, columns=[*_TEXTS, *_NUMBERS, *counts])


def _csv(file: HostFile, data: bytes) -> Iterator[Any]:
    pyarrow, csv = need("pyarrow"), need("pyarrow.csv")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise InputError(file.name, "neither Parquet nor UTF-8 text", error.start) from None
    kinds = dict.fromkeys(_TEXTS, pyarrow.string())
    kinds |= dict.fromkeys((*_NUMBERS, *_COUNTS), pyarrow.int64())
    opened = csv.open_csv(
        io.BytesIO(data),
        read_options=csv.ReadOptions(use_threads=False),
        convert_options=csv.ConvertOptions(column_types=kinds, strings_can_be_null=False),
    )
    _columns(file, opened.schema.names)
    yield from opened


def _columns(file: HostFile, names: Sequence[str]) -> None:
    missing = [name for name in (*_TEXTS, *_NUMBERS) if name not in names]
    if missing:
        raise InputError(file.name, f"no census of measure census: no column {', '.join(missing)}")
    twice = [name for name in (*_TEXTS, *_NUMBERS, *_COUNTS) if list(names).count(name) > 1]
    if twice:
        raise InputError(file.name, f"column {', '.join(twice)} is there twice")


def _counts_in(names: Sequence[str]) -> tuple[str, ...]:
    """All of those columns, or none."""
    return _COUNTS if set(names).issuperset(_COUNTS) else ()


def _texts(file: HostFile, batch: Any, name: str, rows: int) -> list[str]:
    pyarrow = need("pyarrow")
    column = batch.column(batch.schema.get_field_index(name))
    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        raise InputError(file.name, f"column {name}: {kind}, not text")
    if column.null_count:
        raise InputError(file.name, f"row {rows + _first_null(column) + 1}: {name}: nothing there")
    coded = column if pyarrow.types.is_dictionary(column.type) else column.dictionary_encode()
    try:
        distinct = coded.dictionary.to_pylist()
    except UnicodeDecodeError:
        raise InputError(file.name, f"column {name}: not UTF-8 text") from None
    if any(len(text or "") > _LONGEST for text in distinct):
        raise InputError(file.name, f"column {name}: a text longer than {_LONGEST} characters")
    return [distinct[at] for at in coded.indices.to_pylist()]  # one object for each text, not for each row


def _first_null(column: Any) -> int:
    return int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))


def _numbers(file: HostFile, batch: Any, name: str, rows: int) -> NDArray[np.int64]:
    pyarrow = need("pyarrow")
    column = batch.column(batch.schema.get_field_index(name))
    if not pyarrow.types.is_integer(column.type):
        raise InputError(file.name, f"column {name}: {column.type}, not whole numbers")
    if column.null_count:
        raise InputError(file.name, f"row {rows + _first_null(column) + 1}: {name}: nothing there")
    given = column.to_numpy(zero_copy_only=False)
    if given.dtype == np.uint64:  # 2**63 and above: as wrong as 2**63 - 1, which a check says
        given = np.minimum(given, np.uint64(np.iinfo(np.int64).max))
    values: NDArray[np.int64] = given.astype(np.int64)
    return values


def _check(file: HostFile, texts: dict[str, list[Any]], numbers: dict[str, NDArray[np.int64]]) -> None:
    size, stacks = numbers["size"], numbers["stacks"]
    greatest, median = numbers["greatest"], numbers["median"]
    rules: tuple[tuple[NDArray[np.bool_], str], ...] = (
        ((size < 0) | (size > _MOST_SIZE), f"size is not between 0 and {_MOST_SIZE}"),
        ((stacks < 0) | (stacks > _MOST_STACKS), f"stacks is not between 0 and {_MOST_STACKS}"),
        (greatest > size, "greatest is above the stack's size"),
        ((median < 0) | (median > greatest), "median is not between 0 and greatest"),
        ((stacks == 1) & (median != greatest), "one stack, but median is not greatest"),
        (_not_in(texts["machine"], _MACHINES), f"machine is none of {', '.join(_MACHINES)}"),
        (_not_in(texts["kind"], _KINDS), f"kind is none of {', '.join(_KINDS[1:])} and empty"),
    )
    for at, limit in enumerate(LIMITS if _COUNTS[0] in numbers else ()):
        count, before = numbers[_COUNTS[at]], numbers[_COUNTS[at - 1]] if at else 0
        wrong = (count < before) | (count > stacks) | ((greatest <= limit) != (count == stacks))
        wrong |= (median <= limit) != (count > (stacks - 1) // 2)
        rules += (((stacks > 0) & wrong, f"{_COUNTS[at]} contradicts the columns before it"),)
    for wrong, cause in rules:
        if wrong.any():
            raise InputError(file.name, f"row {int(np.argmax(wrong)) + 1}: {cause}")


def _not_in(values: list[str], known: Sequence[str]) -> NDArray[np.bool_]:
    allowed = set(known)
    return np.fromiter((value not in allowed for value in values), np.bool_, len(values))


def _rows(
    file: HostFile, digest: str, texts: dict[str, list[Any]], numbers: dict[str, NDArray[np.int64]]
) -> HostRows:
    there = np.flatnonzero(numbers["stacks"] > 0).tolist()
    kernels = {(texts["release"][at], texts["build_id"][at], texts["machine"][at]) for at in there}
    if len(kernels) > 1:
        raise InputError(file.name, f"rows of {len(kernels)} kernels: a file is one host's, at one time")
    columns = (texts["layout"], texts["stack"], numbers["size"].tolist(), texts["kind"], texts["name"])
    keys = tuple(zip(*([column[at] for at in there] for column in columns), strict=True))
    if len(set(keys)) < len(keys):
        raise InputError(file.name, "the same task twice: a file is one host's, at one time")
    return HostRows(
        file.name,
        digest,
        kernels.pop() if kernels else None,
        keys,
        numbers["stacks"][there],
        numbers["greatest"][there],
        numbers["median"][there],
        np.stack([numbers[name][there] for name in _COUNTS], axis=1) if _COUNTS[0] in numbers else None,
    )
