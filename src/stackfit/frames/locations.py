"""Places that debug information names, as depths: what its expressions compute, at tracked depths.

Compilers tell a variable's place by its distance from the caller's frame (DW_OP_fbreg, DW_OP_call_frame_cfa),
from the stack pointer or from the frame pointer (DW_OP_breg). What the two registers hold at an instruction
is known from tracking. Source: DWARF 5 section 2.5; register numbers from the x86-64 and i386 psABI.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from stackfit.image.locals import Local, Operation, Place
from stackfit.image.model import Machine

__all__ = ["Locations"]

_STACK_POINTER = {Machine.X86_64: 7, Machine.I386: 4}
_FRAME_POINTER = {Machine.X86_64: 6, Machine.I386: 5}
_LARGEST_ALIGNMENT = 4096  # bytes: a frame is not realigned to more

_Value = tuple[bool, int]  # whether it is an address in the frame, and its depth; or the number


class Locations:
    """One function's. Arrays by instruction, ascending `addresses`: `stack` and `pointer` are the depths that
    the stack and the frame pointer hold, -1 where that is not known. `base`: what fbreg counts from."""

    def __init__(
        self,
        machine: Machine,
        addresses: NDArray[np.uint64],
        stack: NDArray[np.int32],
        pointer: NDArray[np.int32],
        base: Sequence[Operation],
    ) -> None:
        self._word = machine.word
        self._addresses = addresses
        self._registers = {_STACK_POINTER[machine]: stack, _FRAME_POINTER[machine]: pointer}
        self._base = base

    def pieces(self, one: Local, place: Place) -> Iterator[tuple[str, int, int]]:
        """(name, begin, end) of the parts of a variable that are in memory of this frame, as depths."""
        expression = place.expression
        if any(name == "piece" for name, _ in expression):
            offset, start = 0, 0
            for number, (name, operands) in enumerate(expression):
                if name == "piece":
                    size = operands[0] if operands else 0
                    depth = self._depth(expression[start:number], place)
                    if depth is not None and size > 0:
                        yield f"{one.name}[{offset}:{offset + size}]", depth - size, depth
                    offset, start = offset + size, number + 1
            return
        depth = self._depth(expression, place)
        if depth is not None and one.size:
            yield one.name, depth - one.size, depth

    def _depth(self, expression: Sequence[Operation], place: Place, base: bool = False) -> int | None:
        """The depth of the address that an expression computes; None: no address in this frame.

        `base`: it is the frame base, where a register alone means what it holds.
        """
        stack: list[_Value] = []
        for name, operands in expression:
            value: _Value | None
            if name == "call_frame_cfa":
                value = True, 0
            elif name == "fbreg" and not base:
                value = self._from(self._depth(self._base, place, True), operands)
            elif name.startswith("breg") and name[4:].isdigit():
                value = self._from(self._held(int(name[4:]), place), operands)
            elif base and name.startswith("reg") and name[3:].isdigit():
                value = self._from(self._held(int(name[3:]), place), (0,))
            elif name.startswith("lit") and name[3:].isdigit():
                value = False, int(name[3:])
            elif name.startswith("const") and operands:
                value = False, operands[0]
            elif name == "plus_uconst" and stack and operands:
                value = self._combined("plus", stack.pop(), (False, operands[0]))
            elif name in ("plus", "minus", "and") and len(stack) > 1:
                right = stack.pop()
                value = self._combined(name, stack.pop(), right)
            else:
                return None
            if value is None:
                return None
            stack.append(value)
        return stack[0][1] if len(stack) == 1 and stack[0][0] else None

    @staticmethod
    def _from(depth: int | None, operands: Sequence[int]) -> _Value | None:
        return None if depth is None or not operands else (True, depth - operands[0])

    def _combined(self, name: str, left: _Value, right: _Value) -> _Value | None:
        if right[0] and not left[0] and name != "minus":
            left, right = right, left
        if not left[0] or right[0]:
            return None
        depth, number = left[1], right[1]
        if name == "and":  # as the tracker takes it: at its worst
            if not -_LARGEST_ALIGNMENT <= number < 0:
                return None
            return True, depth + max(-number - self._word, 0)
        return True, depth - number if name == "plus" else depth + number

    def _held(self, register: int, place: Place) -> int | None:
        """The depth that a register has while a place holds; None: it is not known."""
        values = self._registers.get(register)
        if values is None:
            return None
        known: list[int] = []
        for part in place.ranges:
            first, last = np.searchsorted(self._addresses, np.array(part, np.uint64)).tolist()
            inside = values[first:last]
            known.extend(inside[inside >= 0].tolist())
        if not known:
            return None
        # One expression for a whole scope: what is pushed meanwhile does not count.
        return Counter(known).most_common(1)[0][0] if place.scope else known[0]
