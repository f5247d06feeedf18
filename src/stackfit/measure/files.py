"""The traces file: everything recorded of one kernel, places as link addresses, in compressed JSON.

docs/schemas/stackfit.traces-1.json has its form. It is read back as a Recording, and resolved like one.
"""

from __future__ import annotations

import json
import lzma
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stackfit.image.model import InputError, Machine, Program
from stackfit.isa.code import Code
from stackfit.measure.model import ChainKind, Mark, Place, RecordedChain, RecordedRow, Recording, Traces
from stackfit.measure.parse import parse_recording, place_of, read_text

__all__ = ["SCHEMA", "marks_traces_json", "pack", "read_recording", "traces_json"]

SCHEMA = "stackfit.traces/1"
Json = dict[str, Any]
# As objects values take many times the bytes of their text. A kernel has half a million places of calls.
_MOST_LISTS, _MOST_VALUES = 2_000_000, 8_000_000
_KINDS = {kind.label: kind for kind in ChainKind}


def read_recording(path: Path) -> Recording:
    """A traces file, or a recording as text; compressed or not, told by content. Raises InputError."""
    text = read_text(path)
    if text.lstrip()[:1] != "{":
        return parse_recording(str(path), text)
    if text.count("[") > _MOST_LISTS or text.count(",") > _MOST_VALUES:
        raise InputError(str(path), f"JSON of more than {_MOST_LISTS} lists or {_MOST_VALUES} values")
    try:
        document = json.loads(text)
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise InputError(str(path), f"JSON, but no traces file: its schema is not {SCHEMA}")
        return _recording(str(path), document)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise InputError(str(path), f"not a traces file as {SCHEMA} describes it: {error!r:.120}") from None


def pack(document: Json) -> bytes:
    """The file's bytes; the same for the same document."""
    text = json.dumps(document, separators=(",", ":"))
    return lzma.compress(text.encode(), preset=6)


def traces_json(program: Program, code: Code, traces: Traces) -> Json:
    """The document of a traces file. Rows whose function is not known keep null."""
    places: dict[str, int] = {}
    sections = sorted(
        (section.address, section.end, f"{(image.module or '').replace('-', '_')}:{section.name}")
        for image in program.images[1:]
        for section in image.sections
        if section.allocated and section.size
    )
    starts = [start for start, _, _ in sections]

    def place(address: int) -> int | None:
        if not address:
            return None
        index = bisect_right(starts, address - 1) - 1  # a return address may be its section's end
        if index >= 0 and address <= sections[index][1]:
            text = f"{sections[index][2]}+{address - sections[index][0]:#x}"
        else:
            text = f"{address:#018x}"
        return places.setdefault(text, len(places))

    def entry(function: int) -> int | None:
        if function < 0:
            return None
        address = int(code.functions.address[function])
        index = bisect_right(starts, address) - 1
        if index >= 0 and address < sections[index][1]:
            text = f"{sections[index][2]}+{address - sections[index][0]:#x}"
        else:
            text = f"{address:#018x}"
        return places.setdefault(text, len(places))

    edges = [
        [place(back), entry(caller), entry(callee), count]
        for back, caller, callee, count in zip(
            traces.back.tolist(),
            traces.caller.tolist(),
            traces.callee.tolist(),
            traces.count.tolist(),
            strict=True,
        )
    ]
    chains = []
    for chain in range(len(traces)):
        rows = [
            [
                entry(int(traces.function[row])),
                place(int(traces.address[row])),
                _known(int(traces.depth[row])),
                _known(int(traces.size[row])),
                bool(traces.interrupted[row]),
            ]
            for row in traces.rows(chain)
        ]
        chains.append(
            {"name": traces.names[chain], "kind": ChainKind(int(traces.kind[chain])).label, "rows": rows}
        )
    kernel = program.images[0]
    used = np.unique(
        code.functions.image[
            np.concatenate([traces.caller, traces.callee, traces.function[traces.function >= 0]])
        ]
    )
    return {
        "schema": SCHEMA,
        "image": {"machine": kernel.machine.value, "release": kernel.release, "build_id": kernel.build_id},
        "modules": [
            {"name": program.images[index].module, "build_id": program.images[index].build_id}
            for index in used.tolist()
            if index
        ],
        "places": list(places),
        "edges": edges,
        "chains": chains,
        "marks": _marks(traces.marks),
        "left_out": dict(sorted(traces.left_out.items())),
    }


def marks_traces_json(
    machine: str, marks: Sequence[Mark], release: str | None = None, build_id: str | None = None
) -> Json:
    """The document of a traces file that has marks alone."""
    return {
        "schema": SCHEMA,
        "image": {"machine": machine, "release": release, "build_id": build_id},
        "modules": [],
        "places": [],
        "edges": [],
        "chains": [],
        "marks": _marks(marks),
        "left_out": {},
    }


def _marks(marks: Sequence[Mark]) -> list[Json]:
    return [
        {
            "stack": mark.stack,
            "owner": mark.owner,
            "bytes": mark.bytes,
            "size": mark.size,
            "kind": mark.kind,
            "name": mark.name,
        }
        for mark in marks
    ]


def _known(number: int) -> int | None:
    return None if number < 0 else number


def _recording(path: str, document: Json) -> Recording:
    places: list[Place] = []
    for text in document["places"]:
        place = place_of(text)
        if place is None:
            raise InputError(path, f"{str(text)[:60]!r} is neither 0x… nor MODULE:SECTION+0x…")
        places.append(place)

    def place_at(index: int | None) -> Place | None:
        if index is None:
            return None
        if index < 0:
            raise IndexError(index)
        return places[index]

    pairs = []
    for back, caller, callee, count in document["edges"]:
        target = place_at(callee)
        if target is None or not isinstance(count, int) or count < 0:
            raise InputError(path, "an edge without a callee, or with a count that is none")
        pairs.append((place_at(back), place_at(caller), target, count))
    chains = []
    for chain in document["chains"]:
        rows = []
        for function, at, depth, size, interrupted in chain["rows"]:
            where, entry = place_at(at), place_at(function)
            rows.append(
                RecordedRow(
                    where or entry or Place(),
                    _number(depth),
                    _number(size),
                    bool(interrupted),
                    entry,
                    bare=where is None,
                )
            )
        chains.append(RecordedChain(str(chain["name"]), _KINDS[chain["kind"]], tuple(rows)))
    marks = tuple(
        Mark(
            str(one["stack"]),
            str(one["owner"]),
            _number(one["bytes"]),
            _number(one["size"]),
            str(one.get("kind", "")),
            str(one.get("name", "")),
        )
        for one in document["marks"]
    )
    if any(not 0 <= mark.bytes <= mark.size for mark in marks):
        raise InputError(path, "a mark deeper than its stack")
    left_out = {str(reason): _number(count) for reason, count in document["left_out"].items()}
    kernel = document["image"]
    return Recording(
        path,
        "traces file",
        tuple(chains),
        tuple(pairs),
        marks,
        left_out,
        _text(kernel["build_id"]),
        _text(kernel["release"]),
        None if kernel["machine"] is None else Machine(kernel["machine"]).value,
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _number(value: int | None) -> int:
    if value is None:
        return -1
    if not isinstance(value, int) or not 0 <= value < 1 << 31:
        raise ValueError(f"{value!r} is no number of bytes")
    return value
