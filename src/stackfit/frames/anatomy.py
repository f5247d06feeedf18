"""What a frame's bytes are for: every byte of one function's frame, and the evidence for it.

Two sources are laid over each other: the code, whose every instruction has a tracked depth (who takes which
bytes, who reads and writes them), and debug information, if there is any, which names variables, their types
and the inlined functions that own them. Compilers describe variables by distance from the caller's frame
(DW_OP_fbreg) or from the stack or frame pointer; tracked depths turn all three into the same measure. Places
in a frame that is aligned at run time are given as at its worst, as its depth is.

A place is told by *depths*: bytes from just before the call that entered the function, so that a part from
`begin` to `end` has the addresses [CFA - end, CFA - begin), and the first part is the return address.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stackfit.frames.locations import Locations
from stackfit.frames.model import OPEN_FRAME, Frames, StackKind
from stackfit.image.locals import FunctionLocals, Range
from stackfit.image.model import Machine
from stackfit.isa.code import Code
from stackfit.isa.constants import AX, BP, BX, DI, SI, SP
from stackfit.isa.effects import FLAG_MEMORY, FLAG_SEGMENT, NO_REGISTER
from stackfit.isa.effects import Operation as Op

__all__ = ["Anatomy", "PartKind", "frame_anatomy"]


class PartKind(enum.IntEnum):
    """What a part of a frame is."""

    UNKNOWN = 0  # nothing tells
    RETURN_ADDRESS = 1
    SAVED_REGISTER = 2  # a register's value of the caller, restored before the return
    VARIABLE = 3  # a variable or parameter that debug information names, at home here
    SPILL = 4  # one that is kept here at times, else in a register
    SLOT = 5  # read and written, nameless: a spilled value; without debug information, a variable
    OBJECT = 6  # its address is taken, nameless: at most this large
    RESULT = 7  # room for what a call returns in memory, nameless
    PROTECTOR = 8  # gcc's canary (-fstack-protector)
    OUTGOING = 9  # arguments of calls
    TEMPORARY = 10  # pushed and popped between calls (inline assembly)
    ALLOCATION = 11  # alloca, variable-length array: as far as it is bounded
    ALIGNMENT = 12  # lost to realignment at its worst
    PADDING = 13  # nothing reads or writes it

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The parts of one function's frame, nearest the caller first. Parts may overlap: what does not live at
    the same time shares a slot. Arrays have one entry for each part, or byte.

    `frame`: bytes; `open`: more of unknown size lies below them. `debug`: debug information had the function.
    `owners`: the inlined functions that a variable belongs to, outermost first; () the function itself.
    `ranges`: addresses while which a part is there; () all the time. `beyond`: bytes below the stack pointer
    that a variable takes (the red zone of the System V ABI), in no frame.
    """

    function: int
    frame: int
    open: bool
    debug: bool
    kind: NDArray[np.uint8]  # PartKind
    begin: NDArray[np.int32]  # depth, bytes
    end: NDArray[np.int32]  # depth, bytes; exclusive
    names: tuple[str, ...]
    types: tuple[str, ...]
    owners: tuple[tuple[str, ...], ...]
    ranges: tuple[tuple[Range, ...], ...]
    shared: NDArray[np.bool_]  # has bytes that another part has, too
    use: NDArray[np.uint8]  # [frame] PartKind of each byte, nearest the caller first
    beyond: int
    inlined: tuple[tuple[tuple[str, ...], tuple[Range, ...]], ...]  # (path, where) of all inlined functions

    def __len__(self) -> int:
        return len(self.names)

    @property
    def bytes(self) -> dict[PartKind, int]:
        """Bytes of each kind that occurs, each byte once; they add up to `frame`."""
        return {PartKind(kind): count for kind, count in enumerate(np.bincount(self.use).tolist()) if count}

    @property
    def accounted(self) -> int:
        """Bytes of which it is known what they are for."""
        return int(np.count_nonzero(~np.isin(self.use, (PartKind.UNKNOWN, PartKind.OBJECT))))

    def exclusive(self, parts: Sequence[int]) -> int:
        """Bytes that these parts have and no other: what goes when they go."""
        mine, others = np.zeros(self.frame, np.bool_), np.zeros(self.frame, np.bool_)
        chosen = set(parts)
        for part in range(len(self)):
            if self.kind[part] not in (PartKind.PADDING, PartKind.UNKNOWN):
                held = mine if part in chosen else others
                held[int(self.begin[part]) : int(self.end[part])] = True
        return int((mine & ~others).sum())


def frame_anatomy(
    code: Code,
    frames: Frames,
    function: int,
    found: FunctionLocals | None = None,
    undefined: Mapping[int, str] | None = None,
) -> Anatomy:
    """The anatomy of one function's frame. `frames` with frame pointers (analyse_frames); `found`: what debug
    information says of that function; `undefined`: names of functions outside, by address (Program)."""
    return _Account(code, frames, function, found, undefined or {}).anatomy()


@dataclass(frozen=True)
class _Part:
    kind: PartKind
    begin: int
    end: int
    name: str = ""
    type: str = ""
    owners: tuple[str, ...] = ()
    ranges: tuple[Range, ...] = ()


_PUSHES = (Op.PUSH, Op.PUSH_FLAGS, Op.PUSH_ALL)
_CALLS = (Op.CALL, Op.CALL_INDIRECT)
_WRITES = (Op.STORE, Op.STORE_IMMEDIATE)
# In registers that an ABI has callees save: System V ABI, AMD64 3.2.1, i386 2.2.
_KEPT = {
    Machine.X86_64: frozenset((BX, BP, 12, 13, 14, 15)),
    Machine.I386: frozenset((BX, BP, SI, DI)),
}
_NAMES = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
_CANARY = {Machine.X86_64: 0x28, Machine.I386: 0x14}  # %gs or %fs:0x28, %gs:0x14
_MANY = 3  # registers that only assembly saves without need
_LATER = 48  # rows within which a pushed argument's call comes
_LARGEST_VECTOR = 16  # bytes that an instruction of unknown width may access
# Of the byte account: what is named by stronger evidence hides the rest.
_ORDER = (
    PartKind.OUTGOING, PartKind.TEMPORARY, PartKind.ALIGNMENT, PartKind.ALLOCATION, PartKind.RESULT,
    PartKind.SLOT, PartKind.PROTECTOR, PartKind.SAVED_REGISTER, PartKind.SPILL, PartKind.VARIABLE,
    PartKind.RETURN_ADDRESS,
)  # fmt: skip


class _Account:
    """One function's rows, and the parts found so far."""

    def __init__(
        self,
        code: Code,
        frames: Frames,
        function: int,
        found: FunctionLocals | None,
        undefined: Mapping[int, str],
    ) -> None:
        self.code, self.frames, self.function, self.found = code, frames, function, found
        self.undefined = undefined
        self.word = code.machine.word
        self.frame = int(frames.frame[function])
        self.open = bool(int(frames.summary[function]) & OPEN_FRAME)
        rows = self._rows()
        table = code.instructions
        self.row = rows
        self.order = np.argsort(code.address[rows], kind="stable")
        self.sorted = code.address[rows][self.order]
        self.op: list[int] = table.operation[rows].tolist()
        self.register: list[int] = table.register[rows].tolist()
        self.base: list[int] = table.base[rows].tolist()
        self.index: list[int] = table.index[rows].tolist()
        self.flags: list[int] = table.flags[rows].tolist()
        self.width: list[int] = table.width[rows].tolist()
        self.displacement: list[int] = table.displacement[rows].tolist()
        self.immediate: list[int] = table.immediate[rows].tolist()
        self.clobbers: list[int] = table.clobbers[rows].tolist()
        self.depth: list[int] = frames.depth[rows].tolist()
        # Below an allocation of unknown size: an address there is no distance from the caller's frame.
        self.below: list[bool] = (frames.stack[rows] == StackKind.BELOW_ALLOCATION).tolist()
        self.pointer = self._frame_pointers()
        self.parts: list[_Part] = []
        self.known: set[_Part] = set()
        self.area = np.zeros(self.frame, np.bool_)  # taken for locals
        self.taken: list[int] = []  # depths of objects whose address is taken

    def _rows(self) -> NDArray[np.int64]:
        """The rows that the function's walk reached: its own, its cold piece's, and those of alternatives."""
        code, visitor = self.code, self.frames.visitor
        own = [self.function, *np.flatnonzero(code.functions.parent == self.function).tolist()]
        pieces = np.flatnonzero(code.functions.piece).tolist()
        rows = np.concatenate([np.arange(code.first[one], code.first[one + 1]) for one in (*own, *pieces)])
        rows = rows[visitor[rows] == self.function]
        known = np.isin(self.frames.stack[rows], (StackKind.FRAME, StackKind.BELOW_ALLOCATION))
        return np.asarray(rows[known], np.int64)

    def _frame_pointers(self) -> list[int]:
        if self.frames.frame_pointer.size:
            return list(self.frames.frame_pointer[self.row].tolist())
        return [-1] * len(self.row)

    # ------------------------------------------------------------ result

    def anatomy(self) -> Anatomy:
        beyond = 0
        if self.code.machine in _KEPT:  # of other instruction sets all stays unknown
            self._add(_Part(PartKind.RETURN_ADDRESS, 0, self.word, "return address"))
            self._pushes()
            self._areas()
            beyond = self._variables() if self.found is not None else 0
            self._slots()
        use = self._use()
        parts = self.parts + self._rest(use)
        parts.sort(key=lambda part: (part.begin, -part.end, part.kind, part.owners, part.name, part.type))
        cover = np.zeros(self.frame + 1, np.int32)
        for part in parts:
            cover[part.begin : part.end] += 1
        return Anatomy(
            function=self.function,
            frame=self.frame,
            open=self.open,
            debug=self.found is not None,
            kind=np.array([part.kind for part in parts], np.uint8),
            begin=np.array([part.begin for part in parts], np.int32),
            end=np.array([part.end for part in parts], np.int32),
            names=tuple(part.name for part in parts),
            types=tuple(part.type for part in parts),
            owners=tuple(part.owners for part in parts),
            ranges=tuple(part.ranges for part in parts),
            shared=np.array([bool((cover[part.begin : part.end] > 1).any()) for part in parts], np.bool_),
            use=use,
            beyond=beyond,
            inlined=tuple(
                (self._owners(number), one.ranges)
                for number, one in enumerate(self.found.inlined if self.found is not None else ())
            ),
        )

    def _add(self, part: _Part) -> None:
        """A part, as far as it is within the frame."""
        begin, end = max(part.begin, 0), min(part.end, self.frame)
        if begin < end:
            kept = replace(part, begin=begin, end=end)
            if kept not in self.known:
                self.known.add(kept)
                self.parts.append(kept)

    def _use(self) -> NDArray[np.uint8]:
        use = np.zeros(self.frame, np.uint8)
        for kind in _ORDER:
            for part in self.parts:
                if part.kind is kind:
                    use[part.begin : part.end] = kind
        # What is nameless and has its address taken reaches, at most, as far up as nothing else is known.
        free = use == PartKind.UNKNOWN
        inside = free & self.area
        unnamed = np.zeros(self.frame, np.bool_)
        for depth in self.taken:
            at = min(depth, self.frame) - 1
            while at >= 0 and (inside[at] or use[at] == PartKind.SLOT):
                unnamed[at] = inside[at]
                at -= 1
        use[inside] = PartKind.PADDING
        use[unnamed] = PartKind.OBJECT
        return use

    def _rest(self, use: NDArray[np.uint8]) -> list[_Part]:
        """Parts of the bytes that no instruction and no name claims."""
        found = []
        for begin, end in _runs(use):
            kind = PartKind(int(use[begin]))
            if kind in (PartKind.PADDING, PartKind.OBJECT, PartKind.UNKNOWN):
                found.append(_Part(kind, begin, end))
        return found

    # ------------------------------------------------------------ what the code takes

    def _pushes(self) -> None:
        """Saved registers, outgoing arguments and temporaries: what push instructions put there."""
        restored = self._restored()
        untouched = self._untouched()
        put_back = self._put_back(restored)
        realigned = False
        for at, operation in enumerate(self.op):
            depth = self.depth[at]
            if operation == Op.AND_IMMEDIATE and self.register[at] == SP:
                realigned = True
            if operation == Op.ENTER:
                self._add(_Part(PartKind.SAVED_REGISTER, depth, depth + self.word, self._name(BP)))
            if operation not in _PUSHES:
                continue
            size = self.width[at] * (8 if operation == Op.PUSH_ALL else 1)
            begin, end = depth, depth + size
            register = self.register[at] if operation == Op.PUSH else NO_REGISTER
            memory = bool(self.flags[at] & FLAG_MEMORY)
            if operation == Op.PUSH_ALL:
                self._add(_Part(PartKind.SAVED_REGISTER, begin, end, "all registers"))
            elif register < 16 and not memory and (untouched[at] or at in put_back):
                self._add(_Part(PartKind.SAVED_REGISTER, begin, end, self._name(register)))
            elif memory and realigned and self.displacement[at] == -self.word:
                # push -8(%r10): the copy that keeps debuggers going in a realigned frame
                self._add(_Part(PartKind.RETURN_ADDRESS, begin, end, "return address, a copy"))
            else:
                callee = self._called_with(at, end)
                if callee is None:
                    self._add(_Part(PartKind.TEMPORARY, begin, end))
                elif self._always_there(at, end):  # push %rax instead of sub $8,%rsp
                    self.area[begin:end] = True
                else:
                    self._add(_Part(PartKind.OUTGOING, begin, end, callee))
        for register, depth in self._moved_to_slots(untouched):
            self._add(_Part(PartKind.SAVED_REGISTER, depth - self.word, depth, self._name(register)))

    def _name(self, register: int) -> str:
        if register >= 8:
            return f"r{register}"
        return f"{'r' if self.word == 8 else 'e'}{_NAMES[register]}"

    def _restored(self) -> set[tuple[int, int]]:
        """(register, depth of its slot) that something takes from there again."""
        found = set()
        for at, operation in enumerate(self.op):
            if operation == Op.POP and not self.flags[at] & FLAG_MEMORY:
                found.add((self.register[at], self.depth[at]))
            elif operation == Op.LEAVE:
                found.add((BP, self.pointer[at]))
            elif operation == Op.LOAD and (depth := self._operand(at)) is not None:
                found.add((self.register[at], depth))
        return found

    def _put_back(self, restored: set[tuple[int, int]]) -> set[int]:
        """Pushes of other registers that are there to be restored: those of a realigned frame (r10), and of
        assembly that saves many. (`push %eax; call f; pop %eax` hands over an argument, and drops it.)"""
        found = set()
        realigned = False
        for at, operation in enumerate(self.op):
            if operation in _CALLS and not self._is_nop_call(at):
                break
            realigned |= operation == Op.AND_IMMEDIATE and self.register[at] == SP
            pushed = operation == Op.PUSH and not self.flags[at] & FLAG_MEMORY
            if pushed and (self.register[at], self.depth[at] + self.word) in restored:
                found.add(at)
        return found if realigned or len(found) >= _MANY else set()

    def _untouched(self) -> list[bool]:
        """Pushes and stores of a callee-saved register that nothing before has written: the caller's."""
        kept = _KEPT[self.code.machine]
        written: set[int] = set()
        found = []
        for at, operation in enumerate(self.op):
            register = self.register[at]
            moved = operation in (Op.PUSH, Op.STORE) and not (
                operation == Op.PUSH and self.flags[at] & FLAG_MEMORY
            )
            found.append(moved and register in kept and register not in written)
            written.update(self._written(at))
        return found

    def _written(self, at: int) -> Iterator[int]:
        operation, register = self.op[at], self.register[at]
        if operation in _TO_REGISTER and register < 16:
            yield register
        if operation == Op.EXCHANGE and self.base[at] < 16:
            yield self.base[at]
        clobbers = self.clobbers[at]
        if clobbers:
            yield from (number for number in range(16) if clobbers >> number & 1)

    def _moved_to_slots(self, untouched: Sequence[bool]) -> Iterator[tuple[int, int]]:
        """Registers saved by a move instead of a push: (register, depth of the slot)."""
        pushed = {
            self.register[at]
            for at, operation in enumerate(self.op)
            if operation == Op.PUSH and untouched[at]
        }
        restored = self._restored()
        for at, operation in enumerate(self.op):
            register = self.register[at]
            if operation == Op.STORE and untouched[at] and register not in pushed:
                depth = self._operand(at)
                if depth is not None and (register, depth) in restored:
                    yield register, depth

    def _called_with(self, at: int, end: int) -> str | None:
        """The function called with what row `at` pushed, "" where that is not known; None: there is no call
        before it is popped again."""
        for later in range(at + 1, min(at + _LATER, len(self.op))):
            if self.depth[later] < end:
                return None
            if self.op[later] in _CALLS and not self._is_nop_call(later):
                return self._callee(later)
        return None

    def _always_there(self, at: int, end: int) -> bool:
        """Several calls follow, all with that push's bytes in place: no argument of one of them."""
        calls = [
            self.depth[later]
            for later in range(at + 1, len(self.op))
            if self.op[later] in _CALLS and not self._is_nop_call(later)
        ]
        return len(calls) > 1 and min(calls) >= end

    def _callee(self, at: int) -> str:
        target = int(self.code.target[self.row[at]])
        if self.op[at] != Op.CALL:
            return ""
        if target < 0:
            return self.undefined.get(self.immediate[at] & self.code.machine.mask, "")
        return self.code.functions.names[int(self.code.function[target])]

    def _is_nop_call(self, at: int) -> bool:
        return self._callee(at) in ("__fentry__", "mcount")

    def _areas(self) -> None:
        """What is taken off the stack pointer for locals, by realignment, by alloca."""
        for at, operation in enumerate(self.op):
            if self.register[at] != SP or operation not in _TAKES:
                continue
            begin = self.depth[at]
            end = self._depth_after(at)
            if end <= begin:
                continue
            if operation == Op.AND_IMMEDIATE:
                self._add(_Part(PartKind.ALIGNMENT, begin, end))
            elif operation == Op.SUBTRACT:
                self._add(_Part(PartKind.ALLOCATION, begin, end))
            elif (callee := self._for_one_call(at, begin, end)) is not None:
                self._add(_Part(PartKind.OUTGOING, begin, end, callee))
            else:
                self.area[begin:end] = True
        for at, operation in enumerate(self.op):
            if operation == Op.ENTER:
                begin = self.depth[at] + self.word
                self.area[begin : begin + (self.immediate[at] & 0xFFFF)] = True

    def _for_one_call(self, at: int, begin: int, end: int) -> str | None:
        """The function whose arguments by value row `at` makes room for; None: it makes room for more.

        sub $200,%rsp; … (copies) …; call f: within the locals' area, or undone right behind the call by an
        add $200,%rsp that is not the way out
        """
        for later in range(at + 1, len(self.op) - 2):
            operation = self.op[later]
            if self.depth[later] != end or operation in _LEAVES:
                return None
            if operation in _CALLS:
                dropped = self.op[later + 1] == Op.ADD_IMMEDIATE and self.register[later + 1] == SP
                back = dropped and self._depth_after(later + 1) <= begin
                undone = back and self.op[later + 2] not in _WAY_OUT
                return self._callee(later) if undone or self.area[:begin].any() else None
        return None

    def _depth_after(self, at: int) -> int:
        """Depth behind an instruction that moves the stack pointer; of an allocation of unknown size none."""
        after = int(self.row[at]) + 1
        if after >= len(self.code) or self.frames.visitor[after] != self.function:
            return 0
        return int(self.frames.depth[after])

    # ------------------------------------------------------------ what debug information names

    def _variables(self) -> int:
        """Parts of variables; returns the most bytes that one takes below the frame."""
        assert self.found is not None
        places = Locations(
            self.code.machine, self.sorted, self._by_address(self.depth, self.below),
            self._by_address(self.pointer), self.found.frame_base,
        )  # fmt: skip
        beyond = 0
        held: dict[tuple[PartKind, int, int, str, str, tuple[str, ...]], list[Range]] = {}
        for one in self.found.variables:
            for place in one.places:
                for name, begin, end in places.pieces(one, place):
                    if end <= 0:
                        continue  # in the caller's frame: an argument
                    kind = PartKind.VARIABLE if place.scope else PartKind.SPILL
                    key = (kind, begin, end, name, one.type, self._owners(one.owner))
                    held.setdefault(key, []).extend(place.ranges)
        for (kind, begin, end, name, text, owners), ranges in held.items():
            beyond = max(beyond, end - self.frame)
            self._add(_Part(kind, begin, end, name, text, owners, _joined(ranges)))
        return beyond

    def _by_address(self, values: list[int], unknown: Sequence[bool] = ()) -> NDArray[np.int32]:
        known = np.array(values, np.int32)
        known[np.flatnonzero(np.array(unknown, np.bool_))] = -1
        return np.asarray(known[self.order], np.int32)

    def _owners(self, number: int) -> tuple[str, ...]:
        assert self.found is not None
        names: list[str] = []
        while number >= 0:
            names.append(self.found.inlined[number].name)
            number = self.found.inlined[number].parent
        return tuple(reversed(names))

    # ------------------------------------------------------------ what is read and written

    def _operand(self, at: int) -> int | None:
        """The depth of the address of an instruction's memory operand; None: not known to be in the frame."""
        base = self.base[at]
        if not self.flags[at] & FLAG_MEMORY or self.flags[at] & FLAG_SEGMENT:
            return None
        if base == SP and not self.below[at]:
            return self.depth[at] - self.displacement[at]
        if base == BP and self.pointer[at] >= 0:
            return self.pointer[at] - self.displacement[at]
        return None

    def _slots(self) -> None:
        """Bytes that instructions read and write, nameless; and where addresses of frame bytes are taken."""
        named = np.zeros(self.frame, np.bool_)
        for part in self.parts:
            if part.kind not in (PartKind.ALIGNMENT, PartKind.ALLOCATION):
                named[part.begin : part.end] = True
        read: set[tuple[int, int]] = set()
        written: set[tuple[int, int]] = set()
        canaries: set[tuple[int, int]] = set()
        for at, operation in enumerate(self.op):
            if operation == Op.NOP:
                continue
            if operation in (Op.MOVE, Op.ADD_IMMEDIATE) and self._copies_stack_pointer(at):
                if not self.below[at]:
                    self.taken.append(self.depth[at])
                    self._result(at, self.depth[at])
                continue
            depth = self._operand(at)
            if depth is None or depth <= self.word or depth > self.frame:
                continue
            if operation == Op.LEA or self.index[at] != NO_REGISTER:
                if operation != Op.LEA or self.register[at] != SP:
                    self.taken.append(depth)
                    self._result(at, depth)
                continue
            width = self._access(at)
            slot = (max(depth - width, 0), depth)
            if named[slot[0] : slot[1]].any():
                continue
            if operation == Op.STORE and self._is_canary(at):
                canaries.add(slot)
            (written if operation in _WRITES else read).add(slot)
        self.taken = sorted({depth for depth in self.taken if not named[min(depth, self.frame) - 1]})
        for begin, end in sorted(canaries):
            self._add(_Part(PartKind.PROTECTOR, begin, end, "stack protector"))
        arguments = self._argument_area(read, written - canaries)
        for begin, end in sorted(read | written):
            if (begin, end) in canaries:
                continue
            if end > arguments:
                self._add(_Part(PartKind.OUTGOING, begin, end))
            else:
                self._add(_Part(PartKind.SLOT, begin, end))

    def _result(self, at: int, depth: int) -> None:
        """Room for what a call returns in memory: its address is handed over in front of the arguments.

        lea 0x10(%rsp),%rdi; …; call f (System V ABI, AMD64 3.2.3, i386 2.2)
        """
        if self.op[at] not in (Op.LEA, Op.MOVE) or self.found is None:
            return
        for later in range(at + 1, min(at + _LATER, len(self.op))):
            if self.op[later] in _LEAVES:
                return
            if self.op[later] in _CALLS:
                callee = self._callee(later)
                known = self.found.results.get(callee)
                if known is not None and self._handed_first(at, later):
                    self._add(_Part(PartKind.RESULT, depth - known[1], depth, callee, known[0]))
                return

    def _handed_first(self, at: int, call: int) -> bool:
        """Whether the address that row `at` computes is the call's first argument."""
        held = self.register[at]
        for later in range(at + 1, call):
            if self.op[later] == Op.MOVE and self.base[later] == held:
                held = self.register[later]
            elif self.op[later] == Op.PUSH and self.register[later] == held:
                # The first argument is what is pushed last.
                return not any(one == Op.PUSH for one in self.op[later + 1 : call])
            elif self.op[later] == Op.STORE and self.register[later] == held and self.base[later] == SP:
                return self.displacement[later] == 0
            elif held in self._written(later):
                return False
        return held == (DI if self.word == 8 else AX)

    def _argument_area(self, read: set[tuple[int, int]], written: set[tuple[int, int]]) -> int:
        """The depth beyond which the frame's end is only written to: arguments of calls, moved there.

        (gcc's -maccumulate-outgoing-args, and where there is one call only.)
        """
        calls = [self.depth[at] for at, operation in enumerate(self.op) if operation in _CALLS]
        bottom = max((depth for depth in calls if not self._is_nop_call_depth(depth)), default=0)
        edge = bottom
        last = max((end for _, end in read), default=0)
        for begin, end in sorted(written, reverse=True):
            if end != edge or end <= last or any(begin < depth <= end for depth in self.taken):
                break
            edge = begin
        return edge if edge < bottom else self.frame

    def _is_nop_call_depth(self, depth: int) -> bool:
        return depth <= self.word

    def _copies_stack_pointer(self, at: int) -> bool:
        """mov %rsp,%rdi: the address of what lies at the frame's end, unless put back after an alloca."""
        if self.op[at] != Op.MOVE or self.base[at] != SP or self.register[at] in (BP, SP):
            return False
        return not any(
            operation == Op.MOVE and self.register[later] == SP and self.base[later] != BP
            for later, operation in enumerate(self.op)
        )

    def _is_canary(self, at: int) -> bool:
        register = self.register[at]
        for before in range(at - 1, max(at - 5, -1), -1):
            if self.register[before] == register and self.op[before] in (Op.LOAD, Op.LOAD_NARROW, Op.OTHER):
                return (
                    bool(self.flags[before] & FLAG_SEGMENT)
                    and self.base[before] == NO_REGISTER
                    and self.displacement[before] == _CANARY[self.code.machine]
                )
        return False

    def _access(self, at: int) -> int:
        """Bytes that an instruction reads or writes at its memory operand."""
        if self.op[at] != Op.OTHER:
            return int(self.width[at])
        return max(int(self.width[at]), _vector_width(self.code, int(self.row[at])))


_LEAVES = (Op.JUMP, Op.JUMP_CONDITIONAL, Op.JUMP_INDIRECT, Op.RETURN)
_WAY_OUT = (Op.POP, Op.LEAVE, *_LEAVES)
_TAKES = (Op.ADD_IMMEDIATE, Op.LEA, Op.AND_IMMEDIATE, Op.SUBTRACT)
_TO_REGISTER = frozenset(
    (
        Op.POP, Op.ADD_IMMEDIATE, Op.MOVE, Op.LEA, Op.AND_IMMEDIATE, Op.LOAD, Op.EXCHANGE, Op.SUBTRACT,
        Op.MOVE_IMMEDIATE, Op.ADD, Op.LOAD_NARROW, Op.SHIFT_LEFT, Op.SHIFT_RIGHT,
    )
)  # fmt: skip


def _vector_width(code: Code, row: int) -> int:
    """16 (AVX: 32) for instructions on vector registers, whose width the decoder does not tell; else 0."""
    address, length = int(code.address[row]), int(code.instructions.length[row])
    section = code.sections[int(code.functions.section[int(code.function[row])])].section
    at = address - section.address
    data = section.data[at : at + length].tolist()
    wide = code.machine.word == 8
    while data and (data[0] in (0x66, 0xF2, 0xF3, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65, 0x67)):
        data.pop(0)
    if wide and data and 0x40 <= data[0] < 0x50:
        data.pop(0)
    if len(data) > 2 and wide and data[0] in (0xC4, 0xC5):
        return 2 * _LARGEST_VECTOR
    if len(data) < 2 or data[0] != 0x0F:
        return 0
    vector = data[1]
    known = 0x10 <= vector <= 0x17 or 0x28 <= vector <= 0x2F or 0x50 <= vector <= 0x7F or vector >= 0xD0
    return _LARGEST_VECTOR if known or vector in (0xC2, 0xC6) else 0


def _runs(values: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """(begin, end) of runs of equal values."""
    if not values.size:
        return
    cuts = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), values.size]
    yield from itertools.pairwise(cuts)


def _joined(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Ranges ascending, those that touch as one."""
    found: list[Range] = []
    for begin, end in sorted(ranges):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return tuple(found)
