"""What a guest sent, as a recording: stack-tracer chains by workload, distinct call edges."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from stackfit.image.model import Image, InputError
from stackfit.measure.model import Place, RecordedChain, Recording
from stackfit.measure.parse import parse_recording

__all__ = ["Sent", "read_sent", "recording_of"]

_EVER = 1 << 62
# kernel/trace/ftrace.h: struct ftrace_entry, as the guest reads it.
_FORMATS = {
    8: ("unsigned long ip;\toffset:8;\tsize:8", "unsigned long parent_ip;\toffset:16;\tsize:8"),
    4: ("unsigned long ip;\toffset:8;\tsize:4", "unsigned long parent_ip;\toffset:12;\tsize:4"),
}


@dataclass
class Sent:
    """What guest.c wrote: facts, files, stacks by step; modules and pairs by epoch."""

    facts: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    stacks: list[tuple[str, str]] = field(default_factory=list)
    # (first epoch, last epoch, module, {section: address})
    loads: list[tuple[int, int, str, dict[str, int]]] = field(default_factory=list)
    pairs: list[tuple[int, int, int]] = field(default_factory=list)  # epoch, return address, callee


def read_sent(path: str, text: str) -> Sent:
    """Parse a guest's output. InputError: cut short, or no line of it."""
    end = text.find("@@ end of recording")
    if end < 0:
        raise InputError(path, "the recording is cut short")
    sent, name, lines = Sent(), "", list[str]()
    kind = ""
    open_loads: dict[str, int] = {}
    for number, line in enumerate(text[:end].splitlines(), 1):
        word, *rest = line.split() or [""]
        if kind and line != "@@ end":
            lines.append(line)
            continue
        try:
            if line == "@@ end":
                content = "\n".join(lines) + "\n"
                if kind == "stack":
                    sent.stacks.append((name, content))
                else:
                    sent.files[name] = content
                kind, lines = "", []
            elif word == "@@":
                kind, name = rest[0], rest[1]
            elif word == "#":
                sent.facts[rest[0]] = int(rest[1])
            elif word == "L":
                open_loads[rest[1]] = len(sent.loads)
                sent.loads.append((int(rest[0], 16), _EVER, rest[1], {}))
            elif word == "S":
                sent.loads[open_loads[rest[0]]][3][rest[1]] = int(rest[2], 16)
            elif word == "U":
                index = open_loads.pop(rest[1])
                first, _, module, sections = sent.loads[index]
                sent.loads[index] = (first, int(rest[0], 16), module, sections)
            elif word == "P":
                sent.pairs.append((int(rest[0], 16), int(rest[1], 16), int(rest[2], 16)))
        except (ValueError, IndexError, KeyError):
            raise InputError(path, f"line {number}: {line[:60]!r} is no line of a guest's output") from None
    return sent


def recording_of(path: str, sent: Sent, images: Sequence[Image]) -> Recording:
    """The recording; `images`: the kernel and the modules that the guest loaded."""
    chains: list[RecordedChain] = []
    for step, text in sent.stacks:
        if not re.search(r"^\s*0\)", text, re.M):
            continue  # nothing was traced: an empty table
        found = parse_recording(path, text).chains
        chains += [replace(chain, name=f"lab {step}") for chain in found]
    left_out = Counter[str]()
    pairs = Counter[tuple[Place | None, Place | None, Place]]()
    if sent.pairs:
        _check_format(path, sent, images[0].machine.word)
        sizes = {
            (image.module or "").replace("-", "_"): {
                one.name: one.size for one in image.sections if one.executable
            }
            for image in images[1:]
        }
        places: dict[int, _Places] = {}
        for epoch, back, callee in sent.pairs:
            if epoch not in places:
                places[epoch] = _Places(path, sent, epoch, sizes)
            at, to = places[epoch].place(back, 1), places[epoch].place(callee, 0)
            if at is None or to is None:
                left_out["calls from or to code that is in no image"] += 1
            else:
                pairs[at, None, to] += 1
    if sent.facts.get("lost"):
        left_out["pages of the trace buffer behind lost events"] += sent.facts["lost"]
    return Recording(
        path,
        "lab",
        tuple(chains),
        tuple((*key, count) for key, count in pairs.items()),
        (),
        dict(left_out),
        images[0].build_id,
    )


def _check_format(path: str, sent: Sent, word: int) -> None:
    event = sent.files.get("/events/ftrace/function/format", "")
    if not all(line in event for line in _FORMATS[word]):
        raise InputError(path, "this kernel's function event has another format")


class _Places:
    """Addresses of one epoch as places. A module's .init sections are there while it loads, not longer."""

    def __init__(self, path: str, sent: Sent, epoch: int, sizes: Mapping[str, Mapping[str, int]]) -> None:
        text = sent.files.get("/stext", "")
        kernel = [re.search(rf"^([0-9a-f]+) \w {name}$", text, re.M) for name in ("_stext", "_etext")]
        if kernel[0] is None or kernel[1] is None:
            raise InputError(path, "/proc/kallsyms of the guest has no _stext or _etext")
        self.first, self.last = int(kernel[0][1], 16), int(kernel[1][1], 16)
        ranges = []
        for first, last, module, sections in sent.loads:
            if not first <= epoch <= last:
                continue
            for section, address in sections.items():
                size = sizes.get(module, {}).get(section, 0)
                if size and (not section.startswith(".init") or first == epoch > 0):
                    ranges.append((address, address + size, module, section))
        self.ranges = sorted(ranges)
        self.starts = [one[0] for one in self.ranges]

    def place(self, address: int, behind: int) -> Place | None:
        """`behind`: 1 for a return address, which may be the end of its section; else 0."""
        if self.first <= address - behind < self.last:
            return Place(address=address)
        index = bisect_right(self.starts, address - behind) - 1
        if index < 0 or address - behind >= self.ranges[index][1]:
            return None
        start, _, module, section = self.ranges[index]
        return Place(module=module, section=section, offset=address - start)
