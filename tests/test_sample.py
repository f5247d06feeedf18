"""The sample kernel against fixtures/sample/expected.toml, worked out by hand from its disassembly."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stackfit.analysis import Analysis, analyse
from stackfit.calls.model import CallKind, Evidence, Rung
from stackfit.frames.model import Summary

SAMPLE = Path(__file__).resolve().parent.parent / "fixtures" / "sample"
EXPECTED = tomllib.loads((SAMPLE / "expected.toml").read_text(encoding="utf-8"))
MACHINES = ("x86_64", "i386")
ASSEMBLY = ("asm_", "entry_", "error_", "ret_from_", "restore_", "startup_", "swapgs_", "irq_entries_",
            "handle_exception", "__switch_to_asm")  # fmt: skip
UNKNOWN = Summary.UNBOUNDED | Summary.GROWS | Summary.TOO_COMPLEX


class Sample:
    """One machine's kernel with its module, and what is expected of them."""

    def __init__(self, machine: str) -> None:
        self.expected: dict[str, Any] = EXPECTED[machine]
        self.kernel = SAMPLE / self.expected["kernel"]
        self.module = SAMPLE / self.expected["module"]
        self.analysis: Analysis = analyse([self.kernel], [self.module])

    def function(self, name: str) -> int:
        (found,) = self.analysis.code.functions.named(name)
        return found

    def name(self, function: int) -> str:
        return self.analysis.code.functions.names[function]

    def module_function(self, entry: dict[str, Any]) -> int:
        image = self.analysis.program.images[1]
        section = image.section(entry["section"])
        assert section is not None
        return self.analysis.code.functions.at(section.address + entry["offset"])

    def sites(self, function: int, *kinds: CallKind) -> list[int]:
        calls = self.analysis.calls
        chosen = (calls.function == function) & np.isin(calls.kind, kinds or list(CallKind))
        return [int(site) for site in np.flatnonzero(chosen)]

    def callees(self, site: int) -> set[str]:
        number = int(self.analysis.calls.candidates[site])
        return (
            {self.name(one) for one in self.analysis.calls.candidate_sets[number]} if number >= 0 else set()
        )


@pytest.fixture(scope="module", params=MACHINES)
def sample(request: pytest.FixtureRequest) -> Iterator[Sample]:
    yield Sample(request.param)


def check_frame(sample: Sample, function: int, entry: dict[str, Any]) -> list[str]:
    """What of one [[functions]] entry does not hold."""
    frames = sample.analysis.frames
    summary = Summary(int(frames.summary[function]))
    kinds = {
        "static": not summary & (UNKNOWN | Summary.BOUNDED | Summary.REALIGNED),
        "realigned": bool(summary & Summary.REALIGNED) and not summary & (UNKNOWN | Summary.BOUNDED),
        "dynamic-bounded": bool(summary & Summary.BOUNDED) and not summary & UNKNOWN,
        "dynamic-open": bool(summary & UNKNOWN),
    }
    wrong = [] if kinds[entry["kind"]] else [f"is {summary!r}, not {entry['kind']}"]
    if "frame" in entry:
        if int(frames.frame[function]) != entry["frame"]:
            wrong.append(f"frame {int(frames.frame[function])}, expected {entry['frame']}")
        compiler = entry.get("compiler_frame", entry["frame"])
        if int(frames.compiler_frame[function]) != compiler:
            wrong.append(f"compiler_frame {int(frames.compiler_frame[function])}, expected {compiler}")
    elif int(frames.allocation[function]) != entry["fixed"]:
        wrong.append(f"fixed part {int(frames.allocation[function])}, expected {entry['fixed']}")
    return wrong


def test_binaries_are_those_that_were_worked_out(sample: Sample) -> None:
    for path, key in ((sample.kernel, "kernel_sha256"), (sample.module, "module_sha256")):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sample.expected[key]
    assert sample.analysis.program.images[0].release == sample.expected["release"]


def test_frames_of_named_functions(sample: Sample) -> None:
    wrong = {
        entry["name"]: problems
        for entry in sample.expected["functions"]
        if (problems := check_frame(sample, sample.function(entry["name"]), entry))
    }
    assert not wrong


def test_frames_of_a_stripped_module(sample: Sample) -> None:
    recursive = sample.analysis.recursive
    for entry in sample.expected["module_functions"]:
        function = sample.module_function(entry)
        assert function >= 0, entry
        assert check_frame(sample, function, entry) == [], entry
        assert bool(recursive[function]) is entry.get("recursive", False), entry
        if "name" in entry:
            assert sample.name(function) == entry["name"]
        indirect = sample.sites(function, CallKind.INDIRECT, CallKind.INDIRECT_TAIL)
        assert len(indirect) == entry.get("indirect_sites", 0), entry


def test_cold_parts_belong_to_their_function(sample: Sample) -> None:
    functions = sample.analysis.code.functions
    parts = {
        sample.name(int(functions.parent[index]))
        for index in range(len(functions))
        if functions.parent[index] >= 0
    }
    named = {name.split(".")[0] for name in parts if sample.analysis.code.functions.named(name)}
    assert set(sample.expected["cold"]) <= named


def test_functions_that_never_return(sample: Sample) -> None:
    frames, functions = sample.analysis.frames, sample.analysis.code.functions
    compiled = [
        index
        for index in range(len(functions))
        if functions.image[index] == 0 and functions.parent[index] < 0 and not functions.piece[index]
    ]
    found = {sample.name(index) for index in compiled if frames.no_return[index]}
    assert set(sample.expected["no_return"]) <= found
    # Assembly that ends in iret, sysret or another task is not compiled code and not listed.
    extra = {name for name in found - set(sample.expected["no_return"]) if not is_assembly(name)}
    assert extra == set()


def is_assembly(name: str) -> bool:
    """Functions of arch/entry_*.S and arch/boot_*.S."""
    return name.startswith(ASSEMBLY)


def test_recursion(sample: Sample) -> None:
    recursive = sample.analysis.recursive
    for group in sample.expected["recursive"]:
        for name in group:
            assert recursive[sample.function(name)], name
    kernel = sample.analysis.code.functions.image == 0
    found = {sample.name(int(index)) for index in np.flatnonzero(recursive & kernel)}
    assert found == {name for group in sample.expected["recursive"] for name in group}


def test_every_indirect_site_is_found_and_none_is_resolved_by_guessing(sample: Sample) -> None:
    calls, functions = sample.analysis.calls, sample.analysis.code.functions
    found: dict[str, int] = {}
    switching = sample.analysis.calls.kind == CallKind.STACK_SWITCH
    indirect = np.isin(calls.kind, (CallKind.INDIRECT, CallKind.INDIRECT_TAIL)) | (switching & calls.open)
    for site in np.flatnonzero(indirect).tolist():
        function = int(calls.function[site])
        name = sample.name(function)
        if functions.image[function] == 0 and not name.startswith(("startup_", "__x86_")):
            found[name] = found.get(name, 0) + 1
            assert calls.open[site] or calls.rung[site] == Rung.CONSTANT, name
    assert found == sample.expected["indirect_sites"]


def test_stack_switches(sample: Sample) -> None:
    calls = sample.analysis.calls
    found: dict[str, set[str]] = {}
    for site in np.flatnonzero(calls.kind == CallKind.STACK_SWITCH).tolist():
        name = sample.name(int(calls.function[site]))
        if is_assembly(name):  # entries and __switch_to_asm: to other stacks than those for interrupts
            continue
        found.setdefault(name, set()).update(sample.callees(site) or {"*"})
        assert calls.under[site] >= sample.analysis.program.machine.word
    assert found == {name: set(callees) for name, callees in sample.expected["stack_switches"].items()}


def test_static_calls_go_to_their_initial_target_and_to_those_set_later_and_say_that_it_is_assumed(
    sample: Sample,
) -> None:
    calls = sample.analysis.calls
    for trampoline, targets in sample.expected["static_calls"].items():
        stub = sample.function(trampoline)
        leaves = {name for site in sample.sites(stub) for name in sample.callees(site)}
        assert leaves == {target for target in targets if target}, trampoline
    used = [
        site
        for site in range(len(calls))
        if calls.candidates[site] >= 0 and any(one.startswith("__SCT__") for one in sample.callees(site))
    ]
    assert used
    assert {Evidence(int(calls.evidence[site])) for site in used} == {Evidence.ASSUMED}


def test_each_system_call_number_reaches_its_function(sample: Sample) -> None:
    expected = {int(number): name for number, name in sample.expected["syscalls"].items()}
    found = {
        context.number: sample.name(context.starts[0].entry)
        for context in sample.analysis.contexts
        if context.kind == "syscall" and context.number >= 0
    }
    assert found == expected


def test_chains(sample: Sample) -> None:
    for chain in sample.expected["chains"]:
        hops = chain["hops"]
        assert sum(hop["bytes"] for hop in hops) == chain["total"], chain["name"]
        for hop, following in pairwise(hops):
            assert_hop(sample, hop, following, chain["name"])
        last = hops[-1]
        assert int(sample.analysis.frames.frame[sample.function(last["function"])]) == last["bytes"], chain[
            "name"
        ]
        if chain["deepest"]:
            bound = sample.analysis.composer.bound(sample.function(hops[0]["function"]))
            assert (bound.upper, bound.found) == (chain["total"], chain["total"])
            assert [sample.name(link.function) for link in bound.chain] == [hop["function"] for hop in hops]
            assert [link.depth for link in bound.chain] == [hop["bytes"] for hop in hops]


VIA = {
    "direct": (CallKind.DIRECT, CallKind.STATIC_CALL),
    "tail": (CallKind.TAIL, CallKind.STATIC_CALL),
    "indirect": (CallKind.INDIRECT, CallKind.INDIRECT_TAIL),
}


def assert_hop(sample: Sample, hop: dict[str, Any], following: dict[str, Any], chain: str) -> None:
    calls, word = sample.analysis.calls, sample.analysis.program.machine.word
    where = f"{chain}: {hop['function']} -> {following['function']}"
    sites = sample.sites(sample.function(hop["function"]), *VIA[following["via"]])
    if following["via"] != "indirect":
        sites = [site for site in sites if following["function"] in sample.callees(site)]
    assert sites, where
    depths = {int(calls.depth[site]) - (word if calls.tail[site] else 0) for site in sites}
    assert hop["bytes"] in depths, f"{where}: {depths}"
