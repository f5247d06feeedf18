"""Databases read back, as far as a diff needs them."""

from __future__ import annotations

import sqlite3
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from stackfit.analysis import Analysis
from stackfit.image.model import InputError
from stackfit.store.model import Frame, Function, Ladder, Need, Snapshot
from stackfit.store.tables import APPLICATION_ID, SCHEMA_VERSION
from stackfit.store.write import fill

__all__ = ["is_database", "read_database", "snapshot"]

_MAGIC = b"SQLite format 3\0"
_MOST_TEXT = 1 << 20  # bytes of a value
_STEP = 10_000  # instructions of SQLite's machine
_FREE_STEPS, _STEPS = 2_000, 2
_TABLES = (
    "about",
    "images",
    "assumptions",
    "functions",
    "sites",
    "candidates",
    "stacks",
    "contexts",
    "layouts",
    "chain_frames",
)


def is_database(path: str | Path) -> bool:
    """Whether the file is one of SQLite's; False where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except (OSError, ValueError):
        return False


def read_database(path: str | Path) -> Snapshot:
    """A database that `check --db` wrote. InputError: it is another one, of a later version, or damaged."""
    name = str(path)
    try:
        uri = f"{Path(path).resolve().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            _limit(connection, Path(path).stat().st_size)
            _check(name, connection)
            return _read(name, connection)
    except sqlite3.Error as error:
        raise InputError(name, f"the database cannot be read: {error}") from None
    except (TypeError, ValueError, OverflowError):  # a text where a number belongs, or the other way round
        raise InputError(name, "the database holds values that stackfit did not write") from None


def _limit(connection: sqlite3.Connection, size: int) -> None:
    """What a database may cost follows from its size: columns can be computed, and everything may join with
    everything. (One that was written here takes a fifth of an instruction a byte.)"""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_TEXT)
    left = _FREE_STEPS + _STEPS * size // _STEP

    def step() -> bool:
        nonlocal left
        left -= 1
        return left < 0  # ends the statement: OperationalError

    connection.set_progress_handler(step, _STEP)


def snapshot(analysis: Analysis, path: str) -> Snapshot:
    """What a database of this analysis would hold."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        fill(connection, analysis)
        return _read(path, connection)


def _check(path: str, connection: sqlite3.Connection) -> None:
    ((application,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    if application != APPLICATION_ID:
        raise InputError(path, "a SQLite database, but none that stackfit wrote")
    if version != SCHEMA_VERSION:
        raise InputError(path, f"tables of version {version}; this stackfit reads version {SCHEMA_VERSION}")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for name in _TABLES:
        if name not in tables:
            raise InputError(path, f"the database has no table {name}")


def _read(path: str, connection: sqlite3.Connection) -> Snapshot:
    about = {str(key): str(value) for key, value in connection.execute("SELECT key, value FROM about")}
    images = [
        (_text(module), _text(build), _text(release))
        for module, build, release in connection.execute(
            "SELECT module, build_id, release FROM images ORDER BY image"
        )
    ]
    if not images:
        raise InputError(path, "the database names no image")
    chains = _chains(connection)
    return Snapshot(
        path=path,
        about=about,
        release=images[0][2],
        images=tuple((module, build) for module, build, _ in images),
        assumptions=frozenset(
            (str(kind), str(subject), str(reason))
            for kind, subject, reason in connection.execute("SELECT kind, subject, reason FROM assumptions")
        ),
        functions=tuple(_functions(connection)),
        edges=_edges(connection),
        stacks=tuple(_stacks(connection, chains)),
        contexts=tuple(_contexts(connection, chains)),
    )


def _functions(connection: sqlite3.Connection) -> Iterator[Function]:
    opened = defaultdict[int, dict[str, int]](dict)
    for function, reason, count in connection.execute(
        "SELECT function, reason, count(*) FROM sites WHERE reason IS NOT NULL GROUP BY function, reason"
    ):
        opened[int(function)][str(reason)] = int(count)
    nothing: dict[str, int] = {}
    for number, module, name, part_of, frame, prints in connection.execute(
        "SELECT function, module, name, part_of, frame, instructions"
        " FROM functions JOIN images USING (image) WHERE instructions IS NOT NULL ORDER BY function"
    ):
        yield Function(
            int(number), _text(module), str(name), _text(part_of), _number(frame), str(prints),
            opened.get(int(number), nothing),
        )  # fmt: skip


def _edges(connection: sqlite3.Connection) -> tuple[array[int], array[int]]:
    callers, callees = array("q"), array("q")
    for caller, callee in connection.execute(
        "SELECT s.function, c.function FROM sites s JOIN candidates c USING (candidates)"
        " WHERE s.kind IN ('direct', 'tail', 'static-call') ORDER BY s.site, c.function"
    ):
        callers.append(int(caller))
        callees.append(int(callee))
    return callers, callees


def _chains(connection: sqlite3.Connection) -> dict[int, tuple[Frame, ...]]:
    found = defaultdict[int, list[Frame]](list)
    for chain, name, module, depth in connection.execute(
        "SELECT chain, name, module, depth FROM chain_frames ORDER BY chain, position"
    ):
        found[int(chain)].append(Frame(str(name), _text(module), int(depth)))
    return {chain: tuple(frames) for chain, frames in found.items()}


def _stacks(connection: sqlite3.Connection, chains: dict[int, tuple[Frame, ...]]) -> Iterator[Need]:
    for layout, name, size, verdict, chain, *rungs in connection.execute(
        "SELECT l.name, s.name, s.size, s.verdict, s.chain, s.found, s.direct, s.bound, s.open"
        " FROM stacks s JOIN layouts l USING (layout) ORDER BY s.stack"
    ):
        key = (str(layout), str(name))
        yield Need(key, _ladder(rungs), chains.get(chain, ()), int(size), str(verdict))


def _contexts(connection: sqlite3.Connection, chains: dict[int, tuple[Frame, ...]]) -> Iterator[Need]:
    seen = Counter[tuple[str, ...]]()
    for kind, name, abi, stack, chain, *rungs in connection.execute(
        "SELECT kind, name, abi, stack, chain, found, direct, bound, open FROM contexts ORDER BY context"
    ):
        key = (str(kind), str(name), str(abi or ""), str(stack or ""))
        yield Need((*key, str(seen[key])), _ladder(rungs), chains.get(chain, ()))
        seen[key] += 1


def _ladder(rungs: list[Any]) -> Ladder:
    found, direct, bound, opened = rungs
    return Ladder(_number(found), _number(direct), _number(bound), int(opened))


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
