"""What a guest of the experiment wrote on its console (guest/experiment.c), the kernel's own reports
included."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

__all__ = ["GuestLog", "OutOfMemoryReport", "OverflowReport", "meminfo", "vmstat"]

_STAMP = re.compile(r"^\[ *\d+\.\d+\] ?", re.M)
_SECTION = re.compile(r"^@@ (\w+) (\d+) (/\S+)\n(.*?)^@@ end$", re.M | re.S)
_NUMBERS = re.compile(r"^(\S+?):? +(\d+)", re.M)


@dataclass(frozen=True)
class OutOfMemoryReport:
    """The kernel's report when it called the OOM killer. `children`: processes but init. `caller`: the
    function of
    the allocation, as far as the call chain tells. `free_kb`, `buddyinfo`: of zone Normal."""

    order: int
    flags: str
    caller: str
    children: int
    free_kb: int
    buddyinfo: tuple[int, ...]


@dataclass(frozen=True)
class OverflowReport:
    """What the module printed: bytes between the lowest address used and the stack's end (negative: below
    it)."""

    context: str
    levels: int
    stack: str
    left: int
    intact: bool


@dataclass(frozen=True)
class GuestLog:
    """The console of one run."""

    text: str

    @cached_property
    def sections(self) -> Mapping[tuple[str, int, str], str]:
        """Files that the guest printed, by (mark, children made, path), without the kernel's lines
        between."""
        return {
            (mark, int(made), path): "".join(
                line for line in body.splitlines(keepends=True) if not _STAMP.match(line)
            )
            for mark, made, path, body in _SECTION.findall(self.text)
        }

    @cached_property
    def kernel(self) -> str:
        """The text without time stamps."""
        return _STAMP.sub("", self.text)

    @property
    def stopped(self) -> str:
        """What ended the run: "limit", "cycle" and the like from the guest, "oom", "panic", or "" (nothing
        said)."""
        found = re.search(r"^@@ stop (\w+)", self.text, re.M)
        if found:
            return found[1]
        if "invoked oom-killer" in self.text:
            return "oom"
        return "panic" if "Kernel panic" in self.text else ""

    @property
    def error(self) -> int | None:
        """errno of the fork that failed."""
        found = re.search(r"^@@ error (\d+)", self.text, re.M)
        return int(found[1]) if found else None

    @property
    def made(self) -> int:
        """Children made by the last time that the guest said so."""
        return max((made for mark, made, _ in self.sections if mark in ("made", "failed", "end")), default=0)

    @cached_property
    def latencies(self) -> tuple[int, ...]:
        """Of every fork, nanoseconds of the guest's time; the last few before the end are not printed."""
        rows = re.findall(r"^@@ latency((?: \d+)+)", self.text, re.M)
        return tuple(int(word) for row in rows for word in row.split())

    @cached_property
    def disk(self) -> tuple[int, ...]:
        """Of reads of single pages of the disk before memory was short, nanoseconds of the guest's time."""
        rows = re.findall(r"^@@ disk((?: \d+)+)", self.text, re.M)
        return tuple(int(word) for row in rows for word in row.split())

    @property
    def marks(self) -> dict[str, int]:
        """How deep each interrupt stack has been, bytes; 0: there is none."""
        return {name: int(size) for name, size in re.findall(r"^@@ mark (\w+) (\d+)", self.text, re.M)}

    def numbers(self, mark: str, path: str, made: int = 0) -> dict[str, int]:
        """meminfo or vmstat of a snapshot; empty where it is not there."""
        return vmstat(self.sections.get((mark, made, path), ""))

    def buddyinfo(self, mark: str) -> tuple[int, ...]:
        found = re.search(r"zone +Normal +([\d ]+)", self.sections.get((mark, 0, "/proc/buddyinfo"), ""))
        return tuple(int(word) for word in found[1].split()) if found else ()

    @cached_property
    def out_of_memory(self) -> OutOfMemoryReport | None:
        kernel = self.kernel
        head = re.search(r"invoked oom-killer: gfp_mask=(\S+), order=(-?\d+)", kernel)
        if head is None:
            return None
        tail = kernel[head.start() :]
        chain = list(re.findall(r"^ +([\w.]+)\+0x", tail, re.M))
        plain = ("dump_", "out_of_memory", "__alloc_pages", "show_stack")
        caller = next((one for one in chain if one.startswith(("copy_process", "handle_mm"))), "")
        caller = caller or next((one for one in chain if not one.startswith(plain)), "")
        blocks = re.search(r"^Normal: (.*) = (\d+)kB", tail, re.M)
        return OutOfMemoryReport(
            order=int(head[2]),
            flags=head[1].split("(")[-1].rstrip(")"),
            caller=caller,
            children=len(re.findall(r"^\[ *\d+\] +\d+ +\d+ .* init$", tail, re.M)) - 1,
            free_kb=int(blocks[2]) if blocks else 0,
            buddyinfo=tuple(int(one) for one in re.findall(r"(\d+)\*\d+kB", blocks[1])) if blocks else (),
        )

    @cached_property
    def overflow(self) -> OverflowReport | None:
        found = re.search(
            r"stackfit: context (\w+) levels (\d+) top -?\d+ stack (\w+) left (-?\d+) end (\w+)", self.text
        )
        if found is None:
            return None
        context, levels, stack, left, end = found.groups()
        return OverflowReport(context, int(levels), stack, int(left), end == "intact")

    @cached_property
    def complaints(self) -> tuple[str, ...]:
        """Lines by which the kernel says that something is wrong with a stack or with itself, each once."""
        found = re.findall(
            r"^(?:Kernel panic - not syncing: .*|low stack detected.*|BUG: .*|Oops: .*|Bad page state.*|"
            r"PANIC: double fault.*|general protection fault.*|WARNING: CPU.*)",
            self.kernel,
            re.M,
        )
        return tuple(dict.fromkeys(line.strip() for line in found))

    @property
    def least_left(self) -> int | None:
        """The least free stack of a task that the kernel reports, bytes (DEBUG_STACK_USAGE)."""
        found = [int(n) for n in re.findall(r"used greatest stack depth: (\d+) bytes left", self.kernel)]
        found += [int(n) for n in re.findall(r"^task:.*? stack:\s*(\d+) ", self.kernel, re.M) if int(n)]
        return min(found, default=None)


def meminfo(text: str) -> dict[str, int]:
    """Name → number, kB."""
    return vmstat(text)


def vmstat(text: str) -> dict[str, int]:
    """Name → number of a file with one of each a line."""
    return {name: int(number) for name, number in _NUMBERS.findall(text)}
