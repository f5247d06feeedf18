"""What the solver is given and what it answers. All sizes are bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bound", "ChainLink", "Limits"]


@dataclass(frozen=True, eq=False)
class Limits:
    """Assumptions put on the functions of one program, as arrays by function."""

    frame: NDArray[np.int32]  # greatest depth of the function's own code, dynamic bounds applied
    times: NDArray[np.int32]  # at most so often on a chain; 0 = not limited
    cut: NDArray[np.int32]  # bytes that stand for the function and all below it; -1 = not cut
    open_frame: NDArray[np.bool_]  # the frame itself is not bounded
    shift: NDArray[np.int32]  # added to the depth of the function's sites by a dynamic bound


@dataclass(frozen=True)
class ChainLink:
    """One frame of a chain: the function, and the site at which the next one starts (-1: the last)."""

    function: int
    site: int
    depth: int  # bytes of this frame at the site (the last: its frame)
    total: int  # bytes from the chain's start to the end of this frame


@dataclass(frozen=True)
class Bound:
    """The deepest chain below one entry.

    `upper`: no chain under the assumptions is deeper, open items aside. `found`: the deepest chain that was
    put together and respects each budget; `upper - found` is the gap.
    """

    upper: int
    found: int
    chain: tuple[ChainLink, ...]
    unlisted: tuple[int, ...]  # recursive functions without a budget that were counted once: no bound
