"""Variables of one function as debug information tells of them: types, sizes, places, and the inlined
function that owns each. Of a whole file only the unit that holds the function is read, by pyelftools.

Source: DWARF 5 sections 3.3 (subprograms and inlined ones), 2.5 and 2.6 (expressions, location lists), 5
(types); versions 2 to 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from elftools.dwarf.compileunit import CompileUnit
from elftools.dwarf.die import DIE
from elftools.dwarf.dwarf_expr import DWARFExprParser
from elftools.dwarf.locationlists import BaseAddressEntry as ListBase
from elftools.dwarf.locationlists import LocationEntry, LocationExpr, LocationParser
from elftools.dwarf.ranges import BaseAddressEntry

from stackfit.image.lines import SourceLines
from stackfit.image.model import Image, InputError

__all__ = ["FunctionLocals", "Inlined", "Local", "Operation", "Place", "Range", "read_locals"]

Range = tuple[int, int]  # first address, the one after the last
Operation = tuple[str, tuple[int, ...]]  # of an expression: its name without `DW_OP_`, its operands

_DEEPEST = 256  # entries within each other
_MOST_ENTRIES = 200_000  # of one function, with their ranges; the kernel's largest has a twentieth of that
_LONGEST_TYPE = 64  # types that lead to each other


@dataclass(frozen=True)
class Place:
    """Where a variable is while any of these addresses runs."""

    ranges: tuple[Range, ...]
    expression: tuple[Operation, ...]
    scope: bool  # wherever its scope runs, not a part of a location list


@dataclass(frozen=True)
class Local:
    """A variable or parameter. `size` in bytes, None where it is not constant; `owner`: index into
    `FunctionLocals.inlined`, -1 for the function itself."""

    name: str
    type: str
    size: int | None
    owner: int
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Inlined:
    """A function that was inlined, at one place. `parent`: the one it was inlined into, as `Local.owner`."""

    name: str
    parent: int
    ranges: tuple[Range, ...]


@dataclass(frozen=True)
class FunctionLocals:
    """All of one function. `frame_base`: what `fbreg` counts from, as an expression. `results`: functions of
    its unit that return an aggregate, by name: its type, its bytes."""

    name: str
    frame_base: tuple[Operation, ...]
    variables: tuple[Local, ...]
    inlined: tuple[Inlined, ...]
    results: Mapping[str, tuple[str, int]]


def read_locals(image: Image, lines: SourceLines, address: int) -> FunctionLocals | None:
    """Of the function that begins at a link address; None where debug information has none there.

    `image` has the debug information (image/debug.py for a module's), `lines` are its source lines. Raises
    InputError where it is damaged.
    """
    unit = lines.unit(address)
    if unit is None:
        return None
    try:
        return _Reader(unit).read(address)
    except Exception as error:  # a damaged byte makes pyelftools raise anything
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(image.path, f"debug information cannot be read: {cause}") from None


class _Reader:
    """One unit."""

    def __init__(self, unit: CompileUnit) -> None:
        self._unit = unit
        self._dwarf = unit.dwarfinfo
        self._word = int(unit["address_size"])
        self._base = _number(unit.get_top_DIE(), "DW_AT_low_pc") or 0
        self._lists = LocationParser(self._dwarf.location_lists())
        self._expressions = DWARFExprParser(unit.structs)
        self._variables: list[Local] = []
        self._inlined: list[Inlined] = []
        self._left = _MOST_ENTRIES

    def read(self, address: int) -> FunctionLocals | None:
        entry = next(
            (one for one in self._functions(self._unit.get_top_DIE()) if self._begins(one, address)), None
        )
        if entry is None:
            return None
        scope = self._ranges(entry)
        self._walk(entry, -1, scope, 0)
        base = entry.attributes.get("DW_AT_frame_base")
        whole = base is not None and base.form.startswith(("DW_FORM_exprloc", "DW_FORM_block"))
        return FunctionLocals(
            self._name(entry),
            self._expression(base.value) if base is not None and whole else (),
            tuple(self._variables),
            tuple(self._inlined),
            self._results(),
        )

    # ------------------------------------------------------------ entries

    def _functions(self, parent: DIE, depth: int = 0) -> Iterator[DIE]:
        """Subprograms of a unit, those within namespaces and classes too."""
        for entry in self._children(parent):
            if entry.tag == "DW_TAG_subprogram":
                yield entry
            elif depth < 16 and entry.tag in ("DW_TAG_namespace", "DW_TAG_module"):
                yield from self._functions(entry, depth + 1)

    def _children(self, parent: DIE, depth: int = 0) -> Iterator[DIE]:
        """Entries within one, in their order.

        pyelftools has this, too, and believes a damaged entry that its sibling is one before it: without end.
        """
        if not parent.has_children:
            return
        at = parent.offset + parent.size
        while True:
            entry = self._unit.get_DIE_from_refaddr(at)
            if entry.is_null():
                return
            yield entry
            at = self._behind(entry, depth)

    def _behind(self, entry: DIE, depth: int) -> int:
        """Where the entry stands that follows one and all within it."""
        if not entry.has_children:
            return entry.offset + entry.size
        sibling = entry.attributes.get("DW_AT_sibling")
        if sibling is not None and sibling.form.startswith("DW_FORM_ref"):
            base = 0 if sibling.form == "DW_FORM_ref_addr" else self._unit.cu_offset
            at = int(sibling.value) + base
            if at > entry.offset:
                return at
            raise ValueError("an entry's sibling stands before it")
        if depth > _DEEPEST:
            raise ValueError("entries lie within too many others")
        at = entry.offset + entry.size
        while not (inner := self._unit.get_DIE_from_refaddr(at)).is_null():
            at = self._behind(inner, depth + 1)
        return at + inner.size

    def _results(self) -> dict[str, tuple[str, int]]:
        """What functions return that is no scalar."""
        found = {}
        for entry in self._functions(self._unit.get_top_DIE()):
            type_entry = self._type_of(entry)
            bare = self._plain(type_entry)
            if bare is not None and bare.tag in _AGGREGATES and (size := self._size(type_entry)):
                found[self._name(entry)] = (self._text(type_entry), size)
        return found

    def _begins(self, entry: DIE, address: int) -> bool:
        if _number(entry, "DW_AT_low_pc") == address:
            return True
        return "DW_AT_ranges" in entry.attributes and any(
            begin == address for begin, _ in self._ranges(entry)
        )

    def _walk(self, parent: DIE, owner: int, scope: tuple[Range, ...], depth: int) -> None:
        """Variables within an entry; `scope`: where it runs."""
        if depth > _DEEPEST:
            raise ValueError("entries lie within too many others")
        for entry in self._children(parent):
            self._spend(1)
            if entry.tag in ("DW_TAG_variable", "DW_TAG_formal_parameter"):
                self._variable(entry, owner, scope)
            elif entry.tag == "DW_TAG_lexical_block":
                self._walk(entry, owner, self._ranges(entry) or scope, depth + 1)
            elif entry.tag == "DW_TAG_inlined_subroutine":
                ranges = self._ranges(entry) or scope
                self._inlined.append(Inlined(self._name(entry), owner, ranges))
                self._walk(entry, len(self._inlined) - 1, ranges, depth + 1)

    def _spend(self, count: int) -> None:
        """Lists count as often as they are read: many entries may share a long one."""
        self._left -= count
        if self._left < 0:
            raise ValueError(f"a function has more than {_MOST_ENTRIES} entries")

    def _variable(self, entry: DIE, owner: int, scope: tuple[Range, ...]) -> None:
        location = entry.attributes.get("DW_AT_location")
        if location is None:
            return
        found = self._lists.parse_from_attribute(location, self._unit["version"], entry)
        places: list[Place] = []
        if isinstance(found, LocationExpr):
            places.append(Place(scope, self._expression(found.loc_expr), True))
        else:
            base = self._base
            self._spend(len(found or ()))
            for one in found or ():
                if isinstance(one, ListBase):
                    base = int(one.base_address)
                elif isinstance(one, LocationEntry) and one.begin_offset < one.end_offset:
                    shift = 0 if one.is_absolute else base
                    part = (one.begin_offset + shift, one.end_offset + shift)
                    places.append(Place((part,), self._expression(one.loc_expr), False))
        if places:
            type_entry = self._type_of(self._origin(entry))
            text, size = self._text(type_entry), self._size(type_entry)
            self._variables.append(Local(self._name(entry), text, size, owner, tuple(places)))

    def _expression(self, data: Any) -> tuple[Operation, ...]:
        return tuple(
            (
                one.op_name.removeprefix("DW_OP_"),
                tuple(value for value in one.args if isinstance(value, int)),
            )
            for one in self._expressions.parse_expr(data)
        )

    def _origin(self, entry: DIE) -> DIE:
        """The entry that has an instance's name and type: what it is one of, or its declaration."""
        for _ in range(_LONGEST_TYPE):
            for name in ("DW_AT_abstract_origin", "DW_AT_specification"):
                if name in entry.attributes:
                    entry = entry.get_DIE_from_attribute(name)
                    break
            else:
                return entry
        return entry

    def _name(self, entry: DIE) -> str:
        attribute = entry.attributes.get("DW_AT_name") or self._origin(entry).attributes.get("DW_AT_name")
        if attribute is None:
            return ""
        value = attribute.value
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def _ranges(self, entry: DIE) -> tuple[Range, ...]:
        """Where an entry's code is."""
        low, high = entry.attributes.get("DW_AT_low_pc"), entry.attributes.get("DW_AT_high_pc")
        if low is not None and high is not None:
            end = int(high.value) + (0 if high.form == "DW_FORM_addr" else int(low.value))
            return ((int(low.value), end),)
        attribute, lists = entry.attributes.get("DW_AT_ranges"), self._dwarf.range_lists()
        if attribute is None or lists is None:
            return ()
        found, base = [], self._base
        listed = lists.get_range_list_at_offset(attribute.value, self._unit)
        self._spend(len(listed))
        for one in listed:
            if isinstance(one, BaseAddressEntry):
                base = int(one.base_address)
            else:
                shift = 0 if getattr(one, "is_absolute", False) else base
                found.append((one.begin_offset + shift, one.end_offset + shift))
        return tuple(part for part in found if part[0] < part[1])

    # ------------------------------------------------------------ types

    def _plain(self, entry: DIE | None) -> DIE | None:
        """A type behind its typedefs and qualifiers; None where they lead to each other."""
        for _ in range(_LONGEST_TYPE):
            if entry is None or (entry.tag != "DW_TAG_typedef" and entry.tag not in _QUALIFIERS):
                return entry
            entry = self._type_of(entry)
        return None

    def _type_of(self, entry: DIE | None) -> DIE | None:
        if entry is None or "DW_AT_type" not in entry.attributes:
            return None
        found: DIE = entry.get_DIE_from_attribute("DW_AT_type")
        return found

    def _size(self, entry: DIE | None, depth: int = 0) -> int | None:
        """Bytes of a type; None where they are not constant."""
        if entry is None or depth > _LONGEST_TYPE:
            return None
        size = entry.attributes.get("DW_AT_byte_size")
        if size is not None and isinstance(size.value, int):
            return int(size.value)
        if entry.tag in ("DW_TAG_pointer_type", "DW_TAG_reference_type", "DW_TAG_rvalue_reference_type"):
            return self._word
        inner = self._size(self._type_of(entry), depth + 1)
        if entry.tag != "DW_TAG_array_type":
            return inner
        for count in self._counts(entry):
            inner = None if inner is None or count is None else inner * count
        return inner

    def _counts(self, array: DIE) -> list[int | None]:
        """Elements of each dimension; None: not constant."""
        counts: list[int | None] = []
        for entry in self._children(array):
            if entry.tag != "DW_TAG_subrange_type":
                continue
            count, bound = _number(entry, "DW_AT_count"), _number(entry, "DW_AT_upper_bound")
            if count is None and bound is not None:
                count = bound + 1 - (_number(entry, "DW_AT_lower_bound") or 0)
            counts.append(count)
        return counts

    def _text(self, entry: DIE | None, depth: int = 0) -> str:
        """A type as C writes it, near enough."""
        if entry is None:
            return "void"
        if depth > _LONGEST_TYPE:
            return "…"
        name, tag = self._name(entry), str(entry.tag)
        kind = _KINDS.get(tag)
        if kind is not None:
            return f"{kind} {name}" if name else f"{kind} {{…}}"
        if tag == "DW_TAG_subroutine_type":
            return f"{self._text(self._type_of(entry), depth + 1)} ()"
        if name:
            return name
        inner = self._text(self._type_of(entry), depth + 1)
        if tag == "DW_TAG_array_type":
            counts = "".join(f"[{'' if count is None else count}]" for count in self._counts(entry))
            return inner + counts if counts else f"{inner}[]"
        if tag in ("DW_TAG_reference_type", "DW_TAG_rvalue_reference_type"):
            return f"{inner} &"
        if tag == "DW_TAG_pointer_type":
            if inner.endswith(" ()"):
                return f"{inner[:-3]} (*)()"
            return f"{inner}*" if inner.endswith("*") else f"{inner} *"
        qualifier = _QUALIFIERS.get(tag)
        if qualifier is None:
            return inner
        return f"{inner} {qualifier}" if inner.endswith("*") else f"{qualifier} {inner}"


_KINDS = {
    "DW_TAG_structure_type": "struct",
    "DW_TAG_class_type": "class",
    "DW_TAG_union_type": "union",
    "DW_TAG_enumeration_type": "enum",
}
_AGGREGATES = ("DW_TAG_structure_type", "DW_TAG_class_type", "DW_TAG_union_type")
_QUALIFIERS = {
    "DW_TAG_const_type": "const",
    "DW_TAG_volatile_type": "volatile",
    "DW_TAG_restrict_type": "restrict",
    "DW_TAG_atomic_type": "_Atomic",
}


def _number(entry: DIE, name: str) -> int | None:
    """A constant attribute; None: there is none, or it is an expression or refers to something."""
    attribute = entry.attributes.get(name)
    if attribute is None or not isinstance(attribute.value, int):
        return None
    if attribute.form.startswith(("DW_FORM_ref", "DW_FORM_sec_offset", "DW_FORM_loclistx")):
        return None
    return int(attribute.value)
