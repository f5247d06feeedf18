"""Candidates of indirect calls in kernels with CONFIG_CFI_CLANG: functions of the type that the call checks.

clang puts a hash of its type before every function (`mov $hash, %eax`), and before every indirect call a
check that the function to be called has the expected one:

    mov $-hash, %r10d;  add -4(%r11), %r10d;  je 1f;  ud2;  1: call *%r11

The distance from the function grows with the padding that the kernel is built with; the check tells it. The
classes are exact where C's prototypes are: BTF is not needed, and a cast traps. Source:
llvm/lib/Target/X86/X86AsmPrinter.cpp:LowerKCFI_CHECK; arch/x86/kernel/cfi.c:decode_cfi_insn. x86-64 only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from stackfit.image.model import Machine, Program, Section
from stackfit.isa.code import Code

__all__ = ["checked_classes"]

_JE_UD2 = b"\x74\x02\x0f\x0b"
_MOVE_R10D = b"\x41\xba"  # and 4 bytes
_MOVE_EAX = 0xB8  # and 4 bytes
_LONGEST_CHECK = 18  # bytes: 6 of the move, 8 of an add with a SIB byte and a far displacement, je and ud2
_ADD = (0x44, 0x45)  # REX prefixes: the destination is one of r8 to r15, the base any register


def checked_classes(program: Program, code: Code, rows: Iterable[int]) -> dict[int, tuple[int, ...]]:
    """Row of an indirect call or jump with a check → functions (ascending) whose hash passes it.

    Rows without a check are left out; none passes it where no image has a function of that type.
    """
    if program.machine is not Machine.X86_64:
        return {}
    bytes_of = _Bytes(program)
    checks: dict[int, tuple[int, int]] = {}
    for row in rows:
        check = _check_before(bytes_of.before(int(code.address[row]), _LONGEST_CHECK))
        if check is not None:
            checks[row] = check
    classes: dict[tuple[int, int], tuple[int, ...]] = {}
    for distance in sorted({distance for _, distance in checks.values()}):
        found = _by_hash(code, bytes_of, distance)
        classes.update({(expected, distance): tuple(members) for expected, members in found.items()})
    return {row: classes.get(check, ()) for row, check in checks.items()}


def _check_before(text: bytes) -> tuple[int, int] | None:
    """(hash, bytes from it to the function's entry) of the check that ends the bytes; None: there is none."""
    if not text.endswith(_JE_UD2):
        return None
    end = len(text) - len(_JE_UD2)
    for length in (4, 5, 7, 8):  # of the add: its displacement has 1 or 4 bytes, a SIB byte may come before
        start = end - length
        if start < 6 or text[start] not in _ADD or text[start + 1] != 0x03:
            continue
        mode, register, base = text[start + 2] >> 6, text[start + 2] >> 3 & 7, text[start + 2] & 7
        size = {1: 1, 2: 4}.get(mode, 0)
        if register != 2 or not size or length != 3 + size + (base == 4):  # r10d
            continue
        distance = -int.from_bytes(text[end - size : end], "little", signed=True)
        if text[start - 6 : start - 4] == _MOVE_R10D and distance >= 4:
            return -int.from_bytes(text[start - 4 : start], "little") & 0xFFFF_FFFF, distance
    return None


def _by_hash(code: Code, bytes_of: _Bytes, distance: int) -> dict[int, list[int]]:
    """Hash → functions that have it so many bytes before their entry."""
    found = defaultdict[int, list[int]](list)
    functions = code.functions
    for function, address in enumerate(functions.address.tolist()):
        if functions.parent[function] >= 0 or functions.piece[function]:
            continue
        text = bytes_of.before(address, distance + 1)
        if len(text) == distance + 1 and text[0] == _MOVE_EAX:
            found[int.from_bytes(text[1:5], "little")].append(function)
    return found


class _Bytes:
    """What lies before addresses in code."""

    def __init__(self, program: Program) -> None:
        self._sections = [
            section
            for image in program.images
            for section in image.sections
            if section.allocated and section.executable
        ]
        self._last: Section | None = None

    def before(self, address: int, count: int) -> bytes:
        """Up to so many bytes that end before an address in code; fewer where its section begins."""
        if self._last is None or not self._last.address <= address < self._last.end:
            self._last = next((one for one in self._sections if one.address <= address < one.end), None)
        if self._last is None:
            return b""
        offset = address - self._last.address
        return self._last.data[max(offset - count, 0) : offset].tobytes()
