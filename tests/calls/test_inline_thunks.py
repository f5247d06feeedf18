"""Retpolines that stand in the code, as alternatives of an indirect call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stackfit.analysis import analyse
from stackfit.calls.inline_thunks import inline_thunks
from stackfit.image.tables import read_tables


@pytest.mark.kernel
def test_a_call_site_has_the_return_address_that_its_retpoline_leaves(i386_kernel: Any) -> None:
    analysis = analyse([i386_kernel.vmlinuz])
    code, calls = analysis.code, analysis.calls
    alternatives = read_tables(analysis.program).alternatives
    thunks = inline_thunks(code, alternatives)
    assert len(thunks) >= 2  # call_on_stack and __handle_irq at least
    owners = set()
    for place, backs in thunks.items():
        lengths = alternatives.length[alternatives.place == np.uint64(place)]
        for back in backs:
            # Behind the last call of a replacement, which fills the place: execution goes on there.
            assert place < back <= place + int(lengths.max())
            sites = np.flatnonzero(calls.return_address == np.uint64(back))
            assert sites.size and set(calls.address[sites].tolist()) == {place}
            (same,) = np.flatnonzero((calls.address == np.uint64(place)) & (calls.return_address < back))
            assert calls.depth[sites[0]] == calls.depth[same] and calls.kind[sites[0]] == calls.kind[same]
            owners.update(code.functions.names[int(one)] for one in calls.function[sites])
    assert {"call_on_stack", "__handle_irq"} <= owners
