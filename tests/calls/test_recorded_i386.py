"""Calls that a running i386 kernel made, held against the call graph with debug information.

The kernel's own calls alone: its modules are not analysed here (docs/measuring.md has both).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stackfit.analysis import analyse
from stackfit.measure.files import read_recording
from stackfit.measure.model import Seen

RECORDING = Path(__file__).resolve().parents[2] / "fixtures" / "recordings" / "calledges-i386"
BUILD_ID = "e53bebc4fd9b0992c212d7b0f7f84237a970890d"


@pytest.mark.kernel
def test_a_running_kernel_called_next_to_nothing_else(i386_kernel: Any, i386_vmlinux: Path) -> None:
    analysis = analyse([i386_kernel.vmlinuz], debug=i386_vmlinux)
    build_id = analysis.program.images[0].build_id
    if build_id != BUILD_ID:
        pytest.skip(f"the recording is of build-id {BUILD_ID}, this kernel is {build_id}")
    recording = read_recording(RECORDING / "judgement.csv.xz")
    own = tuple(pair for pair in recording.pairs if not pair[2].section and not (pair[0] and pair[0].section))
    analysis = replace(analysis, recordings=(replace(recording, pairs=own),))
    ran = analysis.exercised
    names = analysis.code.functions.names
    missed = [f"{miss.back:#x} {names[miss.caller]} → {names[miss.callee]}" for miss in ran.misses]
    assert ran.counts[Seen.NO_SITE] == 0
    assert sum(ran.counts.values()) >= 15_000 and ran.counts[Seen.INDIRECT] >= 1_400
    # A function of the kernel that only a module's struct has.
    assert [miss.split(" ", 1)[1] for miss in missed] == ["dev_get_stats → dev_get_tstats64"]
    # Not known even with debug information: no more than measured.
    assert ran.counts[Seen.OPEN] <= 0.08 * (ran.counts[Seen.INDIRECT] + ran.counts[Seen.OPEN])
    # The irq stacks' calls return behind a retpoline that stands in the code.
    switched = [names[function] for function in np.unique(analysis.traces.caller).tolist()]
    assert {"call_on_stack", "__handle_irq"} <= set(switched)
