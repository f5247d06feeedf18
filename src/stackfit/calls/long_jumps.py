"""Where longjmp() goes: not deeper. It leaves for a function that is still active (C11 7.13.2.1: the one that
called setjmp() has not returned), whose frame lies above; the jump that ends it is no call."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stackfit.calls.model import CallKind
from stackfit.image.functions import Functions

__all__ = ["long_jumps"]

_NAMES = ("longjmp", "_longjmp", "__longjmp", "siglongjmp")
_LEAVING = (CallKind.INDIRECT_TAIL, CallKind.STACK_SWITCH)


def long_jumps(
    functions: Functions, function: NDArray[np.int32], kind: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """Which sites (their functions and CallKinds) are the jumps that end longjmp()."""
    members = [index for name in _NAMES for index in functions.named(name)]
    return np.isin(function, members) & np.isin(kind, _LEAVING)
