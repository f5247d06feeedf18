"""From a recording to the ladder, on the sample kernel: a chain as the stack tracer would print it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from recorded import RANDOM_OFFSET, need_of, rows_of, text_of
from stackfit.analysis import Analysis, analyse
from stackfit.cli.main import main
from stackfit.image.model import InputError
from stackfit.measure.files import marks_traces_json, pack, read_recording, traces_json
from stackfit.measure.model import Mark, Seen
from stackfit.measure.parse import parse_recording
from stackfit.measure.sizes import Rule
from stackfit.report.json import check_json
from stackfit.report.marks import marks_json
from stackfit.report.traces import coverage_json, trace_json
from stackfit.verdict.model import Verdict

SAMPLE = Path(__file__).resolve().parents[2] / "fixtures" / "sample" / "bin" / "x86_64"
SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
TITLE = "syscall exit (x86-64)"


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyse([SAMPLE / "vmlinux"], [SAMPLE / "vendor_blob.ko"])


def recorded(analysis: Analysis, *texts: str) -> Analysis:
    found = tuple(parse_recording(f"recording {number}", text) for number, text in enumerate(texts))
    return replace(analysis, recordings=found)


def unsized(rows: list[tuple[str, int, int]]) -> str:
    return text_of(rows).replace("/0x1000", "")


@pytest.fixture(scope="module")
def rows(analysis: Analysis) -> list[tuple[str, int, int]]:
    return rows_of(analysis, need_of(analysis, TITLE))


def test_a_chain_as_deep_as_the_static_one_is_equal_row_by_row(
    analysis: Analysis, rows: list[tuple[str, int, int]]
) -> None:
    with_chain = recorded(analysis, unsized(rows))
    sizes = with_chain.sizes
    assert sizes.counts[Rule.ENTERED] == sizes.counts[Rule.ENTRY] == 1
    assert sizes.counts[Rule.VARIABLE] == 1  # do_syscall_64
    assert sizes.counts[Rule.EQUAL] == len(rows) - 3
    assert not sizes.unexplained


def test_measured_is_the_depth_at_which_the_innermost_function_was_entered(
    analysis: Analysis, rows: list[tuple[str, int, int]]
) -> None:
    with_chain = recorded(analysis, unsized(rows))
    need = need_of(with_chain, TITLE)
    assert need.chain is not None and need.measured is not None
    innermost = need.chain.chain[-1].depth
    # The static chain has the random offset's greatest size, the recorded one none.
    random = need.entry_bytes - 168 - RANDOM_OFFSET
    word = 8  # the return address of the innermost function, which is in its frame
    assert need.measured == need.direct - random - innermost + word
    assert need.composed == need.direct  # every edge of the chain was seen
    others = [one for one in with_chain.composer.context_needs(with_chain.layouts[0]) if one.measured]
    assert [one.context.title for one in others] == [TITLE]
    assert not with_chain.defects([need])


def test_the_ladder_holds_for_stacks_and_only_measured_can_exceed(
    rows: list[tuple[str, int, int]], tmp_path: Path
) -> None:
    layout = tmp_path / "tiny.toml"
    layout.write_text(
        'name = "tiny"\nmachine = "x86_64"\nsource = "a test"\nassumptions = []\n'
        '[stack.process]\nper = "process"\n'
        'size = 512\nallocation = "vmalloc"\nreserve_base = 8\nreserve_top = 0\nruns = ["syscall"]\n'
    )
    analysis = analyse([SAMPLE / "vmlinux"], layouts=[layout])
    (need,) = analysis.verdicts[0].stacks
    assert need.measured is None and need.verdict is not Verdict.EXCEEDS
    (need,) = recorded(analysis, unsized(rows)).verdicts[0].stacks
    assert need.verdict is Verdict.EXCEEDS and need.measured is not None and need.composed is not None
    assert 512 < need.measured <= need.composed <= need.direct  # type: ignore[operator]


def test_a_size_that_no_rule_explains_is_shown_and_is_the_status(
    rows: list[tuple[str, int, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = [(name, offset, size + 40 * (name == "vprintk")) for name, offset, size in rows]
    file = tmp_path / "stack_trace"
    arguments = ["measure", "trace", str(SAMPLE / "vmlinux"), str(file)]
    file.write_text(unsized(rows))
    assert main(arguments) == 0
    file.write_text(unsized(wrong))
    assert main(arguments) == 1
    printed = capsys.readouterr().out
    assert "Not explained" in printed and "vprintk 312 B, static 272 B" in printed


def test_rows_that_make_up_for_each_other_are_stale_copies(
    analysis: Analysis, rows: list[tuple[str, int, int]]
) -> None:
    shift = {"vprintk": 16, "_printk": -16}
    moved = [(name, offset, size + shift.get(name, 0)) for name, offset, size in rows]
    with_chain = recorded(analysis, unsized(moved))
    sizes = with_chain.sizes
    assert sizes.counts[Rule.STALE] == 2 and not sizes.unexplained


def test_a_call_that_is_no_edge_is_a_miss(analysis: Analysis) -> None:
    site = next(
        one
        for one in range(len(analysis.calls))
        if analysis.calls.return_address[one] and not analysis.calls.reason[one]
    )
    (wrong,) = analysis.code.functions.named("__x64_sys_poll")
    back, callee = int(analysis.calls.return_address[site]), int(analysis.code.functions.address[wrong])
    with_edges = recorded(analysis, f"return_address,callee\n{back:#x},{callee:#x}\n")
    assert with_edges.exercised.counts[Seen.NOT_IN_GRAPH] == 1
    assert [miss.callee for miss in with_edges.exercised.misses] == [wrong]


def test_a_traces_file_reads_back_as_it_was(
    analysis: Analysis, rows: list[tuple[str, int, int]], tmp_path: Path
) -> None:
    with_chain = recorded(analysis, unsized(rows))
    document = traces_json(with_chain.program, with_chain.code, with_chain.traces)
    file = tmp_path / "all.traces"
    file.write_bytes(pack(document))
    again = replace(analysis, recordings=(read_recording(file),))
    assert traces_json(again.program, again.code, again.traces) == document
    assert need_of(again, TITLE).measured == need_of(with_chain, TITLE).measured


def test_another_kernel_is_refused(analysis: Analysis, tmp_path: Path) -> None:
    document = traces_json(analysis.program, analysis.code, analysis.traces)
    document["image"]["build_id"] = "00"
    file = tmp_path / "other.traces"
    file.write_bytes(pack(document))
    other = replace(analysis, recordings=(read_recording(file),))
    if analysis.program.images[0].build_id is None:
        pytest.skip("the sample has no build-id")
    with pytest.raises(InputError, match="recorded on the kernel with build-id 00"):
        _ = other.traces


def test_symbols_of_other_sizes_are_another_kernel(
    analysis: Analysis, rows: list[tuple[str, int, int]]
) -> None:
    text = "".join(text_of(rows) for _ in range(4))
    with pytest.raises(InputError, match="recorded on another kernel"):
        _ = recorded(analysis, text).traces


@pytest.mark.parametrize("document", ['{"schema": "stackfit.traces/1"}', '{"schema": "other"}', "{}", "{"])
def test_a_broken_traces_file_is_one_line(document: str, tmp_path: Path) -> None:
    file = tmp_path / "broken"
    file.write_text(document)
    with pytest.raises(InputError) as error:
        read_recording(file)
    assert "\n" not in str(error.value)


def test_check_says_what_the_rungs_rest_on(analysis: Analysis, rows: list[tuple[str, int, int]]) -> None:
    document = check_json(recorded(analysis, unsized(rows)))
    assert document["recorded"]["chains"] == 1 and document["recorded"]["defects"] == []
    (context,) = [one for one in document["contexts"] if one["measured"]]
    assert [row["function"] for row in context["composed_chain"]][-1] == rows[0][0]
    json.dumps(document)


def test_every_output_is_what_its_schema_says(analysis: Analysis, rows: list[tuple[str, int, int]]) -> None:
    with_chain = recorded(analysis, unsized(rows))
    marks = (Mark("process", "0xffffc90000000000", 900, 16384),)
    documents = [
        trace_json(with_chain),
        coverage_json(with_chain),
        traces_json(with_chain.program, with_chain.code, with_chain.traces),
        marks_traces_json("x86_64", marks),
        marks_json("core", "x86_64", marks),
        marks_json("core", "i386", ()),
    ]
    for document in documents:
        name = document["schema"].replace("/", "-")
        schema = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(document)))


def test_a_mark_is_measured_of_its_stack(analysis: Analysis, tmp_path: Path) -> None:
    file = tmp_path / "marks.traces"
    file.write_bytes(pack(marks_traces_json("x86_64", (Mark("process", "0xffffc90000000000", 900, 16384),))))
    marked = replace(analysis, recordings=(read_recording(file),))
    (process,) = [need for need in marked.verdicts[0].stacks if need.stack.name == "process"]
    assert process.measured == 900 + process.stack.reserve_base
    assert process.measured_by == "mark of 0xffffc90000000000"
    assert trace_json(marked)["marks"] == [
        {"stack": "process", "stacks": 1, "greatest": 900, "size": 16384, "owner": "0xffffc90000000000"}
    ]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"image": {"machine": "sparc", "release": None, "build_id": None}}, "not a traces file"),
        ({"image": None}, "not a traces file"),
        (
            {"marks": [{"stack": "process", "owner": "", "bytes": 9, "size": 8}]},
            "a mark deeper than its stack",
        ),
        ({"marks": [{"stack": "process", "owner": "", "bytes": -1, "size": 8}]}, "not a traces file"),
    ],
)
def test_a_traces_file_that_cannot_be_is_one_line(
    change: dict[str, object], cause: str, tmp_path: Path
) -> None:
    file = tmp_path / "odd.traces"
    file.write_bytes(pack({**marks_traces_json("x86_64", ()), **change}))
    with pytest.raises(InputError, match=cause):
        read_recording(file)


def test_marks_of_another_machine_are_refused(analysis: Analysis, tmp_path: Path) -> None:
    file = tmp_path / "marks.traces"
    file.write_bytes(pack(marks_traces_json("i386", (Mark("process", "a", 900, 8192),))))
    marked = replace(analysis, recordings=(read_recording(file),))
    with pytest.raises(InputError, match="recorded on i386"):
        _ = marked.traces


def test_marks_are_not_held_against_composed(analysis: Analysis, rows: list[tuple[str, int, int]]) -> None:
    """Nobody recorded a mark's calls: it may be deeper than what was composed."""
    with_chain = recorded(analysis, unsized(rows))
    (recording,) = with_chain.recordings
    deep = replace(recording, marks=(Mark("process", "a", 16000, 16384, "user", "a"),))
    marked = replace(analysis, recordings=(deep,))
    (process,) = [need for need in marked.verdicts[0].stacks if need.stack.name == "process"]
    assert process.measured == 16008 and process.composed is not None and process.composed < 16000
    assert marked.defects(marked.composer.context_needs(marked.layouts[0])) == []


def test_what_passes_a_module_that_was_not_given_is_open(
    analysis: Analysis, rows: list[tuple[str, int, int]]
) -> None:
    """Its frames are measured, what they call is not known here: no defect."""
    text = text_of(rows).splitlines()
    place = next(number for number, one in enumerate(text) if one.lstrip().startswith("2)"))
    head, _, _ = text[place].rpartition(" ")
    text[place] = f"{head} some_function+0x20/0x100 [vendor]"
    passed = recorded(analysis, "\n".join(text) + "\n")
    document = check_json(passed)
    assert document["recorded"]["missing_modules"] == {"vendor": 1}
    assert document["recorded"]["defects"] == []
    assert trace_json(passed)["defects"] == 0 and trace_json(passed)["missing_modules"] == {"vendor": 1}


def test_the_ladder_has_the_gap_of_each_rung(analysis: Analysis, rows: list[tuple[str, int, int]]) -> None:
    (one,) = [row for row in coverage_json(recorded(analysis, unsized(rows)))["ladder"] if row["measured"]]
    assert one["holds"] and one["gaps"]["composed"] == one["composed"] - one["measured"] >= 0
    assert one["gaps"]["bound"] == (None if one["bound"] is None else one["bound"] - one["composed"])
