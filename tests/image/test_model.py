"""Addresses of each machine as instructions and data have them."""

from __future__ import annotations

import numpy as np
import pytest

from stackfit.image.model import Machine


@pytest.mark.parametrize(
    ("machine", "address", "signed"),
    [
        (Machine.I386, 0xC100_0000, -0x3F00_0000),
        (Machine.I386, 0x7FFF_FFFF, 0x7FFF_FFFF),
        (Machine.X86_64, 0xFFFF_FFFF_8100_0000, -0x7F00_0000),
    ],
)
def test_a_kernels_addresses_are_negative_and_come_back(machine: Machine, address: int, signed: int) -> None:
    found = machine.signed(np.array([address], np.uint64)).tolist()
    assert found == [signed]
    assert found[0] & machine.mask == address
