"""What compilers wrote of frames and calls when they made a program: read from the files that they leave.

gcc: `.su` (-fstack-usage: place, name, bytes, kind, by tabs), `.ci` (-fcallgraph-info=su,da: a graph in VCG
form whose nodes have the same numbers and the objects of variable size, whose edges are calls). clang: the
section `.stack_sizes` (-fstack-size-section: an address and a ULEB128 number of bytes for each function that
has no objects of variable size).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stackfit.frames.usage import KINDS, UsageRow, read_usage
from stackfit.image.archive import is_archive
from stackfit.image.debug import relocated
from stackfit.image.elf import is_elf
from stackfit.image.linker_map import is_linker_map
from stackfit.image.load import load_images
from stackfit.image.model import Image, ImageKind, InputError, Program

__all__ = [
    "INDIRECT", "CallStatement", "Statements", "own_statements", "read_statements", "stack_sizes",
    "statement_files",
]  # fmt: skip

INDIRECT = "__indirect_call"  # gcc's name for what calls through pointers reach
_MOST_BYTES = 256 << 20  # of one file
_SUFFIXES = (".su", ".ci")  # of the files that are looked for in a directory
_SU = re.compile(r"(?P<file>.+):(?P<line>\d+):\d+:(?P<name>.+)\t(?P<bytes>\d{1,12})\t(?P<kind>[a-z,]+)")
_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_GRAPH = re.compile(rf"graph: \{{ title: {_QUOTED}")
_NODE = re.compile(rf"node: \{{ title: {_QUOTED} label: {_QUOTED}(?P<rest>[^}}]*)\}}")
_EDGE = re.compile(rf"edge: \{{ sourcename: {_QUOTED} targetname: {_QUOTED}(?: label: {_QUOTED})? ?\}}")
_SIZE = re.compile(r"(\d{1,12}) bytes \(([a-z,]+)\)")
_STT_FUNC, _STT_FILE = 2, 4
_MOST_SHIFT = 63  # bits of a ULEB128 number


@dataclass(frozen=True)
class CallStatement:
    """A call that a compiler left in a function. `unit` of a name is empty for what other units may see;
    `place`: in the source."""

    caller: tuple[str, str]  # (unit, function)
    callee: tuple[str, str]
    place: str
    source: str


@dataclass(frozen=True)
class Statements:
    """What one kind of file says, all of its files together. `name`: of the kind, for people."""

    name: str
    rows: tuple[UsageRow, ...]
    calls: tuple[CallStatement, ...] = ()


_SU_NAME, _CI_NAME, _CLANG_NAME = "gcc -fstack-usage", "gcc -fcallgraph-info", "clang .stack_sizes"


def read_statements(paths: Iterable[str | Path]) -> list[Statements]:
    """Everything that these files say, by kind; a directory is searched for `.su` and `.ci`.

    An ELF file or an archive is read for its `.stack_sizes`, a linker's map passed by. InputError: a file is
    none of these.
    """
    rows: dict[str, list[UsageRow]] = {}
    calls: list[CallStatement] = []
    for path in statement_files(paths):
        head = _head(path)
        if is_linker_map(path):
            continue
        if is_elf(head) or is_archive(head):
            found = [row for image in load_images(path)[0] for row in stack_sizes(image)]
            if not found:
                raise InputError(str(path), "no section .stack_sizes (clang -fstack-size-section)")
            rows.setdefault(_CLANG_NAME, []).extend(found)
        elif head.startswith(b"graph:"):
            nodes, edges = _read_ci(path)
            rows.setdefault(_CI_NAME, []).extend(nodes)
            calls.extend(edges)
        elif head.startswith((b"object,", b"\xfd7zXZ\0")):
            rows.setdefault(_SU_NAME, []).extend(read_usage(path))
        else:
            rows.setdefault(_SU_NAME, []).extend(_read_su(path))
    return [
        Statements(name, tuple(rows[name]), tuple(calls) if name == _CI_NAME else ())
        for name in (_SU_NAME, _CI_NAME, _CLANG_NAME)
        if name in rows
    ]


def own_statements(program: Program) -> list[Statements]:
    """What the program's images themselves say: nothing, where none has a section `.stack_sizes`."""
    images = program.images if program.objects else program.images[:1]
    rows = tuple(row for image in images for row in stack_sizes(image))
    return [Statements(_CLANG_NAME, rows)] if rows else []


def statement_files(paths: Iterable[str | Path]) -> list[Path]:
    """The files given, and those of directories. InputError: a directory without any."""
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given)
        if path.is_dir():
            here = sorted(one for one in path.rglob("*") if one.suffix in _SUFFIXES and one.is_file())
            if not here:
                raise InputError(str(path), "the directory holds no files *.su or *.ci")
            found.update(dict.fromkeys(here))
        else:
            found[path] = None
    return list(found)


def _head(path: Path) -> bytes:
    try:
        if not path.is_file() and path.exists():
            raise InputError(str(path), "not a regular file")
        with path.open("rb") as file:
            return file.read(8)
    except (OSError, ValueError) as error:
        raise InputError(str(path), getattr(error, "strerror", None) or str(error)) from None


def _text(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(str(path), "too long for a compiler's file of stack usage")
        return path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(str(path), "not text", error.start) from None
    except OSError as error:
        raise InputError(str(path), error.strerror or str(error)) from None


def _read_su(path: Path) -> list[UsageRow]:
    found = []
    for number, line in enumerate(_text(path), 1):
        if not line.strip():
            continue
        match = _SU.fullmatch(line.rstrip("\r"))
        if match is None or match["kind"] not in KINDS:
            cause = f"line {number}: no row of stack usage (file:line:column:name, bytes, kind)"
            raise InputError(str(path), cause)
        unit = match["file"].replace("\\", "/").rsplit("/", 1)[-1]
        found.append(UsageRow(unit, match["name"], int(match["bytes"]), match["kind"], f"{path}:{number}"))
    return found


def _read_ci(path: Path) -> tuple[list[UsageRow], list[CallStatement]]:
    rows: list[UsageRow] = []
    edges: list[CallStatement] = []
    unit = ""
    for number, line in enumerate(_text(path), 1):
        source = f"{path}:{number}"
        if match := _GRAPH.match(line):
            unit = match[1].replace("\\", "/").rsplit("/", 1)[-1]
        elif match := _NODE.fullmatch(line):
            parts = match[2].split("\\n")
            size = next((found for one in parts if (found := _SIZE.fullmatch(one))), None)
            if size is not None and size[2] in KINDS:
                sized = tuple(one.strip() for one in parts[parts.index(size[0]) + 2 :])
                name = _titled(match[1], unit)[1]
                rows.append(UsageRow(unit, name, int(size[1]), size[2], source, sized))
        elif match := _EDGE.fullmatch(line):
            caller, callee = (_titled(match[one], unit) for one in (1, 2))
            edges.append(CallStatement((unit, caller[1]), callee, match[3] or "", source))
        elif line.strip() not in ("", "}"):
            raise InputError(str(path), f"line {number}: no node or edge of a call graph")
    return rows, edges


def _titled(title: str, unit: str) -> tuple[str, str]:
    """(unit, name) of a node's title: those that no other unit sees begin with the unit's path."""
    head, colon, name = title.rpartition(":")
    return (unit, name) if colon and head.replace("\\", "/").rsplit("/", 1)[-1] == unit else ("", title)


def stack_sizes(image: Image) -> list[UsageRow]:
    """What an image's or object's own sections `.stack_sizes` say, by the names of its symbols.

    The number counts no return address; here it does. Raises InputError: a section ends amid an entry.
    """
    word = image.machine.word
    names: dict[tuple[int, int], tuple[str, str]] = {}
    found: list[UsageRow] = []
    for index, section in enumerate(image.sections):
        if section.name != ".stack_sizes" or not section.data.size:
            continue
        names = names or _function_names(image)
        data = relocated(image, index).tobytes()
        home = section.link if image.kind is ImageKind.MODULE else -1  # SHF_LINK_ORDER: the code's section
        at = 0
        while at < len(data):
            address = image.machine.code_address(int.from_bytes(data[at : at + word], "little"))
            at, start = at + word, at
            size, shift = 0, 0
            while at < len(data) and shift < _MOST_SHIFT:
                size |= (data[at] & 127) << shift
                shift += 7
                at += 1
                if not data[at - 1] & 128:
                    break
            else:
                raise InputError(
                    image.path, "section .stack_sizes ends amid an entry", section.offset + start
                )
            unit, name = names.get((home, address), ("", f"{address:#x}"))
            bytes_ = size + image.machine.return_bytes
            found.append(UsageRow(unit, name, bytes_, "static", f"{image.path} .stack_sizes+{start:#x}"))
    return found


def _function_names(image: Image) -> dict[tuple[int, int], tuple[str, str]]:
    """(section of an object, else -1; address) → (unit of a local function, name)."""
    records = image.symbols.records
    found: dict[tuple[int, int], tuple[str, str]] = {}
    unit = ""
    columns = (records[name].tolist() for name in ("type", "section", "address", "binding"))
    for name, kind, section, address, binding in zip(image.symbols.names, *columns, strict=True):
        if kind == _STT_FILE:
            unit = Path(name).name
        elif kind == _STT_FUNC and section >= 0:
            home = section if image.kind is ImageKind.MODULE else -1
            found.setdefault((home, address), ("" if binding else unit, name))
    return found
