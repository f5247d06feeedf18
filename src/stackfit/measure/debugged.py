"""Marks of every task's stack and of every CPU's, by name, where debug information is at hand: with drgn.

The same for a memory dump and for the running kernel. What the scan (measure/dump.py) finds as well must come
out the same.

Traps: the end marker's word is none of the stack's depth. A stack that is being freed holds `struct vm_stack`
at its base. Word 0 of an i386 irq stack is the stack pointer of before. i386's low memory is mapped here, as
drgn does not walk that machine's page tables. An exiting task may have given its stack back already.

Sources: kernel/fork.c (cached_stacks, free_thread_stack), arch/x86/kernel/irq_32.c:execute_on_irq_stack,
arch/x86/include/asm/cpu_entry_area.h, arch/x86/include/asm/doublefault.h.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stackfit.image.model import Image, InputError, Machine
from stackfit.measure.core import PAGE, Dump
from stackfit.measure.dump import (
    ENDED_WORDS,
    IST_STACKS,
    STACK_END_MAGIC,
    THREAD_SIZE,
    lowest_used,
    stack_marks,
)
from stackfit.measure.model import Mark
from stackfit.measure.paging import read_paging

__all__ = ["DumpMarks", "agreement", "debugged_marks", "dump_marks", "open_program", "program_marks"]

_KTHREAD = 0x0020_0000  # include/linux/sched.h: PF_KTHREAD
_EXTRA = "drgn is not installed: pip install 'stackfit[measure]'"


@dataclass(frozen=True)
class DumpMarks:
    """Marks of a dump, the deepest first. `compared`: (marks that debug information and the scan have alike,
    those that differ); None: there is one of them. `notes`: what could not be found."""

    marks: tuple[Mark, ...]
    compared: tuple[int, tuple[str, ...]] | None
    notes: tuple[str, ...]


def dump_marks(dump: Dump, image: Image | None = None, debug: Image | None = None) -> DumpMarks:
    """By the scan; with debug information by drgn as well, whose marks have names. Raises InputError."""
    scan = stack_marks(dump, image)
    if debug is None:
        notes = []
        if not any(mark.kind == "cpu" for mark in scan):
            why = "no image was given" if image is None else "the image does not name data"
            notes.append(f"stacks of CPUs, and which tasks have ended, are not known: {why}")
        return DumpMarks(scan, None, tuple(notes))
    marks = debugged_marks(dump, debug)
    known = {mark.address for mark in marks}
    more = [replace(mark, kind="ended") for mark in scan if mark.address not in known]
    both = tuple(sorted([*marks, *more], key=lambda mark: (-mark.bytes, mark.stack, mark.address)))
    return DumpMarks(both, agreement(scan, marks), ())


def drgn_module() -> Any:
    """InputError: not installed."""
    try:
        import drgn
    except ImportError:
        raise InputError("drgn", _EXTRA) from None
    logging.getLogger("drgn").setLevel(logging.CRITICAL)  # what it says of modules is not asked for
    return drgn


def debugged_marks(dump: Dump, debug: Image) -> tuple[Mark, ...]:
    """Marks of a dump, the deepest first. InputError: no drgn, no VMCOREINFO, debug information of another
    build."""
    if dump.build_id is None:
        raise InputError(dump.path, "no VMCOREINFO in it: nothing says which kernel it is of")
    if debug.build_id != dump.build_id:
        raise InputError(
            debug.path, f"build-id {debug.build_id} is not that of the dump's kernel, {dump.build_id}"
        )
    drgn = drgn_module()
    wide = dump.machine is Machine.X86_64
    platform = drgn.Platform(drgn.Architecture.X86_64 if wide else drgn.Architecture.I386)
    program = drgn.Program(platform, vmcoreinfo=_kernel_text(dump, debug))
    marks: tuple[Mark, ...] = _guarded(dump.path, lambda: _of_dump(program, dump, debug))
    return marks


def _kernel_text(dump: Dump, debug: Image) -> bytes:
    """VMCOREINFO; i386's does not say by how much the kernel was moved (KASLR)."""
    ran, names = dump.symbol("_stext"), debug.symbols.names
    if "KERNELOFFSET" in dump.kernel or ran is None or "_stext" not in names:
        return dump.kernel_text
    moved = ran - int(debug.symbols.records["address"][names.index("_stext")])
    return dump.kernel_text + f"KERNELOFFSET={moved:x}\n".encode()


def open_program(debug: str | None) -> Any:
    """The running kernel. InputError: no drgn, not root, no debug information."""
    drgn = drgn_module()

    def opened() -> Any:
        program = drgn.Program()
        program.set_kernel()
        try:
            program.load_debug_info([debug] if debug else None, default=debug is None, main=True)
        except drgn.MissingDebugInfoError:
            if not program.main_module().debug_file_path:
                raise InputError("/proc/kcore", "no debug information of this kernel (--debug)") from None
        return program

    return _guarded("/proc/kcore", opened)


def _guarded(path: str, made: Callable[[], Any]) -> Any:
    """What drgn says is wrong, as one line."""
    drgn = drgn_module()
    try:
        return made()
    except (drgn.FaultError, drgn.ObjectNotFoundError, LookupError, ValueError, TypeError, OSError) as error:
        raise InputError(path, f"drgn: {str(error)[:200]}") from None
    except Exception as error:  # drgn.MissingDebugInfoError and what its C part raises as plain Exception
        if isinstance(error, InputError):
            raise
        raise InputError(path, f"drgn: {str(error)[:200] or type(error).__name__}") from None


def _of_dump(program: Any, dump: Dump, debug: Image) -> tuple[Mark, ...]:
    program.set_core_dump(dump.path)
    if dump.machine is Machine.I386:
        _map_low_memory(program, dump)
    # The kernel comes first. Its modules are not asked for: their list may lead anywhere in a broken dump.
    kernel, _ = next(iter(program.loaded_modules()))
    kernel.try_file(debug.path)
    return program_marks(program, dump.machine)


def _map_low_memory(program: Any, dump: Dump) -> None:
    """What the page tables map at one distance, in pieces."""
    paging = read_paging(dump)
    distance = paging.distance()
    low = max(
        [virtual + size for virtual, physical, size in paging.large if virtual - physical == distance]
        + [virtual + PAGE for virtual, physical in paging.small.items() if virtual - physical == distance]
    )
    for start, end, at in dump.segments:
        end = min(end, low - distance)
        if end <= start:
            continue

        def read(address: int, count: int, offset: int, physical: bool, at: int = at) -> bytes:
            return dump.data[at + offset : at + offset + count].tobytes()

        program.add_memory_segment(start + distance, end - start, read, False)


def program_marks(program: Any, machine: Machine) -> tuple[Mark, ...]:
    """One for each stack, the deepest first; stacks that cannot be read are left out."""
    reader = _Reader(program, machine)
    marks = [*reader.tasks(), *reader.ended(), *reader.cpus()]
    return tuple(sorted(marks, key=lambda mark: (-mark.bytes, mark.stack, mark.address)))


def agreement(scan: tuple[Mark, ...], debugged: tuple[Mark, ...]) -> tuple[int, tuple[str, ...]]:
    """(stacks that both have with the same mark, the others).

    A stack that the scan alone has is one of a task that has ended.
    """
    others = {mark.address: mark for mark in scan}
    equal, differ = 0, []
    for mark in debugged:
        other = others.pop(mark.address, None)
        if other is None:
            if mark.kind not in ("cpu", "idle", "ended"):  # found by symbols alone
                differ.append(f"{mark.owner}: {mark.bytes} B at {mark.address:#x}, not found by the scan")
        elif other.bytes == mark.bytes:
            equal += 1
        else:
            differ.append(f"{mark.owner}: {mark.bytes} B, the scan has {other.bytes} B")
    return equal, tuple(differ)


class _Reader:
    def __init__(self, program: Any, machine: Machine) -> None:
        self.program = program
        self.machine = machine
        self.word = machine.word
        self.drgn = drgn_module()
        self.thread_size = THREAD_SIZE[machine]

    # ------------------------------------------------------------ tasks

    def tasks(self) -> Iterator[Mark]:
        from drgn.helpers.linux.pid import for_each_task

        for task in for_each_task(self.program, idle=True):
            address = task.stack.value_()
            if not address:
                continue
            pid, flags = task.pid.value_(), task.flags.value_()
            name = task.comm.string_().decode("utf-8", "backslashreplace")
            kind = "idle" if pid == 0 else "kthread" if flags & _KTHREAD else "user"
            owner = name if pid == 0 else f"{name} ({pid})"
            yield from self._thread(address, self._thread_size(task), owner, kind, name)

    def _thread_size(self, task: Any) -> int:
        """THREAD_SIZE, from the pages that are mapped where they are."""
        try:
            area = task.stack_vm_area
            pages = int(area.nr_pages.value_()) if area else 0
        except (self.drgn.FaultError, AttributeError):
            pages = 0
        return pages * PAGE or self.thread_size

    def _thread(self, address: int, size: int, owner: str, kind: str, name: str) -> Iterator[Mark]:
        data = self._read(address, size)
        if data is None:
            return
        marker = int.from_bytes(data[: self.word].tobytes(), "little")
        if kind == "ended":
            skipped = ENDED_WORDS
        else:
            # Without its marker a stack was used to the very end, or beyond.
            skipped = 1 if marker == STACK_END_MAGIC else 0
        used = size - lowest_used(data, self.word, skipped)
        yield Mark("process", owner, used, size, kind, name, address)

    def ended(self) -> Iterator[Mark]:
        """Stacks that wait in a CPU's cache for the next task."""
        for cpu in self._cpus():
            for slot in self._per_cpu("cached_stacks", cpu) or ():
                if slot:
                    address = slot.addr.value_()
                    size = int(slot.nr_pages.value_()) * PAGE
                    yield from self._thread(address, size, f"{address:#x}", "ended", "")

    # ------------------------------------------------------------ CPUs

    def cpus(self) -> Iterator[Mark]:
        for cpu in self._cpus():
            owner = f"CPU {cpu}"
            for stack, address, size, skipped, above in self._of_cpu(cpu):
                data = self._read(address, size)
                if data is not None:
                    used = size - lowest_used(data, self.word, skipped)
                    yield Mark(stack, owner, used + above if used else 0, size + above, "cpu", "", address)

    def _of_cpu(self, cpu: int) -> Iterator[tuple[str, int, int, int, int]]:
        """(stack, address, bytes, words at its base that are none of it, bytes above it) of one CPU."""
        store = self._per_cpu("irq_stack_backing_store", cpu)
        if store is not None:
            yield "irq", store.address_, self.drgn.sizeof(store), 0, 0
        for symbol, stack in (("hardirq_stack_ptr", "hardirq"), ("softirq_stack_ptr", "softirq")):
            pointer = None if store is not None else self._per_cpu(symbol, cpu)
            if pointer is not None and pointer:
                yield stack, pointer.value_(), self.drgn.sizeof(pointer[0]), 1, 0
        entry = self._per_cpu("entry_stack_storage", cpu)
        if entry is not None:
            yield "entry", entry.address_, self.drgn.sizeof(entry.stack), 0, 0
        stacks = self._per_cpu("exception_stacks", cpu)
        if stacks is not None:
            for member, stack in IST_STACKS.items():
                if stacks.type_.has_member(member) and (size := self.drgn.sizeof(stacks.member_(member))):
                    yield stack, stacks.member_(member).address_, size, 0, 0
        fault = self._per_cpu("doublefault_stack", cpu)
        if fault is not None:
            size = self.drgn.sizeof(fault.stack)
            yield "double-fault", fault.address_, size, 0, self.drgn.sizeof(fault) - size

    def _cpus(self) -> list[int]:
        from drgn.helpers.linux.cpumask import for_each_possible_cpu

        return list(for_each_possible_cpu(self.program))

    def _per_cpu(self, name: str, cpu: int) -> Any:
        """A per-CPU variable; None: this kernel has none."""
        from drgn.helpers.linux.percpu import per_cpu

        try:
            return per_cpu(self.program[name], cpu)
        except (KeyError, self.drgn.ObjectNotFoundError, self.drgn.FaultError):
            return None

    def _read(self, address: int, size: int) -> Any:
        try:
            return np.frombuffer(self.program.read(address, size), np.uint8)
        except self.drgn.FaultError:
            return None
