"""Recordings of Debian's amd64 kernel: nothing in them contradicts the analysis, and the ladder holds."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stackfit.analysis import Analysis, analyse
from stackfit.measure.files import read_recording
from stackfit.measure.model import Recording, Seen
from stackfit.measure.parse import parse_recording
from stackfit.measure.sizes import Rule
from stackfit.report.traces import coverage_json, trace_json

RECORDINGS = Path(__file__).resolve().parents[2] / "fixtures" / "recordings"


def tracer_text() -> Iterator[tuple[str, str]]:
    """Each recorded chain as the stack tracer printed it."""
    chains: dict[str, list[str]] = {}
    with (RECORDINGS / "stack-tracer-amd64.csv").open() as file:
        for row in csv.DictReader(file):
            module = f" [{row['module']}]" if row["module"] else ""
            chains.setdefault(row["chain"], []).append(
                f"{row['row']:>3})  {row['depth']:>7} {row['size']:>7}"
                f"   {row['symbol']}+{int(row['offset']):#x}{module}\n"
            )
    for name, lines in chains.items():
        yield name, "".join(lines)


@pytest.fixture(scope="module")
def recordings() -> tuple[Recording, ...]:
    chains = tuple(parse_recording(name, text) for name, text in tracer_text())
    edges = [RECORDINGS / "calledges-amd64" / f"{name}.csv.xz" for name in ("development", "judgement")]
    return (*chains, *(read_recording(path) for path in edges))


@pytest.fixture(scope="module")
def analysis(amd64_recorded_kernel: Any, recordings: tuple[Recording, ...]) -> Analysis:
    result = analyse([amd64_recorded_kernel.vmlinuz], [amd64_recorded_kernel.modules])
    return replace(result, recordings=recordings)


@pytest.mark.kernel
def test_every_recorded_size_is_the_static_depth_or_has_a_rule(analysis: Analysis) -> None:
    sizes = analysis.sizes
    assert not sizes.unexplained
    assert sizes.counts[Rule.UNKNOWN] == sizes.counts[Rule.HIDDEN] == 0
    assert sizes.counts[Rule.ENTERED] == sizes.counts[Rule.ENTRY] == 48
    assert sizes.counts[Rule.EQUAL] >= 680
    assert sizes.counts[Rule.STALE] <= 5
    assert not analysis.traces.unresolved


@pytest.mark.kernel
def test_seen_calls_are_in_the_graph(analysis: Analysis) -> None:
    counts = analysis.exercised.counts
    total = sum(counts.values())
    assert total >= 40_000
    assert counts[Seen.NO_SITE] == counts[Seen.NOT_IN_GRAPH] == 0
    assert counts[Seen.OPEN] / total <= 0.04  # they are open, and said to be


@pytest.mark.kernel
def test_each_chain_is_of_one_context(analysis: Analysis) -> None:
    document = trace_json(analysis)
    assert document["defects"] == 0
    by_name = {chain["name"].split(" #")[0]: chain for chain in document["chains"]}
    assert by_name["swap-files"]["contexts"] == ["syscall write (x86-64)"]
    assert by_name["swap-files"]["measured"] == 4752
    assert by_name["mkswap"]["contexts"] == ["kthread worker_thread"]
    assert all(len(chain["contexts"]) == 1 for chain in document["chains"])


@pytest.mark.kernel
def test_the_ladder_holds(analysis: Analysis) -> None:
    needs = analysis.composer.context_needs(analysis.layouts[0])
    assert analysis.defects(needs) == []
    measured = [need for need in needs if need.measured is not None]
    assert len(measured) >= 18
    assert all(need.composed is not None and need.measured <= need.composed for need in measured)  # type: ignore[operator]
    (process,) = [need for need in analysis.verdicts[0].stacks if need.stack.name == "process"]
    assert process.measured == 4752 + 8  # the end marker's word
    assert process.measured_by.startswith("swap-files")


@pytest.mark.kernel
def test_coverage_names_what_to_test_next(analysis: Analysis) -> None:
    document = coverage_json(analysis)
    never = [one for one in document["contexts"] if one["first_unseen"]]
    assert never and all(one["seen_down_to"] <= one["found"] for one in document["contexts"])
    assert all(one["calls_seen"] < one["calls"] for one in never)
    kernel = document["images"][0]
    assert kernel["module"] is None and kernel["functions_seen"] <= kernel["functions"]
