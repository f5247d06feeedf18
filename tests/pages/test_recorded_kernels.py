"""Real kernels' events, replayed, end at the free lists that the kernel itself printed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from stackfit.pages.replay import read_recording, replay
from stackfit.pages.trace import Kind

RECORDINGS = Path(__file__).parents[2] / "fixtures" / "recordings"


def test_a_recording_with_compaction_is_exact_at_every_snapshot() -> None:
    recording = read_recording(RECORDINGS / "pagetrace-qemu")
    result = replay(recording)
    assert [run.target for run in result.intervals] == [1, 2, 3, 4, 5, 6]
    for run in (*result.intervals, *result.through):
        assert np.array_equal(run.model, run.recorded)
        assert run.differences == () and run.problems == ()  # the same page frames, no impossible event


def test_a_block_recorded_one_order_too_small_is_noticed() -> None:
    recording = read_recording(RECORDINGS / "pagetrace-qemu")
    events = recording.trace.events.copy()
    first = recording.snapshots[0].mark.end
    large = np.flatnonzero(
        (events["kind"] == Kind.TAKE) & (events["order"] > 0) & (np.arange(len(events)) > first)
    )
    events["order"][large[0]] -= 1
    result = replay(replace(recording, trace=replace(recording.trace, events=events)))
    assert not all(run.exact and not run.problems for run in result.through)
