"""Reduce a memory dump to the pages from which marks of stacks are found.

Usage: reduce_dump.py CORE VMLINUX OUT.xz

Kept: what the scan reads (page tables, stacks, per-CPU data) and what drgn reads (tasks, their identifiers,
CPU masks); of process stacks the contents are overwritten by a pattern, so nothing of the guest's data is in
the fixture. Pages that hold nothing but zeros stay out of the file: their segment has no bytes there.
"""

from __future__ import annotations

import lzma
import struct
import sys
from pathlib import Path

import drgn

from stackfit.image.load import load_image
from stackfit.measure import core, debugged, dump
from stackfit.measure.core import PAGE, Dump, open_dump
from stackfit.measure.paging import read_paging

_MOST_ROUNDS = 400
_MOST_PAGES = 4000
_STATE = 8 + 18 * 8 + 10 * 24 + 6 * 8  # struct QEMUCPUState as far as it is read


class Recorder(Dump):
    """A dump that notes the pages that are read."""

    pages: set[int]

    def read(self, physical: int, size: int) -> object:
        self.pages.update(range(physical & -PAGE, physical + size, PAGE))
        return super().read(physical, size)


def main() -> None:
    source, debug = open_dump(Path(sys.argv[1])), load_image(sys.argv[2])
    recorder = Recorder(**{name: getattr(source, name) for name in source.__dataclass_fields__})
    object.__setattr__(recorder, "pages", set())
    wanted = dump.stack_marks(recorder, debug)
    pages = recorder.pages
    stacks = process_pages(source, wanted)
    if source.machine.value == "i386":
        pages |= stacks
    paging = read_paging(source)
    goal = debugged.debugged_marks(source, debug)
    target = Path("/tmp") / f"reduced-{source.machine.value}.core"
    for round_number in range(_MOST_ROUNDS):
        target.write_bytes(written(source, pages, stacks))
        reduced = open_dump(target)
        missing = tried(reduced, debug)
        found = () if missing is not None else debugged.debugged_marks(reduced, debug)
        if missing is None:
            break
        # drgn names the physical address where it has walked the page tables.
        physical = paging.physical(missing)
        if physical is None:
            physical = missing
        if source.page(physical & -PAGE) is None or len(pages) > _MOST_PAGES:
            raise SystemExit(f"{missing:#x} is not in the dump")
        # The page and its neighbour: structures straddle.
        pages.update((physical & -PAGE, (physical & -PAGE) + PAGE))
        print(round_number, hex(missing), len(pages), file=sys.stderr)
    assert found == goal, (len(found), len(goal))
    assert dump.stack_marks(reduced, debug) == wanted
    Path(sys.argv[3]).write_bytes(lzma.compress(target.read_bytes(), preset=9 | lzma.PRESET_EXTREME))


def tried(reduced: Dump, debug: object) -> int | None:
    """The virtual address at which drgn finds nothing; None: it finds all."""
    program = drgn.Program(
        drgn.Platform(drgn.Architecture.X86_64 if reduced.machine.word == 8 else drgn.Architecture.I386),
        vmcoreinfo=reduced.kernel_text,
    )
    debugged.drgn_module()

    class Reader(debugged._Reader):
        def _per_cpu(self, name: str, cpu: int) -> object:
            from drgn.helpers.linux.percpu import per_cpu

            try:
                found = per_cpu(self.program[name], cpu)
            except KeyError:
                return None
            found.read_() if found.address_ is not None else None
            return found

        def _thread_size(self, task: object) -> int:
            area = getattr(task, "stack_vm_area", None)  # i386 has none
            if area:
                area.nr_pages.value_()
            return super()._thread_size(task)

    before = debugged._Reader
    debugged._Reader = Reader  # type: ignore[misc]
    try:
        debugged._of_dump(program, reduced, debug)  # type: ignore[arg-type]
    except drgn.FaultError as error:
        return int(error.address)
    finally:
        debugged._Reader = before  # type: ignore[misc]
    return None


def process_pages(source: Dump, marks: tuple[core.Mark, ...]) -> set[int]:  # type: ignore[name-defined]
    paging = read_paging(source)
    found = set()
    for mark in marks:
        for offset in range(0, mark.size, PAGE):
            physical = paging.physical(mark.address + offset)
            if physical is not None:
                found.add(physical & -PAGE)
    return found


def written(source: Dump, pages: set[int], stacks: set[int]) -> bytes:
    """An ELF core of 64-bit headers with these pages, runs of them as segments."""
    kept: dict[int, bytes] = {}
    for page in sorted(pages):
        data = source.page(page)
        if data is None:
            continue
        raw = data.tobytes()
        if page in stacks:  # the used words, but not what they were
            words = [raw[at : at + source.machine.word] for at in range(0, PAGE, source.machine.word)]
            marker = dump.STACK_END_MAGIC.to_bytes(source.machine.word, "little")
            raw = b"".join(
                word if word == marker or not any(word) else b"\x01".ljust(len(word), b"\0") for word in words
            )
        kept[page] = raw
    runs: list[tuple[int, bytearray]] = []
    for page, raw in kept.items():
        if runs and runs[-1][0] + len(runs[-1][1]) == page:
            runs[-1][1].extend(raw)
        else:
            runs.append((page, bytearray(raw)))
    state = bytearray(_STATE)
    struct.pack_into("<QQ", state, 8 + 18 * 8 + 10 * 24 + 3 * 8, source.cr3, source.cr4)
    note = note_of(b"QEMU", bytes(state)) + note_of(b"VMCOREINFO", source.kernel_text)
    count = len(runs) + 1
    head = 64 + 56 * count
    machine = 62 if source.machine.word == 8 else 3
    out = bytearray(b"\x7fELF\x02\x01\x01" + bytes(9))
    out += struct.pack("<HHIQQQIHHHHHH", 4, machine, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
    out += struct.pack("<IIQQQQQQ", 4, 0, head, 0, 0, len(note), len(note), 0)
    at = head + len(note)
    for start, raw in runs:
        out += struct.pack("<IIQQQQQQ", 1, 0, at, 0, start, len(raw), len(raw), 0)
        at += len(raw)
    out += note
    for _, raw in runs:
        out += raw
    return bytes(out)


def note_of(name: bytes, body: bytes) -> bytes:
    named = name + b"\0"
    head = struct.pack("<III", len(named), len(body), 0)
    return head + named + bytes(-len(named) % 4) + body + bytes(-len(body) % 4)


if __name__ == "__main__":
    main()
