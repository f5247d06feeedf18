"""Assumption sets from TOML: those that ship with stackfit and the user's own (docs/assumptions.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stackfit.assumptions.model import (
    AssumptionSet,
    Budget,
    Candidates,
    Cut,
    DynamicBound,
    Entry,
    Sleeps,
)
from stackfit.assumptions.places import is_place
from stackfit.assumptions.versions import VersionRange
from stackfit.image.model import Machine
from stackfit.tomlfile import Table, find, names_in, quoted, read_toml

__all__ = ["PLACEHOLDER", "load_assumptions", "shipped_names"]

SHIPPED = Path(__file__).parent
PLACEHOLDER = "TODO"  # what a reason or a source begins with that nobody has written yet
MAX_TIMES = 1_000
MAX_HOPS = 10_000
MAX_BYTES = 1 << 30
MAX_VARIANTS = 64  # entries about one subject, for different versions or machines
SITE = re.compile(r"\S+\+0x[0-9a-f]{1,16}", re.ASCII)
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}", re.ASCII)
FIELD = re.compile(r"(struct|union) \S+\.\S+", re.ASCII)


def shipped_names() -> tuple[str, ...]:
    """Names of the assumption sets that ship with stackfit, sorted."""
    return names_in(SHIPPED)


def load_assumptions(name_or_path: str | Path) -> AssumptionSet:
    """The shipped set of that name, else the file at that path.

    InputError: no such set or file, not TOML, a key that is unknown, missing or wrong, an entry without
    reason or source, two entries of one kind about the same function for the same kernel.
    """
    path = find(name_or_path, SHIPPED, "a shipped assumption set")
    return _set(Table(str(path), read_toml(path)), path)


def _set(top: Table, path: Path) -> AssumptionSet:
    name = top.text("name", path.stem)
    description = top.text("description", "")
    limit = top.table("hops")
    hops = limit.integer("most", 0, MAX_HOPS) if limit else None
    reason = _reviewed(limit, "reason") if limit else ""
    source = _reviewed(limit, "source") if limit else ""
    if limit:
        limit.done()
    budgets = tuple(_budget(table) for table in top.tables("budget"))
    cuts = tuple(_cut(table) for table in top.tables("cut"))
    sleeps = tuple(_sleeps(table) for table in top.tables("sleeps"))
    dynamics = tuple(_dynamic(table) for table in top.tables("dynamic"))
    candidates = tuple(_candidates(table) for table in top.tables("candidates"))
    top.done()
    for kind, entries in (
        ("budget", budgets),
        ("cut", cuts),
        ("sleeps", sleeps),
        ("dynamic", dynamics),
        ("candidates", candidates),
    ):
        _check_duplicates(top, kind, entries)
    return AssumptionSet(
        name=name,
        path=str(path),
        hops=hops,
        budgets=budgets,
        cuts=cuts,
        sleeps=sleeps,
        dynamics=dynamics,
        candidates=candidates,
        description=description,
        hops_reason=reason,
        hops_source=source,
    )


def _common(table: Table) -> dict[str, Any]:
    """The keys that every entry has, as arguments of Entry."""
    versions = table.text("versions", "")
    if versions:
        try:
            VersionRange.parse(versions)
        except ValueError as error:
            raise table.error("versions", f"{quoted(versions)}: {error}") from None
    name = table.text("name", "")
    if name and not NAME.fullmatch(name):
        raise table.error("name", f"{quoted(name)} is not made of a-z, 0-9 and -")
    machine = None
    if "machine" in table:
        machine = Machine(table.choice("machine", [m.value for m in Machine]))
    return {
        "reason": _reviewed(table, "reason"),
        "source": _reviewed(table, "source"),
        "versions": versions,
        "machine": machine,
        "match": table.choice("match", ("exact", "glob"), "exact"),
        "name": name,
    }


def _reviewed(table: Table, key: str) -> str:
    """A text that says something: what --suggest-cuts leaves to be written is none."""
    text = table.text(key)
    if text.strip().lower().startswith(PLACEHOLDER.lower()):
        raise table.error(key, f"{quoted(text)} is a placeholder: review the function, then say why it holds")
    return text


def _function(table: Table, common: dict[str, Any]) -> str:
    function = table.text("function")
    if " " in function:
        raise table.error("function", f"{quoted(function)} is not a function's name")
    if common["match"] == "exact" and any(mark in function for mark in "*?["):
        raise table.error("function", f'{quoted(function)} is a pattern: say match = "glob"')
    return function


def _budget(table: Table) -> Budget:
    common = _common(table)
    entry = Budget(function=_function(table, common), times=table.integer("times", 1, MAX_TIMES), **common)
    table.done()
    return entry


def _cut(table: Table) -> Cut:
    common = _common(table)
    entry = Cut(function=_function(table, common), charge=table.integer("charge", 0, MAX_BYTES), **common)
    table.done()
    return entry


def _sleeps(table: Table) -> Sleeps:
    common = _common(table)
    entry = Sleeps(function=_function(table, common), **common)
    table.done()
    return entry


def _dynamic(table: Table) -> DynamicBound:
    common = _common(table)
    entry = DynamicBound(
        function=_function(table, common), bytes=table.integer("bytes", 0, MAX_BYTES), **common
    )
    table.done()
    return entry


def _candidates(table: Table) -> Candidates:
    common = _common(table)
    selectors = [key for key in ("function", "site", "field") if key in table]
    if len(selectors) != 1:
        found = " and ".join(selectors) or "none of them"
        raise table.error("", f"needs exactly one of function, site and field, and has {found}")
    selector = selectors[0]
    subject = _function(table, common) if selector == "function" else table.text(selector)
    if selector != "function" and common["match"] == "glob":
        raise table.error("match", "only function names can be patterns")
    if selector == "site" and not SITE.fullmatch(subject):
        raise table.error("site", f"{quoted(subject)} is not FUNCTION+0xOFFSET")
    if selector == "field" and not FIELD.fullmatch(subject):
        raise table.error("field", f"{quoted(subject)} is not 'struct TAG.MEMBER' (or union)")
    functions = table.texts("functions")
    if len(set(functions)) != len(functions):
        twice = next(name for name in functions if functions.count(name) > 1)
        raise table.error("functions", f"{quoted(twice)} is there more than once")
    places = table.texts("places", ())
    for place in places:
        if not is_place(place):
            raise table.error("places", f"{quoted(place)} is not 'struct TAG.MEMBER', nor 'parameter N of …'")
    entry = Candidates(
        functions=functions,
        charge=table.integer("charge", 0, MAX_BYTES, 0),
        places=places,
        **{**common, selector: subject},
    )
    table.done()
    return entry


def _check_duplicates(top: Table, kind: str, entries: Iterable[Entry]) -> None:
    """Refuse two entries about the same subject that can hold for the same kernel on the same machine."""
    seen: dict[tuple[str, str], list[tuple[int, Entry]]] = {}
    for number, entry in enumerate(entries, 1):
        others = seen.setdefault(entry.key, [])
        for other_number, other in others:
            if entry.overlaps(other):
                raise top.error(
                    f"{kind} #{number}",
                    f"{quoted(entry.subject)} already has {kind} #{other_number} for the same kernel",
                )
        others.append((number, entry))
        if len(others) > MAX_VARIANTS:
            raise top.error(f"{kind} #{number}", f"more than {MAX_VARIANTS} about {quoted(entry.subject)}")
