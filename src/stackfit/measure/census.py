"""A file for each host: how deep its stacks have been, by the task's name and kind. No command lines, no
addresses, no numbers of processes.

CSV, or Parquet where pyarrow is installed. docs/measuring.md has the columns.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, fields
from statistics import median_low
from typing import Any

from stackfit.image.model import InputError
from stackfit.measure.model import Mark

__all__ = ["LIMITS", "CensusRow", "census_rows", "csv_bytes", "parquet_bytes"]

LIMITS = (4096, 8192, 16384)  # bytes, of the columns `at_most_…`

# kworker/0:1H, kworker/u2:3, kswapd0, jbd2/vda-8; not the numbers in names such as ipv6_addrconf
_INSTANCE = re.compile(r"(?<=[/:-])\d+|(?<=/u)\d+|\d+$")
_WORKER = re.compile(r"(kworker/[^+-]*)[+-].*")
_USER = "user"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class CensusRow:
    """Stacks of one name, kind and size. Bytes from a stack's top; `greatest` and `median` of their marks;
    `at_most_…`: how many marks are not above so many."""

    release: str  # uname -r; "" not known
    build_id: str
    machine: str
    layout: str
    stack: str
    size: int
    kind: str
    name: str
    stacks: int
    greatest: int
    median: int
    at_most_4096: int
    at_most_8192: int
    at_most_16384: int


def census_rows(
    marks: Iterable[Mark],
    machine: str,
    layout: str,
    release: str | None = None,
    build_id: str | None = None,
    user_names: bool = True,
) -> list[CensusRow]:
    """Rows in order of stack, kind and name.

    Numbers of instances in a kernel thread's name become `#`, what a worker does at the moment is cut off.
    Without `user_names` tasks of user mode are one row.
    """
    groups: dict[tuple[str, str, str, int], list[int]] = defaultdict(list)
    for mark in marks:
        groups[mark.stack, mark.kind, _name(mark, user_names), mark.size].append(mark.bytes)
    return [
        CensusRow(
            release or "", build_id or "", machine, layout, stack, size, kind, name,
            len(found), max(found), median_low(found),
            *(sum(mark <= limit for mark in found) for limit in LIMITS),
        )
        for (stack, kind, name, size), found in sorted(groups.items())
    ]  # fmt: skip


def _name(mark: Mark, user_names: bool) -> str:
    if mark.kind == _USER:
        return mark.name if user_names else ""
    return _INSTANCE.sub("#", _WORKER.sub(r"\1", mark.name))


_COLUMNS = [field.name for field in fields(CensusRow)]


def csv_bytes(rows: Iterable[CensusRow]) -> bytes:
    """With a line of column names. A task names itself: a name that a spreadsheet would take for a formula
    begins with `'`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([_cell(getattr(row, name)) for name in _COLUMNS] for row in rows)
    return text.getvalue().encode("utf-8")


def _cell(value: str | int) -> str | int:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def parquet_bytes(rows: Iterable[CensusRow]) -> bytes:
    """InputError: pyarrow is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError("pyarrow", "not installed: pip install 'stackfit[measure]', or write CSV") from None
    kinds: dict[str, Any] = {"int": pyarrow.int64(), "str": pyarrow.string()}
    schema = pyarrow.schema([(field.name, kinds[str(field.type)]) for field in fields(CensusRow)])
    columns = list(zip(*([getattr(row, name) for name in _COLUMNS] for row in rows), strict=True))
    table = pyarrow.table(
        [
            pyarrow.array(values, kind.type)
            for values, kind in zip(columns or [()] * len(schema), schema, strict=True)
        ],
        schema=schema,
    )
    out = io.BytesIO()
    pyarrow.parquet.write_table(table, out)
    return out.getvalue()
