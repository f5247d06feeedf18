"""Traces in every format that recorders write come out as the same events; damaged ones are refused."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackfit.image.model import InputError
from stackfit.pages.trace import Kind, Mark, parse_trace, read_trace, write_csv

RECORDINGS = Path(__file__).resolve().parents[2] / "fixtures" / "recordings"

CSV = b"""# a comment
1000000,1,print,ip=3239501041,SNAP 0 begin
2000000,1,print,SNAP 0 end
7229941191,1,mm_page_alloc_zone_locked,pfn=16038,order=1,migratetype=0,percpu_refill=1
7229941192,12,mm_page_alloc,pfn=16038,order=1,gfp_flags=4197824,migratetype=0
7229941193,12,mm_page_alloc,pfn=4294967295,order=4,gfp_flags=4197824,migratetype=0
7229941194,12,mm_page_free,pfn=16038,order=1
7229941195,12,mm_page_free_batched,pfn=16038
7229941196,12,mm_page_pcpu_drain,pfn=16038,order=1,migratetype=1
7229941197,27,mm_compaction_begin,zone_start=4096,migrate_pfn=4096,zone_end=32730,sync=1
7229941198,27,mm_compaction_isolate_freepages,start_pfn=29696,end_pfn=30720,nr_scanned=1024,nr_taken=30
"""

TRACEFS = b"""# tracer: nop
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
  init-1       [000] .....     0.001000: tracing_mark_write: SNAP 0 begin
  init-1       [000] .....     0.002000: tracing_mark_write: SNAP 0 end
  init-1       [000] d..1.     7.229941191: mm_page_alloc_zone_locked: page=c3a51f5e pfn=0x3ea6 order=1 migratetype=0
  odd [na]me -12 [000] .....   7.229941192: mm_page_alloc: page=c3a51f5e pfn=0x3ea6 order=1 migratetype=0 gfp_flags=X
  sh-12        [000] .....     7.229941193: mm_page_alloc: page=00000000 pfn=0x0 order=4 migratetype=0 gfp_flags=X
  sh-12        [000] .....     7.229941194: mm_page_free: page=c3a51f5e pfn=0x3ea6 order=1
  sh-12        [000] .....     7.229941195: mm_page_free_batched: page=c3a51f5e pfn=0x3ea6 order=0
  sh-12        [000] d..2.     7.229941196: mm_page_pcpu_drain: page=c3a51f5e pfn=0x3ea6 order=1 migratetype=1
  kcompactd0-27 [000] .....    7.229941197: mm_compaction_begin: zone_start=0x1000 zone_end=0x7fda, mode=sync
  kc-27        [000] .....     7.229941198: mm_compaction_isolate_freepages: range=(0x7400 ~ 0x7800) nr_scanned=1024 nr_taken=30
"""  # noqa: E501


def trace_cmd() -> bytes:
    """trace-cmd report: no column of flags, a header, marks as `print`."""
    rows = [b"cpus=1"]
    for row in TRACEFS.splitlines()[2:]:
        head, rest = row.split(b"] ", 1) if b"[na]me" not in row else row.rsplit(b"] ", 1)
        fields = rest.split(None, 1)[1]
        fields = fields.replace(b"tracing_mark_write:", b"print:        tracing_mark_write:")
        rows.append(head + b"]  " + fields)
    return b"\n".join(rows) + b"\n"


def perf_script() -> bytes:
    """perf script: the subsystem before the event."""
    rows = []
    for row in trace_cmd().splitlines()[1:]:
        head, rest = row.split(b"]  ", 1)
        time, name, more = rest.split(b": ", 2)
        rows.append(head.replace(b"-", b" ") + b"] " + time + b": kmem:" + name + b": " + more)
    return b"\n".join(rows) + b"\n"


@pytest.mark.parametrize(
    "text", [CSV, TRACEFS, trace_cmd(), perf_script()], ids=["csv", "tracefs", "trace-cmd", "perf"]
)
def test_every_format_gives_the_same_events(text: bytes) -> None:
    trace = parse_trace("t", text)
    events = trace.events
    assert [Kind(kind).name for kind in events["kind"]] == [
        "MARK", "MARK", "TAKE", "ALLOC", "FREE", "DRAIN", "COMPACT", "SCAN",
    ]  # fmt: skip
    assert trace.marks == (Mark(0, 0, 1),)
    assert events["time"].tolist()[:3] == [1_000_000, 2_000_000, 7_229_941_191]
    assert events["task"].tolist() == [1, 1, 1, 12, 12, 12, 27, 27]
    assert events["pfn"].tolist()[2:] == [16038, 16038, 16038, 16038, 4096, 29696]
    assert events["order"].tolist()[2:] == [1, 1, 1, 1, -1, -1]
    assert events["migratetype"].tolist()[2:6] == [0, 0, -1, 1]
    assert events["end"].tolist()[6:] == [32730, 30720]
    assert (events["scanned"][7], events["taken"][7]) == (1024, 30)
    assert trace.lost == 0 and trace.backwards == 0 and trace.other >= 2


def test_lost_events_and_time_that_runs_backwards_are_told() -> None:
    text = TRACEFS + b"CPU:0 [LOST 17 EVENTS]\n  sh-1 [001] ..... 1.0: mm_page_free: pfn=0x10 order=0\n"
    trace = parse_trace("t", text)
    assert trace.lost == 17 and trace.backwards == 1
    assert parse_trace("t", write_csv(trace).encode()).lost == 17


def test_what_is_converted_reads_as_the_same_trace() -> None:
    trace = read_trace(RECORDINGS / "pagetrace-qemu" / "events.csv.xz")
    again = parse_trace("t", write_csv(trace).encode())
    assert np.array_equal(trace.events, again.events) and trace.marks == again.marks


def test_compression_is_told_by_content(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(lzma.compress(CSV))
    assert np.array_equal(read_trace(path).events, parse_trace("t", CSV).events)


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        (b"1,1,mm_page_free,pfn=1,order=1", "starts no block"),
        (b"1,1,mm_page_free,pfn=1", "a field is missing"),
        (b"1,1,mm_page_free,pfn=99999999999,order=0", "no number from 0"),
        (b"1,1,mm_page_free,pfn=0,order=32", "no number from 0"),
        (b"1,1,mm_compaction_begin,zone_start=9,zone_end=3", "ends before"),
        (b"1,1,print,SNAP 1 end", "did not begin"),
        (b"1,1,print,SNAP 1 begin", "does not end"),
        (b"1,1,print,SNAP 0 begin\n1,1,print,SNAP 0 end", "comes after"),
        (b"nonsense", "not TIME"),
        (b"1,1," + b"x" * 5000, "longer than"),
    ],
)
def test_a_damaged_line_is_named(row: bytes, cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        parse_trace("t", CSV + row + b"\n")


def test_a_file_without_events_is_refused() -> None:
    for text in (b"", b"hello\n", b"\0" * 100):
        with pytest.raises(InputError, match="no page-allocator events"):
            parse_trace("t", text)


PIECES = st.sampled_from([b"-1", b"0x", b"\n", b"pfn=0xffffffff", b"SNAP 0 begin", b"[9] 1.1: "])


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([CSV, TRACEFS]), st.integers(0, 1300), st.integers(0, 60), st.binary(max_size=30) | PIECES
)
def test_damage_is_read_or_refused_in_one_line(text: bytes, at: int, gone: int, put: bytes) -> None:
    try:
        parse_trace("t", text[:at] + put + text[at + gone :])
    except InputError as error:
        assert str(error).startswith("t") and "\n" not in str(error)
