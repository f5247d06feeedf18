"""Places that recordings name → functions, return addresses and call sites of a program.

Functions of one name are told apart by the module, the symbol's size, by a call site standing at the return
address and, in a chain, by whether that site calls the function above. What is still ambiguous is said to be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from stackfit.calls.model import Calls, Rung
from stackfit.image.model import InputError, Program
from stackfit.isa.code import Code
from stackfit.measure.graph import Graph
from stackfit.measure.model import Mark, Place, RecordedChain, RecordedRow, Recording, Traces

__all__ = ["resolve"]

_MOST_LISTED = 200  # places that were not found
_OTHER_KERNEL = 0.1  # share of symbols of another size from which on the image is not the one recorded
_FEW = 20  # symbols below which that is not judged


class Resolver:
    """Functions and return addresses by place, for one program."""

    def __init__(self, program: Program, code: Code, calls: Calls, graph: Graph) -> None:
        self.program = program
        self.code = code
        self.functions = code.functions
        self.calls = calls
        self.graph = graph
        self._images = {(image.module or "").replace("-", "_"): n for n, image in enumerate(program.images)}
        self._sections = {
            ((image.module or "").replace("-", "_"), section.name): section.address
            for image in program.images[1:]
            for section in image.sections
            if section.allocated
        }
        self.sizes = Counter[bool]()  # symbols whose size is the image's, and others
        self.problems: Counter[str] = Counter()
        self.missing: dict[str, set[Place]] = {}  # by module that is not given

    def address(self, place: Place) -> int:
        """A link address; -1: in no image given, or the place is a symbol."""
        if place.section:
            base = self._sections.get((place.module, place.section))
            return -1 if base is None else base + place.offset
        return place.address

    def function(self, place: Place, back: bool) -> int:
        """The function that holds an address (`back`: a return address, which may be its end); or -1."""
        address = self.address(place)
        if address < 0:
            return -1
        function = self.functions.containing(address - (1 if back else 0))
        return self.owner(function)

    def owner(self, function: int) -> int:
        """The function with which a `.cold` piece is analysed; any other itself."""
        if function >= 0 and self.functions.parent[function] >= 0:
            return int(self.functions.parent[function])
        return function

    def back(self, address: int) -> int:
        """The return address in the image. The kernel patches paravirt calls one byte shorter
        (arch/x86/kernel/alternative.c)."""
        if not self.graph.sites_at(address):
            for site in self.graph.sites_at(address + 1):
                if self.calls.rung[site] == Rung.PARAVIRT:
                    return address + 1
        return address

    def named(self, place: Place) -> list[int]:
        """Functions that a symbol's place can be in: of its name, in its module, long enough."""
        functions = self.functions
        image = self._images.get(place.module)
        if image is None:
            return []
        found = [
            index
            for index in functions.named(place.symbol)
            if (not place.module or functions.image[index] == image)
            and int(functions.address[index]) + max(place.offset, 0) <= int(functions.end[index])
        ]
        if not place.module:  # a bare symbol is the kernel's, where it has one
            found = [one for one in found if functions.image[one] == 0] or found
        if place.size >= 0 and found:
            same = [one for one in found if self._size(one) == place.size]
            self.sizes[bool(same)] += 1
            found = same or found
        return found

    def _size(self, function: int) -> int:
        return int(self.functions.end[function]) - int(self.functions.address[function])

    # ------------------------------------------------------------ rows

    def chain(self, chain: RecordedChain) -> list[tuple[int, int]]:
        """(function, address) of each row; (-1, 0) where it cannot be told."""
        options = [self._options(row, n == 0 or row.interrupted) for n, row in enumerate(chain.rows)]
        # What the neighbours leave: from the outermost row inwards, then back.
        for outer in (*range(len(options) - 1, 0, -1), *range(1, len(options))):
            if chain.rows[outer].interrupted or max(len(options[outer]), len(options[outer - 1])) < 2:
                continue
            pairs = [
                (caller, callee)
                for caller in options[outer]
                for callee in options[outer - 1]
                if self._calls(caller, callee[0])
            ]
            if pairs:
                options[outer] = list(dict.fromkeys(caller for caller, _ in pairs))
                options[outer - 1] = list(dict.fromkeys(callee for _, callee in pairs))
        return [self._only(row.place, found) for row, found in zip(chain.rows, options, strict=True)]

    def _options(self, row: RecordedRow, running: bool) -> list[tuple[int, int]]:
        """Every (function, address) that a row can be."""
        place = row.place
        if not place.symbol:
            address = self.address(place)
            if address < 0:
                return []
            if row.bare:
                function = self.function(place, back=False)
                return [(function, 0)] if function >= 0 else []
            address = address if running else self.back(address)
            function = self.function(place, not running)
            if row.entry is not None:
                entry = self.function(row.entry, back=False)
                function = entry if entry >= 0 else function
            return [(function, address)] if function >= 0 else []
        found = self.named(place)
        if place.offset < 0:
            return [(self.owner(index), 0) for index in found]
        options = [(index, int(self.functions.address[index]) + place.offset) for index in found]
        if not running:
            at_sites = [(index, self.back(address)) for index, address in options]
            options = [one for one in at_sites if self.graph.sites_at(one[1])] or options
        return [(self.owner(index), address) for index, address in options]

    def _only(self, place: Place, options: list[tuple[int, int]]) -> tuple[int, int]:
        if len(options) == 1:
            return options[0]
        if not options and place.module and place.module not in self._images:
            self.missing.setdefault(place.module, set()).add(place)
        cause = f"{len(options)} functions of that name fit" if options else "in no image given"
        self.problems[f"{place}: {cause}"] += 1
        return -1, 0

    def _calls(self, option: tuple[int, int], above: int) -> bool:
        function, address = option
        if address:
            return self.graph.reaches(address, above).function_found
        return bool(self.graph.sites_between(function, above))

    def pair(self, back: Place | None, caller: Place | None, callee: Place) -> tuple[int, int, int]:
        """(return address or 0, caller, callee) of one call; a function is -1 where it cannot be told."""
        callees = self._options(RecordedRow(callee), True)
        where = back or caller
        callers = self._options(RecordedRow(where), back is None) if where is not None else []
        if max(len(callees), len(callers)) > 1:
            pairs = [(one, two) for one in callers for two in callees if self._calls(one, two[0])]
            callers = list(dict.fromkeys(one for one, _ in pairs)) or callers
            callees = list(dict.fromkeys(two for _, two in pairs)) or callees
        function, address = self._only(where or callee, callers)
        return address if back is not None else 0, function, self._only(callee, callees)[0]

    # ------------------------------------------------------------ all

    def check(self, path: str) -> None:
        """InputError when the symbols' sizes are those of another kernel."""
        total = sum(self.sizes.values())
        if total >= _FEW and self.sizes[False] > _OTHER_KERNEL * total:
            raise InputError(
                path,
                f"recorded on another kernel: {self.sizes[False]} of {total} symbols have other sizes"
                f" than in {self.program.images[0].path}",
            )


def resolve(
    program: Program, code: Code, calls: Calls, graph: Graph, recordings: Sequence[Recording]
) -> Traces:
    """All recordings of one kernel. InputError: one is of another kernel."""
    edges: Counter[tuple[int, int, int]] = Counter()
    first, names, kinds = [0], [], []
    rows: list[tuple[int, int, int, int, bool]] = []
    marks: list[Mark] = []
    left_out: Counter[str] = Counter()
    resolver = Resolver(program, code, calls, graph)
    for recording in recordings:
        kernel = program.images[0]
        if recording.build_id and kernel.build_id and recording.build_id != kernel.build_id:
            raise InputError(
                recording.path,
                f"recorded on the kernel with build-id {recording.build_id};"
                f" {kernel.path} has {kernel.build_id}",
            )
        if recording.machine is not None and recording.machine != kernel.machine.value:
            raise InputError(
                recording.path,
                f"recorded on {recording.machine}, {kernel.path} is {kernel.machine.value}",
            )
        marks.extend(recording.marks)
        left_out.update(recording.left_out)
        resolver.sizes.clear()
        for back, caller, callee, count in recording.pairs:
            address, where, target = resolver.pair(back, caller, callee)
            if target < 0 or where < 0:
                left_out["calls whose caller or callee is not known"] += 1
            else:
                edges[address, where, target] += count
        for chain in recording.chains:
            found = resolver.chain(chain)
            names.append(chain.name)
            kinds.append(int(chain.kind))
            for row, (function, address) in zip(chain.rows, found, strict=True):
                rows.append((function, address, row.depth, row.size, row.interrupted))
            first.append(len(rows))
        resolver.check(recording.path)
    ordered = sorted(edges.items())
    columns = list(zip(*rows, strict=True)) if rows else [(), (), (), (), ()]
    problems = sorted(resolver.problems)
    if len(problems) > _MOST_LISTED:
        problems[_MOST_LISTED:] = [f"{len(problems) - _MOST_LISTED} further places"]
    return Traces(
        back=np.array([key[0] for key, _ in ordered], np.uint64),
        caller=np.array([key[1] for key, _ in ordered], np.int32),
        callee=np.array([key[2] for key, _ in ordered], np.int32),
        count=np.array([count for _, count in ordered], np.int64),
        first=np.array(first, np.int64),
        names=tuple(names),
        kind=np.array(kinds, np.uint8),
        function=np.array(columns[0], np.int32),
        address=np.array(columns[1], np.uint64),
        depth=np.array(columns[2], np.int32),
        size=np.array(columns[3], np.int32),
        interrupted=np.array(columns[4], np.bool_),
        marks=tuple(marks),
        left_out=dict(left_out),
        unresolved=tuple(problems),
        missing={module: len(places) for module, places in sorted(resolver.missing.items())},
    )
