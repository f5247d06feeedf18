"""Replayed free lists are those that the kernel printed, and what a trace does not say is never hidden."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackfit.image.model import InputError
from stackfit.pages import replay_constants as constants
from stackfit.pages.procfs import block_orders
from stackfit.pages.replay import Cause, Recording, Replay, Run, read_recording, replay
from stackfit.pages.replay_loop import apply_events
from stackfit.pages.trace import EVENT, Kind

RECORDINGS = Path(__file__).resolve().parents[2] / "fixtures" / "recordings"


@pytest.fixture(scope="module")
def plain() -> Recording:
    """Without probes: some returns and all isolations have no event of their own."""
    return read_recording(RECORDINGS / "pagetrace-i386")


@pytest.fixture(scope="module")
def result(plain: Recording) -> Replay:
    return replay(plain)


@pytest.fixture(scope="module")
def probed() -> Recording:
    return read_recording(RECORDINGS / "pagetrace-qemu")


def until(recording: Recording, number: int, events: np.ndarray) -> Recording:
    """The recording with other events, up to a snapshot."""
    trace = replace(recording.trace, events=events)
    return replace(recording, trace=trace, snapshots=recording.snapshots[: number + 1])


def off(run: Run) -> int:
    return abs(run.free_model - run.free_recorded)


def test_the_first_interval_is_exact(result: Replay) -> None:
    first = result.intervals[0]
    assert (first.start, first.target, first.exact, first.wrong_pages) == (0, 1, True, 0)
    assert first.events > 80_000 and first.taken > 13_000


def test_every_interval_is_within_a_thousandth_and_each_page_has_a_cause(result: Replay) -> None:
    assert [run.target for run in result.intervals] == [run.target for run in result.through] == [1, 2, 3, 4]
    for run in (*result.intervals, *result.through):
        assert off(run) <= run.free_recorded / 1000
        assert run.wrong_pages is not None and run.wrong_pages <= run.free_recorded / 1000
        assert run.differences is not None
        causes = {cause for cause, _, _ in run.causes} | {one.cause for one in run.differences}
        assert causes <= {Cause.PAST_LISTS, Cause.COMPACTED}


def test_what_is_missing_are_frees_past_the_per_cpu_list(plain: Recording, result: Replay) -> None:
    run = result.intervals[1]
    assert off(run) == 6 and run.differences is not None
    (one,) = run.differences
    assert one.missing and one.cause is Cause.PAST_LISTS and one.zone == (0, "Normal")
    events = plain.trace.events
    for first, count in one.frames:  # each a block that was freed, and that no drain names after that
        named = np.flatnonzero((events["pfn"] == first) & (events["kind"] != Kind.MARK))
        last = named[named < plain.snapshots[2].mark.begin][-1]
        assert events["kind"][last] == Kind.FREE and count == 1 << int(events["order"][last])


def test_with_probes_every_page_frame_is_right_and_nothing_is_impossible(probed: Recording) -> None:
    replayed = replay(probed)
    assert [run.target for run in replayed.intervals] == [1, 2, 3, 4, 5, 6]
    for run in (*replayed.intervals, *replayed.through):
        assert run.exact and np.array_equal(run.model, run.recorded)
        assert run.differences == () and run.wrong_pages == 0
        assert run.problems == () and not run.causes


def test_a_block_recorded_one_order_too_small_is_noticed(probed: Recording) -> None:
    events = probed.trace.events.copy()
    first = probed.snapshots[0].mark.end
    large = np.flatnonzero((events["kind"] == Kind.TAKE) & (events["order"] > 0))
    events["order"][large[large > first][0]] -= 1
    changed = replay(until(probed, len(probed.snapshots), events))
    assert not all(run.exact and not run.problems for run in changed.through)


def test_without_the_isolation_events_the_same_recording_is_not_exact(probed: Recording) -> None:
    events = probed.trace.events.copy()
    events["kind"][np.isin(events["kind"], (Kind.ISOLATE, Kind.SCAN))] = Kind.COMPACT
    wrong = [run for run in replay(until(probed, 4, events)).intervals if not run.exact]
    assert wrong and all(run.differences for run in wrong)


def test_a_dropped_event_is_noticed(plain: Recording) -> None:
    events = plain.trace.events.copy()
    begin, end = plain.snapshots[0].mark.end, plain.snapshots[1].mark.begin
    takes = np.flatnonzero(events["kind"] == Kind.TAKE)
    takes = takes[(takes > begin) & (takes < end)][:5]
    events["kind"][takes] = Kind.ALLOC  # allocated now, without having left the free lists
    run = replay(until(plain, 1, events)).intervals[0]
    assert Cause.UNKNOWN_TAKE in {cause for cause, _, _ in run.causes}
    assert {problem.index for problem in run.problems} >= set(takes.tolist())


# A small machine: zones of 40 and 88 pages, orders 0 to 4.
ORDERS, BORDER, PAGES = 5, 40, 128
ZONE = np.where(np.arange(PAGES) < BORDER, 0, 1).astype(np.int16)
Row = tuple[Kind, int, int]


def run_events(
    free: np.ndarray, rows: list[Row], direct: int = 4, cached: int = -1
) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
    """(page frames free afterwards, orders by first page frame, problems)"""
    events = np.zeros(len(rows), EVENT)
    for index, (kind, pfn, order) in enumerate(rows):
        events[index] = (index, pfn, 0, 0, 1 << order, 0, kind, order, -1)
    head = np.full(PAGES, -1, np.int8)
    starts, kinds = block_orders(free, ZONE, ORDERS)
    head[starts] = kinds
    counters, problems = np.zeros(constants.COUNTERS, np.int64), np.zeros((1000, 3), np.int64)
    columns = {name: np.ascontiguousarray(events[name]) for name in EVENT.names or ()}
    apply_events(
        columns["kind"], columns["order"], columns["pfn"], columns["end"], columns["scanned"],
        columns["taken"], 0, len(rows), ORDERS, direct, cached, True, head.data, ZONE.copy().data,
        np.zeros(PAGES, np.uint8).data, np.zeros(2, np.uint8).data, problems.data, counters.data,
    )  # fmt: skip
    after = np.zeros(PAGES, np.bool_)
    for start in np.flatnonzero(head >= 0).tolist():
        block = slice(start, start + (1 << int(head[start])))
        assert not after[block].any()  # no page in two blocks
        after[block] = True
    return after, head, problems[: counters[constants.PROBLEMS]].tolist()


KINDS = (Kind.TAKE, Kind.DRAIN, Kind.ALLOC, Kind.FREE, Kind.RETURN, Kind.ISOLATE)
ROWS = st.lists(
    st.integers(0, ORDERS - 1).flatmap(
        lambda order: st.tuples(
            st.sampled_from(KINDS),
            st.integers(0, (PAGES >> order) - 1).map(lambda number: number << order),
            st.just(order),
        )
    ),
    max_size=60,
)


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=PAGES, max_size=PAGES), ROWS)
def test_any_events_leave_the_pages_where_they_say_in_merged_blocks(
    pages: list[bool], rows: list[Row]
) -> None:
    rows = [row for row in rows if ZONE[row[1]] == ZONE[row[1] + (1 << row[2]) - 1]]
    after, head, problems = run_events(np.array(pages), rows)
    expected, contradicted = np.array(pages), set()
    for index, (kind, pfn, order) in enumerate(rows):
        block = slice(pfn, pfn + (1 << order))
        leaves = kind in (Kind.TAKE, Kind.ISOLATE)
        if not expected[block].all() if leaves else expected[block].any():
            contradicted.add(index)
        expected[block] = kind in (Kind.DRAIN, Kind.RETURN) or (kind is Kind.FREE and order >= 4)
    assert np.array_equal(after, expected)
    inside = {row[0] for row in problems if row[1] == constants.INSIDE}
    assert {row[0] for row in problems} - inside == contradicted
    for start in np.flatnonzero(head >= 0).tolist():  # free buddies are always merged
        order = int(head[start])
        buddy = start ^ (1 << order)
        assert start % (1 << order) == 0
        if order + 1 < ORDERS and buddy < PAGES and head[buddy] == order:
            assert ZONE[start] != ZONE[buddy]


@pytest.mark.parametrize(
    ("order", "direct", "cached", "returned"),
    [(4, 4, -1, True), (4, 4, 4, False), (3, 4, -1, False), (4, 5, -1, False)],
)
def test_a_free_returns_a_block_that_the_per_cpu_lists_do_not_hold(
    order: int, direct: int, cached: int, returned: bool
) -> None:
    after, _, problems = run_events(np.zeros(PAGES, np.bool_), [(Kind.FREE, 64, order)], direct, cached)
    assert after[64 : 64 + (1 << order)].all() == returned and not problems


def test_a_block_taken_from_inside_a_free_one_and_one_in_no_zone_are_listed() -> None:
    free = np.zeros(PAGES, np.bool_)
    free[64:80] = True
    after, _, problems = run_events(free, [(Kind.TAKE, 66, 1), (Kind.TAKE, PAGES, 0)])
    assert [row[:2] for row in problems] == [[0, constants.INSIDE], [1, constants.OUTSIDE]]
    assert after.sum() == 14 and not after[66:68].any()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A recording to damage: its first interval."""
    target = tmp_path / "recording"
    shutil.copytree(RECORDINGS / "pagetrace-qemu", target)
    return target


def test_without_kpageflags_at_the_end_causes_are_open(place: Path) -> None:
    (place / "kpageflags-1.gz").unlink()
    recording = read_recording(place)
    assert any("snapshot 1" in note for note in recording.notes)
    (run,) = replay(until(recording, 1, recording.trace.events)).through
    assert run.exact and run.differences is None and run.wrong_pages is None


@pytest.mark.parametrize("missing", ["buddyinfo-3", "zoneinfo-0", "events.csv.xz", "kpageflags-0.gz"])
def test_what_the_replay_needs_is_named_when_it_is_not_there(place: Path, missing: str) -> None:
    (place / missing).unlink()
    with pytest.raises(InputError, match=r"replay needs it|no events in it|no kpageflags to start"):
        replay(read_recording(place))


def test_flags_of_first_pages_only_are_refused(place: Path) -> None:
    (place / "kpageflags-0.gz").unlink()
    heads = np.where(np.arange(32768) % 1024 == 0, 1 << 10, 0).astype("<u8")
    (place / "kpageflags-0").write_bytes(heads.tobytes())
    with pytest.raises(InputError, match=r"before 4\.6"):
        read_recording(place)


def test_the_uncompiled_and_the_compiled_loop_use_the_same_numbers() -> None:
    pxd = (Path(constants.__file__).with_suffix(".pxd")).read_text(encoding="utf-8")
    declared = {name: int(value) for name, value in re.findall(r"^ +(\w+) = (\d+)$", pxd, re.M)}
    assert declared == {name: value for name, value in vars(constants).items() if name.isupper()}
    assert {kind.name: declared[kind.name] for kind in Kind} == dict(Kind.__members__)
