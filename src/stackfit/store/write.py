"""An analysis written into a database: one row for each thing that check, frames and calls print."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackfit import __version__
from stackfit.analysis import Analysis
from stackfit.calls.model import CallKind, Evidence, Reason, Rung
from stackfit.image.model import InputError
from stackfit.isa.code import Code
from stackfit.report.json import check_json, frames_json
from stackfit.report.rows import ChainRow, chain_rows
from stackfit.store.tables import APPLICATION_ID, SCHEMA, SCHEMA_VERSION, TABLES, VIEWS

__all__ = ["fill", "fingerprints", "write_database"]

_SIGN = 1 << 63
_UNITS = ("length", "operation", "width", "register", "base", "index", "scale", "flags", "clobbers")
Row = Sequence[Any]


def write_database(analysis: Analysis, path: Path) -> None:
    """A new database in the empty or absent file at `path`. InputError: it cannot be written.

    The same analysis gives the same bytes with the same release of SQLite, which writes its own number
    into the file.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.execute(
                "PRAGMA journal_mode = OFF"
            )  # the caller puts the whole file into place, or none
            connection.execute("PRAGMA synchronous = OFF")
            fill(connection, analysis)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise InputError(str(path), f"cannot be written: {error}") from None


def fill(connection: sqlite3.Connection, analysis: Analysis) -> None:
    """Make the tables in an empty database, of a connection without implicit transactions, and fill them."""
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("BEGIN")
    for statement in TABLES.split(";"):
        connection.execute(statement)
    _Writer(connection, analysis).write()
    for statement in VIEWS.split(";"):
        connection.execute(statement)
    connection.execute("COMMIT")


class _Writer:
    def __init__(self, connection: sqlite3.Connection, analysis: Analysis) -> None:
        self._connection = connection
        self._analysis = analysis
        self._document = check_json(analysis)
        self._chains = 0

    def write(self) -> None:
        self._about()
        self._functions()
        self._sites()
        self._stacks()
        self._contexts()

    def _insert(self, table: str, rows: Iterable[Row]) -> None:
        """Rows of as many values as the table has columns."""
        rows = iter(rows)
        first = next(rows, None)
        if first is None:
            return
        statement = f"INSERT INTO {table} VALUES ({', '.join('?' * len(first))})"
        self._connection.execute(statement, first)
        self._connection.executemany(statement, rows)

    def _about(self) -> None:
        analysis, document = self._analysis, self._document
        limit = analysis.hop_limit
        about = {
            "schema": SCHEMA,
            "stackfit": __version__,
            "machine": document["image"]["machine"],
            "hop_limit": "unlimited" if limit is None else str(limit),
        }
        self._insert("about", about.items())
        images = [document["image"], *document["modules"]]
        self._insert(
            "images",
            (
                (
                    number,
                    image.get("name"),
                    _text(image["path"]),
                    analysis.program.images[number].machine.value,
                    image["release"],
                    image["build_id"],
                    analysis.program.images[number].symbol_source,
                )
                for number, image in enumerate(images)
            ),
        )
        self._insert("warnings", ((number, _text(text)) for number, text in enumerate(document["warnings"])))
        self._insert(
            "assumptions",
            (
                (number, one["kind"], one["name"], one["subject"], one["reason"], one["source"])
                for number, one in enumerate(document["assumptions"])
            ),
        )

    def _functions(self) -> None:
        functions = self._analysis.code.functions
        own = np.flatnonzero((functions.parent < 0) & ~functions.piece).tolist()
        prints = fingerprints(self._analysis.code)
        rows = frames_json(self._analysis)["functions"]
        self._insert(
            "functions",
            (
                (
                    index, int(functions.image[index]), row["name"], row["part_of"], _signed(row["address"]),
                    row["size"], row["frame"], row["compiler_frame"], row["dynamic"], row["reached"],
                    row["unreached"], int(row["recursive"]), prints[index],
                )
                for index, row in zip(own, rows, strict=True)
            ),
        )  # fmt: skip
        # Pieces without a frame of their own, cold or patched in, into which a jump of others leads.
        reached = {one for members in self._analysis.calls.candidate_sets for one in members}
        self._insert(
            "functions",
            (
                (
                    index, int(functions.image[index]), functions.names[index], functions.part_of(index),
                    _signed(int(functions.address[index])),
                    int(functions.end[index] - functions.address[index]), *[None] * 7,
                )
                for index in sorted(reached.difference(own))
            ),
        )  # fmt: skip
        self._insert(
            "aliases",
            ((index, name) for index in own for name in sorted(set(functions.aliases[index]))),
        )

    def _sites(self) -> None:
        calls = self._analysis.calls
        labels = (
            _labels(CallKind, calls.kind), _labels(Rung, calls.rung), _labels(Evidence, calls.evidence),
        )  # fmt: skip
        reasons = [Reason(number).label or None for number in range(len(Reason))]
        columns = zip(
            calls.function.tolist(), calls.address.view(np.int64).tolist(),
            calls.return_address.view(np.int64).tolist(), calls.depth.tolist(), *labels,
            calls.candidates.tolist(), calls.reason.tolist(), calls.name.tolist(), calls.charge.tolist(),
            calls.assumption.tolist(), strict=True,
        )  # fmt: skip
        self._insert(
            "sites",
            (
                (
                    site, function, address, returns or None, depth, kind, rung, evidence,
                    candidates if candidates >= 0 else None, reasons[reason],
                    calls.names[name] if name >= 0 else None, charge,
                    calls.assumptions[assumption] if assumption >= 0 else None,
                )
                for site, (function, address, returns, depth, kind, rung, evidence, candidates, reason, name,
                           charge, assumption) in enumerate(columns)
            ),
        )  # fmt: skip
        self._insert(
            "candidates",
            ((number, one) for number, members in enumerate(calls.candidate_sets) for one in members),
        )

    def _stacks(self) -> None:
        analysis, number = self._analysis, 0
        for layout, (found, verdict) in enumerate(
            zip(self._document["layouts"], analysis.verdicts, strict=True)
        ):
            self._insert("layouts", [(layout, found["name"], int(found["hypothetical"]))])
            for stack, need in zip(found["stacks"], verdict.stacks, strict=True):
                chain = self._chain(chain_rows(analysis, need.worst, need.chain))
                rungs, opened = stack["need"], sum(one["count"] for one in stack["open"])
                self._insert(
                    "stacks",
                    [(
                        number, layout, stack["name"], stack["size"], stack["per"], stack["allocation"],
                        rungs["measured"], stack["measured_by"], rungs["composed"], rungs["direct"],
                        stack["found"], rungs["bound"], stack["headroom"], stack["fits_hops"], opened,
                        int(stack["hypothetical"]), stack["verdict"], stack["why"], stack["context"], chain,
                    )],
                )  # fmt: skip
                self._insert("stack_hops", ((number, *one) for one in enumerate(rungs["hops"])))
                self._insert(
                    "stack_parts",
                    (
                        (
                            number,
                            place,
                            part["name"],
                            part["bytes"],
                            part["found"],
                            part["times"],
                            part["source"],
                        )
                        for place, part in enumerate(stack["parts"])
                    ),
                )
                self._insert("stack_open", ((number, one["reason"], one["count"]) for one in stack["open"]))
                self._insert("stack_assumed", ((number, *one) for one in enumerate(stack["assumed"])))
                number += 1

    def _contexts(self) -> None:
        analysis = self._analysis
        needs = analysis.composer.context_needs(analysis.layouts[0], chains=True)
        for number, (context, need) in enumerate(zip(self._document["contexts"], needs, strict=True)):
            chain = self._chain(chain_rows(analysis, need, need.chain))
            self._insert(
                "contexts",
                [(
                    number, 0, need.stack or None, context["kind"], context["name"], context["abi"],
                    context["number"], None if need.start is None else need.start.entry,
                    context["entry_bytes"], context["measured"], context["composed"], context["direct"],
                    context["found"], context["bound"], need.open.total, chain,
                )],
            )  # fmt: skip
            self._insert("context_hops", ((number, *one) for one in enumerate(context["hops"])))
            self._insert("context_open", ((number, *one) for one in need.open.counts))

    def _chain(self, rows: list[ChainRow]) -> int | None:
        """The number of a chain just stored; None of none."""
        if not rows:
            return None
        number = self._chains
        self._chains += 1
        self._insert(
            "chain_frames",
            (
                (
                    number, place, row.index if row.index >= 0 else None, row.function, row.module,
                    _signed(row.address) or None, row.depth, row.total, row.kind, row.rung or None,
                    row.evidence,
                )
                for place, row in enumerate(rows)
            ),
        )  # fmt: skip
        return number


def _signed(address: int) -> int:
    """An address as SQLite keeps it: 64 bits with a sign. printf('%x', …) there prints it as it is."""
    return address - 2 * _SIGN if address >= _SIGN else address


def _text(text: str) -> str:
    """A path or a message, without the bytes of a file name that are no text."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _labels(kinds: type[CallKind] | type[Rung] | type[Evidence], values: NDArray[np.uint8]) -> Iterator[str]:
    names = {int(kind): kind.label for kind in kinds}
    return (names[value] for value in values.tolist())


def fingerprints(code: Code) -> list[str]:
    """Of each function's instructions, without addresses, offsets and constants: the same code elsewhere, or
    with structs laid out in another way, has the same."""
    columns = [np.ascontiguousarray(getattr(code.instructions, name)) for name in _UNITS]
    matrix = np.concatenate([one.view(np.uint8).reshape(len(code), -1) for one in columns], axis=1)
    data, width = matrix.tobytes(), matrix.shape[1]
    return [
        f"{end - start}:{blake2b(data[start * width : end * width], digest_size=8).hexdigest()}"
        for start, end in itertools.pairwise(code.first.tolist())
    ]
