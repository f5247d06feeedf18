"""Chains of a running kernel, held against the static analysis of the same image.

A row's size must equal the caller's depth at that return address. Named exceptions, and no others: row 0 (the
tracer measures before that frame exists) · the entry rows, which hold pt_regs · the random kstack offset of
do_syscall_64 · a frame realigned at run time, which takes at most its static worst · a stale copy of a return
address on the stack, which the tracer finds first: the row is off by a few words and another row of the chain
makes up for it.
"""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from stackfit.analysis import Analysis, analyse
from stackfit.assumptions import load_assumptions
from stackfit.calls.model import CallKind, Reason
from stackfit.frames.model import Summary
from stackfit.image.model import Machine

RECORDING = Path(__file__).resolve().parent.parent / "fixtures" / "recordings" / "stack-tracer-amd64.csv"
BUILD_ID = "3b43fad5034874490492495d552c0af6a5fab235"
PT_REGS = 168


@dataclass(frozen=True)
class Row:
    chain: str
    row: int
    depth: int
    size: int
    symbol: str
    offset: int
    module: str


def chains() -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    with RECORDING.open() as file:
        for line in csv.DictReader(file):
            numbers = (int(line[name]) for name in ("row", "depth", "size"))
            row = Row(line["chain"], *numbers, line["symbol"], int(line["offset"]), line["module"])
            found.setdefault(row.chain, []).append(row)
    return found


@pytest.fixture(scope="module")
def analysis(amd64_recorded_kernel) -> Iterator[Analysis]:  # type: ignore[no-untyped-def]
    result = analyse([amd64_recorded_kernel.vmlinuz], [amd64_recorded_kernel.modules])
    if result.program.images[0].build_id != BUILD_ID:
        pytest.skip(
            f"the recording is of build-id {BUILD_ID}, this image is {result.program.images[0].build_id}"
        )
    yield result


class Sites:
    """Call sites of the program by return address, functions by recorded name."""

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        self.functions = analysis.code.functions
        calls = analysis.calls
        self.by_return: dict[int, list[int]] = {}
        for site in np.flatnonzero(calls.return_address > 0).tolist():
            self.by_return.setdefault(int(calls.return_address[site]), []).append(site)
        self.images = {image.module or "": index for index, image in enumerate(analysis.program.images)}

    def function(self, row: Row) -> list[int]:
        """Every function of that name in that image that is long enough (static functions share names)."""
        return [
            index
            for index in self.functions.named(row.symbol)
            if self.functions.image[index] == self.images[row.module]
            and int(self.functions.address[index]) + row.offset <= int(self.functions.end[index])
        ]

    def at(self, row: Row) -> list[int]:
        return [
            site
            for index in self.function(row)
            for site in self.by_return.get(int(self.functions.address[index]) + row.offset, [])
        ]

    def owner(self, row: Row) -> list[int]:
        """The functions that own the code of a row: a cold piece's parent for a cold piece."""
        parent = self.functions.parent
        return [int(parent[index]) if parent[index] >= 0 else index for index in self.function(row)]


def is_entry(row: Row) -> bool:
    return row.symbol in ("entry_SYSCALL_64_after_hwframe", "ret_from_fork")


@pytest.mark.kernel
def test_every_recorded_frame_size_is_the_static_depth(analysis: Analysis) -> None:
    sites = Sites(analysis)
    counts = dict.fromkeys(("equal", "row 0", "entry", "exception", "random offset", "realigned", "stale"), 0)
    unexplained: list[tuple[Row, list[int]]] = []
    for rows in chains().values():
        off: list[tuple[Row, int]] = []
        for index, row in enumerate(rows):
            depths = [int(analysis.calls.depth[site]) for site in sites.at(row)]
            if index == 0:
                counts["row 0"] += 1
            elif is_entry(row):
                assert row.size == PT_REGS + 8
                counts["entry"] += 1
            elif any(one.symbol.startswith("asm_exc_") for one in rows[index - 1 : index + 1]):
                counts["exception"] += 1  # the next test adds them up
            elif row.symbol == "do_syscall_64":
                assert 24 <= row.size <= max(depths), "outside what the masked alloca allows"
                counts["random offset"] += 1
            elif row.size in depths:
                counts["equal"] += 1
            elif any(analysis.frames.summary[one] & Summary.REALIGNED for one in sites.owner(row)) and any(
                0 < depth - row.size <= 56 for depth in depths
            ):
                counts["realigned"] += 1
            elif depths:
                off.append((row, row.size - depths[0]))
            else:
                unexplained.append((row, depths))
        # Stale copies: what one row has too much another has too little; right above do_syscall_64 it is made
        # up for by that row, whose random size hides it.
        total = sum(error for _, error in off)
        random = any(row.symbol == "do_syscall_64" for row in rows)
        if off and (total == 0 or random) and all(abs(error) in (8, 16, 24, 72) for _, error in off):
            counts["stale"] += len(off)
        else:
            unexplained.extend((row, [error]) for row, error in off)
    assert not unexplained, unexplained
    compared = counts["equal"] + counts["realigned"] + counts["stale"]
    assert counts["equal"] >= 0.98 * compared, counts
    assert counts["stale"] <= 14, counts


def reaches(analysis: Analysis, site: int, wanted: set[int]) -> bool:
    """Whether the site's candidates are the functions wanted, tail calls and invisible thunks followed."""
    calls = analysis.calls
    if calls.reason[site] == Reason.INDIRECT:
        return True  # open: anything, and it says so
    level = set(calls.candidate_sets[int(calls.candidates[site])]) if calls.candidates[site] >= 0 else set()
    seen: set[int] = set()
    for _ in range(6):
        if level & wanted:
            return True
        seen |= level
        following: set[int] = set()
        for function in level:
            for tail in np.flatnonzero((calls.function == function) & calls.tail).tolist():
                if calls.reason[tail] == Reason.INDIRECT:
                    return True
                if calls.candidates[tail] >= 0:
                    following.update(calls.candidate_sets[int(calls.candidates[tail])])
        level = following - seen
    return False


def test_no_recorded_chain_passes_a_function_more_often_than_its_budget() -> None:
    """A chain that was seen running refutes a budget that it breaks: the assumption would be wrong."""
    linux = load_assumptions("linux").select("6.1.0-56-cloud-amd64", Machine.X86_64)
    compared = 0
    for name, rows in chains().items():
        # Names as a budget covers them: f.isra.0 is f (docs/assumptions.md).
        for function, passes in Counter(row.symbol.split(".")[0] for row in rows).items():
            budget = linux.budget(function)
            if budget is not None:
                assert passes <= budget.times, (name, function, passes)
                compared += 1
    assert compared >= 30  # the recordings do pass budgeted functions: device_add, __alloc_pages, …


@pytest.mark.kernel
def test_the_chain_with_a_nested_page_fault_is_reproduced_end_to_end(analysis: Analysis) -> None:
    sites = Sites(analysis)
    calls = analysis.calls
    rows = chains()["swap-tcp"]
    fault = next(index for index, row in enumerate(rows) if row.symbol == "asm_exc_page_fault")
    handler, interrupted = rows[fault - 1], rows[fault + 1]
    # The faulting instruction is an exception site whose handler is the row above the assembly stub.
    address = [
        int(sites.functions.address[index]) + interrupted.offset for index in sites.function(interrupted)
    ]
    at = np.flatnonzero(
        np.isin(calls.address, np.array(address, np.uint64)) & (calls.kind == CallKind.EXCEPTION)
    )
    assert at.size == 1
    assert set(calls.candidate_sets[int(calls.candidates[at[0]])]) & set(sites.function(handler))
    # Its frame: the interrupted depth, aligned by the CPU, then pt_regs and the return address into the stub.
    recorded = rows[fault].size + interrupted.size
    assert recorded - int(calls.depth[at[0]]) in (PT_REGS + 8 - 8, PT_REGS + 8)
    # Every other pair of neighbours is an edge of the graph, tail calls followed.
    missing = []
    for above, below in itertools.pairwise(rows):
        entry = below.symbol.startswith(("asm_exc_", "entry_")) or above.symbol.startswith("asm_exc_")
        if entry or above is handler:
            continue
        wanted = set(sites.owner(above))
        if not any(reaches(analysis, site, wanted) for site in sites.at(below)):
            missing.append((below, above))
    assert not missing, missing
    assert rows[0].depth == sum(row.size for row in rows)
