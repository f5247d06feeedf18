"""compare as it is called: what each layout costs and buys, claims answered by their rules, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource

from stackfit.cli.main import main
from stackfit.measure.files import marks_traces_json, pack
from stackfit.measure.model import Mark

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE = REPOSITORY / "fixtures" / "sample" / "bin" / "i386"
ARTICLE = ("--layout", "linux-2.6-8k", "--layout", "linux-2.6-4k")
IMAGE = (str(SAMPLE / "vmlinux"), "--modules", str(SAMPLE / "vendor_blob.ko"))
# One interrupt on an almost empty stack: what nests can be added up by hand.
STORM = """
name = "one-source"
description = "one device"
layouts = ["linux-2.6-8k"]
[interrupts]
cpus = 1
hours = 0.001
nested_handlers = 0
evidence = "assumed"
rates_from = "stated"
[interrupts.process]
busy = 0.5
duration_us = 50
depth = { evidence = "assumed", source = "stated", between = [1000, 2000], step = 4 }
[[interrupts.source]]
name = "disk"
kind = "device"
per_second = 1000
duration_us = 5
entry = 76
depth = { evidence = "assumed", source = "stated", between = [100, 300], step = 4 }
"""


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    """Of compare's schema, which takes parts of check's and simulate's."""
    found = {
        name: json.loads((REPOSITORY / f"docs/schemas/stackfit.{name}-1.json").read_text(encoding="utf-8"))
        for name in ("compare", "check", "simulate")
    }
    registry: Registry[Any] = Registry().with_resources(
        [(schema["$id"], Resource.from_contents(schema)) for schema in found.values()]
    )
    return jsonschema.Draft202012Validator(found["compare"], registry=registry)


@pytest.fixture
def storm(tmp_path: Path) -> str:
    path = tmp_path / "one-source.toml"
    path.write_text(STORM, encoding="utf-8")
    return str(path)


def compare(
    capsys: pytest.CaptureFixture[str], validator: jsonschema.Draft202012Validator, *words: str
) -> dict[str, Any]:
    assert main(["compare", *words, "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert not err
    document = json.loads(out)
    validator.validate(document)
    return dict(document)


def answers(document: dict[str, Any]) -> dict[str, str]:
    return {claim["key"]: claim["answer"] for claim in document["claims"]}


def test_numbers_of_all_parts_agree(
    capsys: pytest.CaptureFixture[str], validator: jsonschema.Draft202012Validator
) -> None:
    document = compare(capsys, validator, *IMAGE, *ARTICLE, "--scenario", "anon-holes", "--seeds", "2")
    claims = {claim["key"]: claim for claim in document["claims"]}
    before, after = document["verdicts"]
    process = {one["name"]: one for one in before["stacks"]}["process"]
    numbers = {one["name"]: one["value"] for one in claims["sequence"]["numbers"]}
    assert numbers["need, direct"] == process["need"]["direct"]
    assert numbers["open items"] == sum(one["count"] for one in process["open"])
    assert {one["name"] for one in after["stacks"]} >= {"process", "hardirq", "softirq"}
    runs = document["scenarios"][0]["runs"]
    assert [(run["layout"], run["seed"]) for run in runs] == [
        (layout, seed) for layout in document["layouts"] for seed in (0, 1)
    ]
    median = {
        layout: max(run["processes"] for run in runs if run["layout"] == layout)
        for layout in document["layouts"]
    }
    found = {one["layout"]: one["value"] for one in claims["more-processes"]["numbers"]}
    assert found == median
    assert [one["order"] for one in document["stack_memory"]] == [1, 0]
    assert [one["least"] for one in document["stack_memory"]] == [8192 * 1000, 4096 * 1000]
    for claim in document["claims"]:
        assert claim["evidence"] == "open" or claim["numbers"], claim["key"]
        if claim["answer"] == "open" and not claim["numbers"]:
            assert claim["text"].startswith(("no ", "too many")), claim["key"]


def test_holes_answer_the_claims_about_pages_and_nothing_else_does(
    capsys: pytest.CaptureFixture[str], validator: jsonschema.Draft202012Validator
) -> None:
    pages = {"order", "fragmented", "limit", "more-processes"}
    holes = answers(compare(capsys, validator, *ARTICLE, "--scenario", "anon-holes"))
    assert {holes[key] for key in pages} == {"holds"}
    assert {answer for key, answer in holes.items() if key not in {*pages, "own-stacks"}} == {"open"}
    fresh = answers(compare(capsys, validator, *ARTICLE, "--scenario", "fresh-boot"))
    assert (fresh["fragmented"], fresh["limit"], fresh["more-processes"]) == (
        "open",
        "does not hold",
        "in part",
    )


@pytest.mark.slow
def test_requests_that_reclaim_themselves_answer_the_claim_about_thrashing(
    capsys: pytest.CaptureFixture[str], validator: jsonschema.Draft202012Validator
) -> None:
    thrash = answers(compare(capsys, validator, *ARTICLE, "--scenario", "reclaim-thrash"))
    assert thrash["thrash"] == "holds"
    assert thrash["more-processes"] == "open"


def test_what_interrupts_have_against_before(
    capsys: pytest.CaptureFixture[str], validator: jsonschema.Draft202012Validator, storm: str
) -> None:
    document = compare(capsys, validator, *ARTICLE, "--scenario", storm)
    rooms = {(one["layout"], one["kind"]): one for one in document["interrupts"]}
    shared, separate = rooms["linux-2.6-8k", "device"], rooms["linux-2.6-4k", "device"]
    usable = 8192 - 60
    assert (shared["own"], shared["stack"], shared["left"]) == (False, "process", usable - 2000)
    assert (separate["own"], separate["stack"], separate["left"]) == (True, "hardirq", 4096 - 52)
    before, after = document["process_stack"]
    assert (before["on_top"], after["on_top"]) == (76 + 300, 76)  # there only the entry frame stays
    assert before["for_calls"] == usable - 376
    assert after["for_interrupts"] == 4096 - 60 - 2000 + 4096 - 52
    given = answers(document)
    assert (given["unheard-of"], given["safer"]) == ("holds", "holds")
    # Without softirqs, whose stack stays unused, even the interrupts have less: 6,080 bytes of 6,132 before.
    assert given["space"] == "does not hold"


def test_the_module_that_nobody_else_can_fix_is_named(
    capsys: pytest.CaptureFixture[str], validator: jsonschema.Draft202012Validator, storm: str
) -> None:
    worst = compare(capsys, validator, *IMAGE, *ARTICLE, "--scenario", storm)["worst_module"]
    assert (worst["name"], worst["kind"], worst["of"]) == ("vendor_blob", "binary-only", 1)
    assert 0 < worst["own"] <= worst["adds"]
    assert worst["adds_found"] <= worst["adds"]
    alone = compare(capsys, validator, IMAGE[0], *ARTICLE, "--scenario", storm)
    assert alone["worst_module"] is None
    assert answers(alone)["binary-modules"] == "open"


def test_claims_are_about_a_contiguous_stack_that_becomes_smaller(
    capsys: pytest.CaptureFixture[str], validator: jsonschema.Draft202012Validator, storm: str
) -> None:
    for layouts in (("linux-2.6-4k", "linux-2.6-8k"), ("linux-x86_64", "linux-x86_64-dynamic")):
        words = [word for name in layouts for word in ("--layout", name)]
        assert compare(capsys, validator, *words, "--scenario", storm)["claims"] == []


@pytest.mark.slow
def test_one_screen(capsys: pytest.CaptureFixture[str], storm: str) -> None:
    words = ["compare", *IMAGE, *ARTICLE]
    for name in ("anon-holes", "fresh-boot", "reclaim-thrash", storm):
        words += ["--scenario", name]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) <= 60
    for text in ("Does it fit?", "What was really used?", "What does it buy?", "What to fix?", "vendor_blob"):
        assert text in out
    assert "order 1, stack" in out


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["--layout", "linux-2.6-8k"], "two layouts"),
        (["--layout", "linux-2.6-8k", "--layout", "linux-2.6-8k"], "a second layout named linux-2.6-8k"),
        (["--layout", "linux-2.6-8k", "--layout", "linux-x86_64"], "is for x86_64, linux-2.6-8k is for i386"),
        ([*ARTICLE, "--scenario", "nowhere"], "nowhere"),
        ([*ARTICLE, "--modules", "x.ko"], "goes with an image"),
        ([*ARTICLE, "--indirect", "strict"], "goes with an image"),
        (["/nonexistent", *ARTICLE], "No such file"),
    ],
)
def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], words: list[str], cause: str) -> None:
    assert main(["compare", *words]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert cause in err


def test_what_was_measured_stands_beside_the_layouts(
    storm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], validator: jsonschema.Draft202012Validator
) -> None:
    traces, document = tmp_path / "marks.traces", tmp_path / "compare.json"
    marks = (
        Mark("process", "init (1)", 3000, 8192, "user", "init"),
        Mark("hardirq", "CPU 0", 0, 8192, "cpu"),
    )
    traces.write_bytes(pack(marks_traces_json("i386", marks)))
    arguments = ["compare", *IMAGE, *ARTICLE, "--scenario", storm, "--traces", str(traces)]
    assert main(arguments) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "process: measured" in line]
    # 52 bytes of thread_info at the base are in use as well.
    assert rows[0][2:10] == ["3", "052", "B", "(37", "%)", "3", "052", "B"] and "init" in rows[0]
    assert main([*arguments, "--json", str(document)]) == 0
    found = json.loads(document.read_text())
    validator.validate(found)
    stacks = [stack for layout in found["verdicts"] for stack in layout["stacks"]]
    assert {stack["need"]["measured"] for stack in stacks if stack["name"] == "process"} == {3052}
    assert {stack["need"]["measured"] for stack in stacks if stack["name"] == "hardirq"} == {
        None
    }  # never used


def test_traces_go_with_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *ARTICLE, "--traces", str(tmp_path / "none")]) == 2
    assert "--traces: goes with an image" in capsys.readouterr().err
