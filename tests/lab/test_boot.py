"""One boot of Debian's amd64 kernel in QEMU: what its tracers record agrees with the analysis."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stackfit.analysis import analyse
from stackfit.lab.qemu import MachineOptions
from stackfit.lab.run import record
from stackfit.measure.model import Seen

NEEDED = ("qemu-system-x86_64", "busybox", "gcc")


@pytest.mark.kernel
@pytest.mark.slow
def test_a_booted_kernel_agrees_with_its_analysis(amd64_kernel: Any) -> None:
    for tool in NEEDED:
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}")
    if shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
        pytest.skip("no mke2fs")
    said: list[str] = []
    recording = record(
        Path(amd64_kernel.vmlinuz),
        [amd64_kernel.modules],
        ["threads", "files", "pipes"],
        MachineOptions(timeout=280),
        marks=True,
        told=said.append,
    )
    assert said.count("booted") == 2
    names = [chain.name for chain in recording.chains]
    assert names == ["lab boot", "lab threads", "lab files", "lab pipes"]
    # The second boot, without a tracer: marks of the tasks' stacks and of a CPU's.
    process = [mark.bytes for mark in recording.marks if mark.stack == "process"]
    assert len(process) > 40 and 1500 < max(process) < 8192
    (irq,) = [mark for mark in recording.marks if mark.stack == "irq"]
    assert irq.owner == "CPU 0" and 500 < irq.bytes < 8192
    analysis = replace(analyse([amd64_kernel.vmlinuz], [amd64_kernel.modules]), recordings=(recording,))
    sizes = analysis.sizes
    assert not sizes.unexplained
    assert not analysis.exercised.misses
    assert analysis.exercised.counts[Seen.DIRECT] > 20
    assert [deep.contexts for deep in analysis.exercised.deepest if not deep.contexts] == []
    needs = {need.stack.name: need for need in analysis.verdicts[0].stacks}
    assert needs["process"].measured is not None and 1500 < needs["process"].measured < 8192
    assert needs["irq"].measured == irq.bytes
    assert needs["entry"].measured and needs["entry"].measured_by == "mark of CPU 0"
    assert not analysis.defects(analysis.composer.context_needs(analysis.layouts[0]))
