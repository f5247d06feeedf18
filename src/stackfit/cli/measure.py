"""stackfit measure: what running machines show. So far: `pages`, free memory and its fragmentation."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from stackfit.cli.options import output
from stackfit.image.model import InputError
from stackfit.pages.procfs import (
    parse_buddyinfo,
    parse_counters,
    parse_pagetypeinfo,
    parse_zoneinfo,
    read_text,
)
from stackfit.report.json import dumps
from stackfit.report.pages import FreeMemory, pages_json, print_pages
from stackfit.report.terminal import make_console

HELP = "free memory now: fragmentation by order, and how many more stacks fit"

_FILES = ("buddyinfo", "pagetypeinfo", "zoneinfo", "vmstat", "meminfo")
_PROC = Path("/proc")
T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    text = "free memory: fragmentation by order, and how many more stacks fit now"
    pages = kinds.add_parser("pages", help=text, description=text)
    pages.add_argument(
        "places",
        nargs="*",
        metavar="DIR|FILE",
        help="saved files of /proc, or directories with them (default: /proc); names start with "
        + ", ".join(_FILES),
    )
    pages.add_argument("--json", metavar="FILE", help="write JSON there; - is standard output")


def run(options: argparse.Namespace) -> int:
    document = pages_json(_free_memory([Path(place) for place in options.places]))
    if options.json:
        output(options.json, dumps(document))
    if options.json != "-":
        print_pages(make_console(), document)
    return 0


def _free_memory(places: list[Path]) -> FreeMemory:
    unread: list[tuple[str, str]] = []
    found = _locate(places or [_PROC], unread)
    if "buddyinfo" not in found:
        raise InputError(str((places or [_PROC])[0]), "no buddyinfo there: nothing can be said")

    def optional(name: str, parse: Callable[[str, str], T]) -> T | None:
        """A file that may be missing, or readable by root only; a damaged one is an error."""
        path = found.get(name)
        if path is None:
            return None
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            unread.append((str(path), error.strerror or str(error)))
            return None
        return parse(str(path), read_text(path))

    buddyinfo = found["buddyinfo"]
    return FreeMemory(
        source=", ".join(map(str, places or [_PROC])),
        buddyinfo=parse_buddyinfo(str(buddyinfo), read_text(buddyinfo)),
        pagetypeinfo=optional("pagetypeinfo", parse_pagetypeinfo),
        zones=optional("zoneinfo", parse_zoneinfo),
        vmstat=optional("vmstat", parse_counters),
        meminfo=optional("meminfo", parse_counters),
        unread=tuple(sorted(unread)),
    )


def _locate(places: list[Path], unread: list[tuple[str, str]]) -> dict[str, Path]:
    """Which file is which, by the beginning of its name; a directory must have each once at most."""
    found: dict[str, Path] = {}
    for place in places:
        if place.is_dir():
            for name in _FILES:
                path = place / name
                if path.exists():
                    _add(found, name, path)
            continue
        kind = next((name for name in _FILES if place.name.startswith(name)), None)
        if kind is None:
            raise InputError(str(place), f"its name does not say what it is ({', '.join(_FILES)})")
        if not place.exists():
            raise InputError(str(place), "No such file or directory")
        _add(found, kind, place)
    unread.extend((name, "not given or not there") for name in _FILES if name not in found)
    return found


def _add(found: dict[str, Path], name: str, path: Path) -> None:
    if name in found:
        raise InputError(str(path), f"a second {name}, after {found[name]}")
    found[name] = path
