"""A packed kernel gives the functions, frames and direct edges that its symbol table gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stackfit.analysis import Analysis, analyse
from stackfit.calls.model import CallKind

Edge = tuple[int, int]


def frames(analysis: Analysis) -> dict[int, tuple[str, int, int]]:
    """entry address → (name, frame, summary)"""
    functions, table = analysis.code.functions, analysis.frames
    return {
        int(functions.address[index]): (
            functions.names[index],
            int(table.frame[index]),
            int(table.summary[index]),
        )
        for index in range(len(functions))
        if functions.parent[index] < 0 and not functions.piece[index]
    }


def edges(analysis: Analysis) -> dict[int, set[Edge]]:
    """entry address → {(site, callee's entry)} over direct, tail and static calls"""
    functions, calls = analysis.code.functions, analysis.calls
    found: dict[int, set[Edge]] = {}
    chosen = np.isin(calls.kind, (CallKind.DIRECT, CallKind.TAIL, CallKind.STATIC_CALL)) & (
        calls.candidates >= 0
    )
    for site in np.flatnonzero(chosen).tolist():
        for callee in calls.candidate_sets[int(calls.candidates[site])]:
            caller = int(functions.address[int(calls.function[site])])
            found.setdefault(caller, set()).add((int(calls.address[site]), int(functions.address[callee])))
    return found


def compare(packed: Analysis, plain: Analysis, nameless: tuple[str, ...] = ()) -> None:
    """`nameless`: sections whose names the packed kernel does not have; their code must not be lost."""
    ours, theirs = frames(packed), frames(plain)
    our_edges, their_edges = edges(packed), edges(plain)
    assert packed.program.images[0].build_id == plain.program.images[0].build_id
    different = []
    spans = [
        range(one.address, one.end) for name in nameless if (one := plain.program.images[0].section(name))
    ]
    for span in spans:  # still decoded, as code without a symbol
        assert span.start in ours and ours[span.start][0] == f"sub_{span.start:x}"
    for address, wanted in theirs.items():
        if any(address in span for span in spans):
            continue
        got = ours.get(address)
        mine, other = our_edges.get(address, set()), their_edges.get(address, set())
        if got != wanted or mine != other:
            different.append((hex(address), wanted, got, sorted(mine ^ other)[:4]))
    extra = [(hex(address), name) for address, name in ours.items() if address not in theirs]
    assert len(different) + len(extra) <= len(theirs) * 0.001, (len(theirs), different[:50], extra[:50])


@pytest.mark.kernel
def test_amd64(amd64_kernel, amd64_vmlinux: Path) -> None:  # type: ignore[no-untyped-def]
    compare(analyse([amd64_kernel.vmlinuz]), analyse([amd64_vmlinux]))


@pytest.mark.kernel
def test_i386(i386_kernel, i386_vmlinux: Path) -> None:  # type: ignore[no-untyped-def]
    # Without CONFIG_KALLSYMS_ALL kallsyms has no names outside .text and .init.text.
    compare(analyse([i386_kernel.vmlinuz]), analyse([i386_vmlinux]), nameless=(".exit.text",))
