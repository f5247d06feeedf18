"""The running kernel: how deep its stacks have been, as far as who asks may see.

As root, with debug information: marks of every stack through /proc/kcore (drgn). On request: the stack
tracer, switched on for a while and put back. For everybody: memory in stacks and the number of threads.

Sources: fs/proc/meminfo.c (KernelStack), fs/proc/loadavg.c, mm/vmstat.c (nr_kernel_stack, and kstack_… with
CONFIG_DEBUG_STACK_USAGE since 6.13), kernel/ksysfs.c (notes), kernel/trace/trace_stack.c.
"""

from __future__ import annotations

import platform
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from stackfit.image.model import InputError, Machine
from stackfit.measure.debugged import open_program, program_marks
from stackfit.measure.model import Mark

__all__ = ["Live", "read_live", "record_stack_trace"]

_MACHINES = {"x86_64": Machine.X86_64, "i386": Machine.I386, "i686": Machine.I386}
_BUILD_ID = 3  # NT_GNU_BUILD_ID
_TRACEFS = ("sys/kernel/tracing", "sys/kernel/debug/tracing")
_ENABLED = "proc/sys/kernel/stack_tracer_enabled"


@dataclass(frozen=True)
class Live:
    """What could be read. Bytes; None: not known. `unread`: (what, why) of the rest."""

    release: str | None
    build_id: str | None
    machine: Machine | None  # None: another than stackfit has layouts of
    stack_bytes: int | None  # in process stacks
    threads: int | None
    counters: dict[str, int] = field(default_factory=dict)  # of /proc/vmstat, on stacks
    marks: tuple[Mark, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()


def read_live(
    root: Path = Path("/"),
    debug: str | None = None,
    marks: Callable[[str | None, Machine], tuple[Mark, ...]] | None = None,
    opened: Callable[[], object] = lambda: None,
) -> Live:
    """`root`: where proc and sys are; `debug`: vmlinux with DWARF (default: where drgn looks for it); `marks`
    reads those of the running kernel. `opened` is called when the files that only root may open are open: the
    time to give up what is not needed any more (measure/privileges.py)."""
    reader = _Reader(root)
    machine = _MACHINES.get(platform.machine())
    release = (reader.text("release", "proc/sys/kernel/osrelease") or "").strip() or None
    found: tuple[Mark, ...] = ()
    if machine is None:
        reader.unread.append(("marks of stacks", f"no layout of {platform.machine()}"))
    elif reader.readable("marks of stacks", "proc/kcore"):
        try:
            found = marks(debug, machine) if marks is not None else _kcore_marks(debug, machine, opened)
        except InputError as error:
            reader.unread.append(("marks of stacks", str(error)))
    opened()
    return Live(
        release,
        reader.build_id(),
        machine,
        reader.stack_bytes(),
        reader.threads(),
        reader.counters(),
        found,
        tuple(reader.unread),
    )


def _kcore_marks(debug: str | None, machine: Machine, opened: Callable[[], object]) -> tuple[Mark, ...]:
    program = open_program(debug)
    opened()
    return program_marks(program, machine)


class _Reader:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.unread: list[tuple[str, str]] = []

    def text(self, what: str, name: str) -> str | None:
        data = self.data(what, name)
        return None if data is None else data.decode("utf-8", "replace")

    def data(self, what: str, name: str) -> bytes | None:
        try:
            return (self.root / name).read_bytes()
        except OSError as error:
            self._failed(what, name, error)
            return None

    def readable(self, what: str, name: str) -> bool:
        """Whether a file may be opened for reading."""
        try:
            with (self.root / name).open("rb"):
                return True
        except OSError as error:
            self._failed(what, name, error)
            return False

    def _failed(self, what: str, name: str, error: OSError) -> None:
        hint = " (needs root)" if isinstance(error, PermissionError) else ""
        self.unread.append((what, f"{self.root / name}: {error.strerror}{hint}"))

    def build_id(self) -> str | None:
        """Of the running kernel, from its ELF notes."""
        data = self.data("build-id", "sys/kernel/notes")
        at = 0
        while data is not None and at + 12 <= len(data):
            name, size, kind = (int.from_bytes(data[at + n : at + n + 4], "little") for n in (0, 4, 8))
            body = at + 12 + -(-name // 4) * 4
            if kind == _BUILD_ID and data[at + 12 : at + 12 + name] == b"GNU\0" and body + size <= len(data):
                return data[body : body + size].hex()
            at = body + -(-size // 4) * 4
        return None

    def stack_bytes(self) -> int | None:
        for line in (self.text("memory in stacks", "proc/meminfo") or "").splitlines():
            words = line.split()
            if len(words) == 3 and words[0] == "KernelStack:" and words[1].isdecimal():
                return int(words[1]) << 10
        return None

    def threads(self) -> int | None:
        words = (self.text("number of threads", "proc/loadavg") or "").split()
        total = words[3].partition("/")[2] if len(words) > 3 else ""
        return int(total) if total.isdecimal() else None

    def counters(self) -> dict[str, int]:
        found = {}
        for line in (self.text("counters", "proc/vmstat") or "").splitlines():
            name, _, value = line.partition(" ")
            if (name == "nr_kernel_stack" or name.startswith("kstack_")) and value.isdecimal():
                found[name] = int(value)
        return found


# ---------------------------------------------------------------- the stack tracer


def record_stack_trace(
    seconds: float, root: Path = Path("/"), wait: Callable[[float], None] = time.sleep
) -> str:
    """The deepest chain of the next seconds (Ctrl-C ends them early), as the tracer prints it.

    The tracer is switched on, and afterwards off; the maximum that it had before is written back. One that is
    on already is read as it stands, nothing is changed. InputError: not root, or a kernel without it.
    """
    enabled = root / _ENABLED
    if _read(enabled).strip() != "0":
        return _read(_tracefs(root) / "stack_trace")
    tracefs = _tracefs(root)
    before = _read(tracefs / "stack_max_size").strip()
    with _terminated():
        try:
            _write(tracefs / "stack_max_size", "0")
            _write(enabled, "1")
            with suppress(KeyboardInterrupt):
                wait(seconds)
            return _read(tracefs / "stack_trace")
        finally:
            with _undisturbed():
                try:
                    _write(enabled, "0")
                finally:
                    _write(tracefs / "stack_max_size", before)


def _tracefs(root: Path) -> Path:
    for name in _TRACEFS:
        if (root / name / "stack_trace").exists():
            return root / name
    raise InputError(
        str(root / _TRACEFS[0]), "no stack_trace in it: not mounted, not root, or no CONFIG_STACK_TRACER"
    )


@contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM, and SIGHUP of a terminal that is gone, end the wait like Ctrl-C: the tracer is put back."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No signal that ends this process comes between."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError as error:
        raise InputError(str(path), error.strerror or str(error)) from None


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise InputError(str(path), error.strerror or str(error)) from None
