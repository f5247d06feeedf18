"""The JSON of every command is what its published schema says, and adds up."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from stackfit.analysis import Analysis, analyse
from stackfit.report.components import components_json
from stackfit.report.json import calls_json, check_json, contexts_json, dumps, frames_json

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE = REPOSITORY / "fixtures" / "sample" / "bin"
LAYOUTS = {
    "x86_64": ["linux-x86_64", "linux-x86_64-4k", "linux-x86_64-dynamic"],
    "i386": ["linux-i386", "linux-2.6-8k", "linux-2.6-4k"],
}
# Where jumps through a table lead is known to the user who writes this, not to the image.
CANDIDATES = """
[[candidates]]
function = "vfs_write"
functions = ["ram_write", "console_write"]
reason = "the only two file systems"
source = "kernel/file.c"
"""


@pytest.fixture(scope="module", params=sorted(LAYOUTS))
def analysis(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    machine = request.param
    assumptions = tmp_path_factory.mktemp("assume") / "sample.toml"
    assumptions.write_text(CANDIDATES, encoding="utf-8")
    kernel, module = SAMPLE / machine / "vmlinux", SAMPLE / machine / "vendor_blob.ko"
    return analyse([kernel], [module], LAYOUTS[machine], [assumptions])


def valid(name: str, document: dict[str, Any]) -> dict[str, Any]:
    """The document as a reader gets it, validated."""
    schema = json.loads(
        (REPOSITORY / "docs" / "schemas" / f"stackfit.{name}-1.json").read_text(encoding="utf-8")
    )
    jsonschema.Draft202012Validator.check_schema(schema)
    read = json.loads(dumps(document))
    jsonschema.Draft202012Validator(schema).validate(read)
    assert read["schema"] == f"stackfit.{name}/1"
    return dict(read)


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "docs" / "schemas").glob("*.json")), ids=lambda path: path.name
)
def test_schemas_allow_nothing_that_they_do_not_describe(path: Path) -> None:
    def check(node: Any, where: str) -> None:
        if isinstance(node, dict):
            if "properties" in node and "object" in str(node.get("type")):
                assert node.get("additionalProperties") is False, where
                for key, value in node["properties"].items():
                    assert {"description", "const", "$ref"} & set(value), f"{where}.{key}"
            for key, value in node.items():
                check(value, f"{where}.{key}")
        elif isinstance(node, list):
            for value in node:
                check(value, where)

    check(json.loads(path.read_text(encoding="utf-8")), path.name)


def test_frames(analysis: Analysis) -> None:
    functions = valid("frames", frames_json(analysis))["functions"]
    assert {row["module"] for row in functions} == {None, "vendor_blob"}
    assert len({row["address"] for row in functions}) == len(functions)
    for row in functions:
        assert (row["frame"] is None) == (row["dynamic"] == "open") == row["lower_bound"], row
        assert row["frame"] is None or row["frame"] >= row["compiler_frame"], row
    assert [row["name"] for row in functions if row["dynamic"] == "realigned"] == ["realigned"]


def test_calls(analysis: Analysis) -> None:
    document = valid("calls", calls_json(analysis))
    functions = {row["address"] for row in frames_json(analysis)["functions"]}
    for site in document["sites"]:
        assert site["open"] == (site["reason"] is not None) == (site["evidence"] == "open"), site
        assert site["open"] or site["candidates"] is not None or site["assumption"], site
        assert (site["rung"] == "annotation") == (site["assumption"] is not None), site
        assert (site["return_address"] is None) == (
            site["kind"] in ("tail", "indirect-tail", "exception")
        ) or (site["kind"] in ("static-call", "stack-switch")), site
    used = {site["candidates"] for site in document["sites"]} - {None}
    assert used == set(range(len(document["candidate_sets"])))
    assert {address for members in document["candidate_sets"] for address in members} <= functions
    returns = [site["return_address"] for site in document["sites"] if site["return_address"] is not None]
    assert len(returns) == len(set(returns))


def test_components(analysis: Analysis) -> None:
    read = valid("components", components_json(analysis))
    first, last = read["stages"][0], read["stages"][-1]
    assert first["kind"] is None and last["kind"] in ("budget", "cut")
    left = [one for one in read["remaining"] if one["graph"] == "direct"]
    cycles = [one["cycle"] for one in left]
    assert ["tree_depth"] in cycles
    assert ["walk_directory", "walk_entry"] in [sorted(cycle) for cycle in cycles]
    assert last["direct"]["largest"] == max(len(one["functions"]) for one in left)
    assert last["direct"]["several"] == sum(len(one["functions"]) > 1 for one in left)


def test_suggestions_are_what_is_left_and_make_every_context_finite(analysis: Analysis) -> None:
    read = valid("contexts", contexts_json(analysis, suggest=True))
    suggested = read["suggestions"]
    assert not any(one["indirect"] for one in suggested)
    names = {one["name"] for one in suggested}
    assert names & {"walk_directory", "walk_entry"}
    assert "tree_depth" not in names, "no context reaches it"
    counts = [one["contexts_finite"] for one in suggested]
    assert all(before <= after for before, after in itertools.pairwise(counts))
    known = [context for context in read["contexts"] if context["hops"]]
    assert counts[-1] == [len(known)] * len(counts[-1])
    assert contexts_json(analysis)["suggestions"] is None


def test_contexts(analysis: Analysis) -> None:
    document = valid("contexts", contexts_json(analysis))
    assert {one["kind"] for one in document["contexts"]} >= {
        "syscall",
        "exception",
        "hardirq",
        "softirq",
        "nmi",
        "boot",
    }
    for one in document["contexts"]:
        assert one["chain"] == [] and set(one["stack"]) == {document["layout"]}
        known = [value for value in one["hops"] if value is not None]
        assert known == sorted(known) and (not known or known[0] == one["direct"]), one


def test_registered_functions(analysis: Analysis) -> None:
    assert valid("contexts", contexts_json(analysis))["registered"] is None
    registered = valid("contexts", contexts_json(analysis, registered=True))["registered"]
    assert not registered["known"] and registered["functions"] == []  # the sample carries no BTF
    assert {"irq handler", "timer", "work"} <= {family["name"] for family in registered["families"]}


def test_check(analysis: Analysis) -> None:
    document = valid("check", check_json(analysis, analysis.through("vendor_blob")))
    assert [layout["name"] for layout in document["layouts"]] == [layout.name for layout in analysis.layouts]
    for layout in document["layouts"]:
        for stack in layout["stacks"]:
            check_stack(stack)
    for one in document["contexts"]:
        check_chain(one["chain"])
        if one["chain"]:
            assert one["chain"][-1]["total"] == one["found"] <= one["direct"], one["name"]


def check_stack(stack: dict[str, Any]) -> None:
    need = stack["need"]
    assert sum(part["bytes"] * part["times"] for part in stack["parts"]) == (need["direct"] or 0)
    assert sum(part["found"] * part["times"] for part in stack["parts"]) == (stack["found"] or 0)
    assert stack["lower_bound"] == bool(stack["open"])
    if need["direct"] is not None:
        assert stack["found"] <= need["direct"] <= (need["bound"] or need["direct"])
        assert stack["headroom"] == stack["size"] - (need["bound"] or need["direct"])
        smallest = stack["smallest"]["direct"]
        assert smallest >= need["direct"] and (smallest == 4096 or smallest // 2 < need["direct"])
    if stack["verdict"] in ("fits", "fits-if"):
        assert need["bound"] <= stack["size"] and not stack["open"]
        assert bool(stack["assumed"]) == (stack["verdict"] == "fits-if")
    check_chain(stack["chain"])


def check_chain(chain: list[dict[str, Any]]) -> None:
    total = 0
    for row in chain:
        total += row["depth"]
        assert row["total"] == total, row
    assert all((row["address"] is None) == (row["kind"] in ("entry", "end", "cut")) for row in chain)


def test_hops_of_candidates_that_the_user_names(analysis: Analysis) -> None:
    contexts = contexts_json(analysis)["contexts"]
    (write,) = [one for one in contexts if (one["kind"], one["name"]) == ("syscall", "write")]
    assert len(write["hops"]) == 9 and write["hops"][1] > write["hops"][0]
    assert write["bound"] in (None, write["hops"][1])  # one hop: nothing below the file systems is listed


def test_two_analyses_of_one_kernel_give_the_same_bytes() -> None:
    kernel = SAMPLE / "i386" / "vmlinux"
    first, second = (dumps(check_json(analyse([kernel]))) for _ in range(2))
    assert first == second
