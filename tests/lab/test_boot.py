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
        told=said.append,
    )
    assert "booted" in said
    names = [chain.name for chain in recording.chains]
    assert names == ["lab boot", "lab threads", "lab files", "lab pipes"]
    analysis = replace(analyse([amd64_kernel.vmlinuz], [amd64_kernel.modules]), recordings=(recording,))
    sizes = analysis.sizes
    assert not sizes.unexplained
    assert not analysis.exercised.misses
    assert analysis.exercised.counts[Seen.DIRECT] > 20
    assert [deep.contexts for deep in analysis.exercised.deepest if not deep.contexts] == []
    process = analysis.verdicts[0].stacks[0]
    assert process.measured is not None and 1500 < process.measured < 8192
    assert not analysis.defects(analysis.composer.context_needs(analysis.layouts[0]))
