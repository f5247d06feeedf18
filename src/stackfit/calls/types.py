"""Types of a program as pointers are followed through them: members by offset, prototypes by what C tells
apart.

BTF has a type once for each image and once for each typedef or qualifier on the way to it. Here every link
and every part leads straight to the *plain* type, and types that are the same to C have one id: structs of
one name, size and members (a module repeats the kernel's), prototypes whose parameters are the same but for
qualifiers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stackfit.calls.flow_constants import MOST_ARGUMENTS
from stackfit.calls.numbers import Numbers, program_numbers
from stackfit.image.btf import Kind, Types, join_types, read_btf
from stackfit.image.dwarf import read_dwarf
from stackfit.image.functions import Functions
from stackfit.image.model import Image, Machine, Program

__all__ = ["PER_CPU", "Field", "TypeLayout", "read_types"]

Field = tuple[int, int]  # struct, byte in it

PER_CPU = ".data..percpu"
_AGGREGATES = (Kind.STRUCT, Kind.UNION)
# As plain numbers: an enumeration's members are slow to look up.
_PTR, _ARRAY, _STRUCT, _UNION, _FUNC_PROTO = map(
    int, (Kind.PTR, Kind.ARRAY, Kind.STRUCT, Kind.UNION, Kind.FUNC_PROTO)
)
_FLOAT = int(Kind.FLOAT)
_MOST_PARAMETERS = 64  # a prototype with more is the same as itself alone
_REGISTERS = 6  # places of arguments that are looked at on x86
_REGPARM = 3  # in registers on i386
_SEVERAL = -2
_CLONES = (".isra.", ".constprop.", ".part.")
_MOST_CONTAINERS = 1 << 14  # places of one struct within others
_MOST_PARTS = 1 << 12  # function pointers of one struct that are looked at
_MOST_DEEP = 8  # structs within structs
_MOST_NESTED = 64  # arrays of arrays …


@dataclass(frozen=True, eq=False)
class TypeLayout:
    """Arrays with a row for each type id; only ids that are their own `same` are led to.

    `word`: bytes of a pointer. `link`: what a pointer points to, an array's element, a prototype's result.
    `size`: bytes. Parts are members of structs and unions, parameters of prototypes: rows `part_first[n]` to
    `part_first[n + 1]`; `part_at` in bytes, -1 for a bit field. `prototype`: of each function of the program,
    0 unknown. `per_cpu_at`: bytes from the start of the per-CPU area, ascending; `per_cpu_type`: the type of
    the variable there. From debug information, else empty: `variables`, address as a number of `numbers` →
    type of the kernel's global ones; `locals`, int64[n, 5] as image/dwarf.py has them. `virtual`: structs
    that stand for tables of virtual functions (virtual.py), with the class's name.
    """

    types: Types
    numbers: Numbers
    word: int
    same: NDArray[np.int32]
    kind: NDArray[np.uint8]
    named: NDArray[np.uint8]
    link: NDArray[np.int32]
    size: NDArray[np.int64]
    part_first: NDArray[np.int64]
    part_at: NDArray[np.int64]
    part_type: NDArray[np.int32]
    prototype: NDArray[np.int32]
    ambiguous: dict[int, tuple[int, ...]]
    per_cpu_at: NDArray[np.int64]
    per_cpu_type: NDArray[np.int32]
    variables: dict[int, int] = field(default_factory=dict)
    locals: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 5), np.int64))
    virtual: dict[int, str] = field(default_factory=dict)
    _leaves: dict[Field, tuple[int, Field] | None] = field(default_factory=dict)
    _pointers: dict[Field, set[int]] = field(default_factory=dict)
    _starts: dict[int, tuple[list[int], list[int]]] = field(default_factory=dict)

    def prototypes_of(self, function: int) -> tuple[int, ...]:
        """Prototypes that a function may have; none when nothing is known of it."""
        prototype = int(self.prototype[function])
        return (prototype,) if prototype else self.ambiguous.get(function, ())

    def describe(self, type_id: int) -> str:
        """`struct file`; `union (anonymous)`."""
        name = self.types.name(type_id) or "(anonymous)"
        return f"{Kind(int(self.kind[type_id])).name.lower()} {name}"

    @cached_property
    def _lists(self) -> tuple[list[int], list[int], list[int], list[int], list[int], list[int], list[int]]:
        """kind, named, link, size, part_first, part_at, part_type as lists: quicker one by one than
        arrays."""
        return (
            self.kind.tolist(), self.named.tolist(), self.link.tolist(), self.size.tolist(),
            self.part_first.tolist(), self.part_at.tolist(), self.part_type.tolist(),
        )  # fmt: skip

    @cached_property
    def containers(self) -> dict[int, list[Field]]:
        """Struct → (struct that has it as a member, byte it stands at there), directly or in a member's."""
        return _containers(self)

    @cached_property
    def in_register(self) -> NDArray[np.int32]:
        """Types × 8: the part (parameter) of a prototype that each argument register, then each word of the
        stack above the return address, holds; -1 none, -2 a piece of one, -3 one of any number."""
        return _in_register(self)

    @cached_property
    def pointer_to(self) -> dict[int, int]:
        """Type → the first type that is a pointer to it."""
        pointers = np.flatnonzero(self.kind == _PTR)[::-1]  # the first one is the last to be put in
        return dict(zip(self.link[pointers].tolist(), pointers.tolist(), strict=True))

    @cached_property
    def embedding(self) -> dict[Field, set[int]]:
        """(struct, byte) → structs that have that struct at that byte."""
        found = defaultdict[Field, set[int]](set)
        for inner, outers in self.containers.items():
            for outer, at in outers:
                found[inner, at].add(outer)
        return dict(found)

    @cached_property
    def function_pointers(self) -> dict[Field, list[int]]:
        """(byte, prototype) → structs with such a function pointer there."""
        return _function_pointers(self)

    def leaf(self, type_id: int, offset: int) -> tuple[int, Field] | None:
        """What lies at a byte of a type: its type (0: a union's members differ), and the field: the innermost
        struct with a name around it, and the byte in that. As _member() of flow.py finds them."""
        key = (type_id, offset)
        if key not in self._leaves:
            self._leaves[key] = self._find_leaf(type_id, offset)
        return self._leaves[key]

    def _find_leaf(self, type_id: int, offset: int) -> tuple[int, Field] | None:
        kinds, named, link, size, _, part_at, part_type = self._lists
        owner, at = 0, 0
        for _ in range(_MOST_NESTED):
            kind = kinds[type_id]
            if kind == _ARRAY:
                length = size[link[type_id]]
                if length <= 0:
                    return None
                at -= offset - offset % length
                type_id, offset = link[type_id], offset % length
            elif kind in (_STRUCT, _UNION):
                if offset < 0 or (offset >= size[type_id] and not self._ends_open(type_id)):
                    return None
                if named[type_id] or not owner:
                    owner, at = type_id, offset
                part = self._part(type_id, offset)
                if part < 0:
                    return (0, (owner, at)) if part == _SEVERAL else None
                offset -= part_at[part]
                type_id = part_type[part]
            else:
                return (type_id, (owner, at)) if offset == 0 else None
        return None

    def spans(self, struct: int, offset: int) -> bool:
        """Whether something may lie at a byte of a struct or union: it is not outside."""
        return 0 <= offset < self._lists[3][struct] or (offset >= 0 and self._ends_open(struct))

    def _ends_open(self, type_id: int) -> bool:
        """Whether a struct ends in an array of no size of its own."""
        kinds, _, _, size, part_first, _, part_type = self._lists
        last = part_first[type_id + 1] - 1
        if kinds[type_id] != _STRUCT or last < part_first[type_id]:
            return False
        return kinds[part_type[last]] == _ARRAY and size[part_type[last]] == 0

    def _part(self, type_id: int, offset: int) -> int:
        """The member at a byte, -1 none, _SEVERAL of a union."""
        kinds, _, link, size, part_first, part_at, part_type = self._lists
        begin, end = part_first[type_id], part_first[type_id + 1]
        if kinds[type_id] == _STRUCT:
            known = self._starts.get(type_id)
            if known is None:
                # The last member that begins at or before a byte, of those that begin at one.
                rows = [part for part in range(begin, end) if part_at[part] >= 0]
                known = self._starts[type_id] = _ascending([part_at[part] for part in rows], rows)
            starts, rows = known
            at = bisect_right(starts, offset) - 1
            if at < 0:
                return -1
            member = part_type[rows[at]]
            # A flexible array at the end has no size of its own.
            return rows[at] if offset < starts[at] + size[member] or kinds[member] == _ARRAY else -1
        chosen, pointers, aggregates = -1, set[int](), 0
        for part in range(end - 1, begin - 1, -1):
            at, member = part_at[part], part_type[part]
            if at < 0 or at > offset:
                continue
            if offset >= size[member]:
                continue
            if kinds[member] == _PTR:
                if not pointers:
                    chosen = part
                pointers.add(link[member])
            elif kinds[member] in (_ARRAY, _STRUCT, _UNION):
                aggregates += 1
                chosen = chosen if chosen >= 0 else part
        return _SEVERAL if len(pointers) + aggregates > 1 else chosen

    def pointers_at(self, type_id: int, offset: int) -> set[int]:
        """What the pointers at a byte of a type point to: of a union all of them."""
        key = (type_id, offset)
        if key not in self._pointers:
            self._pointers[key] = self._find_pointers(type_id, offset)
        return self._pointers[key]

    def _find_pointers(self, type_id: int, offset: int) -> set[int]:
        kinds, _, link, size, part_first, part_at, part_type = self._lists
        for _ in range(_MOST_NESTED):
            kind = kinds[type_id]
            if kind == _ARRAY and size[link[type_id]] > 0:
                type_id, offset = link[type_id], offset % size[link[type_id]]
            elif kind == _STRUCT:
                part = self._part(type_id, offset)
                if part < 0:
                    return set()
                type_id, offset = part_type[part], offset - part_at[part]
            elif kind == _UNION:
                found = set[int]()
                for member in part_type[part_first[type_id] : part_first[type_id + 1]]:
                    if offset < size[member]:
                        found |= self.pointers_at(member, offset)
                return found
            else:
                return {link[type_id]} if kind == _PTR and offset == 0 else set()
        return set()

    def function_field(self, struct: int, offset: int) -> Field | None:
        """The field of a function pointer at a byte of a struct, also where only a union may have one."""
        found = self.leaf(struct, offset)
        if found is None:
            return None
        kinds, _, link, *_ = self._lists
        return found[1] if not found[0] or kinds[link[found[0]]] == _FUNC_PROTO else None

    def starts_with(self, type_id: int, other: int) -> bool:
        """Whether a pointer to a type is one to the other too: its first member, or that one's, has that
        type."""
        kinds, _, link, _, part_first, part_at, part_type = self._lists
        for _ in range(_MOST_NESTED):
            if kinds[type_id] == _ARRAY:
                type_id = link[type_id]
            elif kinds[type_id] == _STRUCT:
                part = part_first[type_id]
                if part == part_first[type_id + 1] or part_at[part] != 0:
                    return False
                type_id = part_type[part]
            elif kinds[type_id] == _UNION:
                members = part_type[part_first[type_id] : part_first[type_id + 1]]
                return any(member == other or self.starts_with(member, other) for member in members)
            else:
                return False
            if type_id == other:
                return True
        return False

    def member_name(self, type_id: int, offset: int) -> str:
        """`struct file_operations.read_iter` of the member at a byte of a struct; nested ones by their
        path."""
        if type_id in self.virtual:
            return f"virtual function {offset // self.word + 1} of class {self.virtual[type_id]}"
        path, owner = "", type_id
        for _ in range(_MOST_NESTED):
            if self.kind[type_id] == Kind.ARRAY:
                element = int(self.link[type_id])
                length = int(self.size[element])
                if length <= 0:
                    break
                type_id, offset, path = element, offset % length, path + "[]"
                continue
            if self.kind[type_id] not in _AGGREGATES:
                break
            rows = [
                row
                for row in self.types.parts(type_id)
                if 0
                <= self.part_at[row]
                <= offset
                < self.part_at[row] + max(self.size[self.part_type[row]], 1)
            ]
            if not rows:
                break
            row = rows[-1]
            name = self.types.part_name(row)
            if self.kind[type_id] == Kind.UNION and len(rows) > 1 and self.types.name(type_id):
                break
            path += f".{name}" if name else ""
            type_id, offset = int(self.part_type[row]), offset - int(self.part_at[row])
        return self.describe(owner) + path + (f"+{offset}" if offset else "")


def _ascending(starts: list[int], rows: list[int]) -> tuple[list[int], list[int]]:
    """The same where starts ascend, as compilers have them. Elsewhere for each start the last row that begins
    there or before."""
    if all(one <= two for one, two in pairwise(starts)):
        return starts, rows
    different = sorted(set(starts))
    last = {start: max(number for number, one in enumerate(starts) if one <= start) for start in different}
    return [starts[last[start]] for start in different], [rows[last[start]] for start in different]


def _in_register(types: TypeLayout) -> NDArray[np.int32]:
    kinds, _, link, size, part_first, _, part_type = types._lists
    found = np.full((len(kinds), MOST_ARGUMENTS), -1, np.int32)
    place = _PLACES[types.numbers.machine]
    for type_id in np.flatnonzero(types.kind == _FUNC_PROTO).tolist():
        members = part_type[part_first[type_id] : part_first[type_id + 1]]
        plain = [kinds[member] not in (_STRUCT, _UNION) for member in members]
        # Of no size: that they are floating-point numbers, which have other registers.
        sizes = [0 if kinds[member] == _FLOAT else size[member] for member in members]
        result = link[type_id]
        largest = 4 if types.numbers.machine is Machine.ARM else 2 * types.word
        hidden = kinds[result] in (_STRUCT, _UNION) and size[result] > largest
        variadic = 0 in [kinds[member] for member in members]
        for number, part in place(sizes, plain, hidden, variadic):
            found[type_id, number] = part + part_first[type_id] if part >= 0 else part
    return found


def _places_amd64(
    sizes: list[int], plain: list[bool], hidden: bool, variadic: bool
) -> Iterator[tuple[int, int]]:
    """(number of the argument register, parameter there or -2) (System V AMD64 ABI, 3.2.3). `hidden`: a large
    struct is returned through a pointer, the first argument."""
    register = 0
    if hidden:
        yield 0, -2
        register = 1
    for part, size in enumerate(sizes):
        if register >= _REGISTERS:
            return
        if variadic and part == len(sizes) - 1:  # more arguments follow
            yield from ((number, -3) for number in range(register, _REGISTERS))
            return
        needed = (size + 7) // 8 if size <= 16 else 0
        if needed and register + needed <= _REGISTERS:
            whole = needed == 1 and plain[part]
            yield from ((number, part if whole else -2) for number in range(register, register + needed))
            register += needed


def _places_i386(
    sizes: list[int], plain: list[bool], hidden: bool, variadic: bool
) -> Iterator[tuple[int, int]]:
    """(number of the register or, behind these, word of the stack; parameter there or -2), with -mregparm=3
    (arch/x86/Makefile) and as gcc's ix86_function_arg() does it: what does not fit into the registers left
    over goes onto the stack, with all that follows. A variadic function takes everything there."""
    if variadic:
        yield from ((number, -3) for number in range(_REGISTERS))
        return
    number = 0
    if hidden:
        yield 0, -2
        number = 1
    for part, size in enumerate(sizes):
        needed = (size + 3) // 4
        if number < _REGPARM < number + needed or (number < _REGPARM and not needed):
            number = _REGPARM
        for at in range(number, min(number + max(needed, 1), _REGISTERS)):
            yield at, part if needed == 1 and plain[part] else -2
        number += max(needed, 1)


def _places_arm(
    sizes: list[int], plain: list[bool], hidden: bool, variadic: bool
) -> Iterator[tuple[int, int]]:
    """As for the others (AAPCS32, 6.4 and 6.5): r0 to r3, then words of the stack. A number of 8 bytes starts
    at an even place. Behind a structure, which may be aligned, or a floating-point number, which may have
    registers of its own, places are not known."""
    number = 0
    if hidden:
        yield 0, -2
        number = 1
    for part, size in enumerate(sizes):
        if variadic and part == len(sizes) - 1:
            yield from ((at, -3) for at in range(number, MOST_ARGUMENTS))
            return
        if not plain[part] or not 0 < size <= 8:
            yield from ((at, -2) for at in range(number, MOST_ARGUMENTS))
            return
        if size == 8:
            number += number & 1
            yield from ((at, -2) for at in range(number, min(number + 2, MOST_ARGUMENTS)))
            number += 2
        elif number < MOST_ARGUMENTS:
            yield number, part
            number += 1


def _places_eight(
    sizes: list[int], plain: list[bool], hidden: bool, variadic: bool, word: int, apart: bool
) -> Iterator[tuple[int, int]]:
    """As for the others: x0 to x7 (AAPCS64, 6.8.2), where `apart` floating-point numbers have registers of
    their own and large results a pointer in x8; a0 to a7 (RISC-V psABI)."""
    number = 0
    if hidden and not apart:
        yield 0, -2
        number = 1
    for part, size in enumerate(sizes):
        if variadic and part == len(sizes) - 1:
            yield from ((at, -3) for at in range(number, MOST_ARGUMENTS))
            return
        if not size and plain[part] and apart:
            continue
        if not plain[part] or not 0 < size <= 2 * word:
            yield from ((at, -2) for at in range(number, MOST_ARGUMENTS))
            return
        needed = -(-size // word)
        if needed > 1 and apart:
            number += number & 1  # __int128
        if number + needed > MOST_ARGUMENTS:
            return
        yield from ((at, part if needed == 1 else -2) for at in range(number, number + needed))
        number += needed


_PLACES: dict[Machine, Callable[[list[int], list[bool], bool, bool], Iterator[tuple[int, int]]]] = {
    Machine.X86_64: _places_amd64,
    Machine.I386: _places_i386,
    Machine.ARM: _places_arm,
    Machine.AARCH64: partial(_places_eight, word=8, apart=True),
    Machine.RISCV32: partial(_places_eight, word=4, apart=False),
    Machine.RISCV64: partial(_places_eight, word=8, apart=False),
}


def _containers(types: TypeLayout) -> dict[int, list[Field]]:
    kinds, _, _, size, part_first, part_at, part_type = types._lists
    direct = defaultdict[int, list[Field]](list)
    for outer in np.flatnonzero(np.isin(types.kind, _AGGREGATES)).tolist():
        if types.same[outer] == outer:
            for part in range(part_first[outer], part_first[outer + 1]):
                if part_at[part] >= 0 and kinds[part_type[part]] in (_STRUCT, _UNION):
                    direct[part_type[part]].append((outer, part_at[part]))
    found: dict[int, list[Field]] = {}

    def collect(struct: int, depth: int) -> list[Field]:
        if struct not in found:
            found[struct] = []  # a struct does not hold itself
            everything = dict.fromkeys(direct.get(struct, ()))
            for middle, at in direct.get(struct, ()) if depth < _MOST_DEEP else ():
                for outer, more in collect(middle, depth + 1):
                    if len(everything) < _MOST_CONTAINERS and at + more < size[outer]:
                        everything[outer, at + more] = None
            found[struct] = list(everything)
        return found[struct]

    for struct in list(direct):
        collect(struct, 0)
    return found


def _function_pointers(types: TypeLayout) -> dict[Field, list[int]]:
    kinds, named, link, size, part_first, part_at, part_type = types._lists
    found, flat = defaultdict[Field, list[int]](list), dict[int, list[Field]]()

    def fields(type_id: int, depth: int) -> list[Field]:
        if type_id in flat:
            return flat[type_id]
        kind, out = kinds[type_id], list[Field]()
        if kind == _PTR and kinds[link[type_id]] == _FUNC_PROTO:
            out.append((0, link[type_id]))
        elif kind in (_STRUCT, _UNION) and depth < _MOST_DEEP:
            for part in range(part_first[type_id], part_first[type_id + 1]):
                at = part_at[part]
                if at >= 0:
                    for offset, prototype in fields(part_type[part], depth + 1):
                        out.append((at + offset, prototype))
        flat[type_id] = out[:_MOST_PARTS]
        return flat[type_id]

    for type_id in range(len(kinds)):
        if (
            kinds[type_id] == _STRUCT
            and named[type_id]
            and size[type_id] > 0
            and types.same[type_id] == type_id
        ):
            for key in dict.fromkeys(fields(type_id, 0)):
                found[key].append(type_id)
    return dict(found)


def read_types(program: Program, functions: Functions, debug: Image | None = None) -> TypeLayout | None:
    """The types that the program's images carry (.BTF), and those of the kernel's debug information (DWARF)
    in a companion file; None: neither is there. InputError: what is there is damaged."""
    btf = read_btf(program.images[0])
    dwarf = read_dwarf(debug, btf) if debug is not None else None
    kernel = btf if btf is not None else dwarf.types if dwarf is not None else None
    if kernel is None:
        return None
    modules, owners = [], []
    for index, image in enumerate(program.images[1:], 1):
        rows = read_btf(image, btf) if btf is not None else None
        if rows is not None and (rows.begin, rows.strings_begin) == (len(kernel.kind), len(kernel.strings)):
            modules.append(rows)
            owners.append(index)
    if dwarf is not None and btf is not None:
        modules.append(dwarf.types)
    types, shifts = join_types(kernel, modules)
    numbers = program_numbers(program)
    same = _same(types)
    resolved = same[types.resolved]
    rows = types.rows
    linked = np.isin(rows.kind, (Kind.PTR, Kind.ARRAY, Kind.FUNC_PROTO))
    link = np.where(linked, resolved[rows.link], 0).astype(np.int32)
    member = np.isin(rows.kind, _AGGREGATES)
    owner = np.repeat(np.arange(len(types)), np.diff(rows.first))
    bits = rows.part_bits > 0
    part_at = np.where(
        member[owner], np.where(bits | (rows.part_offset % 8 > 0), -1, rows.part_offset // 8), 0
    ).astype(np.int64)
    begins = [(0, 1, len(kernel.kind))] + [
        (image, one.begin + shift, one.begin + shift + len(one.kind))
        for image, one, shift in zip(owners, modules, shifts, strict=False)  # DWARF's come last
    ]
    per_cpu = _per_cpu(types, len(kernel.kind), resolved)
    prototype, ambiguous = _prototypes(types, functions, begins, resolved)
    variables, places = dict[int, int](), np.empty((0, 5), np.int64)
    if dwarf is not None:
        shift = shifts[-1] if btf is not None else 0

        def led_to(numbers: NDArray[np.int64]) -> NDArray[np.int32]:
            return resolved[numbers + np.where(numbers > 0, shift, 0)]

        address, kind = dwarf.functions.T
        _compiled_prototypes(functions, address, led_to(kind), prototype, ambiguous)
        address, kind = dwarf.variables.T
        signed = numbers.addresses(np.ascontiguousarray(address).view(np.uint64))
        told = zip(signed.tolist(), led_to(kind).tolist(), strict=True)
        variables = {address: kind for address, kind in told if kind}
        places = np.column_stack([dwarf.locals[:, :4], led_to(dwarf.locals[:, 4])])
    return TypeLayout(
        types=types,
        numbers=numbers,
        word=program.machine.word,
        same=same,
        kind=rows.kind,
        named=_addressable(types).astype(np.uint8),
        link=link,
        size=_sizes(types, link, program.machine.word),
        part_first=rows.first,
        part_at=part_at,
        part_type=np.ascontiguousarray(resolved[rows.part_type], np.int32),
        prototype=prototype,
        ambiguous=ambiguous,
        per_cpu_at=np.array([at for at, _ in per_cpu], np.int64),
        per_cpu_type=np.array([kind for _, kind in per_cpu], np.int32),
        variables=variables,
        locals=places,
    )


def _compiled_prototypes(
    functions: Functions,
    addresses: NDArray[np.int64],
    told: NDArray[np.int32],
    prototype: NDArray[np.int32],
    ambiguous: dict[int, tuple[int, ...]],
) -> None:
    """Prototypes of the kernel's functions by their addresses, where their names do not tell. A clone has
    other parameters than the function that it was made of."""
    for address, kind in zip(addresses.tolist(), told.tolist(), strict=True):
        index = functions.at(address & (1 << 64) - 1)
        if (
            index >= 0
            and not prototype[index]
            and not any(
                mark in name
                for name in (functions.names[index], *functions.aliases[index])
                for mark in _CLONES
            )
        ):
            prototype[index] = kind
            ambiguous.pop(index, None)


def _addressable(types: Types) -> NDArray[np.bool_]:
    """Types that pointers to themselves lead to: with a name, or behind a typedef or pointer."""
    rows = types.rows
    found = rows.name_at > 0
    found[types.resolved[rows.link[np.isin(rows.kind, (Kind.TYPEDEF, Kind.PTR))]]] = True
    return np.asarray(found, np.bool_)


def _same(types: Types) -> NDArray[np.int32]:
    """The id that stands for each type: the first of those that are the same to C."""
    rows, resolved = types.rows, types.resolved
    same = np.arange(len(types), dtype=np.int32)
    first: dict[tuple[object, ...], int] = {}
    defined = defaultdict[tuple[str, int], set[int]](set)
    names = rows.part_name_at
    for type_id in np.flatnonzero(np.isin(rows.kind, _AGGREGATES) & (rows.name_at > 0)).tolist():
        begin, end = int(rows.first[type_id]), int(rows.first[type_id + 1])
        name, kind = types.name(type_id), int(rows.kind[type_id])
        # Strings are stored once in each image: the names' texts tell, not where they are. The first few
        # members, with the size and the number of all: different structs of one name differ there.
        members = tuple(types.text(at) for at in names[begin : min(end, begin + 4)].tolist())
        key = (kind, name, int(rows.size[type_id]), end - begin, members)
        same[type_id] = first.setdefault(key, type_id)
        defined[name, kind].add(int(same[type_id]))
    for type_id in np.flatnonzero(rows.kind == Kind.FWD).tolist():
        name = types.name(type_id)
        found = defined.get((name, int(Kind.STRUCT)), set()) | defined.get((name, int(Kind.UNION)), set())
        if len(found) == 1:
            same[type_id] = next(iter(found))
    prototypes: dict[object, int] = {}
    texts: dict[tuple[int, int], object] = {}
    for type_id in np.flatnonzero(rows.kind == Kind.FUNC_PROTO).tolist():
        same[type_id] = prototypes.setdefault(_text(types, resolved, same, texts, type_id, 0), type_id)
    return same


def _text(
    types: Types,
    resolved: NDArray[np.int32],
    same: NDArray[np.int32],
    texts: dict[tuple[int, int], object],
    type_id: int,
    depth: int,
) -> object:
    """What tells a type from others in C, hashable; `texts` keeps what was found, by depth."""
    type_id = int(resolved[type_id])
    if (type_id, depth) in texts:
        return texts[type_id, depth]
    rows = types.rows
    kind = int(rows.kind[type_id])
    found: object
    if depth > 6:
        return "…"
    if kind in (Kind.PTR, Kind.ARRAY):
        found = ("*", _text(types, resolved, same, texts, int(rows.link[type_id]), depth + 1))
    elif kind == Kind.FUNC_PROTO:
        parts = rows.part_type[rows.first[type_id] : rows.first[type_id + 1]].tolist()
        parts = [int(rows.link[type_id]), *parts]
        if len(parts) > _MOST_PARAMETERS:
            return type_id
        found = tuple(_text(types, resolved, same, texts, part, depth + 1) for part in parts)
    elif kind in (Kind.ENUM, Kind.ENUM64):
        found = ("int", int(rows.size[type_id]))
    elif kind == Kind.INT:
        found = ("int", int(rows.size[type_id])) if int(rows.size[type_id]) == 4 else types.name(type_id)
    elif kind == Kind.FWD:
        found = int(same[type_id]) if int(same[type_id]) != type_id else types.name(type_id)
    else:
        found = int(same[type_id])
    texts[type_id, depth] = found
    return found


def _sizes(types: Types, link: NDArray[np.int32], word: int) -> NDArray[np.int64]:
    rows = types.rows
    size = rows.size.astype(np.int64)
    size[rows.kind == Kind.PTR] = word
    arrays = np.flatnonzero(rows.kind == Kind.ARRAY)
    number = size[arrays].copy()
    size[arrays] = 0
    for _ in range(_MOST_NESTED):
        new = number * size[link[arrays]]
        if (new == size[arrays]).all():
            break
        size[arrays] = new
    return size


def _prototypes(
    types: Types, functions: Functions, begins: list[tuple[int, int, int]], resolved: NDArray[np.int32]
) -> tuple[NDArray[np.int32], dict[int, tuple[int, ...]]]:
    """Prototype of each function of the program by its name; where the image has several functions or several
    prototypes of that name, all of these."""
    found, ambiguous = np.zeros(len(functions), np.int32), dict[int, tuple[int, ...]]()
    by_image = defaultdict[int, list[int]](list)
    for index, image in enumerate(functions.image.tolist()):
        by_image[image].append(index)
    for image, begin, end in begins:
        known = defaultdict[str, set[int]](set)
        ids = begin + np.flatnonzero(types.rows.kind[begin:end] == Kind.FUNC)
        for type_id in ids.tolist():
            known[types.name(type_id)].add(int(resolved[types.rows.link[type_id]]))
        often = Counter(functions.names[index] for index in by_image[image])
        for index in by_image[image]:
            for name in (functions.names[index], *functions.aliases[index]):
                if name in known:
                    if often[name] <= 1 and len(known[name]) == 1:
                        (found[index],) = known[name]
                    else:
                        ambiguous[index] = tuple(sorted(known[name]))
                    break
    return found, ambiguous


def _per_cpu(types: Types, end: int, resolved: NDArray[np.int32]) -> list[tuple[int, int]]:
    """(bytes from the per-CPU area's start, plain type) of the kernel's per-CPU variables."""
    rows, found = types.rows, list[tuple[int, int]]()
    for section in np.flatnonzero(rows.kind[:end] == Kind.DATASEC).tolist():
        if types.name(section) == PER_CPU:
            for part in types.parts(section):
                variable = int(rows.part_type[part])
                found.append((int(rows.part_offset[part]), int(resolved[rows.link[variable]])))
    return sorted(found)
